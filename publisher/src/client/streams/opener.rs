//! What opens a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::super::transport::{Down, Transport};
use super::end::End;
use super::offer::Offer;

/// How long a reply may take to begin while it is not known whether the service
/// offers streams, in seconds. The service begins it at once; what stands between and
/// wants to have a whole request first never does.
const HEAD_SECONDS_MAX: u64 = 5;
/// How long the first outcomes may take, in seconds. What stands between and collects
/// a reply does not let them through.
const FIRST_OUTCOME_SECONDS_MAX: u64 = 10;

/// What opens a stream.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) transport: Transport,
    /// Without its body.
    pub(super) request: Request<()>,
    pub(super) timeout: Duration,
    /// Whether the caller can do without: then little time is spent to find out.
    pub(super) is_optional: bool,
    pub(super) offer: Offer,
}

impl Opener {
    /// How long a reply may take to begin.
    fn head_max(&self) -> Duration {
        self.limit(HEAD_SECONDS_MAX)
    }

    /// How long outcomes may take.
    pub(super) fn outcome_max(&self) -> Duration {
        self.limit(FIRST_OUTCOME_SECONDS_MAX)
    }

    fn limit(&self, undecided_seconds: u64) -> Duration {
        match self.is_optional && !self.offer.is_proven() {
            true => self.timeout.min(Duration::from_secs(undecided_seconds)),
            false => self.timeout,
        }
    }

    pub(super) async fn open(
        &self,
        body: mpsc::UnboundedReceiver<Bytes>,
    ) -> Result<Response<Down>, End> {
        let (head, ()) = self.request.clone().into_parts();
        let head_max = self.head_max();
        let opening = self.transport.open(Request::from_parts(head, Lines(body)));
        match tokio::time::timeout(head_max, opening).await {
            Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(response),
            Ok(Ok(response)) => Err(End::of_reply(response, head_max).await),
            Ok(Err(error)) => Err(End::of(&error)),
            Err(_) => Err(End::late("reply", head_max)),
        }
    }
}

/// The lines that go up; the end of the channel is the end of the body.
struct Lines(mpsc::UnboundedReceiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|lines| lines.map(|lines| Ok(Frame::data(lines))))
    }
}
