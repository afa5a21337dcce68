//! Pruning, and identities to forget.
//!
//! What is due is found by reading, for which nobody waits, and then removed by one short
//! statement that names it, whose condition is the claim of whoever prunes. Should two
//! instances be at it at once all the same, the second one finds nothing of what the first
//! one removed.

use super::columns::Columns;
use super::marks::is_claimed;
use super::statement::{Statement, integer, query};
use crate::event::{Topic, TopicPattern};
use crate::platform::sqlite::{SqliteConnection, Value};
use crate::store::model::{Cursor, StoreError};
use crate::store::retention::{Forgotten, Kept, Prune, Pruned, TopicGroup};
use crate::time::{DAY_MS, UnixMillis};

/// At how many places is looked at most for what is to be pruned at once.
const PLACES_MAX: i64 = 5_000;

/// How many bytes an event has, as `content_bytes` of `schema.sql` counts them.
const BYTES: &str = "octet_length(event_id) + octet_length(source) \
    + coalesce(octet_length(timestamp), 0) + octet_length(payload)";

/// The pattern as `GLOB` has it, where more characters than `*` mean something.
fn glob(pattern: &TopicPattern) -> String {
    let mut glob = String::with_capacity(pattern.as_str().len());
    for char in pattern.as_str().chars() {
        match char {
            '?' => glob.push_str("[?]"),
            '[' => glob.push_str("[[]"),
            other => glob.push(other),
        }
    }
    glob
}

/// The condition that `topic` belongs to the group, whose patterns are added to the
/// parameters.
fn of_group(group: &TopicGroup, parameters: &mut Vec<Value>) -> String {
    let mut condition = |pattern: &TopicPattern, not: &str| {
        parameters.push(glob(pattern).into());
        format!("topic {not} GLOB ?{}", parameters.len())
    };
    let of = group.of.iter().map(|pattern| (pattern, ""));
    let but = group.but.iter().map(|pattern| (pattern, "NOT"));
    let all: Vec<_> = of.chain(but).map(|(pattern, not)| condition(pattern, not)).collect();
    match all.is_empty() {
        true => "true".to_owned(),
        false => all.join(" AND "),
    }
}

/// What there is of the events of a group.
///
/// # Errors
///
/// What the store says.
pub(super) fn kept(
    connection: &dyn SqliteConnection,
    group: &TopicGroup,
) -> Result<Kept, StoreError> {
    let mut parameters = Vec::new();
    let statement = format!(
        "SELECT coalesce(sum(unique_processed - pruned), 0), coalesce(sum(content_bytes), 0), \
           min((SELECT min(seq) FROM event_log WHERE topic_id = id)) \
         FROM topic_totals WHERE {}",
        of_group(group, &mut parameters)
    );
    let mut columns = Columns::first_of(query(connection, &statement, parameters)?)?;
    let (events, bytes) = (columns.integer()?, columns.integer()?);
    let oldest = columns.optional_integer()?;
    let before_oldest = oldest.map_or(Cursor::END, |seq| Cursor::from_number(seq - 1));
    Ok(Kept { before_oldest, events, bytes })
}

/// Which events are due, by their places, and what they are together; and the statement
/// that prunes them and returns a row, if the claim is not another's.
///
/// # Errors
///
/// What the store says.
pub(super) fn due(
    connection: &dyn SqliteConnection,
    prune: Prune<'_>,
) -> Result<(Option<Statement>, Pruned), StoreError> {
    let mut parameters = vec![
        prune.after.number().into(),
        prune.up_to.number().into(),
        PLACES_MAX.into(),
        integer(prune.events_max),
        prune.bytes_enough.unwrap_or(i64::MAX).into(),
    ];
    let mut conditions = String::new();
    if let Some(moment) = prune.received_before {
        conditions.push_str(&format!(" AND received_at < {moment}"));
    }
    if !prune.group.is_all() {
        conditions.push_str(&format!(
            " AND (SELECT {} FROM topic_totals WHERE id = topic_id)",
            of_group(prune.group, &mut parameters)
        ));
    }
    // Places without an event before the first one are passed over.
    let statement = format!(
        "WITH places AS (SELECT first, min(first + ?3 - 1, ?2) AS last FROM \
           (SELECT min(seq) AS first FROM event_log WHERE seq > ?1 AND seq <= ?2)) \
         SELECT json_group_array(seq), count(*), coalesce(sum(bytes), 0), max(seq), \
           (SELECT CASE WHEN last < (SELECT max(seq) FROM event_log) THEN last END FROM places), \
           count(*) = ?4 OR coalesce(sum(bytes), 0) >= ?5 \
         FROM (SELECT seq, bytes, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before \
               FROM (SELECT seq, {BYTES} AS bytes FROM places CROSS JOIN event_log \
                     WHERE seq >= first AND seq <= last AND +topic_id <> 0{conditions} \
                     ORDER BY seq LIMIT ?4)) \
         WHERE bytes_before < ?5"
    );
    let mut columns = Columns::first_of(query(connection, &statement, parameters)?)?;
    let seqs = columns.text()?;
    let (events, bytes) = (columns.integer()?, columns.integer()?);
    let (last_due, last_place) = (columns.optional_integer()?, columns.optional_integer()?);
    let is_enough = columns.integer()? != 0;
    let up_to = match last_due {
        Some(last) if is_enough => Cursor::from_number(last),
        _ => last_place.map_or(prune.up_to, Cursor::from_number),
    };
    let statement = (events > 0).then(|| Statement {
        sql: concat!(
            "INSERT INTO incoming_pruning (seqs) SELECT ?1 WHERE ",
            is_claimed!(),
            " RETURNING 1"
        )
        .into(),
        parameters: vec![seqs.into(), prune.claimed.mark.into(), prune.claimed.until.into()],
    });
    Ok((statement, Pruned { events, bytes, up_to }))
}

/// The place up to which events of `topics` were pruned.
///
/// # Errors
///
/// What the store says.
pub(super) fn pruned_up_to(
    connection: &dyn SqliteConnection,
    topics: &[Topic],
) -> Result<Cursor, StoreError> {
    const OF_ALL: &str = "SELECT coalesce(max(pruned_seq), 0) FROM topic_totals";
    let places: Vec<_> = (1..=topics.len()).map(|number| format!("?{number}")).collect();
    let statement = match topics {
        [] => OF_ALL.to_owned(),
        _ => format!("{OF_ALL} WHERE topic IN ({})", places.join(", ")),
    };
    let parameters = topics.iter().map(|topic| topic.as_str().into()).collect();
    Columns::first_of(query(connection, &statement, parameters)?)?
        .integer()
        .map(Cursor::from_number)
}

/// A look for identities that may be forgotten: what came of it, and the statements that
/// remove them and note how far the look came.
pub(super) struct Look {
    pub(super) forgotten: Forgotten,
    pub(super) statements: Vec<Statement>,
}

/// Looks at the next identities, as [`Store::forget`](crate::store::Store::forget) has it.
///
/// # Errors
///
/// What the store says.
pub(super) fn look(
    connection: &dyn SqliteConnection,
    received_before: UnixMillis,
    identities_max: usize,
) -> Result<Look, StoreError> {
    /// Whose event is there, if only as an empty row, is kept.
    const MAY_BE: &str =
        "day < ?3 AND NOT EXISTS (SELECT 1 FROM event_log AS e WHERE e.seq = identity.seq)";
    const LOOKED_AT: &str = "SELECT topic_id, event_id FROM identities_looked_at";
    let before_day = received_before.div_euclid(DAY_MS);
    let after = match query(connection, LOOKED_AT, Vec::new())?.into_iter().next() {
        Some(row) => {
            let mut columns = Columns::of(row);
            (columns.integer()?, columns.text()?)
        }
        None => (0, String::new()),
    };
    let statement = format!(
        "WITH looked_at AS MATERIALIZED ( \
           SELECT topic_id, event_id, {MAY_BE} AS may_be FROM identity \
           WHERE (topic_id, event_id) > (?1, ?2) ORDER BY topic_id, event_id LIMIT ?4), \
         last AS (SELECT topic_id, event_id FROM looked_at \
           ORDER BY topic_id DESC, event_id DESC LIMIT 1) \
         SELECT count(*), coalesce(sum(may_be), 0), \
           (SELECT topic_id FROM last), (SELECT event_id FROM last) FROM looked_at"
    );
    let parameters =
        vec![after.0.into(), after.1.as_str().into(), before_day.into(), integer(identities_max)];
    let mut columns = Columns::first_of(query(connection, &statement, parameters)?)?;
    let (looked_at, forgotten) = (columns.integer()?, columns.integer()?);
    let last = columns.optional_integer()?.zip(columns.optional_text()?);
    let was_last = i64::try_from(identities_max).is_ok_and(|most| looked_at < most);
    let mut statements = Vec::new();
    if let Some((topic_id, event_id)) = last.clone()
        && forgotten > 0
    {
        let sql = format!(
            "DELETE FROM identity WHERE (topic_id, event_id) > (?1, ?2) \
               AND (topic_id, event_id) <= (?4, ?5) AND {MAY_BE}"
        );
        let parameters = vec![
            after.0.into(),
            after.1.into(),
            before_day.into(),
            topic_id.into(),
            event_id.into(),
        ];
        statements.push(Statement { sql: sql.into(), parameters });
    }
    let (topic_id, event_id) = last.filter(|_| !was_last).unwrap_or((0, String::new()));
    statements.push(Statement {
        sql: "INSERT INTO identities_looked_at (id, topic_id, event_id) VALUES (1, ?1, ?2) \
            ON CONFLICT (id) DO UPDATE SET topic_id = excluded.topic_id, \
            event_id = excluded.event_id"
            .into(),
        parameters: vec![topic_id.into(), event_id.into()],
    });
    Ok(Look { forgotten: Forgotten { looked_at, forgotten, was_last }, statements })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_glob_stands_for_itself() {
        let glob = |text: &str| glob(&TopicPattern::new(text.to_owned()));
        assert_eq!(glob("a.*"), "a.*");
        assert_eq!(glob("[a]?*"), "[[]a][?]*");
    }
}
