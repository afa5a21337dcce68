//! The one writer: commits what other instances hand over (`store/sqlite/handover.rs`).
//!
//! A component of its own, of the same `.wasm`, runs this role; it is told so by its
//! environment. Each instance of the service keeps one line to it, so its instances
//! live long, and one of them holds a lease. It commits the groups of all lines
//! together. Any other refuses, and takes no more lines.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use crate::app::App;
use crate::log::{Level, Line as LogLine};
use crate::platform::Platform;
use crate::platform::chaining::Line;
use crate::platform::sqlite::SqliteConnection;
use crate::store::frames::{self, Answer};
use crate::store::{Lease, StoreError, sqlite};

/// How often the writer prolongs its lease, in milliseconds.
const LEASE_RENEWAL_MS: u64 = 300;

/// After how long without groups of others a line is alone, in milliseconds.
const ALONE_MS: u64 = 200;

/// How old the marks may be that are told with a line, in milliseconds.
const NOTE_MS_MAX: u64 = 500;

/// Lines that a writer takes in its life. The platform ends an instance after 128
/// requests by default.
const LINES_MAX: usize = 100;

/// The role of an instance that writes for others.
pub(crate) struct Writer {
    holder: u32,
    /// Of the lease, once this instance has had it.
    connection: RefCell<Option<Rc<dyn SqliteConnection>>>,
    /// Whether another has it now.
    is_gone: Cell<bool>,
    prolonged_at: Cell<Duration>,
    /// The marks, and since when they are known.
    note: RefCell<Option<(Duration, String)>>,
    /// Whether it has given the lease up, with the last line.
    has_given_up: Cell<bool>,
    lines: Cell<usize>,
    /// The line that brought the last group, and when an older one did after a newer one.
    last_line: Cell<usize>,
    others_at: Cell<Option<Duration>>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer {
            holder: RandomState::new().hash_one(0) as u32,
            connection: RefCell::default(),
            is_gone: Cell::default(),
            prolonged_at: Cell::default(),
            note: RefCell::default(),
            has_given_up: Cell::default(),
            lines: Cell::default(),
            last_line: Cell::default(),
            others_at: Cell::default(),
        }
    }
}

/// A line that a writer has taken.
pub(crate) struct Taken {
    number: usize,
    /// Whether others hand their commits over already.
    pub(crate) is_busy: bool,
    /// Whether it is the first one.
    pub(crate) is_first: bool,
    /// Whether it is the last one.
    pub(crate) is_last: bool,
}

impl Writer {
    /// Takes one line more, or leaves it to another writer. To be asked before the
    /// first `await` of a request: an instance that is not the writer must take no
    /// more, and one that waited for the answer would.
    pub(crate) fn take_line(&self, platform: &dyn Platform) -> Option<Taken> {
        let now = platform.monotonic();
        if self.connection.borrow().is_none() {
            let taken = sqlite::take_first(platform, self.lease(platform, Lease::MS));
            self.connection.replace(taken.ok().flatten());
            self.prolonged_at.set(now);
        }
        if self.connection.borrow().is_none() || self.is_gone.get() || self.lines.get() == LINES_MAX
        {
            return None;
        }
        let number = self.lines.get() + 1;
        self.lines.set(number);
        Some(Taken {
            number,
            is_busy: !self.is_quiet(now),
            is_first: number == 1,
            is_last: number == LINES_MAX,
        })
    }

    /// What is told with a line: the marks of late, as JSON.
    pub(crate) fn note(&self, platform: &dyn Platform) -> String {
        let now = platform.monotonic();
        let mut note = self.note.borrow_mut();
        let age = Duration::from_millis(NOTE_MS_MAX);
        let connection = self.connection.borrow();
        if let Some(connection) = connection.as_ref()
            && note.as_ref().is_none_or(|(since, _)| now.saturating_sub(*since) > age)
        {
            let marks = sqlite::read_marks(&**connection).map(|marks| marks.0);
            let marks = marks.ok().and_then(|marks| serde_json::to_string(&marks).ok());
            *note = marks.map(|marks| (now, marks));
        }
        note.as_ref().map(|(_, marks)| marks.clone()).unwrap_or_default()
    }

    fn lease(&self, platform: &dyn Platform, for_ms: i64) -> Lease {
        Lease { holder: self.holder, now: platform.now(), for_ms }
    }

    /// Whether no two lines have brought anything of late.
    fn is_quiet(&self, now: Duration) -> bool {
        let quiet = Duration::from_millis(ALONE_MS);
        self.others_at.get().is_none_or(|others_at| now.saturating_sub(others_at) > quiet)
    }

    /// Prolongs the lease now and then, beside what goes on.
    fn prolong(self: &Rc<Self>, app: &Rc<App>, now: Duration) {
        let is_last = self.lines.get() == LINES_MAX;
        let renewal = Duration::from_millis(LEASE_RENEWAL_MS);
        let is_due = match is_last {
            true => !self.has_given_up.replace(true),
            false => now.saturating_sub(self.prolonged_at.get()) >= renewal,
        };
        if !is_due {
            return;
        }
        self.prolonged_at.set(now);
        let (writer, app) = (Rc::clone(self), Rc::clone(app));
        Rc::clone(&app).platform.spawn(Box::pin(async move {
            // The next writer need not wait for the end of the lease.
            let for_ms = if is_last { 0 } else { Lease::MS };
            let lease = writer.lease(&*app.platform, for_ms);
            if app.store.once(async |store| store.take_lease(lease).await).await == Ok(false) {
                writer.is_gone.set(true);
            }
        }));
    }

    /// Serves a line until it ends.
    pub(crate) async fn serve(self: &Rc<Self>, app: &Rc<App>, taken: Taken, line: &mut dyn Line) {
        let mut unread = Vec::new();
        while let Some(frame) = frames::next(line, &mut unread).await {
            let now = app.platform.monotonic();
            if taken.number < self.last_line.replace(taken.number) {
                self.others_at.set(Some(now));
            }
            self.prolong(app, now);
            let result = match frames::read_group(&frame) {
                _ if self.is_gone.get() => None,
                Some((group, increments)) => {
                    Some(app.commits.commit_group(group, increments).await)
                }
                None => Some(Err(StoreError::unexpected("a group that is none"))),
            };
            let is_gone = result.is_none();
            let answer = Answer {
                result,
                is_alone: self.is_quiet(now),
                commit_events: app.commits.last_events(),
            };
            if !line.send(answer.into_frame()).await || is_gone {
                break;
            }
            // Nothing else does before the line ends: checkpoints are among it.
            if app.wants_to_linger() {
                let lingering = Rc::clone(app);
                app.platform.spawn(Box::pin(async move { lingering.linger().await }));
            }
        }
        app.log(Level::Debug, LogLine::new("a line of another instance ended"));
    }
}

#[cfg(test)]
mod tests;
