//! The PostgreSQL engine: all of its SQL, and all that only PostgreSQL asks for.
//!
//! | file | holds |
//! | --- | --- |
//! | `schema.sql` | the tables, and as functions what the statements do: version 1 |
//! | `schema_from_1.sql` | what version 2 adds: identities by themselves, and pruning |
//! | `schema.rs` | makes the schema |
//! | `take_over.rs` | takes a store of version 1 over, step by step |
//! | `append.rs` | the statement that is a commit |
//! | `pages.rs` | pages of events, and where they begin and end |
//! | `counters.rs` | counters, as `/stats` and `/metrics` tell them |
//! | `retention.rs` | pruning events, and forgetting identities |
//! | `marks.rs` | moments that instances note for each other |
//! | `subscriptions.rs` | named subscriptions |
//! | `state.rs` | what the service keeps beside events |
//! | `crowding.rs` | when an instance is one too many |
//! | `statement.rs`, `columns.rs` | statements on their way in, rows on their way out |
//! | `fault.rs` | errors → what kind of fault it is |
//!
//! Commits wait for each other nowhere: those of all instances and replicas run side by
//! side, and PostgreSQL syncs many of them at once. So places are taken in an order in
//! which they do not become visible, and a reader that read on from the newest place that
//! it sees would miss some. It reads up to where nothing will appear any more instead:
//! `settled_1` in `schema.sql` says how it knows.
//!
//! One statement is a transaction, since Spin gives connections back as they are, with
//! no ROLLBACK. Most are calls of functions, whose inner statements PostgreSQL plans once
//! for each connection, where it plans what a client sends anew each time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};

use super::encoding;
use super::engine::{Deliveries, Store, events_in};
use super::marks::{Claim, Claimed, Marks};
use super::model::{
    Cursor, Definition, Filter, Increments, Measures, Outcome, PageLimit, StoreError, StoredEvent,
    Subscription, Summary, TopicRange, Totals, clock_was_ahead,
};
use super::retention::{Forgotten, Kept, Prune, Pruned, TopicGroup};
use crate::event::{Event, Topic};
use crate::platform::postgres::{Postgres, PostgresConnection, PostgresError, Row};
use crate::platform::{Clock, Scheduler};
use crate::time::UnixMillis;

mod append;
mod columns;
mod counters;
mod crowding;
mod fault;
mod marks;
mod pages;
mod retention;
mod schema;
mod state;
mod statement;
mod subscriptions;
mod take_over;
#[cfg(test)]
mod tests;

use append::Appended;
use crowding::Crowding;
use statement::Statement;

/// How long is waited for a connection, in milliseconds. Spin has 64 of them for each
/// component, and would have the next one wait for ever.
const OPEN_MS_MAX: u64 = 2_000;

/// How long an instance keeps its connection when it has nothing to do, in milliseconds.
/// To take one out of Spin's pool again costs a round trip; to keep one keeps others
/// waiting for it, in a burst for as long as instances live.
const LINGER_MS: u64 = 20;

/// Events in a PostgreSQL database.
pub struct PostgresStore {
    postgres: Rc<dyn Postgres>,
    clock: Rc<dyn Clock>,
    scheduler: Rc<dyn Scheduler>,
    address: String,
    /// Kept for the next statement; dropped after an error that may be its own.
    connection: RefCell<Option<Rc<dyn PostgresConnection>>>,
    /// Whether there was a statement since the instance last lingered.
    has_asked: Cell<bool>,
    /// Whether the moment is that of the instance, and not of the database.
    has_own_time: bool,
    /// What is to be logged.
    notices: RefCell<Vec<String>>,
    /// Whether the schema is there, as far as this instance can see to it.
    has_schema: Cell<bool>,
    /// Whether the store was being taken over when a commit last wanted it.
    is_taking_over: Cell<bool>,
    crowding: Crowding,
}

impl PostgresStore {
    /// The database at `address`, a URL. It is opened by the first request.
    pub fn new(
        postgres: Rc<dyn Postgres>,
        clock: Rc<dyn Clock>,
        scheduler: Rc<dyn Scheduler>,
        address: String,
    ) -> Self {
        PostgresStore {
            postgres,
            clock,
            scheduler,
            address,
            connection: RefCell::default(),
            has_asked: Cell::default(),
            has_own_time: false,
            notices: RefCell::default(),
            has_schema: Cell::default(),
            is_taking_over: Cell::default(),
            crowding: Crowding::default(),
        }
    }

    /// The same, by the clock of the instance: events are received when it says so.
    #[cfg(test)]
    fn with_own_time(self) -> Self {
        PostgresStore { has_own_time: true, ..self }
    }

    /// The moment as functions want it: none for that of the database.
    fn now(&self) -> Option<UnixMillis> {
        self.has_own_time.then(|| self.clock.now())
    }

    async fn connection(&self) -> Result<Rc<dyn PostgresConnection>, StoreError> {
        let kept = self.connection.borrow().clone();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let deadline = self.clock.sleep(Duration::from_millis(OPEN_MS_MAX));
        let opened = match select(self.postgres.open(&self.address), deadline).await {
            Either::Left((opened, _)) => opened.map_err(fault::not_opened)?,
            Either::Right(_) => {
                return Err(StoreError::busy(format!(
                    "no connection to PostgreSQL within {OPEN_MS_MAX} ms"
                )));
            }
        };
        self.connection.replace(Some(Rc::clone(&opened)));
        Ok(opened)
    }

    async fn run(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        self.has_asked.set(true);
        let connection = self.connection().await?;
        let Statement { sql, parameters } = statement;
        // Should there be no schema yet.
        let again = if self.has_schema.get() { Vec::new() } else { parameters.clone() };
        match connection.query(sql, parameters).await {
            Ok(rows) => Ok(rows),
            Err(error) if fault::is_without_schema(&error) && !self.has_schema.get() => {
                schema::make(&*connection).await?;
                // It did nothing where there is a schema that has other functions.
                self.has_schema.set(true);
                let made = connection.query(sql, again).await;
                made.map_err(|error| self.fault_of(error, &connection))
            }
            Err(error) => Err(self.fault_of(error, &connection)),
        }
    }

    /// What an error is to the caller. The connection is given up if it may be at fault.
    fn fault_of(
        &self,
        error: PostgresError,
        connection: &Rc<dyn PostgresConnection>,
    ) -> StoreError {
        if fault::may_be_of_connection(&error) {
            let mut kept = self.connection.borrow_mut();
            if kept.as_ref().is_some_and(|kept| Rc::ptr_eq(kept, connection)) {
                *kept = None;
            }
        }
        fault::store_error(error)
    }
}

#[async_trait(?Send)]
impl Store for PostgresStore {
    fn encode(&self, events: &[&Event]) -> Result<Vec<u8>, StoreError> {
        encoding::encode(events)
    }

    async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let rows = match self.run(append::append(group, increments, self.now())?).await {
            Err(error) if fault::is_taking_over(&error) => return Err(self.take_over().await),
            rows => rows?,
        };
        // What only reads may have found the schema of version 1.
        self.has_schema.set(true);
        let appended = append::appended(rows, group).map_err(StoreError::of_what_is_done)?;
        let Appended { outcomes, began_anew, others } = appended;
        if began_anew {
            self.notices.borrow_mut().push(clock_was_ahead());
        }
        self.crowding.note(events_in(group), others);
        Ok(outcomes)
    }

    async fn page(
        &self,
        filter: &Filter,
        limit: PageLimit,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        pages::events(self.run(pages::page(filter, limit)).await?)
    }

    async fn head(&self) -> Result<Cursor, StoreError> {
        pages::cursor(self.run(pages::head()).await?)
    }

    async fn received_between(
        &self,
        since: Option<UnixMillis>,
        until: Option<UnixMillis>,
    ) -> Result<(Option<Cursor>, Option<Cursor>), StoreError> {
        pages::places(self.run(pages::received_between(since, until)).await?)
    }

    async fn totals(&self, topics: TopicRange<'_>) -> Result<Totals, StoreError> {
        counters::totals_of(self.run(counters::totals(topics)).await?, topics)
    }

    async fn summary(&self, topics_max: usize) -> Result<Summary, StoreError> {
        counters::summary_of(self.run(counters::summary(topics_max)).await?)
    }

    async fn measures(&self, topics_max: usize) -> Result<Measures, StoreError> {
        counters::measures_of(self.run(counters::measures(topics_max)).await?)
    }

    async fn define_subscription(
        &self,
        definition: Definition<'_>,
        subscriptions_max: usize,
    ) -> Result<Option<Subscription>, StoreError> {
        let statement = subscriptions::define(definition, subscriptions_max, self.now());
        subscriptions::one(self.run(statement).await?)
    }

    async fn acknowledge(
        &self,
        name: &str,
        position: Cursor,
    ) -> Result<Option<Subscription>, StoreError> {
        let statement = subscriptions::acknowledge(name, position, self.now());
        subscriptions::one(self.run(statement).await?)
    }

    async fn remove_subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        subscriptions::one(self.run(subscriptions::remove(name)).await?)
    }

    async fn subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError> {
        subscriptions::one(self.run(subscriptions::find(name)).await?)
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        subscriptions::all(self.run(subscriptions::list()).await?)
    }

    async fn kept(&self, group: &TopicGroup) -> Result<Kept, StoreError> {
        retention::kept_of(self.run(retention::kept(group)).await?)
    }

    async fn prune(&self, prune: Prune<'_>) -> Result<Option<Pruned>, StoreError> {
        retention::pruned(self.run(retention::prune(prune)).await?)
    }

    async fn pruned_up_to(&self, topics: &[Topic]) -> Result<Cursor, StoreError> {
        pages::cursor(self.run(retention::pruned_up_to(topics)).await?)
    }

    async fn forget(
        &self,
        received_before: UnixMillis,
        identities_max: usize,
    ) -> Result<Forgotten, StoreError> {
        let statement = retention::forget(received_before, identities_max);
        retention::forgotten(self.run(statement).await?)
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        marks::marks(self.run(marks::all()).await?)
    }

    async fn set_marks(&self, marks: &[(&str, UnixMillis)]) -> Result<(), StoreError> {
        self.run(marks::set(marks)).await.map(drop)
    }

    async fn claim<'a>(&self, claim: Claim<'a>) -> Result<Option<Claimed<'a>>, StoreError> {
        let made = self.run(marks::claim(claim)).await?;
        Ok((!made.is_empty()).then(|| claim.into()))
    }

    async fn release(
        &self,
        claimed: Claimed<'_>,
        marks: &[(&str, UnixMillis)],
    ) -> Result<(), StoreError> {
        self.run(marks::release(claimed, marks)).await.map(drop)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.run(append::probe()).await.map(drop)
    }

    async fn try_commit(&self) -> Result<(), StoreError> {
        append::was_undone(self.run(append::undone()).await)
    }

    fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    /// Leaves the requests that come next to others, if there are more instances than
    /// connections do any good.
    async fn group_told(&self) {
        if self.crowding.is_crowded() {
            self.scheduler.retire().await;
        }
    }

    fn wants_to_linger(&self) -> bool {
        self.has_asked.get()
    }

    /// Keeps this instance until it has asked nothing for [`LINGER_MS`], and takes the
    /// store over meanwhile, if that is to be done.
    async fn linger(&self) {
        self.take_over_to_the_end().await;
        while self.has_asked.replace(false) {
            self.clock.sleep(Duration::from_millis(LINGER_MS)).await;
        }
    }

    /// Gives the connection back. A statement under way has it until it ends.
    fn rest(&self) {
        self.connection.take();
    }
}
