//! The body of a request on its way in, and how long it may take.
//!
//! What counts is the time in which the component waits for the client. The
//! client may pause for `pause_max`, and may take that time and one second more
//! for each `bytes_per_second_min` bytes that it has sent: a bad link is let be,
//! one byte now and then is not. What takes longer is a 408, and nothing of it
//! reaches a route.
//!
//! Once the head of the reply is there, the client may take its time: what is
//! read then is read by a route that answers as it goes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::handler::ErrorCode;
use wasmtime_wasi_http::p2::hyper_response_error;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as Code;

/// Limits of every body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Between two parts of it.
    pub pause_max: Duration,
    /// Over all of it; 0 is no limit.
    pub bytes_per_second_min: u32,
}

/// What the body and the reply of a request know of each other.
#[derive(Default)]
pub(crate) struct Exchange {
    has_reply: AtomicBool,
    is_late: AtomicBool,
    late: Notify,
}

impl Exchange {
    /// Says that the head of the reply is there.
    pub(crate) fn replied(&self) {
        self.has_reply.store(true, Ordering::Release);
    }

    /// Ends when the body takes too long.
    pub(crate) async fn late(&self) {
        while !self.is_late.load(Ordering::Acquire) {
            self.late.notified().await;
        }
    }

    fn set_late(&self) {
        self.is_late.store(true, Ordering::Release);
        self.late.notify_one();
    }
}

/// A body that is waited for as long as its limits allow.
pub(crate) struct RequestBody<B = Incoming> {
    body: B,
    limits: BodyLimits,
    exchange: Arc<Exchange>,
    bytes: u64,
    /// How long it was waited for, before `waits_since`.
    waited: Duration,
    waits_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> RequestBody<B> {
    /// The body of a request.
    pub(crate) fn new(body: B, limits: BodyLimits, exchange: Arc<Exchange>) -> Self {
        let waited = Duration::ZERO;
        Self { body, limits, exchange, bytes: 0, waited, waits_since: None, timer: None }
    }

    /// When it will have been waited for too long; `None` when never.
    fn deadline(&self, since: Instant) -> Option<Instant> {
        let limits = &self.limits;
        let by_pause = since.checked_add(limits.pause_max);
        let by_rate = (limits.bytes_per_second_min > 0)
            .then(|| {
                let earned = self.bytes / u64::from(limits.bytes_per_second_min);
                let allowed = limits.pause_max.checked_add(Duration::from_secs(earned))?;
                since.checked_add(allowed.saturating_sub(self.waited))
            })
            .flatten();
        by_pause.into_iter().chain(by_rate).min()
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.exchange.has_reply.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let Some(deadline) = self.deadline(since) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context)
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = ErrorCode;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ErrorCode>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(since) = this.waits_since.take() {
                this.waited += since.elapsed();
            }
            let frame =
                frame.transpose().map_err(|error| ErrorCode::from(hyper_response_error(error)));
            if let Ok(Some(frame)) = &frame {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.transpose());
        }
        ready!(this.poll_late(context));
        this.exchange.set_late();
        Poll::Ready(Some(Err(Code::ConnectionReadTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late_after(bytes: u64, waited: u64, bytes_per_second_min: u32) -> u64 {
        let limits = BodyLimits { pause_max: Duration::from_secs(30), bytes_per_second_min };
        let mut body = RequestBody::new((), limits, Arc::default());
        body.bytes = bytes;
        body.waited = Duration::from_secs(waited);
        let now = Instant::now();
        body.deadline(now).map_or(0, |deadline| (deadline - now).as_secs())
    }

    #[test]
    fn pauses_and_rate() {
        for (bytes, waited, rate, expected) in [
            (0, 0, 500, 30),
            (0, 20, 500, 10),
            (0, 20, 0, 30),
            // A byte now and then.
            (3, 29, 500, 1),
            (3, 31, 500, 0),
            // 10 MiB in two hours.
            (10 << 20, 7200, 500, 30),
            (10 << 20, 30 + 20_971, 500, 0),
        ] {
            assert_eq!(late_after(bytes, waited, rate), expected, "{bytes} {waited} {rate}");
        }
    }
}
