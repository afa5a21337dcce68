//! The end of the event log, watched by all readers of an instance together.
//!
//! Instances know nothing of each other and share nothing but the store, so
//! whoever waits for the next event has to look. A look is one look-up at the
//! end of a table, however long the table is, and serves all readers of the
//! instance.

use std::cell::Cell;
use std::time::Duration;

use crate::commit;
use crate::config::Config;
use crate::event_log;
use crate::ports::{Ports, StoreError};

/// How long a reader waits before it looks again, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// How old a look of another reader may be to serve this one, in milliseconds.
/// With the wait it bounds how late an event is seen.
const LOOK_AGE_MS_MAX: u64 = 50;

/// What an instance last saw of the end.
#[derive(Debug, Default)]
pub struct Tail {
    looked: Cell<Option<(Duration, i64)>>,
}

/// The `seq` of the newest event, as of at most [`LOOK_AGE_MS_MAX`] ago.
///
/// # Errors
///
/// What the store says.
pub async fn head(ports: &impl Ports, config: &Config) -> Result<i64, StoreError> {
    let tail = &ports.instance().tail;
    let now = ports.monotonic();
    if let Some((at, head)) = tail.looked.get()
        && now.saturating_sub(at) <= Duration::from_millis(LOOK_AGE_MS_MAX)
    {
        return Ok(head);
    }
    let head = newest(ports, config).await?;
    tail.looked.set(Some((now, head)));
    Ok(head)
}

/// The `seq` of the newest event, now.
///
/// # Errors
///
/// What the store says.
pub async fn newest(ports: &impl Ports, config: &Config) -> Result<i64, StoreError> {
    commit::patiently(ports, config.commit_wait_max, async || event_log::head(ports).await).await
}

/// Lets a reader wait until it is time to look again.
pub async fn pause(ports: &impl Ports) {
    ports.sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
}
