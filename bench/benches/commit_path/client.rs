//! A lean HTTP client: one connection, one request at a time, every reply checked.
//!
//! A request that is refused for now (503), or has no reply, is sent again as
//! it was until it is acknowledged, as a client of Sekali should. So what the
//! store has to hold in the end is known exactly.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::events::Feed;

/// How often a request is sent before the benchmark gives up.
const ATTEMPTS_MAX: u32 = 50;

/// Pause before a request is sent again.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// Events on a page that is read.
pub const PAGE_EVENTS: u64 = 100;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Work {
    /// `GET`; the status is checked.
    Get(Uri),
    /// `GET` of a page, which has to be full.
    Page(Uri),
    /// `POST /publish` of so many events.
    Publish(u64),
}

/// What the replies said, and which there were none of.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tally {
    /// Events that were stored.
    pub accepted: u64,
    /// Events that had been stored before.
    pub duplicates: u64,
    /// Requests that were answered 503, and sent again.
    pub refused_requests: u64,
    /// Requests that had no reply, and were sent again.
    pub unanswered_requests: u64,
    /// Events in them.
    pub unanswered_events: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.refused_requests += other.refused_requests;
        self.unanswered_requests += other.unanswered_requests;
        self.unanswered_events += other.unanswered_events;
    }
}

/// The reply to a publish; of each event more is said, which is left unread.
#[derive(Deserialize)]
struct Published {
    accepted: u64,
    duplicates: u64,
    conflicts: u64,
    rejected: u64,
}

#[derive(Deserialize)]
struct Page {
    count: u64,
}

/// A server, and where the deliveries for its store come from.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    host: HeaderValue,
    publish: Uri,
    /// Where its deliveries come from.
    pub feed: Feed,
}

impl Target {
    /// The server at `url`, which has a host and a port alone.
    ///
    /// # Errors
    ///
    /// If that is not so, or the host has no address.
    pub fn new(url: &str, feed: Feed) -> Result<Self> {
        let wrong = || format!("{url:?} is not like http://127.0.0.1:3000");
        let parsed: Uri = url.parse().with_context(wrong)?;
        ensure!(parsed.scheme_str() == Some("http") && parsed.path() == "/", wrong());
        let authority = parsed.authority().with_context(wrong)?;
        let port = authority.port_u16().unwrap_or(80);
        let mut addresses = (authority.host(), port)
            .to_socket_addrs()
            .with_context(|| format!("cannot find {authority}"))?;
        Ok(Target {
            address: addresses.next().with_context(|| format!("{authority} has no address"))?,
            host: HeaderValue::from_str(authority.as_str()).with_context(wrong)?,
            publish: Uri::from_static("/publish"),
            feed,
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let context = || format!("cannot connect to {}", self.address);
        let stream = TcpStream::connect(self.address).await.with_context(context)?;
        stream.set_nodelay(true).with_context(context)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.with_context(context)?;
        // An error of the connection reaches the request that waits for it.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A request as it is sent, once or more often.
pub struct Prepared {
    method: Method,
    path: Uri,
    body: Bytes,
    work: Work,
}

/// One connection, opened when it is first used and again when it was lost.
pub struct Worker {
    target: Arc<Target>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// The memory of the last body, which serves for the next.
    buffer: BytesMut,
    /// What its requests came to.
    pub tally: Tally,
}

impl Worker {
    /// One that is not connected yet.
    pub fn new(target: Arc<Target>) -> Self {
        Worker { target, connection: None, buffer: BytesMut::new(), tally: Tally::default() }
    }

    /// One that is connected.
    ///
    /// # Errors
    ///
    /// If the server does not take connections.
    pub async fn connected(target: &Arc<Target>) -> Result<Self> {
        let mut worker = Worker::new(Arc::clone(target));
        worker.connect().await?;
        Ok(worker)
    }

    async fn connect(&mut self) -> Result<&mut SendRequest<Full<Bytes>>> {
        match self.connection {
            Some(ref mut connection) => Ok(connection),
            None => Ok(self.connection.insert(self.target.connect().await?)),
        }
    }

    /// Takes the next deliveries for a request, which has to be sent now.
    ///
    /// # Errors
    ///
    /// None that can be told how to come about.
    pub fn prepare(&mut self, work: &Work) -> Result<Prepared> {
        self.buffer.clear();
        let (method, path) = match work {
            Work::Get(path) | Work::Page(path) => (Method::GET, path.clone()),
            Work::Publish(events) => {
                let feed = &self.target.feed;
                feed.mix().write_body(feed.take(*events), &mut self.buffer)?;
                (Method::POST, self.target.publish.clone())
            }
        };
        Ok(Prepared { method, path, body: self.buffer.split().freeze(), work: work.clone() })
    }

    /// Sends a request until it is acknowledged.
    ///
    /// # Errors
    ///
    /// If it never is, or the reply is not what it has to be.
    pub async fn acknowledge(&mut self, request: &Prepared) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            match self.exchange(request).await {
                Ok((StatusCode::OK, reply)) => return self.check(&request.work, &reply),
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => self.tally.refused_requests += 1,
                Ok((status, reply)) => bail!(
                    "{} {} was answered {status}: {}",
                    request.method,
                    request.path,
                    String::from_utf8_lossy(&reply)
                ),
                Err(_) => {
                    self.connection = None;
                    self.tally.unanswered_requests += 1;
                    if let Work::Publish(events) = request.work {
                        self.tally.unanswered_events += events;
                    }
                }
            }
            tokio::time::sleep(RESEND_PAUSE).await;
        }
        bail!("{} {} is not answered, {ATTEMPTS_MAX} times", request.method, request.path)
    }

    /// Sends a request once, for the body of the reply.
    ///
    /// # Errors
    ///
    /// If there is none, or its status is not 200.
    pub async fn get(&mut self, path: Uri) -> Result<Bytes> {
        let work = Work::Get(path);
        let request = self.prepare(&work)?;
        let (status, reply) = self.exchange(&request).await?;
        ensure!(status == StatusCode::OK, "GET {} was answered {status}", request.path);
        Ok(reply)
    }

    async fn exchange(&mut self, prepared: &Prepared) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = prepared.method.clone();
        *request.uri_mut() = prepared.path.clone();
        request.headers_mut().insert(HOST, self.target.host.clone());
        if prepared.method == Method::POST {
            request.headers_mut().insert(CONTENT_TYPE, JSON);
        }
        let connection = self.connect().await?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    fn check(&mut self, work: &Work, reply: &[u8]) -> Result<()> {
        let unexpected =
            || format!("not the reply to {work:?}: {}", String::from_utf8_lossy(reply));
        match work {
            Work::Get(_) => {}
            Work::Page(_) => {
                let page: Page = serde_json::from_slice(reply).with_context(unexpected)?;
                ensure!(page.count == PAGE_EVENTS, unexpected());
            }
            Work::Publish(events) => {
                let counts: Published = serde_json::from_slice(reply).with_context(unexpected)?;
                let sum = counts.accepted + counts.duplicates;
                let harmless = counts.conflicts == 0 && counts.rejected == 0;
                ensure!(sum == *events && harmless, unexpected());
                self.tally.accepted += counts.accepted;
                self.tally.duplicates += counts.duplicates;
            }
        }
        Ok(())
    }
}
