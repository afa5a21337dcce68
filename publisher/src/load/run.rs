//! A run: its start, its requests, its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::options::{Kills, Options};
use super::state::State;
use crate::audit;
use crate::auditor::{Auditor, Baseline, Check};
use crate::client::{Body, Client, Failure, Naming};
use crate::console;
use crate::ledger::{Entry, Ledger, RunFile};
use crate::metrics::per_second;
use crate::progress::{LoadProgress, Total};
use crate::report::LoadReport;
use crate::report::load::{Arrivals, SCHEMA_VERSION};
use crate::signal::Stop;
use crate::usage::CpuTime;
use crate::wire::Stats;
use crate::workload::{Kind, Planned, PlannedRequest};

/// So many events that were not accepted a short reply has room to name, and for more.
const SHORT_REPLY_EVENTS_MAX: usize = 10;
/// How often the events are read, at most, while more of them are stored.
const READINGS_MAX: u32 = 20;

/// A run under way: what its workers share.
#[derive(Debug)]
pub(crate) struct Run {
    client: Arc<Client>,
    options: Options,
    stop: Stop,
    stop_sending: AtomicBool,
    /// Whether what it delivers may be stored already: by a run before it, by this one,
    /// which was broken off, or since it delivers events more than once. Which of its
    /// events a request is the first to deliver is not known before: one that was planned
    /// later, and repeats them, may overtake it.
    repeats: bool,
    began: Instant,
    cpu: Option<CpuTime>,
    started_at: String,
    state: Mutex<State>,
}

impl Run {
    /// Reads the counters, begins a ledger if one is wanted, and starts the clock.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read or the ledger cannot be written.
    pub(crate) async fn start(
        client: Arc<Client>,
        mut options: Options,
        stop: Stop,
    ) -> anyhow::Result<Arc<Self>> {
        let plan = &options.plan;
        let before =
            client.stats_of_all_topics().await.context("cannot read /stats before the load")?;
        let baseline = Baseline::of(plan, &before);
        options.gzip = options.gzip && takes_gzip(&client).await?;
        let ledger = options.ledger.as_ref().map(|directory| {
            let run = RunFile::new(client.address(), plan, options.concurrency, baseline.clone());
            Ledger::create(directory, &run)
        });
        let auditor = Auditor::new(plan.clone(), baseline);
        let mut state = State::new(auditor, ledger.transpose()?, &options)?;
        state.requests = Some(plan.requests());
        Ok(Self::with(client, options, stop, state))
    }

    pub(super) fn with(
        client: Arc<Client>,
        options: Options,
        stop: Stop,
        state: State,
    ) -> Arc<Self> {
        let repeats =
            options.plan.spec().repeats() || !state.resend.is_empty() || !state.auditor.is_fresh();
        Arc::new(Self {
            client,
            options,
            stop,
            stop_sending: AtomicBool::new(false),
            repeats,
            began: state.metrics.began(),
            cpu: CpuTime::now(),
            started_at: jiff::Timestamp::now().to_string(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left is still right: each change is made in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to deliver.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Tells when the run is to end.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// When the clock was started.
    #[must_use]
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Deliveries acknowledged so far, and requests under way.
    #[must_use]
    pub(crate) fn progress(&self) -> (u64, u64) {
        let state = self.state();
        (state.auditor.tally().received, state.under_way)
    }

    /// Begins no more requests.
    pub(crate) fn stop_sending(&self) {
        self.stop_sending.store(true, Ordering::Relaxed);
    }

    /// Notes that all is sent.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written, now or before.
    pub(super) fn end_sending(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.sending = self.began.elapsed();
        if let Some(ledger) = &mut state.ledger {
            ledger.flush()?;
        }
        state.fatal.take().map_or(Ok(()), Err)
    }

    /// The next request, written ahead; `None` when there is none or the run is to end.
    pub(super) fn next_request(&self) -> Option<PlannedRequest> {
        let mut state = self.state();
        let over = self.options.duration.is_some_and(|duration| self.began.elapsed() >= duration)
            && self.options.arrivals == Arrivals::Closed;
        let failed = state.failure.is_some() && !self.options.keep_going;
        let ended = self.stop_sending.load(Ordering::Relaxed) || self.stop.is_set();
        if over || failed || ended || state.fatal.is_some() {
            return None;
        }
        let (request, entry) = match state.resend.pop_front() {
            Some(request) => {
                state.auditor.resumed(request.number);
                let entry = Entry::Resumed { request: request.number };
                (request, entry)
            }
            None => {
                let request = state.requests.as_mut()?.next()?;
                state.auditor.sent(request.clone());
                let deliveries = request.deliveries.len() as u32;
                let entry = Entry::Sent { request: request.number, deliveries };
                (request, entry)
            }
        };
        if !state.write_ahead(&entry) {
            return None;
        }
        state.under_way += 1;
        Some(request)
    }

    /// Sends a request until it is settled.
    pub(super) async fn deliver(&self, request: PlannedRequest, intended: Option<Instant>) {
        let sent = Instant::now();
        let body = match self.body(&request.deliveries) {
            Ok(body) => body,
            Err(error) => {
                self.state().fatal = Some(error);
                return;
            }
        };
        let bytes_sent = body.len_bytes();
        let number = request.number;
        let before_retry = || {
            let mut state = self.state();
            state.auditor.retried(number);
            state.write_ahead(&Entry::Retried { request: number });
        };
        let naming = self.naming(&request.deliveries);
        let delivery = self.client.publish_naming(naming, body, before_retry).await;
        let mut state = self.state();
        state.under_way -= 1;
        state.settle(&request, delivery, intended, sent, bytes_sent);
    }

    /// Which events the reply has to name: a short one leaves some out where many
    /// are not accepted, and what came of each is what is audited. To name them
    /// all costs the service time, which is not to be measured without need.
    fn naming(&self, deliveries: &[Planned]) -> Naming {
        let invalid = deliveries.iter().filter(|planned| planned.kind == Kind::Invalid).count();
        match deliveries.len() {
            0..=SHORT_REPLY_EVENTS_MAX => Naming::Some,
            _ if self.repeats || invalid > SHORT_REPLY_EVENTS_MAX => Naming::All,
            _ => Naming::AllAfterRetry,
        }
    }

    fn body(&self, deliveries: &[Planned]) -> anyhow::Result<Body> {
        let plan = &self.options.plan;
        let body = if self.options.lines || self.client.has_streams() {
            Body::lines(plan.lines(deliveries)?, deliveries.len())
        } else {
            Body::json(plan.body(deliveries)?)
        };
        Ok(if self.options.gzip { body.into_gzip()? } else { body })
    }

    /// Shows how the run goes, until what this returns is dropped.
    pub(super) fn show_progress(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(self).show());
        tasks
    }

    async fn show(self: Arc<Self>) {
        let total = match (self.options.duration, self.options.plan.deliveries()) {
            (Some(duration), _) => Total::Time(duration),
            (None, Some(deliveries)) => Total::Events(deliveries),
            (None, None) => Total::Unknown,
        };
        let what = format!("load of seed {} to {}", self.options.plan.seed(), self.client.url());
        let mut live = LoadProgress::start(&what, total);
        loop {
            live.tick().await;
            let (sent, rate, p99_ms, errors) = {
                let state = self.state();
                let (rate, p99_ms) = state.metrics.latest();
                (state.auditor.tally().sent, rate, p99_ms, state.metrics.errors)
            };
            live.show(sent, self.began.elapsed(), rate, p99_ms, errors);
        }
    }

    /// What is left when all is sent, for a run that is not audited yet.
    ///
    /// # Errors
    ///
    /// If something shares the run, which would be a defect.
    pub(super) fn into_state(self: Arc<Self>) -> anyhow::Result<State> {
        let run = Arc::into_inner(self).context("a worker of the load is still at work")?;
        Ok(run.state.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Audits the run and reports what came of it.
    ///
    /// # Errors
    ///
    /// If the service cannot be read.
    pub(crate) async fn finish(self: Arc<Self>, kills: Kills) -> anyhow::Result<LoadReport> {
        let run = Arc::into_inner(self).context("a worker of the load is still at work")?;
        let Self { client, options, stop, cpu, started_at, state, .. } = run;
        let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cpu = cpu.and_then(CpuTime::cores_since);
        let tally = state.auditor.tally();
        let distinct = state.auditor.distinct();
        let check_began = Instant::now();
        let check = check(&client, state.auditor, options.read_back).await?;

        let unsent = match (options.plan.deliveries(), &state.requests) {
            // Of a run by time the rest of the plan is nothing that is missing.
            (Some(planned), Some(_)) if options.duration.is_none() => {
                planned.saturating_sub(tally.sent + check.unsettled)
            }
            _ => 0,
        };
        let time_left = options.duration.is_some_and(|duration| state.sending < duration);
        let measured = state.metrics.measured();
        let mut report = LoadReport {
            schema_version: SCHEMA_VERSION,
            program: concat!("publisher ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_at,
            url: client.url().to_owned(),
            seed: options.plan.seed(),
            run: options.plan.run_id(),
            workload: *options.plan.spec(),
            arrivals: options.arrivals,
            concurrency: options.concurrency as u64,
            planned: options.plan.deliveries(),
            distinct,
            tally,
            errors_by_kind: std::mem::take(&mut state.metrics.errors_by_kind),
            losses_by_kind: std::mem::take(&mut state.metrics.losses_by_kind),
            requests: state.metrics.requests,
            warm_up_requests: state.metrics.warm_up_requests,
            bytes_sent: state.metrics.bytes_sent,
            bytes_received: state.metrics.bytes_received,
            seconds: measured.as_secs_f64(),
            events_per_second: per_second(state.metrics.events, measured),
            latency_ms: state.metrics.latencies(),
            pace: (options.arrivals != Arrivals::Closed).then(|| {
                state.pace.ended(
                    options.rate,
                    per_second(tally.sent, state.sending),
                    state.metrics.requests,
                )
            }),
            tool_cpu_cores: cpu,
            histogram: state.metrics.histogram(),
            timeline: state.metrics.timeline(),
            thresholds: Vec::new(),
            kills: kills.done,
            check,
            check_seconds: check_began.elapsed().as_secs_f64(),
            ledger: options.ledger.map(|directory| directory.display().to_string()),
            unsent,
            interrupted: stop.is_set() && (unsent > 0 || time_left || kills.left > 0),
            failure: state.failure,
            ok: false,
        };
        report.ok = report.is_sound();
        Ok(report)
    }
}

/// Whether the service takes compressed bodies; asked with a batch of nothing.
async fn takes_gzip(client: &Client) -> anyhow::Result<bool> {
    let delivery = client.publish(Body::json(Bytes::from_static(b"[]")).into_gzip()?, || ()).await;
    match delivery.outcome {
        Ok(_) => Ok(true),
        Err(Failure::Refused { status, .. }) if status.as_u16() == 415 => {
            console::note("the service takes no gzip (415): bodies are sent as they are");
            Ok(false)
        }
        Err(failure) => Err(failure).context("cannot find out whether the service takes gzip"),
    }
}

async fn check(client: &Arc<Client>, auditor: Auditor, read_back: bool) -> anyhow::Result<Check> {
    if !read_back {
        return Ok(auditor.check(&stats(client).await?, read_back));
    }
    // Of a run that was broken off requests may be under way still, and be stored
    // between one reading and the next.
    if auditor.has_unsettled() {
        let topics = auditor.plan().topics();
        let mut before = stats(client).await?;
        for _ in 1..READINGS_MAX {
            let read = audit::read_back(client, auditor.clone()).await?;
            let after = stats(client).await?;
            let counters = |stats: &Stats, topic: &String| stats.by_topic.get(topic).copied();
            if topics.iter().all(|topic| counters(&before, topic) == counters(&after, topic)) {
                return Ok(read.check(&after, read_back));
            }
            before = after;
        }
    }
    let read = audit::read_back(client, auditor).await?;
    Ok(read.check(&stats(client).await?, read_back))
}

async fn stats(client: &Client) -> anyhow::Result<Stats> {
    client.stats_of_all_topics().await.context("cannot read /stats after the load")
}
