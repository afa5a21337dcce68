//! The way to the disk: group commit.
//!
//! One request of an instance leads: it takes what waits, runs it as one
//! statement, and so with one fsync, and tells each request its outcomes.
//! Meanwhile other requests arrive and wait; when the leader has its own
//! answer, the first of them leads. While another instance holds the database,
//! what waits grows and goes with the next attempt.
//!
//! The one writer does the same with the groups that other instances hand over: each
//! is a batch of its own there.
//!
//! A batch is in one of three places: waiting in the group, in the statement
//! that the leader runs, or settled. Whoever leaves early, for whatever reason,
//! leaves no one behind: see [`Place`] and [`InFlight`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::event::Event;
use crate::platform::scheduling::{YIELDS_FOR_ARRIVALS, yields};
use crate::platform::{SharedPlatform, Wake};
use crate::store::{Deliveries, Increments, Outcome, Store, StoreError};

pub(crate) mod observed;
#[cfg(test)]
mod tests;

use observed::Observed;

/// Pause after a busy store that did not wait itself, in milliseconds.
const BACKOFF_MS: u64 = 1;

/// Most events in one statement, unless one request has more.
pub(crate) const GROUP_EVENTS_MAX: usize = 2_000;

/// Most bytes of events in one statement, unless one request has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most events that wait in one instance, unless one request has more.
pub(crate) const WAITING_EVENTS_MAX: usize = 40_000;

/// Most bytes of events that wait in one instance, unless one request has more.
pub(crate) const WAITING_BYTES_MAX: usize = 24 * 1024 * 1024;

type Settled = Result<Vec<Outcome>, StoreError>;

/// What one request brings, and what came of it.
struct Batch {
    deliveries: Deliveries,
    /// Whether it is that of a request of this instance.
    is_own: bool,
    /// When its request waits no longer, on the same clock.
    deadline: Duration,
    settled: RefCell<Option<Settled>>,
    wake: RefCell<Option<Wake>>,
}

impl Batch {
    fn settle(&self, settled: Settled) {
        self.settled.replace(Some(settled));
        self.wake();
    }

    /// Wakes its request, to find itself settled or to lead.
    fn wake(&self) {
        if let Some(wake) = self.wake.borrow_mut().take() {
            wake();
        }
    }
}

/// The batches that wait in one instance.
#[derive(Default)]
struct Group {
    waiting: RefCell<VecDeque<Rc<Batch>>>,
    has_leader: Cell<bool>,
}

impl Group {
    /// Events that wait.
    fn depth(&self) -> usize {
        self.waiting.borrow().iter().map(|batch| batch.deliveries.events).sum()
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
        let bytes: usize = waiting.iter().map(|batch| batch.deliveries.encoded.len()).sum();
        if !waiting.is_empty()
            && (events + batch.deliveries.events > WAITING_EVENTS_MAX
                || bytes + batch.deliveries.encoded.len() > WAITING_BYTES_MAX)
        {
            return Err(StoreError::busy("too much waits to be committed"));
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
            events += batch.deliveries.events;
            bytes += batch.deliveries.encoded.len();
            if fit > 0 && (events > GROUP_EVENTS_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            fit += 1;
        }
        waiting.drain(..fit).collect()
    }

    /// Answers those that must not wait any longer. True if there were any.
    fn expire(&self, now: Duration, error: &StoreError) -> bool {
        let before = self.waiting.borrow().len();
        self.waiting.borrow_mut().retain(|batch| {
            let waits = now < batch.deadline;
            if !waits {
                batch.settle(Err(error.clone()));
            }
            waits
        });
        self.waiting.borrow().len() < before
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
            self.leads = !self.group.has_leader.replace(true);
        }
        self.leads
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.group.waiting.borrow_mut();
        waiting.retain(|batch| !Rc::ptr_eq(batch, &self.batch));
        if self.leads {
            self.group.has_leader.set(false);
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

/// The commits of one instance.
pub(crate) struct GroupCommit {
    store: Rc<dyn Store>,
    platform: SharedPlatform,
    /// How long a request waits for its commit.
    wait_max: Duration,
    group: Group,
    /// What was seen of commits.
    pub(crate) observed: Observed,
    /// Events of the last commit.
    last_events: Cell<usize>,
    /// Why the last commit failed, and when, if it did.
    failure: RefCell<Option<(Duration, StoreError)>>,
}

impl GroupCommit {
    /// Commits to `store`. A request waits for `wait_max` at most.
    pub(crate) fn new(store: Rc<dyn Store>, platform: SharedPlatform, wait_max: Duration) -> Self {
        GroupCommit {
            store,
            platform,
            wait_max,
            group: Group::default(),
            observed: Observed::default(),
            last_events: Cell::default(),
            failure: RefCell::default(),
        }
    }

    /// How many events there were in the last commit.
    pub(crate) fn last_events(&self) -> usize {
        self.last_events.get()
    }

    /// Why the last commit of this instance failed, and how long ago, if it did and
    /// none has succeeded since. A busy store fails when a request has waited for it
    /// in vain.
    pub(crate) fn failure(&self) -> Option<(Duration, StoreError)> {
        let failure = self.failure.borrow();
        let (failed_at, error) = failure.as_ref()?;
        Some((self.platform.monotonic().saturating_sub(*failed_at), error.clone()))
    }

    /// Notes that the store can be written again.
    pub(crate) fn forget_failure(&self) {
        self.failure.replace(None);
    }

    fn note_failure(&self, error: &StoreError) {
        self.failure.replace(Some((self.platform.monotonic(), error.clone())));
    }

    /// Events that wait in this instance.
    pub(crate) fn depth(&self) -> usize {
        self.group.depth()
    }

    /// Stores events and counts `rejected` deliveries with them, each by its
    /// reason, in one commit. It is on disk when this returns. Outcomes are in
    /// the order of `events`.
    ///
    /// # Errors
    ///
    /// The store's last word when the deadline has passed, or at once when
    /// waiting does not help. Nothing is stored then.
    pub(crate) async fn commit(
        &self,
        events: &[&Event],
        rejected: Vec<&'static str>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let mut by_field = Increments::new();
        for field in rejected {
            *by_field.entry(field.to_owned()).or_default() += 1;
        }
        let encoded = self.store.encode(events)?;
        let deliveries = Deliveries {
            encoded,
            events: events.len(),
            rejected: by_field,
            came: self.platform.monotonic(),
            waited: vec![Duration::ZERO],
        };
        self.take(deliveries, true).await
    }

    /// The same, of a group that another instance hands over, and of the increments that
    /// come with it.
    ///
    /// # Errors
    ///
    /// Those of [`GroupCommit::commit`].
    pub(crate) async fn commit_group(
        &self,
        group: Deliveries,
        increments: Increments,
    ) -> Result<Vec<Outcome>, StoreError> {
        self.observed.add(increments);
        if group.events == 0 && group.rejected.is_empty() {
            // What was observed rides along with a commit, as ever.
            return Ok(Vec::new());
        }
        let came = self.platform.monotonic();
        self.take(Deliveries { came, ..group }, false).await
    }

    async fn take(&self, deliveries: Deliveries, is_own: bool) -> Settled {
        let group = &self.group;
        let waited = deliveries.waited.iter().max().copied().unwrap_or_default();
        let deadline = (deliveries.came + self.wait_max).saturating_sub(waited);
        let batch = Rc::new(Batch {
            deliveries,
            is_own,
            deadline,
            settled: RefCell::default(),
            wake: RefCell::default(),
        });
        group.join(&batch)?;
        let mut place = Place { group, batch, leads: false };
        loop {
            if let Some(settled) = place.batch.settled.take() {
                return settled;
            }
            if place.take_lead() {
                if place.batch.is_own {
                    self.gather().await;
                }
                self.lead().await;
            } else {
                let (wake, wait) = self.platform.wakeup();
                place.batch.wake.replace(Some(wake));
                wait.await;
            }
        }
    }

    /// Waits as long as others arrive. The host hands requests over one by one,
    /// each when the instance has nothing left to do, so those that it holds
    /// ready are here only after some yields.
    async fn gather(&self) {
        let waiting = || self.group.waiting.borrow().len();
        let mut arrived = 0;
        while arrived < waiting() && self.group.depth() < GROUP_EVENTS_MAX {
            arrived = waiting();
            yields(&*self.platform, YIELDS_FOR_ARRIVALS).await;
        }
    }

    /// Commits the next batches in one statement. When the store is busy they
    /// wait on, except those whose time is over.
    async fn lead(&self) {
        let group = &self.group;
        let began = self.platform.monotonic();
        let mut in_flight = InFlight { group, batches: group.next().into() };
        let result = self.append(in_flight.batches.iter()).await;
        match result {
            Ok(mut outcomes) => {
                let ended = self.platform.monotonic();
                if !self.store.has_handed_over() {
                    let waited: Vec<Duration> = in_flight
                        .batches
                        .iter()
                        .flat_map(|batch| batch.deliveries.waited_at(ended))
                        .collect();
                    self.observed.note(outcomes.len(), waited.into_iter());
                }
                self.last_events.set(outcomes.len());
                for batch in in_flight.batches.drain(..) {
                    let rest = outcomes.split_off(batch.deliveries.events.min(outcomes.len()));
                    batch.settle(Ok(outcomes));
                    outcomes = rest;
                }
                self.store.group_told().await;
            }
            Err(error) if error.is_busy() => {
                drop(in_flight);
                let backoff = Duration::from_millis(BACKOFF_MS);
                if self.platform.monotonic() - began < backoff {
                    self.platform.sleep(backoff).await;
                }
                if group.expire(self.platform.monotonic(), &error) {
                    self.note_failure(&error);
                }
            }
            // It may be the fault of one of them: each gets a statement of its own.
            Err(_) if in_flight.batches.len() > 1 => self.commit_each_alone(in_flight).await,
            Err(error) => {
                for batch in in_flight.batches.drain(..) {
                    batch.settle(Err(error.clone()));
                }
            }
        }
    }

    /// Commits each batch in a statement of its own. Those that are left when
    /// the store is busy wait on.
    async fn commit_each_alone(&self, mut in_flight: InFlight<'_>) {
        while let Some(batch) = in_flight.batches.front() {
            let settled = self.append(std::iter::once(batch)).await;
            if settled.as_ref().is_err_and(StoreError::is_busy) {
                return;
            }
            if let Some(batch) = in_flight.batches.pop_front() {
                batch.settle(settled);
            }
        }
    }

    async fn append<'a>(
        &self,
        batches: impl Iterator<Item = &'a Rc<Batch>>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let deliveries: Vec<&Deliveries> = batches.map(|batch| &batch.deliveries).collect();
        let due = self.observed.take_if_due(self.platform.monotonic());
        let result = self.store.append(&deliveries, due.as_ref()).await;
        if let (Err(_), Some(due)) = (&result, due) {
            self.observed.put_back(due);
        }
        match &result {
            Ok(_) => self.forget_failure(),
            Err(error) if error.is_busy() => {}
            Err(error) => self.note_failure(error),
        }
        result
    }

    /// Adds to the store what this instance observed of its commits and no later
    /// commit took along. For an instance that has nothing to do: were it to
    /// end, nobody would know. False when there is nothing to add.
    ///
    /// # Errors
    ///
    /// What the store says. Of a busy one it may be asked again.
    pub(crate) async fn add_observed(&self) -> Result<bool, StoreError> {
        let Some(observed) = self.observed.take() else { return Ok(false) };
        if let Err(error) = self.store.append(&[], Some(&observed)).await {
            self.observed.put_back(observed);
            return Err(error);
        }
        Ok(true)
    }
}
