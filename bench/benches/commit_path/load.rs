//! Drives a server: requests that wait for each other's reply (a closed loop),
//! or that arrive when they are due (an open loop).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cases::Case;
use crate::client::{Tally, Target, Work, Worker};
use crate::figures::{Figures, Latencies, Span};

/// Threads of the client. With two, or with the calling thread alone, rates and
/// latencies were the same but for noise; one leaves the server the other cores
/// whatever happens.
const CLIENT_THREADS: usize = 1;

/// Connections that an open loop starts with.
const OPEN_CONNECTIONS_MIN: usize = 32;

/// Most connections of an open loop; arrivals wait when all are taken.
const OPEN_CONNECTIONS_MAX: usize = 128;

/// How long replies may take once nothing is sent any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// The client's runtime, and how long it measures.
pub struct Load {
    runtime: Runtime,
    span: Span,
}

/// When what happens is measured.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn of(span: Span) -> Self {
        let begin = Instant::now() + span.warm_up;
        Window { begin, end: begin + span.measured }
    }

    fn holds(self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }
}

impl Load {
    /// A client whose measurements take `span`.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn new(span: Span) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CLIENT_THREADS)
            .enable_all()
            .build()
            .context("cannot start the client's runtime")?;
        Ok(Load { runtime, span })
    }

    /// Runs something of the client that is not measured.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Measures `work` over `connections`, of which each sends a request when
    /// it has the reply to the one before.
    ///
    /// # Errors
    ///
    /// If a request is not acknowledged, or a reply is not what it has to be.
    pub fn closed(
        &self,
        case: Case,
        target: &Arc<Target>,
        work: &Work,
        connections: usize,
    ) -> Result<(Figures, Tally)> {
        let closed = closed(Arc::clone(target), work.clone(), connections, self.span);
        let (latencies, tally) = self.run(closed)?;
        Ok((Figures::new(case, &latencies, connections, self.span.measured), tally))
    }

    /// Measures `work` that arrives `per_second` times in a second, evenly. The
    /// latency counts from the moment when a request was due, so that a server
    /// which stalls is charged for all that came meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`Load::closed`].
    pub fn open(
        &self,
        case: Case,
        target: &Arc<Target>,
        work: &Work,
        per_second: f64,
    ) -> Result<(Figures, Tally)> {
        let interval = Duration::try_from_secs_f64(1.0 / per_second)
            .with_context(|| format!("{per_second} arrivals a second are no rate"))?;
        let open = open(Arc::clone(target), work.clone(), interval, self.span);
        let (latencies, tally, connections) = self.run(open)?;
        Ok((Figures::new(case, &latencies, connections, self.span.measured), tally))
    }

    /// On the client's thread, so that nothing goes back and forth between it
    /// and the calling one.
    fn run<T: Send + 'static>(
        &self,
        measurement: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime.block_on(self.runtime.spawn(measurement)).context("the client failed")?
    }
}

async fn closed(
    target: Arc<Target>,
    work: Work,
    connections: usize,
    span: Span,
) -> Result<(Latencies, Tally)> {
    let mut workers = Vec::new();
    for _ in 0..connections {
        workers.push(Worker::connected(&target).await?);
    }
    let window = Window::of(span);
    let mut running = JoinSet::new();
    for worker in workers {
        running.spawn(repeat(worker, work.clone(), window));
    }
    let mut latencies = Latencies::new()?;
    let mut tally = Tally::default();
    while let Some((its_tally, its_latencies)) = next(&mut running, window).await? {
        tally += its_tally;
        latencies.add(&its_latencies)?;
    }
    Ok((latencies, tally))
}

async fn open(
    target: Arc<Target>,
    work: Work,
    interval: Duration,
    span: Span,
) -> Result<(Latencies, Tally, usize)> {
    let mut idle = Vec::new();
    for _ in 0..OPEN_CONNECTIONS_MIN {
        idle.push(Worker::connected(&target).await?);
    }
    let window = Window::of(span);
    let (announce, mut arrivals) = mpsc::unbounded_channel();
    let clock = std::thread::spawn(move || pace(interval, window.end, &announce));

    let mut connections = idle.len();
    let mut latencies = Latencies::new()?;
    let mut running = JoinSet::new();
    loop {
        if idle.is_empty() && connections < OPEN_CONNECTIONS_MAX {
            idle.push(Worker::new(Arc::clone(&target)));
            connections += 1;
        }
        // The newest idle connection first: as many are used as are needed.
        tokio::select! {
            due = arrivals.recv(), if !idle.is_empty() => {
                let Some(due) = due else { break };
                if let Some(worker) = idle.pop() {
                    running.spawn(answer(worker, work.clone(), due));
                }
            }
            answered = next(&mut running, window), if !running.is_empty() => {
                if let Some(answered) = answered? {
                    idle.push(settle(answered, window, &mut latencies)?);
                }
            }
        }
    }
    while let Some(answered) = next(&mut running, window).await? {
        idle.push(settle(answered, window, &mut latencies)?);
    }
    if clock.join().is_err() {
        bail!("the clock of the arrivals failed");
    }
    let mut tally = Tally::default();
    idle.iter().for_each(|worker| tally += worker.tally);
    Ok((latencies, tally, connections))
}

/// The result of the next task that ends, of those that are left.
async fn next<T: 'static>(running: &mut JoinSet<Result<T>>, window: Window) -> Result<Option<T>> {
    let deadline = tokio::time::Instant::from_std(window.end + PATIENCE);
    match tokio::time::timeout_at(deadline, running.join_next()).await {
        Ok(None) => Ok(None),
        Ok(Some(ended)) => ended.context("a connection's task failed")?.map(Some),
        Err(_) => bail!("no reply within {} s", PATIENCE.as_secs()),
    }
}

/// One connection of a closed loop.
async fn repeat(mut worker: Worker, work: Work, window: Window) -> Result<(Tally, Latencies)> {
    let mut latencies = Latencies::new()?;
    while Instant::now() < window.end {
        let request = worker.prepare(&work)?;
        let sent = Instant::now();
        worker.acknowledge(&request).await?;
        let answered = Instant::now();
        if window.holds(answered) {
            latencies.record(answered - sent)?;
        }
    }
    Ok((worker.tally, latencies))
}

/// A request of an open loop that was answered.
struct Answered {
    worker: Worker,
    due: Instant,
    at: Instant,
}

async fn answer(mut worker: Worker, work: Work, due: Instant) -> Result<Answered> {
    let request = worker.prepare(&work)?;
    worker.acknowledge(&request).await?;
    Ok(Answered { worker, due, at: Instant::now() })
}

/// Takes the latency of an answered request, and its connection back.
fn settle(answered: Answered, window: Window, latencies: &mut Latencies) -> Result<Worker> {
    // By when it was due: what came late is not to be left out.
    if window.holds(answered.due) {
        latencies.record(answered.at - answered.due)?;
    }
    Ok(answered.worker)
}

/// Announces when requests are due, in time. A thread of its own, since the
/// runtime's timers go by whole milliseconds.
fn pace(interval: Duration, end: Instant, announce: &mpsc::UnboundedSender<Instant>) {
    let mut due = Instant::now();
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if announce.send(due).is_err() {
            return; // the loop has ended with an error
        }
        due += interval;
    }
}
