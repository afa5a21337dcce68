//! The component's own statement, run natively: one writer on SQLite, with no
//! HTTP and no WebAssembly in between. It tells what the platform costs, not
//! what a native service would come to: see [`crate::axum_service`].

use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use async_trait::async_trait;
use futures::future::{self, LocalBoxFuture};
use publisher::metrics::Metrics;
use publisher::workload::{Plan, Planned, Range};
use rusqlite::types::Value as SqlValue;
use sekali::event::{Event, Fields, Payload};
use sekali::platform::sqlite::{Row, Sqlite, SqliteConnection, SqliteError, Value};
use sekali::platform::{Clock, Scheduler, Wake};
use sekali::store::sqlite::SqliteStore;
use sekali::store::{Deliveries, Filter, Order, Outcome, PageLimit, Store, StoreError, TopicRange};
use sekali::time::UnixMillis;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cases::Case;
use crate::database::Counts;
use crate::figures::{Figures, Span, sample};
use crate::workload;

/// All that the benchmark knows of the component's schema.
pub const COUNTS: Counts = Counts {
    rows: "SELECT count(*) FROM event_log",
    identities: "SELECT count(*) FROM (SELECT DISTINCT topic_id, event_id FROM event_log)",
};

/// SQLite's own default.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 1_000;

/// A database of the component's schema, opened natively.
pub struct Native {
    connection: Rc<Connection>,
    store: SqliteStore,
}

impl Native {
    /// Opens `file`, or creates it.
    ///
    /// # Errors
    ///
    /// What SQLite says, also when the schema is of another version.
    pub fn open(file: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        let connection = Rc::new(Connection(connection));
        let platform = Rc::new(Platform { connection: Rc::clone(&connection) });
        let store = SqliteStore::new(platform.clone(), platform.clone(), platform);
        stored(store.probe()).with_context(|| format!("cannot use {}", file.display()))?;
        // A lone writer with nobody to make checkpoints for it.
        connection.0.pragma_update(None, "wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)?;
        Ok(Native { connection, store })
    }

    /// The connection.
    pub fn connection(&self) -> &rusqlite::Connection {
        &self.connection.0
    }

    /// Takes deliveries in one commit, as the component does. How many of them
    /// were the first of their event comes back.
    ///
    /// # Errors
    ///
    /// What SQLite says, and an event that is stored with other content.
    pub fn commit(&self, deliveries: &Deliveries) -> Result<u64> {
        let outcomes = stored(self.store.append(&[deliveries], None)).context("cannot commit")?;
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

    /// Events that are stored.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn events(&self) -> Result<u64> {
        let all =
            stored(self.store.totals(TopicRange::NONE)).context("cannot read the counters")?.all;
        Ok(all.unique_processed.unsigned_abs())
    }

    /// Topic and id of the first event, or of the last; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub fn identity_at_end(&self, last: bool) -> Result<Option<(String, String)>> {
        let order = if last { Order::Descending } else { Order::Ascending };
        let filter = Filter { order, ..Filter::default() };
        let page = self.store.page(&filter, PageLimit { events_max: 1, bytes_max: 1 });
        let page = stored(page).context("cannot read an event")?;
        Ok(page.into_iter().next().map(|event| (event.topic, event.event_id)))
    }
}

/// What the store asks of a platform, without one: one writer that waits for
/// nobody.
struct Platform {
    connection: Rc<Connection>,
}

impl Sqlite for Platform {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        Ok(Rc::clone(&self.connection) as Rc<dyn SqliteConnection>)
    }
}

#[async_trait(?Send)]
impl Clock for Platform {
    fn now(&self) -> UnixMillis {
        now()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[async_trait(?Send)]
impl Scheduler for Platform {
    async fn yield_now(&self) {}

    /// There is nothing beside the writer.
    fn spawn(&self, _: LocalBoxFuture<'static, ()>) {}

    fn wakeup(&self) -> (Wake, LocalBoxFuture<'static, ()>) {
        (Box::new(|| ()), Box::pin(future::ready(())))
    }

    async fn retire(&self) {}
}

struct Connection(rusqlite::Connection);

impl Connection {
    fn run(&self, statement: &str, parameters: Vec<Value>) -> rusqlite::Result<Vec<Row>> {
        let mut prepared = self.0.prepare_cached(statement)?;
        let columns = prepared.column_count();
        let parameters = parameters.into_iter().map(|parameter| match parameter {
            Value::Null => SqlValue::Null,
            Value::Integer(value) => SqlValue::Integer(value),
            Value::Real(value) => SqlValue::Real(value),
            Value::Text(value) => SqlValue::Text(value),
            Value::Blob(value) => SqlValue::Blob(value),
        });
        let mut rows = prepared.query(rusqlite::params_from_iter(parameters))?;
        let mut result = Vec::new();
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|column| row.get(column).map(value));
            result.push(values.collect::<Result<_, _>>()?);
        }
        Ok(result)
    }
}

fn value(value: SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(value) => Value::Integer(value),
        SqlValue::Real(value) => Value::Real(value),
        SqlValue::Text(value) => Value::Text(value),
        SqlValue::Blob(value) => Value::Blob(value),
    }
}

#[async_trait(?Send)]
impl SqliteConnection for Connection {
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError> {
        self.run(statement, parameters).map_err(|error| SqliteError::Sqlite(error.to_string()))
    }

    /// There are no other requests that could go on meanwhile.
    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError> {
        self.query(statement, parameters)
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

/// Deliveries as the component reads them from a body, ready for the statement.
///
/// # Errors
///
/// If the component would refuse one, which would be a defect of the benchmark.
pub fn batch(native: &Native, plan: &Plan, deliveries: &[Planned]) -> Result<Deliveries> {
    let events = deliveries
        .iter()
        .map(|planned| {
            let bytes = plan.event(*planned).context("an event cannot be written")?;
            let sent: Sent<'_> = serde_json::from_slice(&bytes).context("an event is not JSON")?;
            let event = Event::build(Fields {
                topic: Ok(sent.topic.to_owned()),
                event_id: Ok(sent.event_id.to_owned()),
                source: Ok(sent.source.to_owned()),
                timestamp: Ok(sent.timestamp.map(str::to_owned)),
                payload: Payload::read(sent.payload.get()),
            });
            event.map_err(|errors| anyhow!("an event is not valid: {errors:?}"))
        })
        .collect::<Result<Vec<Event>>>()?;
    let events: Vec<&Event> = events.iter().collect();
    let encoded = native.store.encode(&events).map_err(|error| anyhow!(error.message))?;
    Ok(Deliveries { encoded, events: events.len(), ..Deliveries::default() })
}

/// An event as the benchmark sends it.
#[derive(Deserialize)]
struct Sent<'a> {
    topic: &'a str,
    event_id: &'a str,
    source: &'a str,
    timestamp: Option<&'a str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Measures commits of `events` events on a new database in `directory`, and
/// holds its rows against what was delivered.
///
/// # Errors
///
/// What SQLite says, and rows that do not match.
pub fn measure(directory: &Path, plan: &Plan, events: u64, span: Span) -> Result<Figures> {
    let directory = tempfile::TempDir::with_prefix_in("native-", directory)
        .context("cannot create a directory for the native reference")?;
    let native = Native::open(&directory.path().join("events.db"))?;
    let mut requests = plan.requests();
    requests.set_batch(Range::exactly(events));
    let (mut accepted, mut distinct) = (0, 0);

    // Making and reading events is not the store's work: meanwhile the clock
    // stands still.
    let mut now = Instant::now();
    let end = now + span.whole();
    let mut metrics = Metrics::new(now, span.warm_up, Some(span.whole()), false)?;
    while now < end {
        let request = requests.next().context("the workload has an end")?;
        let batch = batch(&native, plan, &request.deliveries)?;
        let start = Instant::now();
        accepted += native.commit(&batch)?;
        let done = now + start.elapsed();
        distinct += workload::distinct(&request.deliveries);
        metrics.record(sample(now, done, events));
        now = done;
    }

    let rows: u64 = native
        .connection()
        .query_row(COUNTS.rows, (), |row| row.get(0))
        .context("cannot count the native reference's rows")?;
    ensure!(
        rows == distinct && accepted == distinct,
        "native reference: {distinct} events, {accepted} accepted, {rows} rows"
    );
    Ok(Figures::new(Case::Native { events }, &metrics, 0))
}
