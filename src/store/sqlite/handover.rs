//! Commits that are handed over to the one writer.
//!
//! SQLite has one writer at a time, and many instances that contend for it spend
//! more on that than on commits. So an instance that meets others hands its groups
//! over a line to an instance of another component of the application, of which one
//! at a time writes (`src/writer.rs`). One that is alone commits by itself, which is
//! faster then. Whenever there is no such line, for whatever reason, an instance
//! commits by itself too: nothing but speed depends on the writer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};

use super::raised::Raised;
use crate::platform::chaining::{Called, Chaining, Receiver, Sender};
use crate::platform::{Clock, Scheduler, Wake};
use crate::store::engine::Deliveries;
use crate::store::frames::{self, Answer};
use crate::store::model::{Increments, Outcome, SLOW_COMMIT_MS_MIN, StoreError};

/// The component that writes for the others.
const WRITER: &str = "sekali-writer";

/// What a writer replies to a line when others hand their commits over to it.
pub(crate) const BUSY: u16 = 200;

/// What it replies when nobody does: one that is alone had better commit by itself.
pub(crate) const QUIET: u16 = 202;

/// What an instance replies that is not the writer, because another is.
pub(crate) const ANOTHER_WRITES: u16 = 503;

/// How often an instance calls for a line, while another instance than the writer
/// takes the call.
const CALLS_MAX: u32 = 2;

/// Least requests in a group for which an instance calls for a line. After a burst there
/// are hundreds of instances with a request each: they are about to retire, and a call
/// that meets no free instance of the writer's component starts one.
const CALL_REQUESTS_MIN: usize = 2;

/// Half the pause after the first such call, in milliseconds; doubled each time, and up
/// to twice as long.
const CALL_PAUSE_MS: u64 = 1;

/// How long an instance waits for a line to be opened, in milliseconds.
const OPEN_MS_MAX: u64 = 250;

/// How long an instance waits for an answer beyond the time that the writer has for a
/// commit, in milliseconds.
const ANSWER_MS_MAX: u64 = 500;

/// For how long an instance does without a line after it could not have one, in
/// milliseconds; four times as long each time, up to the second, and up to twice as long.
const WITHOUT_MS_MIN: u64 = 20;
const WITHOUT_MS_MAX: u64 = 5_120;

/// A line, which several groups may share: they go up one after the other, and each
/// reads its own answer, in the same order.
struct Opened {
    /// `None` while somebody sends.
    sender: RefCell<Option<Box<dyn Sender>>>,
    /// `None` while somebody reads.
    answers: RefCell<Option<Answers>>,
    /// Groups that went up.
    sent: Cell<u64>,
    /// Answers that came.
    answered: Cell<u64>,
    /// Those who wait until the answers before theirs have come, in their order.
    waiting: RefCell<VecDeque<Wake>>,
    is_broken: Cell<bool>,
}

/// Where answers come, and what came after the last of them.
struct Answers {
    receiver: Box<dyn Receiver>,
    unread: Vec<u8>,
}

impl Opened {
    fn of(called: Called) -> Rc<Self> {
        let answers = Answers { receiver: called.line.receiver, unread: Vec::new() };
        Rc::new(Opened {
            sender: RefCell::new(Some(called.line.sender)),
            answers: RefCell::new(Some(answers)),
            sent: Cell::default(),
            answered: Cell::default(),
            waiting: RefCell::default(),
            is_broken: Cell::default(),
        })
    }

    /// Sends a group and waits for its answer; `None` if there is to be none.
    async fn exchange(&self, frame: Vec<u8>, scheduler: &dyn Scheduler) -> Option<Vec<u8>> {
        let mut sender = self.sender.take()?;
        let mut asked = Asked { line: self, has_answer: false };
        let number = self.sent.replace(self.sent.get() + 1);
        // If it takes no more, there may still be an answer to read. To send again would
        // be a trap.
        match sender.send(frame).await {
            true => drop(self.sender.replace(Some(sender))),
            false => self.is_broken.set(true),
        }
        while self.answered.get() != number {
            if self.is_broken.get() {
                return None;
            }
            let (wake, wait) = scheduler.wakeup();
            self.waiting.borrow_mut().push_back(wake);
            wait.await;
        }
        let mut answers = self.answers.take()?;
        let answer = frames::next(&mut *answers.receiver, &mut answers.unread).await?;
        self.answers.replace(Some(answers));
        self.answered.set(number + 1);
        asked.has_answer = true;
        if let Some(next) = self.waiting.borrow_mut().pop_front() {
            next();
        }
        Some(answer)
    }

    /// Ends it for all that use it.
    fn give_up(&self) {
        self.is_broken.set(true);
        self.sender.take();
        self.waiting.take().into_iter().for_each(|wake| wake());
    }
}

/// A group that went up. Without its answer nobody can tell the others from it.
struct Asked<'a> {
    line: &'a Opened,
    has_answer: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.has_answer {
            self.line.give_up();
        }
    }
}

/// The way of an instance to the writer.
pub(super) struct Handover {
    chaining: Rc<dyn Chaining>,
    clock: Rc<dyn Clock>,
    scheduler: Rc<dyn Scheduler>,
    answer_max: Duration,
    line: RefCell<Option<Rc<Opened>>>,
    /// Whether groups are handed over.
    is_on: Cell<bool>,
    /// Whether this instance has met others at the database.
    has_met_others: Cell<bool>,
    /// How often in a row it could not have a line, and when it is tried again.
    without: Cell<(u32, Duration)>,
    has_handed_over: Cell<bool>,
    /// Whether the last commit of the writer was one to a slow disk.
    is_slow: Cell<bool>,
    /// Whether somebody opens the line.
    is_opening: Cell<bool>,
    /// Events of the last group and of the commit that it was in.
    share: Cell<(usize, usize)>,
}

/// What came of a group that was to be handed over.
pub(super) enum Handed {
    /// The one writer answered.
    Over(Result<Vec<Outcome>, StoreError>),
    /// It was handed over, and no answer came: it may be committed or not.
    Lost,
    /// It was not, or the one writer refused it.
    Not,
}

impl Handover {
    /// Through `chaining`; the writer answers a group within `commit_wait_max`.
    pub(super) fn new(
        chaining: Rc<dyn Chaining>,
        clock: Rc<dyn Clock>,
        scheduler: Rc<dyn Scheduler>,
        commit_wait_max: Duration,
    ) -> Self {
        Handover {
            chaining,
            clock,
            scheduler,
            answer_max: commit_wait_max + Duration::from_millis(ANSWER_MS_MAX),
            line: RefCell::default(),
            is_on: Cell::default(),
            has_met_others: Cell::default(),
            without: Cell::default(),
            has_handed_over: Cell::default(),
            is_slow: Cell::default(),
            is_opening: Cell::default(),
            share: Cell::default(),
        }
    }

    /// Notes that the database was held by another instance.
    pub(super) fn note_busy(&self) {
        self.has_met_others.set(true);
        self.is_on.set(true);
    }

    /// Notes that this instance has committed a group by itself.
    pub(super) fn note_own(&self) {
        self.has_handed_over.set(false);
    }

    /// Whether the last group was handed over.
    pub(super) fn has_handed_over(&self) -> bool {
        self.has_handed_over.get()
    }

    /// Whether the last commit of the writer was one to a slow disk.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.get()
    }

    /// Events of the last group that was handed over, and of the commit that it was in.
    pub(super) fn share(&self) -> (usize, usize) {
        self.share.get()
    }

    /// Whether the next group may be handed over before the last one is answered. On a
    /// slow disk it would miss a commit otherwise; on a fast one larger groups are worth
    /// more.
    pub(super) fn takes_another(&self) -> bool {
        let line = self.line.borrow();
        let is_free = line.as_ref().is_some_and(|line| line.sender.borrow().is_some());
        is_free && self.is_on.get() && self.is_slow.get()
    }

    /// Hands a group over, unless this instance is to commit it by itself.
    pub(super) async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Handed {
        self.has_handed_over.set(false);
        self.hand_over(group, increments).await.unwrap_or(Handed::Not)
    }

    async fn hand_over(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Option<Handed> {
        let events: usize = group.iter().map(|one| one.events).sum();
        let requests: usize = group.iter().map(|one| one.waited.len()).sum();
        let line = match self.opened() {
            Some(line) => line,
            None if requests < CALL_REQUESTS_MIN => return None,
            None => self.open().await?,
        };
        // Whoever sends holds up whoever comes, but has not got far.
        if !self.is_on.get() || line.sender.borrow().is_none() {
            return None;
        }
        let now = self.clock.monotonic();
        let frame = frames::group(group, increments, now).ok()?;
        let waited = group.iter().map(|one| now.saturating_sub(one.came)).max();
        let answer_max = self.answer_max.saturating_sub(waited.unwrap_or_default());
        let exchange = line.exchange(frame, &*self.scheduler);
        let answer = within(&*self.clock, answer_max, exchange).await.flatten();
        let answer = answer.and_then(|frame| Answer::read(&frame, events));
        let (is_refused, answer) = match answer {
            Some(Answer { result: None, .. }) => (true, None),
            answer => (false, answer),
        };
        let Some(Answer { result: Some(result), is_alone, commit_events, commit_took }) = answer
        else {
            line.give_up();
            self.do_without();
            return Some(if is_refused { Handed::Not } else { Handed::Lost });
        };
        self.without.set((0, Duration::ZERO));
        self.is_on.set(!is_alone);
        self.is_slow.set(commit_took >= Duration::from_millis(SLOW_COMMIT_MS_MIN));
        self.has_handed_over.set(true);
        self.share.set((events, commit_events));
        Some(Handed::Over(result))
    }

    /// A new line, unless somebody opens one already.
    async fn open(&self) -> Option<Rc<Opened>> {
        if self.clock.monotonic() < self.without.get().1 {
            return None;
        }
        let _opening = Raised::of(&self.is_opening)?;
        let called = within(&*self.clock, Duration::from_millis(OPEN_MS_MAX), self.call()).await;
        let opened = called.flatten().map(Opened::of);
        if opened.is_none() {
            self.do_without();
        }
        self.line.replace(opened.clone());
        opened
    }

    /// The line, if there is one.
    fn opened(&self) -> Option<Rc<Opened>> {
        self.line.borrow().as_ref().filter(|line| !line.is_broken.get()).map(Rc::clone)
    }

    async fn call(&self) -> Option<Called> {
        for call in 0..CALLS_MAX {
            if call > 0 {
                self.clock.sleep(at_random(CALL_PAUSE_MS << call)).await;
            }
            match self.chaining.call(WRITER, frames::PATH).await {
                Ok(called) if matches!(called.status, BUSY | QUIET) => {
                    self.is_on.set(self.has_met_others.get() || called.status == BUSY);
                    return Some(called);
                }
                Ok(Called { status: ANOTHER_WRITES, .. }) => {}
                _ => break,
            }
        }
        None
    }

    fn do_without(&self) {
        let (times, _) = self.without.get();
        let pause = (WITHOUT_MS_MIN << (2 * times).min(u16::BITS)).min(WITHOUT_MS_MAX);
        self.without.set((times + 1, self.clock.monotonic() + at_random(pause)));
    }
}

/// From so many milliseconds up to twice as many: instances that were started together
/// do not call together again.
fn at_random(pause_ms: u64) -> Duration {
    Duration::from_millis(pause_ms + RandomState::new().hash_one(pause_ms) % pause_ms)
}

/// The result of `future` if it has one within `time`.
async fn within<T>(
    clock: &dyn Clock,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(future), pin!(clock.sleep(time))).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests;
