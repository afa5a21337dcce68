//! The rows of a result, column by column.

use crate::platform::{Fault, Row, StoreError, Value};

/// The columns of a row, from the first to the last.
pub struct Columns(std::vec::IntoIter<Value>);

impl Columns {
    pub fn of(row: Row) -> Self {
        Columns(row.into_iter())
    }

    pub fn first_of(rows: Vec<Row>) -> Result<Self, StoreError> {
        rows.into_iter().next().map(Columns::of).ok_or_else(|| odd("no row"))
    }

    pub fn integer(&mut self) -> Result<i64, StoreError> {
        match self.0.next() {
            Some(Value::Integer(value)) => Ok(value),
            other => Err(odd(&format!("{other:?} where a number was expected"))),
        }
    }

    pub fn optional_integer(&mut self) -> Result<Option<i64>, StoreError> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(value)),
            other => Err(odd(&format!("{other:?} where a number was expected"))),
        }
    }

    pub fn text(&mut self) -> Result<String, StoreError> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            other => Err(odd(&format!("{other:?} where text was expected"))),
        }
    }

    pub fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            other => Err(odd(&format!("{other:?} where text was expected"))),
        }
    }
}

/// A result that the schema rules out: the database is damaged, or not ours.
pub fn odd(what: &str) -> StoreError {
    StoreError { fault: Fault::Unavailable, message: format!("unexpected result: {what}") }
}
