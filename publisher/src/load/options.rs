//! How a load is delivered.

use std::path::PathBuf;
use std::time::Duration;

use crate::report::load::{Arrivals, Kill};
use crate::workload::Plan;

/// How to deliver.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to deliver.
    pub plan: Plan,
    /// When to send.
    pub arrivals: Arrivals,
    /// Events a second, in an open loop.
    pub rate: f64,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// How long to send; `None`: until all is sent.
    pub duration: Option<Duration>,
    /// How long it takes until figures count.
    pub warm_up: Duration,
    /// Whether to send lines, one for each event, instead of arrays.
    pub lines: bool,
    /// Whether to compress bodies.
    pub gzip: bool,
    /// Whether to go on after a request that cannot be answered.
    pub keep_going: bool,
    /// Where to keep a ledger.
    pub ledger: Option<PathBuf>,
    /// Whether to read all events back in the end.
    pub read_back: bool,
}

impl Options {
    /// One after the other as fast as they are answered, without any extras.
    #[must_use]
    pub fn closed(plan: Plan, concurrency: usize) -> Self {
        Self {
            plan,
            arrivals: Arrivals::Closed,
            rate: 0.0,
            concurrency,
            duration: None,
            warm_up: Duration::ZERO,
            lines: false,
            gzip: false,
            keep_going: false,
            ledger: None,
            read_back: false,
        }
    }
}

/// Ends of the service by our hand.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// Those that were.
    pub done: Vec<Kill>,
    /// Those that were to be as well.
    pub left: u32,
}
