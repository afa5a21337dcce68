//! Lines in order over a stream, several requests ahead of their outcomes.
//!
//! A stream is the fast way and no more: what is not answered over it, for whatever
//! reason, is sent again as an ordinary request, which is tried again, refused or
//! answered as any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::attempt::{Attempt, Retryable};
use super::streams::broken_off;
use super::{Body, Client, Delivery, Naming};
use crate::wire::PublishReply;

/// The way of lines that are to be stored in their order. Once one request has failed
/// on it, those after it are not sent.
#[derive(Debug)]
pub struct Lane {
    stream: usize,
    has_failed: Arc<AtomicBool>,
}

impl Lane {
    /// Whether a request on it has failed, and no other is sent.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

/// A request whose outcomes come.
#[derive(Debug)]
pub struct UnderWay(Option<oneshot::Receiver<Attempt<PublishReply>>>);

impl UnderWay {
    /// The outcomes of all its events.
    ///
    /// # Errors
    ///
    /// If they do not come, and what is to be told when the events are sent again.
    pub async fn outcome(self) -> Result<PublishReply, Lost> {
        let attempt = match self.0 {
            Some(told) => told.await.unwrap_or_else(|_| broken_off()),
            None => return Err(Lost(None)),
        };
        match attempt {
            Attempt::Reply(reply, _) => Ok(reply),
            Attempt::Retryable(failed) => Err(Lost(Some(failed))),
            // An ordinary request is told why, or is answered.
            Attempt::Final(_) => Err(Lost(None)),
        }
    }
}

/// What failed over a stream: an attempt, unless the stream was refused.
#[derive(Debug)]
pub struct Lost(Option<Retryable>);

impl Client {
    /// A lane, if the service offers streams.
    pub async fn lane(&self) -> Option<Lane> {
        let streams = self.streams.as_ref()?;
        let is_offered = streams.are_offered().await;
        is_offered.then(|| Lane { stream: streams.next(), has_failed: Arc::default() })
    }

    /// Why there are no lanes any more, if the service offers no streams.
    #[must_use]
    pub fn why_no_lane(&self) -> Option<String> {
        self.streams.as_ref()?.refused()
    }

    /// Sends so many events, a line each, after those that went on the lane before.
    #[must_use]
    pub fn begin(&self, lane: &Lane, lines: Bytes, events: usize) -> UnderWay {
        let after = Some(Arc::clone(&lane.has_failed));
        let streams = self.streams.as_ref();
        UnderWay(streams.map(|streams| streams.begin(lane.stream, lines, events, after)))
    }

    /// As [`Client::publish`], after what was lost over a stream.
    pub async fn publish_after(&self, lost: Option<Lost>, body: Body) -> Delivery {
        let failed = lost.and_then(|Lost(failed)| failed);
        self.deliver(failed, Naming::Some, body, || ()).await
    }

    /// Ends the streams that are open, in order.
    pub async fn close(&self) {
        if let Some(streams) = &self.streams {
            streams.close().await;
        }
    }
}
