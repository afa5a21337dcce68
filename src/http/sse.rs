//! Server-sent events: the frames of an event stream, and its reply.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::time::Duration;

use futures::StreamExt;
use http::{HeaderValue, header};

use crate::http::reply::{ByteStream, Reply};
use crate::store::Cursor;

const EVENT_STREAM: &str = "text/event-stream";

/// How long a stream may be silent, in seconds: proxies take a connection for
/// dead after a minute or so, and a client that went away is noticed only when
/// something is written to it.
pub(crate) const SILENCE_SECONDS_MAX: u64 = 15;

/// A comment line, which readers skip.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// How long a browser waits before it connects again, in milliseconds.
pub(crate) const RECONNECT_MS: u32 = 1_000;

/// A reply that goes on as long as the client listens, and until `end`.
pub(crate) fn reply(parts: ByteStream, end: impl Future<Output = ()> + 'static) -> Reply {
    Reply::stream(EVENT_STREAM, parts.take_until(end).boxed_local())
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        .passed_on_at_once()
}

/// What a stream begins with. `id` is what a browser is to resume from before
/// the first event has come.
pub(crate) fn opening(id: Option<Cursor>) -> Vec<u8> {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("retry: {RECONNECT_MS}\n{id}\n").into_bytes()
}

/// Adds one event to `text`; `write` adds its data, which has no line end.
pub(crate) fn frame(text: &mut Vec<u8>, id: Option<Cursor>, write: impl FnOnce(&mut Vec<u8>)) {
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    write(text);
    text.extend_from_slice(b"\n\n");
}

/// Adds one event of another name than `message`, whose data has no line end.
pub(crate) fn named(text: &mut Vec<u8>, name: &str, data: &str) {
    text.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}

/// When a stream that has been silent is due for a [`HEARTBEAT`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeartbeatTimer {
    since: Duration,
}

impl HeartbeatTimer {
    /// Begins at `now`, on the monotonic clock.
    pub(crate) fn since(now: Duration) -> Self {
        HeartbeatTimer { since: now }
    }

    /// Whether it is time for a [`HEARTBEAT`].
    pub(crate) fn is_due(self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= Duration::from_secs(SILENCE_SECONDS_MAX)
    }
}
