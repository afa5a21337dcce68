//! `spin:sqlite@3.1.0` over SQLite files, as Spin has it.
//!
//! - Each `open` is a connection of its own; the file is opened on first use.
//! - Only the first statement of a string runs; statements are cached per
//!   connection; SQLite's own busy handler waits as long as rusqlite sets it.
//! - `ATTACH` of a file is denied, unless the runtime configuration allows it,
//!   since it would reach past the database that the manifest grants; `''` and
//!   `:memory:` are allowed.
//! - An error at prepare time reaches the asynchronous form through its future,
//!   after empty columns.
//! - The synchronous form holds the whole instance until its rows are in memory.
//!
//! Unlike in Spin, a statement whose file is no longer at its path fails, and so
//! does each that follows on that connection: see `database_file`.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::CachedStatement;
use rusqlite::types::ValueRef;
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::{Accessor, FutureReader, HasData, Resource, ResourceTable, StreamReader};

use crate::bindings::sqlite::{
    Error, Host, HostConnection, HostConnectionWithStore, QueryResult, RowResult, Value,
};
use crate::database_file::{DatabaseFile, FileError};
use crate::guest_stream;
use crate::resources::Connection;

/// Connections that one instance may have open at a time.
const CONNECTIONS_MAX: usize = 256;
/// The result of one synchronous statement, or one row of an asynchronous one.
const RESULT_BYTES_MAX: usize = 128 << 20;
/// Rows that an asynchronous statement may be ahead of the guest.
const ROWS_AHEAD_MAX: usize = 4;

/// What a component may open, by the labels of its manifest.
pub(crate) type Databases = HashMap<String, Database>;

/// What is behind a label.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Where it is.
    pub file: Arc<DatabaseFile>,
    /// Whether a statement may `ATTACH` other files.
    pub allow_attach_file: bool,
}

/// The connections of one instance.
pub(crate) struct SqliteState {
    databases: Arc<Databases>,
    connections: ResourceTable,
}

impl SqliteState {
    /// State of a new instance: no connection is open.
    pub(crate) fn new(databases: Arc<Databases>) -> Self {
        let mut connections = ResourceTable::new();
        connections.set_max_capacity(CONNECTIONS_MAX);
        Self { databases, connections }
    }

    fn open(&mut self, database: &str) -> Result<Resource<Connection>, Error> {
        let Some(Database { file, allow_attach_file }) = self.databases.get(database) else {
            return Err(Error::AccessDenied);
        };
        self.connections
            .push(Connection::new(file.clone(), *allow_attach_file))
            .map_err(|_| Error::Io("too many connections opened".to_owned()))
    }

    fn get(&self, connection: &Resource<Connection>) -> Result<Connection, Error> {
        self.connections.get(connection).cloned().map_err(|_| Error::InvalidConnection)
    }
}

impl Connection {
    async fn query(&self, statement: String, parameters: Vec<Value>) -> Result<QueryResult, Error> {
        let connection = self.clone();
        tokio::task::spawn_blocking(move || {
            connection.run(|opened| query(opened, &statement, parameters, RESULT_BYTES_MAX))
        })
        .await
        .map_err(|_| runtime_error())?
    }

    async fn query_rows(
        &self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<RowsUnderWay, Error> {
        let connection = self.clone();
        let (columns_sender, columns) = oneshot::channel();
        let (rows_sender, rows) = mpsc::channel(ROWS_AHEAD_MAX);
        let (outcome_sender, outcome) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let result = connection.run(|opened| {
                send_rows(opened, &statement, parameters, columns_sender, &rows_sender)
            });
            // The stream ends before the outcome is sent, as the guest reads them.
            drop(rows_sender);
            // The guest may have dropped its future: then nobody wants to know.
            outcome_sender.send(result).ok();
        });
        match columns.await {
            Ok(columns) => Ok(RowsUnderWay { columns, rows, outcome }),
            // It did not come to the statement.
            Err(_) => Err(outcome.await.ok().and_then(Result::err).unwrap_or_else(runtime_error)),
        }
    }

    fn changes(&self) -> Result<u64, Error> {
        self.run(|opened| Ok(opened.changes()))
    }

    fn last_insert_rowid(&self) -> Result<i64, Error> {
        self.run(|opened| Ok(opened.last_insert_rowid()))
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Error::Io(error.to_string())
    }
}

fn runtime_error() -> Error {
    Error::Io("internal runtime error".to_owned())
}

/// What an asynchronous statement hands to the guest while it runs.
struct RowsUnderWay {
    columns: Vec<String>,
    rows: mpsc::Receiver<RowResult>,
    outcome: oneshot::Receiver<Result<(), Error>>,
}

fn io_error(error: rusqlite::Error) -> Error {
    Error::Io(error.to_string())
}

fn too_large(result_bytes_max: usize) -> Error {
    Error::Io(format!("query result exceeds limit of {result_bytes_max} bytes"))
}

/// Prepares the first statement of `sql`. The release of rusqlite that Spin builds
/// on leaves out the rest without a word; this one refuses it.
fn prepare<'a>(
    connection: &'a rusqlite::Connection,
    sql: &str,
) -> rusqlite::Result<CachedStatement<'a>> {
    match connection.prepare_cached(sql) {
        Err(rusqlite::Error::MultipleStatement) => {
            let mut beginnings = sql.match_indices(';').map(|(end, _)| &sql[..=end]);
            let first = beginnings.find(|beginning| connection.prepare(beginning).is_ok());
            connection.prepare_cached(first.unwrap_or(sql))
        }
        prepared => prepared,
    }
}

/// Runs the first statement of `statement` and collects its rows.
fn query(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
    result_bytes_max: usize,
) -> Result<QueryResult, Error> {
    let mut statement = prepare(connection, statement).map_err(io_error)?;
    let columns = column_names(&statement);
    let mut cursor = statement.query(bound(parameters)).map_err(io_error)?;
    let mut rows = Vec::new();
    let mut result_bytes = size_of::<QueryResult>();
    while let Some(row) = cursor.next().map_err(io_error)? {
        let row = row_result(row, columns.len())?;
        result_bytes += row_bytes(&row);
        if result_bytes > result_bytes_max {
            return Err(too_large(result_bytes_max));
        }
        rows.push(row);
    }
    Ok(QueryResult { columns, rows })
}

/// Runs the first statement of `statement`, sending its columns and then each
/// row as it comes.
fn send_rows(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
    columns_sender: oneshot::Sender<Vec<String>>,
    rows_sender: &mpsc::Sender<RowResult>,
) -> Result<(), Error> {
    let prepared = prepare(connection, statement);
    let columns = prepared.as_ref().map(|s| column_names(s)).unwrap_or_default();
    let column_count = columns.len();
    columns_sender.send(columns).map_err(|_| Error::Io("column send error".to_owned()))?;
    let mut statement = prepared.map_err(io_error)?;
    let mut cursor = statement.query(bound(parameters)).map_err(io_error)?;
    while let Some(row) = cursor.next().map_err(io_error)? {
        let row = row_result(row, column_count)?;
        if row_bytes(&row) > RESULT_BYTES_MAX {
            return Err(too_large(RESULT_BYTES_MAX));
        }
        rows_sender.blocking_send(row).map_err(|_| Error::Io("row send error".to_owned()))?;
    }
    Ok(())
}

fn column_names(statement: &rusqlite::Statement<'_>) -> Vec<String> {
    statement.column_names().into_iter().map(str::to_owned).collect()
}

fn bound(parameters: Vec<Value>) -> impl rusqlite::Params {
    rusqlite::params_from_iter(parameters.into_iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(integer) => rusqlite::types::Value::Integer(integer),
        Value::Real(real) => rusqlite::types::Value::Real(real),
        Value::Text(text) => rusqlite::types::Value::Text(text),
        Value::Blob(blob) => rusqlite::types::Value::Blob(blob),
    }))
}

fn row_result(row: &rusqlite::Row<'_>, column_count: usize) -> Result<RowResult, Error> {
    let values = (0..column_count)
        .map(|column| match row.get_ref(column).map_err(io_error)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(integer) => Ok(Value::Integer(integer)),
            ValueRef::Real(real) => Ok(Value::Real(real)),
            // SQLite stores what it is given; a text that is not UTF-8 cannot
            // pass to the guest as one.
            ValueRef::Text(text) => String::from_utf8(text.to_vec())
                .map(Value::Text)
                .map_err(|error| Error::Io(error.to_string())),
            ValueRef::Blob(blob) => Ok(Value::Blob(blob.to_vec())),
        })
        .collect::<Result<_, Error>>()?;
    Ok(RowResult { values })
}

fn row_bytes(row: &RowResult) -> usize {
    let value_bytes = |value: &Value| {
        size_of::<Value>()
            + match value {
                Value::Text(text) => text.len(),
                Value::Blob(blob) => blob.len(),
                Value::Integer(_) | Value::Real(_) | Value::Null => 0,
            }
    };
    row.values.iter().map(value_bytes).sum()
}

impl Host for SqliteState {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<Error> {
        Ok(error)
    }
}

impl HostConnection for SqliteState {
    async fn open(&mut self, database: String) -> Result<Resource<Connection>, Error> {
        SqliteState::open(self, &database)
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<QueryResult, Error> {
        self.get(&connection)?.query(statement, parameters).await
    }

    async fn last_insert_rowid(
        &mut self,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<i64> {
        Ok(self.get(&connection)?.last_insert_rowid()?)
    }

    async fn changes(&mut self, connection: Resource<Connection>) -> wasmtime::Result<u64> {
        Ok(self.get(&connection)?.changes()?)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.connections.delete(connection)?;
        Ok(())
    }
}

/// Names [`SqliteState`] as the data behind the interface.
pub(crate) struct HasSqlite;

impl HasData for HasSqlite {
    type Data<'a> = &'a mut SqliteState;
}

/// The connection behind a handle that a concurrent call was given.
fn get<T>(
    accessor: &Accessor<T, HasSqlite>,
    connection: &Resource<Connection>,
) -> Result<Connection, Error> {
    accessor.with(|mut access| access.get().get(connection))
}

impl<T: Send> HostConnectionWithStore<T> for HasSqlite {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        database: String,
    ) -> Result<Resource<Connection>, Error> {
        accessor.with(|mut access| access.get().open(&database))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<(Vec<String>, StreamReader<RowResult>, FutureReader<Result<(), Error>>), Error>
    {
        let under_way = get(accessor, &connection)?.query_rows(statement, parameters).await?;
        let (rows, outcome) =
            guest_stream::from_channels(accessor, under_way.rows, under_way.outcome)
                .map_err(|error| Error::Io(error.to_string()))?;
        Ok((under_way.columns, rows, outcome))
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<i64> {
        Ok(get(accessor, &connection)?.last_insert_rowid()?)
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<u64> {
        Ok(get(accessor, &connection)?.changes()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new(Arc::new(DatabaseFile::new(None)), false)
    }

    fn run(
        connection: &Connection,
        statement: &str,
        parameters: &[Value],
    ) -> Result<QueryResult, Error> {
        connection.run(|opened| query(opened, statement, parameters.to_vec(), RESULT_BYTES_MAX))
    }

    #[test]
    fn values_go_in_and_come_out() {
        let blob = Value::Blob(vec![0, 255]);
        let given = [
            Value::Integer(i64::MIN),
            Value::Real(0.5),
            Value::Text("ä\0".into()),
            blob,
            Value::Null,
        ];
        let result = run(&connection(), "SELECT ? AS a, ?, ?, ?, ?", &given).expect("rows");
        assert_eq!(result.columns[0], "a");
        assert_eq!(format!("{:?}", result.rows[0].values), format!("{given:?}"));
    }

    #[test]
    fn only_the_first_statement_runs() {
        let connection = connection();
        run(&connection, "CREATE TABLE t (a); CREATE TABLE u (a)", &[]).expect("a table");
        run(&connection, "SELECT * FROM t", &[]).expect("the table");
        run(&connection, "SELECT * FROM u", &[]).expect_err("no second table");
    }

    #[test]
    fn files_cannot_be_attached() {
        let connection = connection();
        for (target, expected) in
            [("''", true), ("':memory:'", true), ("'x.db'", false), ("'file::memory:'", false)]
        {
            let attached = run(&connection, &format!("ATTACH {target} AS other"), &[]).is_ok();
            assert_eq!(attached, expected, "{target}");
            if attached {
                run(&connection, "DETACH other", &[]).expect("detached");
            }
        }
    }

    #[test]
    fn results_are_bounded() {
        let connection = connection();
        let three = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
        let bytes = size_of::<QueryResult>() + 3 * size_of::<Value>();
        let run = |bytes_max| connection.run(|opened| query(opened, three, Vec::new(), bytes_max));
        run(bytes).expect("it fits");
        let error = run(bytes - 1).expect_err("too large");
        assert!(error.to_string().contains("exceeds limit"), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        let error = run(&connection(), "SELECT CAST(x'ff' AS TEXT)", &[]).expect_err("not UTF-8");
        assert!(matches!(error, Error::Io(_)), "{error}");
    }

    #[test]
    fn errors_of_asynchronous_statements_follow_their_columns() {
        for (statement, columns, row_count, succeeds) in [
            ("SELECT 1 AS a UNION ALL SELECT 2", vec!["a"], 2, true),
            ("SELEC", vec![], 0, false),
            ("SELECT abs(-9223372036854775808) AS a", vec!["a"], 0, false),
        ] {
            let (columns_sender, columns_receiver) = oneshot::channel();
            let (rows_sender, mut rows) = mpsc::channel(ROWS_AHEAD_MAX);
            let result = connection().run(|opened| {
                send_rows(opened, statement, Vec::new(), columns_sender, &rows_sender)
            });
            assert_eq!(columns_receiver.blocking_recv().expect("columns"), columns, "{statement}");
            drop(rows_sender);
            let rows = std::iter::from_fn(|| rows.blocking_recv()).count();
            assert_eq!((rows, result.is_ok()), (row_count, succeeds), "{statement}");
        }
    }
}
