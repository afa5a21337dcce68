//! Named readers and how far each has come.
//!
//! A position is the `seq` up to which a reader has acknowledged. How many
//! events of its topics that is (`passed`) is counted when it moves, over the
//! events that it moves past, so that its lag is a difference of two numbers.

use super::columns::{Columns, odd};
use super::integer;
use crate::platform::{Database, Row, StoreError, Value};
use crate::time::UnixMillis;

/// A named reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// The topics that it reads; every topic when there is none.
    pub topics: Vec<String>,
    /// The `seq` up to which it has acknowledged.
    pub position: i64,
    /// Events of its topics after its position.
    pub lag: i64,
    /// How often it was defined, from 1.
    pub revision: i64,
    /// When it was first defined.
    pub created_at: UnixMillis,
    /// When its position last moved.
    pub acked_at: Option<UnixMillis>,
}

/// The columns of a [`Subscription`].
const COLUMNS: &str = "name, topics, position, revision, created_at, acked_at, \
    CASE json_array_length(topics) \
      WHEN 0 THEN (SELECT coalesce(max(seq), 0) FROM event_log) - position \
      ELSE (SELECT coalesce(sum(t.unique_processed), 0) \
            FROM json_each(subscriptions.topics) AS j CROSS JOIN topic_totals AS t \
              ON t.topic = j.value) - passed \
    END";

fn subscription(row: Row) -> Result<Subscription, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Subscription {
        name: columns.text()?,
        topics: serde_json::from_str(&columns.text()?).map_err(|error| odd(&error.to_string()))?,
        position: columns.integer()?,
        revision: columns.integer()?,
        created_at: columns.integer()?,
        acked_at: columns.optional_integer()?,
        lag: columns.integer()?,
    })
}

fn one(rows: Vec<Row>) -> Result<Option<Subscription>, StoreError> {
    rows.into_iter().next().map(subscription).transpose()
}

/// How many events `topics` have from after `from` up to `to`: all three are
/// SQL, `topics` a JSON array. `seq` has no gaps, so with no topics it is a
/// difference; up to the newest event from the first on it is what is counted
/// anyway.
fn events_between(topics: &str, from: &str, to: &str) -> String {
    format!(
        "CASE \
           WHEN json_array_length({topics}) = 0 THEN {to} - {from} \
           WHEN {from} = 0 AND {to} = (SELECT max(seq) FROM event_log) THEN \
             (SELECT coalesce(sum(t.unique_processed), 0) \
              FROM json_each({topics}) AS j CROSS JOIN topic_totals AS t ON t.topic = j.value) \
           ELSE \
             (SELECT count(*) \
              FROM json_each({topics}) AS j CROSS JOIN topic_totals AS t ON t.topic = j.value \
                CROSS JOIN event_log AS e \
                  ON e.topic_id = t.id AND e.seq > {from} AND e.seq <= {to}) \
         END"
    )
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After the event with this `seq`; with 0 at the first.
    After(i64),
    /// With the event that comes next.
    End,
}

/// Defines a subscription: a new one begins at `start`, one that is there gets
/// these topics and keeps its position. `None` when there are
/// `subscriptions_max` others already.
///
/// # Errors
///
/// What the store says.
pub async fn define(
    db: &impl Database,
    now: UnixMillis,
    name: &str,
    topics: &[String],
    start: Start,
    subscriptions_max: usize,
) -> Result<Option<Subscription>, StoreError> {
    let statement = format!(
        "INSERT INTO subscriptions (name, topics, position, passed, revision, created_at) \
         SELECT ?1, ?2, start, {passed}, 1, ?4 \
         FROM (SELECT coalesce(?3, (SELECT max(seq) FROM event_log), 0) AS start) \
         WHERE EXISTS (SELECT 1 FROM subscriptions WHERE name = ?1) \
           OR (SELECT count(*) FROM subscriptions) < ?5 \
         ON CONFLICT (name) DO UPDATE SET topics = excluded.topics, revision = revision + 1, \
           passed = CASE topics WHEN excluded.topics THEN passed ELSE {passed_again} END \
         RETURNING {COLUMNS}",
        passed = events_between("?2", "0", "start"),
        passed_again = events_between("excluded.topics", "0", "position"),
    );
    let topics = serde_json::to_string(topics).map_err(|error| odd(&error.to_string()))?;
    let start = match start {
        Start::After(seq) => Value::Integer(seq),
        Start::End => Value::Null,
    };
    let parameters =
        vec![name.into(), topics.into(), start, now.into(), integer(subscriptions_max)];
    one(db.commit(&statement, parameters).await?)
}

/// Moves a subscription forward to `position`, and never back, nor ahead of the
/// newest event: it stays where it is then. `None` when there is none of that
/// name.
///
/// # Errors
///
/// What the store says.
pub async fn acknowledge(
    db: &impl Database,
    now: UnixMillis,
    name: &str,
    position: i64,
) -> Result<Option<Subscription>, StoreError> {
    let statement = format!(
        "UPDATE subscriptions SET passed = passed + {moved}, position = ?2, acked_at = ?3 \
         WHERE name = ?1 AND position < ?2 AND ?2 <= (SELECT max(seq) FROM event_log) \
         RETURNING {COLUMNS}",
        moved = events_between("topics", "position", "?2"),
    );
    let parameters = vec![name.into(), position.into(), now.into()];
    match one(db.commit(&statement, parameters).await?)? {
        Some(moved) => Ok(Some(moved)),
        None => find(db, name).await,
    }
}

/// Removes a subscription and returns it as it was.
///
/// # Errors
///
/// What the store says.
pub async fn remove(db: &impl Database, name: &str) -> Result<Option<Subscription>, StoreError> {
    let statement = format!("DELETE FROM subscriptions WHERE name = ?1 RETURNING {COLUMNS}");
    one(db.commit(&statement, vec![name.into()]).await?)
}

/// The subscription of that name, if there is one.
///
/// # Errors
///
/// What the store says.
pub async fn find(db: &impl Database, name: &str) -> Result<Option<Subscription>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM subscriptions WHERE name = ?1");
    one(db.execute(&statement, vec![name.into()]).await?)
}

/// All subscriptions, in the order of their names.
///
/// # Errors
///
/// What the store says.
pub async fn list(db: &impl Database) -> Result<Vec<Subscription>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM subscriptions ORDER BY name");
    db.execute(&statement, Vec::new()).await?.into_iter().map(subscription).collect()
}
