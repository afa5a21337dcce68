//! Retention: what is over a limit is pruned, bit by bit.
//!
//! One instance at a time makes a *pass*, once a minute, after the reply to a publish,
//! and not for long; what is left over the next publish goes on with. A pass takes many
//! short steps, each a commit of its own, with a rest after each: so a publish waits for
//! one of them at most, and seldom.

use std::rc::Rc;
use std::time::Duration;

use crate::config::{Limit, Retention, Rule};
use crate::platform::Clock;
use crate::store::{Claim, Claimed, Cursor, Prune, Pruned, RetryingStore, Store, StoreError};
use crate::time::{DAY_MS, NextLook, UnixMillis};

/// How often a pass is made, in milliseconds.
const PASS_INTERVAL_MS: UnixMillis = 60_000;

/// After how long a pass is left to the next publish, in milliseconds. The instance
/// lives for as long.
const PASS_MS_MAX: u64 = 10_000;

/// After how long an instance that makes a pass and does not say that it is over is taken
/// for dead, in milliseconds.
const PASS_GIVEN_UP_MS: UnixMillis = 15_000;

/// How long a step waits for a busy store, in milliseconds: the last one of a pass is to be
/// over before the pass is given up.
const STEP_WAIT_MS_MAX: u64 = 2_000;

/// Events that are pruned in one commit, at most, while others publish. The longer a commit
/// takes, the more others find the store busy and come again later; the shorter, the more
/// is written for each event.
const STEP_EVENTS_MAX: i64 = 100;

/// The same, where somebody waits for it.
const STEP_EVENTS_MAX_ON_DEMAND: i64 = 500;

/// Bytes of events after which no more are pruned in the same commit.
const STEP_BYTES_ENOUGH: i64 = 1024 * 1024;

/// Identities that are looked at in one step.
const STEP_IDENTITIES_MAX: usize = 2_000;

/// Identities that a pass looks at: ten million in a night.
const PASS_IDENTITIES_MAX: i64 = 20_000;

/// How often all identities are looked at, in milliseconds: their days are days.
const IDENTITIES_INTERVAL_MS: UnixMillis = DAY_MS;

/// Events that are pruned in a second, where others publish meanwhile, at least.
const RATE_MIN: i64 = 1_000;

/// In how many seconds all that is due would be gone at the rate at which it is pruned.
/// So the rate follows that of what comes in, some minutes later, and a backlog of years
/// is no storm.
const BACKLOG_SECONDS: i64 = 600;

/// Least rest after a step, in milliseconds.
const REST_MS_MIN: u64 = 1;

/// The marks in the store: until when nobody else makes a pass, because one is under way;
const CLAIMED_UNTIL: &str = "retention/claimed_until";
/// when the next one is due;
const DUE_AT: &str = "retention/due_at";
/// and when all identities had been looked at.
const LOOKED_AT: &str = "retention/looked_at";

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Events that were pruned.
    pub(crate) events: i64,
    /// How many bytes they had, as [`Kept::bytes`](crate::store::Kept::bytes) counts them.
    pub(crate) bytes: i64,
    /// Identities that were forgotten.
    pub(crate) identities: i64,
    /// Whether nothing is left that could be pruned or forgotten now.
    pub(crate) is_complete: bool,
}

/// Whoever prunes, in one instance.
pub(crate) struct Pruner {
    clock: Rc<dyn Clock>,
    store: RetryingStore,
    retention: Retention,
    /// When this instance is to look again whether a pass is due.
    next_look: NextLook,
}

impl Pruner {
    /// Prunes `store` as `retention` says.
    pub(crate) fn new(clock: Rc<dyn Clock>, store: RetryingStore, retention: Retention) -> Self {
        let store = store.within(Duration::from_millis(STEP_WAIT_MS_MAX));
        Pruner { clock, store, retention, next_look: NextLook::default() }
    }

    /// Whether this instance does not know that the minute has its pass. Asks nobody.
    pub(crate) fn may_be_due(&self) -> bool {
        !self.retention.is_empty() && self.next_look.is_due(self.clock.now())
    }

    /// Makes a pass, if it is due and no other instance makes one.
    ///
    /// # Errors
    ///
    /// What the store says. What was pruned until then is.
    pub(crate) async fn pass_if_due(&self) -> Result<Option<Pass>, StoreError> {
        let now = self.clock.now();
        self.next_look.put_off(now, now + PASS_INTERVAL_MS);
        // To read costs less than to claim.
        let marks = self.store.once(async |store| store.marks().await).await?;
        let until = marks
            .to_come(DUE_AT, now, PASS_INTERVAL_MS)
            .or_else(|| marks.to_come(CLAIMED_UNTIL, now, PASS_GIVEN_UP_MS));
        if let Some(until) = until {
            self.next_look.put_off(now, until);
            return Ok(None);
        }
        let looked_at = marks.at(LOOKED_AT);
        let may_forget = looked_at > now || now - looked_at >= IDENTITIES_INTERVAL_MS;
        let Some(claimed) = self.claim().await? else { return Ok(None) };
        let identities_max = may_forget.then_some(PASS_IDENTITIES_MAX);
        self.pass(claimed, Pace::BesideOthers, identities_max).await.map(Some)
    }

    /// Makes a pass now, in which all identities may be looked at; `None`, if another
    /// instance makes one.
    ///
    /// # Errors
    ///
    /// What the store says. What was pruned until then is.
    pub(crate) async fn pass_now(&self) -> Result<Option<Pass>, StoreError> {
        let Some(claimed) = self.claim().await? else { return Ok(None) };
        self.pass(claimed, Pace::OnDemand, Some(i64::MAX)).await.map(Some)
    }

    /// The claim of this instance, if it is the one to make a pass.
    async fn claim(&self) -> Result<Option<Claimed<'static>>, StoreError> {
        let claim = async |store: &dyn Store| {
            let now = self.clock.now();
            store.claim(Claim { mark: CLAIMED_UNTIL, now, for_ms: PASS_GIVEN_UP_MS }).await
        };
        self.store.ask(claim).await
    }

    /// A pass that looks at so many identities, if at any.
    async fn pass(
        &self,
        claimed: Claimed<'static>,
        pace: Pace,
        identities_max: Option<i64>,
    ) -> Result<Pass, StoreError> {
        let mut pass = Pass { is_complete: true, ..Pass::default() };
        let until = self.clock.monotonic() + Duration::from_millis(PASS_MS_MAX);
        let terms = Terms { claimed, pace, until };
        let made = self.make(&mut pass, terms, identities_max).await;
        let is_over = pass.is_complete && made.is_ok();
        if !is_over {
            // The next publish goes on, of this instance or another.
            self.next_look.hasten();
        }
        let due_at = if is_over { self.clock.now() + PASS_INTERVAL_MS } else { 0 };
        let marks = [(DUE_AT, due_at)];
        self.store.ask(async |store| store.release(claimed, &marks).await).await?;
        made.map(|()| pass)
    }

    async fn make(
        &self,
        pass: &mut Pass,
        terms: Terms,
        identities_max: Option<i64>,
    ) -> Result<(), StoreError> {
        for rule in &self.retention.rules {
            self.keep_to(rule, pass, terms).await?;
        }
        if let (Some(age), Some(most)) = (self.retention.identity_age, identities_max) {
            self.forget(age, most, pass, terms.until).await?;
        }
        Ok(())
    }

    /// Prunes what is over a limit.
    async fn keep_to(
        &self,
        rule: &Rule,
        pass: &mut Pass,
        Terms { claimed, pace, until }: Terms,
    ) -> Result<(), StoreError> {
        let kept = self.store.ask(async |store| store.kept(&rule.group).await).await?;
        let (mut events, mut bytes) = (i64::MAX, i64::MAX);
        let mut up_to = self.store.ask(async |store| store.head().await).await?;
        let mut received_before = None;
        match rule.limit {
            Limit::Events(most) => events = kept.events - most,
            Limit::Bytes(most) => bytes = kept.bytes - most,
            Limit::Age(age) => {
                let moment = self.clock.now().saturating_sub(age);
                let between =
                    async |store: &dyn Store| store.received_between(None, Some(moment)).await;
                up_to = self.store.ask(between).await?.1.unwrap_or(Cursor::START);
                received_before = Some(moment);
            }
        }
        let mut after = kept.before_oldest;
        // At most: some of the places may be of other topics, or of none.
        let due = after.places_to(up_to).min(kept.events).min(events);
        while after < up_to && events > 0 && bytes > 0 {
            let began = self.clock.monotonic();
            if began >= until {
                pass.is_complete = false;
                break;
            }
            let prune = Prune {
                claimed,
                group: &rule.group,
                after,
                up_to,
                received_before,
                events_max: usize::try_from(events.min(pace.step_events_max()))
                    .unwrap_or(usize::MAX),
                bytes_enough: Some(bytes.min(STEP_BYTES_ENOUGH)),
            };
            let Some(pruned) = self.step(prune).await? else {
                pass.is_complete = false;
                break;
            };
            pass.events += pruned.events;
            pass.bytes += pruned.bytes;
            events -= pruned.events;
            bytes -= pruned.bytes;
            after = pruned.up_to;
            self.rest(began, pace.interval(due, pruned.events)).await;
        }
        Ok(())
    }

    /// Prunes once; `None` when what is over a limit is to be counted anew, as it may be
    /// less by now: another instance has the claim, or the answer was lost.
    async fn step(&self, prune: Prune<'_>) -> Result<Option<Pruned>, StoreError> {
        let attempt = async |store: &dyn Store| match store.prune(prune).await {
            Err(error) if error.is_indeterminate() => Ok(None),
            result => result,
        };
        self.store.ask(attempt).await
    }

    /// Forgets identities that are old enough.
    async fn forget(
        &self,
        age: UnixMillis,
        identities_max: i64,
        pass: &mut Pass,
        until: Duration,
    ) -> Result<(), StoreError> {
        let moment = self.clock.now().saturating_sub(age);
        let mut left = identities_max;
        while left > 0 {
            let began = self.clock.monotonic();
            if began >= until {
                break;
            }
            let forget = async |store: &dyn Store| store.forget(moment, STEP_IDENTITIES_MAX).await;
            let forgotten = self.store.ask(forget).await?;
            pass.identities += forgotten.forgotten;
            left -= forgotten.looked_at;
            if forgotten.was_last {
                let now = self.clock.now();
                let marks = [(LOOKED_AT, now)];
                return self.store.ask(async |store| store.set_marks(&marks).await).await;
            }
            self.rest(began, Duration::ZERO).await;
        }
        // A pass that was to look at some has done so; the next one comes in a minute.
        if identities_max == i64::MAX {
            pass.is_complete = false;
        }
        Ok(())
    }

    /// Leaves the store to others after a step that began then: for as long as it took at
    /// least, and until one has begun in each `interval`.
    async fn rest(&self, began: Duration, interval: Duration) {
        let took = self.clock.monotonic() - began;
        let rest = interval.saturating_sub(took).max(took);
        self.clock.sleep(rest.max(Duration::from_millis(REST_MS_MIN))).await;
    }
}

/// What a pass is bound to.
#[derive(Clone, Copy)]
struct Terms {
    claimed: Claimed<'static>,
    pace: Pace,
    /// When what is left is left to the next one, on the monotonic clock.
    until: Duration,
}

/// How fast is pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As fast as has to be, since others publish.
    BesideOthers,
    /// At once: somebody waits for it.
    OnDemand,
}

impl Pace {
    /// Events in a step, at most.
    fn step_events_max(self) -> i64 {
        match self {
            Pace::BesideOthers => STEP_EVENTS_MAX,
            Pace::OnDemand => STEP_EVENTS_MAX_ON_DEMAND,
        }
    }

    /// How long after a step that pruned so many of the `due` events the next one begins.
    fn interval(self, due: i64, events: i64) -> Duration {
        match self {
            Pace::BesideOthers => {
                let rate = (due / BACKLOG_SECONDS).max(RATE_MIN);
                Duration::from_millis((1_000 * events / rate).unsigned_abs())
            }
            Pace::OnDemand => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
