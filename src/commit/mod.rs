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

use crate::commit::observed::Observed;
use crate::config::Config;
use crate::event::Event;
use crate::http::problem::Problem;
use crate::platform::{Fault, Ports, Signal, StoreError};
use crate::store::sqlite::event_log::{self, Deliveries, Outcome};

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
    /// When it came, on the monotonic clock.
    arrived: Duration,
    /// When its request waits no longer, on the same clock.
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
    observed: Observed,
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

/// Stores a batch and counts `rejected` deliveries with it, each by its reason,
/// in one commit. It is on disk when this returns. Outcomes are in the order of
/// `events`.
///
/// # Errors
///
/// The store's last word when the deadline (`commit_wait_ms_max`) has passed,
/// or at once when waiting does not help. Nothing is stored then.
pub async fn commit(
    ports: &impl Ports,
    config: &Config,
    events: &[Event],
    rejected: Vec<&'static str>,
) -> Result<Vec<Outcome>, StoreError> {
    let group = &ports.instance().group;
    let arrived = ports.monotonic();
    let batch = Rc::new(Batch {
        deliveries: Deliveries::new(events, rejected)?,
        arrived,
        deadline: arrived + config.commit_wait_max,
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
            let ended = ports.monotonic();
            let waited = in_flight.batches.iter().map(|batch| ended - batch.arrived);
            group.observed.note(outcomes.len(), waited);
            let crowded = group.is_crowded(outcomes.len(), ended - began);
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
    let observed = &ports.instance().group.observed;
    let due = observed.take_if_due(ports.monotonic());
    let result = event_log::append(ports, now, &deliveries, due.as_ref()).await;
    if let (Err(_), Some(due)) = (&result, due) {
        observed.put_back(due);
    }
    result
}

/// Adds to the store what this instance saw of its commits and no later commit
/// took along. For an instance that has nothing to do: were it to end, nobody
/// would know. False when there is nothing to add.
///
/// # Errors
///
/// What the store says. Of a busy one it may be asked again.
pub async fn add_observed(ports: &impl Ports) -> Result<bool, StoreError> {
    let observed = &ports.instance().group.observed;
    let Some(seen) = observed.take() else { return Ok(false) };
    let added = async {
        event_log::ensure_ready(ports, ports.now()).await?;
        event_log::append(ports, ports.now(), &[], Some(&seen)).await
    };
    if let Err(error) = added.await {
        observed.put_back(seen);
        return Err(error);
    }
    Ok(true)
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

/// [`patiently`], for a request: a store that does not do its part is a 503.
///
/// # Errors
///
/// The 503.
pub async fn ask<T>(
    ports: &impl Ports,
    config: &Config,
    attempt: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, Problem> {
    let answer = patiently(ports, config.commit_wait_max, attempt).await;
    answer.map_err(|error| Problem::store(&error, config.retry_after_seconds))
}

pub mod observed;

#[cfg(test)]
mod tests;
