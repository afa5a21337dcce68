//! The way to the disk: group commit.
//!
//! One request of an instance leads: it takes what waits, runs it as one
//! statement, and so with one fsync, and tells each request its outcomes.
//! Meanwhile other requests arrive and wait; when the leader has its own
//! answer, the first of them leads. While another instance holds the database,
//! what waits grows and goes with the next attempt.
//!
//! Where the store takes commits side by side, because it hands them over, another
//! request may lead before the first leader has its answer.
//!
//! The one writer does the same with the groups that other instances hand over: each
//! is a batch of its own there, and there is no request that leads.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::select;

use crate::event::Event;
use crate::platform::SharedPlatform;
use crate::platform::scheduling::{YIELDS_FOR_ARRIVALS, yields};
use crate::store::{Deliveries, Increments, Outcome, SLOW_COMMIT_MS_MIN, Store, StoreError};

pub(crate) mod by_key;
mod group;
pub(crate) mod observed;
#[cfg(test)]
mod tests;

use group::{Asker, Batch, Group, InFlight, Lead, Place, Waiter};
pub(crate) use group::{GROUP_EVENTS_MAX, Settled, Told};
#[cfg(test)]
pub(crate) use group::{WAITING_BYTES_MAX, WAITING_EVENTS_MAX};
use observed::Observed;

/// Pause after a busy store that did not wait itself, in milliseconds.
const BACKOFF_MS: u64 = 1;

/// For which part of the time that the last commit took the next one waits at most.
const GATHER_FRACTION: u32 = 4;

/// How many commits do not wait after one that waited in vain.
const GATHERS_LEFT_OUT: u32 = 16;

/// The last commit of this instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastCommit {
    /// How many events were in it.
    pub(crate) events: usize,
    /// How long it took; nothing if it was handed over to another instance.
    pub(crate) took: Duration,
    /// How many events waited when it ended.
    waiting: usize,
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
    last: Cell<LastCommit>,
    /// How many times it is not waited for others yet.
    gathers_left_out: Cell<u32>,
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
            last: Cell::default(),
            gathers_left_out: Cell::default(),
            failure: RefCell::default(),
        }
    }

    /// The last commit of events.
    pub(crate) fn last(&self) -> LastCommit {
        self.last.get()
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

    /// Whether nothing waits in this instance.
    pub(crate) fn is_empty(&self) -> bool {
        self.group.is_empty()
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
        let group = &self.group;
        let waiter = Rc::new(Waiter::default());
        let batch = Rc::new(self.batch(deliveries, Asker::Request(Rc::clone(&waiter))));
        group.join(&batch)?;
        let place = Place { group, batch };
        loop {
            if let Some(settled) = waiter.settled.take() {
                return settled;
            }
            // One that another commit has taken along is about to be settled.
            let may_lead = group.holds(&place.batch);
            match may_lead.then(|| group.lead(self.store.takes_another())).flatten() {
                Some(lead) => {
                    self.gather_arrivals().await;
                    self.gather_after_slow_commit().await;
                    self.run(lead).await;
                }
                None => {
                    let (wake, wait) = self.platform.wakeup();
                    waiter.wake.replace(Some(wake));
                    wait.await;
                }
            }
        }
    }

    /// Lets a group wait that another instance hands over, until it is committed by
    /// [`GroupCommit::commit_handed_over`]. The increments that came with it are added.
    pub(crate) fn take_over(&self, group: Deliveries, increments: Increments, told: Told) {
        self.observed.add(increments);
        if group.events == 0 && group.rejected.is_empty() {
            // What was observed rides along with a commit, as ever.
            return told(Ok(Vec::new()));
        }
        let deliveries = Deliveries { came: self.platform.monotonic(), ..group };
        let batch = Rc::new(self.batch(deliveries, Asker::Instance(Cell::new(Some(told)))));
        if let Err(error) = self.group.join(&batch) {
            batch.settle(Err(error));
        }
    }

    /// Commits what was handed over, until nothing waits. After each commit whoever
    /// handed its batches over is told, and `after` runs.
    pub(crate) async fn commit_handed_over(&self, after: impl AsyncFn()) {
        while !self.group.is_empty() {
            let Some(lead) = self.group.lead(false) else { return };
            self.gather_after_slow_commit().await;
            self.run(lead).await;
            after().await;
        }
    }

    fn batch(&self, deliveries: Deliveries, asker: Asker) -> Batch {
        let waited = deliveries.waited.iter().max().copied().unwrap_or_default();
        let deadline = (deliveries.came + self.wait_max).saturating_sub(waited);
        Batch { deliveries, deadline, asker }
    }

    /// Waits as long as others arrive. The host hands requests over one by one,
    /// each when the instance has nothing left to do, so those that it holds
    /// ready are here only after some yields.
    async fn gather_arrivals(&self) {
        let waiting = || self.group.waiting.borrow().len();
        let mut arrived = 0;
        while arrived < waiting() && self.group.depth() < GROUP_EVENTS_MAX {
            arrived = waiting();
            yields(&*self.platform, YIELDS_FOR_ARRIVALS).await;
        }
    }

    /// On a slow disk, waits for a moment for those who were told of the last commit: they
    /// are about to come again, and would have to wait for a whole commit of the others.
    /// Where nobody comes, that is not tried again for a while.
    async fn gather_after_slow_commit(&self) {
        let LastCommit { events, took, waiting } = self.last.get();
        let here = self.group.depth();
        if took < Duration::from_millis(SLOW_COMMIT_MS_MIN) || here >= events + waiting {
            return;
        }
        if let Some(left) = self.gathers_left_out.get().checked_sub(1) {
            self.gathers_left_out.set(left);
            return;
        }
        let (wake, wait) = self.platform.wakeup();
        self.group.awaited.replace(Some((events + waiting, wake)));
        select(wait, pin!(self.platform.sleep(took / GATHER_FRACTION))).await;
        self.group.awaited.replace(None);
        if self.group.depth() < here + here.div_ceil(GATHER_FRACTION as usize) {
            self.gathers_left_out.set(GATHERS_LEFT_OUT);
        }
    }

    /// Commits the next batches in one statement. When the store is busy they
    /// wait on, except those whose time is over.
    async fn run(&self, lead: Lead<'_>) {
        let began = self.platform.monotonic();
        let mut in_flight = lead.begin();
        if in_flight.batches.is_empty() {
            return;
        }
        let result = self.append(in_flight.batches.iter()).await;
        match result {
            Ok(mut outcomes) => {
                let ended = self.platform.monotonic();
                let mut took = Duration::ZERO;
                if !self.store.has_handed_over() {
                    took = ended.saturating_sub(began);
                    let waited: Vec<Duration> = in_flight
                        .batches
                        .iter()
                        .flat_map(|batch| batch.deliveries.waited_at(ended))
                        .collect();
                    self.observed.note(outcomes.len(), waited.into_iter());
                }
                let waiting = self.group.depth();
                self.last.set(LastCommit { events: outcomes.len(), took, waiting });
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
                if self.group.expire(self.platform.monotonic(), &error) {
                    self.note_failure(&error);
                }
            }
            // It may be the fault of one of them: each gets a statement of its own. Not
            // if they may be stored: one that is now would be told as a duplicate.
            Err(error) if in_flight.batches.len() > 1 && !error.is_indeterminate() => {
                self.commit_each_alone(in_flight).await;
            }
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
