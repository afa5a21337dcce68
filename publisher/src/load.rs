//! `publisher load`: delivers a [`workload`](crate::workload) and audits it.
//!
//! So many workers take batch after batch from one schedule, so the deliveries
//! are the seed's while their order in time is the network's: a repeated
//! delivery may be under way together with the first.
//!
//! The run ends early at the first request that cannot be answered, and at
//! SIGINT; what was sent by then is settled and checked all the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::client::{Client, Delivery};
use crate::ledger::Ledger;
use crate::progress::{self, Unit};
use crate::report::{Latency, LoadReport};
use crate::signal::Stop;
use crate::workload::{Plan, Planned, Schedule};

/// The longest latency told apart, in microseconds: one hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of latencies.
const LATENCY_DIGITS: u8 = 3;

/// How to deliver.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to deliver.
    pub plan: Plan,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Events in a request.
    pub batch_events: usize,
}

/// What the workers share.
struct Run {
    client: Arc<Client>,
    plan: Plan,
    batch_events: usize,
    stop: Stop,
    progress: ProgressBar,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    ledger: Ledger,
    latencies: Histogram<u64>,
    requests: u64,
    failure: Option<String>,
}

/// Delivers the plan and settles it.
///
/// # Errors
///
/// If `/stats` cannot be read, without which there is nothing to audit.
/// Deliveries that fail are part of the report.
pub async fn run(client: Arc<Client>, options: Options, stop: Stop) -> anyhow::Result<LoadReport> {
    let plan = options.plan;
    let before = client.stats().await.context("cannot read /stats before the load")?;
    let task = format!(
        "sending {} events, {} of them repeats, seed {}",
        plan.deliveries_len(),
        plan.repeated_len(),
        plan.seed()
    );
    let state = State {
        schedule: plan.schedule(),
        ledger: Ledger::new(plan, before),
        latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)?,
        requests: 0,
        failure: None,
    };
    let run = Arc::new(Run {
        client: Arc::clone(&client),
        plan,
        batch_events: options.batch_events,
        stop: stop.clone(),
        progress: progress::start(&task, plan.deliveries_len(), Unit::Events),
        state: Mutex::new(state),
    });

    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..options.concurrency {
        workers.spawn(work(Arc::clone(&run)));
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker of the load died")??;
    }
    let elapsed = began.elapsed();
    run.progress.finish_and_clear();

    let run = Arc::into_inner(run).context("a worker of the load is still at work")?;
    let state = run.state.into_inner();
    let after = client.stats().await.context("cannot read /stats after the load")?;
    let tally = state.ledger.tally();
    let unsent = plan.deliveries_len() - tally.sent;
    Ok(LoadReport {
        url: client.url().to_owned(),
        seed: plan.seed(),
        run: plan.run_id(),
        planned: plan.deliveries_len(),
        distinct: plan.distinct_len(),
        repeated: plan.repeated_len(),
        tally,
        requests: state.requests,
        seconds: elapsed.as_secs_f64(),
        events_per_second: per_second(tally.received, elapsed),
        latency_ms: Latency::of(&state.latencies),
        check: state.ledger.check(&after),
        unsent,
        interrupted: stop.is_set() && unsent > 0,
        failure: state.failure,
    })
}

/// Things done in a second, and 0 where no time was measured.
#[must_use]
pub fn per_second(done: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
}

/// One worker: batches until there are none, or the run is to stop.
async fn work(run: Arc<Run>) -> anyhow::Result<()> {
    loop {
        let batch: Vec<Planned> = {
            let mut state = run.state.lock().await;
            if run.stop.is_set() || state.failure.is_some() {
                return Ok(());
            }
            let batch: Vec<_> = state.schedule.by_ref().take(run.batch_events).collect();
            state.ledger.sending(&batch);
            batch
        };
        if batch.is_empty() {
            return Ok(());
        }
        let delivery = run.client.publish(body(&run.plan, &batch)?).await;
        run.progress.inc(batch.len() as u64);
        run.state.lock().await.settle(&batch, &delivery)?;
    }
}

impl State {
    fn settle(&mut self, batch: &[Planned], delivery: &Delivery) -> anyhow::Result<()> {
        let Delivery { outcome, retries, ambiguous, elapsed } = delivery;
        self.requests += 1;
        match outcome {
            Ok(reply) => {
                let micros = elapsed.as_micros().try_into().unwrap_or(u64::MAX);
                self.latencies.record(micros.clamp(1, LATENCY_US_MAX))?;
                self.ledger.answered(batch, reply, *retries, *ambiguous);
            }
            Err(failure) => {
                self.ledger.failed(batch, *retries, *ambiguous);
                self.failure.get_or_insert_with(|| failure.to_string());
            }
        }
        Ok(())
    }
}

/// One event as itself, several as an array.
fn body(plan: &Plan, batch: &[Planned]) -> anyhow::Result<Bytes> {
    if let [one] = batch {
        return Ok(plan.event(one.event)?.into());
    }
    let mut body = vec![b'['];
    for (place, planned) in batch.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend(plan.event(planned.event)?);
    }
    body.push(b']');
    Ok(body.into())
}
