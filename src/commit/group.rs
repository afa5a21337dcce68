//! The batches of one instance on their way into a commit.
//!
//! A batch is in one of three places: waiting in the group, in the statement
//! that the leader runs, or settled. Whoever leaves early, for whatever reason,
//! leaves no one behind: see [`Place`], [`Lead`] and [`InFlight`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::platform::Wake;
use crate::store::{Deliveries, Outcome, StoreError};

/// Most events in one statement, unless one request has more.
pub(crate) const GROUP_EVENTS_MAX: usize = 2_000;

/// Most bytes of events in one statement, unless one request has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most events that wait in one instance, unless one request has more.
pub(crate) const WAITING_EVENTS_MAX: usize = 40_000;

/// Most bytes of events that wait in one instance, unless one request has more.
pub(crate) const WAITING_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Most commits of an instance that are under way at once, where the store allows for it.
const COMMITS_MAX: usize = 4;

/// What came of a batch.
pub(crate) type Settled = Result<Vec<Outcome>, StoreError>;

/// Who brought a batch, and is told what came of it.
pub(super) enum Asker {
    /// A request of this instance.
    Request(Rc<Waiter>),
    /// Another instance.
    Instance(Cell<Option<Told>>),
}

/// A request that waits to find its batch settled, or to lead.
#[derive(Default)]
pub(super) struct Waiter {
    pub(super) settled: RefCell<Option<Settled>>,
    pub(super) wake: RefCell<Option<Wake>>,
}

/// Tells another instance what came of its batch.
pub(crate) type Told = Box<dyn FnOnce(Settled)>;

/// What one request brings, or what another instance hands over.
pub(super) struct Batch {
    pub(super) deliveries: Deliveries,
    /// When it waits no longer, on the same clock.
    pub(super) deadline: Duration,
    pub(super) asker: Asker,
}

impl Batch {
    pub(super) fn settle(&self, outcome: Settled) {
        match &self.asker {
            Asker::Request(waiter) => {
                waiter.settled.replace(Some(outcome));
                self.wake();
            }
            Asker::Instance(told) => {
                if let Some(told) = told.take() {
                    told(outcome);
                }
            }
        }
    }

    /// Wakes its request, to find itself settled or to lead.
    fn wake(&self) {
        if let Asker::Request(waiter) = &self.asker
            && let Some(wake) = waiter.wake.take()
        {
            wake();
        }
    }
}

/// The batches that wait in one instance.
#[derive(Default)]
pub(super) struct Group {
    pub(super) waiting: RefCell<VecDeque<Rc<Batch>>>,
    /// How many commits are under way.
    pub(super) leaders: Cell<usize>,
    /// Whether the last of them takes more yet.
    is_gathering: Cell<bool>,
    /// How many events somebody waits for, and how to wake them.
    pub(super) awaited: RefCell<Option<(usize, Wake)>>,
}

impl Group {
    /// Events that wait.
    pub(super) fn depth(&self) -> usize {
        self.waiting.borrow().iter().map(|batch| batch.deliveries.events).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    pub(super) fn holds(&self, batch: &Rc<Batch>) -> bool {
        self.waiting.borrow().iter().any(|waiting| Rc::ptr_eq(waiting, batch))
    }

    /// Lets a batch wait.
    ///
    /// # Errors
    ///
    /// Busy, when too much waits already: memory is bounded, and a client can
    /// wait as well as we can.
    pub(super) fn join(&self, batch: &Rc<Batch>) -> Result<(), StoreError> {
        let events = self.depth() + batch.deliveries.events;
        let mut waiting = self.waiting.borrow_mut();
        let bytes: usize = waiting.iter().map(|batch| batch.deliveries.encoded.len()).sum();
        if !waiting.is_empty()
            && (events > WAITING_EVENTS_MAX
                || bytes + batch.deliveries.encoded.len() > WAITING_BYTES_MAX)
        {
            return Err(StoreError::busy("too much waits to be committed"));
        }
        waiting.push_back(Rc::clone(batch));
        if let Some((_, wake)) = self.awaited.borrow_mut().take_if(|(count, _)| *count <= events) {
            wake();
        }
        Ok(())
    }

    /// The right to run the next commit, `beside` others if need be.
    pub(super) fn lead(&self, beside: bool) -> Option<Lead<'_>> {
        let leaders = self.leaders.get();
        if self.is_gathering.get() || leaders >= if beside { COMMITS_MAX } else { 1 } {
            return None;
        }
        self.leaders.set(leaders + 1);
        self.is_gathering.set(true);
        Some(Lead { group: self, has_begun: Cell::default() })
    }

    fn wake_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.wake();
        }
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
    pub(super) fn expire(&self, now: Duration, error: &StoreError) -> bool {
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

/// The right to run one commit. However it ends, another may run the next.
pub(super) struct Lead<'a> {
    group: &'a Group,
    has_begun: Cell<bool>,
}

impl<'a> Lead<'a> {
    /// Takes what waits, or as much of it as may be in one commit.
    pub(super) fn begin(&self) -> InFlight<'a> {
        self.has_begun.set(true);
        self.group.is_gathering.set(false);
        let batches = self.group.next().into();
        self.group.wake_first();
        InFlight { group: self.group, batches }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.has_begun.get() {
            self.group.is_gathering.set(false);
        }
        self.group.leaders.set(self.group.leaders.get() - 1);
        self.group.wake_first();
    }
}

/// The place of a request in the group. However the request ends, its batch
/// waits no longer, and does not keep the others from being committed.
pub(super) struct Place<'a> {
    pub(super) group: &'a Group,
    pub(super) batch: Rc<Batch>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.group.waiting.borrow_mut().retain(|batch| !Rc::ptr_eq(batch, &self.batch));
        // The wake-up that the leader had for the first may have been for this one.
        if self.group.leaders.get() == 0 {
            self.group.wake_first();
        }
    }
}

/// Batches in a statement. Those that are not settled when it ends wait again,
/// before all others, also when the leader is gone before its end: then nobody
/// knows whether it was committed, and to deliver again is safe.
pub(super) struct InFlight<'a> {
    group: &'a Group,
    pub(super) batches: VecDeque<Rc<Batch>>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut waiting = self.group.waiting.borrow_mut();
        while let Some(batch) = self.batches.pop_back() {
            waiting.push_front(batch);
        }
    }
}
