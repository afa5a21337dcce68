//! Stores in a SQLite file.
//!
//! The stores of a file are rows of one table behind one connection, shared by
//! all instances under a mutex, and every `set` is a commit of its own. Operations
//! block the thread they run on, and with it all tasks of their instance.
//!
//! Unlike in Spin, an operation fails whose file is no longer at its path, and
//! the next store that is opened opens the file anew: see `database_file`.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::OptionalExtension;
use tokio::sync::mpsc;

use super::limits::{self, other};
use crate::bindings::key_value::Error;
use crate::database_file::{DatabaseFile, FileError, LazyConnection};
use crate::resources::FileStore;

const CREATE_TABLE: &str = "\
CREATE TABLE IF NOT EXISTS spin_key_value (
    store TEXT NOT NULL,
    key   TEXT NOT NULL,
    value BLOB NOT NULL,

    PRIMARY KEY (store, key)
)";
const GET: &str = "SELECT value FROM spin_key_value WHERE store=$1 AND key=$2";
const SET: &str = "\
INSERT INTO spin_key_value (store, key, value) VALUES ($1, $2, $3)
ON CONFLICT(store, key) DO UPDATE SET value=$3";
const DELETE: &str = "DELETE FROM spin_key_value WHERE store=$1 AND key=$2";
const KEYS: &str = "SELECT key FROM spin_key_value WHERE store=$1";

/// A file of stores, and the one connection to it that all components share.
#[derive(Debug)]
pub(crate) struct StoreFile {
    file: Arc<DatabaseFile>,
    connection: Mutex<Arc<LazyConnection>>,
}

impl StoreFile {
    /// Over `file`, which is opened with the first store.
    pub(crate) fn new(file: DatabaseFile) -> Self {
        let file = Arc::new(file);
        Self { connection: Mutex::new(connection(&file)), file }
    }

    /// Opens the store of this label.
    pub(super) fn open(&self, label: String) -> Result<FileStore, Error> {
        Ok(FileStore { label, connection: self.connection()? })
    }

    /// The connection, opened.
    fn connection(&self) -> Result<Arc<LazyConnection>, Error> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_lost() {
            *kept = connection(&self.file);
        }
        kept.run(|_| Ok::<_, Error>(()))?;
        Ok(Arc::clone(&kept))
    }
}

fn connection(file: &Arc<DatabaseFile>) -> Arc<LazyConnection> {
    LazyConnection::new(Arc::clone(file), |opened| opened.execute(CREATE_TABLE, []).map(drop))
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Sqlite(error) => other(error),
            FileError::Lost | FileError::Closing => Error::Other(error.to_string()),
        }
    }
}

impl FileStore {
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        limits::value(self.value(key)?)
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.execute(SET, rusqlite::params![self.label, key, value])
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
        self.execute(DELETE, rusqlite::params![self.label, key])
    }

    pub(super) fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.value(key)?.is_some())
    }

    /// Sends each key as it is read; the mutex is held until the last is taken.
    pub(super) fn send_keys(&self, keys: &mpsc::Sender<String>) -> Result<(), Error> {
        self.connection.run(|opened| {
            let mut statement = opened.prepare_cached(KEYS).map_err(other)?;
            let mut cursor = statement.query([&self.label]).map_err(other)?;
            while let Some(row) = cursor.next().map_err(other)? {
                let key = limits::key(row.get(0).map_err(other)?)?;
                keys.blocking_send(key).map_err(other)?;
            }
            Ok(())
        })
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.connection.run(|opened| {
            opened
                .prepare_cached(GET)
                .map_err(other)?
                .query_row([&self.label, key], |row| row.get(0))
                .optional()
                .map_err(other)
        })
    }

    fn execute(&self, statement: &str, parameters: impl rusqlite::Params) -> Result<(), Error> {
        self.connection.run(|opened| {
            opened
                .prepare_cached(statement)
                .map_err(other)?
                .execute(parameters)
                .map(drop)
                .map_err(other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Result<FileStore, Error> {
        StoreFile::new(DatabaseFile::new(None)).open("default".to_owned())
    }

    #[test]
    fn set_get_delete() -> Result<(), Error> {
        let store = store()?;
        assert_eq!(store.get("k")?, None);
        store.set("k", b"1")?;
        store.set("k", b"2")?;
        assert_eq!(store.get("k")?.as_deref(), Some(&b"2"[..]));
        assert!(store.exists("k")?);
        store.delete("k")?;
        store.delete("k")?;
        assert_eq!(store.get("k")?, None);
        assert!(!store.exists("k")?);
        Ok(())
    }

    #[test]
    fn keys_of_one_store() -> Result<(), Error> {
        let store = store()?;
        let other = FileStore { label: "other".to_owned(), ..store.clone() };
        store.set("a", b"")?;
        store.set("b", b"")?;
        other.set("c", b"")?;
        let (sender, mut keys) = mpsc::channel(limits::KEYS_AHEAD_MAX);
        store.send_keys(&sender)?;
        drop(sender);
        let keys: Vec<_> = std::iter::from_fn(|| keys.blocking_recv()).collect();
        assert_eq!(keys, ["a", "b"]);
        Ok(())
    }
}
