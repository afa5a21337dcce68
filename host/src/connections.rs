//! What a connection may take of time and room, so that slow and silent clients
//! lock nobody out.
//!
//! | limit | of what | what happens then |
//! | --- | --- | --- |
//! | `head_time_max` | from a connection's beginning, or the first byte of a head, to the end of the head | 408 and closed; closed, if there was no byte |
//! | `idle_time_max` | between two requests | closed; on HTTP/2 with a `GOAWAY` |
//! | `reply_pause_max` | without one byte of a reply being taken | closed |
//! | `connections_max` | connections | the one that is idle for longest is closed; if none is idle, the new one gets a 503 and is closed |
//!
//! What a body may take is in `request_body`. A request whose body is there, and
//! a reply of which something is taken now and then, may take for ever.
//!
//! hyper has a limit of its own for heads, of HTTP/1 only and not before it
//! knows which version it is, and none for the rest. So the bytes are watched
//! beneath it ([`WatchedIo`]), and requests above it ([`Activity::request`]).

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::console;

/// How long those that are to make room for a new connection have, in
/// milliseconds. They need no more than to be told.
const ROOM_WAIT_MS_MAX: u64 = 1000;
/// How often it is said that there is no more room, in seconds.
const FULL_MESSAGE_INTERVAL_SECONDS: u64 = 60;
/// How a client begins that speaks HTTP/2.
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Limits of every connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// For the head of a request.
    pub head_time_max: Duration,
    /// Between two requests.
    pub idle_time_max: Duration,
    /// For the client to take a byte of a reply.
    pub reply_pause_max: Duration,
}

/// Connections that are open.
pub(crate) struct Connections {
    max: usize,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    full: Mutex<Full>,
}

#[derive(Default)]
struct Full {
    ids: u64,
    said_at: Option<Instant>,
}

impl Connections {
    /// None yet, and `max` at most.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default(), full: Mutex::default() })
    }

    /// Makes room for a new connection. `None` when there are enough, and each
    /// has a request under way.
    pub(crate) async fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let limit = Duration::from_millis(ROOM_WAIT_MS_MAX);
        if self.is_full() {
            self.say_that_it_is_full();
            let mut asked = HashSet::new();
            let made = async { while self.is_full() && self.close_idlest(&mut asked).await {} };
            timeout(limit, made).await.ok();
            if self.is_full() {
                return None;
            }
        }
        let id = {
            let mut full = lock(&self.full);
            full.ids += 1;
            full.ids
        };
        let activity = Arc::new(Activity::new());
        lock(&self.open).insert(id, Arc::clone(&activity));
        Some(Admitted { connections: Arc::clone(self), id, activity })
    }

    /// Closes the connection that is idle for longest, for want of something
    /// that it has; whether one was asked to go.
    pub(crate) async fn close_one(&self) -> bool {
        self.close_idlest(&mut HashSet::new()).await
    }

    fn is_full(&self) -> bool {
        lock(&self.open).len() >= self.max
    }

    /// Asks the connection that is idle for longest, of those that were not asked
    /// yet, to close, and waits until it has closed or has found a request.
    /// `false` when there is none.
    async fn close_idlest(&self, asked: &mut HashSet<u64>) -> bool {
        let settled = {
            let open = lock(&self.open);
            let idle = open
                .iter()
                .filter(|(id, _)| !asked.contains(id))
                .filter_map(|(id, activity)| Some((activity.idle_since()?, *id, activity)));
            let Some((_, id, activity)) = idle.min_by_key(|(since, id, _)| (*since, *id)) else {
                return false;
            };
            asked.insert(id);
            activity.ask_to_close()
        };
        // The other half is dropped, one way or the other.
        settled.await.ok();
        true
    }

    fn say_that_it_is_full(&self) {
        let interval = Duration::from_secs(FULL_MESSAGE_INTERVAL_SECONDS);
        let mut full = lock(&self.full);
        if full.said_at.is_none_or(|said| said.elapsed() >= interval) {
            full.said_at = Some(Instant::now());
            console::message(format_args!(
                "there are {} connections, which is the limit (--max-connections): for a new one \
                 the one that is idle for longest is closed, and if none is idle it is refused",
                self.max
            ));
        }
    }
}

/// A connection that counts until this is dropped.
pub(crate) struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    activity: Arc<Activity>,
}

impl Admitted {
    /// What is going on in the connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
        self.activity.settle();
    }
}

/// What is going on in a connection.
pub(crate) struct Activity {
    state: Mutex<State>,
    to_close: Notify,
}

struct State {
    /// The client's first bytes, as far as they are those of HTTP/2.
    preface_bytes: usize,
    is_http_2: bool,
    /// Requests whose heads are there and whose replies have not been handed
    /// over whole.
    requests: usize,
    had_request: bool,
    /// When the first byte came of a head that is not there yet.
    head_since: Option<Instant>,
    /// When something last happened that ends idleness.
    quiet_since: Instant,
    /// Since when the client has taken nothing of what is to be sent.
    blocked_since: Option<Instant>,
    asked: Option<oneshot::Sender<()>>,
}

/// What a connection has run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Time for the head of a request, of which there is a part.
    Head,
    /// Time without a request.
    Idle,
    /// Time for the client to take something of a reply.
    Reply,
}

impl Activity {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                preface_bytes: 0,
                is_http_2: false,
                requests: 0,
                had_request: false,
                head_since: None,
                quiet_since: Instant::now(),
                blocked_since: None,
                asked: None,
            }),
            to_close: Notify::new(),
        }
    }

    /// Notes a request, until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> UnderWay {
        let mut state = lock(&self.state);
        state.requests += 1;
        state.had_request = true;
        state.head_since = None;
        UnderWay(Arc::clone(self))
    }

    /// What the connection runs out of next, and when; `None` while a request is
    /// under way that may take its time.
    pub(crate) fn deadline(&self, limits: &ConnectionLimits) -> Option<(Instant, Overdue)> {
        let state = lock(&self.state);
        let (since, limit, overdue) = match (state.blocked_since, state.head_since) {
            (Some(since), _) => (since, limits.reply_pause_max, Overdue::Reply),
            (None, _) if state.requests > 0 => return None,
            (None, Some(since)) => (since, limits.head_time_max, Overdue::Head),
            (None, None) if state.had_request => {
                (state.quiet_since, limits.idle_time_max, Overdue::Idle)
            }
            // Silent from the beginning, or not yet through with the preface.
            (None, None) => (state.quiet_since, limits.head_time_max, Overdue::Idle),
        };
        // What overflows an instant is no deadline.
        Some((since.checked_add(limit)?, overdue))
    }

    /// Since when no request is under way and nothing is to be sent.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.requests == 0 && state.blocked_since.is_none()).then_some(state.quiet_since)
    }

    /// Asks the connection to close; the receiver ends when it has, or has found
    /// that it is not idle.
    fn ask_to_close(&self) -> oneshot::Receiver<()> {
        let (asked, settled) = oneshot::channel();
        lock(&self.state).asked = Some(asked);
        self.to_close.notify_one();
        settled
    }

    /// Ends when the connection is asked to close.
    pub(crate) async fn asked_to_close(&self) {
        self.to_close.notified().await;
    }

    /// Says that what was asked of it is settled: it has closed, or has a request.
    pub(crate) fn settle(&self) {
        lock(&self.state).asked = None;
    }

    fn read(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        if !state.had_request && !state.is_http_2 && state.preface_bytes < HTTP_2_PREFACE.len() {
            let rest = &HTTP_2_PREFACE[state.preface_bytes..];
            let bytes = &bytes[..bytes.len().min(rest.len())];
            if rest.starts_with(bytes) {
                state.preface_bytes += bytes.len();
                state.is_http_2 = state.preface_bytes == HTTP_2_PREFACE.len();
            } else {
                state.preface_bytes = HTTP_2_PREFACE.len();
            }
        }
        if state.is_http_2 {
            // What comes before or between requests may be anything, such as a
            // ping, and keeps nothing alive.
            state.head_since = None;
        } else if state.requests == 0 && state.blocked_since.is_none() {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    fn wrote(&self, is_blocked: bool) {
        let mut state = lock(&self.state);
        if is_blocked {
            state.blocked_since.get_or_insert_with(Instant::now);
        } else {
            state.blocked_since = None;
            state.quiet_since = Instant::now();
        }
    }
}

/// A request that is under way until this is dropped.
pub(crate) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.requests -= 1;
        state.quiet_since = Instant::now();
    }
}

/// A stream, shared with who has to say something on it at the end.
#[derive(Clone)]
pub(crate) struct SharedStream(Arc<Mutex<TcpStream>>);

impl SharedStream {
    /// To be shared.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// The stream, when nobody else has it any more.
    pub(crate) fn into_inner(self) -> Option<TcpStream> {
        let stream = Arc::into_inner(self.0)?;
        Some(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream that tells what is read and written.
pub(crate) struct WatchedIo {
    stream: SharedStream,
    activity: Arc<Activity>,
}

impl WatchedIo {
    /// Tells `activity` what is done on `stream`.
    pub(crate) fn new(stream: SharedStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn write_with(
        &self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(Pin::new(&mut lock(&self.stream.0)));
        self.activity.wrote(written.is_pending());
        written
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *lock(&self.stream.0)).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.activity.read(bytes);
        }
        read
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.stream.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.stream.0)).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.stream.0)).poll_shutdown(context)
    }
}

/// A panic while the lock was held left no half-done state behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        head_time_max: Duration::from_secs(1),
        idle_time_max: Duration::from_secs(2),
        reply_pause_max: Duration::from_secs(3),
    };

    fn overdue(activity: &Activity) -> Option<(Duration, Overdue)> {
        let (at, overdue) = activity.deadline(&LIMITS)?;
        let state = lock(&activity.state);
        let since = state.head_since.max(state.blocked_since).unwrap_or(state.quiet_since);
        Some((at - since, overdue))
    }

    #[test]
    fn what_a_connection_runs_out_of() {
        let activity = Arc::new(Activity::new());
        let head = Some((LIMITS.head_time_max, Overdue::Head));
        let idle = Some((LIMITS.idle_time_max, Overdue::Idle));
        assert_eq!(overdue(&activity), Some((LIMITS.head_time_max, Overdue::Idle)), "silent");
        activity.read(b"P");
        activity.read(b"OST");
        assert_eq!(overdue(&activity), head);
        assert!(activity.idle_since().is_some(), "a part of a head is no request");
        let request = activity.request();
        activity.read(b"body");
        assert_eq!((overdue(&activity), activity.idle_since()), (None, None));
        activity.wrote(true);
        let blocked = Some((LIMITS.reply_pause_max, Overdue::Reply));
        assert_eq!(overdue(&activity), blocked);
        drop(request);
        assert_eq!((overdue(&activity), activity.idle_since()), (blocked, None), "not all is sent");
        activity.wrote(false);
        assert_eq!(overdue(&activity), idle);
        activity.read(b"P");
        assert_eq!(overdue(&activity), head, "of the next request");
    }

    #[test]
    fn http_2_is_idle_between_requests_whatever_comes() {
        let activity = Arc::new(Activity::new());
        activity.read(b"PRI * HT");
        assert_eq!(overdue(&activity), Some((LIMITS.head_time_max, Overdue::Head)));
        activity.read(b"TP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(overdue(&activity), Some((LIMITS.head_time_max, Overdue::Idle)));
        drop(activity.request());
        activity.read(b"ping");
        assert_eq!(overdue(&activity), Some((LIMITS.idle_time_max, Overdue::Idle)));
    }

    #[tokio::test]
    async fn the_idlest_makes_room() {
        let connections = Connections::new(2);
        let closed_when_asked = |admitted: Admitted| {
            tokio::spawn(async move { admitted.activity().asked_to_close().await })
        };
        let busy = connections.admit().await.expect("there is room");
        let _request = busy.activity().request();
        let idle = closed_when_asked(connections.admit().await.expect("there is room"));
        let new = connections.admit().await.expect("room was made");
        idle.await.expect("it was asked");
        let _request = new.activity().request();
        assert!(connections.admit().await.is_none(), "all are busy");
        drop(busy);
        assert!(connections.admit().await.is_some());
    }
}
