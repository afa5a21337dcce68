//! `publisher load`, `resume` and `verify`: delivers a
//! [`workload`](crate::workload), measures it, and audits it.
//!
//! In a closed loop so many workers take request after request from one
//! schedule; in an open loop a thread, the pacer, keeps the time and each request
//! is sent when it is due. Either way the deliveries are the seed's while
//! their order in time is the network's: a repeated delivery may be under way
//! together with the first.
//!
//! Unless told to keep going, the run ends early at the first request that
//! cannot be answered, and at SIGINT; what was sent by then is settled and
//! checked all the same.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::auditor::{Auditor, Baseline};
use crate::client::Client;
use crate::ledger::Recorded;
use crate::metrics::Metrics;
use crate::report::LoadReport;
use crate::report::load::{Arrivals, Pacing};
use crate::signal::Stop;
use crate::workload::{Plan, Requests};

mod closed_loop;
mod open_loop;
mod options;
mod run;
mod state;
mod workers;

pub(crate) use options::Kills;
pub use options::Options;
pub(crate) use run::Run;
use state::State;
pub use workers::repeat;

/// Delivers the plan, settles and audits it.
///
/// # Errors
///
/// If `/stats` or the events cannot be read, without which there is nothing to
/// audit, or if the ledger cannot be written. Deliveries that fail are part of
/// the report.
pub async fn run(client: Arc<Client>, options: Options, stop: Stop) -> Result<LoadReport> {
    let run = Run::start(client, options, stop).await?;
    deliver(&run).await?;
    run.finish(Kills::default()).await
}

/// Sends what there is to send, until all is sent, time is up, or the run is to
/// end, and waits for what is under way.
///
/// # Errors
///
/// If the ledger cannot be written.
pub(crate) async fn deliver(run: &Arc<Run>) -> Result<()> {
    let mut progress = run.show_progress();
    let sent = send(run).await;
    // Waited for, since it shares the run.
    progress.shutdown().await;
    sent
}

async fn send(run: &Arc<Run>) -> Result<()> {
    match run.options().arrivals {
        Arrivals::Closed => closed_loop::deliver(run).await?,
        Arrivals::Constant => open_loop::deliver(run, None).await?,
        Arrivals::Poisson => open_loop::deliver(run, Some(run.options().plan.seed())).await?,
    }
    run.end_sending()
}

/// What is left of a plan, and the audit of what was delivered of it: one load
/// goes on where another ended.
#[derive(Debug)]
pub struct Deliveries {
    /// Requests that were not sent.
    pub requests: Requests,
    /// Follows those that were.
    pub auditor: Auditor,
}

impl Deliveries {
    /// All of a plan, with the service's counters as they are.
    #[must_use]
    pub fn of(plan: &Plan, baseline: Baseline) -> Self {
        Self { requests: plan.requests(), auditor: Auditor::new(plan.clone(), baseline) }
    }
}

/// A load that is over, and not audited.
#[derive(Debug)]
pub struct Measured {
    /// Latencies and rates.
    pub metrics: Metrics,
    /// How well an open loop held its rate.
    pub pacing: Pacing,
    /// Why the load ended early, or the first request without an answer.
    pub failure: Option<String>,
    /// What is left of the deliveries.
    pub deliveries: Deliveries,
}

/// Sends as much of these deliveries as the options say, and measures it. Shows
/// no progress, keeps no ledger and audits nothing: that is for whoever has the
/// auditor, when all loads are over.
///
/// # Errors
///
/// If a request cannot be made. Deliveries that fail are part of the result.
pub async fn measure(
    client: Arc<Client>,
    options: Options,
    stop: Stop,
    deliveries: Deliveries,
) -> Result<Measured> {
    let Deliveries { requests, auditor } = deliveries;
    let mut state = State::new(auditor, None, &options)?;
    state.requests = Some(requests);
    let run = Run::with(client, options, stop, state);
    send(&run).await?;
    let State { requests, auditor, metrics, pace: pacing, failure, .. } = run.into_state()?;
    let requests = requests.context("the load lost its requests")?;
    Ok(Measured { metrics, pacing, failure, deliveries: Deliveries { requests, auditor } })
}

/// Goes on with a run that was broken off: resends what is not settled and
/// then the rest of the plan, if it has an end; settles and audits all of it.
///
/// # Errors
///
/// As [`run()`].
pub(crate) async fn resume(
    client: Arc<Client>,
    recorded: Recorded,
    options: Options,
    stop: Stop,
) -> Result<LoadReport> {
    let ledger = recorded.ledger()?;
    let mut requests = options.plan.requests();
    if let Some(last) = recorded.requests.checked_sub(1) {
        requests.nth(usize::try_from(last)?);
    }
    let resend = recorded.auditor.unsettled();
    let mut state = State::new(recorded.auditor, Some(ledger), &options)?;
    state.resend = resend.into();
    // A run by time had its time.
    state.requests = options.plan.deliveries().map(|_| requests);
    let run = Run::with(client, options, stop, state);
    deliver(&run).await?;
    run.finish(Kills::default()).await
}

/// Audits a run from its ledger alone; sends nothing.
///
/// # Errors
///
/// If `/stats` or the events cannot be read.
pub(crate) async fn verify(
    client: Arc<Client>,
    recorded: Recorded,
    options: Options,
    stop: Stop,
) -> Result<LoadReport> {
    let state = State::new(recorded.auditor, None, &options)?;
    let run = Run::with(client, options, stop, state);
    run.finish(Kills::default()).await
}
