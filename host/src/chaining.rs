//! Requests that components send: to each other, within this process.
//!
//! As in Spin, a request to `http://NAME.spin.internal` that the sender's
//! `allowed_outbound_hosts` allow is handed to component NAME, whichever its
//! routes; its `Host` and the port are left out, and it is told the same about
//! how it was called (see `routes`). Both bodies go on for as long as both sides
//! like, at the same time. The sender is told an error if it may not send, and
//! traps if there is no such component; that the other one fails is a 500 with
//! no body.
//!
//! Of the timeouts that a sender can set, the one between two parts of the
//! response is the only one that counts.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use wasmtime_wasi::{TrappableError, async_trait};
use wasmtime_wasi_http::handler::{self, ErrorCode};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode as CodeP2;
use wasmtime_wasi_http::p3::bindings::http::types::{DnsErrorPayload, ErrorCode as CodeP3};
use wasmtime_wasi_http::{p2, p3};

use crate::allowed_hosts::{AllowedHosts, component_of};

/// How long a response may pause if its receiver says nothing about that.
const RESPONSE_PAUSE_SECONDS_MAX: u64 = 600;

/// What is said of a host that is none.
const NO_SUCH_HOST: DnsErrorPayload = DnsErrorPayload { rcode: None, info_code: None };

/// The components of an application, as they see each other.
#[async_trait]
pub(crate) trait Chain: Send + Sync {
    /// What `component` responds to a request; `None` if there is no such one.
    async fn respond(
        &self,
        component: &str,
        request: handler::Request,
    ) -> Option<handler::Response>;
}

/// The requests that one instance sends.
pub(crate) struct OutgoingRequests {
    allowed: Arc<AllowedHosts>,
    chain: Weak<dyn Chain>,
}

enum Refused {
    Code(CodeP3),
    Trap(wasmtime::Error),
}

impl OutgoingRequests {
    /// To those of the `chain` that are allowed.
    pub(crate) fn new(allowed: Arc<AllowedHosts>, chain: Weak<dyn Chain>) -> Self {
        Self { allowed, chain }
    }

    fn send(
        &self,
        request: handler::Request,
    ) -> impl Future<Output = Result<handler::Response, Refused>> + Send + 'static {
        let (allowed, chain) = (self.allowed.clone(), self.chain.clone());
        async move {
            let (mut parts, body) = request.into_parts();
            if !allowed.allow(&parts.uri) {
                let host = parts.uri.authority().map_or("no host", Authority::as_str);
                allowed.say_that_it_is_denied(host);
                return Err(Refused::Code(CodeP3::HttpRequestDenied));
            }
            // Names are told apart by case, other than in what is allowed.
            let Some(component) = component_of(&parts.uri).map(str::to_owned) else {
                return Err(Refused::Code(CodeP3::DnsError(NO_SUCH_HOST)));
            };
            // It is gone when the server is.
            let chain = chain.upgrade().ok_or(Refused::Code(CodeP3::ConnectionTerminated))?;
            parts.headers.remove(HOST);
            parts.uri = plain(parts.uri);
            let response = chain.respond(&component, Request::from_parts(parts, body)).await;
            response.ok_or_else(|| {
                let error = format!("it sent a request to {component:?}, which is no component");
                Refused::Trap(wasmtime::Error::msg(error))
            })
        }
    }
}

/// The URI that the other component sees.
fn plain(uri: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    Uri::from_parts(parts).unwrap_or(uri)
}

type Transfer = Box<dyn Future<Output = Result<(), CodeP3>> + Send>;
type Sent =
    Result<(http::Response<UnsyncBoxBody<Bytes, CodeP3>>, Transfer), TrappableError<CodeP3>>;

impl p3::WasiHttpHooks for OutgoingRequests {
    /// The transfers, the sender's of the response and the one that is returned,
    /// say how bodies fared. Neither delays anything: bodies that break off end.
    fn send_request(
        &mut self,
        request: http::Request<UnsyncBoxBody<Bytes, CodeP3>>,
        options: Option<p3::RequestOptions>,
        _transfer: Transfer,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let pause_max = options
            .and_then(|options| options.between_bytes_timeout)
            .unwrap_or(Duration::from_secs(RESPONSE_PAUSE_SECONDS_MAX));
        let sent = self.send(request.map(|body| body.map_err(ErrorCode::from).boxed_unsync()));
        Box::new(async move {
            match sent.await {
                Ok(response) => {
                    let response = response.map(|body| {
                        ResponseBody::new(body.map_err(code), pause_max).boxed_unsync()
                    });
                    Ok((response, Box::new(std::future::ready(Ok(()))) as Transfer))
                }
                Err(Refused::Code(code)) => Err(code.into()),
                Err(Refused::Trap(error)) => Err(TrappableError::trap(error)),
            }
        })
    }
}

impl p2::WasiHttpHooks for OutgoingRequests {
    fn send_request(
        &mut self,
        request: http::Request<p2::body::HyperOutgoingBody>,
        config: p2::types::OutgoingRequestConfig,
    ) -> p2::HttpResult<p2::types::HostFutureIncomingResponse> {
        let sent = self.send(request.map(|body| body.map_err(ErrorCode::from).boxed_unsync()));
        let received = wasmtime_wasi::runtime::spawn(async move {
            match sent.await {
                Ok(response) => Ok(Ok(p2::types::IncomingResponse {
                    resp: response
                        .map(|body| body.map_err(|error| CodeP2::from(code(error))).boxed_unsync()),
                    worker: None,
                    between_bytes_timeout: config.between_bytes_timeout,
                })),
                Err(Refused::Code(code)) => Ok(Err(code.into())),
                Err(Refused::Trap(error)) => Err(error),
            }
        });
        Ok(p2::types::HostFutureIncomingResponse::pending(received))
    }
}

fn code(error: wasmtime::Error) -> CodeP3 {
    error
        .downcast::<CodeP3>()
        .unwrap_or_else(|error| CodeP3::InternalError(Some(error.to_string())))
}

/// A response that may pause for `pause_max`, each time that it is waited for.
struct ResponseBody<B> {
    /// `None` once it took too long.
    body: Option<B>,
    pause_max: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> ResponseBody<B> {
    fn new(body: B, pause_max: Duration) -> Self {
        Self { body: Some(body), pause_max, timer: None }
    }
}

impl<B: Body<Data = Bytes, Error = CodeP3> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = CodeP3;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CodeP3>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            this.timer = None;
            return Poll::Ready(frame);
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.pause_max)));
        ready!(timer.as_mut().poll(context));
        this.body = None;
        Poll::Ready(Some(Err(CodeP3::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MAX: Duration = Duration::from_millis(1);

    /// Has one part, and never ends.
    struct Endless(Option<Bytes>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = CodeP3;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, CodeP3>>> {
            match self.0.take() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_response_that_pauses_for_too_long_breaks_off() {
        let mut body = ResponseBody::new(Endless(Some(Bytes::from_static(b"a"))), PAUSE_MAX);
        // What is there is no pause, however late it is asked for.
        sleep(PAUSE_MAX * 2).await;
        let part = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        assert_eq!(part.as_deref(), Some(&b"a"[..]));
        let late = body.frame().await;
        assert!(matches!(late, Some(Err(CodeP3::ConnectionReadTimeout))), "{late:?}");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}
