//! The contract in memory, as far as a publisher meets it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;

mod page;
mod publish;
mod stream;
mod tls;

pub use stream::{Streamed, Streaming};
pub use tls::Tunnel;

/// The longest topic, id or source, in characters.
const NAME_CHARS_MAX: usize = 255;
/// How often those that wait look whether a pause is over.
const PAUSE_POLL: Duration = Duration::from_millis(5);

/// What goes wrong with the next publish request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Answers with this status, and `Retry-After` if given; stores nothing.
    Status(u16, Option<&'static str>),
    /// Stores, then answers with this status.
    StatusAfterCommit(u16),
    /// Stores, then closes the connection without an answer.
    CutAfterCommit,
    /// Closes the connection without an answer; stores nothing.
    CutBefore,
    /// Nothing; the request is answered as it should be.
    None,
}

/// How the service breaks its contract, from the start to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Keeps the contract.
    None,
    /// The event that is stored as this many-eth is acknowledged and then lost.
    LosesAcknowledged(usize),
    /// The reply to the first event says duplicate, and it is never stored.
    DuplicateOfNothing,
    /// A duplicate is stored again.
    StoresTwice,
    /// `received` in /stats is one too high.
    CountsTooMany,
    /// /stats counts each duplicate as conflict as well.
    CountsConflicts,
    /// Replies claim that one event more was accepted.
    RepliesTooMany,
    /// The distinct event with this number is acknowledged, counted and
    /// remembered, but not in /events.
    LosesSilently(usize),
    /// The distinct event with this number is in /events twice; replies and
    /// counters are as they should be.
    ShowsTwice(usize),
    /// The payload of the distinct event with this number is changed on its way
    /// to the store.
    ChangesPayload(usize),
    /// The same of its source.
    ChangesSource(usize),
    /// With the distinct event with this number another one is stored that
    /// nobody sent; its id ends so.
    StoresUnsent(usize, &'static str),
    /// This counter is wrong by one, in its topic and in the totals, and so that
    /// they add up.
    Miscounts(&'static str),
    /// The second page of a topic leaves out its first event.
    SkipsAtPageBorder,
    /// Every page is the first.
    RepeatsFirstPage,
}

/// One stored event.
#[derive(Debug, Clone)]
pub struct Stored {
    pub seq: u64,
    pub topic: String,
    pub event_id: String,
    pub source: String,
    pub timestamp: Option<String>,
    pub payload: Value,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    received: u64,
    unique: u64,
    duplicates: u64,
    conflicts: u64,
}

impl Counters {
    fn json(self, too_many: u64) -> Value {
        json!({"received": self.received + too_many, "unique_processed": self.unique,
               "duplicate_dropped": self.duplicates, "conflicts": self.conflicts})
    }
}

/// A publish request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    /// Its bytes on the wire.
    pub body: Bytes,
    pub gzip: bool,
    pub http2: bool,
    /// Whether the reply is to name every event.
    pub names_all: bool,
}

/// The service's memory.
#[derive(Debug)]
pub struct State {
    /// Identities, and the source and payload that came first.
    ids: HashMap<(String, String), (String, Value)>,
    /// What /events shows.
    pub stored: Vec<Stored>,
    last_seq: u64,
    counters: BTreeMap<String, Counters>,
    rejected: u64,
    pub faults: VecDeque<Fault>,
    pub lie: Lie,
    lied: bool,
    /// The id of the event that the lie is about, once it was told.
    pub victim: Option<String>,
    /// After so many publish requests those that follow have to wait so long.
    /// Every other of them is stored before it waits: who does not hear the
    /// answer cannot know.
    pub pause_at: Option<(usize, Duration)>,
    /// Until when publish requests wait.
    pub paused_until: Option<Instant>,
    /// How long every publish request takes at least.
    pub delay: Duration,
    pub takes_gzip: bool,
    /// The most events that a reply names, unless it is to name all.
    pub names_max: usize,
    /// The most events on a page, whatever is asked for.
    pub page_events_max: usize,
    pub connections: usize,
    pub body_bytes_max: usize,
    pub events_max: usize,
    /// Requests to /healthz that are answered with 503 first.
    pub unhealthy: usize,
    /// The `Authorization` of requests, or that there was none.
    pub asked_by: BTreeSet<Option<String>>,
    /// Whether requests to /events are never answered.
    pub holds_reads: bool,
    /// Requests to /events.
    pub reads: usize,
    /// How many of the next requests to /events are broken off.
    pub read_cuts: usize,
    /// The `seq` of stored events that cannot be shown.
    pub unreadable: BTreeSet<u64>,
    /// The publish requests.
    pub requests: Vec<Received>,
    pub streaming: Streaming,
    /// Streams that were asked for.
    pub streams: Vec<Streamed>,
    /// After so many lines a stream is broken off, the last of them stored and not told:
    /// of each stream that is opened.
    pub stream_cuts: VecDeque<usize>,
    started_at: String,
}

/// A service. It ends with the test's process.
pub struct Fake {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// Before it listens.
    socket: Mutex<Option<TcpSocket>>,
}

impl Fake {
    /// Starts an honest service with an empty store.
    pub fn start() -> Self {
        let fake = Self::new();
        fake.listen();
        fake
    }

    /// A service at an address that is taken, but where nobody listens yet.
    pub fn new() -> Self {
        static STARTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let state = State {
            ids: HashMap::new(),
            stored: Vec::new(),
            last_seq: 0,
            counters: BTreeMap::new(),
            rejected: 0,
            faults: VecDeque::new(),
            lie: Lie::None,
            lied: false,
            victim: None,
            pause_at: None,
            paused_until: None,
            delay: Duration::ZERO,
            takes_gzip: false,
            names_max: 33,
            page_events_max: page::LIMIT_MAX,
            connections: 0,
            body_bytes_max: 10 << 20,
            events_max: 10_000,
            unhealthy: 0,
            asked_by: BTreeSet::new(),
            holds_reads: false,
            reads: 0,
            read_cuts: 0,
            unreadable: BTreeSet::new(),
            requests: Vec::new(),
            streaming: Streaming::Status(404),
            streams: Vec::new(),
            stream_cuts: VecDeque::new(),
            started_at: format!("2026-01-01T00:00:00.{:06}{number:03}Z", std::process::id()),
        };
        let socket = TcpSocket::new_v4().unwrap();
        // So that another process may listen there in our place.
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        Self { url, state: Arc::new(Mutex::new(state)), socket: Mutex::new(Some(socket)) }
    }

    /// Begins to answer.
    pub fn listen(&self) {
        let socket = self.socket.lock().unwrap().take().unwrap();
        let state = Arc::clone(&self.state);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            socket.listen(1_024).unwrap()
        };
        std::thread::spawn(move || runtime.block_on(serve(listener, state)));
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Takes events as a publish request does.
    pub fn take(&self, events: &[Value]) {
        self.state().publish(&serde_json::to_vec(events).unwrap(), true);
    }

    /// The messages of a topic in the order they were stored.
    pub fn messages(&self, topic: &str) -> Vec<String> {
        let state = self.state();
        let of_topic = state.stored.iter().filter(|event| event.topic == topic);
        of_topic.map(|event| event.payload["message"].as_str().unwrap().to_owned()).collect()
    }
}

async fn serve(listener: tokio::net::TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        state.lock().unwrap().connections += 1;
        let state = Arc::clone(&state);
        tokio::spawn(serve_connection(stream, state));
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<Mutex<State>>,
) {
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    // A cut connection ends with an error, as it is meant to.
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

type Reply = Response<UnsyncBoxBody<Bytes, Cut>>;

fn reply(status: u16, body: &Value) -> Reply {
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

fn problem(status: u16, detail: &str) -> Reply {
    reply(
        status,
        &json!({"type": "about:blank", "title": "no", "status": status,
                          "detail": detail, "code": "fake"}),
    )
}

/// Closes the connection, as an error does in hyper.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Reply, Cut> {
    let (head, body) = request.into_parts();
    let asked_by = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    state.lock().unwrap().asked_by.insert(asked_by);
    if (&head.method, head.uri.path()) == (&Method::POST, "/publish/stream") {
        return stream::answer(state, head.version == Version::HTTP_2, body).await;
    }
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    if (&head.method, head.uri.path()) == (&Method::POST, "/publish") {
        let gzip = head.headers.get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
        let http2 = head.version == Version::HTTP_2;
        let names_all = head.uri.query() == Some("results=all");
        let received = Received { at: Instant::now(), body, gzip, http2, names_all };
        return publish(&state, received).await;
    }
    if head.uri.path() == "/events" {
        let (holds, cuts) = {
            let mut state = state.lock().unwrap();
            state.reads += 1;
            let cuts = state.read_cuts > 0;
            state.read_cuts = state.read_cuts.saturating_sub(1);
            (state.holds_reads, cuts)
        };
        if holds {
            return std::future::pending().await;
        }
        if cuts {
            return Err(Cut);
        }
    }
    let mut state = state.lock().unwrap();
    if head.method != Method::GET {
        return Ok(problem(405, "no such method"));
    }
    Ok(match head.uri.path() {
        "/healthz" if state.unhealthy > 0 => {
            state.unhealthy -= 1;
            problem(503, "still waking up")
        }
        "/healthz" => reply(200, &json!({"ok": true})),
        "/stats" => reply(200, &state.stats()),
        "/events" => state.events(head.uri.query().unwrap_or_default()),
        _ => problem(404, "no such route"),
    })
}

async fn publish(state: &Mutex<State>, received: Received) -> Result<Reply, Cut> {
    let (number, delay) = {
        let mut state = state.lock().unwrap();
        let number = state.requests.len();
        state.requests.push(received.clone());
        if let Some((_, pause)) = state.pause_at.filter(|(after, _)| number >= *after) {
            state.pause_at = None;
            state.paused_until = Some(Instant::now() + pause);
        }
        (number, state.delay)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut reply = None;
    if state.lock().unwrap().is_paused() && number.is_multiple_of(2) {
        reply = Some(state.lock().unwrap().publish_or_fail(&received));
    }
    while state.lock().unwrap().is_paused() {
        tokio::time::sleep(PAUSE_POLL).await;
    }
    reply.unwrap_or_else(|| state.lock().unwrap().publish_or_fail(&received))
}

impl State {
    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    fn stats(&self) -> Value {
        let mut by_topic = self.counters.clone();
        let mut rejected = self.rejected;
        if let (Lie::Miscounts(counter), Some(first)) = (self.lie, by_topic.values_mut().next()) {
            match counter {
                "unique_processed" => first.unique += 1,
                "duplicate_dropped" => first.duplicates += 1,
                "conflicts" => first.conflicts += 1,
                // Of all clients: one too many could be another's.
                "rejected" => rejected = rejected.saturating_sub(1),
                other => panic!("there is no counter {other}"),
            }
            first.received = first.unique + first.duplicates;
        }
        let mut total = Counters::default();
        for counters in by_topic.values() {
            total.received += counters.received;
            total.unique += counters.unique;
            total.duplicates += counters.duplicates;
            total.conflicts += counters.conflicts;
        }
        let too_many = u64::from(self.lie == Lie::CountsTooMany);
        let mut stats = total.json(too_many);
        let topics: BTreeMap<_, _> =
            by_topic.iter().map(|(topic, counters)| (topic, counters.json(0))).collect();
        stats["topics"] = json!(topics.keys().collect::<Vec<_>>());
        stats["by_topic"] = json!(topics);
        stats["rejected"] = rejected.into();
        stats["started_at"] = self.started_at.clone().into();
        stats
    }
}
