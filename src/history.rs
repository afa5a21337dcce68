//! Service state in the key-value store: the time of the first start, and a
//! snapshot of the counters for each minute, now and then by topic.
//!
//! The counters themselves live in the store, in the same commits as the events.
//! When the key-value store is empty or fails, nothing but what is here is missing.
//!
//! A call of the key-value store may hold up its whole instance, for as long as the
//! platform likes: Spin waits 5 s for a lock on its file. One that does not, as of
//! Redis, is given up in time (`platform`). So no request waits for one that can do
//! without. A *visit* is made after the reply, by one instance at a time, in an
//! instance that has nothing else to do (`component.rs` sees to it), and not again
//! for [`REST_MS`] after one that was slow or failed. What came of it is noted in
//! the store, where `/health` and other instances find it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::platform::{Clock, KeyValue, until_free};
use crate::store::{Claim, Marks, RetryingStore, StoreError, TopicCounters, TopicRange};
use crate::time::{self, NextLook, UnixMillis};

/// The key of the time of the first start.
const STARTED_AT: &str = "started_at";

/// The key of the snapshots, oldest first. One value holds them all, some
/// 200 kB for a day: a chart of the day is one call then, and not one for each
/// minute.
const SNAPSHOTS: &str = "snapshots";

/// How long a snapshot is kept, in minutes.
pub(crate) const HISTORY_MINUTES_MAX: i64 = 24 * 60;

/// How long a visit may take that counts as good, and how long a request waits
/// for one that is under way, in milliseconds.
pub(crate) const VISIT_MS_MAX: i64 = 3_000;

/// How long the key-value store is left alone after a visit that was slow or
/// failed, in milliseconds.
const REST_MS: i64 = 10_000;

/// After how long an instance that made a visit and did not say what came of it is
/// taken for dead, in milliseconds. Until then `/health` takes the key-value store
/// for slow, so a service that was killed during a visit is not healthy for so long
/// after its start; should the store hang, no more than one instance in each such
/// span hangs with it.
const VISIT_GIVEN_UP_MS: i64 = 10_000;

/// How old what is known of the key-value store may be until a health check has it
/// visited again, in milliseconds.
const KNOWN_MS_MAX: i64 = 30_000;

/// How long a call may take that fails at once.
const QUICK: Duration = Duration::from_millis(100);

/// Pause before a request looks again at what became of a visit, in milliseconds.
const LOOK_AGAIN_MS: u64 = 20;

/// How long it is tried to note what came of a visit, in milliseconds.
const NOTE_MS_MAX: u64 = 30_000;

/// How many minutes lie between snapshots that tell topics apart: a bar of a chart of the
/// day.
const TOPICS_MINUTES: i64 = 15;

/// Topics in a snapshot, those with the most deliveries, and bytes of their names together,
/// at most: a day of them has to fit where a value has few hundred kB.
const TOPICS_MAX: usize = 20;
const TOPICS_BYTES_MAX: usize = 1_024;

const MINUTE_MS: i64 = 60_000;

/// The marks in the store. Until when nobody else visits, because one instance does or
/// is about to.
const CLAIMED_UNTIL: &str = "key_value/claimed_until";
/// When the visit began that is under way, if one is.
const BEGAN_AT: &str = "key_value/began_at";
/// When the last good visit was.
const GOOD_AT: &str = "key_value/good_at";
/// When the last visit failed, if none was good since.
const FAILED_AT: &str = "key_value/failed_at";
/// When the next snapshot is due.
const SNAPSHOT_DUE_AT: &str = "key_value/snapshot_due_at";
/// The time of the first start, as the last visit read it.
const STARTED_AT_MARK: &str = "key_value/started_at";

/// One snapshot as it is kept and shown: the counters as the first publish of
/// the minute left them.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Snapshot {
    minute: String,
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    /// What was received by topic, in the first snapshot of each [`TOPICS_MINUTES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    by_topic: BTreeMap<String, i64>,
}

/// What was received of the first of `topics`, as many as may be told.
fn by_topic(topics: Vec<TopicCounters>) -> BTreeMap<String, i64> {
    let mut bytes = 0;
    let told = topics.into_iter().take_while(|one| {
        bytes += one.topic.len();
        bytes <= TOPICS_BYTES_MAX
    });
    told.map(|one| (one.topic, one.counters.received())).collect()
}

/// What a visit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// To keep the snapshot of this minute.
    Snapshot,
    /// To see whether the key-value store answers.
    Look,
}

/// What is known of the key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nobody was there yet.
    Nothing,
    Good,
    /// The last visit was slow or failed.
    Failed,
    /// One takes too long.
    Slow,
}

/// The state of the service beside its store.
pub(crate) struct History {
    clock: Rc<dyn Clock>,
    key_value: Rc<dyn KeyValue>,
    store: RetryingStore,
    /// When this instance is to look again whether a snapshot is due.
    next_look: NextLook,
    /// Values that could not be read and nobody has reported yet.
    unreadable: RefCell<Vec<String>>,
}

impl History {
    /// That which `key_value` keeps.
    pub(crate) fn new(
        clock: Rc<dyn Clock>,
        key_value: Rc<dyn KeyValue>,
        store: RetryingStore,
    ) -> Self {
        let (next_look, unreadable) = Default::default();
        History { clock, key_value, store, next_look, unreadable }
    }

    /// Whether this instance does not know that the minute has its snapshot. Asks
    /// nobody.
    pub(crate) fn may_be_due(&self) -> bool {
        self.next_look.is_due(self.clock.now())
    }

    /// Whether a publish is to be followed by [`Visit::Snapshot`]. With a store that
    /// does not answer it is not.
    pub(crate) async fn is_due(&self) -> bool {
        if !self.may_be_due() {
            return false;
        }
        let now = self.clock.now();
        // Should it fail: not with every publish.
        self.next_look.put_off(now, now + REST_MS);
        let Ok(marks) = self.store.once(async |store| store.marks().await).await else {
            return false;
        };
        if let Some(due_at) = marks.to_come(SNAPSHOT_DUE_AT, now, MINUTE_MS) {
            self.next_look.put_off(now, due_at);
            return false;
        }
        may_visit(&marks, now)
    }

    /// Whether a health check is to be followed by [`Visit::Look`].
    pub(crate) fn is_little_known(&self, marks: &Marks) -> bool {
        let now = self.clock.now();
        let good_at = marks.at(GOOD_AT);
        let is_old = good_at > now || good_at < now - KNOWN_MS_MAX || has_failed(marks);
        is_old && may_visit(marks, now)
    }

    /// Whether this instance is the one to visit the key-value store, for
    /// [`VISIT_GIVEN_UP_MS`]. Does not wait for a busy store.
    pub(crate) async fn claim(&self) -> bool {
        let now = self.clock.now();
        let claim = Claim { mark: CLAIMED_UNTIL, now, for_ms: VISIT_GIVEN_UP_MS };
        let claimed = self.store.once(async |store| store.claim(claim).await).await;
        claimed.is_ok_and(|claimed| claimed.is_some())
    }

    /// Visits the key-value store to see whether it answers, if nobody else does and
    /// it is not left alone.
    ///
    /// # Errors
    ///
    /// What a store says.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        // Many want to at a time; to read costs less than to claim.
        let marks = self.marks().await?;
        if !may_visit(&marks, self.clock.now()) || !self.claim().await {
            return Ok(());
        }
        self.visit(Visit::Look).await
    }

    /// Visits the key-value store. To be called by an instance that has the claim.
    ///
    /// # Errors
    ///
    /// What a store says. Nothing but the snapshot is lost then.
    pub(crate) async fn visit(&self, visit: Visit) -> Result<(), StoreError> {
        until_free(&*self.clock, &*self.key_value).await;
        let now = self.clock.now();
        self.store.ask(async |store| store.set_marks(&[(BEGAN_AT, now)]).await).await?;
        let began = self.clock.monotonic();
        let result = match visit {
            Visit::Snapshot => self.keep_snapshot().await,
            Visit::Look => self.note_start().await.map(|started_at| vec![started_at]),
        };
        let took = self.clock.monotonic() - began;
        let now = self.clock.now();
        let mut marks = match &result {
            Ok(marks) => marks.clone(),
            Err(_) => Vec::new(),
        };
        let is_good = result.is_ok() && took <= Duration::from_millis(VISIT_MS_MAX as u64);
        marks.extend(match is_good {
            true => [(GOOD_AT, now), (FAILED_AT, 0)],
            false => [(GOOD_AT, 0), (FAILED_AT, now)],
        });
        marks.extend([(BEGAN_AT, 0), (CLAIMED_UNTIL, 0)]);
        // Nobody knows of it until it is noted, so that is tried for long.
        let store = self.store.within(Duration::from_millis(NOTE_MS_MAX));
        let noted = store.ask(async |store| store.set_marks(&marks).await).await;
        result.and(noted)?;
        if is_good {
            return Ok(());
        }
        Err(StoreError::unavailable(format!("the key-value store took {} ms", took.as_millis())))
    }

    /// Whether the key-value store answers, by what instances found in the last
    /// visit; `Ok(true)` if it should be visited again, as nobody was there for long.
    /// Where nobody ever was, asks it if that holds up nobody.
    ///
    /// # Errors
    ///
    /// Busy when a visit takes longer than [`VISIT_MS_MAX`]; what the key-value store
    /// says.
    pub(crate) async fn check(&self) -> Result<bool, StoreError> {
        let Ok(marks) = self.marks().await else {
            // Publishing does not work anyway, and nobody can tell what he knows.
            self.key_value.get(STARTED_AT).await?;
            return Ok(false);
        };
        let mut known = self.known(&marks);
        if known == Known::Nothing && self.key_value.is_free() {
            self.look().await?;
            known = self.known(&self.marks().await?);
        }
        match known {
            Known::Nothing | Known::Good => Ok(self.is_little_known(&marks)),
            Known::Failed => Err(StoreError::unavailable("the last call was slow or failed")),
            // It may be over, and who made it waits for a busy store to say so.
            Known::Slow if self.is_store_busy().await => Ok(false),
            Known::Slow => Err(StoreError::busy(format!("no answer for {VISIT_MS_MAX} ms"))),
        }
    }

    /// The time of the first start, as it was last read. The store was created by
    /// the first request, so its age stands in where nobody has read it.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub(crate) async fn started_at(
        &self,
        created_at: UnixMillis,
    ) -> Result<UnixMillis, StoreError> {
        let noted = self.marks().await?.at(STARTED_AT_MARK);
        Ok(if noted > 0 { noted } else { created_at })
    }

    /// The snapshots of the last [`HISTORY_MINUTES_MAX`], oldest first.
    ///
    /// # Errors
    ///
    /// What the key-value store says. Busy when a visit of another instance takes
    /// long.
    pub(crate) async fn snapshots(&self) -> Result<Vec<Snapshot>, StoreError> {
        let marks = self.settled().await?;
        if self.known(&marks) == Known::Slow {
            return Err(StoreError::busy("the key-value store does not answer"));
        }
        if is_left_alone(&marks, self.clock.now()) {
            let message = "the key-value store is left alone for a moment";
            return Err(StoreError::unavailable(message));
        }
        until_free(&*self.clock, &*self.key_value).await;
        let began = self.clock.monotonic();
        let result = self.kept().await;
        let took = self.clock.monotonic() - began;
        if result.is_err() || took > Duration::from_millis(VISIT_MS_MAX as u64) {
            let now = self.clock.now();
            let marks = [(FAILED_AT, now)];
            self.store.ask(async |store| store.set_marks(&marks).await).await?;
        }
        let minute = time::minute_of(self.clock.now());
        let oldest = time::minute_name(minute - HISTORY_MINUTES_MAX);
        let mut snapshots = result?;
        if !self.unreadable.borrow().is_empty() {
            self.put(&snapshots).await?;
        }
        // Their names are in the order of time.
        snapshots.retain(|snapshot| snapshot.minute > oldest);
        Ok(snapshots)
    }

    /// What could not be read and was replaced since this was asked last.
    pub(crate) fn take_unreadable(&self) -> Vec<String> {
        self.unreadable.take()
    }

    async fn is_store_busy(&self) -> bool {
        let tried = self.store.once(async |store| store.try_commit().await).await;
        tried.is_err_and(|error| error.is_busy())
    }

    async fn marks(&self) -> Result<Marks, StoreError> {
        self.store.ask(async |store| store.marks().await).await
    }

    fn known(&self, marks: &Marks) -> Known {
        let now = self.clock.now();
        if let Some(began) = visit_began(marks, now)
            && now - began > VISIT_MS_MAX
        {
            return Known::Slow;
        }
        match (has_failed(marks), marks.at(GOOD_AT)) {
            (true, _) => Known::Failed,
            (false, 0) => Known::Nothing,
            (false, _) => Known::Good,
        }
    }

    /// The marks when no visit is under way or about to be, or after [`VISIT_MS_MAX`].
    async fn settled(&self) -> Result<Marks, StoreError> {
        let until = self.clock.monotonic() + Duration::from_millis(VISIT_MS_MAX as u64);
        loop {
            let marks = self.marks().await?;
            let is_expected = is_claimed(&marks, self.clock.now());
            if !is_expected || self.clock.monotonic() > until {
                return Ok(marks);
            }
            self.clock.sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
    }

    /// Keeps a snapshot of the counters, and returns what to note.
    async fn keep_snapshot(&self) -> Result<Vec<(&'static str, UnixMillis)>, StoreError> {
        let minute = time::minute_of(self.clock.now());
        let (name, oldest) =
            (time::minute_name(minute), time::minute_name(minute - HISTORY_MINUTES_MAX));
        let mut snapshots = self.kept().await?;
        // Those that are ahead are from a clock that was.
        snapshots.retain(|snapshot| snapshot.minute > oldest && snapshot.minute < name);
        let period = time::minute_name(minute - minute.rem_euclid(TOPICS_MINUTES));
        let tells_topics = |one: &Snapshot| one.minute >= period && !one.by_topic.is_empty();
        let topics_max = if snapshots.iter().any(tells_topics) { 0 } else { TOPICS_MAX };
        let summary = self.store.ask(async |store| store.summary(topics_max).await).await?;
        let all = summary.all;
        snapshots.push(Snapshot {
            minute: name,
            received: all.received(),
            unique_processed: all.unique_processed,
            duplicate_dropped: all.duplicate_dropped,
            by_topic: by_topic(summary.topics),
        });
        self.put(&snapshots).await?;
        Ok(vec![(SNAPSHOT_DUE_AT, (minute + 1) * MINUTE_MS), self.note_start().await?])
    }

    async fn put(&self, snapshots: &[Snapshot]) -> Result<(), StoreError> {
        let value = serde_json::to_vec(snapshots).map_err(StoreError::unexpected)?;
        Ok(self.key_value.set(SNAPSHOTS, &value).await?)
    }

    /// The snapshots as they are kept. What cannot be read is reported and left out;
    /// whoever reads puts back what is left.
    async fn kept(&self) -> Result<Vec<Snapshot>, StoreError> {
        let Some(value) = self.get_again(SNAPSHOTS).await? else { return Ok(Vec::new()) };
        // All other JSON is read from text, and a parser of bytes is 5 kB of the component.
        let kept: Vec<serde_json::Value> = serde_json::from_str(&String::from_utf8_lossy(&value))
            .unwrap_or_else(|error| {
                self.report(SNAPSHOTS, &error);
                Vec::new()
            });
        let snapshots = kept.into_iter().filter_map(|one| {
            let snapshot = serde_json::from_value(one);
            snapshot.map_err(|error| self.report(SNAPSHOTS, &error)).ok()
        });
        Ok(snapshots.collect())
    }

    /// A value, asked for once more where the first call failed at once: a platform
    /// that found its connection lost has another by then.
    async fn get_again(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let began = self.clock.monotonic();
        match self.key_value.get(key).await {
            Err(_) if self.clock.monotonic() - began < QUICK => {}
            result => return Ok(result?),
        }
        Ok(self.key_value.get(key).await?)
    }

    /// Reads the time of the first start, or notes the age of the store as such, and
    /// returns the mark of it.
    async fn note_start(&self) -> Result<(&'static str, UnixMillis), StoreError> {
        if let Some(value) = self.get_again(STARTED_AT).await? {
            let text = String::from_utf8_lossy(&value);
            match time::parse(&text) {
                Ok(started_at) => return Ok((STARTED_AT_MARK, started_at)),
                Err(why) => self.report(STARTED_AT, &why),
            }
        }
        let totals = self.store.ask(async |store| store.totals(TopicRange::NONE).await).await?;
        let started_at = totals.created_at;
        self.key_value.set(STARTED_AT, time::rfc3339(started_at).as_bytes()).await?;
        Ok((STARTED_AT_MARK, started_at))
    }

    fn report(&self, key: &str, why: &dyn std::fmt::Display) {
        let mut unreadable = self.unreadable.borrow_mut();
        // One value is one, however much of it cannot be read.
        if !unreadable.iter().any(|known| known.starts_with(key)) {
            unreadable.push(format!("{key}: {why}"));
        }
    }
}

/// Whether an instance may claim to be the one that visits.
fn may_visit(marks: &Marks, now: UnixMillis) -> bool {
    !is_left_alone(marks, now) && !is_claimed(marks, now)
}

/// Whether an instance has the claim to visit.
fn is_claimed(marks: &Marks, now: UnixMillis) -> bool {
    marks.to_come(CLAIMED_UNTIL, now, VISIT_GIVEN_UP_MS).is_some()
}

/// Whether nobody is to visit because the last call was slow or failed.
fn is_left_alone(marks: &Marks, now: UnixMillis) -> bool {
    let failed_at = marks.at(FAILED_AT);
    failed_at <= now && now < failed_at + REST_MS
}

fn has_failed(marks: &Marks) -> bool {
    marks.at(FAILED_AT) > 0
}

/// When the visit began that is under way, if one is.
fn visit_began(marks: &Marks, now: UnixMillis) -> Option<UnixMillis> {
    let began = marks.at(BEGAN_AT);
    (now - VISIT_GIVEN_UP_MS < began && began <= now).then_some(began)
}

#[cfg(test)]
mod tests;
