//! Named subscriptions and how far each has come.

use super::columns::Columns;
use super::statement::{SETTLE_MS_MAX, Statement, integer, optional, topics};
use crate::platform::postgres::Row;
use crate::store::model::{Cursor, Definition, Start, StoreError, Subscription};
use crate::time::UnixMillis;

/// The columns of a [`Subscription`], of what follows.
macro_rules! columns_of {
    ($from:literal) => {
        concat!("SELECT name, topics, position, revision, created_at, acked_at, lag FROM ", $from)
    };
}

fn subscription(row: Row) -> Result<Subscription, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Subscription {
        name: columns.text()?,
        topics: Subscription::topics_of(columns.texts()?)?,
        position: Cursor::from_number(columns.integer()?),
        revision: columns.integer()?,
        created_at: columns.integer()?,
        acked_at: columns.optional_integer()?,
        lag: columns.integer()?,
    })
}

/// The subscription that a statement returned, if it did.
///
/// # Errors
///
/// When the row is none of a subscription.
pub(super) fn one(rows: Vec<Row>) -> Result<Option<Subscription>, StoreError> {
    rows.into_iter().next().map(subscription).transpose()
}

/// The subscriptions that a statement returned.
///
/// # Errors
///
/// When a row is none of a subscription.
pub(super) fn all(rows: Vec<Row>) -> Result<Vec<Subscription>, StoreError> {
    rows.into_iter().map(subscription).collect()
}

/// Defines a subscription, unless there are `subscriptions_max` others already.
pub(super) fn define(
    definition: Definition<'_>,
    subscriptions_max: usize,
    now: Option<UnixMillis>,
) -> Statement {
    let start = match definition.start {
        Start::At(cursor) => Some(cursor.number()),
        Start::End => None,
    };
    let parameters = vec![
        definition.name.into(),
        topics(definition.topics),
        optional(start),
        integer(subscriptions_max),
        optional(now),
        SETTLE_MS_MAX.into(),
    ];
    Statement {
        sql: columns_of!("sekali.define_1($1, $2, $3, $4, $5, $6::bigint::int)"),
        parameters,
    }
}

/// Moves a subscription forward, unless `position` is behind it or ahead of the newest
/// event, and returns it.
pub(super) fn acknowledge(name: &str, position: Cursor, now: Option<UnixMillis>) -> Statement {
    let parameters =
        vec![name.into(), position.number().into(), optional(now), SETTLE_MS_MAX.into()];
    Statement { sql: columns_of!("sekali.acknowledge_1($1, $2, $3, $4::bigint::int)"), parameters }
}

/// Removes a subscription and returns it as it was.
pub(super) fn remove(name: &str) -> Statement {
    Statement { sql: columns_of!("sekali.remove_1($1)"), parameters: vec![name.into()] }
}

/// The subscription of that name, if there is one.
pub(super) fn find(name: &str) -> Statement {
    Statement {
        sql: columns_of!("sekali.subscriptions_1 WHERE name = $1"),
        parameters: vec![name.into()],
    }
}

/// All subscriptions, in the order of their names.
pub(super) fn list() -> Statement {
    Statement { sql: columns_of!("sekali.subscriptions_1 ORDER BY name"), parameters: Vec::new() }
}
