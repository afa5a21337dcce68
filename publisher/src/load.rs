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

use anyhow::Result;

use crate::client::Client;
use crate::ledger::Recorded;
use crate::report::LoadReport;
use crate::report::load::Arrivals;
use crate::signal::Stop;

mod closed_loop;
mod open_loop;
mod options;
mod run;
mod state;

pub(crate) use options::Kills;
pub use options::Options;
pub(crate) use run::Run;
use state::State;

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
    match run.options().arrivals {
        Arrivals::Closed => closed_loop::deliver(run).await?,
        Arrivals::Constant => open_loop::deliver(run, None).await?,
        Arrivals::Poisson => open_loop::deliver(run, Some(run.options().plan.seed())).await?,
    }
    // Waited for, since it shares the run.
    progress.shutdown().await;
    run.end_sending()
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
