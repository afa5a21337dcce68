//! The end of the event log, watched by all readers of an instance together.
//!
//! Instances know nothing of each other and share nothing but the store, so
//! whoever waits for the next event has to look. A look is one look-up at the
//! end of a table, however long the table is, and what it finds is read once:
//! it serves all readers of the instance that have come as far.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::commit;
use crate::config::Config;
use crate::http::event_json as view;
use crate::http::sse;
use crate::platform::{Ports, StoreError};
use crate::store::sqlite::event_log::{self, Filter};

/// How long a reader waits before it looks again, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// How old a look of another reader may be to serve this one, in milliseconds.
/// With the wait it bounds how late an event is seen.
const LOOK_AGE_MS_MAX: u64 = 50;

/// Most events that are kept for the readers of an instance.
const RECENT_EVENTS_MAX: usize = 1000;

/// Most bytes of them, unless one event has more.
const RECENT_BYTES_MAX: usize = 512 * 1024;

/// What an instance last saw of the end.
#[derive(Debug, Default)]
pub struct Tail {
    looked: Cell<Option<(Duration, i64)>>,
    recent: RefCell<Recent>,
}

/// An event as a stream shows it.
#[derive(Debug)]
pub struct RecentEvent {
    /// Its place among all events.
    pub seq: i64,
    /// Its topic.
    pub topic: String,
    /// Its frame.
    pub frame: Vec<u8>,
}

/// The events after `from` and up to `to`, all of them.
#[derive(Debug, Default)]
struct Recent {
    from: i64,
    to: i64,
    events: VecDeque<Rc<RecentEvent>>,
    bytes: usize,
}

impl Recent {
    /// Adds events that follow those that are there, and lets the oldest go.
    fn extend(&mut self, events: Vec<RecentEvent>) {
        for event in events {
            self.to = event.seq;
            self.bytes += event.frame.len();
            self.events.push_back(Rc::new(event));
        }
        while self.events.len() > RECENT_EVENTS_MAX
            || (self.bytes > RECENT_BYTES_MAX && self.events.len() > 1)
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.from = oldest.seq;
            self.bytes -= oldest.frame.len();
        }
    }

    /// The events after `seen`, and the `seq` up to which they are; `None` when
    /// some of them are not here.
    fn after(&self, seen: i64) -> Option<(Vec<Rc<RecentEvent>>, i64)> {
        (self.from <= seen && seen < self.to).then(|| {
            let begin = self.events.partition_point(|event| event.seq <= seen);
            (self.events.range(begin..).cloned().collect(), self.to)
        })
    }
}

/// The `seq` of the newest event, as of at most [`LOOK_AGE_MS_MAX`] ago.
///
/// # Errors
///
/// What the store says.
pub async fn head(ports: &impl Ports, config: &Config) -> Result<i64, StoreError> {
    let tail = &ports.instance().tail;
    let now = ports.monotonic();
    if let Some((at, head)) = tail.looked.get()
        && now.saturating_sub(at) <= Duration::from_millis(LOOK_AGE_MS_MAX)
    {
        return Ok(head);
    }
    let wait_max = config.commit_wait_max;
    let head = commit::patiently(ports, wait_max, async || event_log::head(ports).await).await?;
    tail.looked.set(Some((now, head)));
    Ok(head)
}

/// The events after `seen`, and the `seq` up to which they are, for a reader
/// that has come near the end, `head`. `None` when it has to read for itself.
///
/// # Errors
///
/// What the store says.
pub async fn recent(
    ports: &impl Ports,
    config: &Config,
    seen: i64,
    head: i64,
) -> Result<Option<(Vec<Rc<RecentEvent>>, i64)>, StoreError> {
    let recent = &ports.instance().tail.recent;
    let is_far = |from: i64| usize::try_from(head - from).is_ok_and(|far| far > RECENT_EVENTS_MAX);
    if is_far(seen) {
        return Ok(None);
    }
    if is_far(recent.borrow().to) || recent.borrow().to == 0 {
        // Nobody has looked for long: begin where this reader is.
        recent.replace(Recent { from: seen, to: seen, ..Recent::default() });
    }
    let from = recent.borrow().to;
    if from < head {
        let filter = Filter { above: Some(from), ..Filter::default() };
        let read = commit::patiently(ports, config.commit_wait_max, async || {
            event_log::page(ports, &filter, RECENT_EVENTS_MAX, RECENT_BYTES_MAX).await
        });
        let mut events = Vec::new();
        for event in read.await? {
            let mut frame = Vec::new();
            sse::frame(&mut frame, Some(event.seq), |text| view::write(&event, text))?;
            events.push(RecentEvent { seq: event.seq, topic: event.topic, frame });
        }
        // Unless another reader did the same meanwhile.
        if recent.borrow().to == from {
            recent.borrow_mut().extend(events);
        }
    }
    Ok(recent.borrow().after(seen))
}

/// Lets a reader wait until it is time to look again.
pub async fn pause(ports: &impl Ports) {
    ports.sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, bytes: usize) -> RecentEvent {
        RecentEvent { seq, topic: "t".to_owned(), frame: vec![0; bytes] }
    }

    fn seqs(recent: &Recent, seen: i64) -> Option<Vec<i64>> {
        recent.after(seen).map(|(events, _)| events.iter().map(|event| event.seq).collect())
    }

    #[test]
    fn keeps_the_newest_and_says_what_it_lacks() {
        let mut recent = Recent { from: 7, to: 7, ..Recent::default() };
        assert_eq!(seqs(&recent, 7), None);
        recent.extend((8..=10).map(|seq| event(seq, 1)).collect());
        assert_eq!(seqs(&recent, 7), Some(vec![8, 9, 10]));
        assert_eq!(seqs(&recent, 9), Some(vec![10]));
        assert_eq!(seqs(&recent, 6), None, "7 is not here");
        assert_eq!(seqs(&recent, 10), None, "nothing is new");
        recent.extend((11..=10 + RECENT_EVENTS_MAX as i64).map(|seq| event(seq, 1)).collect());
        assert_eq!(recent.events.len(), RECENT_EVENTS_MAX);
        assert_eq!((recent.from, seqs(&recent, 9)), (10, None));
        assert_eq!(seqs(&recent, 10).map(|seqs| seqs.len()), Some(RECENT_EVENTS_MAX));
        let next = recent.to + 1;
        recent.extend(vec![event(next, RECENT_BYTES_MAX + 1)]);
        assert_eq!(seqs(&recent, next - 1), Some(vec![next]), "one is kept, however large");
        assert_eq!(recent.bytes, RECENT_BYTES_MAX + 1);
    }
}
