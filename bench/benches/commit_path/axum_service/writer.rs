//! The way to the one that writes. It takes all requests that wait, commits them
//! together, and answers each.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::store::{Event, Settled};

/// Most events in a commit; a request that has more gets one of its own.
const COMMIT_EVENTS_MAX: usize = 10_000;

/// A request that waits.
pub struct Waiting {
    events: Arc<[Event]>,
    /// Nothing is sent if they were not stored.
    settled: oneshot::Sender<Vec<Settled>>,
}

impl AsRef<[Event]> for Waiting {
    fn as_ref(&self) -> &[Event] {
        &self.events
    }
}

/// Requests on their way to the one that writes.
#[derive(Clone)]
pub struct Writer(UnboundedSender<Waiting>);

/// Where they arrive.
pub type Requests = UnboundedReceiver<Waiting>;

impl Writer {
    /// The way, and its other end.
    pub fn new() -> (Self, Requests) {
        let (sender, requests) = mpsc::unbounded_channel();
        (Writer(sender), requests)
    }

    /// What became of the events, once it is on disk; `None` if they could not be
    /// stored.
    pub async fn store(&self, events: Arc<[Event]>) -> Option<Vec<Settled>> {
        let (settled, receiver) = oneshot::channel();
        self.0.send(Waiting { events, settled }).ok()?;
        receiver.await.ok()
    }
}

/// A request with all others that wait by now, for one commit.
pub fn group(first: Waiting, requests: &mut Requests) -> Vec<Waiting> {
    let mut events = first.events.len();
    let mut group = vec![first];
    while events < COMMIT_EVENTS_MAX
        && let Ok(next) = requests.try_recv()
    {
        events += next.events.len();
        group.push(next);
    }
    group
}

/// Answers a group that was committed, or not.
pub fn answer(group: Vec<Waiting>, committed: Result<Vec<Vec<Settled>>, impl Display>) {
    match committed {
        Ok(settled) => {
            for (waiting, settled) in group.into_iter().zip(settled) {
                // Whoever asked may be gone.
                waiting.settled.send(settled).ok();
            }
        }
        // Dropped, the requests are answered with 503.
        Err(error) => eprintln!("cannot commit: {error:#}"),
    }
}
