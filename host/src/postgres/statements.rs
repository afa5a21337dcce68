//! Statements on a connection, and what becomes of their errors.
//!
//! As in Spin: each call prepares its statement anew, and no call is a
//! transaction with another. An asynchronous query is told its columns with its
//! first row, so that one without rows has none. An error of PostgreSQL has its
//! SQLSTATE, but for one that a synchronous query meets after it was prepared: of
//! that there is only a text.
//!
//! Unlike in Spin, a synchronous query without rows fails: there it never returns,
//! since it waits for the columns of the first one, and holds its instance for
//! ever.

use std::pin::pin;

use futures_util::{Stream, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::error::DbError as ServerError;
use tokio_postgres::types::ToSql;

use crate::bindings::postgres::{
    Column, DbError, DbValue, Error, ParameterValue, QueryError, RowSet,
};
use crate::postgres::pools::Client;
use crate::postgres::values::{columns, parameters, row_bytes, values};

/// The result of one synchronous query, or one row of an asynchronous one.
const RESULT_BYTES_MAX: usize = 128 << 20;
/// Rows that an asynchronous query may be ahead of the guest.
const ROWS_AHEAD_MAX: usize = 4;
/// Said of a synchronous query without rows.
const NO_ROWS: &str = "a synchronous query without rows would never return on Spin 4.1: \
                       make an asynchronous one, or execute it";

/// Runs a statement, and tells how many rows it has changed or given.
///
/// # Errors
///
/// Those of PostgreSQL, and a parameter that is none.
pub(crate) async fn execute(
    client: &Client,
    statement: &str,
    given: Vec<ParameterValue>,
) -> Result<u64, Error> {
    // Queries give another error for the same.
    let given =
        parameters(given).map_err(|error| Error::ValueConversionFailed(format!("{error:?}")))?;
    let given: Vec<&(dyn ToSql + Sync)> = given.iter().map(|value| &**value as _).collect();
    client.execute(statement, &given).await.map_err(query_failed)
}

/// Runs a statement and collects its rows.
///
/// # Errors
///
/// As of [`execute`], a result of more than [`RESULT_BYTES_MAX`], and one without
/// rows.
pub(crate) async fn query(
    client: &Client,
    statement: &str,
    given: Vec<ParameterValue>,
) -> Result<RowSet, Error> {
    let rows = start(client, statement, given).await?;
    let set = collect(rows, RESULT_BYTES_MAX).await;
    let set = set.map_err(|error| text(format!("{error:?}")))?;
    if set.rows.is_empty() { Err(Error::Other(NO_ROWS.to_owned())) } else { Ok(set) }
}

async fn collect(
    rows: impl Stream<Item = Result<Row, tokio_postgres::Error>>,
    result_bytes_max: usize,
) -> anyhow::Result<RowSet> {
    let mut rows = pin!(rows);
    let mut set = RowSet { columns: Vec::new(), rows: Vec::new() };
    let mut result_bytes = size_of::<RowSet>();
    while let Some(row) = rows.try_next().await.map_err(query_failed)? {
        if set.rows.is_empty() {
            set.columns = columns(&row);
        }
        let row = read(&row)?;
        result_bytes += row_bytes(&row);
        anyhow::ensure!(result_bytes <= result_bytes_max, too_large(result_bytes_max));
        set.rows.push(row);
    }
    Ok(set)
}

/// What an asynchronous query hands to the guest while it runs.
pub(crate) struct RowsUnderWay {
    /// None if there is no row.
    pub columns: Vec<Column>,
    /// As they come.
    pub rows: mpsc::Receiver<Vec<DbValue>>,
    /// How it ended.
    pub outcome: oneshot::Receiver<Result<(), Error>>,
}

/// Runs a statement and hands its rows on as they come.
///
/// # Errors
///
/// What keeps it from being run; what comes later is in its outcome.
pub(crate) async fn query_rows(
    client: &Client,
    statement: &str,
    given: Vec<ParameterValue>,
) -> Result<RowsUnderWay, Error> {
    let rows_of_statement = start(client, statement, given).await?;
    let (columns_sender, columns) = oneshot::channel();
    let (rows_sender, rows) = mpsc::channel(ROWS_AHEAD_MAX);
    let (outcome_sender, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let result = send(rows_of_statement, columns_sender, &rows_sender).await;
        // The guest may have dropped its future: then nobody wants to know.
        outcome_sender.send(result).ok();
    });
    let columns = columns.await.unwrap_or_default();
    Ok(RowsUnderWay { columns, rows, outcome })
}

async fn send(
    rows: impl Stream<Item = Result<Row, tokio_postgres::Error>>,
    columns_sender: oneshot::Sender<Vec<Column>>,
    rows_sender: &mpsc::Sender<Vec<DbValue>>,
) -> Result<(), Error> {
    let mut rows = pin!(rows);
    let mut columns_sender = Some(columns_sender);
    loop {
        let row = tokio::select! {
            // Of a guest that reads no further nothing more is asked for.
            biased;
            () = rows_sender.closed() => return Ok(()),
            row = rows.try_next() => row.map_err(query_failed)?,
        };
        let Some(row) = row else { return Ok(()) };
        if let Some(sender) = columns_sender.take() {
            // The guest may have gone meanwhile, as it may at any time below.
            sender.send(columns(&row)).ok();
        }
        let row = read(&row)?;
        if row_bytes(&row) > RESULT_BYTES_MAX {
            return Err(text(too_large(RESULT_BYTES_MAX)));
        }
        rows_sender.send(row).await.map_err(|error| text(format!("async error: {error}")))?;
    }
}

/// Prepares a statement and begins to run it.
async fn start(
    client: &Client,
    statement: &str,
    given: Vec<ParameterValue>,
) -> Result<tokio_postgres::RowStream, Error> {
    let given = parameters(given).map_err(|error| Error::BadParameter(format!("{error:?}")))?;
    client.query_raw(statement, given).await.map_err(query_failed)
}

fn read(row: &Row) -> Result<Vec<DbValue>, Error> {
    values(row).map_err(|error| text(format!("{error:?}")))
}

fn text(text: String) -> Error {
    Error::QueryFailed(QueryError::Text(text))
}

fn too_large(result_bytes_max: usize) -> String {
    format!("query result exceeds limit of {result_bytes_max} bytes")
}

fn query_failed(error: tokio_postgres::Error) -> Error {
    let as_text = format!("{error:?}");
    Error::QueryFailed(match error.as_db_error() {
        None => QueryError::Text(as_text),
        Some(server) => QueryError::DbError(DbError {
            as_text,
            severity: server.severity().to_owned(),
            code: server.code().code().to_owned(),
            message: server.message().to_owned(),
            detail: server.detail().map(str::to_owned),
            extras: extras(server),
        }),
    })
}

/// What else the server has said of an error, by the names that Spin has for it.
fn extras(error: &ServerError) -> Vec<(String, String)> {
    let line = error.line().map(|line| line.to_string());
    [
        ("column", error.column()),
        ("constraint", error.constraint()),
        ("routine", error.routine()),
        ("hint", error.hint()),
        ("table", error.table()),
        ("datatype", error.datatype()),
        ("schema", error.schema()),
        ("file", error.file()),
        ("line", line.as_deref()),
        ("where_", error.where_()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
    .collect()
}
