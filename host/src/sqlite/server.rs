//! Statements on a libSQL server, with the client that Spin has.
//!
//! - Each `open` is a client with a connection of its own; nothing is asked of the
//!   server before its first statement. Each statement is an HTTP request.
//! - The client reads a statement before it sends it, as one that it writes anew from
//!   what it has read. What it does not know is `unsupported statement` without asking
//!   the server. Of several statements only the first is sent.
//! - Other errors are texts: those of the client, around the words of the server.
//! - `changes` and `last-insert-rowid` are always 0: the client does not note them for
//!   a statement of which it reads rows.
//! - The server ends what a connection has there when nothing is asked for a while; the
//!   next statement fails then, and so does each after it.

use libsql::params::Params;
use tokio::sync::{mpsc, oneshot};

use super::limits::{RESULT_BYTES_MAX, row_bytes, too_large};
use crate::bindings::sqlite::{Error, QueryResult, RowResult, Value};
use crate::libsql_server::ServerConnection;

/// Runs the first statement of `statement` and collects its rows.
pub(super) async fn query(
    connection: &ServerConnection,
    statement: &str,
    parameters: Vec<Value>,
    result_bytes_max: usize,
) -> Result<QueryResult, Error> {
    let mut found = run(connected(connection).await?, statement, parameters).await?;
    let columns = column_names(&found);
    let mut rows = Vec::new();
    let mut result_bytes = size_of::<QueryResult>();
    while let Some(row) = next_row(&mut found, columns.len()).await? {
        result_bytes += row_bytes(&row);
        if result_bytes > result_bytes_max {
            return Err(too_large(result_bytes_max));
        }
        rows.push(row);
    }
    Ok(QueryResult { columns, rows })
}

/// Runs the first statement of `statement`, sending its columns and then each row as it
/// comes.
pub(super) async fn send_rows(
    connection: &ServerConnection,
    statement: &str,
    parameters: Vec<Value>,
    columns_sender: oneshot::Sender<Vec<String>>,
    rows_sender: &mpsc::Sender<RowResult>,
) -> Result<(), Error> {
    let found = run(connected(connection).await?, statement, parameters).await;
    let columns = found.as_ref().map(column_names).unwrap_or_default();
    let column_count = columns.len();
    columns_sender.send(columns).map_err(|_| Error::Io("column send error".to_owned()))?;
    let mut found = found?;
    while let Some(row) = next_row(&mut found, column_count).await? {
        if row_bytes(&row) > RESULT_BYTES_MAX {
            return Err(too_large(RESULT_BYTES_MAX));
        }
        rows_sender.send(row).await.map_err(|_| Error::Io("row send error".to_owned()))?;
    }
    Ok(())
}

/// What the client counted of the last statement.
pub(super) async fn changes(connection: &ServerConnection) -> Result<u64, Error> {
    Ok(connected(connection).await?.changes())
}

/// What the client noted of the last statement.
pub(super) async fn last_insert_rowid(connection: &ServerConnection) -> Result<i64, Error> {
    Ok(connected(connection).await?.last_insert_rowid())
}

async fn connected(connection: &ServerConnection) -> Result<&libsql::Connection, Error> {
    // Spin keeps the reason to itself.
    connection.connected().await.map_err(|_| Error::InvalidConnection)
}

async fn run(
    connection: &libsql::Connection,
    statement: &str,
    parameters: Vec<Value>,
) -> Result<libsql::Rows, Error> {
    let parameters = parameters.into_iter().map(bound).collect();
    connection.query(statement, Params::Positional(parameters)).await.map_err(io_error)
}

async fn next_row(rows: &mut libsql::Rows, columns: usize) -> Result<Option<RowResult>, Error> {
    let Some(row) = rows.next().await.map_err(io_error)? else { return Ok(None) };
    let values = (0..columns)
        .map(|column| {
            let column = i32::try_from(column).map_err(|error| Error::Io(error.to_string()))?;
            row.get_value(column).map(value).map_err(io_error)
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(RowResult { values }))
}

fn column_names(rows: &libsql::Rows) -> Vec<String> {
    (0..rows.column_count())
        .map(|column| rows.column_name(column).unwrap_or_default().to_owned())
        .collect()
}

fn io_error(error: libsql::Error) -> Error {
    Error::Io(error.to_string())
}

fn bound(value: Value) -> libsql::Value {
    match value {
        Value::Null => libsql::Value::Null,
        Value::Integer(integer) => libsql::Value::Integer(integer),
        Value::Real(real) => libsql::Value::Real(real),
        Value::Text(text) => libsql::Value::Text(text),
        Value::Blob(blob) => libsql::Value::Blob(blob),
    }
}

fn value(value: libsql::Value) -> Value {
    match value {
        libsql::Value::Null => Value::Null,
        libsql::Value::Integer(integer) => Value::Integer(integer),
        libsql::Value::Real(real) => Value::Real(real),
        libsql::Value::Text(text) => Value::Text(text),
        libsql::Value::Blob(blob) => Value::Blob(blob),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A connection to a port at which nobody listens.
    fn connection() -> ServerConnection {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let text = format!("url = \"http://{address}\"\ntoken = \"secret\"");
        ServerConnection::new(Arc::new(toml::from_str(&text).expect("a server")))
    }

    async fn error_of(statement: &str) -> String {
        match query(&connection(), statement, Vec::new(), usize::MAX).await {
            Err(Error::Io(words)) => words,
            other => panic!("{statement}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn what_the_client_does_not_know_is_refused_by_itself() {
        for (statement, words) in [
            ("PRAGMA wal_autocheckpoint = 0", "unsupported statement"),
            ("PRAGMA busy_timeout = 3", "unsupported statement"),
            ("VACUUM", "unsupported statement"),
            ("SELEC", "syntax error around L1:6: `SELEC`"),
            ("", "API misuse: `no SQL statement provided`"),
        ] {
            assert_eq!(error_of(statement).await, words, "{statement}");
        }
        assert_eq!(changes(&connection()).await.expect("a count"), 0);
        assert_eq!(last_insert_rowid(&connection()).await.expect("a number"), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told() {
        let words = error_of("SELECT 1").await;
        let begin = "Hrana: `http error: `error trying to connect: tcp connect error: ";
        assert!(words.starts_with(begin), "{words}");
    }

    #[tokio::test]
    async fn errors_of_asynchronous_statements_follow_their_columns() {
        for statement in ["SELECT 1", "VACUUM"] {
            let (columns_sender, columns) = oneshot::channel();
            let (rows_sender, mut rows) = mpsc::channel(1);
            let connection = connection();
            let sent = send_rows(&connection, statement, Vec::new(), columns_sender, &rows_sender);
            let result = sent.await;
            drop(rows_sender);
            assert!(columns.await.expect("columns").is_empty(), "{statement}");
            assert!(rows.recv().await.is_none() && result.is_err(), "{statement}");
        }
    }
}
