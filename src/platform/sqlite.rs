//! A SQLite database, as the platform hands it out.

use std::rc::Rc;

use async_trait::async_trait;

/// A value on its way into or out of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed 64-bit integer.
    Integer(i64),
    /// A 64-bit floating point number.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

/// One row, in the order of the statement's columns.
pub type Row = Vec<Value>;

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqliteError {
    /// SQLite's own words: all that Spin hands on of most errors.
    Sqlite(String),
    /// There is no room left.
    Full,
    /// The platform's words: no access, no such database, a value of no type.
    Platform(String),
}

/// The way to a database.
pub trait Sqlite {
    /// Opens a connection of its own to the default database.
    ///
    /// # Errors
    ///
    /// What the platform says.
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError>;
}

/// One connection, closed when it is dropped. The requests of an instance may
/// share it, so a transaction is one statement.
#[async_trait(?Send)]
pub trait SqliteConnection {
    /// Runs one statement, a transaction of its own, to its end and returns
    /// all its rows. While it runs, nothing else of the instance does.
    ///
    /// # Errors
    ///
    /// What SQLite or the platform says.
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError>;

    /// Runs one statement, a transaction of its own, while other requests of
    /// the instance go on. It is on disk when this returns. For statements that
    /// return one row at most: no other is read.
    ///
    /// # Errors
    ///
    /// What SQLite or the platform says.
    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError>;
}
