//! Pruning events, and forgetting the identities of those that were pruned.

use super::columns::Columns;
use super::statement::{Statement, integer, optional, topics};
use crate::event::{Topic, TopicPattern};
use crate::platform::postgres::{Row, Value};
use crate::store::model::{Cursor, StoreError};
use crate::store::retention::{Forgotten, Kept, Prune, Pruned, TopicGroup};
use crate::time::UnixMillis;

/// How many events are looked at in one commit, so that it does not hold subscriptions
/// for long where there are few to prune among many others.
const LOOKS_MAX: i64 = 10_000;

/// As many topics are looked through one by one, along their indexes; more of them are
/// looked for among all events.
const TOPICS_FEW: i64 = 16;

/// The patterns of a group as LIKE takes them: of its topics (NULL for all), and of those
/// that do not belong to it.
fn patterns(group: &TopicGroup) -> [Value; 2] {
    let of = group.of.as_ref().filter(|of| !of.is_any());
    let but = group.but.iter().map(|pattern| Some(like(pattern))).collect();
    [of.map_or(Value::Null, |of| Value::Text(like(of))), Value::Texts(but)]
}

/// A pattern as LIKE takes it.
fn like(pattern: &TopicPattern) -> String {
    let mut like = String::with_capacity(pattern.as_str().len());
    for one in pattern.as_str().chars() {
        match one {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', one]),
            other => like.push(other),
        }
    }
    like
}

/// What there is of the events of a group.
pub(super) fn kept(group: &TopicGroup) -> Statement {
    const KEPT: &str = "SELECT before_oldest, events, bytes FROM sekali.kept_2($1, $2)";
    Statement { sql: KEPT, parameters: patterns(group).into() }
}

/// What [`kept`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn kept_of(rows: Vec<Row>) -> Result<Kept, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    Ok(Kept {
        before_oldest: columns.optional_integer()?.map_or(Cursor::END, Cursor::from_number),
        events: columns.integer()?,
        bytes: columns.integer()?,
    })
}

/// Prunes what is to be pruned among the next [`LOOKS_MAX`] events, if the claim is not
/// another's: nobody takes it before this is done. That the function wants something of
/// the claim's row keeps it from being called without one.
pub(super) fn prune(prune: Prune<'_>) -> Statement {
    const PRUNE: &str = "WITH claimed AS MATERIALIZED ( \
          SELECT m.at - $11 AS nothing FROM sekali.marks m \
          WHERE m.name = $10 AND m.at = $11 FOR SHARE) \
        SELECT p.events, p.bytes, p.came_to FROM claimed c CROSS JOIN LATERAL \
          sekali.prune_2($1, $2, $3 + c.nothing, $4, $5, $6, $7, $8, $9::bigint::int) p";
    let [of, but] = patterns(prune.group);
    let parameters = vec![
        of,
        but,
        prune.after.number().into(),
        prune.up_to.number().into(),
        optional(prune.received_before),
        integer(prune.events_max),
        optional(prune.bytes_enough),
        LOOKS_MAX.into(),
        TOPICS_FEW.into(),
        prune.claimed.mark.into(),
        prune.claimed.until.into(),
    ];
    Statement { sql: PRUNE, parameters }
}

/// What [`prune`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn pruned(rows: Vec<Row>) -> Result<Option<Pruned>, StoreError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let mut columns = Columns::first_of(rows)?;
    Ok(Some(Pruned {
        events: columns.integer()?,
        bytes: columns.integer()?,
        up_to: Cursor::from_number(columns.integer()?),
    }))
}

/// The newest place of `of` whose event was pruned.
pub(super) fn pruned_up_to(of: &[Topic]) -> Statement {
    const PRUNED: &str = "SELECT CASE WHEN cardinality($1::text[]) = 0 \
        THEN (SELECT p.seq FROM sekali.pruned p) \
        ELSE (SELECT coalesce(max(t.pruned_seq), 0) FROM sekali.topic t WHERE t.topic = ANY ($1)) \
        END";
    Statement { sql: PRUNED, parameters: vec![topics(of)] }
}

/// Forgets what may be forgotten of the next `identities_max` identities.
pub(super) fn forget(received_before: UnixMillis, identities_max: usize) -> Statement {
    const FORGET: &str = "SELECT looked_at, forgotten, was_last FROM sekali.forget_2($1, $2)";
    let parameters = vec![received_before.into(), integer(identities_max)];
    Statement { sql: FORGET, parameters }
}

/// What [`forget`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn forgotten(rows: Vec<Row>) -> Result<Forgotten, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    Ok(Forgotten {
        looked_at: columns.integer()?,
        forgotten: columns.integer()?,
        was_last: columns.boolean()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, expected) in
            [("a.*", "a.%"), ("*", "%"), ("100%_\\", "100\\%\\_\\\\"), ("[b]?", "[b]?"), ("", "")]
        {
            assert_eq!(like(&TopicPattern::new(pattern.to_owned())), expected);
        }
    }
}
