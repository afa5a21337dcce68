//! The rows of a result, column by column.

use crate::platform::sqlite::{Row, Value};
use crate::store::model::{Seq, StoreError};

/// The columns of a row, from the first to the last.
pub(super) struct Columns(std::vec::IntoIter<Value>);

impl Columns {
    pub(super) fn of(row: Row) -> Self {
        Columns(row.into_iter())
    }

    pub(super) fn first_of(rows: Vec<Row>) -> Result<Self, StoreError> {
        rows.into_iter().next().map(Columns::of).ok_or_else(|| StoreError::unexpected("no row"))
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        match self.0.next() {
            Some(Value::Integer(value)) => Ok(value),
            other => Err(expected("a number", &other)),
        }
    }

    pub(super) fn seq(&mut self) -> Result<Seq, StoreError> {
        self.integer().map(Seq::new)
    }

    pub(super) fn optional_integer(&mut self) -> Result<Option<i64>, StoreError> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(value)),
            other => Err(expected("a number", &other)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            other => Err(expected("text", &other)),
        }
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            other => Err(expected("text", &other)),
        }
    }
}

fn expected(what: &str, found: &Option<Value>) -> StoreError {
    StoreError::unexpected(format_args!("{found:?} where {what} was expected"))
}
