//! One thread writes. It takes all requests that wait, commits them together,
//! and answers each.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::store::{self, Event, Settled};

/// Most events in a commit; a request that has more gets one of its own.
const COMMIT_EVENTS_MAX: usize = 10_000;

/// A request that waits.
struct Waiting {
    events: Arc<[Event]>,
    /// Nothing is sent if they were not stored.
    settled: oneshot::Sender<Vec<Settled>>,
}

impl AsRef<[Event]> for Waiting {
    fn as_ref(&self) -> &[Event] {
        &self.events
    }
}

/// The way to the thread that writes.
#[derive(Clone)]
pub struct Writer(Sender<Waiting>);

impl Writer {
    /// Starts the thread.
    pub fn start(connection: Connection) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || write(connection, &receiver));
        Writer(sender)
    }

    /// What became of the events, once it is on disk; `None` if they could not be
    /// stored.
    pub async fn store(&self, events: Arc<[Event]>) -> Option<Vec<Settled>> {
        let (settled, receiver) = oneshot::channel();
        self.0.send(Waiting { events, settled }).ok()?;
        receiver.await.ok()
    }
}

fn write(mut connection: Connection, requests: &Receiver<Waiting>) {
    while let Ok(first) = requests.recv() {
        let mut events = first.events.len();
        let mut group = vec![first];
        while events < COMMIT_EVENTS_MAX
            && let Ok(next) = requests.try_recv()
        {
            events += next.events.len();
            group.push(next);
        }
        match store::commit(&mut connection, &group) {
            Ok(settled) => {
                for (waiting, settled) in group.into_iter().zip(settled) {
                    // Whoever asked may be gone.
                    waiting.settled.send(settled).ok();
                }
            }
            // Dropped, the requests are answered with 503.
            Err(error) => eprintln!("cannot commit: {error}"),
        }
    }
}
