//! Stores in Redis.
//!
//! As in Spin: each label has one connection, which is made with the first store
//! that is opened and is shared by all instances, and an operation holds up nobody
//! but its caller. A key is the key that the guest says: labels of one database are
//! one store, and whatever else is in that database is in it too.
//!
//! There is no limit to the time that Redis may take, and one that refuses the
//! connection or the password is asked again, up to six times with pauses of up to
//! two minutes, before anybody is told. A connection that was lost is made again by
//! the first operation that finds it so, which fails.

use std::fmt;

use redis::aio::ConnectionManager;
use redis::{AsyncCommands, Client, RedisResult};
use tokio::sync::{OnceCell, mpsc};
use url::Url;

use super::limits::{self, other};
use crate::bindings::key_value::Error;
use crate::console;
use crate::resources::RedisStore;

/// A Redis server, and the one connection to it that all components share.
pub(crate) struct RedisServer {
    url: Url,
    connection: OnceCell<ConnectionManager>,
}

impl fmt::Debug for RedisServer {
    /// Addresses have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").finish_non_exhaustive()
    }
}

impl RedisServer {
    /// The one at `url`, which is connected to with the first store.
    pub(crate) fn new(url: Url) -> Self {
        Self { url, connection: OnceCell::new() }
    }

    /// Opens a store. When this is given up, the next one begins anew.
    pub(super) async fn open(&self) -> Result<RedisStore, Error> {
        let connection = self.connection.get_or_try_init(|| self.connect()).await;
        let mut connection = connection.map_err(other)?.clone();
        // One that finds the connection lost has it made again; the operations to
        // come say whether it is.
        connection.ping::<()>().await.ok();
        Ok(RedisStore(connection))
    }

    async fn connect(&self) -> RedisResult<ConnectionManager> {
        let client = Client::open(self.url.clone())?;
        // The manager tries again for minutes before it says what is wrong. Unlike in
        // Spin, the operator is told at once.
        if let Err(error) = client.get_multiplexed_async_connection().await {
            let address = &client.get_connection_info().addr;
            console::message(format_args!("cannot connect to Redis at {address}: {error}"));
        }
        client.get_connection_manager().await
    }
}

impl RedisStore {
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        limits::value(self.0.clone().get(key).await.map_err(other)?)
    }

    pub(super) async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.0.clone().set(key, value).await.map_err(other)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.clone().del(key).await.map_err(other)
    }

    pub(super) async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.clone().exists(key).await.map_err(other)
    }

    /// Sends each key as it is read. One may come twice, and a listing that is broken
    /// off after its first part ends as if it were whole, as in Spin.
    pub(super) async fn send_keys(&self, keys: &mpsc::Sender<String>) -> Result<(), Error> {
        let mut connection = self.0.clone();
        let mut scan = connection.scan::<String>().await.map_err(other)?;
        while let Some(key) = scan.next_item().await {
            keys.send(limits::key(key)?).await.map_err(other)?;
        }
        Ok(())
    }
}
