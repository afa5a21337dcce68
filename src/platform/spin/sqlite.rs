//! Spin's SQLite.
//!
//! Both halves of the interface: the synchronous one returns all rows in one hop and
//! holds the instance while it runs; the asynchronous one lets the instance go on and
//! streams rows through a channel of four.

use std::rc::Rc;

use async_trait::async_trait;
use spin_sdk::sqlite::Error;
use spin_sdk::sqlite::Value as SpinValue;
use spin_sdk::sqlite::wit::sqlite::{Connection, RowResult};

use super::Spin;
use crate::platform::sqlite::{Row, Sqlite, SqliteConnection, SqliteError, Value};

const DATABASE: &str = "default";

impl Sqlite for Spin {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        let connection = Connection::open(DATABASE).map_err(sqlite_error)?;
        Ok(Rc::new(SpinConnection(connection)))
    }
}

struct SpinConnection(Connection);

impl SpinConnection {
    /// The row that a statement returns, if it returns one.
    async fn one_row(
        &self,
        statement: &str,
        parameters: Vec<SpinValue>,
    ) -> Result<Option<RowResult>, Error> {
        let (_, mut rows, result) = self.0.execute_async(statement.to_owned(), parameters).await?;
        // Both at once, and not on to the end of the rows, costs fewer turns. Errors,
        // that of the commit among them, are in the result.
        let (row, result) = futures::join!(rows.next(), result.into_future());
        result.map(|()| row)
    }
}

#[async_trait(?Send)]
impl SqliteConnection for SpinConnection {
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError> {
        let parameters: Vec<SpinValue> = parameters.into_iter().map(spin_value).collect();
        self.0.execute(statement, &parameters).map(|result| rows(result.rows)).map_err(sqlite_error)
    }

    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError> {
        let parameters = parameters.into_iter().map(spin_value).collect();
        let row = self.one_row(statement, parameters).await.map_err(sqlite_error)?;
        Ok(rows(row.into_iter().collect()))
    }
}

fn rows(rows: Vec<RowResult>) -> Vec<Row> {
    rows.into_iter().map(|row| row.values.into_iter().map(value).collect()).collect()
}

fn spin_value(value: Value) -> SpinValue {
    match value {
        Value::Null => SpinValue::Null,
        Value::Integer(value) => SpinValue::Integer(value),
        Value::Real(value) => SpinValue::Real(value),
        Value::Text(value) => SpinValue::Text(value),
        Value::Blob(value) => SpinValue::Blob(value),
    }
}

fn value(value: SpinValue) -> Value {
    match value {
        SpinValue::Null => Value::Null,
        SpinValue::Integer(value) => Value::Integer(value),
        SpinValue::Real(value) => Value::Real(value),
        SpinValue::Text(value) => Value::Text(value),
        SpinValue::Blob(value) => Value::Blob(value),
    }
}

fn sqlite_error(error: Error) -> SqliteError {
    match error {
        Error::Io(message) => SqliteError::Sqlite(message),
        Error::DatabaseFull => SqliteError::Full,
        other => SqliteError::Platform(other.to_string()),
    }
}
