//! The statement that is a commit.

use super::columns::Columns;
use super::statement::{Statement, optional};
use crate::event::CONTENT_DIGEST_BYTES;
use crate::platform::postgres::{Row, Value};
use crate::store::encoding;
use crate::store::engine::{self, Deliveries, events_in};
use crate::store::model::{CLOCK_AHEAD_MS_MAX, Increments, Outcome, Seq, StoreError};
use crate::time::UnixMillis;

/// A commit of any events and rejected deliveries, which adds `increments` to the
/// counters.
///
/// # Errors
///
/// When what `group` has encoded are no events.
pub(super) fn append(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    now: Option<UnixMillis>,
) -> Result<Statement, StoreError> {
    const APPEND: &str = "SELECT outcomes, began_anew, slot \
        FROM sekali.append_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let count = events_in(group);
    let mut columns: [Vec<Option<String>>; 5] = Default::default();
    columns.iter_mut().for_each(|column| column.reserve(count));
    let [topics, event_ids, sources, timestamps, payloads] = &mut columns;
    let mut contents = Vec::with_capacity(count * CONTENT_DIGEST_BYTES);
    for event in group.iter().flat_map(|deliveries| encoding::events(&deliveries.encoded)) {
        let event = event?;
        topics.push(Some(text(event.topic)?));
        event_ids.push(Some(text(event.event_id)?));
        sources.push(Some(text(event.source)?));
        timestamps.push((!event.timestamp.is_empty()).then(|| text(event.timestamp)).transpose()?);
        payloads.push(Some(text(event.payload)?));
        contents.extend_from_slice(event.content);
    }
    if topics.len() != count {
        return Err(StoreError::unexpected(format_args!("{} events, not {count}", topics.len())));
    }
    let increments = engine::increments_of(group, increments);
    let (names, amounts) =
        increments.into_iter().map(|(name, amount)| (Some(name), Some(amount))).unzip();
    let [topics, event_ids, sources, timestamps, payloads] = columns.map(Value::Texts);
    let parameters = vec![
        topics,
        event_ids,
        sources,
        Value::Bytes(contents),
        timestamps,
        payloads,
        optional(now),
        CLOCK_AHEAD_MS_MAX.into(),
        Value::Texts(names),
        Value::Integers(amounts),
    ];
    Ok(Statement { sql: APPEND, parameters })
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(bytes.to_vec()).map_err(StoreError::unexpected)
}

/// What came of a commit.
pub(super) struct Appended {
    /// The outcome of each event.
    pub(super) outcomes: Vec<Outcome>,
    /// Whether times begin anew with it.
    pub(super) began_anew: bool,
    /// How many other commits were under way at least.
    pub(super) others: i64,
}

/// What came of the commit of `group`.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn appended(rows: Vec<Row>, group: &[&Deliveries]) -> Result<Appended, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let outcomes = columns.integers()?;
    if outcomes.len() != events_in(group) {
        return Err(StoreError::unexpected(format_args!(
            "{} outcomes of {} events",
            outcomes.len(),
            events_in(group)
        )));
    }
    let outcomes = outcomes.into_iter().map(|outcome| match outcome {
        0 => Outcome::Duplicate,
        -1 => Outcome::Conflict,
        seq => Outcome::Accepted { seq: Seq::new(seq) },
    });
    Ok(Appended {
        outcomes: outcomes.collect(),
        began_anew: columns.boolean()?,
        others: columns.integer()?,
    })
}

/// Reads one row, to see that the store answers.
pub(super) fn probe() -> Statement {
    Statement { sql: "SELECT created_at FROM sekali.service", parameters: Vec::new() }
}

/// What the function that undoes itself says.
const UNDONE: &str = "SK001";

/// A commit of one event that undoes itself. The server takes a transaction number and
/// changes what a commit changes, but waits for no disk.
pub(super) fn undone() -> Statement {
    Statement { sql: "SELECT sekali.undone_2()", parameters: Vec::new() }
}

/// Whether [`undone`] failed where it was to fail.
///
/// # Errors
///
/// What the store says otherwise.
pub(super) fn was_undone(result: Result<Vec<Row>, StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.message.starts_with(UNDONE) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(StoreError::unexpected("what was to be undone was stored")),
    }
}
