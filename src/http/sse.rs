//! Server-sent events: the frames of an event stream, and its reply.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use crate::http::reply::{Feed, Reply};

const EVENT_STREAM: &str = "text/event-stream";

/// How long a stream may be silent, in seconds: proxies take a connection for
/// dead after a minute or so, and a client that went away is noticed only when
/// something is written to it.
const SILENCE_SECONDS_MAX: u64 = 15;

/// A comment line, which readers skip.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// How long a browser waits before it connects again, in milliseconds.
const RECONNECT_MS: u32 = 1_000;

/// A reply that goes on as long as the client listens.
pub fn reply(feed: Feed) -> Reply {
    Reply::feed(EVENT_STREAM, feed)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        // nginx and its kind collect a reply before they pass it on, unless told.
        .with_header(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))
}

/// What a stream begins with. `id` is what a browser is to resume from before
/// the first event has come.
pub fn opening(id: Option<i64>) -> Vec<u8> {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("retry: {RECONNECT_MS}\n{id}\n").into_bytes()
}

/// Adds one event to `text`; `write` adds its data, which has no line end.
///
/// # Errors
///
/// Those of `write`.
pub fn frame<E>(
    text: &mut Vec<u8>,
    id: Option<i64>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    write(text)?;
    text.extend_from_slice(b"\n\n");
    Ok(())
}

/// How long a stream has been silent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    since: Duration,
}

impl Silence {
    /// Begins at `now`, on the monotonic clock.
    pub fn since(now: Duration) -> Self {
        Silence { since: now }
    }

    /// Whether it is time for a [`HEARTBEAT`].
    pub fn is_over(self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= Duration::from_secs(SILENCE_SECONDS_MAX)
    }
}
