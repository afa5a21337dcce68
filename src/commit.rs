//! The way to the disk: group commit.
//!
//! One request of an instance leads: it takes what waits, runs it as one
//! statement, and so with one fsync, and tells each request its outcomes.
//! Meanwhile other requests arrive and wait; when the leader has its own
//! answer, the first of them leads. While another instance holds the database,
//! what waits grows and goes with the next attempt.
//!
//! A batch is in one of three places: waiting in the group, in the statement
//! that the leader runs, or settled. Whoever leaves early, for whatever reason,
//! leaves no one behind: see [`Place`] and [`InFlight`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::event::Event;
use crate::event_log::{self, Deliveries, Outcome};
use crate::ports::{Fault, Ports, Signal, StoreError};

/// First pause before a busy store is asked again; doubled each time by readers.
/// Leaders pause only after a store that did not wait itself.
const PAUSE_MS_MIN: u64 = 1;

/// Longest pause.
const PAUSE_MS_MAX: u64 = 8;

/// Most events in one statement, unless one request has more.
const GROUP_EVENTS_MAX: usize = 2_000;

/// Most bytes of events in one statement, unless one request has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most events that wait in one instance, unless one request has more.
const WAITING_EVENTS_MAX: usize = 40_000;

/// Most bytes of events that wait in one instance, unless one request has more.
const WAITING_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Turns of the event loop in which a request that the host holds ready comes
/// as far as the group.
const ARRIVAL_TURNS: usize = 2;

/// A statement of a small group that took so long has waited for another
/// instance, if there are others.
const CONTENDED_MS_MIN: u64 = 1;

/// Most events in a group that another instance would not notice.
const SMALL_GROUP_EVENTS_MAX: usize = 2;

/// After so many small groups in a row that waited for others, an instance is
/// one too many.
const SMALL_GROUPS_MAX: u32 = 2;

type Settled = Result<Vec<Outcome>, StoreError>;

/// What one request brings, and what came of it.
struct Batch {
    deliveries: Deliveries,
    /// When its request waits no longer, on the monotonic clock.
    deadline: Duration,
    settled: RefCell<Option<Settled>>,
    signal: RefCell<Option<Signal>>,
}

impl Batch {
    fn settle(&self, settled: Settled) {
        self.settled.replace(Some(settled));
        self.wake();
    }

    /// Wakes its request, to find itself settled or to lead.
    fn wake(&self) {
        if let Some(signal) = self.signal.borrow_mut().take() {
            signal();
        }
    }
}

/// The batches that wait in one instance.
#[derive(Default)]
pub struct Group {
    waiting: RefCell<VecDeque<Rc<Batch>>>,
    led: Cell<bool>,
    /// Whether a statement ever found the store busy. Without that a slow
    /// statement is a slow disk.
    met_others: Cell<bool>,
    /// Small groups in a row that waited for others.
    small_groups: Cell<u32>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("waiting", &self.waiting.borrow().len()).finish()
    }
}

impl Group {
    /// Events that wait.
    pub fn depth(&self) -> usize {
        self.waiting.borrow().iter().map(|batch| batch.deliveries.count()).sum()
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
        let bytes: usize = waiting.iter().map(|batch| batch.deliveries.bytes()).sum();
        if !waiting.is_empty()
            && (events + batch.deliveries.count() > WAITING_EVENTS_MAX
                || bytes + batch.deliveries.bytes() > WAITING_BYTES_MAX)
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
            events += batch.deliveries.count();
            bytes += batch.deliveries.bytes();
            if fit > 0 && (events > GROUP_EVENTS_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            fit += 1;
        }
        waiting.drain(..fit).collect()
    }

    /// Notes a commit: of how many events, and how long it took. True when
    /// this instance had better leave its requests to others.
    ///
    /// A burst starts an instance for every request, and all of them would
    /// commit one event at a time, in turn, for as long as they live.
    fn is_crowded(&self, events: usize, took: Duration) -> bool {
        let waited = self.met_others.get() && took >= Duration::from_millis(CONTENDED_MS_MIN);
        let small = waited && events <= SMALL_GROUP_EVENTS_MAX;
        self.small_groups.set(if small { self.small_groups.get() + 1 } else { 0 });
        self.small_groups.get() >= SMALL_GROUPS_MAX
    }

    /// Answers those that must not wait any longer.
    fn expire(&self, now: Duration, error: &StoreError) {
        self.waiting.borrow_mut().retain(|batch| {
            let waits = now < batch.deadline;
            if !waits {
                batch.settle(Err(error.clone()));
            }
            waits
        });
    }
}

/// The place of a request in the group. However the request ends, its batch
/// waits no longer, and another leads if it did.
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
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.group.waiting.borrow_mut();
        waiting.retain(|batch| !Rc::ptr_eq(batch, &self.batch));
        if self.leads {
            self.group.led.set(false);
            if let Some(next) = waiting.front() {
                next.wake();
            }
        }
    }
}

/// Batches in a statement. Those that are not settled when it ends wait again,
/// before all others, also when the leader is gone before its end: then nobody
/// knows whether it was committed, and to deliver again is safe.
struct InFlight<'a> {
    group: &'a Group,
    batches: VecDeque<Rc<Batch>>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut waiting = self.group.waiting.borrow_mut();
        while let Some(batch) = self.batches.pop_back() {
            waiting.push_front(batch);
        }
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
    events: &[Event],
    rejected: usize,
) -> Result<Vec<Outcome>, StoreError> {
    let group = &ports.instance().group;
    let batch = Rc::new(Batch {
        deliveries: Deliveries::new(events, rejected)?,
        deadline: ports.monotonic() + config.commit_wait_max,
        settled: RefCell::default(),
        signal: RefCell::default(),
    });
    group.join(&batch)?;
    let mut place = Place { group, batch, leads: false };
    loop {
        if let Some(settled) = place.batch.settled.take() {
            return settled;
        }
        if place.take_lead() {
            gather(ports, group).await;
            lead(ports, group).await;
        } else {
            let (signal, wait) = ports.signal();
            place.batch.signal.replace(Some(signal));
            wait.await;
        }
    }
}

/// Waits as long as others arrive. The host hands requests over one by one,
/// each when the instance has nothing left to do, so those that it holds ready
/// are here only after some turns.
async fn gather(ports: &impl Ports, group: &Group) {
    let mut arrived = 0;
    while arrived < group.waiting.borrow().len() && group.depth() < GROUP_EVENTS_MAX {
        arrived = group.waiting.borrow().len();
        for _ in 0..ARRIVAL_TURNS {
            ports.yield_now().await;
        }
    }
}

/// Commits the next batches in one statement. When the store is busy they wait
/// on, except those whose time is over.
async fn lead(ports: &impl Ports, group: &Group) {
    let began = ports.monotonic();
    let mut in_flight = InFlight { group, batches: group.next().into() };
    let result = append(ports, in_flight.batches.iter()).await;
    match result {
        Ok(mut outcomes) => {
            let crowded = group.is_crowded(outcomes.len(), ports.monotonic() - began);
            for batch in in_flight.batches.drain(..) {
                let rest = outcomes.split_off(batch.deliveries.count().min(outcomes.len()));
                batch.settle(Ok(outcomes));
                outcomes = rest;
            }
            if crowded {
                ports.retire().await;
            }
        }
        Err(error) if error.fault == Fault::Busy => {
            drop(in_flight);
            group.met_others.set(true);
            let pause = Duration::from_millis(PAUSE_MS_MIN);
            if ports.monotonic() - began < pause {
                ports.sleep(pause).await;
            }
            group.expire(ports.monotonic(), &error);
        }
        // It may be the fault of one of them: each gets a statement of its own.
        Err(_) if in_flight.batches.len() > 1 => alone(ports, in_flight).await,
        Err(error) => {
            for batch in in_flight.batches.drain(..) {
                batch.settle(Err(error.clone()));
            }
        }
    }
}

/// Commits each batch in a statement of its own. Those that are left when the
/// store is busy wait on.
async fn alone(ports: &impl Ports, mut in_flight: InFlight<'_>) {
    while let Some(batch) = in_flight.batches.front() {
        let settled = append(ports, std::iter::once(batch)).await;
        if matches!(&settled, Err(error) if error.fault == Fault::Busy) {
            return;
        }
        if let Some(batch) = in_flight.batches.pop_front() {
            batch.settle(settled);
        }
    }
}

async fn append<'a>(
    ports: &impl Ports,
    batches: impl Iterator<Item = &'a Rc<Batch>>,
) -> Result<Vec<Outcome>, StoreError> {
    let now = ports.now();
    event_log::ensure_ready(ports, now).await?;
    let deliveries: Vec<&Deliveries> = batches.map(|batch| &batch.deliveries).collect();
    event_log::append(ports, now, &deliveries).await
}

fn busy(message: &str) -> StoreError {
    StoreError { fault: Fault::Busy, message: message.to_owned() }
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
    use std::ops::DerefMut;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

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

    /// One turn of a request; its answer, if it has one now.
    fn turn<T>(request: &mut Pin<impl DerefMut<Target: Future<Output = T>>>) -> Option<T> {
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
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
        assert_eq!(now(commit(&desk, &config(), &[], 1)).unwrap(), []);
        assert_eq!(desk.slept.get(), Duration::from_millis(5));

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
            let failed = now(commit(&desk, &config(), &[], 1)).unwrap_err();
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
            let mut leader = pin!(commit(&desk, &config, &gone, 0));
            let mut other = pin!(commit(&desk, &config, &stays, 0));
            for _ in 0..2 {
                assert!(turn(&mut leader).is_none());
                assert!(turn(&mut other).is_none());
            }
            assert_eq!(desk.instance().group.depth(), 2);
        }
        assert_eq!(desk.instance().group.depth(), 0);
        assert_eq!(accepted(&commits(&desk, &[stays])[0]), 1);
        assert_eq!(accepted(&commits(&desk, &[gone])[0]), 1, "it was not stored unasked");
    }

    #[test]
    fn a_leader_that_goes_away_is_followed_by_another() {
        // In each of its turns, before its statement, in it, and after it.
        for turns in 0..8 {
            let desk = desk();
            let config = config();
            let (gone, stays) = (events(&["gone"], "1"), events(&["stays"], "1"));
            let mut leader = Box::pin(commit(&desk, &config, &gone, 0));
            let mut other = Box::pin(commit(&desk, &config, &stays, 0));
            let mut answered = None;
            for _ in 0..turns {
                if turn(&mut leader).is_some() {
                    break;
                }
                answered = answered.or_else(|| turn(&mut other));
            }
            drop(leader);
            let settled = answered.unwrap_or_else(|| now(other));
            assert_eq!(settled.unwrap().len(), 1, "after {turns} turns");
            assert_eq!(desk.instance().group.depth(), 0);
            let again = commits(&desk, &[stays]);
            assert_eq!(again[0].as_ref().unwrap(), &[Outcome::Duplicate]);
            assert_eq!(commits(&desk, &[gone])[0].as_ref().unwrap().len(), 1);
        }
    }

    #[test]
    fn what_arrives_during_a_commit_goes_with_the_next() {
        let desk = desk();
        let config = config();
        let batches: Vec<_> = (0..10).map(|id| many(&id.to_string(), 1)).collect();
        let mut first = Box::pin(commit(&desk, &config, &batches[0], 0));
        while desk.instance().group.depth() > 0 || !desk.instance().group.led.get() {
            assert!(turn(&mut first).is_none());
        }
        let mut settled = vec![first];
        settled
            .extend(batches[1..].iter().map(|events| Box::pin(commit(&desk, &config, events, 0))));
        for (index, settled) in all(settled).iter().enumerate() {
            let seq = index as i64 + 1;
            assert_eq!(settled.as_ref().unwrap(), &[Outcome::Accepted { seq }]);
        }
        assert_eq!(desk.statements.borrow().len(), 2);
    }

    #[test]
    fn each_request_waits_as_long_as_it_may_itself() {
        let desk = desk();
        let config = config();
        desk.faults.replace(vec![Fault::Busy; 100_000]);
        let (early, late) = (events(&["early"], "1"), events(&["late"], "1"));
        let mut first = Box::pin(commit(&desk, &config, &early, 0));
        while desk.slept.get() < config.commit_wait_max / 2 {
            assert!(turn(&mut first).is_none());
        }
        let mut second = Box::pin(commit(&desk, &config, &late, 0));
        let failed = loop {
            assert!(turn(&mut second).is_none());
            if let Some(settled) = turn(&mut first) {
                break settled.unwrap_err();
            }
        };
        assert_eq!((failed.fault, failed.message.as_str()), (Fault::Busy, "planted"));
        assert!(desk.slept.get() < config.commit_wait_max * 5 / 4);
        desk.faults.replace(Vec::new());
        assert_eq!(accepted(&now(second)), 1, "it leads now, and its time is not over");
    }

    #[test]
    fn alone_after_a_group_that_failed_it_still_waits_for_a_busy_store() {
        let desk = desk();
        desk.faults.replace(vec![Fault::Unavailable, Fault::Busy, Fault::Busy]);
        let settled = commits(&desk, &[events(&["a"], "1"), events(&["b"], "1")]);
        assert!(settled.iter().all(|settled| accepted(settled) == 1));
    }

    #[test]
    fn an_instance_that_others_crowd_out_retires() {
        let desk = desk();
        let publish = |ids: &[&str], busy: bool, takes_ms: u64| {
            desk.faults.replace(if busy { vec![Fault::Busy] } else { Vec::new() });
            desk.commits_take.set(Duration::from_millis(takes_ms));
            commits(&desk, &ids.iter().map(|id| events(&[id], "1")).collect::<Vec<_>>());
            desk.retired.get()
        };
        for id in ["slow", "slow too", "slow again"] {
            assert!(!publish(&[id], false, 9), "alone it is not one too many");
        }
        assert!(!publish(&["1", "2", "3"], true, 9), "a group that is worth its commit");
        assert!(!publish(&["4"], false, 9));
        assert!(!publish(&["5"], false, 0), "nobody was in its way");
        assert!(!publish(&["6", "7"], true, 9));
        assert!(publish(&["8"], false, 9), "twice in a row");
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
        assert_eq!(refused, 1, "9,000 are in the statement, of 45,000 more 40,000 may wait");
        let faults = settled.iter().filter_map(|settled| settled.as_ref().err());
        assert!(faults.into_iter().all(|error| error.fault == Fault::Busy));
    }
}
