//! The SQLite engine: all of its SQL, and all that only SQLite asks for.
//!
//! | file | holds |
//! | --- | --- |
//! | `setup.rs`, `schema.sql` | a connection made ready; the schema |
//! | `take_over.rs`, `schema_from_*.sql` | a store of an earlier version taken over |
//! | `event_log.rs` | the statement that is a commit |
//! | `pages.rs` | pages of events, and where they begin and end |
//! | `places.rs` | where in the bytes of a commit its events are |
//! | `retention.rs` | what is pruned, and identities that are forgotten |
//! | `counters.rs` | counters, as `/stats` and `/metrics` tell them |
//! | `marks.rs` | moments that instances note for each other |
//! | `subscriptions.rs` | named subscriptions |
//! | `statement.rs`, `columns.rs` | statements on their way in, rows on their way out |
//! | `server.rs` | a database on a libSQL server |
//! | `fault.rs` | SQLite's words → what kind of fault it is |
//! | `same_file.rs` | whether a connection is to the database that others find |
//! | `crowding.rs` | when an instance is one writer too many |
//! | `handover.rs` | commits that are handed over to the one writer |
//! | `lease.rs` | which instance that is |
//! | `raised.rs` | flags that are up while somebody is at something |
//! | `checkpoint.rs` | when and how the write-ahead log is copied into the database |
//!
//! One statement carries a whole commit, since a statement is the only
//! transaction that works everywhere: the connection is shared by the requests
//! of an instance, so `BEGIN … COMMIT` over several awaits would mix them, and
//! remote libSQL sends each statement as a request of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use super::encoding;
use super::engine::{Deliveries, Store, events_in};
use super::marks::{Claim, Claimed, Lease, Marks};
use super::model::{
    Cursor, Definition, Filter, Increments, Measures, Outcome, PageLimit, StoreError, StoredEvent,
    Subscription, Summary, TopicRange, Totals, clock_was_ahead,
};
use super::retention::{Forgotten, Kept, Prune, Pruned, TopicGroup};
use crate::event::{Event, Topic};
use crate::platform::chaining::Chaining;
use crate::platform::sqlite::{Row, Sqlite, SqliteConnection};
use crate::platform::{Clock, Scheduler};
use crate::time::UnixMillis;

mod checkpoint;
mod columns;
mod counters;
mod crowding;
mod event_log;
mod fault;
mod handover;
mod lease;
mod marks;
mod pages;
mod places;
mod raised;
mod retention;
mod same_file;
mod server;
mod setup;
mod statement;
mod subscriptions;
mod take_over;
#[cfg(test)]
mod tests;

pub use checkpoint::WAL_PAGES_MAX;
pub(crate) use handover::{ANOTHER_WRITES, BUSY, QUIET};
pub(crate) use lease::take_first;

use checkpoint::Checkpoints;
use crowding::Crowding;
use event_log::Newest;
use handover::{Handed, Handover};
use setup::{Place, Readiness};
use statement::Statement;

/// How long a connection that has committed stays open after the last commit,
/// in milliseconds. An instance that has taken its number of requests ends; were
/// its connection the only one, its closing would copy the log into the database
/// and delete it, and the next instance would begin a new one, at the price of
/// ten commits. So it stays until the next instance has had time to open its own.
const LINGER_MS: u64 = 50;

/// Events in a group from which on the connection is to keep the pages of a large one.
const LARGE_GROUP_EVENTS_MIN: usize = 200;

/// Events in a SQLite database.
pub struct SqliteStore {
    sqlite: Rc<dyn Sqlite>,
    clock: Rc<dyn Clock>,
    scheduler: Rc<dyn Scheduler>,
    /// Opening a connection costs more than a commit, so it is kept; after an
    /// error other than a busy store it is dropped, in case the fault is its own.
    connection: RefCell<Option<Rc<dyn SqliteConnection>>>,
    /// Whether it has its settings and a schema to read from.
    ready: Cell<bool>,
    /// Whether it keeps the pages of a large group.
    has_large_cache: Cell<bool>,
    /// Whether the store is of an earlier version, and nothing can be written until it
    /// is taken over.
    to_take_over: Cell<bool>,
    /// Whether the database is on a libSQL server, as far as this instance knows.
    on_server: Cell<bool>,
    /// When it was last seen to be to the database that others find.
    looked: Cell<Duration>,
    /// `None` in an instance that writes for others.
    crowding: Option<Crowding>,
    checkpoints: Checkpoints,
    /// Whether a statement was to commit since the instance last lingered.
    wrote: Cell<bool>,
    /// The way to the one writer, if this instance is to hand over its commits.
    handover: Option<Handover>,
    /// Whether this instance makes a checkpoint, for which writers wait.
    is_copying: Cell<bool>,
    /// Whether this instance takes the store over from an earlier version.
    is_taking_over: Cell<bool>,
    /// What is to be logged.
    notices: RefCell<Vec<String>>,
}

impl SqliteStore {
    /// The default database of the platform. It is opened by the first request.
    pub fn new(sqlite: Rc<dyn Sqlite>, clock: Rc<dyn Clock>, scheduler: Rc<dyn Scheduler>) -> Self {
        SqliteStore {
            sqlite,
            clock,
            scheduler,
            connection: RefCell::default(),
            ready: Cell::default(),
            has_large_cache: Cell::default(),
            to_take_over: Cell::default(),
            on_server: Cell::default(),
            looked: Cell::default(),
            crowding: Some(Crowding::default()),
            checkpoints: Checkpoints::after(WAL_PAGES_MAX),
            wrote: Cell::default(),
            handover: None,
            is_copying: Cell::default(),
            is_taking_over: Cell::default(),
            notices: RefCell::default(),
        }
    }

    /// The same, handing its commits over to the one writer, which answers within
    /// `commit_wait_max`, while there are several instances.
    pub fn handing_over(self, chaining: Rc<dyn Chaining>, commit_wait_max: Duration) -> Self {
        let (clock, scheduler) = (Rc::clone(&self.clock), Rc::clone(&self.scheduler));
        let handover = Handover::new(chaining, clock, scheduler, commit_wait_max);
        SqliteStore { handover: Some(handover), ..self }
    }

    /// The same, with a checkpoint after `pages` pages in the write-ahead log.
    pub fn with_wal_pages_max(self, pages: u32) -> Self {
        SqliteStore { checkpoints: Checkpoints::after(pages), ..self }
    }

    /// The same, for an instance that writes for others, and so does not leave them its
    /// requests.
    pub fn writing_for_others(self) -> Self {
        SqliteStore { crowding: None, ..self }
    }

    /// The connection, made ready.
    fn ready(&self) -> Result<Rc<dyn SqliteConnection>, StoreError> {
        let kept = self.connection.borrow().clone();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let opened = self.sqlite.open().map_err(fault::store_error)?;
                self.connection.replace(Some(Rc::clone(&opened)));
                self.looked.set(self.clock.monotonic());
                opened
            }
        };
        if !self.ready.get() {
            let place = setup::never_checkpoint(&*connection)?;
            self.on_server.set(place == Place::Server);
            let now = self.clock.now();
            let is_whole = match setup::make_ready(&*connection, place, now)? {
                Readiness::Whole => true,
                Readiness::OfEarlierVersion => self.begin_take_over(now)?,
            };
            self.to_take_over.set(!is_whole);
            self.ready.set(true);
        }
        Ok(connection)
    }

    /// Whether the database is on a libSQL server, which it does not take one to know.
    fn is_on_server(&self) -> bool {
        // What fails is told by the first statement that needs it.
        self.ready().ok();
        self.on_server.get()
    }

    /// The connection, made ready, to the database that others find.
    fn ready_to_write(&self) -> Result<Rc<dyn SqliteConnection>, StoreError> {
        let connection = self.ready()?;
        let now = self.clock.monotonic();
        if !self.on_server.get()
            && now - self.looked.get() >= Duration::from_millis(same_file::LOOK_INTERVAL_MS)
        {
            let found = self.sqlite.open().map_err(fault::store_error)?;
            same_file::check(&*connection, &*found)?;
            self.looked.set(now);
        }
        Ok(connection)
    }

    /// Gives up the connection if it may be at fault.
    fn checked<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            // Settings are those of a connection, but a server's.
            if !error.is_busy() {
                self.connection.replace(None);
                self.ready.set(false);
                self.has_large_cache.set(false);
            } else if server::is_session_gone(&error.message) {
                self.connection.replace(None);
            }
        }
        result
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&dyn SqliteConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.checked(self.ready().and_then(|connection| query(&*connection)))
    }

    /// Has the connection keep the pages of a large group, which is faster, and no more.
    fn have_large_cache(&self) {
        if !self.is_on_server()
            && !self.has_large_cache.get()
            && let Ok(connection) = self.ready_to_write()
        {
            self.has_large_cache.set(setup::keep_large_groups(&*connection).is_ok());
        }
    }

    async fn write(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let ready = match self.ready_to_write() {
            Ok(_) if self.to_take_over.get() => {
                self.take_over_before_commit().await.and_then(|()| self.ready_to_write())
            }
            ready => ready,
        };
        let result = match ready {
            Ok(connection) => {
                let result = connection.commit(&statement.sql, statement.parameters).await;
                // A server's log is its own.
                self.wrote.set(!self.on_server.get());
                result.map_err(fault::store_error)
            }
            Err(error) => Err(error),
        };
        self.checked(result)
    }

    /// A commit of something else than events.
    async fn write_aside(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let rows = self.write(statement).await?;
        self.checkpoints.note_last(checkpoint::pages(0, 0));
        Ok(rows)
    }

    /// Makes the checkpoint that is due, if no other instance does. What fails is
    /// tried again, by this instance or another.
    async fn checkpoint(&self) {
        if self.on_server.get() || !self.checkpoints.is_due() {
            return;
        }
        let Ok(claimed) = self.write(self.checkpoints.claim()).await else { return };
        self.checkpoints.settle();
        if !claimed.is_empty() {
            let pages_max = self.checkpoints.pages_max();
            let copied = checkpoint::run(&*self.sqlite, &*self.clock, pages_max, &self.is_copying);
            if copied.await.is_err() {
                self.checkpoints.put_back();
            }
        }
    }
}

#[async_trait(?Send)]
impl Store for SqliteStore {
    fn encode(&self, events: &[&Event]) -> Result<Vec<u8>, StoreError> {
        encoding::encode(events)
    }

    async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Result<Vec<Outcome>, StoreError> {
        if let Some(handover) = &self.handover {
            match handover.append(group, increments).await {
                Handed::Over(result) => {
                    if let Some(crowding) = &self.crowding
                        && result.is_ok()
                        && !handover.is_slow()
                    {
                        crowding.note_share(handover.share());
                    }
                    return result;
                }
                // On a server it may be under way for long.
                Handed::Lost if self.is_on_server() => {
                    return Err(StoreError::indeterminate("the one writer did not answer"));
                }
                Handed::Lost | Handed::Not => {}
            }
        }
        if self.is_copying.get() {
            return Err(StoreError::busy("this instance makes a checkpoint"));
        }
        let began = self.clock.monotonic();
        let events = events_in(group);
        let pages = checkpoint::pages(events, event_log::bytes_in(group));
        let told = match self.on_server.get() {
            true => None,
            false => self.checkpoints.to_tell(pages, increments.is_some()),
        };
        if events >= LARGE_GROUP_EVENTS_MIN {
            self.have_large_cache();
        }
        let now = self.clock.now();
        let statement = event_log::append(group, increments, told, Newest::InTime, now)?;
        let mut rows = self.write(statement).await;
        if rows.as_ref().is_ok_and(|rows| event_log::is_ahead(rows)) {
            let statement = event_log::append(group, increments, told, Newest::MayBeAhead, now)?;
            rows = self.write(statement).await;
            self.notices.borrow_mut().push(clock_was_ahead());
        }
        if let (Some(handover), Err(error)) = (&self.handover, &rows)
            && error.is_busy()
            && !server::is_session_gone(&error.message)
        {
            handover.note_busy();
        }
        if let Some(crowding) = &self.crowding
            && !group.is_empty()
        {
            crowding.note(rows.as_ref().err(), events, self.clock.monotonic() - began);
        }
        // Of two that ran at once this one ends last, and is asked about.
        self.handover.iter().for_each(Handover::note_own);
        let read = event_log::outcomes(rows?, group, told.is_some());
        let (outcomes, all) = read.map_err(StoreError::of_what_is_done)?;
        match (told, all) {
            (Some(told), Some(all)) => self.checkpoints.note_told(told, pages, all),
            _ => self.checkpoints.note(pages),
        }
        Ok(outcomes)
    }

    async fn page(
        &self,
        filter: &Filter,
        limit: PageLimit,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|connection| pages::page(connection, filter, limit))
    }

    async fn head(&self) -> Result<Cursor, StoreError> {
        self.read(pages::head)
    }

    async fn received_between(
        &self,
        since: Option<UnixMillis>,
        until: Option<UnixMillis>,
    ) -> Result<(Option<Cursor>, Option<Cursor>), StoreError> {
        self.read(|connection| pages::received_between(connection, since, until))
    }

    async fn totals(&self, topics: TopicRange<'_>) -> Result<Totals, StoreError> {
        self.read(|connection| counters::totals(connection, topics))
    }

    async fn summary(&self, topics_max: usize) -> Result<Summary, StoreError> {
        self.read(|connection| counters::summary(connection, topics_max))
    }

    async fn measures(&self, topics_max: usize) -> Result<Measures, StoreError> {
        self.read(|connection| counters::measures(connection, topics_max))
    }

    async fn define_subscription(
        &self,
        definition: Definition<'_>,
        subscriptions_max: usize,
    ) -> Result<Option<Subscription>, StoreError> {
        let statement = subscriptions::define(definition, subscriptions_max, self.clock.now())?;
        subscriptions::one(self.write_aside(statement).await?)
    }

    async fn acknowledge(
        &self,
        name: &str,
        position: Cursor,
    ) -> Result<Option<Subscription>, StoreError> {
        let statement = subscriptions::acknowledge(name, position, self.clock.now());
        match subscriptions::one(self.write_aside(statement).await?)? {
            Some(moved) => Ok(Some(moved)),
            None => self.subscription(name).await,
        }
    }

    async fn remove_subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        subscriptions::one(self.write_aside(subscriptions::remove(name)).await?)
    }

    async fn subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        self.read(|connection| subscriptions::find(connection, name))
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        self.read(subscriptions::list)
    }

    async fn kept(&self, group: &TopicGroup) -> Result<Kept, StoreError> {
        self.read(|connection| retention::kept(connection, group))
    }

    async fn prune(&self, prune: Prune<'_>) -> Result<Option<Pruned>, StoreError> {
        let (statement, pruned) = self.read(|connection| retention::due(connection, prune))?;
        if let Some(statement) = statement {
            if self.write(statement).await?.is_empty() {
                return Ok(None);
            }
            self.checkpoints.note_last(checkpoint::pages_of_pruning(pruned.events, pruned.bytes));
        }
        Ok(Some(pruned))
    }

    async fn pruned_up_to(&self, topics: &[Topic]) -> Result<Cursor, StoreError> {
        self.read(|connection| retention::pruned_up_to(connection, topics))
    }

    async fn forget(
        &self,
        received_before: UnixMillis,
        identities_max: usize,
    ) -> Result<Forgotten, StoreError> {
        let look =
            self.read(|connection| retention::look(connection, received_before, identities_max))?;
        for statement in look.statements {
            self.write_aside(statement).await?;
        }
        Ok(look.forgotten)
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        self.read(marks::all)
    }

    async fn set_marks(&self, marks: &[(&str, UnixMillis)]) -> Result<(), StoreError> {
        self.write_aside(marks::set(marks)?).await.map(drop)
    }

    async fn claim<'a>(&self, claim: Claim<'a>) -> Result<Option<Claimed<'a>>, StoreError> {
        let made = self.write_aside(marks::claim(claim)).await?;
        Ok((!made.is_empty()).then(|| claim.into()))
    }

    async fn release(
        &self,
        claimed: Claimed<'_>,
        marks: &[(&str, UnixMillis)],
    ) -> Result<(), StoreError> {
        self.write_aside(marks::release(claimed, marks)?).await.map(drop)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.read(pages::probe)
    }

    async fn try_commit(&self) -> Result<(), StoreError> {
        let result = match self.ready_to_write() {
            Ok(_) if self.to_take_over.get() => {
                Err(StoreError::busy("the store is being taken over from an earlier version"))
            }
            Ok(connection) => {
                let Statement { sql, parameters } = event_log::undone(self.clock.now());
                event_log::was_undone(connection.commit(&sql, parameters).await)
            }
            Err(error) => Err(error),
        };
        self.checked(result)
    }

    fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    fn has_handed_over(&self) -> bool {
        self.handover.as_ref().is_some_and(Handover::has_handed_over)
    }

    fn takes_another(&self) -> bool {
        self.handover.as_ref().is_some_and(Handover::takes_another)
    }

    async fn take_lease(&self, lease: Lease) -> Result<bool, StoreError> {
        Ok(!self.write_aside(lease::take(lease)).await?.is_empty())
    }

    /// Leaves the requests that come next to others, if there are too many
    /// instances for one writer.
    async fn group_told(&self) {
        if self.crowding.as_ref().is_some_and(Crowding::is_crowded) {
            self.scheduler.retire().await;
        }
    }

    fn wants_to_linger(&self) -> bool {
        self.wrote.get()
    }

    /// Keeps this instance, and so its connection, until nothing has been
    /// written for [`LINGER_MS`]. Nobody waits for it, so it makes checkpoints.
    async fn linger(&self) {
        self.take_over_lingering(Duration::from_millis(LINGER_MS)).await;
        while self.wrote.replace(false) {
            self.clock.sleep(Duration::from_millis(LINGER_MS)).await;
            self.checkpoint().await;
            if !self.wrote.get() && self.checkpoints.has_to_tell() {
                // If it fails, it was a guess of a few pages.
                self.append(&[], None).await.ok();
            }
        }
    }
}
