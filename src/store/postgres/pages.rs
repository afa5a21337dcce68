//! Pages of events, and the places where they begin and end.

use super::columns::Columns;
use super::statement::{SETTLE_MS_MAX, Statement, integer, optional, topics};
use crate::platform::postgres::{Row, Value};
use crate::store::model::{
    CLOCK_AHEAD_MS_MAX, Cursor, Filter, Order, PageLimit, Seq, StoreError, StoredEvent,
};
use crate::time::UnixMillis;

/// By how much `received_at` may decrease along seq between two places where times begin
/// anew, in milliseconds. Two commits that were under way at the same time differ by the
/// moment between a look at the clock and the next place, and by no more than what a
/// clock that is set back may be behind.
const DISORDER_MS_MAX: i64 = 2 * CLOCK_AHEAD_MS_MAX;

/// Reads the next events of `filter`.
pub(super) fn page(filter: &Filter, limit: PageLimit) -> Statement {
    const PAGE: &str = "SELECT seqs, topic_names, event_ids, sources, timestamps, payloads, \
        received FROM sekali.page_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::bigint::int)";
    let [above, below, up_to] = filter.bounds();
    let parameters = vec![
        topics(&filter.topics),
        filter.source.as_deref().map_or(Value::Null, Value::from),
        Value::Boolean(filter.order == Order::Ascending),
        above.number().into(),
        below.number().into(),
        up_to.number().into(),
        optional(filter.since),
        optional(filter.until),
        integer(limit.events_max),
        integer(limit.bytes_max),
        SETTLE_MS_MAX.into(),
    ];
    Statement { sql: PAGE, parameters }
}

/// The events of a page.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn events(rows: Vec<Row>) -> Result<Vec<StoredEvent>, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let seqs = columns.integers()?;
    let (topics, event_ids, sources) = (columns.texts()?, columns.texts()?, columns.texts()?);
    let (timestamps, payloads) = (columns.optional_texts()?, columns.texts()?);
    let received = columns.integers()?;
    let (count, names) = (seqs.len(), [topics.len(), event_ids.len(), sources.len()]);
    let rest = [timestamps.len(), payloads.len(), received.len()];
    if (names, rest) != ([count; 3], [count; 3]) {
        return Err(StoreError::unexpected("columns of different lengths"));
    }
    let names = topics.into_iter().zip(event_ids).zip(sources);
    let rest = timestamps.into_iter().zip(payloads).zip(received);
    let events = seqs.into_iter().zip(names).zip(rest).map(
        |((seq, ((topic, event_id), source)), ((timestamp, payload), received_at))| StoredEvent {
            seq: Seq::new(seq),
            topic,
            event_id,
            source,
            timestamp,
            payload,
            received_at,
        },
    );
    Ok(events.collect())
}

/// The place after the newest event up to which nothing will appear any more.
pub(super) fn head() -> Statement {
    let parameters = vec![SETTLE_MS_MAX.into()];
    Statement { sql: "SELECT sekali.head_1($1::bigint::int)", parameters }
}

/// The cursor that a statement returned.
///
/// # Errors
///
/// When the row is none of a cursor.
pub(super) fn cursor(rows: Vec<Row>) -> Result<Cursor, StoreError> {
    Columns::first_of(rows)?.integer().map(Cursor::from_number)
}

/// The places that hold every event received from `since` on and before `until`.
pub(super) fn received_between(since: Option<UnixMillis>, until: Option<UnixMillis>) -> Statement {
    const BETWEEN: &str =
        "SELECT after, up_to FROM sekali.received_between_2($1, $2, $3, $4::bigint::int)";
    let parameters =
        vec![optional(since), optional(until), DISORDER_MS_MAX.into(), SETTLE_MS_MAX.into()];
    Statement { sql: BETWEEN, parameters }
}

/// The places that [`received_between`] returned.
///
/// # Errors
///
/// When the row is none of places.
pub(super) fn places(rows: Vec<Row>) -> Result<(Option<Cursor>, Option<Cursor>), StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let (after, up_to) = (columns.optional_integer()?, columns.optional_integer()?);
    Ok((after.map(Cursor::from_number), up_to.map(Cursor::from_number)))
}
