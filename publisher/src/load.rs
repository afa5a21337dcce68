//! `publisher load`, `resume` and `verify`: delivers a
//! [`workload`](crate::workload), measures it, and audits it.
//!
//! In a closed loop so many workers take request after request from one
//! schedule; in an open loop a thread keeps the time and each request is sent
//! when its moment has come. Either way the deliveries are the seed's while
//! their order in time is the network's: a repeated delivery may be under way
//! together with the first.
//!
//! Unless told to keep going, the run ends early at the first request that
//! cannot be answered, and at SIGINT; what was sent by then is settled and
//! checked all the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::ledger::Recorded;
use crate::report::LoadReport;
use crate::report::load::{Arrivals, Kill};
use crate::signal::Stop;
use crate::workload::Plan;

mod open;
mod run;
mod state;

pub use run::Run;
use state::State;

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
            gzip: false,
            keep_going: false,
            ledger: None,
            read_back: false,
        }
    }
}

/// Ends of the service by our hand.
#[derive(Debug, Default)]
pub struct Kills {
    /// Those that were.
    pub done: Vec<Kill>,
    /// Those that were to be as well.
    pub left: u32,
}

/// Delivers the plan, settles and audits it.
///
/// # Errors
///
/// If `/stats` or the events cannot be read, without which there is nothing to
/// audit, or if the ledger cannot be written. Deliveries that fail are part of
/// the report.
pub async fn run(client: Arc<Client>, options: Options, stop: Stop) -> anyhow::Result<LoadReport> {
    let run = Run::start(client, options, stop).await?;
    run.deliver_all().await?;
    run.finish(Kills::default()).await
}

/// Goes on with a run that was broken off: sends again what is not settled and
/// then the rest of the plan, if it has an end; settles and audits all of it.
///
/// # Errors
///
/// As [`run`].
pub async fn resume(
    client: Arc<Client>,
    recorded: Recorded,
    options: Options,
    stop: Stop,
) -> anyhow::Result<LoadReport> {
    let ledger = recorded.ledger()?;
    let mut requests = options.plan.requests();
    if let Some(last) = recorded.requests.checked_sub(1) {
        requests.nth(usize::try_from(last)?);
    }
    let again = recorded.books.open();
    let mut state = State::new(recorded.books, Some(ledger), &options)?;
    state.again = again.into();
    // A run by time had its time.
    state.requests = options.plan.deliveries().map(|_| requests);
    let run = Run::with(client, options, stop, state);
    run.deliver_all().await?;
    run.finish(Kills::default()).await
}

/// Audits a run from its ledger alone; sends nothing.
///
/// # Errors
///
/// If `/stats` or the events cannot be read.
pub async fn verify(
    client: Arc<Client>,
    recorded: Recorded,
    options: Options,
    stop: Stop,
) -> anyhow::Result<LoadReport> {
    let state = State::new(recorded.books, None, &options)?;
    let run = Run::with(client, options, stop, state);
    run.finish(Kills::default()).await
}

/// Things done in a second, and 0 where no time was measured.
#[must_use]
pub fn per_second(done: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
}
