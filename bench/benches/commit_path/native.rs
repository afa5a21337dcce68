//! The native reference: one writer that runs the component's own statement on
//! SQLite, with no HTTP and no WebAssembly in between.

use std::cell::Cell;
use std::path::Path;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::BytesMut;
use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use sekali::event::Event;
use sekali::platform::{Database, Row, StoreError, Value};
use sekali::store::sqlite::event_log::{self, Deliveries, Filter, Outcome, TopicTotals};
use sekali::time::UnixMillis;
use serde_json::value::RawValue;

use crate::cases::Case;
use crate::events::{Feed, Mix};
use crate::figures::{Figures, Latencies, Span};

/// Counts the events in a database. With [`IDENTITIES`], all that the benchmark
/// knows of the schema.
pub const ROWS: &str = "SELECT count(*) FROM event_log";

/// Counts their distinct identities.
pub const IDENTITIES: &str =
    "SELECT count(*) FROM (SELECT DISTINCT topic_id, event_id FROM event_log)";

/// A database of the component's schema, opened natively.
pub struct Native {
    connection: Connection,
    ready: Cell<bool>,
}

/// What a store has counted.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Deliveries of events, repeated ones included.
    pub deliveries: u64,
    /// Events.
    pub events: u64,
}

impl Native {
    /// Opens `file`, or creates it.
    ///
    /// # Errors
    ///
    /// What SQLite says, also when the schema is of another version.
    pub fn open(file: &Path) -> Result<Self> {
        let connection =
            Connection::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let native = Native { connection, ready: Cell::new(false) };
        stored(event_log::ensure_ready(&native, now()))
            .with_context(|| format!("cannot use {}", file.display()))?;
        Ok(native)
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes deliveries in one commit, as the component does. How many of them
    /// were the first of their event comes back.
    ///
    /// # Errors
    ///
    /// What SQLite says, and an event that is stored with other content.
    pub fn commit(&self, deliveries: &Deliveries) -> Result<u64> {
        let outcomes =
            stored(event_log::append(self, now(), &[deliveries], None)).context("cannot commit")?;
        let mut accepted = 0;
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted { .. } => accepted += 1,
                Outcome::Duplicate => {}
                Outcome::Conflict => bail!("an event is stored with other content"),
            }
        }
        Ok(accepted)
    }

    /// Deliveries that were taken, and events that are stored.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn counts(&self) -> Result<Counts> {
        let totals = stored(event_log::totals(self)).context("cannot read the counters")?;
        let sum = |of: fn(&TopicTotals) -> i64| totals.topics.iter().map(of).sum::<i64>();
        Ok(Counts {
            deliveries: sum(|topic| topic.unique_processed + topic.duplicate_dropped)
                .unsigned_abs(),
            events: sum(|topic| topic.unique_processed).unsigned_abs(),
        })
    }

    /// Topic and id of the first event, or of the last; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn identity_at_end(&self, last: bool) -> Result<Option<(String, String)>> {
        let filter = Filter { descending: last, ..Filter::default() };
        let page = stored(event_log::page(self, &filter, 1, 1)).context("cannot read an event")?;
        Ok(page.into_iter().next().map(|event| (event.topic, event.event_id)))
    }

    fn run(&self, statement: &str, parameters: Vec<Value>) -> rusqlite::Result<Vec<Row>> {
        let mut prepared = self.connection.prepare_cached(statement)?;
        let columns = prepared.column_count();
        let parameters = parameters.into_iter().map(|parameter| match parameter {
            Value::Null => SqlValue::Null,
            Value::Integer(value) => SqlValue::Integer(value),
            Value::Text(value) => SqlValue::Text(value),
        });
        let mut rows = prepared.query(rusqlite::params_from_iter(parameters))?;
        let mut result = Vec::new();
        while let Some(row) = rows.next()? {
            result.push((0..columns).map(|column| value(row, column)).collect::<Result<_, _>>()?);
        }
        Ok(result)
    }
}

fn value(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Value> {
    match row.get(column)? {
        SqlValue::Null => Ok(Value::Null),
        SqlValue::Integer(value) => Ok(Value::Integer(value)),
        SqlValue::Text(value) => Ok(Value::Text(value)),
        other @ (SqlValue::Real(_) | SqlValue::Blob(_)) => {
            Err(rusqlite::Error::InvalidColumnType(column, String::new(), other.data_type()))
        }
    }
}

impl Database for Native {
    async fn execute(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.run(statement, parameters).map_err(|error| StoreError::from_sqlite(error.to_string()))
    }

    /// There are no other requests that could go on meanwhile.
    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.execute(statement, parameters).await
    }

    fn is_ready(&self) -> bool {
        self.ready.get()
    }

    fn set_ready(&self) {
        self.ready.set(true);
    }
}

/// The result of a future over a [`Native`] database, which never suspends.
fn stored<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T> {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.map_err(|error| anyhow!(error.message)),
        Poll::Pending => bail!("a native statement was left half-way"),
    }
}

/// The wall clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
}

/// The next deliveries, read as the component would read them from a body and
/// ready for the statement.
///
/// # Errors
///
/// If the component would refuse one, which would be a defect of the benchmark.
pub fn next_batch(feed: &Feed, count: u64, buffer: &mut BytesMut) -> Result<Deliveries> {
    let mix = feed.mix();
    let events = feed
        .take(count)
        .map(|delivery| {
            buffer.clear();
            mix.write_event(delivery, buffer)?;
            let raw: &RawValue = serde_json::from_slice(buffer).context("an event is not JSON")?;
            Event::parse(raw).map_err(|errors| anyhow!("an event is not valid: {errors:?}"))
        })
        .collect::<Result<Vec<Event>>>()?;
    Deliveries::new(&events, Vec::new()).map_err(|error| anyhow!(error.message))
}

/// Measures commits of `events` events on a new database in `directory`, and
/// holds its rows against what was delivered.
///
/// # Errors
///
/// What SQLite says, and rows that do not match.
pub fn measure(directory: &Path, mix: Mix, events: u64, span: Span) -> Result<Figures> {
    let directory = tempfile::TempDir::with_prefix_in("native-", directory)
        .context("cannot create a directory for the native reference")?;
    let native = Native::open(&directory.path().join("events.db"))?;
    let feed = Feed::new(mix, 0);
    let mut buffer = BytesMut::new();
    let mut accepted = 0;
    let mut commit = || -> Result<Duration> {
        // Making and reading events is not the store's work, so it is not timed.
        let batch = next_batch(&feed, events, &mut buffer)?;
        let start = Instant::now();
        accepted += native.commit(&batch)?;
        Ok(start.elapsed())
    };

    let mut elapsed = Duration::ZERO;
    while elapsed < span.warm_up {
        elapsed += commit()?;
    }
    let mut latencies = Latencies::new()?;
    elapsed = Duration::ZERO;
    while elapsed < span.measured {
        let latency = commit()?;
        latencies.record(latency)?;
        elapsed += latency;
    }

    let distinct = mix.distinct(feed.taken());
    let rows: u64 = native
        .connection
        .query_row(ROWS, (), |row| row.get(0))
        .context("cannot count the native reference's rows")?;
    ensure!(
        rows == distinct && accepted == distinct,
        "native reference: {distinct} events, {accepted} accepted, {rows} rows"
    );
    Ok(Figures::new(Case::Native { events }, &latencies, 0, elapsed))
}
