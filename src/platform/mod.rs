//! The seam between Sekali and the platform that runs it: small traits, none of
//! which knows what it is used for.
//!
//! `spin.rs` implements them over `spin_sdk`; native tests implement them over
//! `rusqlite` and a clock that is turned by hand. Traits are used as objects, so
//! nothing above is generic over them; their futures are not `Send`, since a
//! component has one thread.

use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, LocalBoxFuture, select};

use crate::time::UnixMillis;

pub mod chaining;
#[cfg(test)]
pub(crate) mod fake;
pub mod postgres;
pub(crate) mod scheduling;
#[cfg(target_family = "wasm")]
pub(crate) mod spin;
pub mod sqlite;

/// Time.
#[async_trait(?Send)]
pub trait Clock {
    /// The wall clock, which may be set back.
    fn now(&self) -> UnixMillis;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Lets other requests of this instance run for `duration`. The platform
    /// rounds what is under a millisecond up to 1–2 ms.
    async fn sleep(&self, duration: Duration);
}

/// Wakes a request that waits for it. Dropped without a call, it wakes as well.
pub type Wake = Box<dyn FnOnce()>;

/// How the requests of one instance take turns, and how an instance leaves.
#[async_trait(?Send)]
pub trait Scheduler {
    /// Yields to the host, and to other requests of this instance that are ready.
    async fn yield_now(&self);
    /// Runs `task` beside the request, and keeps the instance until it ends.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);

    /// A pair by which one request wakes another: the waker, and the wait for it.
    fn wakeup(&self) -> (Wake, LocalBoxFuture<'static, ()>);

    /// Takes no more requests: the instance ends when those that it has are
    /// answered. The platform gives the next ones to others, or starts one.
    async fn retire(&self);
}

/// What the key-value store said, in its own words.
#[derive(Clone, Debug)]
pub struct KeyValueError(pub String);

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-value store: {}", self.0)
    }
}

/// The key-value store: service state off the commit path.
///
/// There is no way to list the keys: Spin holds the lock of the store while it
/// streams them to us, and a `get` of another request of the same instance
/// waits for that lock without letting us read on, for ever.
#[async_trait(?Send)]
pub trait KeyValue {
    /// Whether its calls would hold up no request of this instance that must not wait
    /// for them. They wait for that themselves; this tells that time from theirs.
    fn is_free(&self) -> bool;
    /// The value under `key`, if there is one.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// Puts `value` under `key`.
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError>;
}

/// The variables of the application.
#[async_trait(?Send)]
pub trait Variables {
    /// The value of the variable `name`; a phrase that says why there is none.
    async fn variable(&self, name: &str) -> Result<String, String>;
    /// The environment variable `name` of the component, if it has one.
    fn environment(&self, name: &str) -> Option<String>;
}

/// All that Sekali asks of its platform.
pub trait Platform:
    Clock + Scheduler + KeyValue + Variables + sqlite::Sqlite + postgres::Postgres + chaining::Chaining
{
}

impl<T> Platform for T where
    T: Clock
        + Scheduler
        + KeyValue
        + Variables
        + sqlite::Sqlite
        + postgres::Postgres
        + chaining::Chaining
{
}

/// A platform as it is handed around: shared by the requests of an instance.
pub type SharedPlatform = Rc<dyn Platform>;

/// Pause before it is looked again whether requests are under way.
const FREE_POLL: Duration = Duration::from_millis(1);

/// Waits until the key-value store [is free](KeyValue::is_free).
pub async fn until_free(clock: &(impl Clock + ?Sized), key_value: &(impl KeyValue + ?Sized)) {
    while !key_value.is_free() {
        clock.sleep(FREE_POLL).await;
    }
}

/// How long a call of the key-value store may take, in milliseconds. A platform whose
/// store is in Redis waits for ever for one that has stopped.
pub const KEY_VALUE_CALL_MS_MAX: u64 = 2_000;

/// What a call of the key-value store says, if it comes back in time. One that holds up
/// the instance comes back before its time is looked at.
///
/// # Errors
///
/// What the call says, and that it was given up after [`KEY_VALUE_CALL_MS_MAX`].
pub async fn in_time<T>(
    clock: &(impl Clock + ?Sized),
    call: impl Future<Output = Result<T, KeyValueError>>,
) -> Result<T, KeyValueError> {
    let given_up = clock.sleep(Duration::from_millis(KEY_VALUE_CALL_MS_MAX));
    match select(pin!(call), given_up).await {
        Either::Left((said, _)) => said,
        Either::Right(_) => {
            Err(KeyValueError(format!("no answer within {KEY_VALUE_CALL_MS_MAX} ms")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{FakePlatform, now};
    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_given_up() {
        let platform = FakePlatform::new();
        let never = now(in_time(&*platform, std::future::pending::<Result<(), _>>()));
        let error = never.expect_err("given up").to_string();
        assert_eq!(error, "key-value store: no answer within 2000 ms");
        let said = now(in_time(&*platform, async { Ok(platform.now()) }));
        assert_eq!(said.expect("it comes back"), platform.now());
    }
}
