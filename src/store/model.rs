//! What a store holds and says, the same for every engine.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::event::Topic;
use crate::platform::KeyValueError;
use crate::time::UnixMillis;

/// A commit that took so long, in milliseconds, is one to a slow disk: it pays there to
/// wait for what is about to come, and to wait for nobody before.
pub(crate) const SLOW_COMMIT_MS_MIN: u64 = 2;

/// How far the time of the newest event may be ahead of the clock for the clock to
/// stand still until it has caught up, in milliseconds. A time further ahead is that
/// of a clock that was wrong: what comes next has the time of the clock.
pub(crate) const CLOCK_AHEAD_MS_MAX: i64 = 10_000;

/// What is to be logged when it was further ahead.
pub(crate) fn clock_was_ahead() -> String {
    format!(
        "the newest event was received more than {CLOCK_AHEAD_MS_MAX} ms after the time of the \
         clock; the events that come next have the time of the clock"
    )
}

/// The place of an event among all events.
///
/// It increases along commits, nothing appears below what a reader has read,
/// and it is never used again. It may have gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Seq(i64);

impl Seq {
    /// The number as an engine stores it, from 1.
    pub fn new(number: i64) -> Self {
        Seq(number)
    }

    /// The number as an engine stores it.
    pub(crate) fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a reader stands: after one event and before the next. To clients its
/// text is opaque.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(i64);

impl Cursor {
    /// Before the first event.
    pub const START: Cursor = Cursor(0);

    /// After every event that will ever be.
    pub const END: Cursor = Cursor(i64::MAX);

    /// Directly after the event of this `seq`.
    pub fn after(seq: Seq) -> Self {
        Cursor(seq.0)
    }

    /// Directly before the event of this `seq`.
    pub fn before(seq: Seq) -> Self {
        Cursor(seq.0 - 1)
    }

    /// How many places there are from here to `other`, if that is later.
    pub(crate) fn places_to(self, other: Cursor) -> i64 {
        other.0.saturating_sub(self.0).max(0)
    }

    /// Whether there is room for no more than `events` events from `from` up to here.
    pub(crate) fn follows(self, from: Cursor, events: usize) -> bool {
        usize::try_from(self.0 - from.0).is_ok_and(|places| places <= events)
    }

    /// The cursor that an engine stored as a number.
    pub(crate) fn from_number(number: i64) -> Self {
        Cursor(number)
    }

    /// The number that an engine stores and compares: of the event before it.
    pub(crate) fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    /// Reads digits alone: no sign, no space.
    fn from_str(text: &str) -> Result<Self, NotACursor> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACursor);
        }
        text.parse().map(Cursor).map_err(|_| NotACursor)
    }
}

/// What came of one delivery of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// First delivery of its identity; stored under `seq`.
    Accepted {
        /// Its place among all events.
        seq: Seq,
    },
    /// Stored before, with the same content.
    Duplicate,
    /// Stored before, with other content, which stays.
    Conflict,
}

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among all events.
    pub seq: Seq,
    /// First half of its identity.
    pub topic: String,
    /// Second half of its identity.
    pub event_id: String,
    /// Who said so.
    pub source: String,
    /// As it was given, if it was.
    pub timestamp: Option<String>,
    /// JSON text, unless the store was damaged.
    pub payload: String,
    /// When it was received.
    pub received_at: UnixMillis,
}

/// Which way a reader goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// Which events a page holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these topics; all of them when there is none.
    pub topics: Vec<Topic>,
    /// Only this source.
    pub source: Option<String>,
    /// Oldest or newest first.
    pub order: Order,
    /// Where the page before ended, in that order: newest first, the page goes on
    /// with what is before the event of this cursor.
    pub from: Option<Cursor>,
    /// Only events after this place, whichever the order.
    pub after: Option<Cursor>,
    /// Only events up to this place.
    pub up_to: Option<Cursor>,
    /// Only events received then or later. It is no place to begin at: for that,
    /// `after` is set as well, by what [`Store::received_between`] tells.
    ///
    /// [`Store::received_between`]: super::Store::received_between
    pub since: Option<UnixMillis>,
    /// Only events received before. The same holds for `up_to`.
    pub until: Option<UnixMillis>,
}

impl Filter {
    /// The places that bound its events, whichever the order: they are after the first,
    /// before the second, and up to the third.
    pub(crate) fn bounds(&self) -> [Cursor; 3] {
        let (above, below) = match self.order {
            Order::Ascending => (self.from, None),
            Order::Descending => (None, self.from),
        };
        [
            above.max(self.after).unwrap_or(Cursor::START),
            below.unwrap_or(Cursor::END),
            self.up_to.unwrap_or(Cursor::END),
        ]
    }
}

/// How much a page holds at most.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Events, one at least.
    pub events_max: usize,
    /// Bytes of event ids, sources and payloads: the page ends with the event that
    /// reaches them, so it holds one when there is one.
    pub bytes_max: usize,
}

/// Counters of one topic, or of several together, since the store was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events stored.
    pub unique_processed: i64,
    /// Deliveries of events that were stored before, conflicts included.
    pub duplicate_dropped: i64,
    /// Those of them whose content was another.
    pub conflicts: i64,
    /// Events stored of which nothing but the identity is left, if that.
    pub pruned: i64,
}

impl Counters {
    /// All deliveries of valid events. It is not stored anywhere, so that it
    /// balances by construction.
    pub fn received(&self) -> i64 {
        self.unique_processed + self.duplicate_dropped
    }
}

/// A topic and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCounters {
    /// The topic.
    pub topic: String,
    /// Its counters.
    pub counters: Counters,
}

/// The counters in all, and those of some topics, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Over all topics.
    pub all: Counters,
    /// How many topics there are.
    pub topic_count: i64,
    /// Those that were asked for, in the order of their names, byte by byte.
    pub topics: Vec<TopicCounters>,
    /// Whether others come after them.
    pub has_more: bool,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// When the store was created.
    pub created_at: UnixMillis,
}

/// Which topics are told one by one.
#[derive(Clone, Copy, Debug)]
pub struct TopicRange<'a> {
    /// Those after this one, in the order of their names; from the first on when
    /// it is empty.
    pub after: &'a str,
    /// So many at most.
    pub topics_max: usize,
}

impl TopicRange<'_> {
    /// No topic: the counters in all are wanted.
    pub const NONE: TopicRange<'static> = TopicRange { after: "", topics_max: 0 };
}

/// The counters in all, and those of the topics with the most deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Over all topics.
    pub all: Counters,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// How many topics there are.
    pub topic_count: i64,
    /// The topics with the most deliveries, most first; of equal ones the first
    /// that came.
    pub topics: Vec<TopicCounters>,
}

/// Numbers to add to the store's counters by name.
pub type Increments = std::collections::BTreeMap<String, i64>;

/// The prefix of the names under which rejected deliveries are counted, by the
/// field that was wrong.
pub const REJECTED_PREFIX: &str = "rejected/";

/// All numbers of the store that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The topics that came first, in the order in which they did: always the
    /// same ones, so that no series ends because another topic overtook it.
    pub topics: Vec<TopicCounters>,
    /// All other topics together, if there are any.
    pub other_topics: Option<Counters>,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// What was counted by name.
    pub counted: Increments,
    /// When the store was created.
    pub created_at: UnixMillis,
    /// The size of the database, in bytes.
    pub store_bytes: i64,
    /// How many bytes the events have that are not pruned, as
    /// [`Kept::bytes`](super::Kept::bytes) counts them.
    pub content_bytes: i64,
}

/// A named subscription: a consumer whose position the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// The topics that it reads, as they were given; every topic when there is none.
    pub topics: Vec<Topic>,
    /// Up to where it has acknowledged.
    pub position: Cursor,
    /// Events of its topics after its position.
    pub lag: i64,
    /// How often it was defined, from 1.
    pub revision: i64,
    /// When it was first defined.
    pub created_at: UnixMillis,
    /// When its position last moved.
    pub acked_at: Option<UnixMillis>,
}

impl Subscription {
    /// Its topics as an engine stored them.
    ///
    /// # Errors
    ///
    /// A text that is no topic.
    pub(crate) fn topics_of(texts: Vec<String>) -> Result<Vec<Topic>, StoreError> {
        let topic = |text| {
            Topic::parse(text)
                .map_err(|why| StoreError::unexpected(format_args!("a topic that {why}")))
        };
        texts.into_iter().map(topic).collect()
    }
}

/// What a subscription is to be.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// Its name.
    pub name: &'a str,
    /// The topics that it reads; every topic when there is none.
    pub topics: &'a [Topic],
    /// Where a new one begins; one that is there keeps its position.
    pub start: Start,
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Here.
    At(Cursor),
    /// With the event that comes next.
    End,
}

/// Why a store did not do what it was asked.
///
/// Every kind may be retried: whatever the store says, an event is better
/// delivered twice than dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another writer holds the store. It will pass by itself.
    Busy,
    /// There is no room left.
    Full,
    /// The store does not answer, is read-only, is damaged, or is not ours.
    Unavailable,
    /// The answer was lost: what was asked for may have been done. Events that are
    /// appended again would be told as duplicates of themselves, so it is for the client
    /// to send them again.
    Indeterminate,
}

/// A [`Fault`] with the store's own words, which go to the log and never to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of fault it is.
    pub fault: Fault,
    /// The store's words.
    pub message: String,
}

impl StoreError {
    /// Something that will pass by itself, for the reason in `message`.
    pub fn busy(message: impl Into<String>) -> Self {
        StoreError { fault: Fault::Busy, message: message.into() }
    }

    /// A store that does not do its part, for the reason in `message`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        StoreError { fault: Fault::Unavailable, message: message.into() }
    }

    /// An answer that was lost, for the reason in `message`.
    pub fn indeterminate(message: impl Into<String>) -> Self {
        StoreError { fault: Fault::Indeterminate, message: message.into() }
    }

    /// The same of an answer that cannot be read: what was asked for is done.
    #[must_use]
    pub fn of_what_is_done(self) -> Self {
        StoreError { fault: Fault::Indeterminate, ..self }
    }

    /// A result that the schema rules out: the store is damaged, or not ours.
    pub fn unexpected(what: impl fmt::Display) -> Self {
        StoreError::unavailable(format!("unexpected result: {what}"))
    }

    /// Whether another writer holds the store.
    pub fn is_busy(&self) -> bool {
        self.fault == Fault::Busy
    }

    /// Whether what was asked for may have been done.
    pub fn is_indeterminate(&self) -> bool {
        self.fault == Fault::Indeterminate
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<KeyValueError> for StoreError {
    fn from(error: KeyValueError) -> Self {
        StoreError::unavailable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_digits() {
        assert_eq!("0".parse(), Ok(Cursor::START));
        assert_eq!("17".parse(), Ok(Cursor::after(Seq::new(17))));
        assert_eq!(i64::MAX.to_string().parse(), Ok(Cursor::END));
        for text in ["", "-1", "+1", " 1", "1.0", "x", "99999999999999999999"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
        assert_eq!(Cursor::after(Seq::new(17)).to_string(), "17");
    }
}
