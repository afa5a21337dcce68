//! `spin:key-value@3.0.0` as Spin has it: over SQLite files, and over Redis.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use wasmtime::component::{Accessor, FutureReader, HasData, Resource, ResourceTable, StreamReader};

use crate::bindings::key_value::{Error, Host, HostStore, HostStoreWithStore};
use crate::guest_stream;
use crate::resources::{OpenStore, Store};

mod file;
mod limits;
mod redis;

pub(crate) use file::StoreFile;
use limits::KEYS_AHEAD_MAX;
pub(crate) use redis::RedisServer;

/// Where the store of a label is.
#[derive(Clone, Debug)]
pub(crate) enum StorePlace {
    /// In a file, beside others.
    File(Arc<StoreFile>),
    /// In Redis, one with all that is there.
    Redis(Arc<RedisServer>),
}

/// What a component may open, by the labels of its manifest.
#[derive(Debug)]
pub(crate) struct Stores(HashMap<String, StorePlace>);

impl Stores {
    /// These.
    pub(crate) fn new(by_label: HashMap<String, StorePlace>) -> Self {
        Self(by_label)
    }

    async fn open(&self, label: String) -> Result<Store, Error> {
        let open = match self.0.get(&label) {
            None => return Err(Error::AccessDenied),
            Some(StorePlace::File(file)) => OpenStore::File(block_in_place(|| file.open(label))?),
            Some(StorePlace::Redis(server)) => OpenStore::Redis(server.open().await?),
        };
        Ok(Store(open))
    }
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
fn get<T>(
    accessor: &Accessor<T, HasKeyValue>,
    store: &Resource<Store>,
) -> Result<OpenStore, Error> {
    let store =
        accessor.with(|mut access| access.get().open.get(store).map(|store| store.0.clone()));
    store.map_err(|_| Error::NoSuchStore)
}

impl<T: Send> HostStoreWithStore<T> for HasKeyValue {
    async fn open(accessor: &Accessor<T, Self>, label: String) -> Result<Resource<Store>, Error> {
        let stores = accessor.with(|mut access| access.get().stores.clone());
        let store = stores.open(label).await?;
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
        match get(accessor, &store)? {
            OpenStore::File(store) => block_in_place(|| store.get(&key)),
            OpenStore::Redis(store) => store.get(&key).await,
        }
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        match get(accessor, &store)? {
            OpenStore::File(store) => block_in_place(|| store.set(&key, &value)),
            OpenStore::Redis(store) => store.set(&key, &value).await,
        }
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<(), Error> {
        match get(accessor, &store)? {
            OpenStore::File(store) => block_in_place(|| store.delete(&key)),
            OpenStore::Redis(store) => store.delete(&key).await,
        }
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<bool, Error> {
        match get(accessor, &store)? {
            OpenStore::File(store) => block_in_place(|| store.exists(&key)),
            OpenStore::Redis(store) => store.exists(&key).await,
        }
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let store = get(accessor, &store)?;
        let (keys_sender, keys) = mpsc::channel(KEYS_AHEAD_MAX);
        let (outcome_sender, outcome) = oneshot::channel();
        // The stream ends before the outcome is sent, as the guest reads them; who has
        // dropped the future does not want to know.
        match store {
            OpenStore::File(store) => drop(tokio::task::spawn_blocking(move || {
                let result = store.send_keys(&keys_sender);
                drop(keys_sender);
                outcome_sender.send(result).ok();
            })),
            OpenStore::Redis(store) => drop(tokio::spawn(async move {
                let result = store.send_keys(&keys_sender).await;
                drop(keys_sender);
                outcome_sender.send(result).ok();
            })),
        }
        guest_stream::from_channels(accessor, keys, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database_file::DatabaseFile;

    #[tokio::test(flavor = "multi_thread")]
    async fn only_granted_stores_open() {
        let file = Arc::new(StoreFile::new(DatabaseFile::new(None)));
        let stores = Stores::new(HashMap::from([("default".to_owned(), StorePlace::File(file))]));
        assert!(stores.open("default".to_owned()).await.is_ok());
        let opened = stores.open("other".to_owned()).await;
        assert!(matches!(opened.err(), Some(Error::AccessDenied)));
    }
}
