//! What a store has to give: the trait that every engine implements, and that
//! `conformance/` holds it to.

use std::time::Duration;

use async_trait::async_trait;

use super::marks::{Claim, Claimed, Lease, Marks};
use super::model::{
    Cursor, Definition, Filter, Increments, Measures, Outcome, PageLimit, REJECTED_PREFIX,
    StoreError, StoredEvent, Subscription, Summary, TopicRange, Totals,
};
use super::retention::{Forgotten, Kept, Prune, Pruned, TopicGroup};
use crate::event::{Event, Topic};
use crate::time::UnixMillis;

/// Deliveries of one request. Made once, however often the commit is tried.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// The events in their order, in the encoding of the engine ([`Store::encode`]).
    pub encoded: Vec<u8>,
    /// How many events there are.
    pub events: usize,
    /// How many deliveries were no valid events, by the field that was wrong.
    pub rejected: Increments,
    /// When they came to this instance, on its monotonic clock.
    pub came: Duration,
    /// How long each of the requests that brought them had waited then.
    pub waited: Vec<Duration>,
}

impl Deliveries {
    /// How long each of the requests has waited at a moment of this instance.
    pub(crate) fn waited_at(&self, now: Duration) -> impl Iterator<Item = Duration> {
        let here = now.saturating_sub(self.came);
        self.waited.iter().map(move |before| *before + here)
    }
}

/// How many events there are in a group.
pub(crate) fn events_in(group: &[&Deliveries]) -> usize {
    group.iter().map(|deliveries| deliveries.events).sum()
}

/// What a commit of `group` adds to the counters by name: the deliveries that were
/// rejected, by their reasons, and `increments`, whose names are others.
pub(crate) fn increments_of(group: &[&Deliveries], increments: Option<&Increments>) -> Increments {
    let mut all = Increments::new();
    for (field, count) in group.iter().flat_map(|deliveries| &deliveries.rejected) {
        *all.entry(format!("{REJECTED_PREFIX}{field}")).or_default() += count;
    }
    all.extend(increments.into_iter().flatten().map(|(name, count)| (name.clone(), *count)));
    all
}

/// A store of events: exactly one for each identity, in the order of commits.
///
/// What one method has told, every later call of any instance tells as well: an
/// event that an outcome, a page or the head has shown is on every later page, and
/// none appears before it. Identities, topics and names are compared byte by byte.
/// `received_at` never decreases along `seq`, unless the clock was set back so far
/// that it cannot wait until the clock has caught up.
///
/// Every method that writes is one atomic commit, on disk when it returns. A
/// method whose future is dropped may have committed or not; to call it again
/// is safe, since events are idempotent by their identity. Busy is returned as
/// [`Fault::Busy`](super::Fault::Busy) at once or after a moment: waiting longer
/// is for the caller, who can add to a group meanwhile.
#[async_trait(?Send)]
pub trait Store {
    /// Writes events as [`Store::append`] wants them. Encodings that follow each other
    /// without anything between are that of their events.
    ///
    /// # Errors
    ///
    /// None that an [`Event`] can cause.
    fn encode(&self, events: &[&Event]) -> Result<Vec<u8>, StoreError>;

    /// Takes a group of deliveries in one commit: each event is stored or known,
    /// its topic's counters count it, `rejected` is counted, in all and by its
    /// reasons (under [`REJECTED_PREFIX`](super::REJECTED_PREFIX)), and
    /// `increments` are added to the counters by name. Outcomes are in the order
    /// of the events. The group may be empty.
    ///
    /// # Errors
    ///
    /// What the store says; nothing of the group is stored then, or all of it
    /// and the answer was lost.
    async fn append(
        &self,
        group: &[&Deliveries],
        increments: Option<&Increments>,
    ) -> Result<Vec<Outcome>, StoreError>;

    /// The next events of `filter`, in its order. Topics named in it are different
    /// ones.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn page(&self, filter: &Filter, limit: PageLimit)
    -> Result<Vec<StoredEvent>, StoreError>;

    /// The place after the newest event. Cheap, however many events there are.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn head(&self) -> Result<Cursor, StoreError>;

    /// Places that hold every event received from `since` on and before `until`,
    /// those of them that are given: after the first, up to the second. There are
    /// others between them when the clock was set back.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn received_between(
        &self,
        since: Option<UnixMillis>,
        until: Option<UnixMillis>,
    ) -> Result<(Option<Cursor>, Option<Cursor>), StoreError>;

    /// The counters in all, and those of `topics`. The cost grows with the number
    /// of all topics, never with the number of events; the size does not.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn totals(&self, topics: TopicRange<'_>) -> Result<Totals, StoreError>;

    /// A [`Summary`] with `topics_max` topics at most. Its cost grows with the
    /// number of topics, its size does not.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn summary(&self, topics_max: usize) -> Result<Summary, StoreError>;

    /// All [`Measures`], with `topics_max` topics by name at most.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn measures(&self, topics_max: usize) -> Result<Measures, StoreError>;

    /// Defines a subscription: a new one begins at its start, one that is there
    /// gets these topics and keeps its position. `None` when there are
    /// `subscriptions_max` others already.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn define_subscription(
        &self,
        definition: Definition<'_>,
        subscriptions_max: usize,
    ) -> Result<Option<Subscription>, StoreError>;

    /// Moves a subscription forward to `position`, which is kept as given, also in
    /// a gap; never back, nor ahead of the newest event: it stays where it is then. `None` when there is none of
    /// that name.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn acknowledge(
        &self,
        name: &str,
        position: Cursor,
    ) -> Result<Option<Subscription>, StoreError>;

    /// Removes a subscription and returns it as it was.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn remove_subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError>;

    /// The subscription of that name, if there is one.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn subscription(&self, name: &str) -> Result<Option<Subscription>, StoreError>;

    /// All subscriptions, in the order of their names.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError>;

    /// What there is of the events of a group. The cost grows with the number of all
    /// topics.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn kept(&self, group: &TopicGroup) -> Result<Kept, StoreError>;

    /// Prunes events, in one short commit: their contents go, their identities stay, the
    /// counters count them as pruned, and no subscription has them before it any more.
    /// It may look at a part of the places only, and says how far it came. The places
    /// and times of what comes next are as if nothing had been pruned. `None`, and nothing
    /// is pruned, if the claim is another's by the time of the commit.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn prune(&self, prune: Prune<'_>) -> Result<Option<Pruned>, StoreError>;

    /// The place up to which events of `topics` (all, if there are none) were pruned,
    /// not necessarily all of them: [`Cursor::START`] when none was.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn pruned_up_to(&self, topics: &[Topic]) -> Result<Cursor, StoreError>;

    /// Forgets the identities of pruned events that were received on a day (of UTC)
    /// before that of `received_before`. It looks at `identities_max` at most, from
    /// where the last look ended, whichever instance had it.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn forget(
        &self,
        received_before: UnixMillis,
        identities_max: usize,
    ) -> Result<Forgotten, StoreError>;

    /// Moments that instances noted for each other, by their names.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn marks(&self) -> Result<Marks, StoreError>;

    /// Notes moments, all of `marks` at once.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn set_marks(&self, marks: &[(&str, UnixMillis)]) -> Result<(), StoreError>;

    /// Takes something upon this instance until the moment that `claim` ends, if
    /// nobody else has: for one of many that ask at once.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn claim<'a>(&self, claim: Claim<'a>) -> Result<Option<Claimed<'a>>, StoreError>;

    /// Gives back what was claimed, and notes `marks` with it, all of it at once; does
    /// nothing if it is another's by now.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn release(
        &self,
        claimed: Claimed<'_>,
        marks: &[(&str, UnixMillis)],
    ) -> Result<(), StoreError>;

    /// Reads something small, to see that the store answers.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Does what a commit of events does, as far as it can be done without storing
    /// anything or writing to the disk: fails when a commit would, but for want of
    /// room.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn try_commit(&self) -> Result<(), StoreError>;

    /// What the engine noticed since this was asked last, for the log.
    fn take_notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the last commit of events was handed over to another instance, which
    /// observes it as its own.
    fn has_handed_over(&self) -> bool {
        false
    }

    /// Whether a commit of events may begin while another one has not ended, because it
    /// would not wait for it.
    fn takes_another(&self) -> bool {
        false
    }

    /// Becomes, or stays, the one instance to which the others hand their commits over.
    /// False if another is, or if there is none in this engine.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn take_lease(&self, _lease: Lease) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Called when every request of a committed group has been told its
    /// outcomes: what an engine does between commits is done here.
    async fn group_told(&self) {}

    /// Whether an instance that has nothing to do had better stay for a moment.
    fn wants_to_linger(&self) -> bool {
        false
    }

    /// Ends when this instance may go, as far as the engine is concerned.
    async fn linger(&self) {}

    /// Called when it has nothing to do for now: what others may want is given back.
    fn rest(&self) {}
}
