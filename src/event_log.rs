//! All SQL: set-up, append, page, totals.
//!
//! One statement carries a whole commit, since a statement is the only
//! transaction that works everywhere: the connection is shared by the requests
//! of an instance, so `BEGIN … COMMIT` over several awaits would mix them, and
//! remote libSQL sends each statement as a request of its own.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::ports::{Database, Fault, Row, StoreError, Value};
use crate::time::UnixMillis;

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_FROM_1: &str = include_str!("schema_from_1.sql");
const SCHEMA_VERSION: i64 = 2;

/// How long a statement waits for another writer, in milliseconds. SQLite
/// looks again after 1 ms and after 3. Longer, and the batch in the statement
/// could not grow while it waits; shorter, and most of the time would go into
/// statements that fail.
const BUSY_TIMEOUT_MS: u32 = 3;

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
/// Free when it was done before; two statements and no write when the schema
/// is there, since every instance begins with it.
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
    let mut found = settings(db).await?;
    if found != READY {
        let mode = db.execute("PRAGMA journal_mode = WAL", Vec::new()).await?;
        if let Some([Value::Text(mode)]) = mode.first().map(Vec::as_slice)
            && !matches!(mode.as_str(), "wal" | "memory")
        {
            return Err(StoreError::unavailable(format!(
                "journal_mode stays {mode}, WAL is needed"
            )));
        }
        db.execute("PRAGMA synchronous = FULL", Vec::new()).await?;
        found = settings(db).await?;
    }
    match found.user_version {
        SCHEMA_VERSION => {}
        version @ (0 | 1) => create_schema(db, now, version).await?,
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

/// What a connection finds.
#[derive(PartialEq)]
struct Settings {
    wal: bool,
    synchronous_full: bool,
    user_version: i64,
}

/// What it finds when all is done.
const READY: Settings =
    Settings { wal: true, synchronous_full: true, user_version: SCHEMA_VERSION };

async fn settings(db: &impl Database) -> Result<Settings, StoreError> {
    // The look at sqlite_schema has the connection notice a schema that changed
    // since it read it, while another instance created it; a pragma does not.
    const SETTINGS: &str = "SELECT journal_mode, synchronous, user_version \
        FROM pragma_journal_mode, pragma_synchronous, pragma_user_version, \
          (SELECT count(*) FROM sqlite_schema)";
    const SYNCHRONOUS_FULL: i64 = 2;
    let rows = db.execute(SETTINGS, Vec::new()).await?;
    let mut columns = Columns::first_of(rows)?;
    Ok(Settings {
        wal: columns.text()? == "wal",
        synchronous_full: columns.integer()? == SYNCHRONOUS_FULL,
        user_version: columns.integer()?,
    })
}

async fn create_schema(db: &impl Database, now: UnixMillis, from: i64) -> Result<(), StoreError> {
    run_script(db, SCHEMA, now).await?;
    if from == 1 {
        const EVENTS_1: &str =
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'events'";
        let rows = db.execute(EVENTS_1, Vec::new()).await?;
        if Columns::first_of(rows)?.integer()? > 0 {
            run_script(db, SCHEMA_FROM_1, now).await?;
        }
        for emptied in ["topics", "verdict"] {
            db.execute(&format!("DROP TABLE IF EXISTS {emptied}"), Vec::new()).await?;
        }
        // Once more, for the view that has the name of that table now.
        run_script(db, SCHEMA, now).await?;
    }
    db.execute(&format!("PRAGMA user_version = {SCHEMA_VERSION}"), Vec::new()).await?;
    Ok(())
}

async fn run_script(
    db: &impl Database,
    script: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for statement in statements(script) {
        run_statement(db, statement, now).await?;
    }
    Ok(())
}

async fn run_statement(
    db: &impl Database,
    statement: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let parameters = if statement.contains("?1") { vec![now.into()] } else { Vec::new() };
    db.execute(statement, parameters).await.map(drop)
}

fn statements(script: &'static str) -> impl Iterator<Item = &'static str> {
    script.split(";\n\n").map(|statement| statement.trim().trim_end_matches(';')).filter(
        |statement| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--")),
    )
}

/// Deliveries on their way into a statement, as the JSON that it reads. Made
/// once, however often the statement is tried.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// `[…],[…]`: topic, event id, source, content, timestamp, payload of each.
    rows: String,
    count: usize,
    rejected: usize,
}

impl Deliveries {
    /// `events`, and a number of deliveries that were no valid events.
    ///
    /// # Errors
    ///
    /// None that an [`Event`] can cause.
    pub fn new(events: &[Event], rejected: usize) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        for event in events {
            let row = (
                event.topic.as_str(),
                event.event_id.as_str(),
                event.source.as_str(),
                hex(&event.content),
                &event.timestamp,
                &event.payload,
            );
            if !rows.is_empty() {
                rows.push(b',');
            }
            serde_json::to_writer(&mut rows, &row).map_err(|error| odd(&error.to_string()))?;
        }
        let rows = String::from_utf8(rows).map_err(|error| odd(&error.to_string()))?;
        Ok(Deliveries { rows, count: events.len(), rejected })
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How much text there is, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.len()
    }
}

/// Two digits for each byte, which is how JSON can carry a BLOB.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Takes deliveries in one commit: dedup, store and count. Outcomes come back
/// in the order of the events.
///
/// # Errors
///
/// What the store says; nothing of them is stored then.
pub async fn append(
    db: &impl Database,
    now: UnixMillis,
    deliveries: &[&Deliveries],
) -> Result<Vec<Outcome>, StoreError> {
    // One row comes back, whatever the number of events: rows are streamed to
    // a component one by one. Its last column is NULL when all were accepted,
    // otherwise it tells of each place in the batch the seq that its identity
    // is stored under, and whether the stored content is the same.
    const APPEND: &str = "\
        INSERT INTO incoming_batch (batch, received_at, rejected, seq_before) \
        SELECT ?1, max(?2, coalesce(last.received_at, 0)), ?3, coalesce(last.seq, 0) \
        FROM (SELECT 1) \
          LEFT JOIN (SELECT seq, received_at FROM event_log ORDER BY seq DESC LIMIT 1) AS last \
        RETURNING seq_before, \
          CASE WHEN (SELECT max(seq) FROM event_log) IS NOT seq_before + ?4 THEN ( \
            SELECT json_group_array(json_array(d.key, e.seq, e.content = unhex(d.value ->> 3))) \
            FROM json_each(batch) AS d \
              CROSS JOIN topic_totals AS t ON t.topic = d.value ->> 0 \
              CROSS JOIN event_log AS e ON e.topic_id = t.id AND e.event_id = d.value ->> 1 \
          ) END";
    let count: usize = deliveries.iter().map(|deliveries| deliveries.count).sum();
    let rejected: usize = deliveries.iter().map(|deliveries| deliveries.rejected).sum();
    let parameters =
        vec![array_of(deliveries).into(), now.into(), integer(rejected), integer(count)];
    let mut columns = Columns::first_of(db.commit(APPEND, parameters).await?)?;
    let seq_before = columns.integer()?;
    match columns.optional_text()? {
        None => Ok((seq_before + 1..).map(|seq| Outcome::Accepted { seq }).take(count).collect()),
        Some(found) => outcomes(&found, count, seq_before),
    }
}

fn array_of(deliveries: &[&Deliveries]) -> String {
    let bytes: usize = deliveries.iter().map(|deliveries| deliveries.bytes() + 1).sum();
    let mut batch = String::with_capacity(bytes + 2);
    batch.push('[');
    for deliveries in deliveries.iter().filter(|deliveries| deliveries.count > 0) {
        if batch.len() > 1 {
            batch.push(',');
        }
        batch.push_str(&deliveries.rows);
    }
    batch.push(']');
    batch
}

/// The outcome at each place. Of the deliveries whose identity was stored by
/// this very batch, the first is the one that was accepted.
fn outcomes(found: &str, count: usize, seq_before: i64) -> Result<Vec<Outcome>, StoreError> {
    let found: Vec<(usize, i64, u8)> =
        serde_json::from_str(found).map_err(|error| odd(&error.to_string()))?;
    let mut firsts: BTreeMap<i64, usize> = BTreeMap::new();
    for (place, seq, _) in &found {
        let first = firsts.entry(*seq).or_insert(*place);
        *first = (*first).min(*place);
    }
    let mut outcomes = vec![None; count];
    for (place, seq, same_content) in found {
        let Some(slot) = outcomes.get_mut(place) else {
            return Err(odd(&format!("an outcome at {place} of {count}")));
        };
        *slot = Some(if seq > seq_before && firsts.get(&seq) == Some(&place) {
            Outcome::Accepted { seq }
        } else if same_content == 1 {
            Outcome::Duplicate
        } else {
            Outcome::Conflict
        });
    }
    let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
    outcomes.ok_or_else(|| odd("fewer outcomes than events"))
}

fn integer(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
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
        integer(events_max),
        integer(bytes_max),
        Value::Integer(filter.above.unwrap_or(0)),
        Value::Integer(filter.below.unwrap_or(i64::MAX)),
    ];
    let mut conditions = String::from("seq > ?3 AND seq < ?4");
    for (column, wanted) in [
        ("topic_id = (SELECT id FROM topic_totals WHERE topic =", &filter.topic),
        ("source = (", &filter.source),
    ] {
        if let Some(wanted) = wanted {
            parameters.push(wanted.as_str().into());
            conditions.push_str(&format!(" AND {column} ?{})", parameters.len()));
        }
    }
    let order = if filter.descending { "DESC" } else { "ASC" };
    let statement = format!(
        "SELECT e.seq, t.topic, e.event_id, e.source, e.timestamp, e.payload, e.received_at \
         FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq {order}) - bytes AS bytes_before \
               FROM (SELECT seq, octet_length(event_id) + octet_length(source) \
                              + octet_length(payload) AS bytes \
                     FROM event_log \
                     WHERE {conditions} ORDER BY seq {order} LIMIT ?1)) AS p \
         JOIN event_log AS e ON e.seq = p.seq \
         JOIN topic_totals AS t ON t.id = e.topic_id \
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
          SELECT 1, coalesce((SELECT max(seq) FROM event_log), 0) + 1 \
          UNION ALL \
          SELECT CASE WHEN received_at < ?1 THEN seq + 1 ELSE low END, \
                 CASE WHEN received_at < ?1 THEN high ELSE seq END \
          FROM bisect JOIN event_log ON seq = (low + high) / 2 WHERE low < high) \
        SELECT low FROM bisect WHERE low = high";
    Columns::first_of(db.execute(BISECT, vec![moment.into()]).await?)?.integer()
}

/// All counters. The cost grows with the number of topics, never with the
/// number of events.
///
/// # Errors
///
/// What the store says.
pub async fn totals(db: &impl Database) -> Result<Totals, StoreError> {
    const TOTALS: &str = "\
        SELECT topic, unique_processed, duplicate_dropped, conflicts FROM topic_totals \
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

    fn first_of(rows: Vec<Row>) -> Result<Self, StoreError> {
        rows.into_iter().next().map(Columns::of).ok_or_else(|| odd("no row"))
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
