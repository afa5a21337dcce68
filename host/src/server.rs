//! HTTP connections (HTTP/1.1, and HTTP/2 without TLS), and their end.
//!
//! As in Spin: no `TCP_NODELAY`, no bound on connections or requests; a path
//! without a route is a 404 with no body, and whatever the component fails with
//! is a 500 with no body. A request without a valid authority is not answered
//! at all: its connection is closed.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wasmtime_wasi_http::handler::{ErrorCode, ProxyHandler};
use wasmtime_wasi_http::p2::hyper_response_error;

use crate::console;
use crate::instances::Instances;
use crate::routes::Routes;

/// How long requests under way may take once the server has been told to stop.
const SHUTDOWN_WAIT_SECONDS_MAX: u64 = 30;
/// How long to wait before accepting again when there is no room for another
/// connection.
const ACCEPT_RETRY_WAIT_MILLISECONDS: u64 = 100;

/// How long a client of an event stream has, once the server has been told to
/// stop, to take what is on its way.
const STREAM_END_WAIT_SECONDS: u64 = 2;

/// A reply that goes on until its client leaves, or the server.
const EVENT_STREAM: &str = "text/event-stream";

/// Paths that Spin answers itself.
const WELL_KNOWN: &str = "/.well-known/spin/";
/// A `Host` that Spin keeps to itself, for components that call each other.
const SERVICE_CHAINING_SUFFIX: &str = ".spin.internal";

type Body = UnsyncBoxBody<Bytes, wasmtime::Error>;

/// One application, being served.
pub(crate) struct Server {
    /// Which paths belong to the component.
    pub routes: Routes,
    /// The component.
    pub handler: ProxyHandler<Instances>,
    /// What `/.well-known/spin/info` answers.
    pub info: Bytes,
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

/// Accepts connections until a signal to stop.
///
/// "Serving" is printed once connections are accepted and signals are handled.
pub(crate) async fn serve(server: Server, listener: TcpListener) -> Result<Stopped> {
    let mut signals = Signals::listen()?;
    announce(&server.routes, listener.local_addr()?);

    let server = Arc::new(server);
    let (stop, stopped) = watch::channel(());
    let connections = GracefulShutdown::new();
    let mut accepting = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    accepting = true;
                    let (server, stopped) = (server.clone(), stopped.clone());
                    tokio::spawn(connect(server, stream, client, connections.watcher(), stopped));
                }
                Err(error) => {
                    // Once, not with every retry.
                    if std::mem::take(&mut accepting) {
                        console::message(format_args!("cannot accept connections for now: {error}"));
                    }
                    sleep(Duration::from_millis(ACCEPT_RETRY_WAIT_MILLISECONDS)).await;
                }
            },
            () = signals.next() => break,
        }
    }
    drop(listener);
    drop(stop);
    console::message(
        "Stopping: requests under way are finished first; a second signal ends at once",
    );
    let limit = Duration::from_secs(SHUTDOWN_WAIT_SECONDS_MAX);
    tokio::select! {
        finished = timeout(limit, connections.shutdown()) => {
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
    if routes.matches("/publish") {
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

async fn connect(
    server: Arc<Server>,
    stream: TcpStream,
    client: SocketAddr,
    watcher: Watcher,
    stopped: watch::Receiver<()>,
) {
    let builder = Builder::new(TokioExecutor::new());
    let streams = Arc::new(AtomicBool::new(false));
    let ending = end_of_streams(stopped.clone(), streams.clone());
    let service = service_fn(move |request| {
        let (server, stopped, streams) = (server.clone(), stopped.clone(), streams.clone());
        async move {
            let response = server.answer(request, client).await?;
            let response = if is_event_stream(&response) {
                streams.store(true, Ordering::Relaxed);
                bounded(response, stopped)
            } else {
                response
            };
            Ok::<_, anyhow::Error>(response)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        // How it ends is the client's doing, or already reported where it happened.
        _ = watcher.watch(connection) => {}
        () = ending => {}
    }
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

/// Ends an event stream when the server is told to stop: as a request under
/// way it would hold that up for ever. Its client connects again later.
fn bounded(response: Response<Body>, mut stopped: watch::Receiver<()>) -> Response<Body> {
    // It never changes; the other half is dropped.
    let stopped = Box::pin(async move { drop(stopped.changed().await) });
    response.map(|body| BoundedBody { body, stopped }.boxed_unsync())
}

/// A body that ends, whole or not, when `stopped` does.
struct BoundedBody {
    body: Body,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl hyper::body::Body for BoundedBody {
    type Data = Bytes;
    type Error = wasmtime::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, wasmtime::Error>>> {
        if self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
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
        if !self.routes.matches(parts.uri.path()) {
            return Ok(empty(StatusCode::NOT_FOUND));
        }
        parts.uri = absolute_uri(parts.uri, &parts.headers)?;
        let Some(headers) = self.routes.headers(&parts, client) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let response = async {
            parts.headers = headers?;
            let body =
                body.map_err(|error| ErrorCode::from(hyper_response_error(error))).boxed_unsync();
            let request = Request::from_parts(parts, body);
            Ok::<_, anyhow::Error>(self.handler.handle((), request).await?)
        };
        response.await.or_else(|error| {
            console::message(format_args!("error processing a request: {error:#}"));
            Ok(empty(StatusCode::INTERNAL_SERVER_ERROR))
        })
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

/// Signals that tell the server to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            console::message(format_args!("cannot listen for Ctrl-C: {error}"));
            std::future::pending().await
        }
    }
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
