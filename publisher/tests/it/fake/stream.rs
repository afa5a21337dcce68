//! `POST /publish/stream`, in memory.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Cut, Reply, State, problem};

/// What becomes of `POST /publish/stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// Events are taken, and their outcomes told.
    Yes,
    /// It is answered with this status at once.
    Status(u16),
    /// What stands before the service wants the whole request first.
    CollectsRequests,
    /// What stands before the service wants the whole reply first, all but its head.
    CollectsReplies,
    /// It is answered with a page.
    Page,
}

/// A stream as it came.
#[derive(Debug, Clone, Default)]
pub struct Streamed {
    pub http2: bool,
    /// Lines that were taken.
    pub lines: usize,
    /// Whether its end came, and was no break.
    pub has_ended: bool,
}

/// Outcomes on their way, or that no more come.
struct Outcomes(mpsc::UnboundedReceiver<Result<Bytes, Cut>>);

impl Body for Outcomes {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
    }
}

pub(super) async fn answer(
    state: Arc<Mutex<State>>,
    http2: bool,
    mut body: Incoming,
) -> Result<Reply, Cut> {
    let (streaming, number, cut) = {
        let mut state = state.lock().unwrap();
        state.streams.push(Streamed { http2, ..Streamed::default() });
        (state.streaming, state.streams.len() - 1, state.stream_cuts.pop_front())
    };
    match streaming {
        Streaming::Status(status) => return Ok(problem(status, "no stream here")),
        Streaming::CollectsRequests => {
            body.collect().await.map_err(|_| Cut)?;
            return Ok(problem(502, "the request was broken off"));
        }
        Streaming::Yes | Streaming::CollectsReplies | Streaming::Page => {}
    }
    let (down, outcomes) = mpsc::unbounded_channel();
    if streaming == Streaming::Page {
        down.send(Ok(Bytes::from_static(b"<html>\n<h1>Welcome</h1>\n"))).unwrap();
    }
    tokio::spawn(async move {
        let mut read = Vec::new();
        let mut kept = Vec::new();
        let mut lines = 0;
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return,
                None => break,
            };
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = read.drain(..=end).collect();
                let told = take(&mut state.lock().unwrap(), number, lines, &line);
                lines += 1;
                let is_last = told["code"].is_string();
                if cut == Some(lines) {
                    down.send(Err(Cut)).ok();
                    return;
                }
                let told = Bytes::from(format!("{told}\n"));
                match streaming {
                    Streaming::CollectsReplies => kept.push(told),
                    Streaming::Page => {}
                    _ => drop(down.send(Ok(told))),
                }
                if is_last {
                    return;
                }
            }
        }
        state.lock().unwrap().streams[number].has_ended = true;
        for told in kept {
            down.send(Ok(told)).ok();
        }
    });
    Ok(Response::new(Outcomes(outcomes).boxed_unsync()))
}

/// Takes a line; its outcome, or why there are no more.
fn take(state: &mut State, number: usize, index: usize, line: &[u8]) -> Value {
    if line.len() > state.body_bytes_max {
        return json!({"status": 413, "code": "body_too_large", "detail": "too many bytes"});
    }
    state.streams[number].lines += 1;
    let event: Value = serde_json::from_slice(line).unwrap();
    let status = match state.streaming {
        // Nobody there takes events.
        Streaming::Page => "none",
        _ => state.deliver(&event),
    };
    json!({"index": index, "topic": event["topic"], "event_id": event["event_id"],
           "status": status, "field": "topic", "detail": "is refused"})
}
