//! PostgreSQL over `spin_sdk`.

use std::rc::Rc;

use async_trait::async_trait;
use spin_sdk::pg::wit::postgres::{Connection, DbValue, Error, ParameterValue, QueryError};

use super::Spin;
use crate::platform::postgres::{Postgres, PostgresConnection, PostgresError, Row, Value};

#[async_trait(?Send)]
impl Postgres for Spin {
    async fn open(&self, address: &str) -> Result<Rc<dyn PostgresConnection>, PostgresError> {
        let connection = Connection::open_async(address.to_owned()).await.map_err(error)?;
        Ok(Rc::new(SpinConnection(connection)))
    }
}

/// Only the asynchronous calls: with a server that was restarted, synchronous ones hung
/// for good.
struct SpinConnection(Connection);

#[async_trait(?Send)]
impl PostgresConnection for SpinConnection {
    async fn query(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, PostgresError> {
        let parameters = parameters.into_iter().map(parameter).collect();
        let called = self.0.query_async(statement.to_owned(), parameters).await;
        let (_, mut rows, result) = called.map_err(error)?;
        let read = async {
            let mut read = Vec::new();
            while let Some(row) = rows.next().await {
                read.push(row);
            }
            read
        };
        // Both at once costs fewer turns. Errors are in the result.
        let (read, result) = futures::join!(read, result.into_future());
        result.map_err(error)?;
        read.into_iter().map(|row| row.into_iter().map(value).collect()).collect()
    }
}

fn parameter(value: Value) -> ParameterValue {
    match value {
        Value::Null => ParameterValue::DbNull,
        Value::Integer(value) => ParameterValue::Int64(value),
        Value::Boolean(value) => ParameterValue::Boolean(value),
        Value::Text(value) => ParameterValue::Str(value),
        Value::Bytes(value) => ParameterValue::Binary(value),
        Value::Integers(values) => ParameterValue::ArrayInt64(values),
        Value::Texts(values) => ParameterValue::ArrayStr(values),
    }
}

fn value(value: DbValue) -> Result<Value, PostgresError> {
    match value {
        DbValue::DbNull => Ok(Value::Null),
        DbValue::Int32(value) => Ok(Value::Integer(value.into())),
        DbValue::Int64(value) => Ok(Value::Integer(value)),
        DbValue::Boolean(value) => Ok(Value::Boolean(value)),
        DbValue::Str(value) => Ok(Value::Text(value)),
        DbValue::Binary(value) => Ok(Value::Bytes(value)),
        DbValue::ArrayInt64(values) => Ok(Value::Integers(values)),
        DbValue::ArrayStr(values) => Ok(Value::Texts(values)),
        other => Err(PostgresError::Platform(format!("a value of no type of ours: {other:?}"))),
    }
}

fn error(error: Error) -> PostgresError {
    match error {
        Error::QueryFailed(QueryError::DbError(error)) => {
            PostgresError::Server { code: error.code, message: error.message }
        }
        Error::QueryFailed(QueryError::Text(words))
        | Error::ConnectionFailed(words)
        | Error::BadParameter(words)
        | Error::ValueConversionFailed(words)
        | Error::Other(words) => PostgresError::Platform(words),
    }
}
