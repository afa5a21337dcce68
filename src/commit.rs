//! The way to the disk: one statement per request, tried again while another
//! writer holds the store, up to a deadline.

use std::time::Duration;

use crate::config::Config;
use crate::event::Event;
use crate::event_log::{self, Outcome};
use crate::ports::{Fault, Ports, StoreError};

/// First pause before a busy store is asked again; doubled each time.
const PAUSE_MS_MIN: u64 = 1;

/// Longest pause.
const PAUSE_MS_MAX: u64 = 16;

/// Stores a batch and counts `rejected` deliveries with it, in one commit.
/// It is on disk when this returns. Outcomes are in the order of `events`.
///
/// # Errors
///
/// The store's last word when the deadline (`commit_wait_ms_max`) has passed,
/// or at once when waiting does not help. Nothing is stored then.
pub async fn commit(
    ports: &impl Ports,
    config: &Config,
    events: &[&Event],
    rejected: usize,
) -> Result<Vec<Outcome>, StoreError> {
    patiently(ports, config.commit_wait_max, async || {
        let now = ports.now();
        event_log::ensure_ready(ports, now).await?;
        event_log::append(ports, now, events, rejected).await
    })
    .await
}

/// Runs `attempt` until it ends in something else than [`Fault::Busy`], for
/// `wait_max` at most.
///
/// # Errors
///
/// Those of the last attempt.
pub async fn patiently<T>(
    ports: &impl Ports,
    wait_max: Duration,
    attempt: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = ports.monotonic() + wait_max;
    let mut pause = PAUSE_MS_MIN;
    loop {
        match attempt().await {
            Err(error) if error.fault == Fault::Busy && ports.monotonic() < deadline => {
                ports.sleep(Duration::from_millis(pause)).await;
                pause = (pause * 2).min(PAUSE_MS_MAX);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Desk, config, now};

    #[test]
    fn waits_while_the_store_is_busy_and_no_longer_than_allowed() {
        let desk = Desk::new();
        desk.faults.replace(vec![Fault::Busy; 5]);
        assert_eq!(now(commit(&desk, &config(), &[], 1)).unwrap(), []);
        assert_eq!(desk.slept.get(), Duration::from_millis(1 + 2 + 4 + 8 + 16));

        desk.faults.replace(vec![Fault::Busy; 10_000]);
        let waited_before = desk.slept.get();
        let error = now(commit(&desk, &config(), &[], 1)).unwrap_err();
        assert_eq!(error.fault, Fault::Busy);
        let waited = desk.slept.get() - waited_before;
        assert!(waited >= config().commit_wait_max, "{waited:?}");
        assert!(waited < config().commit_wait_max + Duration::from_millis(PAUSE_MS_MAX));
    }

    #[test]
    fn does_not_wait_for_what_does_not_pass() {
        for fault in [Fault::Full, Fault::Unavailable] {
            let desk = Desk::new();
            desk.faults.replace(vec![fault]);
            assert_eq!(now(commit(&desk, &config(), &[], 1)).unwrap_err().fault, fault);
            assert_eq!(desk.slept.get(), Duration::ZERO);
        }
    }
}
