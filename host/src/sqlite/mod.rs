//! `spin:sqlite@3.1.0` over SQLite files, and over libSQL servers (`server`), as Spin
//! has it. Of files holds:
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

use tokio::sync::{mpsc, oneshot};
use wasmtime::component::{Accessor, FutureReader, HasData, Resource, ResourceTable, StreamReader};

use crate::bindings::sqlite::{
    Error, Host, HostConnection, HostConnectionWithStore, QueryResult, RowResult, Value,
};
use crate::database_file::{DatabaseFile, FileError};
use crate::guest_stream;
use crate::libsql_server::{LibsqlServer, ServerConnection};
use crate::resources::{Connection, FileConnection};

mod file;
mod limits;
mod server;

use limits::{RESULT_BYTES_MAX, ROWS_AHEAD_MAX};

/// Connections that one instance may have open at a time.
const CONNECTIONS_MAX: usize = 256;

/// What a component may open, by the labels of its manifest.
pub(crate) type Databases = HashMap<String, Database>;

/// What is behind a label.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    /// A file of this machine.
    File {
        /// Where it is.
        file: Arc<DatabaseFile>,
        /// Whether a statement may `ATTACH` other files.
        allow_attach_file: bool,
    },
    /// A libSQL server.
    Server(Arc<LibsqlServer>),
}

impl Database {
    fn connection(&self) -> Connection {
        match self {
            Self::File { file, allow_attach_file } => {
                Connection::File(FileConnection::new(file.clone(), *allow_attach_file))
            }
            Self::Server(server) => {
                Connection::Server(Arc::new(ServerConnection::new(server.clone())))
            }
        }
    }
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
        let Some(database) = self.databases.get(database) else {
            return Err(Error::AccessDenied);
        };
        self.connections
            .push(database.connection())
            .map_err(|_| Error::Io("too many connections opened".to_owned()))
    }

    fn get(&self, connection: &Resource<Connection>) -> Result<Connection, Error> {
        self.connections.get(connection).cloned().map_err(|_| Error::InvalidConnection)
    }
}

impl Connection {
    async fn query(&self, statement: String, parameters: Vec<Value>) -> Result<QueryResult, Error> {
        // Tasks of their own, since what panics in one of them ends only that.
        let running = match self.clone() {
            Self::File(file) => tokio::task::spawn_blocking(move || {
                file.run(|opened| file::query(opened, &statement, parameters, RESULT_BYTES_MAX))
            }),
            Self::Server(server) => tokio::spawn(async move {
                server::query(&server, &statement, parameters, RESULT_BYTES_MAX).await
            }),
        };
        running.await.map_err(|_| runtime_error())?
    }

    async fn query_rows(
        &self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<RowsUnderWay, Error> {
        let (columns_sender, columns) = oneshot::channel();
        let (rows_sender, rows) = mpsc::channel(ROWS_AHEAD_MAX);
        let (outcome_sender, outcome) = oneshot::channel();
        // The stream ends before the outcome is sent, as the guest reads them. The guest
        // may have dropped its future: then nobody wants to know.
        match self.clone() {
            Self::File(file) => drop(tokio::task::spawn_blocking(move || {
                let result = file.run(|opened| {
                    file::send_rows(opened, &statement, parameters, columns_sender, &rows_sender)
                });
                drop(rows_sender);
                outcome_sender.send(result).ok();
            })),
            Self::Server(server) => drop(tokio::spawn(async move {
                let sent = server::send_rows(
                    &server,
                    &statement,
                    parameters,
                    columns_sender,
                    &rows_sender,
                );
                let result = sent.await;
                drop(rows_sender);
                outcome_sender.send(result).ok();
            })),
        }
        match columns.await {
            Ok(columns) => Ok(RowsUnderWay { columns, rows, outcome }),
            // It did not come to the statement.
            Err(_) => Err(outcome.await.ok().and_then(Result::err).unwrap_or_else(runtime_error)),
        }
    }

    async fn changes(&self) -> Result<u64, Error> {
        match self {
            Self::File(file) => file.run(|opened| Ok(opened.changes())),
            Self::Server(server) => server::changes(server).await,
        }
    }

    async fn last_insert_rowid(&self) -> Result<i64, Error> {
        match self {
            Self::File(file) => file.run(|opened| Ok(opened.last_insert_rowid())),
            Self::Server(server) => server::last_insert_rowid(server).await,
        }
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
        Ok(self.get(&connection)?.last_insert_rowid().await?)
    }

    async fn changes(&mut self, connection: Resource<Connection>) -> wasmtime::Result<u64> {
        Ok(self.get(&connection)?.changes().await?)
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
        Ok(get(accessor, &connection)?.last_insert_rowid().await?)
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
    ) -> wasmtime::Result<u64> {
        Ok(get(accessor, &connection)?.changes().await?)
    }
}
