//! What is read of the columns of a row.

use crate::platform::postgres::Value;
use crate::store::columns;
use crate::store::model::StoreError;

pub(super) type Columns = columns::Columns<Value>;

impl Columns {
    pub(super) fn boolean(&mut self) -> Result<bool, StoreError> {
        self.next("a truth value", |value| match value {
            Value::Boolean(value) => Ok(value),
            other => Err(other),
        })
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        self.next("a number", |value| match value {
            Value::Integer(value) => Ok(value),
            other => Err(other),
        })
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

    pub(super) fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.next("bytes", |value| match value {
            Value::Null => Ok(None),
            Value::Bytes(value) => Ok(Some(value)),
            other => Err(other),
        })
    }

    /// The elements of an array; none of NULL, which an aggregate of no rows is.
    pub(super) fn integers(&mut self) -> Result<Vec<i64>, StoreError> {
        let values = self.next("numbers", |value| match value {
            Value::Null => Ok(Vec::new()),
            Value::Integers(values) => Ok(values),
            other => Err(other),
        });
        all(values?)
    }

    /// The elements of an array; none of NULL.
    pub(super) fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        all(self.optional_texts()?)
    }

    /// The elements of an array, each of which may be NULL; none of NULL.
    pub(super) fn optional_texts(&mut self) -> Result<Vec<Option<String>>, StoreError> {
        self.next("texts", |value| match value {
            Value::Null => Ok(Vec::new()),
            Value::Texts(values) => Ok(values),
            other => Err(other),
        })
    }
}

fn all<T>(values: Vec<Option<T>>) -> Result<Vec<T>, StoreError> {
    let all: Option<Vec<T>> = values.into_iter().collect();
    all.ok_or_else(|| StoreError::unexpected("NULL in an array"))
}
