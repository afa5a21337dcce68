//! The end of the log, polled by all readers of an instance together.
//!
//! Instances know nothing of each other and share nothing but the store, so
//! whoever waits for the next event has to poll. A poll is one look-up at the
//! end of a table, however long the table is, and what it finds is read once:
//! it serves all readers of the instance that have come as far.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::latest::Latest;
use super::model::{Cursor, Filter, PageLimit, Seq, StoreError, StoredEvent};
use super::retry::RetryingStore;
use crate::platform::Clock;

/// How long a reader waits before it polls again, in milliseconds.
const POLL_INTERVAL_MS: u64 = 100;

/// How old a poll of another reader may be to serve this one, in milliseconds.
/// With the interval it bounds how late an event is seen.
const POLL_AGE_MS_MAX: u64 = 50;

/// Most events that are kept for the readers of an instance.
const RECENT_EVENTS_MAX: usize = 1000;

/// Most bytes of them, unless one event has more.
const RECENT_BYTES_MAX: usize = 512 * 1024;

/// What an instance last saw of the end.
pub(crate) struct Tail {
    store: RetryingStore,
    clock: Rc<dyn Clock>,
    head: Latest<Cursor>,
    recent: RefCell<Recent>,
}

/// An event, and how its readers write it.
#[derive(Debug)]
pub(crate) struct RecentEvent {
    /// Its place among all events.
    pub(crate) seq: Seq,
    /// Its topic.
    pub(crate) topic: String,
    /// Its text, as it was rendered for the first of its readers.
    pub(crate) text: Vec<u8>,
}

/// The events after `from` and up to `to`, all of them.
#[derive(Debug)]
struct Recent {
    from: Cursor,
    to: Cursor,
    events: VecDeque<Rc<RecentEvent>>,
    bytes: usize,
}

impl Recent {
    /// None yet, and the next ones are those after `cursor`.
    fn beginning_at(cursor: Cursor) -> Self {
        Recent { from: cursor, to: cursor, events: VecDeque::new(), bytes: 0 }
    }

    /// Adds events that follow those that are there, and lets the oldest go.
    fn extend(&mut self, events: Vec<RecentEvent>) {
        for event in events {
            self.to = Cursor::after(event.seq);
            self.bytes += event.text.len();
            self.events.push_back(Rc::new(event));
        }
        while self.events.len() > RECENT_EVENTS_MAX
            || (self.bytes > RECENT_BYTES_MAX && self.events.len() > 1)
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.from = Cursor::after(oldest.seq);
            self.bytes -= oldest.text.len();
        }
    }

    /// The events after `seen`, and the place up to which they are; `None` when
    /// some of them are not here.
    fn after(&self, seen: Cursor) -> Option<(Vec<Rc<RecentEvent>>, Cursor)> {
        (self.from <= seen && seen < self.to).then(|| {
            // A binary search: events are in the order of their places.
            let begin = self.events.partition_point(|event| Cursor::after(event.seq) <= seen);
            (self.events.range(begin..).cloned().collect(), self.to)
        })
    }
}

impl Tail {
    /// The end of `store`, which nobody has looked at yet.
    pub(crate) fn of(store: RetryingStore, clock: Rc<dyn Clock>) -> Self {
        Tail {
            store,
            clock,
            head: Latest::default(),
            recent: RefCell::new(Recent::beginning_at(Cursor::START)),
        }
    }

    /// The place after the newest event, as of at most [`POLL_AGE_MS_MAX`] ago.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub(crate) async fn head(&self) -> Result<Cursor, StoreError> {
        let now = self.clock.monotonic();
        if let Some(head) = self.head.get(now, Duration::from_millis(POLL_AGE_MS_MAX)) {
            return Ok(head);
        }
        let head = self.store.ask(async |store| store.head().await).await?;
        self.head.set(now, head);
        Ok(head)
    }

    /// The events after `seen`, and the place up to which they are, for a reader
    /// that was at the end there; `head` is where the end is now. `None` when
    /// others have gone on so far that it has to read for itself. `render` writes
    /// an event that no reader has met yet; all readers have it the same.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub(crate) async fn recent(
        &self,
        seen: Cursor,
        head: Cursor,
        render: impl Fn(&StoredEvent) -> Vec<u8>,
    ) -> Result<Option<(Vec<Rc<RecentEvent>>, Cursor)>, StoreError> {
        if self.recent.borrow().to < seen {
            // Nobody has polled for long: begin where this reader is.
            self.recent.replace(Recent::beginning_at(seen));
        }
        let from = self.recent.borrow().to;
        if from < head {
            let filter = Filter { after: Some(from), ..Filter::default() };
            let limit = PageLimit { events_max: RECENT_EVENTS_MAX, bytes_max: RECENT_BYTES_MAX };
            let read = self.store.ask(async |store| store.page(&filter, limit).await).await?;
            // Unless another reader did the same meanwhile.
            if self.recent.borrow().to == from {
                let events = read.into_iter().map(|event| RecentEvent {
                    seq: event.seq,
                    text: render(&event),
                    topic: event.topic,
                });
                self.recent.borrow_mut().extend(events.collect());
            }
        }
        Ok(self.recent.borrow().after(seen))
    }

    /// Lets a reader wait until it is time to poll again.
    pub(crate) async fn wait_for_poll(&self) {
        self.clock.sleep(Duration::from_millis(POLL_INTERVAL_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, bytes: usize) -> RecentEvent {
        RecentEvent { seq: Seq::new(seq), topic: "t".to_owned(), text: vec![0; bytes] }
    }

    fn at(seq: i64) -> Cursor {
        Cursor::after(Seq::new(seq))
    }

    fn seqs(recent: &Recent, seen: i64) -> Option<Vec<Seq>> {
        recent.after(at(seen)).map(|(events, _)| events.iter().map(|event| event.seq).collect())
    }

    #[test]
    fn keeps_the_newest_and_says_what_it_lacks() {
        let some = |seqs: &[i64]| Some(seqs.iter().copied().map(Seq::new).collect::<Vec<_>>());
        let mut recent = Recent::beginning_at(at(7));
        assert_eq!(seqs(&recent, 7), None);
        recent.extend([8, 10, 11].map(|seq| event(seq, 1)).into());
        assert_eq!(seqs(&recent, 7), some(&[8, 10, 11]));
        assert_eq!(seqs(&recent, 9), some(&[10, 11]), "a place in a gap is a place");
        assert_eq!(seqs(&recent, 10), some(&[11]));
        assert_eq!(seqs(&recent, 6), None, "7 is not here");
        assert_eq!(seqs(&recent, 11), None, "nothing is new");
        recent.extend((12..=11 + RECENT_EVENTS_MAX as i64).map(|seq| event(seq, 1)).collect());
        assert_eq!(recent.events.len(), RECENT_EVENTS_MAX);
        assert_eq!((recent.from, seqs(&recent, 10)), (at(11), None));
        assert_eq!(seqs(&recent, 11).map(|seqs| seqs.len()), Some(RECENT_EVENTS_MAX));
        let next = 12 + RECENT_EVENTS_MAX as i64;
        recent.extend(vec![event(next, RECENT_BYTES_MAX + 1)]);
        assert_eq!(seqs(&recent, next - 1), some(&[next]), "one is kept, however large");
        assert_eq!(recent.bytes, RECENT_BYTES_MAX + 1);
    }
}
