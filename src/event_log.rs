//! All SQL: set-up, append, page, totals.
//!
//! One statement carries a whole commit, since a statement is the only
//! transaction that works everywhere: the connection is shared by the requests
//! of an instance, so `BEGIN … COMMIT` over several awaits would mix them, and
//! remote libSQL sends each statement as a request of its own.

use crate::event::Event;
use crate::ports::{Database, Fault, Row, StoreError, Value};
use crate::time::UnixMillis;

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_VERSION: i64 = 1;

/// How long a statement blocks the whole instance for another writer, in
/// milliseconds. Waiting is for `commit`, which lets other requests run.
const BUSY_TIMEOUT_MS: u32 = 1;

/// What came of one delivery of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// First delivery of its identity; stored under `seq`.
    Accepted {
        /// Its place among all events, from 1.
        seq: i64,
    },
    /// Stored before, with the same content.
    Duplicate,
    /// Stored before, with other content, which stays.
    Conflict,
}

/// Counters of one topic since the store was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTotals {
    /// The topic.
    pub topic: String,
    /// Events stored.
    pub unique_processed: i64,
    /// Deliveries of events that were stored before.
    pub duplicate_dropped: i64,
    /// Those of them whose content was another.
    pub conflicts: i64,
}

/// All counters, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// In the order of their names.
    pub topics: Vec<TopicTotals>,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// When the store was created.
    pub created_at: UnixMillis,
}

/// An event as it was stored.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its place among all events, from 1.
    pub seq: i64,
    /// First half of its identity.
    pub topic: String,
    /// Second half of its identity.
    pub event_id: String,
    /// Who said so.
    pub source: String,
    /// As it was given, if it was.
    pub timestamp: Option<String>,
    /// JSON text.
    pub payload: String,
    /// When it was received.
    pub received_at: UnixMillis,
}

/// Which events a page holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only events with a higher `seq`.
    pub above: Option<i64>,
    /// Only events with a lower `seq`.
    pub below: Option<i64>,
    /// Newest first.
    pub descending: bool,
}

/// Makes the connection ready: its settings, and a schema of this version.
/// Free when it was done before; no write when the schema is there.
///
/// # Errors
///
/// What the store says; the next call tries again.
pub async fn ensure_ready(db: &impl Database, now: UnixMillis) -> Result<(), StoreError> {
    if db.is_ready() {
        return Ok(());
    }
    // The platform's own busy timeout (5 s) still holds here: switching to WAL
    // and creating the schema take locks that an instance which is closing its
    // connection may hold for a moment.
    let mode = db.execute("PRAGMA journal_mode = WAL", Vec::new()).await?;
    if let Some([Value::Text(mode)]) = mode.first().map(Vec::as_slice)
        && !matches!(mode.as_str(), "wal" | "memory")
    {
        return Err(StoreError::unavailable(format!("journal_mode stays {mode}, WAL is needed")));
    }
    db.execute("PRAGMA synchronous = FULL", Vec::new()).await?;
    match user_version(db).await? {
        SCHEMA_VERSION => {}
        0 => create_schema(db, now).await?,
        other => {
            return Err(StoreError::unavailable(format!(
                "the database has schema version {other}, this component knows {SCHEMA_VERSION}"
            )));
        }
    }
    db.execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}"), Vec::new()).await?;
    db.set_ready();
    Ok(())
}

async fn user_version(db: &impl Database) -> Result<i64, StoreError> {
    let rows = db.execute("PRAGMA user_version", Vec::new()).await?;
    rows.into_iter()
        .next()
        .map_or_else(|| Err(odd("no user_version")), |row| Columns::of(row).integer())
}

async fn create_schema(db: &impl Database, now: UnixMillis) -> Result<(), StoreError> {
    for statement in schema_statements() {
        let parameters = if statement.contains("?1") { vec![now.into()] } else { Vec::new() };
        db.execute(statement, parameters).await?;
    }
    db.execute(&format!("PRAGMA user_version = {SCHEMA_VERSION}"), Vec::new()).await?;
    Ok(())
}

fn schema_statements() -> impl Iterator<Item = &'static str> {
    SCHEMA.split(";\n\n").map(|statement| statement.trim().trim_end_matches(';')).filter(
        |statement| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--")),
    )
}

/// Takes a batch in one commit: dedup, store and count. `rejected` deliveries
/// are counted with it. Outcomes come back in the order of `events`.
///
/// # Errors
///
/// What the store says; nothing of the batch is stored then.
pub async fn append(
    db: &impl Database,
    now: UnixMillis,
    events: &[&Event],
    rejected: usize,
) -> Result<Vec<Outcome>, StoreError> {
    const APPEND: &str = "\
        INSERT INTO deliveries \
          (place, topic, event_id, source, content, timestamp, payload, rejected, received_at) \
        SELECT key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
               value ->> 6, ?2 \
        FROM json_each(?1) \
        RETURNING place, \
          (SELECT outcome FROM verdict WHERE verdict.place = deliveries.place AND topic IS NOT NULL), \
          (SELECT seq FROM verdict WHERE verdict.place = deliveries.place)";
    let rows = db.execute(APPEND, vec![encode_batch(events, rejected)?.into(), now.into()]).await?;
    let mut outcomes = vec![None; events.len()];
    for row in rows {
        let mut columns = Columns::of(row);
        let place = columns.integer()?;
        let Some(slot) = usize::try_from(place).ok().and_then(|place| outcomes.get_mut(place))
        else {
            continue; // the row that counts rejections
        };
        *slot = Some(match (columns.integer()?, columns.integer()?) {
            (0, seq) => Outcome::Accepted { seq },
            (1, _) => Outcome::Duplicate,
            (2, _) => Outcome::Conflict,
            (other, _) => return Err(odd(&format!("outcome {other}"))),
        });
    }
    outcomes
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| odd("fewer outcomes than events"))
}

/// The batch as the JSON text that `APPEND` reads.
fn encode_batch(events: &[&Event], rejected: usize) -> Result<String, StoreError> {
    let mut batch = Vec::new();
    batch.push(b'[');
    for event in events {
        let row = (
            event.topic.as_str(),
            event.event_id.as_str(),
            event.source.as_str(),
            hex(&event.content),
            &event.timestamp,
            &event.payload,
        );
        separate(&mut batch);
        serde_json::to_writer(&mut batch, &row).map_err(|error| odd(&error.to_string()))?;
    }
    if rejected > 0 {
        separate(&mut batch);
        batch.extend_from_slice(format!("[null,null,null,null,null,null,{rejected}]").as_bytes());
    }
    batch.push(b']');
    String::from_utf8(batch).map_err(|error| odd(&error.to_string()))
}

/// Two digits for each byte, which is how JSON can carry a BLOB.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn separate(batch: &mut Vec<u8>) {
    if batch.len() > 1 {
        batch.push(b',');
    }
}

/// Reads up to `events_max` events, fewer when their text reaches `bytes_max`,
/// but one at least when there is one.
///
/// # Errors
///
/// What the store says.
pub async fn page(
    db: &impl Database,
    filter: &Filter,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut parameters = vec![
        Value::Integer(i64::try_from(events_max).unwrap_or(i64::MAX)),
        Value::Integer(i64::try_from(bytes_max).unwrap_or(i64::MAX)),
        Value::Integer(filter.above.unwrap_or(0)),
        Value::Integer(filter.below.unwrap_or(i64::MAX)),
    ];
    let mut conditions = String::from("seq > ?3 AND seq < ?4");
    for (column, wanted) in [("topic", &filter.topic), ("source", &filter.source)] {
        if let Some(wanted) = wanted {
            parameters.push(wanted.as_str().into());
            conditions.push_str(&format!(" AND {column} = ?{}", parameters.len()));
        }
    }
    let order = if filter.descending { "DESC" } else { "ASC" };
    let statement = format!(
        "SELECT e.seq, e.topic, e.event_id, e.source, e.timestamp, e.payload, e.received_at \
         FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq {order}) - bytes AS bytes_before \
               FROM (SELECT seq, octet_length(topic) + octet_length(event_id) \
                              + octet_length(source) + octet_length(payload) AS bytes \
                     FROM events \
                     WHERE {conditions} ORDER BY seq {order} LIMIT ?1)) AS p \
         JOIN events AS e ON e.seq = p.seq \
         WHERE p.bytes_before < ?2 ORDER BY e.seq {order}"
    );
    db.execute(&statement, parameters).await?.into_iter().map(stored_event).collect()
}

fn stored_event(row: Row) -> Result<StoredEvent, StoreError> {
    let mut columns = Columns::of(row);
    Ok(StoredEvent {
        seq: columns.integer()?,
        topic: columns.text()?,
        event_id: columns.text()?,
        source: columns.text()?,
        timestamp: columns.optional_text()?,
        payload: columns.text()?,
        received_at: columns.integer()?,
    })
}

/// The `seq` of the first event received at `moment` or later; one past the
/// last when there is none.
///
/// `received_at` never decreases along `seq` and `seq` has no gaps, so a
/// search by halves finds it without an index, in some 25 look-ups for ten
/// million events.
///
/// # Errors
///
/// What the store says.
pub async fn first_seq_since(db: &impl Database, moment: UnixMillis) -> Result<i64, StoreError> {
    const BISECT: &str = "\
        WITH RECURSIVE bisect (low, high) AS ( \
          SELECT 1, coalesce((SELECT max(seq) FROM events), 0) + 1 \
          UNION ALL \
          SELECT CASE WHEN received_at < ?1 THEN seq + 1 ELSE low END, \
                 CASE WHEN received_at < ?1 THEN high ELSE seq END \
          FROM bisect JOIN events ON seq = (low + high) / 2 WHERE low < high) \
        SELECT low FROM bisect WHERE low = high";
    let rows = db.execute(BISECT, vec![moment.into()]).await?;
    rows.into_iter().next().map_or_else(|| Err(odd("no seq")), |row| Columns::of(row).integer())
}

/// All counters. The cost grows with the number of topics, never with the
/// number of events.
///
/// # Errors
///
/// What the store says.
pub async fn totals(db: &impl Database) -> Result<Totals, StoreError> {
    const TOTALS: &str = "\
        SELECT topic, unique_processed, duplicate_dropped, conflicts FROM topics \
        UNION ALL SELECT NULL, rejected, created_at, 0 FROM service ORDER BY topic";
    let mut totals = Totals::default();
    for row in db.execute(TOTALS, Vec::new()).await? {
        let mut columns = Columns::of(row);
        let topic = columns.optional_text()?;
        let [first, second, third] = [columns.integer()?, columns.integer()?, columns.integer()?];
        match topic {
            Some(topic) => totals.topics.push(TopicTotals {
                topic,
                unique_processed: first,
                duplicate_dropped: second,
                conflicts: third,
            }),
            None => (totals.rejected, totals.created_at) = (first, second),
        }
    }
    Ok(totals)
}

/// Asks for one row, to see that the store answers.
///
/// # Errors
///
/// What the store says.
pub async fn probe(db: &impl Database) -> Result<(), StoreError> {
    db.execute("SELECT id FROM service", Vec::new()).await.map(drop)
}

/// The columns of a row, from the first to the last.
struct Columns(std::vec::IntoIter<Value>);

impl Columns {
    fn of(row: Row) -> Self {
        Columns(row.into_iter())
    }

    fn integer(&mut self) -> Result<i64, StoreError> {
        match self.0.next() {
            Some(Value::Integer(value)) => Ok(value),
            other => Err(odd(&format!("{other:?} where a number was expected"))),
        }
    }

    fn text(&mut self) -> Result<String, StoreError> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            other => Err(odd(&format!("{other:?} where text was expected"))),
        }
    }

    fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            other => Err(odd(&format!("{other:?} where text was expected"))),
        }
    }
}

/// A result that the schema rules out: the database is damaged, or not ours.
fn odd(what: &str) -> StoreError {
    StoreError { fault: Fault::Unavailable, message: format!("unexpected result: {what}") }
}

#[cfg(test)]
mod tests;
