//! The seam between Sekali and the platform that runs it.
//!
//! `spin.rs` implements these traits over `spin_sdk`; native tests implement
//! them over `rusqlite`. The seam lies below SQL, so both run the same
//! statements. Futures are not `Send`: a component has one thread.
#![allow(async_fn_in_trait, reason = "a component has one thread, its futures need not be Send")]

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::commit::Group;
use crate::routes::stats_stream::LastSummary;
use crate::store::tail::Tail;
use crate::time::UnixMillis;

#[cfg(test)]
pub mod fake;
#[cfg(target_family = "wasm")]
pub mod spin;

/// A value on its way into or out of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed 64-bit integer.
    Integer(i64),
    /// UTF-8 text.
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

/// One row, in the order of the statement's columns.
pub type Row = Vec<Value>;

/// Why a store did not do what it was asked.
///
/// Every kind may be retried: whatever the store says, an event is better
/// delivered twice than dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another writer holds the store. It will pass by itself.
    Busy,
    /// There is no room left.
    Full,
    /// The store does not answer, is read-only, is damaged, or is not ours.
    Unavailable,
}

/// A [`Fault`] with the store's own words, which go to the log and never to a client.
#[derive(Clone, Debug)]
pub struct StoreError {
    /// What kind of fault it is.
    pub fault: Fault,
    /// The store's words.
    pub message: String,
}

impl StoreError {
    /// A store that does not do its part, for the reason in `message`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        StoreError { fault: Fault::Unavailable, message: message.into() }
    }

    /// Sorts SQLite's words into a [`Fault`].
    ///
    /// Spin hands SQLite's errors on as text alone (`error.io(string)`), so
    /// the text is all there is to tell them apart by. The texts are those of
    /// `sqlite3ErrStr` in SQLite's `main.c`, which are stable.
    pub fn from_sqlite(message: String) -> Self {
        let fault = if message.contains("is locked") {
            Fault::Busy
        } else if message.contains("is full") {
            Fault::Full
        } else {
            Fault::Unavailable
        };
        StoreError { fault, message }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The SQL store.
pub trait Database {
    /// Runs one statement, a transaction of its own, to its end and returns
    /// all its rows. Never suspends: while it runs, nothing else of the
    /// instance does.
    async fn execute(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError>;

    /// Runs one statement, a transaction of its own, while other requests of
    /// the instance go on. It is on disk when this returns. For statements
    /// with a row or two: they come one by one, and slowly.
    async fn commit(&self, statement: &str, parameters: Vec<Value>)
    -> Result<Vec<Row>, StoreError>;

    /// Whether [`Database::set_ready`] was called for the connection in use.
    fn is_ready(&self) -> bool;

    /// Notes that the connection in use has its settings and a current schema.
    fn set_ready(&self);
}

/// The key-value store: service state off the commit path.
///
/// There is no way to list the keys: Spin holds the lock of the store while it
/// streams them to us, and a `get` of another request of the same instance
/// waits for that lock without letting us read on, for ever.
pub trait KeyValue {
    /// The value under `key`, if there is one.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Puts `value` under `key`.
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;
}

/// Time.
pub trait Clock {
    /// The wall clock, which may be set back.
    fn now(&self) -> UnixMillis;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Lets other requests of this instance run for `duration`. The platform
    /// rounds what is under a millisecond up to 1–2 ms.
    async fn sleep(&self, duration: Duration);
    /// Lets other requests of this instance run that are ready to.
    async fn yield_now(&self);
}

/// Wakes a request that waits for it. Dropped without a call, it wakes as well.
pub type Signal = Box<dyn FnOnce()>;

/// How one request of an instance wakes another.
pub trait Signals {
    /// A signal, and the wait for it.
    fn signal(&self) -> (Signal, impl Future<Output = ()>);
}

/// What one instance of the component remembers from one request to the next.
///
/// Spin runs many instances side by side and drops each after a while, so
/// nothing here may matter for correctness.
#[derive(Debug, Default)]
pub struct Instance {
    /// The last minute (since 1970) for which this instance looked after the
    /// snapshot in the key-value store.
    pub minute_seen: Cell<i64>,
    /// The batches that wait to be committed.
    pub group: Group,
    /// The end of the event log, as it was last seen.
    pub tail: Tail,
    /// The counters, as they were last seen by their watchers.
    pub summary: LastSummary,
}

/// Everything a feature asks of its platform.
pub trait Ports: Database + KeyValue + Clock + Signals {
    /// Takes no more requests: the instance ends when those that it has are
    /// answered. The platform gives the next ones to others, or starts one.
    async fn retire(&self);

    /// What this instance remembers.
    fn instance(&self) -> &Instance;
}
