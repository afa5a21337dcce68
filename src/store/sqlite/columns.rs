//! What is read of the columns of a row.

use crate::platform::sqlite::Value;
use crate::store::columns;
use crate::store::model::{Seq, StoreError};

pub(super) type Columns = columns::Columns<Value>;

impl Columns {
    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        self.next("a number", |value| match value {
            Value::Integer(value) => Ok(value),
            other => Err(other),
        })
    }

    pub(super) fn seq(&mut self) -> Result<Seq, StoreError> {
        self.integer().map(Seq::new)
    }

    pub(super) fn optional_integer(&mut self) -> Result<Option<i64>, StoreError> {
        self.next("a number", |value| match value {
            Value::Null => Ok(None),
            Value::Integer(value) => Ok(Some(value)),
            other => Err(other),
        })
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.next("text", |value| match value {
            Value::Text(value) => Ok(value),
            other => Err(other),
        })
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        self.next("text", |value| match value {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value)),
            other => Err(other),
        })
    }
}
