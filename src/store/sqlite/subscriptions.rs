//! Named subscriptions and how far each has come.
//!
//! A position is the `seq` up to which a consumer has acknowledged. How many events of
//! its topics are not before it any more (`passed`) is counted when it moves, over the
//! events that it moves past, and when some are pruned that it has before it; so its
//! lag is a difference of two numbers.

use super::columns::Columns;
use super::statement::{Statement, integer, query};
use crate::event::Topic;
use crate::platform::sqlite::{Row, SqliteConnection, Value};
use crate::store::model::{Cursor, Definition, Start, StoreError, Subscription};
use crate::time::UnixMillis;

/// The columns of a [`Subscription`].
const COLUMNS: &str = "name, topics, position, revision, created_at, acked_at, \
    CASE json_array_length(topics) \
      WHEN 0 THEN (SELECT coalesce(max(seq), 0) FROM event_log) - passed \
      ELSE (SELECT coalesce(sum(t.unique_processed), 0) \
            FROM json_each(subscriptions.topics) AS j CROSS JOIN topic_totals AS t \
              ON t.topic = j.value) - passed \
    END";

fn subscription(row: Row) -> Result<Subscription, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Subscription {
        name: columns.text()?,
        topics: topics(&columns.text()?)?,
        position: Cursor::from_number(columns.integer()?),
        revision: columns.integer()?,
        created_at: columns.integer()?,
        acked_at: columns.optional_integer()?,
        lag: columns.integer()?,
    })
}

fn topics(json: &str) -> Result<Vec<Topic>, StoreError> {
    Subscription::topics_of(serde_json::from_str(json).map_err(StoreError::unexpected)?)
}

/// The subscription that a statement returned, if it did.
///
/// # Errors
///
/// When the row is none of a subscription.
pub(super) fn one(rows: Vec<Row>) -> Result<Option<Subscription>, StoreError> {
    rows.into_iter().next().map(subscription).transpose()
}

/// How many events of `topics` there were that are pruned or have a place up to
/// `position`: both are SQL, `topics` a JSON array. Nothing is counted where that
/// follows from counters: up to the newest event, or while all that were pruned are
/// older than all that are left.
fn passed_up_to(topics: &str, position: &str) -> String {
    format!(
        "CASE \
           WHEN json_array_length({topics}) = 0 THEN \
             (SELECT CASE \
                WHEN pruned >= first AND {position} < (SELECT max(seq) FROM event_log) THEN \
                  pruned + \
                  (SELECT count(*) FROM event_log WHERE seq <= {position} AND +topic_id <> 0) \
                ELSE max(pruned, {position}) END \
              FROM (SELECT coalesce(sum(pruned), 0) AS pruned FROM topic_totals), \
                (SELECT min(seq) AS first FROM event_log WHERE +topic_id <> 0)) \
           WHEN {position} = (SELECT max(seq) FROM event_log) THEN \
             (SELECT coalesce(sum(t.unique_processed), 0) \
              FROM json_each({topics}) AS j CROSS JOIN topic_totals AS t ON t.topic = j.value) \
           ELSE \
             (SELECT coalesce(sum(t.pruned), 0) \
              FROM json_each({topics}) AS j CROSS JOIN topic_totals AS t ON t.topic = j.value) \
             + {left} \
         END",
        left = left_between(topics, "0", position),
    )
}

/// How many events of `topics`, if it names any, are left after `from` and up to `to`.
fn left_between(topics: &str, from: &str, to: &str) -> String {
    format!(
        "(SELECT count(*) \
          FROM json_each({topics}) AS j CROSS JOIN topic_totals AS t ON t.topic = j.value \
            CROSS JOIN event_log AS e \
              ON e.topic_id = t.id AND e.seq > {from} AND e.seq <= {to})"
    )
}

/// Defines a subscription, unless there are `subscriptions_max` others already.
///
/// # Errors
///
/// None that topics can cause.
pub(super) fn define(
    definition: Definition<'_>,
    subscriptions_max: usize,
    now: UnixMillis,
) -> Result<Statement, StoreError> {
    let sql = format!(
        "INSERT INTO subscriptions (name, topics, position, passed, revision, created_at) \
         SELECT ?1, ?2, start, {passed}, 1, ?4 \
         FROM (SELECT coalesce(?3, (SELECT max(seq) FROM event_log), 0) AS start) \
         WHERE EXISTS (SELECT 1 FROM subscriptions WHERE name = ?1) \
           OR (SELECT count(*) FROM subscriptions) < ?5 \
         ON CONFLICT (name) DO UPDATE SET topics = excluded.topics, revision = revision + 1, \
           passed = CASE topics WHEN excluded.topics THEN passed ELSE {passed_again} END \
         RETURNING {COLUMNS}",
        passed = passed_up_to("?2", "start"),
        passed_again = passed_up_to("excluded.topics", "position"),
    );
    let topics: Vec<&str> = definition.topics.iter().map(Topic::as_str).collect();
    let topics = serde_json::to_string(&topics).map_err(StoreError::unexpected)?;
    let start = match definition.start {
        Start::At(cursor) => Value::Integer(cursor.number()),
        Start::End => Value::Null,
    };
    let parameters =
        vec![definition.name.into(), topics.into(), start, now.into(), integer(subscriptions_max)];
    Ok(Statement { sql: sql.into(), parameters })
}

/// Moves a subscription forward, unless `position` is behind it or ahead of the
/// newest event.
pub(super) fn acknowledge(name: &str, position: Cursor, now: UnixMillis) -> Statement {
    let sql = format!(
        "UPDATE subscriptions SET position = ?2, acked_at = ?3, passed = CASE \
           WHEN json_array_length(topics) > 0 AND ?2 < (SELECT max(seq) FROM event_log) \
             THEN passed + {moved} \
           WHEN json_array_length(topics) > 0 THEN {all} \
           WHEN passed = position THEN ?2 \
           ELSE passed + (SELECT count(*) FROM event_log \
             WHERE seq > position AND seq <= ?2 AND +topic_id <> 0) END \
         WHERE name = ?1 AND position < ?2 AND ?2 <= (SELECT max(seq) FROM event_log) \
         RETURNING {COLUMNS}",
        moved = left_between("topics", "position", "?2"),
        all = passed_up_to("topics", "?2"),
    );
    Statement {
        sql: sql.into(),
        parameters: vec![name.into(), position.number().into(), now.into()],
    }
}

/// Removes a subscription and returns it as it was.
pub(super) fn remove(name: &str) -> Statement {
    let sql = format!("DELETE FROM subscriptions WHERE name = ?1 RETURNING {COLUMNS}");
    Statement { sql: sql.into(), parameters: vec![name.into()] }
}

/// The subscription of that name, if there is one.
///
/// # Errors
///
/// What the store says.
pub(super) fn find(
    connection: &dyn SqliteConnection,
    name: &str,
) -> Result<Option<Subscription>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM subscriptions WHERE name = ?1");
    one(query(connection, &statement, vec![name.into()])?)
}

/// All subscriptions, in the order of their names.
///
/// # Errors
///
/// What the store says.
pub(super) fn list(connection: &dyn SqliteConnection) -> Result<Vec<Subscription>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM subscriptions ORDER BY name");
    query(connection, &statement, Vec::new())?.into_iter().map(subscription).collect()
}
