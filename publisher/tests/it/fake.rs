//! The contract in memory, as far as a publisher meets it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

/// What goes wrong with the next publish request.
#[derive(Debug, Clone)]
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
}

/// One stored event.
#[derive(Debug, Clone)]
pub struct Stored {
    pub topic: String,
    pub source: String,
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

/// The service's memory.
#[derive(Debug)]
pub struct State {
    ids: HashMap<(String, String), usize>,
    pub stored: Vec<Stored>,
    counters: BTreeMap<String, Counters>,
    pub faults: VecDeque<Fault>,
    pub lie: Lie,
    lied: bool,
    pub body_bytes_max: usize,
    pub events_max: usize,
    /// Requests to /healthz that are answered with 503 first.
    pub unhealthy: usize,
    /// When each publish request came, and its body.
    pub requests: Vec<(Instant, Bytes)>,
    started_at: String,
}

/// A running service. It ends with the test's process.
pub struct Fake {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts an honest service with an empty store.
    pub fn start() -> Self {
        static STARTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let state = State {
            ids: HashMap::new(),
            stored: Vec::new(),
            counters: BTreeMap::new(),
            faults: VecDeque::new(),
            lie: Lie::None,
            lied: false,
            body_bytes_max: 10 << 20,
            events_max: 10_000,
            unhealthy: 0,
            requests: Vec::new(),
            started_at: format!("2026-01-01T00:00:00.{:06}{number:03}Z", std::process::id()),
        };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let served = Arc::clone(&state);
        std::thread::spawn(move || serve(listener, served));
        Self { url: format!("http://{address}"), state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The messages of a topic in the order they were stored.
    pub fn messages(&self, topic: &str) -> Vec<String> {
        let state = self.state();
        let of_topic = state.stored.iter().filter(|event| event.topic == topic);
        of_topic.map(|event| event.payload["message"].as_str().unwrap().to_owned()).collect()
    }
}

fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let io = hyper_util::rt::TokioIo::new(stream);
                // A cut connection ends with an error, as it is meant to.
                drop(
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                );
            });
        }
    });
}

type Reply = Response<Full<Bytes>>;

fn reply(status: u16, body: &Value) -> Reply {
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let body = Full::from(body.to_string());
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
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    let mut state = state.lock().unwrap();
    match (&method, path.as_str()) {
        (&Method::GET, "/healthz") if state.unhealthy > 0 => {
            state.unhealthy -= 1;
            Ok(problem(503, "still waking up"))
        }
        (&Method::GET, "/healthz") => Ok(reply(200, &json!({"ok": true}))),
        (&Method::GET, "/stats") => Ok(reply(200, &state.stats())),
        (&Method::POST, "/publish") => state.publish_or_fail(body),
        _ => Ok(problem(404, "no such route")),
    }
}

impl State {
    fn publish_or_fail(&mut self, body: Bytes) -> Result<Reply, Cut> {
        self.requests.push((Instant::now(), body.clone()));
        match self.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(self.publish(&body)),
            Fault::Status(status, retry_after) => {
                let mut reply = problem(status, "not now");
                if let Some(value) = retry_after {
                    reply.headers_mut().insert("retry-after", value.parse().unwrap());
                }
                Ok(reply)
            }
            Fault::StatusAfterCommit(status) => {
                self.publish(&body);
                Ok(problem(status, "who knows"))
            }
            Fault::CutAfterCommit => {
                self.publish(&body);
                Err(Cut)
            }
            Fault::CutBefore => Err(Cut),
        }
    }

    fn publish(&mut self, body: &[u8]) -> Reply {
        if body.len() > self.body_bytes_max {
            return problem(413, "too many bytes");
        }
        let events = match serde_json::from_slice(body) {
            Ok(Value::Array(events)) => events,
            Ok(event @ Value::Object(_)) => vec![event],
            _ => return problem(422, "not JSON"),
        };
        if events.len() > self.events_max {
            return problem(413, "too many events");
        }
        let (mut accepted, mut duplicates, mut conflicts, mut rejected) = (0, 0, 0, 0);
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let status = self.deliver(event);
            match status {
                "accepted" => accepted += 1,
                "rejected" => rejected += 1,
                _ => duplicates += 1,
            }
            conflicts += u64::from(status == "conflict");
            if status == "rejected" {
                errors.push(json!({"index": index, "field": "topic", "detail": "is refused"}));
            }
            if status != "accepted" {
                results.push(json!({"index": index, "topic": event["topic"],
                    "event_id": event["event_id"], "status": status, "detail": "is refused"}));
            }
        }
        if rejected > 0 && rejected == events.len() {
            return reply(422, &json!({"detail": "no valid event", "errors": errors}));
        }
        if self.lie == Lie::RepliesTooMany {
            accepted += 1;
        }
        let received = accepted + duplicates;
        reply(
            200,
            &json!({"received": received, "accepted": accepted, "duplicates": duplicates,
            "conflicts": conflicts, "rejected": rejected, "message": "", "results": results}),
        )
    }

    fn deliver(&mut self, event: &Value) -> &'static str {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let (topic, id, source) = (text("topic"), text("event_id"), text("source"));
        let payload = event["payload"].clone();
        // A message that the tests' services do not take.
        let refused = payload["message"].as_str().is_some_and(|m| m.contains("REFUSED"));
        if topic.is_empty() || id.is_empty() || source.is_empty() || refused {
            return "rejected";
        }
        let first_lie = !std::mem::replace(&mut self.lied, true);
        let stored = self.stored.len();
        let counters = self.counters.entry(topic.clone()).or_default();
        if self.lie == Lie::DuplicateOfNothing && first_lie {
            counters.received += 1;
            counters.duplicates += 1;
            return "duplicate";
        }
        let place = match self.ids.get(&(topic.clone(), id.clone())) {
            Some(place) if self.lie != Lie::StoresTwice => *place,
            _ if self.lie == Lie::LosesAcknowledged(stored + 1) => {
                self.lie = Lie::None;
                return "accepted";
            }
            _ => {
                counters.received += 1;
                counters.unique += 1;
                self.ids.insert((topic.clone(), id), stored);
                self.stored.push(Stored { topic, source, payload });
                return "accepted";
            }
        };
        counters.received += 1;
        counters.duplicates += 1;
        counters.conflicts += u64::from(self.lie == Lie::CountsConflicts);
        let first = &self.stored[place];
        if first.source == source && first.payload == payload {
            return "duplicate";
        }
        counters.conflicts += 1;
        "conflict"
    }

    fn stats(&self) -> Value {
        let mut total = Counters::default();
        for counters in self.counters.values() {
            total.received += counters.received;
            total.unique += counters.unique;
            total.duplicates += counters.duplicates;
            total.conflicts += counters.conflicts;
        }
        let too_many = u64::from(self.lie == Lie::CountsTooMany);
        let mut stats = total.json(too_many);
        let topics: BTreeMap<_, _> =
            self.counters.iter().map(|(topic, counters)| (topic, counters.json(0))).collect();
        stats["topics"] = json!(topics.keys().collect::<Vec<_>>());
        stats["by_topic"] = json!(topics);
        stats["rejected"] = 0.into();
        stats["started_at"] = self.started_at.clone().into();
        stats
    }
}
