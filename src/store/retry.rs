//! A store that is asked again while another writer holds it, and when its answer was
//! lost.

use std::rc::Rc;
use std::time::Duration;

use super::engine::Store;
use super::model::StoreError;
use crate::platform::Clock;

/// First pause before a busy store is asked again, in milliseconds; doubled
/// each time.
const BACKOFF_MS_MIN: u64 = 1;

/// Longest pause, in milliseconds.
const BACKOFF_MS_MAX: u64 = 8;

/// A store that is asked until it is no longer busy, for a while.
#[derive(Clone)]
pub(crate) struct RetryingStore {
    store: Rc<dyn Store>,
    clock: Rc<dyn Clock>,
    wait_max: Duration,
}

impl RetryingStore {
    /// Asks `store` for `wait_max` at most.
    pub(crate) fn new(store: Rc<dyn Store>, clock: Rc<dyn Clock>, wait_max: Duration) -> Self {
        RetryingStore { store, clock, wait_max }
    }

    /// The same store, asked for `wait_max` at most.
    pub(crate) fn within(&self, wait_max: Duration) -> Self {
        RetryingStore { wait_max, ..self.clone() }
    }

    /// Runs `attempt` once: whoever asks can do without an answer.
    ///
    /// # Errors
    ///
    /// Those of the attempt.
    pub(crate) async fn once<T>(
        &self,
        attempt: impl AsyncFn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        attempt(&*self.store).await
    }

    /// Runs `attempt`, which may be done twice, until it ends in something else than
    /// [`Fault::Busy`](super::Fault::Busy) or
    /// [`Fault::Indeterminate`](super::Fault::Indeterminate), or the time is over.
    ///
    /// # Errors
    ///
    /// Those of the last attempt.
    pub(crate) async fn ask<T>(
        &self,
        attempt: impl AsyncFn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = self.clock.monotonic() + self.wait_max;
        let mut backoff = BACKOFF_MS_MIN;
        loop {
            match attempt(&*self.store).await {
                Err(error)
                    if (error.is_busy() || error.is_indeterminate())
                        && self.clock.monotonic() < deadline =>
                {
                    self.clock.sleep(Duration::from_millis(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MS_MAX);
                }
                result => return result,
            }
        }
    }
}
