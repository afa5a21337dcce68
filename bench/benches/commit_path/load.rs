//! Drives a server by the publisher's loops, on a thread of its own.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use publisher::client::{Address, Client, Options, Protocol};
use publisher::load::{self, Deliveries, Measured};
use publisher::metrics::Metrics;
use publisher::report::load::Arrivals;
use publisher::signal::Stop;
use publisher::workload::{Plan, Range};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::cases::Form;
use crate::figures::{Span, sample};

/// Threads of the client. With two, or with the calling thread alone, rates and
/// latencies were the same but for noise; one leaves the server the other cores
/// whatever happens.
const CLIENT_THREADS: usize = 1;

/// Most connections of an open loop; arrivals wait when all are taken.
pub const OPEN_CONNECTIONS_MAX: usize = 128;

/// How long a reply may take, and how long a request is sent again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest pause before a request is sent again.
const RESEND_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Events on a page that is read.
pub const PAGE_EVENTS: u64 = 100;

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// When the one before is answered, over so many connections.
    Closed(usize),
    /// So many times in a second.
    Open(f64),
}

/// The client's runtime, and how long it measures.
pub struct Load {
    runtime: Arc<Runtime>,
    span: Span,
}

/// A client of the server at `url`.
///
/// # Errors
///
/// If that is no URL.
pub fn client(url: &str) -> Result<Arc<Client>> {
    let address: Address = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    client_by(address, Protocol::Http1)
}

/// The same, over so many streams.
///
/// # Errors
///
/// If there is more between than plain HTTP.
pub fn stream_client(client: &Client, streams: usize) -> Result<Arc<Client>> {
    let streams = NonZeroUsize::new(streams).context("no streams")?;
    client_by(client.address().clone(), Protocol::Streams(streams))
}

fn client_by(address: Address, protocol: Protocol) -> Result<Arc<Client>> {
    let client = Client::new(Options {
        address,
        timeout: PATIENCE,
        retry_for: PATIENCE,
        backoff_max: RESEND_PAUSE_MAX,
        protocol,
        jitter_seed: 0,
    })?;
    Ok(Arc::new(client))
}

impl Load {
    /// How long each measurement takes.
    pub fn span(&self) -> Span {
        self.span
    }

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
        Ok(Load { runtime: Arc::new(runtime), span })
    }

    /// The same client whose measurements take `span`.
    pub fn over(&self, span: Span) -> Self {
        Load { runtime: Arc::clone(&self.runtime), span }
    }

    /// Runs something on the client's thread, so that nothing goes back and
    /// forth between it and the calling one.
    ///
    /// # Errors
    ///
    /// Those of the future, and that it panicked.
    pub fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime.block_on(self.runtime.spawn(future)).context("the client failed")?
    }

    /// Measures requests of so many events in a form that the publisher has.
    ///
    /// # Errors
    ///
    /// If a request is not acknowledged.
    pub fn publish(
        &self,
        client: &Arc<Client>,
        plan: &Plan,
        mut deliveries: Deliveries,
        (events, form): (u64, Form),
        by: Loop,
    ) -> Result<Measured> {
        deliveries.requests.set_batch(Range::exactly(events));
        let (concurrency, arrivals, rate) = match by {
            Loop::Closed(connections) => (connections, Arrivals::Closed, 0.0),
            Loop::Open(per_second) => (OPEN_CONNECTIONS_MAX, Arrivals::Constant, per_second),
        };
        let options = load::Options {
            arrivals,
            rate,
            duration: Some(self.span.whole()),
            warm_up: self.span.warm_up,
            lines: matches!(form, Form::Ndjson | Form::GzipNdjson),
            gzip: form == Form::GzipNdjson,
            ..load::Options::closed(plan.clone(), concurrency)
        };
        let measured =
            self.run(load::measure(Arc::clone(client), options, Stop::never(), deliveries))?;
        match measured.failure {
            Some(failure) => bail!("POST /publish: {failure}"),
            None => Ok(measured),
        }
    }

    /// Measures `GET` of a path, over so many connections.
    ///
    /// # Errors
    ///
    /// If a request is not answered, or the reply is not what it has to be.
    pub fn read(&self, client: &Arc<Client>, get: Get, connections: usize) -> Result<Metrics> {
        let (client, get) = (Arc::clone(client), Arc::new(get));
        self.repeat(connections, 1, move || {
            let (client, get) = (Arc::clone(&client), Arc::clone(&get));
            async move { get.once(&client).await }
        })
    }

    /// Measures what so many connections do, each again and again: requests of so many
    /// events.
    ///
    /// # Errors
    ///
    /// What goes wrong first.
    pub fn repeat<Sending>(
        &self,
        connections: usize,
        events: u64,
        send: impl Fn() -> Sending + Send + Sync + 'static,
    ) -> Result<Metrics>
    where
        Sending: Future<Output = Result<()>> + Send + 'static,
    {
        let (began, span) = (Instant::now(), self.span);
        let end = began + span.whole();
        // Or why it ended early.
        let metrics =
            Arc::new(Mutex::new(Metrics::new(began, span.warm_up, Some(span.whole()), false)));
        let of_workers = Arc::clone(&metrics);
        self.run(load::repeat(connections, move || {
            let metrics = Arc::clone(&of_workers);
            let sent = Instant::now();
            let sending = (sent < end).then(&send);
            async move {
                let Some(sending) = sending else { return ControlFlow::Break(()) };
                let done = sending.await;
                let mut metrics = metrics.lock().unwrap_or_else(PoisonError::into_inner);
                match (done, &mut *metrics) {
                    (Ok(()), Ok(metrics)) => {
                        metrics.record(sample(sent, Instant::now(), events));
                        return ControlFlow::Continue(());
                    }
                    (Ok(()), Err(_)) => {}
                    (Err(error), _) => *metrics = Err(error),
                }
                ControlFlow::Break(())
            }
        }))?;
        let metrics = Arc::into_inner(metrics).context("a connection is still at work")?;
        metrics.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub enum Get {
    /// Anything; the status is checked.
    Path(String),
    /// A page of events, which has to be full.
    Page(String),
}

#[derive(Deserialize)]
struct Page {
    count: u64,
}

impl Get {
    async fn once(&self, client: &Client) -> Result<()> {
        let (Get::Path(path) | Get::Page(path)) = self;
        let body = client.read(path).await.with_context(|| format!("GET {path}"))?;
        if let Get::Page(_) = self {
            let page: Page = serde_json::from_slice(&body)
                .with_context(|| format!("GET {path}: the reply is no page"))?;
            ensure!(page.count == PAGE_EVENTS, "GET {path}: a page of {} events", page.count);
        }
        Ok(())
    }
}
