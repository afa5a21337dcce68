//! HTTP connections (HTTP/1.1, and HTTP/2 without TLS), and their end.
//!
//! As in Spin: no `TCP_NODELAY`, no bound on requests; a path without a route is
//! a 404 with no body, and whatever the component fails with is a 500 with no
//! body. A request without a valid authority is not answered at all: its
//! connection is closed.
//!
//! Unlike in Spin there are limits for slow and silent clients, and for the
//! number of connections: see `connections` and `request_body`.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};

use crate::components::{Components, failure};
use crate::connections::{
    Admitted, ConnectionLimits, Connections, Overdue, SharedStream, UnderWay, WatchedIo,
};
use crate::console;
use crate::request_body::{BodyLimits, Exchange, RequestBody};
use crate::routes::Routes;
use crate::signals::Signals;

/// How long requests under way may take once the server has been told to stop.
const SHUTDOWN_WAIT_SECONDS_MAX: u64 = 30;
/// How long to wait before accepting again when there is no room for another
/// connection.
const ACCEPT_RETRY_WAIT_MILLISECONDS: u64 = 100;

/// How long a client of an event stream has, once the server has been told to
/// stop, to take what is on its way.
const STREAM_END_WAIT_SECONDS: u64 = 2;

/// Requests that one HTTP/2 connection has under way at a time.
const HTTP_2_REQUESTS_MAX: u32 = 200;
/// How often a client of HTTP/2 is asked whether it is still there, in seconds,
/// and how long it has to answer. One whose machine is gone never closes.
const HTTP_2_PING_INTERVAL_SECONDS: u64 = 30;
const HTTP_2_PING_WAIT_SECONDS_MAX: u64 = 30;

/// What a client is told whose head does not come to its end.
const HEAD_TIMEOUT: &str =
    "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// What a client is told for which there is no room.
const NO_ROOM: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";
/// How long a client that is refused may take to read that, in milliseconds: to
/// close a connection in which something is unread takes the reply away again.
const REFUSAL_WAIT_MS_MAX: u64 = 1000;
/// Clients that are given that time at a time; others are closed at once.
const REFUSALS_MAX: usize = 64;

/// A reply that goes on until its client leaves, or the server.
const EVENT_STREAM: &str = "text/event-stream";

/// Paths that Spin answers itself.
const WELL_KNOWN: &str = "/.well-known/spin/";
/// A `Host` that Spin keeps to itself, for components that call each other.
const SERVICE_CHAINING_SUFFIX: &str = ".spin.internal";

type Body = UnsyncBoxBody<Bytes, wasmtime::Error>;

/// One application, being served.
pub(crate) struct Server {
    /// Which paths belong to which component.
    pub routes: Routes,
    /// The components.
    pub components: Arc<Components>,
    /// What `/.well-known/spin/info` answers.
    pub info: Bytes,
    /// What connections may take.
    pub limits: Limits,
}

/// What clients may take of time and room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of a connection.
    pub connection: ConnectionLimits,
    /// Of the body of a request.
    pub body: BodyLimits,
    /// Connections at a time.
    pub connections_max: usize,
}

/// How serving came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Requests under way were answered, or took too long.
    Gracefully,
    /// The second signal came before that.
    AtOnce,
}

/// Listens on `address`.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow!(
            "cannot listen on {address} ({error}): \
             stop what uses it or pass another address with --listen"
        )
    })
}

/// Accepts connections until one of `signals`.
///
/// "Serving" is printed once connections are accepted and signals are handled.
pub(crate) async fn serve(
    server: Server,
    listener: TcpListener,
    mut signals: Signals,
) -> Result<Stopped> {
    announce(&server.routes, listener.local_addr()?);

    let server = Arc::new(server);
    // Each connection has a receiver: that the sender is gone tells it to stop,
    // that no receiver is left tells that all have.
    let (stop, stopped) = watch::channel(());
    let (all_closed, closed) = watch::channel(());
    let connections = Connections::new(server.limits.connections_max);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut accepting = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    accepting = true;
                    if let Some(admitted) = connections.admit().await {
                        let (server, stopped, closed, refusals) =
                            (server.clone(), stopped.clone(), closed.clone(), refusals.clone());
                        tokio::spawn(async move {
                            let late = connect(server, stream, client, admitted, stopped).await;
                            drop(closed);
                            if let Some(stream) = late {
                                refuse(stream, HEAD_TIMEOUT, &refusals).await;
                            }
                        });
                    } else {
                        let refusals = refusals.clone();
                        tokio::spawn(async move { refuse(stream, NO_ROOM, &refusals).await });
                    }
                }
                Err(error) => {
                    // Once, not with every retry.
                    if std::mem::take(&mut accepting) {
                        console::message(format_args!("cannot accept connections for now: {error}"));
                    }
                    // Most likely there are no file descriptors left.
                    if !connections.close_one().await {
                        sleep(Duration::from_millis(ACCEPT_RETRY_WAIT_MILLISECONDS)).await;
                    }
                }
            },
            () = signals.next() => break,
        }
    }
    drop(closed);
    drop(listener);
    drop(stop);
    console::message(
        "Stopping: requests under way are finished first; a second signal ends at once",
    );
    let limit = Duration::from_secs(SHUTDOWN_WAIT_SECONDS_MAX);
    tokio::select! {
        finished = timeout(limit, all_closed.closed()) => {
            if finished.is_err() {
                console::message(format_args!(
                    "requests under way were dropped after {SHUTDOWN_WAIT_SECONDS_MAX} s"
                ));
            }
            Ok(Stopped::Gracefully)
        }
        () = signals.next() => Ok(Stopped::AtOnce),
    }
}

/// Prints where the application is served: for programs the first line, for
/// people a request that works.
fn announce(routes: &Routes, address: SocketAddr) {
    let base_url = format!("http://{address}");
    let mut text = format!("Serving {base_url}\nAvailable Routes:\n{}", routes.describe(&base_url));
    if routes.component("/publish").is_some() {
        text.push_str(&format!(
            "Publish an event:\n  curl -X POST {base_url}/publish -d \
             '{{\"topic\":\"demo\",\"event_id\":\"1\",\"source\":\"curl\",\"payload\":{{\"hello\":\"world\"}}}}'\n"
        ));
    }
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        console::message(format_args!(
            "cannot write to stdout ({error}); serving {base_url} all the same"
        ));
    }
}

/// Serves a connection to its end; the stream is returned if a head did not come
/// to its own.
async fn connect(
    server: Arc<Server>,
    stream: TcpStream,
    client: SocketAddr,
    admitted: Admitted,
    mut stopped: watch::Receiver<()>,
) -> Option<TcpStream> {
    let limits = server.limits.connection;
    let activity = Arc::clone(admitted.activity());
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP_2_REQUESTS_MAX)
        .keep_alive_interval(Duration::from_secs(HTTP_2_PING_INTERVAL_SECONDS))
        .keep_alive_timeout(Duration::from_secs(HTTP_2_PING_WAIT_SECONDS_MAX));
    let streams = Arc::new(AtomicBool::new(false));
    let mut streams_end = pin!(end_of_streams(stopped.clone(), streams.clone()));
    let service = {
        let (stopped, activity) = (stopped.clone(), activity.clone());
        service_fn(move |request| {
            let under_way = activity.request();
            let (server, stopped, streams) = (server.clone(), stopped.clone(), streams.clone());
            async move {
                let response = server.answer(request, client).await?;
                let stopped = is_event_stream(&response).then(|| {
                    streams.store(true, Ordering::Relaxed);
                    stopped
                });
                Ok::<_, anyhow::Error>(watched(response, under_way, stopped))
            }
        })
    };
    let stream = SharedStream::new(stream);
    let io = TokioIo::new(WatchedIo::new(stream.clone(), activity.clone()));
    let mut connection = Box::pin(builder.serve_connection(io, service).into_owned());
    let mut is_stopping = false;
    // No limit is shorter, so that none is looked at too late.
    let look_interval = limits.head_time_max.min(limits.idle_time_max).min(limits.reply_pause_max);
    let head_is_late = loop {
        let now = Instant::now();
        let deadline = activity.deadline(&limits);
        let to_close = match deadline {
            Some((at, overdue)) if at <= now => Some(overdue),
            _ => None,
        };
        let to_close = match to_close {
            Some(Overdue::Head) => break true,
            Some(Overdue::Reply) => break false,
            Some(Overdue::Idle) => true,
            None => {
                let look = now.checked_add(look_interval);
                let look = deadline.map(|(at, _)| at).into_iter().chain(look).min();
                tokio::select! {
                    biased;
                    // How it ends is the client's doing, or already reported
                    // where it happened.
                    _ = connection.as_mut() => break false,
                    () = &mut streams_end => break false,
                    // It never changes; the other half is dropped.
                    _ = stopped.changed(), if !is_stopping => {
                        is_stopping = true;
                        connection.as_mut().graceful_shutdown();
                        false
                    }
                    () = activity.asked_to_close() => true,
                    () = look_at(look) => false,
                }
            }
        };
        if to_close {
            let has_ended = activity.idle_since().is_some() && {
                connection.as_mut().graceful_shutdown();
                // Says good-bye, or finds that a request has come meanwhile.
                ends_at_once(connection.as_mut()).await
            };
            if has_ended || activity.idle_since().is_some() {
                break false;
            }
            activity.settle();
        }
    };
    drop(connection);
    head_is_late.then(|| stream.into_inner()).flatten()
}

/// Ends at `moment`, if there is one.
async fn look_at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Polls a future once, and tells whether that has ended it.
async fn ends_at_once<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

/// Sends this last reply, and gives the client time to read it if there are not
/// too many that are given time.
async fn refuse(mut stream: TcpStream, reply: &str, refusals: &Semaphore) {
    let permit = refusals.try_acquire();
    let told = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while permit.is_ok() && stream.read(&mut unread).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // It was refused; whether it has heard so is its affair.
    drop(timeout(Duration::from_millis(REFUSAL_WAIT_MS_MAX), told).await);
}

fn is_event_stream(response: &Response<Body>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|content_type| content_type == EVENT_STREAM)
}

/// When a connection with event streams is given up: a client that does not
/// read what was sent to it never sees their end.
async fn end_of_streams(mut stopped: watch::Receiver<()>, streams: Arc<AtomicBool>) {
    // It never changes; the other half is dropped.
    drop(stopped.changed().await);
    if !streams.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    sleep(Duration::from_secs(STREAM_END_WAIT_SECONDS)).await;
}

/// A reply whose request is under way until it is sent. An event stream ends when
/// the server is told to stop: as a request under way it would hold that up for
/// ever. Its client connects again later.
fn watched(
    response: Response<Body>,
    under_way: UnderWay,
    stopped: Option<watch::Receiver<()>>,
) -> Response<WatchedBody> {
    let stopped = stopped.map(|mut stopped| {
        // It never changes; the other half is dropped.
        Box::pin(async move { drop(stopped.changed().await) }) as Pin<Box<_>>
    });
    response.map(|body| WatchedBody { body, stopped, _under_way: under_way })
}

/// A body that ends, whole or not, when `stopped` does.
struct WatchedBody {
    body: Body,
    stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _under_way: UnderWay,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = wasmtime::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, wasmtime::Error>>> {
        if let Some(stopped) = &mut self.stopped
            && stopped.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Server {
    /// An error closes the connection without an answer.
    async fn answer(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        strip_headers(&mut parts.headers);
        if let Some(name) = parts.uri.path().strip_prefix(WELL_KNOWN) {
            return Ok(self.well_known(name));
        }
        let Some(component) = self.routes.component(parts.uri.path()) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        parts.uri = absolute_uri(parts.uri, &parts.headers)?;
        let Some(headers) = self.routes.headers(&parts, client) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let exchange = Arc::<Exchange>::default();
        let body = RequestBody::new(body, self.limits.body, exchange.clone());
        let response = async {
            parts.headers = headers?;
            let request = Request::from_parts(parts, body.boxed_unsync());
            let response = tokio::select! {
                biased;
                () = exchange.late() => request_timeout(),
                response = self.components.handle(component, request) => response?,
            };
            exchange.replied();
            Ok::<_, anyhow::Error>(response)
        };
        Ok(response.await.unwrap_or_else(|error| failure(&error)))
    }

    fn well_known(&self, name: &str) -> Response<Body> {
        match name {
            "health" => Response::new(full(Bytes::from_static(b"OK"))),
            "info" => {
                let mut response = Response::new(full(self.info.clone()));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The reply to a request whose body does not come to its end. What is left of
/// it would be taken for the next request.
fn request_timeout() -> Response<Body> {
    let mut response = empty(StatusCode::REQUEST_TIMEOUT);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn strip_headers(headers: &mut HeaderMap) {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    if host.is_some_and(|host| host.host().ends_with(SERVICE_CHAINING_SUFFIX)) {
        headers.remove(HOST);
    }
    // It speaks of this connection, which the component does not see.
    headers.remove(CONNECTION);
}

/// The request's target with scheme and authority, from `Host` or from the
/// target itself, which must agree.
fn absolute_uri(uri: Uri, headers: &HeaderMap) -> Result<Uri> {
    let host = headers
        .get(HOST)
        .map(|host| -> Result<Authority> { Ok(host.to_str()?.parse()?) })
        .transpose()
        .context("the Host header is not a valid authority")?;
    let mut parts = uri.into_parts();
    parts.authority = match (host, parts.authority) {
        (None, None) => bail!("the request has no Host header"),
        (Some(host), Some(authority)) => {
            ensure!(host == authority, "the Host header is not the authority of the target");
            Some(host)
        }
        (host, authority) => host.or(authority),
    };
    parts.scheme = Some(Scheme::HTTP);
    Uri::from_parts(parts).context("the target of the request is not a path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absolute(uri: &str, host: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().expect("a header"));
        }
        strip_headers(&mut headers);
        let uri = absolute_uri(uri.parse().expect("a target"), &headers);
        uri.ok().map(|uri| uri.to_string())
    }

    #[test]
    fn authority() {
        for (uri, host, expected) in [
            ("/a?b", Some("h:1"), Some("http://h:1/a?b")),
            ("http://h/a", None, Some("http://h/a")),
            ("http://h/a", Some("h"), Some("http://h/a")),
            ("http://h/a", Some("other"), None),
            ("/a", None, None),
            ("/a", Some("not a host"), None),
            ("/a", Some("b.spin.internal"), None),
            ("http://h/a", Some("b.spin.internal:1"), Some("http://h/a")),
        ] {
            assert_eq!(absolute(uri, host).as_deref(), expected, "{uri} {host:?}");
        }
    }
}
