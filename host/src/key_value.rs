//! `spin:key-value@3.0.0` over SQLite files, as Spin has it.
//!
//! The stores of a file are rows of one table behind one connection, shared by
//! all instances under a mutex, and every `set` is a commit of its own. Operations
//! block the thread they run on, and with it all tasks of their instance.
//!
//! Unlike in Spin, an operation fails whose file is no longer at its path, and
//! the next store that is opened opens the file anew: see `database_file`.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::OptionalExtension;
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use wasmtime::component::{Accessor, FutureReader, HasData, Resource, ResourceTable, StreamReader};

use crate::bindings::key_value::{Error, Host, HostStore, HostStoreWithStore};
use crate::database_file::{DatabaseFile, FileError, LazyConnection};
use crate::guest_stream;
use crate::resources::Store;

/// One value, or one key of a listing.
const RESULT_BYTES_MAX: usize = 128 << 20;
/// Keys that a listing may be ahead of the guest.
const KEYS_AHEAD_MAX: usize = 4;

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

/// What a component may open, by the labels of its manifest.
#[derive(Debug)]
pub(crate) struct Stores(HashMap<String, Arc<StoreFile>>);

impl Stores {
    /// These.
    pub(crate) fn new(by_label: HashMap<String, Arc<StoreFile>>) -> Self {
        Self(by_label)
    }

    fn store(&self, label: String) -> Result<Store, Error> {
        let Some(file) = self.0.get(&label) else { return Err(Error::AccessDenied) };
        let connection = block_in_place(|| file.connection())?;
        Ok(Store { label, connection })
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

impl Store {
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

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let value = self.value(key)?;
        let value_bytes = size_of_val(&value) + value.as_ref().map_or(0, Vec::len);
        if value_bytes > RESULT_BYTES_MAX {
            return Err(too_large());
        }
        Ok(value)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.execute(SET, rusqlite::params![self.label, key, value])
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.execute(DELETE, rusqlite::params![self.label, key])
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

    /// Sends each key as it is read; the mutex is held until the last is taken.
    fn send_keys(&self, keys: &mpsc::Sender<String>) -> Result<(), Error> {
        self.connection.run(|opened| {
            let mut statement = opened.prepare_cached(KEYS).map_err(other)?;
            let mut cursor = statement.query([&self.label]).map_err(other)?;
            while let Some(row) = cursor.next().map_err(other)? {
                let key: String = row.get(0).map_err(other)?;
                if key.len() > RESULT_BYTES_MAX {
                    return Err(too_large());
                }
                keys.blocking_send(key).map_err(other)?;
            }
            Ok(())
        })
    }
}

/// Spin gives the guest the error in its `Debug` form.
fn other(error: impl Debug) -> Error {
    Error::Other(format!("{error:?}"))
}

fn too_large() -> Error {
    Error::Other(format!("query result exceeds limit of {RESULT_BYTES_MAX} bytes"))
}

/// The stores one instance has open. Their number is not bounded, as in Spin.
pub(crate) struct KeyValueState {
    stores: Arc<Stores>,
    open: ResourceTable,
}

impl KeyValueState {
    /// State of a new instance: no store is open.
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, open: ResourceTable::new() }
    }
}

impl Host for KeyValueState {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<Error> {
        Ok(error)
    }
}

impl HostStore for KeyValueState {
    async fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.open.delete(store)?;
        Ok(())
    }
}

/// Names [`KeyValueState`] as the data behind the interface.
pub(crate) struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = &'a mut KeyValueState;
}

/// The store behind a handle that a concurrent call was given.
fn get<T>(accessor: &Accessor<T, HasKeyValue>, store: &Resource<Store>) -> Result<Store, Error> {
    accessor
        .with(|mut access| access.get().open.get(store).cloned().map_err(|_| Error::NoSuchStore))
}

impl<T: Send> HostStoreWithStore<T> for HasKeyValue {
    async fn open(accessor: &Accessor<T, Self>, label: String) -> Result<Resource<Store>, Error> {
        let stores = accessor.with(|mut access| access.get().stores.clone());
        let store = stores.store(label)?;
        accessor.with(|mut access| {
            let open = &mut access.get().open;
            open.push(store).map_err(|_| Error::StoreTableFull)
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<Option<Vec<u8>>, Error> {
        let store = get(accessor, &store)?;
        block_in_place(|| store.get(&key))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        let store = get(accessor, &store)?;
        block_in_place(|| store.set(&key, &value))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<(), Error> {
        let store = get(accessor, &store)?;
        block_in_place(|| store.delete(&key))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<bool, Error> {
        let store = get(accessor, &store)?;
        Ok(block_in_place(|| store.value(&key))?.is_some())
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let store = get(accessor, &store)?;
        let (keys_sender, keys) = mpsc::channel(KEYS_AHEAD_MAX);
        let (outcome_sender, outcome) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let result = store.send_keys(&keys_sender);
            // The stream ends before the outcome is sent, as the guest reads them.
            drop(keys_sender);
            // The guest may have dropped its future: then nobody wants to know.
            outcome_sender.send(result).ok();
        });
        guest_stream::from_channels(accessor, keys, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores() -> Stores {
        let file = Arc::new(StoreFile::new(DatabaseFile::new(None)));
        Stores::new(HashMap::from([("default".to_owned(), file)]))
    }

    #[test]
    fn set_get_delete() -> Result<(), Error> {
        let store = stores().store("default".to_owned())?;
        assert_eq!(store.get("k")?, None);
        store.set("k", b"1")?;
        store.set("k", b"2")?;
        assert_eq!(store.get("k")?.as_deref(), Some(&b"2"[..]));
        store.delete("k")?;
        store.delete("k")?;
        assert_eq!(store.get("k")?, None);
        Ok(())
    }

    #[test]
    fn only_granted_stores_open() {
        let opened = stores().store("other".to_owned());
        assert!(matches!(opened.err(), Some(Error::AccessDenied)));
    }

    #[test]
    fn keys_of_one_store() -> Result<(), Error> {
        let store = stores().store("default".to_owned())?;
        let other = Store { label: "other".to_owned(), ..store.clone() };
        store.set("a", b"")?;
        store.set("b", b"")?;
        other.set("c", b"")?;
        let (sender, mut keys) = mpsc::channel(KEYS_AHEAD_MAX);
        store.send_keys(&sender)?;
        drop(sender);
        let keys: Vec<_> = std::iter::from_fn(|| keys.blocking_recv()).collect();
        assert_eq!(keys, ["a", "b"]);
        Ok(())
    }
}
