//! The SQLite engine: all of its SQL, and all that only SQLite asks for.
//!
//! | file | holds |
//! | --- | --- |
//! | `setup.rs`, `schema*.sql` | a connection made ready; the schema and the ways to it |
//! | `event_log.rs` | the statement that is a commit, pages |
//! | `counters.rs` | counters, as `/stats` and `/metrics` tell them |
//! | `subscriptions.rs` | named subscriptions |
//! | `statement.rs`, `columns.rs` | statements on their way in, rows on their way out |
//! | `fault.rs` | SQLite's words → what kind of fault it is |
//! | `crowding.rs` | when an instance is one writer too many |
//!
//! One statement carries a whole commit, since a statement is the only
//! transaction that works everywhere: the connection is shared by the requests
//! of an instance, so `BEGIN … COMMIT` over several awaits would mix them, and
//! remote libSQL sends each statement as a request of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use super::engine::{Deliveries, Store};
use super::model::{
    Cursor, Definition, Filter, Increments, Measures, Outcome, PageLimit, StoreError, StoredEvent,
    Subscription, Summary, TopicRange, Totals,
};
use crate::event::Event;
use crate::platform::sqlite::{Row, Sqlite, SqliteConnection};
use crate::platform::{Clock, Scheduler};
use crate::time::UnixMillis;

mod columns;
mod counters;
mod crowding;
mod event_log;
mod fault;
mod setup;
mod statement;
mod subscriptions;
#[cfg(test)]
mod tests;

use crowding::Crowding;
use statement::Statement;

/// How long a connection that has committed stays open after the last commit,
/// in milliseconds. An instance that has taken its number of requests ends; were
/// its connection the only one, its closing would copy the log into the database
/// and delete it, and the next instance would begin a new one, at the price of
/// ten commits. So it stays until the next instance has had time to open its own.
const LINGER_MS: u64 = 50;

/// Events in a SQLite database.
pub struct SqliteStore {
    sqlite: Rc<dyn Sqlite>,
    clock: Rc<dyn Clock>,
    scheduler: Rc<dyn Scheduler>,
    /// Opening a connection costs more than a commit, so it is kept; after an
    /// error other than a busy store it is dropped, in case the fault is its own.
    connection: RefCell<Option<Rc<dyn SqliteConnection>>>,
    /// Whether it has its settings and a current schema.
    ready: Cell<bool>,
    crowding: Crowding,
    /// Whether a statement was to commit since the instance last lingered.
    wrote: Cell<bool>,
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
            crowding: Crowding::default(),
            wrote: Cell::default(),
        }
    }

    /// The connection, made ready.
    fn ready(&self) -> Result<Rc<dyn SqliteConnection>, StoreError> {
        let kept = self.connection.borrow().clone();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let opened = self.sqlite.open().map_err(fault::store_error)?;
                self.connection.replace(Some(Rc::clone(&opened)));
                opened
            }
        };
        if !self.ready.get() {
            setup::make_ready(&*connection, self.clock.now())?;
            self.ready.set(true);
        }
        Ok(connection)
    }

    /// Gives up the connection if it may be at fault.
    fn checked<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.as_ref().is_err_and(|error| !error.is_busy()) {
            self.connection.replace(None);
            self.ready.set(false);
        }
        result
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&dyn SqliteConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.checked(self.ready().and_then(|connection| query(&*connection)))
    }

    async fn write(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let result = match self.ready() {
            Ok(connection) => {
                let result = connection.commit(&statement.sql, statement.parameters).await;
                self.wrote.set(true);
                result.map_err(fault::store_error)
            }
            Err(error) => Err(error),
        };
        self.checked(result)
    }
}

#[async_trait(?Send)]
impl Store for SqliteStore {
    fn encode(&self, events: &[&Event]) -> Result<String, StoreError> {
        event_log::encode(events)
    }

    async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let began = self.clock.monotonic();
        let events = event_log::events_in(group);
        let rows = self.write(event_log::append(group, increments, self.clock.now())?).await;
        if !group.is_empty() {
            self.crowding.note(rows.as_ref().err(), events, self.clock.monotonic() - began);
        }
        event_log::outcomes(rows?, events)
    }

    async fn page(
        &self,
        filter: &Filter,
        limit: PageLimit,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|connection| event_log::page(connection, filter, limit))
    }

    async fn head(&self) -> Result<Cursor, StoreError> {
        self.read(event_log::head)
    }

    async fn end_before(&self, moment: UnixMillis) -> Result<Cursor, StoreError> {
        self.read(|connection| event_log::end_before(connection, moment))
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
        subscriptions::one(self.write(statement).await?)
    }

    async fn acknowledge(
        &self,
        name: &str,
        position: Cursor,
    ) -> Result<Option<Subscription>, StoreError> {
        let statement = subscriptions::acknowledge(name, position, self.clock.now());
        match subscriptions::one(self.write(statement).await?)? {
            Some(moved) => Ok(Some(moved)),
            None => self.subscription(name).await,
        }
    }

    async fn remove_subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        subscriptions::one(self.write(subscriptions::remove(name)).await?)
    }

    async fn subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        self.read(|connection| subscriptions::find(connection, name))
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        self.read(subscriptions::list)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.read(event_log::probe)
    }

    /// Leaves the requests that come next to others, if there are too many
    /// instances for one writer.
    async fn group_told(&self) {
        if self.crowding.is_crowded() {
            self.scheduler.retire().await;
        }
    }

    fn wants_to_linger(&self) -> bool {
        self.wrote.get()
    }

    /// Keeps this instance, and so its connection, until nothing has been
    /// written for [`LINGER_MS`].
    async fn linger(&self) {
        while self.wrote.replace(false) {
            self.clock.sleep(Duration::from_millis(LINGER_MS)).await;
        }
    }
}
