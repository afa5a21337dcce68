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

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::audit;
use crate::books::{self, Before, Books, Check};
use crate::client::{Body, Client, Delivery, Failure};
use crate::ledger::{Answer, Entry, Ledger, Recorded, RunFile};
use crate::meter::{Meter, Settled};
use crate::pace::Moments;
use crate::progress::{Live, Total};
use crate::report::LoadReport;
use crate::report::load::{Arrivals, Kill, Pace, SCHEMA_VERSION};
use crate::signal::Stop;
use crate::usage::CpuTime;
use crate::wire::Outcome;
use crate::workload::{Kind, Plan, Planned, PlannedRequest, Requests};

/// A request sent later than this after its time is late.
const LATE: Duration = Duration::from_millis(10);
/// A request that could not be sent this long after the end is dropped.
const DROP_AFTER: Duration = Duration::from_millis(100);
/// The rate is held if at most this share of requests was late.
const LATE_SHARE_MAX: f64 = 0.01;
/// The longest that the thread which keeps the time sleeps, so that it sees the
/// end of the run.
const PACE_SLEEP_MAX: Duration = Duration::from_millis(50);

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

/// A run under way: what its workers share.
#[derive(Debug)]
pub struct Run {
    client: Arc<Client>,
    options: Options,
    stop: Stop,
    finish: AtomicBool,
    began: Instant,
    cpu: Option<CpuTime>,
    started_at: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests of an earlier process that are to be sent again.
    again: VecDeque<PlannedRequest>,
    /// The rest of the plan; `None` when only `again` is to be sent.
    requests: Option<Requests>,
    books: Books,
    ledger: Option<Ledger>,
    meter: Meter,
    pace: Pace,
    /// How long requests were sent for.
    sending: Duration,
    under_way: u64,
    /// Why the run is to end, or the first request that was not answered.
    failure: Option<String>,
    /// Why nothing more can be sent.
    broken: Option<anyhow::Error>,
}

impl State {
    fn new(books: Books, ledger: Option<Ledger>, options: &Options) -> anyhow::Result<Self> {
        let open_loop = options.arrivals != Arrivals::Closed;
        Ok(Self {
            again: VecDeque::new(),
            requests: None,
            books,
            ledger,
            meter: Meter::new(Instant::now(), options.warm_up, open_loop)?,
            pace: Pace::default(),
            sending: Duration::ZERO,
            under_way: 0,
            failure: None,
            broken: None,
        })
    }
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

impl Run {
    /// Reads the counters, begins a ledger if one is wanted, and starts the clock.
    ///
    /// # Errors
    ///
    /// If the counters cannot be read or the ledger cannot be written.
    pub async fn start(
        client: Arc<Client>,
        mut options: Options,
        stop: Stop,
    ) -> anyhow::Result<Arc<Self>> {
        let plan = &options.plan;
        let before = client.stats().await.context("cannot read /stats before the load")?;
        let before = Before::of(plan, &before);
        options.gzip = options.gzip && takes_gzip(&client).await?;
        let ledger = options.ledger.as_ref().map(|directory| {
            let run = RunFile::new(client.url(), plan, options.concurrency, before.clone());
            Ledger::create(directory, &run)
        });
        let books = Books::new(plan.clone(), before);
        let mut state = State::new(books, ledger.transpose()?, &options)?;
        state.requests = Some(plan.requests());
        Ok(Self::with(client, options, stop, state))
    }

    fn with(client: Arc<Client>, options: Options, stop: Stop, state: State) -> Arc<Self> {
        Arc::new(Self {
            client,
            options,
            stop,
            finish: AtomicBool::new(false),
            began: state.meter.began(),
            cpu: CpuTime::now(),
            started_at: jiff::Timestamp::now().to_string(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left is still right: each change is made in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the clock was started.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Deliveries acknowledged so far, and requests under way.
    #[must_use]
    pub fn standing(&self) -> (u64, u64) {
        let state = self.state();
        (state.books.tally().received, state.under_way)
    }

    /// Begins no more requests.
    pub fn end(&self) {
        self.finish.store(true, Ordering::Relaxed);
    }

    /// Sends until all is sent, time is up, or the run is to end, and waits for
    /// what is under way.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written.
    pub async fn deliver_all(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut show = JoinSet::new();
        show.spawn(Arc::clone(self).show());
        match self.options.arrivals {
            Arrivals::Closed => self.deliver_closed().await?,
            Arrivals::Constant => self.deliver_open(None).await?,
            Arrivals::Poisson => self.deliver_open(Some(self.options.plan.seed())).await?,
        }
        show.shutdown().await;
        let mut state = self.state();
        state.sending = self.began.elapsed();
        if let Some(ledger) = &mut state.ledger {
            ledger.write()?;
        }
        state.broken.take().map_or(Ok(()), Err)
    }

    async fn deliver_closed(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut workers = JoinSet::new();
        for _ in 0..self.options.concurrency {
            let run = Arc::clone(self);
            workers.spawn(async move {
                loop {
                    run.wait_for_burst().await;
                    let Some(request) = run.next() else { break };
                    run.deliver(request, None).await;
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker.context("a worker of the load died")?;
        }
        Ok(())
    }

    /// Waits until something may be sent, if the load comes in bursts, or until
    /// the run is to end.
    async fn wait_for_burst(&self) {
        let Some(burst) = self.options.plan.spec().burst else { return };
        let mut stop = self.stop.clone();
        loop {
            let since_began = self.began.elapsed();
            let end = self.options.duration.unwrap_or(Duration::MAX);
            let time_left = end.saturating_sub(since_began);
            let wait = burst.silence_left(since_began).min(time_left);
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.wait() => return,
            }
        }
    }

    async fn deliver_open(self: &Arc<Self>, poisson_seed: Option<u64>) -> anyhow::Result<()> {
        let spec = self.options.plan.spec();
        let batch = (spec.batch.min + spec.batch.max) as f64 / 2.0;
        let moments = Moments::new(self.options.rate / batch, poisson_seed, spec.burst);
        let end = self.options.duration;
        let moments = moments.take_while(move |moment| end.is_none_or(|end| *moment < end));
        let (sender, mut due) = mpsc::unbounded_channel();
        let began = self.began;
        // A thread, since timers of the runtime tell no less than milliseconds.
        std::thread::Builder::new()
            .name("pace".to_owned())
            .spawn(move || keep_time(began, moments, &sender))
            .context("cannot start a thread to keep the time")?;

        let free = Arc::new(Semaphore::new(self.options.concurrency));
        let over = end.map(|end| began + end + DROP_AFTER);
        // Until when all that may be under way were.
        let mut full_until = began;
        let mut under_way = JoinSet::new();
        let mut stop = self.stop.clone();
        loop {
            let intended = tokio::select! {
                intended = due.recv() => intended,
                () = stop.wait() => None,
            };
            let Some(intended) = intended else { break };
            let permit = match Arc::clone(&free).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    let permit = Arc::clone(&free).acquire_owned().await?;
                    full_until = Instant::now();
                    permit
                }
            };
            let now = Instant::now();
            if over.is_some_and(|over| now > over) {
                self.state().pace.dropped_requests += 1;
                continue;
            }
            let Some(request) = self.next() else { break };
            self.state().pace.sent(now.saturating_duration_since(intended), intended < full_until);
            let run = Arc::clone(self);
            under_way.spawn(async move {
                run.deliver(request, Some(intended)).await;
                drop(permit);
            });
            while under_way.try_join_next().is_some() {}
        }
        drop(due);
        while let Some(request) = under_way.join_next().await {
            request.context("a request of the load died")?;
        }
        Ok(())
    }

    /// The next request, announced; `None` when there is none or the run is to end.
    fn next(&self) -> Option<PlannedRequest> {
        let mut state = self.state();
        let over = self.options.duration.is_some_and(|duration| self.began.elapsed() >= duration)
            && self.options.arrivals == Arrivals::Closed;
        let failed = state.failure.is_some() && !self.options.keep_going;
        let ended = self.finish.load(Ordering::Relaxed) || self.stop.is_set();
        if over || failed || ended || state.broken.is_some() {
            return None;
        }
        let (request, entry) = match state.again.pop_front() {
            Some(request) => {
                state.books.resumed(request.number);
                let entry = Entry::Resumed { request: request.number };
                (request, entry)
            }
            None => {
                let request = state.requests.as_mut()?.next()?;
                state.books.sent(request.clone());
                let deliveries = request.deliveries.len() as u32;
                (request.clone(), Entry::Sent { request: request.number, deliveries })
            }
        };
        if !state.announce(&entry) {
            return None;
        }
        state.under_way += 1;
        Some(request)
    }

    /// Sends a request until it is settled.
    async fn deliver(&self, request: PlannedRequest, intended: Option<Instant>) {
        let sent = Instant::now();
        let body = match self.body(&request.deliveries) {
            Ok(body) => body,
            Err(error) => {
                self.state().broken = Some(error);
                return;
            }
        };
        let bytes_sent = body.len_bytes();
        let number = request.number;
        let again = || {
            let mut state = self.state();
            state.books.again(number);
            state.announce(&Entry::Again { request: number });
        };
        let delivery = self.client.publish(body, again).await;
        let mut state = self.state();
        state.under_way -= 1;
        state.settle(&request, delivery, intended, sent, bytes_sent);
    }

    fn body(&self, deliveries: &[Planned]) -> anyhow::Result<Body> {
        let bytes: Bytes = self.options.plan.body(deliveries)?;
        Ok(if self.options.gzip { Body::gzip(&bytes)? } else { bytes.into() })
    }

    /// Shows how the run goes, until it is dropped.
    async fn show(self: Arc<Self>) {
        let total = match (self.options.duration, self.options.plan.deliveries()) {
            (Some(duration), _) => Total::Time(duration),
            (None, Some(deliveries)) => Total::Events(deliveries),
            (None, None) => Total::Unknown,
        };
        let what = format!("load of seed {} to {}", self.options.plan.seed(), self.client.url());
        let mut live = Live::start(&what, total);
        loop {
            live.tick().await;
            let (sent, rate, p99_ms, errors) = {
                let state = self.state();
                let (rate, p99_ms) = state.meter.lately();
                (state.books.tally().sent, rate, p99_ms, state.meter.errors)
            };
            live.show(sent, self.began.elapsed(), rate, p99_ms, errors);
        }
    }

    /// Audits the run and tells what came of it.
    ///
    /// # Errors
    ///
    /// If the service cannot be read.
    pub async fn finish(self: Arc<Self>, kills: Kills) -> anyhow::Result<LoadReport> {
        let run = Arc::into_inner(self).context("a worker of the load is still at work")?;
        let Self { client, options, stop, cpu, started_at, state, .. } = run;
        let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cpu = cpu.and_then(CpuTime::cores_since);
        let tally = state.books.tally();
        let distinct = state.books.distinct();
        let check_began = Instant::now();
        let check = check(&client, state.books, options.read_back).await?;

        let unsent = match (options.plan.deliveries(), &state.requests) {
            // Of a run by time the rest of the plan is nothing that is missing.
            (Some(planned), Some(_)) if options.duration.is_none() => {
                planned.saturating_sub(tally.sent + check.unsettled)
            }
            _ => 0,
        };
        let time_left = options.duration.is_some_and(|duration| state.sending < duration);
        let measured = state.meter.measured();
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
            sent: 0,
            received: 0,
            accepted: 0,
            duplicates: 0,
            conflicts: 0,
            rejected: 0,
            errors: 0,
            retries: 0,
            errors_by_kind: std::mem::take(&mut state.meter.errors_by_kind),
            losses_by_kind: std::mem::take(&mut state.meter.losses_by_kind),
            requests: state.meter.requests,
            warm_up_requests: state.meter.warm_up_requests,
            bytes_sent: state.meter.bytes_sent,
            bytes_received: state.meter.bytes_received,
            seconds: measured.as_secs_f64(),
            events_per_second: per_second(state.meter.events, measured),
            latency_ms: state.meter.latencies(),
            pace: (options.arrivals != Arrivals::Closed).then(|| {
                state.pace.ended(
                    options.rate,
                    per_second(tally.sent, state.sending),
                    state.meter.requests,
                )
            }),
            tool_cpu_cores: cpu,
            histogram: state.meter.histogram(),
            timeline: state.meter.timeline(),
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
        report.count(tally);
        report.ok = report.is_sound();
        Ok(report)
    }
}

/// Sends every moment on as its time comes, until nobody listens.
fn keep_time(
    began: Instant,
    moments: impl Iterator<Item = Duration>,
    sender: &mpsc::UnboundedSender<Instant>,
) {
    for moment in moments {
        let Some(due) = began.checked_add(moment) else { return };
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if sender.is_closed() {
                return;
            }
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(PACE_SLEEP_MAX));
        }
        if sender.send(due).is_err() {
            return;
        }
    }
}

/// Whether the service takes compressed bodies; asked with a batch of nothing.
async fn takes_gzip(client: &Client) -> anyhow::Result<bool> {
    let delivery = client.publish(Body::gzip(b"[]")?, || ()).await;
    match delivery.outcome {
        Ok(_) => Ok(true),
        Err(Failure::Refused { status, .. }) if status.as_u16() == 415 => {
            eprintln!("publisher: the service takes no gzip (415): bodies are sent as they are");
            Ok(false)
        }
        Err(failure) => Err(failure).context("cannot find out whether the service takes gzip"),
    }
}

async fn check(client: &Arc<Client>, books: Books, read_back: bool) -> anyhow::Result<Check> {
    let books = match read_back {
        true => audit::read_back(client, books).await?,
        false => books,
    };
    let after = client.stats().await.context("cannot read /stats after the load")?;
    Ok(books.check(&after, read_back))
}

impl State {
    /// Writes an entry ahead. A ledger that cannot be written ends the run.
    fn announce(&mut self, entry: &Entry) -> bool {
        let Some(ledger) = &mut self.ledger else { return true };
        match ledger.announce(entry) {
            Ok(()) => true,
            Err(error) => {
                self.broken.get_or_insert(error);
                false
            }
        }
    }

    fn settle(
        &mut self,
        request: &PlannedRequest,
        delivery: Delivery,
        intended: Option<Instant>,
        sent: Instant,
        bytes_sent: u64,
    ) {
        let retries = delivery.retries();
        let Delivery { outcome, losses, ambiguous, elapsed, bytes_received } = delivery;
        for loss in &losses {
            *self.meter.losses_by_kind.entry(loss.to_string()).or_default() += 1;
        }
        let answer = match outcome {
            Ok(reply) => match books::outcomes(request.deliveries.len(), &reply) {
                Ok(outcomes) => Answer::Outcomes(outcomes),
                Err(text) => Answer::Contradiction(text),
            },
            // As it should be, if there is nothing else in it.
            Err(Failure::Invalid(_))
                if request.deliveries.iter().all(|planned| planned.kind == Kind::Invalid) =>
            {
                Answer::Outcomes(vec![Outcome::Rejected; request.deliveries.len()])
            }
            Err(failure) => {
                *self.meter.errors_by_kind.entry(failure.kind()).or_default() += 1;
                self.failure.get_or_insert_with(|| failure.to_string());
                Answer::None
            }
        };
        let count = |wanted: &[Outcome]| match &answer {
            Answer::Outcomes(outcomes) => {
                outcomes.iter().filter(|outcome| wanted.contains(outcome)).count() as u64
            }
            _ => 0,
        };
        self.meter.settled(Settled {
            intended,
            sent,
            done: sent + elapsed,
            answered: answer != Answer::None,
            accepted: count(&[Outcome::Accepted]),
            duplicates: count(&[Outcome::Duplicate, Outcome::Conflict]),
            rejected: count(&[Outcome::Rejected]),
            retries,
            bytes_sent,
            bytes_received,
        });
        self.books.settled(request.number, ambiguous, &answer);
        if let Some(ledger) = &mut self.ledger {
            let request = request.number;
            let entry = Entry::Settled { request, unheard: ambiguous, answer };
            if let Err(error) = ledger.note(&entry) {
                self.broken.get_or_insert(error);
            }
        }
    }
}

impl Pace {
    /// Notes how late a request was sent, and whether that was because all that
    /// may be under way were.
    fn sent(&mut self, late: Duration, full: bool) {
        self.late_max_ms = self.late_max_ms.max(late.as_secs_f64() * 1_000.0);
        if late > LATE {
            *(if full { &mut self.late_requests } else { &mut self.late_by_tool }) += 1;
        }
    }

    fn ended(self, rate: f64, sent_rate: f64, requests: u64) -> Self {
        let late = self.late_requests + self.late_by_tool;
        let held = self.dropped_requests == 0 && late as f64 <= LATE_SHARE_MAX * requests as f64;
        Self { rate, sent_rate, held, ..self }
    }
}

/// Things done in a second, and 0 where no time was measured.
#[must_use]
pub fn per_second(done: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
}
