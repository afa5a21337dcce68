//! The statement that is a commit, and pages.

use std::collections::BTreeMap;

use super::checkpoint::WAL_PAGES;
use super::columns::Columns;
use super::fault::store_error;
use super::statement::{Statement, integer, query};
use crate::event::{CONTENT_DIGEST_BYTES, Event};
use crate::platform::sqlite::{Row, SqliteConnection, SqliteError, Value};
use crate::store::engine::Deliveries;
use crate::store::model::{
    Cursor, Filter, Increments, Order, Outcome, PageLimit, REJECTED_PREFIX, Seq, StoreError,
    StoredEvent,
};
use crate::time::UnixMillis;

/// The events as the JSON that the statement reads, `[…],[…]`: topic, event id,
/// source, content, timestamp, payload of each.
///
/// # Errors
///
/// None that an [`Event`] can cause.
pub(super) fn encode(events: &[&Event]) -> Result<String, StoreError> {
    let mut encoded = Vec::with_capacity(events.iter().map(|event| encoded_bytes(event)).sum());
    for event in events {
        let row = (
            event.topic().as_str(),
            event.event_id().as_str(),
            event.source().as_str(),
            hex(event.content()),
            event.timestamp(),
            event.payload(),
        );
        if !encoded.is_empty() {
            encoded.push(b',');
        }
        serde_json::to_writer(&mut encoded, &row).map_err(StoreError::unexpected)?;
    }
    String::from_utf8(encoded).map_err(StoreError::unexpected)
}

/// How long an event's row is, unless there are control characters in its names:
/// a long row that grew into its place would need twice the room.
fn encoded_bytes(event: &Event) -> usize {
    let quoted = |text: &str| {
        let escapes = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        text.len() + escapes + 3
    };
    let names = [event.topic().as_str(), event.event_id().as_str(), event.source().as_str()];
    let names: usize = names.into_iter().map(quoted).sum();
    let timestamp = event.timestamp().map_or("null".len() + 1, quoted);
    names + 2 * CONTENT_DIGEST_BYTES + 3 + timestamp + quoted(event.payload()) + 2
}

/// Two digits for each byte, which is how JSON can carry a BLOB.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// How far the time of the newest event may be ahead of the clock for the clock to
/// stand still until it has caught up, in milliseconds. A time further ahead is that
/// of a clock that was wrong: what comes next has the time of the clock.
pub(crate) const CLOCK_AHEAD_MS_MAX: i64 = 10_000;

/// The prefix of the names under which `counters` holds, as the rest of the name, the
/// seq from which on times begin anew since the clock was set back by more than
/// [`CLOCK_AHEAD_MS_MAX`]. Between two of them they never decrease.
const TIME_BEGINS: &str = "mark/time_begins/";

/// How the newest event stands to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newest {
    /// Not far ahead of it. The statement returns no row and changes nothing when
    /// that is not so.
    InTime,
    /// It may be far ahead.
    MayBeAhead,
}

/// The one statement that is a commit: dedup, store and count, with
/// `increments` and `wal_pages` added to the counters by the way.
///
/// # Errors
///
/// None that an [`Event`] can cause.
pub(super) fn append(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    wal_pages: Option<i64>,
    newest: Newest,
    now: UnixMillis,
) -> Result<Statement, StoreError> {
    // One row comes back, whatever the number of events: rows are streamed to
    // a component one by one. Its second column is NULL when all were accepted,
    // otherwise it tells of each place in the batch the seq that its identity
    // is stored under, and whether the stored content is the same.
    const FROM_LAST: &str = "\
        FROM (SELECT 1) \
          LEFT JOIN (SELECT seq, received_at FROM event_log ORDER BY seq DESC LIMIT 1) AS last";
    const RETURNING_OUTCOMES: &str = "\
        RETURNING seq_before, \
          CASE WHEN (SELECT max(seq) FROM event_log) IS NOT seq_before + ?4 THEN ( \
            SELECT json_group_array(json_array(d.key, e.seq, e.content = unhex(d.value ->> 3))) \
            FROM json_each(batch) AS d \
              CROSS JOIN topic_totals AS t ON t.topic = d.value ->> 0 \
              CROSS JOIN event_log AS e ON e.topic_id = t.id AND e.event_id = d.value ->> 1 \
          ) END";
    let rejected: i64 = group.iter().flat_map(|deliveries| deliveries.rejected.values()).sum();
    let mut parameters =
        vec![array_of(group).into(), now.into(), rejected.into(), integer(events_in(group))];
    let increments = increments_of(group, increments, wal_pages)?;
    let sql = match newest {
        Newest::InTime => {
            let (view, column, value) = match increments {
                None => ("incoming_commit", "", ""),
                Some(increments) => {
                    parameters.push(increments.into());
                    ("incoming_counted_commit", "counts, ", "?5, ")
                }
            };
            format!(
                "INSERT INTO {view} (batch, received_at, rejected, {column}seq_before) \
                 SELECT ?1, max(?2, coalesce(last.received_at, 0)), ?3, {value}coalesce(last.seq, 0) \
                 {FROM_LAST} \
                 WHERE coalesce(last.received_at, 0) <= ?2 + {CLOCK_AHEAD_MS_MAX} \
                 {RETURNING_OUTCOMES}"
            )
        }
        Newest::MayBeAhead => {
            parameters.push(increments.unwrap_or_else(|| "{}".to_owned()).into());
            format!(
                "INSERT INTO incoming_counted_commit \
                   (batch, received_at, rejected, counts, seq_before) \
                 SELECT ?1, iif(ahead, ?2, max(?2, received_at)), ?3, \
                   iif(ahead, json_set(?5, '$.\"{TIME_BEGINS}' || (seq + 1) || '\"', 1), ?5), seq \
                 FROM (SELECT coalesce(last.seq, 0) AS seq, \
                         coalesce(last.received_at, 0) AS received_at, \
                         coalesce(last.received_at, 0) > ?2 + {CLOCK_AHEAD_MS_MAX} AS ahead \
                       {FROM_LAST}) WHERE true \
                 {RETURNING_OUTCOMES}"
            )
        }
    };
    let mut statement = Statement { sql, parameters };
    if wal_pages.is_some() {
        statement.parameters.push(WAL_PAGES.into());
        let name = statement.parameters.len();
        let all = format!(", (SELECT value FROM counters WHERE name = ?{name})");
        statement.sql.push_str(&all);
    }
    Ok(statement)
}

/// How many bytes of events there are in a group.
pub(super) fn bytes_in(group: &[&Deliveries]) -> usize {
    group.iter().map(|deliveries| deliveries.encoded.len()).sum()
}

/// The words of SQLite about the second event of [`undone`].
const UNDONE: &str = "NOT NULL constraint failed: event_log.source";

/// A commit of two events, the second of which cannot be: SQLite takes the write
/// lock, changes every table and index that a commit changes, fails at the second
/// event and undoes it all. Nothing was written to the disk then.
pub(super) fn undone(now: UnixMillis) -> Statement {
    const SQL: &str = "\
        INSERT INTO incoming_commit (batch, received_at, rejected, seq_before) \
        SELECT json_array(json_array(topic, ?1, '', '', NULL, ''), \
                          json_array(topic, ?1, NULL, '', NULL, '')), 0, 0, 0 \
        FROM (SELECT coalesce((SELECT topic FROM topic_totals ORDER BY id DESC LIMIT 1), '') \
                AS topic)";
    // Another place of the index of identities each time.
    let event_id = format!("{:x}", now.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    Statement { sql: SQL.to_owned(), parameters: vec![event_id.into()] }
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
        Ok(_) => Err(StoreError::unexpected("an event without a source was stored")),
    }
}

/// How many events there are in a group.
pub(super) fn events_in(group: &[&Deliveries]) -> usize {
    group.iter().map(|deliveries| deliveries.events).sum()
}

/// The outcome of each of `events` from the row that [`append`] returned, and the
/// pages in the write-ahead log by all that was told, if this commit `told` any.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn outcomes(
    rows: Vec<Row>,
    events: usize,
    told: bool,
) -> Result<(Vec<Outcome>, Option<i64>), StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let seq_before = columns.integer()?;
    let outcomes = match columns.optional_text()? {
        None => (seq_before + 1..)
            .map(|seq| Outcome::Accepted { seq: Seq::new(seq) })
            .take(events)
            .collect(),
        Some(found) => told_apart(&found, events, seq_before)?,
    };
    let wal_pages = told.then(|| columns.integer()).transpose()?;
    Ok((outcomes, wal_pages))
}

fn array_of(group: &[&Deliveries]) -> String {
    let bytes: usize = group.iter().map(|deliveries| deliveries.encoded.len() + 1).sum();
    let mut batch = String::with_capacity(bytes + 2);
    batch.push('[');
    for deliveries in group.iter().filter(|deliveries| deliveries.events > 0) {
        if batch.len() > 1 {
            batch.push(',');
        }
        batch.push_str(&deliveries.encoded);
    }
    batch.push(']');
    batch
}

/// What to add to the counters by name, as JSON, if there is anything.
fn increments_of(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    wal_pages: Option<i64>,
) -> Result<Option<String>, StoreError> {
    let mut all = Increments::new();
    for (field, count) in group.iter().flat_map(|deliveries| &deliveries.rejected) {
        *all.entry(format!("{REJECTED_PREFIX}{field}")).or_default() += count;
    }
    // Their names are others than those of reasons.
    all.extend(increments.into_iter().flatten().map(|(name, count)| (name.clone(), *count)));
    all.extend(wal_pages.map(|pages| (WAL_PAGES.to_owned(), pages)));
    let text = (!all.is_empty()).then(|| serde_json::to_string(&all)).transpose();
    text.map_err(StoreError::unexpected)
}

/// The outcome at each place. Of the deliveries whose identity was stored by
/// this very batch, the first is the one that was accepted.
fn told_apart(found: &str, count: usize, seq_before: i64) -> Result<Vec<Outcome>, StoreError> {
    let found: Vec<(usize, i64, u8)> =
        serde_json::from_str(found).map_err(StoreError::unexpected)?;
    let mut firsts: BTreeMap<i64, usize> = BTreeMap::new();
    for (place, seq, _) in &found {
        let first = firsts.entry(*seq).or_insert(*place);
        *first = (*first).min(*place);
    }
    let mut outcomes = vec![None; count];
    for (place, seq, same_content) in found {
        let Some(slot) = outcomes.get_mut(place) else {
            return Err(StoreError::unexpected(format_args!("an outcome at {place} of {count}")));
        };
        *slot = Some(if seq > seq_before && firsts.get(&seq) == Some(&place) {
            Outcome::Accepted { seq: Seq::new(seq) }
        } else if same_content == 1 {
            Outcome::Duplicate
        } else {
            Outcome::Conflict
        });
    }
    let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
    outcomes.ok_or_else(|| StoreError::unexpected("fewer outcomes than events"))
}

/// Reads the next events of `filter`.
///
/// # Errors
///
/// What the store says.
pub(super) fn page(
    connection: &dyn SqliteConnection,
    filter: &Filter,
    limit: PageLimit,
) -> Result<Vec<StoredEvent>, StoreError> {
    let (above, below) = match filter.order {
        Order::Ascending => (filter.from, None),
        Order::Descending => (None, filter.from),
    };
    let above = above.max(filter.after).unwrap_or(Cursor::START);
    let mut parameters = vec![
        integer(limit.events_max),
        integer(limit.bytes_max),
        Value::Integer(above.number()),
        Value::Integer(below.unwrap_or(Cursor::END).number()),
        Value::Integer(filter.up_to.unwrap_or(Cursor::END).number()),
    ];
    let mut bound = |value: &str| {
        parameters.push(value.into());
        parameters.len()
    };
    let mut conditions = String::from("seq > ?3 AND seq < ?4 AND seq <= ?5");
    if let Some(source) = &filter.source {
        conditions.push_str(&format!(" AND source = ?{}", bound(source)));
    }
    // A search found the places, but where the clock was set back there are others
    // between them.
    for (moment, comparison) in [(filter.since, ">="), (filter.until, "<")] {
        if let Some(moment) = moment {
            conditions.push_str(&format!(" AND received_at {comparison} {moment}"));
        }
    }
    let order = match filter.order {
        Order::Ascending => "ASC",
        Order::Descending => "DESC",
    };
    let rows = |conditions: &str| {
        format!(
            "SELECT seq, octet_length(event_id) + octet_length(source) + octet_length(payload) \
               AS bytes \
             FROM event_log WHERE {conditions} ORDER BY seq {order} LIMIT ?1"
        )
    };
    // Each topic by itself, along its index: `topic_id IN (…)` would have all
    // events of the topics sorted, whatever the limit.
    let of_topics: Vec<String> = filter
        .topics
        .iter()
        .map(|topic| {
            let topic = bound(topic.as_str());
            let topic = format!("topic_id = (SELECT id FROM topic_totals WHERE topic = ?{topic})");
            rows(&format!("{conditions} AND {topic}"))
        })
        .collect();
    let found = match of_topics.as_slice() {
        [] => rows(&conditions),
        [only] => only.clone(),
        several => {
            let several: Vec<_> =
                several.iter().map(|rows| format!("SELECT * FROM ({rows})")).collect();
            format!("{} ORDER BY seq {order} LIMIT ?1", several.join(" UNION ALL "))
        }
    };
    let statement = format!(
        "SELECT e.seq, t.topic, e.event_id, e.source, e.timestamp, e.payload, e.received_at \
         FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq {order}) - bytes AS bytes_before \
               FROM ({found})) AS p \
         JOIN event_log AS e ON e.seq = p.seq \
         JOIN topic_totals AS t ON t.id = e.topic_id \
         WHERE p.bytes_before < ?2 ORDER BY e.seq {order}"
    );
    query(connection, &statement, parameters)?.into_iter().map(stored_event).collect()
}

fn stored_event(row: Row) -> Result<StoredEvent, StoreError> {
    let mut columns = Columns::of(row);
    Ok(StoredEvent {
        seq: columns.seq()?,
        topic: columns.text()?,
        event_id: columns.text()?,
        source: columns.text()?,
        timestamp: columns.optional_text()?,
        payload: columns.text()?,
        received_at: columns.integer()?,
    })
}

/// The places where times begin anew, ascending: where the first begin, and where
/// the clock was set back.
fn time_begins(connection: &dyn SqliteConnection) -> Result<Vec<i64>, StoreError> {
    const TIME_BEGINS_AT: &str = "SELECT CAST(substr(name, length(?1) + 1) AS INTEGER) AS seq \
        FROM counters WHERE name >= ?1 AND name < ?2 ORDER BY seq";
    // '0' comes after '/'.
    const END: &str = "mark/time_begins0";
    let rows = query(connection, TIME_BEGINS_AT, vec![TIME_BEGINS.into(), END.into()])?;
    let mut begins = vec![1];
    for row in rows {
        begins.push(Columns::of(row).integer()?);
    }
    Ok(begins)
}

/// The places that hold every event received from `since` on and before `until`:
/// after the first, up to the second. Unless the clock was set back, they hold no
/// others; a page leaves those out.
///
/// Between two places where times begin anew `received_at` never decreases, and here
/// `seq` has no gaps, so a binary search finds them without an index, in some 25
/// look-ups for ten million events.
///
/// # Errors
///
/// What the store says.
pub(super) fn received_between(
    connection: &dyn SqliteConnection,
    since: Option<UnixMillis>,
    until: Option<UnixMillis>,
) -> Result<(Option<Cursor>, Option<Cursor>), StoreError> {
    let begins = time_begins(connection)?;
    let ends = begins.iter().skip(1).copied().map(Some).chain([None]);
    let (mut after, mut up_to) = (None, None);
    for (begin, end) in begins.iter().zip(ends) {
        if let Some(since) = since {
            let found = end_before(connection, since, *begin, end)?;
            // The first stretch that has an event of then or later.
            if after.is_none() && end.is_none_or(|end| found + 1 < end) {
                after = Some(Cursor::from_number(found));
            }
        }
        if let Some(until) = until {
            let found = end_before(connection, until, *begin, end)?;
            // The last stretch that has an event of before.
            if up_to.is_none() || found >= *begin {
                up_to = Some(Cursor::from_number(found));
            }
        }
    }
    Ok((after, up_to))
}

/// The seq of the last event received before `moment`, of those from `begin` on and
/// before `end`; that before `begin` when there is none.
fn end_before(
    connection: &dyn SqliteConnection,
    moment: UnixMillis,
    begin: i64,
    end: Option<i64>,
) -> Result<i64, StoreError> {
    const BISECT: &str = "\
        WITH RECURSIVE bisect (low, high) AS ( \
          SELECT ?2, coalesce(?3, (SELECT max(seq) FROM event_log) + 1, 1) \
          UNION ALL \
          SELECT CASE WHEN received_at < ?1 THEN seq + 1 ELSE low END, \
                 CASE WHEN received_at < ?1 THEN high ELSE seq END \
          FROM bisect JOIN event_log ON seq = (low + high) / 2 WHERE low < high) \
        SELECT low - 1 FROM bisect WHERE low >= high";
    let end = end.map_or(Value::Null, Value::Integer);
    let rows = query(connection, BISECT, vec![moment.into(), begin.into(), end])?;
    Columns::first_of(rows)?.integer()
}

/// The place after the newest event: one look-up at the end of the table,
/// however long it is.
///
/// # Errors
///
/// What the store says.
pub(super) fn head(connection: &dyn SqliteConnection) -> Result<Cursor, StoreError> {
    const HEAD: &str = "SELECT coalesce(max(seq), 0) FROM event_log";
    let rows = query(connection, HEAD, Vec::new())?;
    Columns::first_of(rows)?.integer().map(Cursor::from_number)
}

/// Reads one row, to see that the store answers.
///
/// # Errors
///
/// What the store says.
pub(super) fn probe(connection: &dyn SqliteConnection) -> Result<(), StoreError> {
    query(connection, "SELECT id FROM service", Vec::new()).map(drop)
}
