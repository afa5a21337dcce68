//! Events over long requests: `POST /publish/stream`, lines up and outcomes down.
//!
//! Requests of the caller share the streams. What one brings goes up as lines, and
//! since outcomes come down in the order of the lines, the oldest that waits is the
//! one whose outcomes come next. When a stream breaks, all that wait on it may or
//! may not be stored, and are tried again on the next.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::attempt::{Attempt, Failure, Retryable, TransientError, transient_error};
use super::transport::{Error, ErrorKind, Plain, broken};
use crate::wire::{EventResult, Outcome, Problem, PublishReply, excerpt};

/// Requests of the caller whose lines go up in one write, at most.
const WRITE_REQUESTS_MAX: usize = 1_000;

/// Streams to one service.
#[derive(Debug)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    next: AtomicUsize,
    timeout: Duration,
}

#[derive(Debug)]
struct Stream {
    opener: Arc<Opener>,
    /// To the task that has the stream; `None` before the first request.
    asks: Mutex<Option<mpsc::UnboundedSender<Ask>>>,
}

/// What opens a stream.
#[derive(Debug)]
struct Opener {
    transport: Plain,
    /// Without its body.
    request: Request<()>,
}

/// A request of the caller.
struct Ask {
    lines: Bytes,
    events: usize,
    told: oneshot::Sender<Attempt<PublishReply>>,
}

impl Streams {
    /// So many streams, each opened by `request` when it is needed.
    pub(super) fn new(
        count: usize,
        transport: impl Fn() -> anyhow::Result<Plain>,
        request: &Request<()>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let stream = |_| {
            let opener = Opener { transport: transport()?, request: request.clone() };
            Ok(Stream { opener: Arc::new(opener), asks: Mutex::default() })
        };
        let streams = (0..count).map(stream).collect::<anyhow::Result<_>>()?;
        Ok(Self { streams, next: AtomicUsize::new(0), timeout })
    }

    /// Sends so many events, a line each, and waits for their outcomes.
    pub(super) async fn deliver(&self, lines: Bytes, events: usize) -> Attempt<PublishReply> {
        let (told, wait) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.streams.len();
        self.streams[number].ask(Ask { lines, events, told });
        match tokio::time::timeout(self.timeout, wait).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => lost(TransientError::Broken, "the stream has ended".to_owned()),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                lost(TransientError::Timeout, format!("no outcome within {seconds} s"))
            }
        }
    }
}

impl Stream {
    fn ask(&self, ask: Ask) {
        let mut asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = asks.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(serve(Arc::clone(&self.opener), receiver));
            sender
        });
        if let Err(mpsc::error::SendError(ask)) = sender.send(ask) {
            // Its runtime is gone: whoever asks is told when `ask` is dropped, and
            // the next one has a new task.
            drop(ask);
            *asks = None;
        }
    }
}

/// An attempt that failed after lines may have been stored.
fn lost<T>(error: TransientError, why: String) -> Attempt<T> {
    Attempt::Retryable(Retryable { error, why, indeterminate: true, retry_after: None })
}

/// Has one stream after the other, each until it breaks, as long as there is anybody
/// who may ask.
async fn serve(opener: Arc<Opener>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    while let Some(first) = asks.recv().await {
        let (up, body) = mpsc::unbounded_channel();
        let mut waiting = Waiting::default();
        waiting.send(&up, vec![first]);
        let end = match open(&opener, body).await {
            Ok(response) => waiting.run(response, &up, &mut asks).await,
            Err(error) => End::of(&error),
        };
        waiting.end(&end);
    }
}

async fn open(
    opener: &Opener,
    body: mpsc::UnboundedReceiver<Bytes>,
) -> Result<Response<Incoming>, Error> {
    let (head, ()) = opener.request.clone().into_parts();
    opener.transport.open(Request::from_parts(head, Lines(body))).await
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

/// Why a stream has ended.
enum End {
    /// Nobody knows what of that which waits is stored.
    Lost {
        error: TransientError,
        why: String,
        indeterminate: bool,
    },
    /// The service does not want any of it.
    Refused {
        status: StatusCode,
        problem: Problem,
    },
    Protocol(String),
}

impl End {
    fn of(error: &Error) -> Self {
        End::Lost {
            error: transient_error(error.kind),
            why: error.text.clone(),
            indeterminate: error.kind != ErrorKind::Connect,
        }
    }

    /// A status other than 200, at the beginning or of the last line.
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        let problem = Problem::read(body);
        match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => End::Lost {
                error: TransientError::Status(status.as_u16()),
                why: format!("{status}: {problem}"),
                indeterminate: true,
            },
            false => End::Refused { status, problem },
        }
    }

    fn attempt(&self) -> Attempt<PublishReply> {
        match self {
            End::Lost { error, why, indeterminate } => Attempt::Retryable(Retryable {
                error: *error,
                why: why.clone(),
                indeterminate: *indeterminate,
                retry_after: None,
            }),
            End::Refused { status, problem } => {
                Attempt::Final(Failure::Refused { status: *status, problem: problem.clone() })
            }
            End::Protocol(text) => Attempt::Final(Failure::Protocol(text.clone())),
        }
    }
}

/// A line that came down.
#[derive(serde::Deserialize)]
struct Told {
    status: Outcome,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

/// What was asked and has not all its outcomes.
#[derive(Default)]
struct Waiting {
    asked: VecDeque<Ask>,
    /// Of the first of them.
    reply: PublishReply,
    bytes: u64,
    /// What came of a line that is not whole.
    rest: BytesMut,
}

impl Waiting {
    fn send(&mut self, up: &mpsc::UnboundedSender<Bytes>, asks: Vec<Ask>) {
        let lines = match asks.as_slice() {
            [one] => one.lines.clone(),
            several => {
                let parts: Vec<&[u8]> = several.iter().map(|ask| &*ask.lines).collect();
                parts.concat().into()
            }
        };
        self.asked.extend(asks);
        // Should the stream be gone, its end is about to be told.
        up.send(lines).ok();
    }

    /// Until the stream ends.
    async fn run(
        &mut self,
        response: Response<Incoming>,
        up: &mpsc::UnboundedSender<Bytes>,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
    ) -> End {
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return End::refused(status, &body);
        }
        let mut new = Vec::new();
        loop {
            tokio::select! {
                biased;
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        if let Err(end) = self.take(&data) {
                            return end;
                        }
                    }
                    Some(Err(error)) => return End::of(&broken(&error)),
                    None => {
                        let why = "the stream has ended".to_owned();
                        return End::Lost {
                            error: TransientError::Broken,
                            why,
                            indeterminate: true,
                        };
                    }
                },
                count = asks.recv_many(&mut new, WRITE_REQUESTS_MAX) => match count {
                    // Nobody may ask any more, and so nobody waits.
                    0 => return End::Protocol("nobody asks".to_owned()),
                    _ => self.send(up, std::mem::take(&mut new)),
                },
            }
        }
    }

    /// Takes what came down.
    fn take(&mut self, data: &[u8]) -> Result<(), End> {
        self.rest.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', &self.rest) {
            let line = self.rest.split_to(end + 1);
            self.line(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), End> {
        let told: Told = serde_json::from_slice(line).map_err(|error| {
            // The last line of a stream that was ended is a problem.
            let status = |value: serde_json::Value| value.get("status")?.as_u64();
            let status = serde_json::from_slice(line).ok().and_then(status);
            let status = status.and_then(|status| StatusCode::from_u16(status as u16).ok());
            match status {
                Some(status) => End::refused(status, line),
                None => End::Protocol(format!("{error} in {:?}", excerpt(line))),
            }
        })?;
        let Some(first) = self.asked.front() else {
            return Err(End::Protocol("more outcomes than events".to_owned()));
        };
        let Told { status, field, detail } = told;
        let reply = &mut self.reply;
        let index = reply.results.len();
        reply.received += u64::from(status != Outcome::Rejected);
        match status {
            Outcome::Accepted => reply.accepted += 1,
            Outcome::Duplicate => reply.duplicates += 1,
            Outcome::Conflict => {
                reply.duplicates += 1;
                reply.conflicts += 1;
            }
            Outcome::Rejected => reply.rejected += 1,
        }
        reply.results.push(EventResult { index, status, field, detail });
        self.bytes += line.len() as u64;
        if reply.results.len() == first.events
            && let Some(first) = self.asked.pop_front()
        {
            let reply = std::mem::take(&mut self.reply);
            // Whoever does not wait any longer has asked again.
            first.told.send(Attempt::Reply(reply, std::mem::take(&mut self.bytes))).ok();
        }
        Ok(())
    }

    /// Tells all that wait why they have no outcomes.
    fn end(&mut self, end: &End) {
        for ask in self.asked.drain(..) {
            ask.told.send(end.attempt()).ok();
        }
    }
}
