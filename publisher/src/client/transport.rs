//! One request and its reply.
//!
//! Plain HTTP/1.1 goes over hyper's own connections; TLS, HTTP/2 and proxies
//! are reqwest's. Of CPU a request takes half of what reqwest takes of it, and
//! there are exactly as many connections as there are requests under way at a
//! time, where a pool that connects while it waits has up to twice as many. Both
//! are seen in what is measured of a service on the same machine.
//!
//! A stream goes the same ways as any request. Both read the reply while the body
//! of the request goes on.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::net::TcpStream;
use tower_service::Service as _;

/// The time to open a connection may take, in seconds.
const CONNECT_SECONDS_MAX: u64 = 10;
/// How long a connection may lie idle, in seconds: others may have forgotten it
/// by then.
const IDLE_SECONDS_MAX: u64 = 90;
/// The time without traffic after which a peer is asked whether it is there, in
/// seconds.
const KEEPALIVE_SECONDS: u64 = 15;
/// How long such a peer has for its answer, in seconds.
const KEEPALIVE_ANSWER_SECONDS_MAX: u64 = 15;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a connection for each request under way.
    #[default]
    Http1,
    /// HTTP/2 without TLS and from the start (h2c), one connection for all.
    Http2,
    /// As [`Protocol::Http1`], and so many long requests for all bodies of lines.
    Streams(NonZeroUsize),
    /// The same where the service offers them.
    StreamsIfOffered(NonZeroUsize),
}

/// A request with a body that goes on, in pieces.
pub(super) trait Up:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Sync + 'static
{
}

impl<B> Up for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Sync
        + 'static
{
}

/// A reply that is read as it comes.
pub(super) type Down = UnsyncBoxBody<Bytes, Error>;

/// A reply, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Or why its end did not come.
    pub(super) body: Result<Bytes, Error>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) kind: ErrorKind,
    /// On one line.
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// There was no connection.
    Connect,
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
}

/// The proxy that the environment puts before a service, without what it is
/// told about who asks: `http://proxy:3128`.
#[must_use]
pub(super) fn proxy_before(service: &Uri) -> Option<String> {
    let proxy = Matcher::from_system().intercept(service)?;
    let uri = proxy.uri();
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", uri.scheme_str().unwrap_or("http"), uri.host()?))
}

/// A way to one service.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Plain),
    Full(reqwest::Client),
}

impl Transport {
    /// Sets it up for a place without credentials; nothing is sent yet. `timeout` is for a request with its reply.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub(super) fn new(url: &Url, protocol: Protocol, timeout: Duration) -> anyhow::Result<Self> {
        Self::of(url, timeout, protocol != Protocol::Http2, || {
            let builder = full(timeout).timeout(timeout);
            match protocol {
                Protocol::Http2 => builder.http2_prior_knowledge(),
                _ => builder,
            }
        })
    }

    /// The same for streams, which take as long as they take. TLS negotiates HTTP/2 or
    /// HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub(super) fn for_streams(url: &Url, timeout: Duration) -> anyhow::Result<Self> {
        Self::of(url, timeout, true, || {
            // A connection that died without a word would have the next stream, too.
            full(timeout)
                .tcp_keepalive(Duration::from_secs(KEEPALIVE_SECONDS))
                .http2_keep_alive_interval(Duration::from_secs(KEEPALIVE_SECONDS))
                .http2_keep_alive_timeout(Duration::from_secs(KEEPALIVE_ANSWER_SECONDS_MAX))
        })
    }

    fn of(
        url: &Url,
        timeout: Duration,
        may_be_plain: bool,
        full: impl FnOnce() -> reqwest::ClientBuilder,
    ) -> anyhow::Result<Self> {
        let service: Uri = url.as_str().parse().context("cannot use such a URL")?;
        let direct = url.scheme() == "http" && proxy_before(&service).is_none();
        Ok(match direct && may_be_plain {
            true => Self::Plain(Plain::new(service, timeout)?),
            false => Self::Full(full().build().context("cannot set up the HTTP client")?),
        })
    }

    /// Sends a request once.
    ///
    /// # Errors
    ///
    /// If there is no reply.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Reply, Error> {
        match self {
            Self::Plain(plain) => plain.send(request).await,
            Self::Full(client) => {
                let (head, body) = request.into_parts();
                let request = client.request(head.method, head.uri.to_string());
                let response = request.headers(head.headers).body(body).send().await?;
                let (status, headers) = (response.status(), response.headers().clone());
                let body = response.bytes().await.map_err(Error::from);
                Ok(Reply { status, headers, body })
            }
        }
    }

    /// Sends a request whose body goes on. How long its reply takes is up to the
    /// caller.
    ///
    /// # Errors
    ///
    /// If there is no reply.
    pub(super) async fn open(&self, request: Request<impl Up>) -> Result<Response<Down>, Error> {
        match self {
            Self::Plain(plain) => plain.open(request).await,
            Self::Full(client) => {
                let (head, body) = request.into_parts();
                let request = client.request(head.method, head.uri.to_string());
                let body = reqwest::Body::wrap(body);
                let response = request.headers(head.headers).body(body).send().await?;
                let response = Response::<reqwest::Body>::from(response);
                Ok(response.map(|body| body.map_err(Error::from).boxed_unsync()))
            }
        }
    }
}

fn connect_timeout(timeout: Duration) -> Duration {
    Duration::from_secs(CONNECT_SECONDS_MAX).min(timeout)
}

fn full(timeout: Duration) -> reqwest::ClientBuilder {
    // Fails only if a provider is installed already, which does as well.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    reqwest::Client::builder()
        .tcp_nodelay(true)
        .connect_timeout(connect_timeout(timeout))
        // A redirected POST would arrive as a GET, without its events.
        .redirect(reqwest::redirect::Policy::none())
}

/// Connections to one service, each for one request at a time.
#[derive(Debug)]
pub(super) struct Plain {
    connector: HttpConnector,
    service: Uri,
    host: HeaderValue,
    timeout: Duration,
    /// The one that was used last is at the end.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Plain {
    fn new(service: Uri, timeout: Duration) -> anyhow::Result<Self> {
        let authority = service.authority().context("a URL without a host")?;
        let host = HeaderValue::from_str(authority.as_str()).context("cannot use such a host")?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout(timeout)));
        connector.set_keepalive(Some(Duration::from_secs(KEEPALIVE_SECONDS)));
        Ok(Self { connector, service, host, timeout, idle: Mutex::default() })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Reply, Error> {
        let request = self.addressed(request);
        match tokio::time::timeout(self.timeout, self.exchange(request.map(Full::new))).await {
            Ok(reply) => reply,
            Err(_) => Err(Error {
                kind: ErrorKind::Timeout,
                text: format!("no reply within {} s", self.timeout.as_secs_f64()),
            }),
        }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, Error> {
        loop {
            let (mut connection, reused) = match self.take_idle() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            // One that lay idle may have been closed by the service; then the
            // request was not sent, and is for another one.
            if let Err(error) = connection.ready().await {
                if reused {
                    continue;
                }
                return Err(broken(&error));
            }
            let response = match connection.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(broken(error.error())),
                },
            };
            let (head, body) = response.into_parts();
            let body = match body.collect().await {
                Ok(body) => {
                    self.put_back(connection);
                    Ok(body.to_bytes())
                }
                Err(error) => Err(broken(&error)),
            };
            return Ok(Reply { status: head.status, headers: head.headers, body });
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let Idle { connection, since } = idle.pop()?;
        if since.elapsed() > Duration::from_secs(IDLE_SECONDS_MAX) {
            // And all others lay longer.
            idle.clear();
            return None;
        }
        Some(connection)
    }

    fn put_back(&self, connection: SendRequest<Full<Bytes>>) {
        if !connection.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Sends a request whose body goes on, on a connection of its own.
    async fn open(&self, request: Request<impl Up>) -> Result<Response<Down>, Error> {
        let request = self.addressed(request);
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await.map_err(|error| broken(&error))?;
        Ok(response.map(|body| body.map_err(|error| broken(&error)).boxed_unsync()))
    }

    /// The request as it goes to the service: what is asked for, without where it is.
    fn addressed<B>(&self, mut request: Request<B>) -> Request<B> {
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(target) = request.uri().path_and_query() {
            *request.uri_mut() = Uri::from(target.clone());
        }
        request
    }

    async fn connect<B>(&self) -> Result<SendRequest<B>, Error>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let failed = |error: &(dyn std::error::Error + 'static)| Error {
            kind: ErrorKind::Connect,
            text: chain(error),
        };
        let mut connector = self.connector.clone();
        let ready = std::future::poll_fn(|context| connector.poll_ready(context)).await;
        ready.map_err(|error| failed(&error))?;
        let stream: TokioIo<TcpStream> =
            connector.call(self.service.clone()).await.map_err(|error| failed(&error))?;
        // A port that nobody listens on, among those that the system gives to clients,
        // may be given to this very connection, which is then one to itself and keeps
        // the service from its port.
        let (ours, theirs) = (stream.inner().local_addr(), stream.inner().peer_addr());
        if ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| ours == theirs)) {
            let text = "nobody listens there".to_owned();
            return Err(Error { kind: ErrorKind::Connect, text });
        }
        let (connection, driver) =
            http1::handshake(stream).await.map_err(|error| failed(&error))?;
        // Its error reaches the request that waits for it.
        tokio::spawn(driver);
        Ok(connection)
    }
}

fn broken(error: &hyper::Error) -> Error {
    Error { kind: ErrorKind::Broken, text: chain(error) }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        let kind = if error.is_connect() {
            ErrorKind::Connect
        } else if error.is_timeout() {
            ErrorKind::Timeout
        } else {
            ErrorKind::Broken
        };
        Self { kind, text: chain(&error) }
    }
}

/// An error with its causes on one line; the text of most leaves them out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    /// Answers one request on each connection, and closes it without a word.
    async fn answer_once_each(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_it_lay_idle_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(answer_once_each(listener));
        let service = url.parse().unwrap();
        let plain = Plain::new(service, TIMEOUT).unwrap();
        let idle_is_closed = || {
            let idle = plain.idle.lock().unwrap();
            idle.last().is_none_or(|idle| idle.connection.is_closed())
        };
        for _ in 0..3 {
            let reply = plain.send(get(&url)).await.unwrap();
            assert_eq!((reply.status, &reply.body.unwrap()[..]), (StatusCode::OK, &b"ok"[..]));
            while !idle_is_closed() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn plain_http_goes_without_reqwest() {
        for (url, protocol, plain) in [
            ("http://127.0.0.1:3000/", Protocol::Http1, true),
            ("http://127.0.0.1:3000/under/", Protocol::Http1, true),
            ("http://127.0.0.1:3000/", Protocol::Http2, false),
            ("https://127.0.0.1:3000/", Protocol::Http1, false),
        ] {
            let transport = Transport::new(&url.parse().unwrap(), protocol, TIMEOUT).unwrap();
            assert_eq!(matches!(transport, Transport::Plain(_)), plain, "{url} {protocol:?}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let transport = Transport::new(&url.parse().unwrap(), Protocol::Http1, TIMEOUT).unwrap();
        let error = transport.send(get(&url)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Connect, "{}", error.text);
        assert!(error.text.contains("refused"), "{}", error.text);
    }
}
