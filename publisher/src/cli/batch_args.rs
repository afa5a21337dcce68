//! How much goes into one request.

use clap::Args;

use crate::ship::batch::{BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, Limits};
use crate::workload::BATCH_EVENTS_MAX;

/// How much goes into one request.
#[derive(Debug, Args)]
pub(super) struct BatchArgs {
    /// Most events in a request
    #[arg(
        long, value_name = "EVENTS", default_value_t = BATCH_EVENTS_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_EVENTS_MAX)
    )]
    batch: u64,
    /// Most bytes in a request, unless one event has more
    #[arg(
        long, value_name = "BYTES", default_value_t = BATCH_BYTES_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    batch_bytes: u64,
}

impl BatchArgs {
    /// The limits of a request.
    ///
    /// # Errors
    ///
    /// If this machine cannot count so far.
    pub(super) fn limits(&self) -> anyhow::Result<Limits> {
        Ok(Limits {
            batch_events_max: usize::try_from(self.batch)?,
            batch_bytes_max: usize::try_from(self.batch_bytes)?,
        })
    }
}
