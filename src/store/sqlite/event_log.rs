//! The statement that is a commit, and pages.

use super::checkpoint::WAL_PAGES;
use super::columns::Columns;
use super::encoding;
use super::fault::store_error;
use super::statement::{Statement, integer, query};
use crate::platform::sqlite::{Row, SqliteConnection, SqliteError, Value};
use crate::store::engine::Deliveries;
use crate::store::model::{
    Cursor, Filter, Increments, Order, Outcome, PageLimit, REJECTED_PREFIX, Seq, StoreError,
    StoredEvent,
};
use crate::time::UnixMillis;

/// How far the time of the newest event may be ahead of the clock for the clock to
/// stand still until it has caught up, in milliseconds. A time further ahead is that
/// of a clock that was wrong: what comes next has the time of the clock.
pub(crate) const CLOCK_AHEAD_MS_MAX: i64 = 10_000;

macro_rules! time_begins {
    () => {
        "mark/time_begins/"
    };
}

/// The prefix of the names under which `counters` holds, as the rest of the name, the
/// seq from which on times begin anew since the clock was set back by more than
/// [`CLOCK_AHEAD_MS_MAX`]. Between two of them they never decrease.
const TIME_BEGINS: &str = time_begins!();

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
                CROSS JOIN event_log AS e ON e.topic_id = ( \
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
         SELECT iif(e.content = ?6, 'd', 'c') FROM event_log AS e \
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
    let bytes = encoding::bytes_of(group);
    if events == 1 && rejected == 0 && increments.is_none() && newest == Newest::InTime {
        return lone(&bytes, now, latest);
    }
    let places = encoding::places(&bytes, events)?;
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

/// How many events there are in a group.
pub(super) fn events_in(group: &[&Deliveries]) -> usize {
    group.iter().map(|deliveries| deliveries.events).sum()
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
