//! The service over HTTP: publish, statistics, readiness.
//!
//! Every retry is decided here and nowhere else. A request is sent again, with
//! the same bytes and so the same event ids, after connection errors,
//! timeouts, 408, 429, 502, 503 and 504, for as long as `retry_for` allows. All
//! other statuses are answers and are not asked for again.
//!
//! An attempt is *indeterminate* where it failed and may have been stored: the
//! connection died after the request was sent, or a gateway stood between. The
//! service then counts the events of that attempt as received, and once more
//! for the attempt that is answered. [`Delivery::indeterminate`] says how many such
//! attempts there were, so that a ledger can allow for exactly those.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT,
};
use hyper::http::uri::InvalidUri;
use hyper::{Method, Request, StatusCode, Uri};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use reqwest::Url;
use serde::de::DeserializeOwned;

use crate::retry;
use crate::wire::{Page, PublishReply, Stats, excerpt};

mod attempt;
mod body;
pub mod lane;
mod streams;
mod transport;

pub use crate::address::{Address, AddressError, Credentials};
use attempt::Retryable;
use attempt::{Attempt, attempt};
pub use attempt::{Failure, TransientError};
pub use body::Body;
use body::Form;
use streams::Streams;
pub use transport::Protocol;
use transport::{Error, ErrorKind, Reply, Transport};

/// The interval at which the health of the service is polled, in milliseconds.
const HEALTH_POLL_MS: u64 = 25;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("sekali-publisher/", env!("CARGO_PKG_VERSION")));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// How to reach the service and for how long to retry.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the service is, and who asks.
    pub address: Address,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long a request is tried again after its first failure; zero: never.
    pub retry_for: Duration,
    /// The longest backoff between two attempts that the service did not ask for.
    pub backoff_max: Duration,
    /// What is spoken where TLS does not negotiate it.
    pub protocol: Protocol,
    /// Seeds the jitter of the waits between attempts.
    pub jitter_seed: u64,
}

/// Which events the reply to a publish request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Those that were not accepted, as many as a short reply has room for.
    Some,
    /// All.
    All,
    /// All in the reply to a retry, which may find each event stored.
    AllAfterRetry,
}

/// A connection pool to one service.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    /// For bodies of lines, if it has any.
    streams: Option<Streams>,
    address: Address,
    authorization: Option<HeaderValue>,
    /// Which proxy stands between, for the end of an error's message.
    via: String,
    publish: Uri,
    /// Where to publish for a reply that names every event.
    publish_for_all: Uri,
    healthz: Uri,
    retry_for: Duration,
    backoff_max: Duration,
    jitter: Mutex<ChaCha8Rng>,
}

/// What became of one publish request, with all its attempts.
#[derive(Debug)]
pub struct Delivery {
    /// The service's reply, or why there is none.
    pub outcome: Result<PublishReply, Failure>,
    /// How attempts failed that may be retried, the last one included if the time
    /// for retries ended with it.
    pub transient_errors: Vec<TransientError>,
    /// Attempts that failed although the service may have stored their events.
    pub indeterminate: u64,
    /// From the first attempt to the reply.
    pub elapsed: Duration,
    /// Bytes of the reply's body.
    pub bytes_received: u64,
}

impl Delivery {
    /// Attempts after the first.
    #[must_use]
    pub fn retries(&self) -> u64 {
        let last_too = matches!(self.outcome, Err(Failure::GaveUp { .. }));
        self.transient_errors.len() as u64 - u64::from(last_too)
    }
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up, or nothing can be asked for at such a URL.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let Options { address, timeout, retry_for, backoff_max, protocol, jitter_seed } = options;
        let authorization = address.credentials().map(|credentials| {
            credentials.authorization().with_context(|| format!("no password for {address}"))
        });
        let authorization = authorization.transpose()?;
        let transport = Transport::new(address.place(), protocol, timeout)?;
        let publish = under(address.place(), "/publish")?;
        let publish_for_all = under(address.place(), "/publish?results=all")?;
        let healthz = under(address.place(), "/healthz")?;
        let streams = match protocol {
            Protocol::Streams(count) | Protocol::StreamsIfOffered(count) => {
                let mut request = Request::new(());
                *request.method_mut() = Method::POST;
                *request.uri_mut() = under(address.place(), "/publish/stream")?;
                let headers = request.headers_mut();
                headers.extend([(USER_AGENT, AGENT), (CONTENT_TYPE, NDJSON), (ACCEPT, NDJSON)]);
                headers.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
                let transport = Transport::for_streams(address.place(), timeout)?;
                let is_optional = matches!(protocol, Protocol::StreamsIfOffered(_));
                Some(Streams::new(count.get(), transport, request, timeout, is_optional))
            }
            Protocol::Http1 | Protocol::Http2 => None,
        };
        let jitter = Mutex::new(ChaCha8Rng::seed_from_u64(jitter_seed));
        let via = via_proxy(&publish);
        Ok(Self {
            transport,
            streams,
            address,
            authorization,
            via,
            publish,
            publish_for_all,
            healthz,
            retry_for,
            backoff_max,
            jitter,
        })
    }

    /// Whether bodies of lines go over streams.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        self.streams.is_some()
    }

    /// Where the service is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where the service is, as it may be seen by anybody.
    #[must_use]
    pub fn url(&self) -> &str {
        self.address.shown()
    }

    /// Waits until `GET /healthz` answers 200.
    ///
    /// # Errors
    ///
    /// If it does not within `wait_for`; the message names the URL and what was
    /// answered last.
    pub async fn wait_until_healthy(&self, wait_for: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let last = match self.poll_health().await {
                Ok(Reply { status: StatusCode::OK, .. }) => return Ok(()),
                Ok(Reply { status, body: Ok(body), .. }) => format!("{status}: {}", excerpt(&body)),
                Ok(Reply { status, body: Err(error), .. }) => {
                    format!("{status}, and {}", error.text)
                }
                Err(error) => error.text,
            };
            if began.elapsed() >= wait_for {
                let seconds = wait_for.as_secs_f64();
                bail!(
                    "the service at {} is not healthy after {seconds} s: {last}{}\n\
                     Is it running there? --url or SEKALI_URL says where it is.",
                    self.url(),
                    self.via
                );
            }
            tokio::time::sleep(Duration::from_millis(HEALTH_POLL_MS)).await;
        }
    }

    /// Whether anybody listens where the service is.
    pub async fn is_listening(&self) -> bool {
        !self.poll_health().await.is_err_and(|error| error.kind == ErrorKind::Connect)
    }

    /// Whether the service is there and healthy.
    pub async fn is_healthy(&self) -> bool {
        self.poll_health().await.is_ok_and(|reply| reply.status == StatusCode::OK)
    }

    async fn poll_health(&self) -> Result<Reply, Error> {
        self.transport.send(self.read_request(&self.healthz)).await
    }

    /// `GET /stats`: the counters in all, and those of the first topics.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn stats(&self) -> Result<Stats, Failure> {
        self.get("/stats", &[]).await
    }

    /// The counters in all and those of every topic, read page by page.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn stats_of_all_topics(&self) -> Result<Stats, Failure> {
        let mut all = self.stats().await?;
        let mut is_mixed = false;
        let mut next = all.topics_next.clone();
        while let Some(after) = next {
            let page: Stats = self.get("/stats", &[("topics_after", &after)]).await?;
            // Counters only grow: with the same totals they are all the same.
            is_mixed |= page.total != all.total;
            next = page.topics_next.clone().filter(|next| *next > after);
            let mut by_topic = std::mem::take(&mut all.by_topic);
            all = page;
            by_topic.append(&mut all.by_topic);
            all.by_topic = by_topic;
        }
        Ok(Stats { is_mixed, topics_next: None, ..all })
    }

    /// A page of `GET /events`: of a topic, in order, after a cursor.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn events(
        &self,
        topic: &str,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Page, Failure> {
        let limit = limit.to_string();
        let mut query = vec![("topic", topic), ("limit", &limit)];
        query.extend(after.map(|after| ("after", after)));
        self.page(&query).await
    }

    /// A page of `GET /events`, with these parameters.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn page(&self, query: &[(&str, &str)]) -> Result<Page, Failure> {
        self.get("/events", query).await
    }

    /// `GET` of a path with its query: the body of a reply with status 200.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn read(&self, path: &str) -> Result<Bytes, Failure> {
        let uri = under(self.address.place(), path).map_err(invalid)?;
        let read = |body: &Bytes| Ok(body.clone());
        let attempt = || attempt(&self.transport, self.read_request(&uri), read);
        self.with_retries(None, attempt, || ()).await.0
    }

    /// `POST` of a body of such a type to a path with its query: the body of a reply
    /// with status 200.
    ///
    /// # Errors
    ///
    /// If there is no such reply, also after retries.
    pub async fn post(
        &self,
        path: &str,
        media_type: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let uri = under(self.address.place(), path).map_err(invalid)?;
        let request = || {
            let mut request = self.request(Method::POST, &uri, ANYTHING, body.clone());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            request
        };
        let attempt = || attempt(&self.transport, request(), |body| Ok(body.clone()));
        self.with_retries(None, attempt, || ()).await.0
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let mut url = self.address.place().clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let uri = url.as_str().parse().map_err(invalid)?;
        let attempt = || attempt(&self.transport, self.read_request(&uri), json);
        self.with_retries(None, attempt, || ()).await.0
    }

    /// `POST /publish`, for a short reply: it may not name
    /// every event that was not accepted. Before each attempt but the first
    /// `before_retry` is called.
    pub async fn publish(&self, body: Body, before_retry: impl FnMut()) -> Delivery {
        self.publish_naming(Naming::Some, body, before_retry).await
    }

    /// The same, for a reply that names the events that are asked for.
    pub async fn publish_naming(
        &self,
        naming: Naming,
        body: Body,
        before_retry: impl FnMut(),
    ) -> Delivery {
        self.deliver(None, naming, body, before_retry).await
    }

    /// `failed` is an attempt that was made already.
    async fn deliver(
        &self,
        failed: Option<Retryable>,
        naming: Naming,
        body: Body,
        mut before_retry: impl FnMut(),
    ) -> Delivery {
        let began = Instant::now();
        let all = AtomicBool::new(naming == Naming::All);
        let before_retry = || {
            all.fetch_or(naming == Naming::AllAfterRetry, Ordering::Relaxed);
            before_retry();
        };
        let request = || {
            let uri =
                if all.load(Ordering::Relaxed) { &self.publish_for_all } else { &self.publish };
            let mut request = self.request(Method::POST, uri, JSON, body.bytes.clone());
            let media_type = if body.form == Form::Json { JSON } else { NDJSON };
            request.headers_mut().insert(CONTENT_TYPE, media_type);
            if body.is_gzip {
                request.headers_mut().insert(CONTENT_ENCODING, GZIP);
            }
            request
        };
        let (outcome, attempts) = match (&self.streams, body.form) {
            (Some(streams), Form::Lines(events)) => {
                let attempt = || streams.deliver(body.bytes.clone(), events);
                self.with_retries(failed, attempt, before_retry).await
            }
            _ => {
                let attempt = || attempt(&self.transport, request(), json);
                self.with_retries(failed, attempt, before_retry).await
            }
        };
        let Attempts { transient_errors, indeterminate, bytes_received } = attempts;
        Delivery {
            outcome,
            transient_errors,
            indeterminate,
            elapsed: began.elapsed(),
            bytes_received,
        }
    }

    /// Sends until there is an answer or the time for retries ends; first waits, if an
    /// attempt has `failed` already.
    async fn with_retries<T, Attempting: Future<Output = Attempt<T>>>(
        &self,
        mut failed: Option<Retryable>,
        attempt: impl Fn() -> Attempting,
        mut before_retry: impl FnMut(),
    ) -> (Result<T, Failure>, Attempts) {
        let began = Instant::now();
        let mut retries = 0_u32;
        let mut attempts = Attempts::default();
        loop {
            let attempt = match failed.take() {
                Some(failed) => Attempt::Retryable(failed),
                None => attempt().await,
            };
            let failed = match attempt {
                Attempt::Reply(reply, bytes) => {
                    attempts.bytes_received = bytes;
                    return (Ok(reply), attempts);
                }
                Attempt::Final(failure) => return (Err(failure.by_way(&self.via)), attempts),
                Attempt::Retryable(failed) => failed,
            };
            attempts.transient_errors.push(failed.error);
            attempts.indeterminate += u64::from(failed.indeterminate);
            let backoff =
                retry::backoff(retries, failed.retry_after, self.backoff_max, self.jitter());
            let elapsed = began.elapsed();
            if elapsed.saturating_add(backoff) > self.retry_for {
                let mut last = failed.why;
                if let Some(asked) = failed.retry_after.filter(|_| !self.retry_for.is_zero()) {
                    last = format!("{last}; asked to wait {} s", asked.as_secs());
                }
                let tried = u64::from(retries) + 1;
                let failure =
                    Failure::GaveUp { error: failed.error, last, attempts: tried, elapsed };
                return (Err(failure.by_way(&self.via)), attempts);
            }
            tokio::time::sleep(backoff).await;
            before_retry();
            retries = retries.saturating_add(1);
        }
    }

    fn read_request(&self, uri: &Uri) -> Request<Bytes> {
        self.request(Method::GET, uri, ANYTHING, Bytes::new())
    }

    fn request(
        &self,
        method: Method,
        uri: &Uri,
        accept: HeaderValue,
        body: Bytes,
    ) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, accept);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// A random number in `0.0..1.0`.
    fn jitter(&self) -> f64 {
        use rand::RngExt as _;
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// What it took to get an answer.
#[derive(Debug, Default)]
struct Attempts {
    transient_errors: Vec<TransientError>,
    indeterminate: u64,
    bytes_received: u64,
}

/// What is at a path of the service.
fn under(service: &Url, path: &str) -> Result<Uri, InvalidUri> {
    format!("{}{path}", service.as_str().trim_end_matches('/')).parse()
}

/// What the end of an error's message says about a proxy.
fn via_proxy(uri: &Uri) -> String {
    let variable = if uri.scheme_str() == Some("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    transport::proxy_before(uri).map_or_else(String::new, |proxy| {
        format!(" (through the proxy {proxy}, which {variable} or ALL_PROXY names)")
    })
}

fn invalid(error: InvalidUri) -> Failure {
    Failure::Protocol(error.to_string())
}

fn json<T: DeserializeOwned>(body: &Bytes) -> serde_json::Result<T> {
    serde_json::from_slice(body)
}
