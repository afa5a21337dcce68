//! Events over long requests: `POST /publish/stream`, lines up and outcomes down.
//!
//! Requests of the caller share the streams. What one brings goes up as lines, and
//! since outcomes come down in the order of the lines, the oldest that waits is the
//! one whose outcomes come next. When a stream breaks, all that wait on it may or
//! may not be stored, and are sent again by those who asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::transport::Transport;
use crate::wire::PublishReply;

mod end;
mod offer;
mod opener;
mod part;
mod waiting;

pub(super) use end::broken_off;
use offer::{Offer, Phase};
use opener::Opener;
use part::{Ask, Part};
use waiting::{CLOSE_MS_MAX, Waiting};

/// How long the first lines wait to hear whether the service offers streams, in
/// milliseconds. Then they go otherwise, while the answer may still come.
const ANSWER_WAIT_MS_MAX: u64 = 500;

/// Streams to one service.
#[derive(Debug)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    next: AtomicUsize,
    opener: Arc<Opener>,
    /// When it was first asked whether the service offers them.
    asked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Stream {
    /// `None` before the first request.
    task: Mutex<Option<Task>>,
}

/// What has the stream.
#[derive(Debug)]
struct Task {
    asks: mpsc::UnboundedSender<Ask>,
    handle: JoinHandle<()>,
}

impl Streams {
    /// So many streams, each opened by `request` when it is needed.
    pub(super) fn new(
        count: usize,
        transport: Transport,
        request: Request<()>,
        timeout: Duration,
        is_optional: bool,
    ) -> Self {
        let offer = Offer::default();
        let opener = Arc::new(Opener { transport, request, timeout, is_optional, offer });
        let streams = (0..count).map(|_| Stream::default()).collect();
        Self { streams, next: AtomicUsize::new(0), opener, asked: Mutex::default() }
    }

    /// The number of the stream whose turn it is.
    pub(super) fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.streams.len()
    }

    /// Sends so many events, a line each, and waits for their outcomes.
    pub(super) async fn deliver(&self, lines: Bytes, events: usize) -> Attempt<PublishReply> {
        let wait = self.begin(self.next(), lines, events, None);
        wait.await.unwrap_or_else(|_| broken_off())
    }

    /// Sends them over this stream; the outcomes come later. Nothing is sent if what
    /// was to go before them has failed.
    pub(super) fn begin(
        &self,
        number: usize,
        lines: Bytes,
        events: usize,
        after: Option<Arc<AtomicBool>>,
    ) -> oneshot::Receiver<Attempt<PublishReply>> {
        let (told, wait) = oneshot::channel();
        let part = Part { lines, events, told, since: Instant::now(), after };
        self.ask(number, Ask::Part(part));
        wait
    }

    /// Whether the service offers them, as far as that is known or is found out in a
    /// moment: a stream is opened, and its reply begins.
    pub(super) async fn are_offered(&self) -> bool {
        let since = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            *asked.get_or_insert_with(Instant::now)
        };
        if self.opener.offer.begins_to_ask() {
            self.ask(0, Ask::Open);
        }
        let until = since + Duration::from_millis(ANSWER_WAIT_MS_MAX);
        self.opener.offer.is_made(until).await
    }

    /// Why there are none from now on, if that is so.
    pub(super) fn refused(&self) -> Option<String> {
        self.opener.offer.refused()
    }

    /// Ends those that are open, in order.
    pub(super) async fn close(&self) {
        let is_open = self.opener.offer.has_begun();
        for stream in &self.streams {
            let task = stream.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(Task { asks, mut handle }) = task else { continue };
            drop(asks);
            let end = Duration::from_millis(if is_open { 2 * CLOSE_MS_MAX } else { 0 });
            if tokio::time::timeout(end, &mut handle).await.is_err() {
                handle.abort();
            }
        }
    }

    fn ask(&self, number: usize, ask: Ask) {
        let stream = &self.streams[number % self.streams.len()];
        let mut task = stream.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Task { asks, .. } = task.get_or_insert_with(|| {
            let (asks, receiver) = mpsc::unbounded_channel();
            let handle = tokio::spawn(serve(Arc::clone(&self.opener), receiver));
            Task { asks, handle }
        });
        if let Err(mpsc::error::SendError(ask)) = asks.send(ask) {
            // Its runtime is gone: whoever asks is told when `ask` is dropped, and
            // the next one has a new task.
            drop(ask);
            *task = None;
        }
    }
}

/// Has one stream after the other, each until it breaks or lies idle, as long as there
/// is anybody who may ask.
async fn serve(opener: Arc<Opener>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    while let Some(first) = asks.recv().await {
        let (up, body) = mpsc::unbounded_channel();
        let mut waiting = Waiting::default();
        waiting.send(&up, vec![first]);
        let mut phase = Phase::Opening;
        let end = match opener.open(body).await {
            Ok(response) => {
                phase = Phase::Begun;
                opener.offer.begun();
                waiting.run(response.into_body(), up, &mut asks, &opener, &mut phase).await
            }
            Err(end) => end,
        };
        opener.offer.learn(phase, &end);
        waiting.end(&end);
    }
}
