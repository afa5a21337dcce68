//! What the guest holds handles to: SQLite connections and key-value stores (those
//! of PostgreSQL are with their pools).
//!
//! The generated `bindings` name these types, so nothing here knows of the
//! generated interfaces; `sqlite` and `key_value` implement those over them.

use std::sync::Arc;

use redis::aio::ConnectionManager;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::database_file::{DatabaseFile, FileError, LazyConnection};
use crate::libsql_server::ServerConnection;

/// A connection of `spin:sqlite`; clones are the same connection.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub enum Connection {
    /// To a file.
    File(FileConnection),
    /// To a libSQL server.
    Server(Arc<ServerConnection>),
}

/// A connection to a SQLite file; clones are the same connection.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "a public type has it")]
pub struct FileConnection(Arc<LazyConnection>);

impl FileConnection {
    /// A connection of its own to the database in `file`, opened with its first
    /// use. It may `ATTACH` other files only if that is allowed.
    pub(crate) fn new(file: Arc<DatabaseFile>, allow_attach_file: bool) -> Self {
        Self(LazyConnection::new(
            file,
            if allow_attach_file {
                |_| Ok(())
            } else {
                |connection| connection.authorizer(Some(deny_attached_files))
            },
        ))
    }

    /// Runs `work` on the SQLite connection; see [`LazyConnection::run`].
    ///
    /// # Errors
    ///
    /// Those of `work`; and [`FileError`].
    pub(crate) fn run<T, E: From<FileError>>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.0.run(work)
    }
}

fn deny_attached_files(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { filename } if !matches!(filename, "" | ":memory:") => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

/// An open store of `spin:key-value`; clones are the same store.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Store(pub(crate) OpenStore);

/// The same, by where it is.
#[derive(Clone)]
pub(crate) enum OpenStore {
    File(FileStore),
    Redis(RedisStore),
}

/// A store in a file.
#[derive(Clone)]
pub(crate) struct FileStore {
    /// Tells its rows from those of other stores.
    pub(crate) label: String,
    /// The connection behind all stores.
    pub(crate) connection: Arc<LazyConnection>,
}

/// A store in Redis: the connection behind it.
#[derive(Clone)]
pub(crate) struct RedisStore(pub(crate) ConnectionManager);
