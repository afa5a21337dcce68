//! Statements and their parameters.

use std::borrow::Cow;

use super::fault::store_error;
use crate::platform::sqlite::{Row, SqliteConnection, Value};
use crate::store::model::StoreError;

/// A statement that writes, on its way to the connection.
pub(super) struct Statement {
    /// One statement; Spin drops what follows the first without a word.
    pub(super) sql: Cow<'static, str>,
    /// `?1`, `?2` and so on.
    pub(super) parameters: Vec<Value>,
}

/// Runs a statement that is over when it returns, and holds the instance
/// meanwhile: one that only reads, or belongs to the set-up.
pub(super) fn query(
    connection: &dyn SqliteConnection,
    statement: &str,
    parameters: Vec<Value>,
) -> Result<Vec<Row>, StoreError> {
    connection.query(statement, parameters).map_err(store_error)
}

pub(super) fn integer(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
