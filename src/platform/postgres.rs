//! A PostgreSQL database, as the platform hands it out.

use std::rc::Rc;

use async_trait::async_trait;

/// A value on its way into or out of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// `bigint`.
    Integer(i64),
    /// `boolean`.
    Boolean(bool),
    /// `text`: UTF-8 without NUL.
    Text(String),
    /// `bytea`.
    Bytes(Vec<u8>),
    /// `bigint[]`.
    Integers(Vec<Option<i64>>),
    /// `text[]`.
    Texts(Vec<Option<String>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

/// One row, in the order of the statement's columns.
pub type Row = Vec<Value>;

/// Why a statement failed, or why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresError {
    /// The server's words.
    Server {
        /// Its SQLSTATE, of five characters.
        code: String,
        /// Its message.
        message: String,
    },
    /// The platform's words: no access, no server, an address that is none, a
    /// connection that broke, a value of no type.
    Platform(String),
}

/// The way to databases.
#[async_trait(?Send)]
pub trait Postgres {
    /// Has the platform give out a connection to the database at `address`, a URL. It
    /// may be one that others used before, and its server may be gone. The wait for it
    /// has no limit: where there is one for how many connections there may be, the next
    /// one waits until another is dropped.
    ///
    /// # Errors
    ///
    /// What the platform says.
    async fn open(&self, address: &str) -> Result<Rc<dyn PostgresConnection>, PostgresError>;
}

/// One connection, given back when it is dropped. The requests of an instance may share
/// it; one statement runs after the other. Nothing of a session stays for the next
/// statement.
#[async_trait(?Send)]
pub trait PostgresConnection {
    /// Runs one statement, a transaction of its own, to its end, while other requests of
    /// the instance go on, and returns all its rows.
    ///
    /// # Errors
    ///
    /// What the server or the platform says.
    async fn query(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, PostgresError>;
}
