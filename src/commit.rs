//! The way to the disk: group commit.
//!
//! Requests that wait in one instance join one statement, and so one fsync.
//! The statement runs synchronously: while it does, nothing else of the
//! instance runs, so at every `await` a batch is either waiting or settled,
//! never half-way. That is all the synchronisation there is. A request that
//! finds its batch settled by another has nothing left to do; nobody has to be
//! woken by anybody, and a client that goes away takes nothing with it but its
//! own batch.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::event::Event;
use crate::event_log::{self, Outcome};
use crate::ports::{Fault, Ports, StoreError};

/// First pause before a busy store is asked again; doubled each time.
const PAUSE_MS_MIN: u64 = 1;

/// Longest pause.
const PAUSE_MS_MAX: u64 = 8;

/// Most events in one statement, unless one request has more.
const GROUP_EVENTS_MAX: usize = 2_000;

/// Most bytes of payload in one statement, unless one request has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most events that wait in one instance, unless one request has more.
const WAITING_EVENTS_MAX: usize = 40_000;

/// Most bytes of payload that wait in one instance, unless one request has more.
const WAITING_BYTES_MAX: usize = 24 * 1024 * 1024;

type Settled = Result<Vec<Outcome>, StoreError>;

/// What one request brings, and what came of it.
struct Batch {
    events: Rc<Vec<Event>>,
    rejected: usize,
    bytes: usize,
    settled: RefCell<Option<Settled>>,
}

/// The batches that wait in one instance.
#[derive(Default)]
pub struct Group {
    waiting: RefCell<VecDeque<Rc<Batch>>>,
    led: Cell<bool>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("waiting", &self.waiting.borrow().len()).finish()
    }
}

impl Group {
    /// Events that wait.
    pub fn depth(&self) -> usize {
        self.waiting.borrow().iter().map(|batch| batch.events.len()).sum()
    }

    /// Lets a batch wait.
    ///
    /// # Errors
    ///
    /// Busy, when too much waits already: memory is bounded, and a client can
    /// wait as well as we can.
    fn join(&self, batch: &Rc<Batch>) -> Result<(), StoreError> {
        let events = self.depth();
        let mut waiting = self.waiting.borrow_mut();
        let bytes: usize = waiting.iter().map(|batch| batch.bytes).sum();
        if !waiting.is_empty()
            && (events + batch.events.len() > WAITING_EVENTS_MAX
                || bytes + batch.bytes > WAITING_BYTES_MAX)
        {
            return Err(busy("too much waits to be committed"));
        }
        waiting.push_back(Rc::clone(batch));
        Ok(())
    }

    /// The batches of the next statement, oldest first.
    fn next(&self) -> Vec<Rc<Batch>> {
        let mut waiting = self.waiting.borrow_mut();
        let (mut events, mut bytes) = (0, 0);
        let mut fit = 0;
        for batch in waiting.iter() {
            events += batch.events.len();
            bytes += batch.bytes;
            if fit > 0 && (events > GROUP_EVENTS_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            fit += 1;
        }
        waiting.drain(..fit).collect()
    }

    /// Puts batches back to the front, in their order.
    fn put_back(&self, batches: Vec<Rc<Batch>>) {
        let mut waiting = self.waiting.borrow_mut();
        for batch in batches.into_iter().rev() {
            waiting.push_front(batch);
        }
    }
}

/// Takes a batch out of the group when its request ends, however it ends.
struct Place<'a> {
    group: &'a Group,
    batch: Rc<Batch>,
    leads: bool,
}

impl Place<'_> {
    /// Becomes the leader, if there is no other.
    fn take_lead(&mut self) -> bool {
        if !self.leads {
            self.leads = !self.group.led.replace(true);
        }
        self.leads
    }

    fn give_up_lead(&mut self) {
        if std::mem::take(&mut self.leads) {
            self.group.led.set(false);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.group.waiting.borrow_mut().retain(|batch| !Rc::ptr_eq(batch, &self.batch));
        self.give_up_lead();
    }
}

/// Stores a batch and counts `rejected` deliveries with it, in one commit.
/// It is on disk when this returns. Outcomes are in the order of `events`.
///
/// # Errors
///
/// The store's last word when the deadline (`commit_wait_ms_max`) has passed,
/// or at once when waiting does not help. Nothing is stored then.
pub async fn commit(
    ports: &impl Ports,
    config: &Config,
    events: &Rc<Vec<Event>>,
    rejected: usize,
) -> Result<Vec<Outcome>, StoreError> {
    let group = &ports.instance().group;
    let bytes = events.iter().map(|event| event.payload.len()).sum();
    let batch =
        Rc::new(Batch { events: Rc::clone(events), rejected, bytes, settled: RefCell::new(None) });
    group.join(&batch)?;
    let mut place = Place { group, batch, leads: false };
    let deadline = ports.monotonic() + config.commit_wait_max;
    let mut pause = PAUSE_MS_MIN;
    // Whoever else is ready to commit comes to wait here too.
    ports.yield_now().await;
    loop {
        if let Some(settled) = place.batch.settled.borrow_mut().take() {
            return settled;
        }
        if place.take_lead() {
            match lead(ports, group).await {
                Ok(()) => {
                    place.give_up_lead();
                    pause = PAUSE_MS_MIN;
                    continue;
                }
                Err(error) if ports.monotonic() >= deadline => return Err(error),
                Err(_) => {}
            }
        } else if ports.monotonic() >= deadline {
            return Err(busy("the group that this request waits in is not committed in time"));
        }
        ports.sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(PAUSE_MS_MAX);
    }
}

/// Commits the next batches in one statement. `Err` when the store is busy:
/// they wait on.
async fn lead(ports: &impl Ports, group: &Group) -> Result<(), StoreError> {
    let batches = group.next();
    match append(ports, &batches).await {
        Err(error) if error.fault == Fault::Busy => {
            group.put_back(batches);
            return Err(error);
        }
        Err(error) if batches.len() == 1 => settle(&batches[0], Err(error)),
        // It may be the fault of one of them: each gets a statement of its own.
        Err(_) => {
            for batch in batches {
                let alone = append(ports, std::slice::from_ref(&batch)).await;
                settle(&batch, alone);
            }
        }
        Ok(mut outcomes) => {
            for batch in batches {
                let rest = outcomes.split_off(batch.events.len().min(outcomes.len()));
                settle(&batch, Ok(outcomes));
                outcomes = rest;
            }
        }
    }
    Ok(())
}

fn busy(message: &str) -> StoreError {
    StoreError { fault: Fault::Busy, message: message.to_owned() }
}

fn settle(batch: &Batch, settled: Settled) {
    batch.settled.replace(Some(settled));
}

async fn append(ports: &impl Ports, batches: &[Rc<Batch>]) -> Settled {
    let now = ports.now();
    event_log::ensure_ready(ports, now).await?;
    let events: Vec<&Event> = batches.iter().flat_map(|batch| batch.events.iter()).collect();
    let rejected = batches.iter().map(|batch| batch.rejected).sum();
    event_log::append(ports, now, &events, rejected).await
}

/// Runs `attempt` on a connection that is ready, until it ends in something
/// else than [`Fault::Busy`], for `wait_max` at most.
///
/// # Errors
///
/// Those of the last attempt.
pub async fn patiently<T>(
    ports: &impl Ports,
    wait_max: Duration,
    attempt: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = ports.monotonic() + wait_max;
    let mut pause = PAUSE_MS_MIN;
    loop {
        let result = match event_log::ensure_ready(ports, ports.now()).await {
            Ok(()) => attempt().await,
            Err(error) => Err(error),
        };
        match result {
            Err(error) if error.fault == Fault::Busy && ports.monotonic() < deadline => {
                ports.sleep(Duration::from_millis(pause)).await;
                pause = (pause * 2).min(PAUSE_MS_MAX);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::testing::{Desk, all, config, now};

    fn events(ids: &[&str], payload: &str) -> Rc<Vec<Event>> {
        let event = |id: &&str| {
            let json =
                format!(r#"{{"topic":"t","event_id":"{id}","source":"s","payload":{payload}}}"#);
            Event::parse(&RawValue::from_string(json).unwrap()).unwrap()
        };
        Rc::new(ids.iter().map(event).collect())
    }

    fn many(prefix: &str, count: usize) -> Rc<Vec<Event>> {
        let ids: Vec<String> = (0..count).map(|id| format!("{prefix}-{id}")).collect();
        events(&ids.iter().map(String::as_str).collect::<Vec<_>>(), "1")
    }

    fn desk() -> Desk {
        let desk = Desk::new();
        now(event_log::ensure_ready(&desk, 0)).unwrap();
        desk.statements.borrow_mut().clear();
        desk
    }

    fn commits(desk: &Desk, batches: &[Rc<Vec<Event>>]) -> Vec<Settled> {
        let config = config();
        all(batches.iter().map(|events| commit(desk, &config, events, 0)).collect())
    }

    fn accepted(settled: &Settled) -> usize {
        let outcomes = settled.as_ref().unwrap();
        outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count()
    }

    #[test]
    fn requests_that_wait_join_one_statement() {
        let desk = desk();
        let settled = commits(
            &desk,
            &[events(&["a", "b"], "1"), events(&["b", "c", "c"], "1"), events(&["a", "d"], "2")],
        );
        assert_eq!(desk.statements.borrow().len(), 1);
        let settled: Vec<_> = settled.into_iter().map(Result::unwrap).collect();
        let accepted = |seq| Outcome::Accepted { seq };
        assert_eq!(settled[0], [accepted(1), accepted(2)]);
        assert_eq!(settled[1], [Outcome::Duplicate, accepted(3), Outcome::Duplicate]);
        assert_eq!(settled[2], [Outcome::Conflict, accepted(4)]);
        assert_eq!(desk.instance().group.depth(), 0);
    }

    #[test]
    fn waits_while_the_store_is_busy_and_no_longer_than_allowed() {
        let desk = desk();
        desk.faults.replace(vec![Fault::Busy; 5]);
        assert_eq!(now(commit(&desk, &config(), &Rc::default(), 1)).unwrap(), []);
        assert_eq!(desk.slept.get(), Duration::from_millis(1 + 2 + 4 + 8 + 8));

        desk.faults.replace(vec![Fault::Busy; 100_000]);
        let waited_before = desk.slept.get();
        let settled = commits(&desk, &[events(&["a"], "1"), events(&["b"], "1")]);
        for settled in settled {
            assert_eq!(settled.unwrap_err().fault, Fault::Busy);
        }
        assert!(desk.slept.get() - waited_before >= config().commit_wait_max);
        assert_eq!(desk.instance().group.depth(), 0, "nothing waits on");

        desk.faults.replace(Vec::new());
        assert_eq!(
            accepted(&commits(&desk, &[events(&["a", "b"], "1")])[0]),
            2,
            "nothing was stored"
        );
    }

    #[test]
    fn what_comes_while_a_group_waits_joins_it() {
        let desk = desk();
        desk.faults.replace(vec![Fault::Busy; 3]);
        let batches: Vec<_> = (0..20).map(|id| many(&id.to_string(), 3)).collect();
        let settled = commits(&desk, &batches);
        assert!(settled.iter().all(|settled| accepted(settled) == 3));
        assert_eq!(desk.statements.borrow().len(), 4);
    }

    #[test]
    fn does_not_wait_for_what_does_not_pass() {
        for fault in [Fault::Full, Fault::Unavailable] {
            let desk = desk();
            desk.faults.replace(vec![fault]);
            let failed = now(commit(&desk, &config(), &Rc::default(), 1)).unwrap_err();
            assert_eq!(failed.fault, fault);
            assert_eq!(desk.slept.get(), Duration::ZERO);
        }
    }

    #[test]
    fn the_fault_of_one_request_fails_no_other() {
        let desk = desk();
        // First the group fails, then the first of the three alone.
        desk.faults.replace(vec![Fault::Unavailable, Fault::Full]);
        let batches = [events(&["a"], "1"), events(&["b"], "1"), events(&["c"], "1")];
        let settled = commits(&desk, &batches);
        assert_eq!(settled[0].as_ref().unwrap_err().fault, Fault::Full);
        assert!(settled[1..].iter().all(|settled| accepted(settled) == 1));
    }

    #[test]
    fn a_client_that_goes_away_takes_only_its_own() {
        let desk = desk();
        let config = config();
        desk.faults.replace(vec![Fault::Busy; 2]);
        let (gone, stays) = (events(&["gone"], "1"), events(&["stays"], "1"));
        {
            let mut leader = std::pin::pin!(commit(&desk, &config, &gone, 0));
            let mut other = std::pin::pin!(commit(&desk, &config, &stays, 0));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for _ in 0..2 {
                assert!(leader.as_mut().poll(&mut context).is_pending());
                assert!(other.as_mut().poll(&mut context).is_pending());
            }
            assert_eq!(desk.instance().group.depth(), 2);
        }
        assert_eq!(desk.instance().group.depth(), 0);
        assert_eq!(accepted(&commits(&desk, &[stays])[0]), 1);
        assert_eq!(accepted(&commits(&desk, &[gone])[0]), 1, "it was not stored unasked");
    }

    #[test]
    fn a_stream_of_large_batches_starves_no_single_event() {
        let desk = desk();
        let mut batches: Vec<_> = (0..8).map(|id| many(&id.to_string(), 1000)).collect();
        batches.insert(3, events(&["single"], "1"));
        let settled = commits(&desk, &batches);
        // First come, first served: two large ones to a statement, the single in the second.
        assert_eq!(settled[3].as_ref().unwrap(), &[Outcome::Accepted { seq: 3001 }]);
        assert!(settled.iter().all(|settled| accepted(settled) >= 1));
        assert!(desk.statements.borrow().len() >= 4, "a statement is bounded");
    }

    #[test]
    fn more_than_may_wait_is_refused_at_once() {
        let desk = desk();
        let batches: Vec<_> = (0..6).map(|id| many(&id.to_string(), 9_000)).collect();
        let settled = commits(&desk, &batches);
        let refused = settled.iter().filter(|settled| settled.is_err()).count();
        assert_eq!(refused, 2, "of 54,000 events 40,000 may wait");
        let faults = settled.iter().filter_map(|settled| settled.as_ref().err());
        assert!(faults.into_iter().all(|error| error.fault == Fault::Busy));
    }
}
