//! Pages of events, and the places where they begin and end.

use super::columns::Columns;
use super::event_log::TIME_BEGINS;
use super::statement::{integer, query};
use crate::platform::sqlite::{Row, SqliteConnection, Value};
use crate::store::model::{Cursor, Filter, Order, PageLimit, StoreError, StoredEvent};
use crate::time::UnixMillis;

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
    let [above, below, up_to] = filter.bounds();
    let mut parameters = vec![
        integer(limit.events_max),
        integer(limit.bytes_max),
        Value::Integer(above.number()),
        Value::Integer(below.number()),
        Value::Integer(up_to.number()),
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
        // The plus keeps SQLite from going along the index of topics.
        [] => rows(&format!("{conditions} AND +topic_id <> 0")),
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
/// Between two places where times begin anew `received_at` never decreases, so a binary
/// search finds them without an index, in some 25 look-ups for ten million places.
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
    // Where events were pruned the next one after them is looked at.
    const BISECT: &str = "\
        WITH RECURSIVE bisect (low, high) AS ( \
          SELECT ?2, coalesce(?3, (SELECT max(seq) FROM event_log) + 1, 1) \
          UNION ALL \
          SELECT CASE WHEN received_at < ?1 THEN seq + 1 ELSE low END, \
                 CASE WHEN received_at < ?1 THEN high ELSE (low + high) / 2 END \
          FROM bisect LEFT JOIN event_log ON seq = ( \
            SELECT min(seq) FROM event_log WHERE seq >= (low + high) / 2 AND seq < high) \
          WHERE low < high) \
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
