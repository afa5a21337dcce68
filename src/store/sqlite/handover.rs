//! Commits that are handed over to the one writer.
//!
//! SQLite has one writer at a time, and many instances that contend for it spend
//! more on that than on commits. So an instance that meets others hands its groups
//! over a line to an instance of another component of the application, of which one
//! at a time writes (`src/writer.rs`). One that is alone commits by itself, which is
//! faster then. Whenever there is no such line, for whatever reason, an instance
//! commits by itself too: nothing but speed depends on the writer.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};

use super::raised::Raised;
use crate::platform::Clock;
use crate::platform::chaining::{Called, Chaining, Line};
use crate::store::engine::Deliveries;
use crate::store::frames::{self, Answer};
use crate::store::model::{Increments, Marks, Outcome, StoreError};

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
const CALLS_MAX: u32 = 4;

/// Half the pause after the first such call, in milliseconds; doubled each time, and up
/// to twice as long.
const CALL_PAUSE_MS: u64 = 1;

/// How long an instance waits for a line to be opened, in milliseconds.
const OPEN_MS_MAX: u64 = 250;

/// How long an instance waits for an answer beyond the time that the writer has for a
/// commit, in milliseconds.
const ANSWER_MS_MAX: u64 = 500;

/// For how long an instance does without a line after it could not have one, in
/// milliseconds; doubled each time, up to the second, and up to twice as long.
const WITHOUT_MS_MIN: u64 = 20;
const WITHOUT_MS_MAX: u64 = 320;

struct Opened {
    /// What was told with it, until the first group.
    note: String,
    line: Box<dyn Line>,
    unread: Vec<u8>,
}

/// The way of an instance to the writer.
pub(super) struct Handover {
    chaining: Rc<dyn Chaining>,
    clock: Rc<dyn Clock>,
    answer_max: Duration,
    line: RefCell<Option<Opened>>,
    /// Whether groups are handed over.
    is_on: Cell<bool>,
    /// Whether this instance has met others at the database.
    has_met_others: Cell<bool>,
    /// How often in a row it could not have a line, and when it is tried again.
    without: Cell<(u32, Duration)>,
    has_handed_over: Cell<bool>,
    /// Whether somebody opens the line or waits for an answer.
    is_in_use: Cell<bool>,
    /// Events of the last group and of the commit that it was in.
    share: Cell<(usize, usize)>,
}

impl Handover {
    /// Through `chaining`; the writer answers a group within `commit_wait_max`.
    pub(super) fn new(
        chaining: Rc<dyn Chaining>,
        clock: Rc<dyn Clock>,
        commit_wait_max: Duration,
    ) -> Self {
        Handover {
            chaining,
            clock,
            answer_max: commit_wait_max + Duration::from_millis(ANSWER_MS_MAX),
            line: RefCell::default(),
            is_on: Cell::default(),
            has_met_others: Cell::default(),
            without: Cell::default(),
            has_handed_over: Cell::default(),
            is_in_use: Cell::default(),
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

    /// Events of the last group that was handed over, and of the commit that it was in.
    pub(super) fn share(&self) -> (usize, usize) {
        self.share.get()
    }

    /// The marks that were told with the line, if it is new and groups are handed over.
    pub(super) async fn marks(&self) -> Option<Marks> {
        let _in_use = Raised::of(&self.is_in_use)?;
        let opened = self.open().await?;
        let marks = serde_json::from_str(&opened.note).ok().map(Marks);
        self.line.replace(Some(opened));
        marks.filter(|_| self.is_on.get())
    }

    /// Hands a group over; `None` when this instance is to commit it by itself. An
    /// answer that does not come leaves open whether it was committed, and to deliver
    /// it again is safe.
    pub(super) async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Option<Result<Vec<Outcome>, StoreError>> {
        self.has_handed_over.set(false);
        let _in_use = Raised::of(&self.is_in_use)?;
        let mut opened = self.open().await?;
        if !self.is_on.get() {
            self.line.replace(Some(opened));
            return None;
        }
        opened.note.clear();
        let events = group.iter().map(|one| one.events).sum();
        let now = self.clock.monotonic();
        let exchange = async {
            let frame = frames::group(group, increments, now).ok()?;
            // If it takes no more, there may still be an answer to read.
            opened.line.send(frame).await;
            let answer = frames::next(&mut *opened.line, &mut opened.unread).await?;
            Answer::read(&answer, events)
        };
        let waited = group.iter().map(|one| now.saturating_sub(one.came)).max();
        let answer_max = self.answer_max.saturating_sub(waited.unwrap_or_default());
        let answer = within(&*self.clock, answer_max, exchange).await.flatten();
        let Some(Answer { result: Some(result), is_alone, commit_events }) = answer else {
            self.do_without();
            return None;
        };
        self.line.replace(Some(opened));
        self.without.set((0, Duration::ZERO));
        self.is_on.set(!is_alone);
        self.has_handed_over.set(true);
        self.share.set((events, commit_events));
        Some(result)
    }

    /// The line, which is opened if there is none.
    async fn open(&self) -> Option<Opened> {
        if let Some(opened) = self.line.take() {
            return Some(opened);
        }
        if self.clock.monotonic() < self.without.get().1 {
            return None;
        }
        let called = within(&*self.clock, Duration::from_millis(OPEN_MS_MAX), self.call()).await;
        if called.as_ref().is_none_or(Option::is_none) {
            self.do_without();
        }
        called.flatten()
    }

    async fn call(&self) -> Option<Opened> {
        for call in 0..CALLS_MAX {
            if call > 0 {
                self.clock.sleep(at_random(CALL_PAUSE_MS << call)).await;
            }
            match self.chaining.call(WRITER, frames::PATH).await {
                Ok(Called { status: status @ (BUSY | QUIET), note, line }) => {
                    self.is_on.set(self.has_met_others.get() || status == BUSY);
                    return Some(Opened { note, line, unread: Vec::new() });
                }
                Ok(Called { status: ANOTHER_WRITES, .. }) => {}
                _ => break,
            }
        }
        None
    }

    fn do_without(&self) {
        let (times, _) = self.without.get();
        let pause = (WITHOUT_MS_MIN << times.min(u8::BITS)).min(WITHOUT_MS_MAX);
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
