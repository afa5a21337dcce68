//! What the guest holds handles to: SQLite connections and key-value stores.
//!
//! The generated `bindings` name these types, so nothing here knows of the
//! generated interfaces; `sqlite` and `key_value` implement those over them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// A connection to a SQLite file, or to a database in memory, that is opened
/// with its first use.
#[derive(Debug)]
pub(crate) struct LazyConnection {
    file: Option<PathBuf>,
    opened: OnceLock<Arc<Mutex<rusqlite::Connection>>>,
}

impl LazyConnection {
    /// Nothing is opened yet; without a file the database will be in memory.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, opened: OnceLock::new() }
    }

    /// The connection; `set_up` makes a new one fit for use.
    pub(crate) fn get(
        &self,
        set_up: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Arc<Mutex<rusqlite::Connection>>> {
        if let Some(connection) = self.opened.get() {
            return Ok(connection.clone());
        }
        let connection = match &self.file {
            Some(file) => rusqlite::Connection::open(file),
            None => rusqlite::Connection::open_in_memory(),
        }?;
        set_up(&connection)?;
        // Two first uses may race; the connection of the loser is closed unused.
        Ok(self.opened.get_or_init(|| Arc::new(Mutex::new(connection))).clone())
    }
}

/// A panic while the lock was held left no half-done Rust state behind: what
/// matters is in SQLite.
pub(crate) fn lock(
    connection: &Mutex<rusqlite::Connection>,
) -> MutexGuard<'_, rusqlite::Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection of `spin:sqlite`; clones are the same connection.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Connection(Arc<LazyConnection>);

impl Connection {
    /// A connection of its own to the database in `file`.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self(Arc::new(LazyConnection::new(file)))
    }

    /// The SQLite connection, opened now if this is its first use.
    pub(crate) fn opened(&self) -> rusqlite::Result<Arc<Mutex<rusqlite::Connection>>> {
        self.0.get(|connection| connection.authorizer(Some(deny_attached_files)))
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
pub struct Store {
    /// Tells its rows from those of other stores.
    pub label: String,
    /// The connection behind all stores.
    pub connection: Arc<Mutex<rusqlite::Connection>>,
}
