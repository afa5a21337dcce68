//! The statement that is a commit.

use super::checkpoint::WAL_PAGES;
use super::columns::Columns;
use super::fault::store_error;
use super::places;
use super::statement::{Statement, integer};
use crate::platform::sqlite::{Row, SqliteError, Value};
use crate::store::encoding;
use crate::store::engine::{self, Deliveries, events_in};
use crate::store::model::{CLOCK_AHEAD_MS_MAX, Increments, Outcome, Seq, StoreError};
use crate::time::UnixMillis;

macro_rules! time_begins {
    () => {
        "mark/time_begins/"
    };
}

/// The prefix of the names under which `counters` holds, as the rest of the name, the
/// seq from which on times begin anew since the clock was set back by more than
/// [`CLOCK_AHEAD_MS_MAX`]. Between two of them they never decrease.
pub(super) const TIME_BEGINS: &str = time_begins!();

/// How the newest event stands to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newest {
    /// Not far ahead of it. The statement changes nothing when that is not so, and
    /// [`is_ahead`] tells it from its row.
    InTime,
    /// It may be far ahead.
    MayBeAhead,
}

// What several of the statements below have. Their texts are constant, so that a
// connection prepares each once.

macro_rules! last_received {
    () => {
        "coalesce((SELECT received_at FROM event_log ORDER BY seq DESC LIMIT 1), 0)"
    };
}

macro_rules! last_seq {
    () => {
        "coalesce((SELECT max(seq) FROM event_log), 0)"
    };
}

// One row comes back, whatever the number of events: rows are streamed to a component
// one by one. Its first column is the highest seq before, NULL when the newest event is
// far ahead of the clock. Its second is NULL when all were accepted, otherwise it tells,
// with commas between, of each event in its order: `d` or `c`, when its identity was
// stored before, with the same content or another; else which of the new ones has it.
macro_rules! one_row {
    () => {
        " RETURNING iif(received_at <= latest, seq_before, NULL), \
            CASE WHEN (SELECT max(seq) FROM event_log) IS NOT seq_before + ?6 THEN ( \
              SELECT group_concat(iif(e.seq > seq_before, e.seq - seq_before, \
                  iif(e.content = substr(data, d.topic - 16, 16), 'd', 'c'))) \
              FROM (SELECT value >> 30 AS topic, value >> 20 & 1023 AS topic_bytes, \
                      value >> 10 & 1023 AS event_id_bytes \
                    FROM (SELECT value FROM json_each(places) LIMIT -1 OFFSET 0) \
                    LIMIT -1 OFFSET 0) AS d \
                CROSS JOIN identity AS e ON e.topic_id = ( \
                    SELECT id FROM topic_totals AS t \
                    WHERE t.topic = CAST(substr(data, d.topic, topic_bytes) AS TEXT)) \
                  AND e.event_id = \
                    CAST(substr(data, d.topic + topic_bytes, event_id_bytes) AS TEXT) \
            ) END"
    };
}

macro_rules! of_group {
    ($view:literal, $column:literal, $value:literal) => {
        concat!(
            "INSERT INTO ",
            $view,
            " (data, places, latest, received_at, rejected, ",
            $column,
            "seq_before) VALUES (?1, ?4, ?3, max(?2, ",
            last_received!(),
            "), ?5, ",
            $value,
            last_seq!(),
            ")",
            one_row!()
        )
    };
}

macro_rules! ahead {
    () => {
        concat!(
            "INSERT INTO incoming_counted_group \
               (data, places, latest, received_at, rejected, counts, seq_before) \
             SELECT ?1, ?4, ?3, iif(ahead, ?2, max(?2, received_at)), ?5, \
               iif(ahead, json_set(?7, '$.\"",
            time_begins!(),
            "' || (seq + 1) || '\"', 1), ?7), seq \
             FROM (SELECT seq, received_at, received_at > ?3 AS ahead \
                   FROM (SELECT ",
            last_seq!(),
            " AS seq, ",
            last_received!(),
            " AS received_at)) WHERE true",
            one_row!()
        )
    };
}

macro_rules! pages_told {
    () => {
        ", (SELECT value FROM counters WHERE name = ?8)"
    };
}

/// A commit of one event, and of nothing else: nothing is taken apart for it.
/// Returns what the others return.
const LONE: &str = concat!(
    "INSERT INTO incoming_delivery (latest, received_at, seq_before, \
       topic, event_id, source, content, timestamp, payload) \
     VALUES (?2, max(?1, ",
    last_received!(),
    "), ",
    last_seq!(),
    ", ?3, ?4, ?5, ?6, ?7, ?8) \
     RETURNING iif(received_at <= latest, seq_before, NULL), \
       CASE WHEN (SELECT max(seq) FROM event_log) IS seq_before THEN ( \
         SELECT iif(e.content = ?6, 'd', 'c') FROM identity AS e \
         WHERE e.topic_id = (SELECT id FROM topic_totals AS t WHERE t.topic = ?3) \
           AND e.event_id = ?4 \
       ) END"
);

/// A commit of any events and rejected deliveries.
const GROUP: &str = of_group!("incoming_group", "", "");

/// The same, with increments of counters.
const COUNTED: &str = of_group!("incoming_counted_group", "counts, ", "?7, ");

/// The same, which returns the pages in the write-ahead log as well.
const COUNTED_AND_TOLD: &str =
    concat!(of_group!("incoming_counted_group", "counts, ", "?7, "), pages_told!());

/// The same as `COUNTED`, also when the newest event is far ahead of the clock.
const AHEAD: &str = ahead!();

/// The same, which returns the pages in the write-ahead log as well.
const AHEAD_AND_TOLD: &str = concat!(ahead!(), pages_told!());

/// The one statement that is a commit: dedup, store and count, with
/// `increments` and `wal_pages` added to the counters by the way.
///
/// # Errors
///
/// None that an [`Event`](crate::event::Event) can cause.
pub(super) fn append(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    wal_pages: Option<i64>,
    newest: Newest,
    now: UnixMillis,
) -> Result<Statement, StoreError> {
    let latest = now.saturating_add(CLOCK_AHEAD_MS_MAX);
    let events = events_in(group);
    let rejected: i64 = group.iter().flat_map(|deliveries| deliveries.rejected.values()).sum();
    let increments = increments_of(group, increments, wal_pages)?;
    let bytes = places::bytes_of(group);
    if events == 1 && rejected == 0 && increments.is_none() && newest == Newest::InTime {
        return lone(&bytes, now, latest);
    }
    let places = places::places(&bytes, events)?;
    let mut parameters = vec![
        Value::Blob(bytes),
        now.into(),
        latest.into(),
        places.into(),
        rejected.into(),
        integer(events),
    ];
    let (sql, increments) = match (newest, increments, wal_pages) {
        (Newest::InTime, None, _) => (GROUP, None),
        (Newest::InTime, Some(increments), None) => (COUNTED, Some(increments)),
        (Newest::InTime, Some(increments), Some(_)) => (COUNTED_AND_TOLD, Some(increments)),
        (Newest::MayBeAhead, increments, told) => {
            let sql = if told.is_some() { AHEAD_AND_TOLD } else { AHEAD };
            (sql, Some(increments.unwrap_or_else(|| "{}".to_owned())))
        }
    };
    parameters.extend(increments.map(Value::Text));
    parameters.extend(wal_pages.map(|_| WAL_PAGES.into()));
    Ok(Statement { sql: sql.into(), parameters })
}

/// The commit of one event.
fn lone(encoded: &[u8], now: UnixMillis, latest: UnixMillis) -> Result<Statement, StoreError> {
    let mut events = encoding::events(encoded);
    let event = events.next().transpose()?;
    let (Some(event), None) = (event, events.next()) else {
        return Err(StoreError::unexpected("bytes of another number of events than one"));
    };
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map(Value::Text).map_err(StoreError::unexpected)
    };
    let timestamp = match event.timestamp {
        [] => Value::Null,
        timestamp => text(timestamp)?,
    };
    let parameters = vec![
        now.into(),
        latest.into(),
        text(event.topic)?,
        text(event.event_id)?,
        text(event.source)?,
        Value::Blob(event.content.to_vec()),
        timestamp,
        text(event.payload)?,
    ];
    Ok(Statement { sql: LONE.into(), parameters })
}

/// Whether a statement that was to find the newest event in time did not, and so
/// changed nothing.
pub(super) fn is_ahead(rows: &[Row]) -> bool {
    matches!(rows, [row] if row.first() == Some(&Value::Null))
}

/// How many bytes of events there are in a group.
pub(super) fn bytes_in(group: &[&Deliveries]) -> usize {
    group.iter().map(|deliveries| deliveries.encoded.len()).sum()
}

/// The words of SQLite about the second event of [`undone`].
const UNDONE: &str = "NOT NULL constraint failed: topic_totals.topic";

/// A commit of two events, the second of which cannot be: SQLite takes the write
/// lock, changes every table and index that a commit changes, fails at the second
/// event, which has no place, and undoes it all. Nothing was written to the disk then.
pub(super) fn undone(now: UnixMillis) -> Statement {
    const SQL: &str = "\
        INSERT INTO incoming_group (data, places, latest, received_at, rejected, seq_before) \
        SELECT CAST(?1 || topic || ?1 || 's' AS BLOB), \
          '{\"0\":' || ((17 << 30) + (octet_length(topic) << 20) + (16 << 10) + 1) || ',\"1\":null}', \
          0, 0, 0, 0 \
        FROM (SELECT coalesce((SELECT topic FROM topic_totals ORDER BY id DESC LIMIT 1), '') \
                AS topic)";
    // Another place of the index of identities each time. Of 16 bytes, so that it can
    // stand for a content as well.
    let event_id = format!("{:016x}", now.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    Statement { sql: SQL.into(), parameters: vec![event_id.into()] }
}

/// Whether [`undone`] failed where it was to fail.
///
/// # Errors
///
/// What the store says otherwise.
pub(super) fn was_undone(result: Result<Vec<Row>, SqliteError>) -> Result<(), StoreError> {
    match result {
        Err(SqliteError::Sqlite(words)) if words.contains(UNDONE) => Ok(()),
        Err(error) => Err(store_error(error)),
        Ok(_) => Err(StoreError::unexpected("an event without a topic was stored")),
    }
}

/// The outcome of each event of `group` from the row that [`append`] returned, and the
/// pages in the write-ahead log by all that was told, if this commit `told` any.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn outcomes(
    rows: Vec<Row>,
    group: &[&Deliveries],
    told: bool,
) -> Result<(Vec<Outcome>, Option<i64>), StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let seq_before = columns.integer()?;
    let outcomes = match columns.optional_text()? {
        None => (seq_before + 1..)
            .map(|seq| Outcome::Accepted { seq: Seq::new(seq) })
            .take(events_in(group))
            .collect(),
        Some(found) => told_apart(&found, group, seq_before)?,
    };
    let wal_pages = told.then(|| columns.integer()).transpose()?;
    Ok((outcomes, wal_pages))
}

/// What to add to the counters by name, as JSON, if there is anything.
fn increments_of(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    wal_pages: Option<i64>,
) -> Result<Option<String>, StoreError> {
    let mut all = engine::increments_of(group, increments);
    all.extend(wal_pages.map(|pages| (WAL_PAGES.to_owned(), pages)));
    let text = (!all.is_empty()).then(|| serde_json::to_string(&all)).transpose();
    text.map_err(StoreError::unexpected)
}

/// The outcome of each event. Of those whose identity was stored by this very commit,
/// the first is the one that was accepted: the new ones are in the order of the events.
fn told_apart(
    found: &str,
    group: &[&Deliveries],
    seq_before: i64,
) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(events_in(group));
    let mut accepted: Vec<&[u8]> = Vec::new();
    let mut found = found.split(',');
    let events = group.iter().flat_map(|deliveries| encoding::events(&deliveries.encoded));
    for event in events {
        let content = event?.content;
        let outcome = match found.next() {
            Some("d") => Outcome::Duplicate,
            Some("c") => Outcome::Conflict,
            Some(new) => {
                // The first of them is 1.
                let new: usize = new.parse().map_err(StoreError::unexpected)?;
                match accepted.get(new.wrapping_sub(1)) {
                    Some(first) if *first == content => Outcome::Duplicate,
                    Some(_) => Outcome::Conflict,
                    None if new == accepted.len() + 1 => {
                        accepted.push(content);
                        let seq =
                            seq_before + i64::try_from(new).map_err(StoreError::unexpected)?;
                        Outcome::Accepted { seq: Seq::new(seq) }
                    }
                    None => return Err(StoreError::unexpected("an outcome out of order")),
                }
            }
            None => return Err(StoreError::unexpected("fewer outcomes than events")),
        };
        outcomes.push(outcome);
    }
    match found.next() {
        None => Ok(outcomes),
        Some(_) => Err(StoreError::unexpected("more outcomes than events")),
    }
}
