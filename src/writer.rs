//! The one writer: commits what other instances hand over (`store/sqlite/handover.rs`).
//!
//! A component of its own, of the same `.wasm`, runs this role; it is told so by its
//! environment. Each instance of the service keeps one line to it, so its instances
//! live long, and one of them holds a lease. It commits the groups of all lines
//! together. Any other refuses, and takes no more lines.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;

use crate::app::App;
use crate::commit::Settled;
use crate::log::{Level, Line as LogLine};
use crate::platform::Platform;
use crate::platform::chaining::{Line, Sender};
use crate::platform::sqlite::SqliteConnection;
use crate::store::frames::{self, Answer};
use crate::store::{Lease, StoreError, sqlite};

/// How often the writer prolongs its lease, in milliseconds.
const LEASE_RENEWAL_MS: u64 = 300;

/// After how long without groups of others a line is alone, in milliseconds.
const ALONE_MS: u64 = 200;

/// Lines that a writer takes in its life. The platform ends an instance after 128
/// requests by default.
const LINES_MAX: usize = 100;

/// The role of an instance that writes for others.
pub(crate) struct Writer {
    holder: u32,
    /// Of the lease, once this instance has had it. Were it the last to the file, its
    /// closing would copy the log into the database and delete it.
    connection: RefCell<Option<Rc<dyn SqliteConnection>>>,
    /// Whether another has it now.
    is_gone: Cell<bool>,
    prolonged_at: Cell<Duration>,
    /// Whether it has given the lease up, with the last line.
    has_given_up: Cell<bool>,
    lines: Cell<usize>,
    /// The line that brought the last group, and when an older one did after a newer one.
    last_line: Cell<usize>,
    others_at: Cell<Option<Duration>>,
    /// Lines whose answers are known, and are to be sent.
    answered: RefCell<Vec<Rc<Answers>>>,
    /// Whether somebody commits.
    is_committing: Cell<bool>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer {
            holder: RandomState::new().hash_one(0) as u32,
            connection: RefCell::default(),
            is_gone: Cell::default(),
            prolonged_at: Cell::default(),
            has_given_up: Cell::default(),
            lines: Cell::default(),
            last_line: Cell::default(),
            others_at: Cell::default(),
            answered: RefCell::default(),
            is_committing: Cell::default(),
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
    pub(crate) async fn serve(self: &Rc<Self>, app: &Rc<App>, taken: Taken, line: Line) {
        let Line { sender, mut receiver } = line;
        let answers = Answers::to(sender);
        let mut unread = Vec::new();
        while let Some(frame) = frames::next(&mut *receiver, &mut unread).await {
            let now = app.platform.monotonic();
            if taken.number < self.last_line.replace(taken.number) {
                self.others_at.set(Some(now));
            }
            self.prolong(app, now);
            let told = self.teller(app, answers.next());
            match frames::read_group(&frame) {
                _ if self.is_gone.get() => {
                    told(None);
                    break;
                }
                Some((group, increments)) => {
                    let told = Box::new(move |settled| told(Some(settled)));
                    app.commits.take_over(group, increments, told);
                }
                None => told(Some(Err(StoreError::unexpected("a group that is none")))),
            }
            self.commit(app).await;
        }
        self.tell(app).await;
        app.log(Level::Debug, LogLine::new("a line of another instance ended"));
    }

    /// What tells an instance what came of its group: that of `answer`.
    fn teller(
        self: &Rc<Self>,
        app: &Rc<App>,
        answer: NextAnswer,
    ) -> impl FnOnce(Option<Settled>) + use<> {
        let (writer, app) = (Rc::clone(self), Rc::clone(app));
        move |result| {
            let last = app.commits.last();
            let frame = Answer {
                result,
                is_alone: writer.is_quiet(app.platform.monotonic()),
                commit_events: last.events,
                commit_took: last.took,
            };
            answer.is(frame.into_frame());
            writer.answered.borrow_mut().push(answer.of);
        }
    }

    /// Tells what came of groups, and sees to it that what waits is committed.
    async fn commit(self: &Rc<Self>, app: &Rc<App>) {
        if !app.commits.is_empty() && !self.is_committing.replace(true) {
            let (writer, app) = (Rc::clone(self), Rc::clone(app));
            Rc::clone(&app).platform.spawn(Box::pin(async move {
                app.commits.commit_handed_over(async || writer.tell(&app).await).await;
                writer.is_committing.set(false);
            }));
        }
        self.tell(app).await;
    }

    /// Tells other instances what came of their groups.
    async fn tell(&self, app: &Rc<App>) {
        join_all(self.answered.take().iter().map(|answers| answers.send())).await;
        // Checkpoints are among it, and observations that came without a commit.
        if app.wants_to_linger() {
            let lingering = Rc::clone(app);
            app.platform.spawn(Box::pin(async move { lingering.linger().await }));
        }
    }
}

/// What the instance at the other end of a line is told, in the order of its groups.
struct Answers {
    /// `None` while somebody sends.
    sender: RefCell<Option<Box<dyn Sender>>>,
    /// The next ones, those that are known.
    next: RefCell<VecDeque<Option<Vec<u8>>>>,
    /// How many were sent.
    sent: Cell<usize>,
}

impl Answers {
    fn to(sender: Box<dyn Sender>) -> Rc<Self> {
        let sender = RefCell::new(Some(sender));
        Rc::new(Answers { sender, next: RefCell::default(), sent: Cell::default() })
    }

    /// The place of the answer to the group that has come.
    fn next(self: &Rc<Self>) -> NextAnswer {
        let mut next = self.next.borrow_mut();
        next.push_back(None);
        NextAnswer { of: Rc::clone(self), number: self.sent.get() + next.len() - 1 }
    }

    /// Sends those that are known, up to the first that is not.
    async fn send(&self) {
        let Some(mut sender) = self.sender.take() else { return };
        loop {
            let answer = self.next.borrow_mut().pop_front_if(|answer| answer.is_some()).flatten();
            let Some(answer) = answer else { break };
            self.sent.set(self.sent.get() + 1);
            // One that takes no more has gone, and its line ends. To send again would be
            // a trap.
            if !sender.send(answer).await {
                return;
            }
        }
        self.sender.replace(Some(sender));
    }
}

/// An answer that is not known yet.
struct NextAnswer {
    of: Rc<Answers>,
    number: usize,
}

impl NextAnswer {
    fn is(&self, answer: Vec<u8>) {
        let place = self.number - self.of.sent.get();
        if let Some(place) = self.of.next.borrow_mut().get_mut(place) {
            *place = Some(answer);
        }
    }
}

#[cfg(test)]
mod tests;
