//! What was expected, against what replies, counters and stored events say.
//!
//! The books follow a run: a request is about to be sent, is sent again, is
//! settled. They are fed by the run itself or, later, from its
//! [ledger](crate::ledger), with the same result. What follows from the
//! contract, and is checked:
//!
//! - A reply adds up, and names the outcome of each of its events.
//! - An event is accepted once: twice means it was stored twice. A duplicate
//!   has an original, and a conflict has another content that came first: where
//!   no such delivery was accepted, or is under way, or was lost sight of, it
//!   was dropped as a duplicate of nothing, which is a loss.
//! - All replies about one event agree on one stored content. Read back, it is
//!   that one; and nothing is stored that was not sent.
//! - The counters move by what the replies said. Attempts whose reply was lost
//!   may have been counted or not, so each of their events widens the range by
//!   one; without such attempts the check is for equality.
//!
//! Only the run's own topics are compared, since others may publish meanwhile.
//! An event takes four bytes here, whatever it has on the wire: ten million are
//! 40 MB.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::wire::{Counters, Outcome, Stats, StoredEvent};
use crate::workload::{Kind, Plan, Planned, PlannedRequest, SOURCE};

/// Broken promises that are listed one by one; the rest are counted.
const VIOLATIONS_LISTED_MAX: usize = 20;

/// The sums over all settled requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tally {
    /// Deliveries sent, answered or not.
    pub sent: u64,
    /// Deliveries answered as valid.
    pub received: u64,
    /// Deliveries answered as stored.
    pub accepted: u64,
    /// Deliveries answered as stored before; conflicts included.
    pub duplicates: u64,
    /// Deliveries answered as stored before with other content.
    pub conflicts: u64,
    /// Deliveries answered as invalid.
    pub rejected: u64,
    /// Deliveries without an answer.
    pub errors: u64,
    /// Attempts after the first.
    pub retries: u64,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Row {
    /// What is compared.
    pub counter: String,
    /// The least that was expected.
    pub expected_min: u64,
    /// The most that was expected; absent: there is no most.
    pub expected_max: Option<u64>,
    /// What the service says.
    pub observed: i64,
    /// Whether it is within what was expected.
    pub ok: bool,
}

impl Row {
    fn new(counter: &str, expected: RangeInclusive<u64>, observed: i64) -> Self {
        let (min, max) = expected.into_inner();
        Self::of(counter, min, Some(max), observed)
    }

    fn of(counter: &str, expected_min: u64, expected_max: Option<u64>, observed: i64) -> Self {
        let most = expected_max.map_or(i128::MAX, i128::from);
        let ok = (i128::from(expected_min)..=most).contains(&i128::from(observed));
        Self { counter: counter.to_owned(), expected_min, expected_max, observed, ok }
    }

    /// The expectation in words.
    #[must_use]
    pub fn expected(&self) -> String {
        match self.expected_max {
            Some(max) if max == self.expected_min => max.to_string(),
            Some(max) => format!("{} to {max}", self.expected_min),
            None => format!("at least {}", self.expected_min),
        }
    }
}

/// The result of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Check {
    /// The change in each counter.
    pub rows: Vec<Row>,
    /// Promises that were broken, in words; the first of them.
    pub violations: Vec<String>,
    /// Promises that were broken.
    pub violations_total: u64,
    /// Events read back and compared; absent: they were not.
    pub events_read: Option<u64>,
    /// Deliveries of which neither a reply nor a failure is known.
    pub unsettled: u64,
    /// Whether everything held.
    pub ok: bool,
}

/// The service's counters before a run, as far as they concern it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Of the run's own topics.
    pub own: Counters,
    /// Invalid events of all.
    pub rejected: u64,
    /// What names the store, if anything does.
    pub store: Option<String>,
}

impl Before {
    /// Out of `/stats`, for a run of this plan.
    #[must_use]
    pub fn of(plan: &Plan, stats: &Stats) -> Self {
        let Stats { rejected, started_at, .. } = stats;
        Self { own: own_topics(plan, stats), rejected: *rejected, store: started_at.clone() }
    }
}

/// Each with a bit for the first content and one for the other.
const SENT: u16 = 0b01;
const ACCEPTED: u16 = 0b01 << 2;
const DUPLICATE: u16 = 0b01 << 4;
const CONFLICT: u16 = 0b01 << 6;
/// A delivery had no answer or an ambiguous attempt: it may be stored without
/// our hearing of it.
const UNSURE: u16 = 0b01 << 8;
const STORED: u16 = 0b01 << 10;

/// So many deliveries under way that they are not counted any more.
const UNDER_WAY_MANY: u8 = u8::MAX;

/// What is known of one event, of its first content and of the other.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    flags: u16,
    /// Deliveries that are not settled.
    under_way: [u8; 2],
}

impl Known {
    fn set(&mut self, flag: u16, content: usize) {
        self.flags |= flag << content;
    }

    fn has(self, flag: u16, content: usize) -> bool {
        self.flags & (flag << content) != 0
    }

    fn has_any(self, flag: u16) -> bool {
        self.flags & (flag * 0b11) != 0
    }

    /// Whether a delivery of this content may be stored, for all we heard.
    fn may_have_come(self, content: usize) -> bool {
        self.has(ACCEPTED, content) || self.is_unsure(content)
    }

    fn is_unsure(self, content: usize) -> bool {
        self.has(UNSURE, content) || self.under_way[content] > 0
    }

    /// Whether this content can be the stored one, by all replies.
    fn can_be_stored(self, content: usize, fresh: bool) -> bool {
        let other = 1 - content;
        (self.may_have_come(content) || !fresh)
            && !self.has(ACCEPTED, other)
            && !self.has(DUPLICATE, other)
            && !self.has(CONFLICT, content)
    }

    /// Whether none can be stored, by all replies.
    fn can_be_absent(self) -> bool {
        !self.has_any(ACCEPTED) && !self.has_any(DUPLICATE) && !self.has_any(CONFLICT)
    }
}

/// A request that is not settled.
#[derive(Debug)]
struct Open {
    /// What it delivers.
    deliveries: Vec<Planned>,
    /// How often it was sent.
    attempts: u64,
    /// Of these, how often by a process that is no more.
    unheard: u64,
}

/// The books of one run.
#[derive(Debug)]
pub struct Books {
    plan: Plan,
    before: Before,
    /// Whether none of the run's events can have been stored before it.
    fresh: bool,
    tally: Tally,
    /// Deliveries the service may have counted without our hearing of it.
    unheard: u64,
    open: HashMap<u64, Open>,
    events: Vec<Known>,
    /// Events read back.
    stored: u64,
    violations: Vec<String>,
    violations_total: u64,
}

impl Books {
    /// Opens the books for a plan, with the service's counters as they are.
    #[must_use]
    pub fn new(plan: Plan, before: Before) -> Self {
        Self {
            plan,
            fresh: before.own == Counters::default(),
            before,
            tally: Tally::default(),
            unheard: 0,
            open: HashMap::new(),
            events: Vec::new(),
            stored: 0,
            violations: Vec::new(),
            violations_total: 0,
        }
    }

    /// What is delivered.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The sums so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Distinct events that were sent, settled or not.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.events.iter().filter(|known| known.has_any(SENT)).count() as u64
    }

    /// Requests that are not settled, in the order they were first sent.
    #[must_use]
    pub fn open(&self) -> Vec<PlannedRequest> {
        let open: BTreeMap<_, _> = self.open.iter().collect();
        open.into_iter()
            .map(|(number, open)| PlannedRequest {
                number: *number,
                deliveries: open.deliveries.clone(),
            })
            .collect()
    }

    /// Notes that a request is about to be sent.
    pub fn sent(&mut self, request: PlannedRequest) {
        for planned in &request.deliveries {
            let Some((known, content)) = self.known(*planned) else { continue };
            known.set(SENT, content);
            known.under_way[content] = known.under_way[content].saturating_add(1);
        }
        let open = Open { deliveries: request.deliveries, attempts: 1, unheard: 0 };
        self.open.insert(request.number, open);
    }

    /// Notes that a request is about to be sent again.
    pub fn again(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.attempts += 1;
            self.tally.retries += 1;
        }
    }

    /// Notes that a request is about to be sent again by another process than
    /// before: what became of its earlier attempts nobody knows any more.
    pub fn resumed(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.unheard = open.attempts;
        }
        self.again(number);
    }

    /// Settles a request; `unheard` of its attempts have no reply and may have
    /// been stored, and so may those of an earlier process.
    pub fn settled(&mut self, number: u64, unheard: u64, answer: &Answer) {
        let Some(open) = self.open.remove(&number) else {
            return self.violation(format!("request {number} is settled, but was not under way"));
        };
        let deliveries = open.deliveries;
        self.tally.sent += deliveries.len() as u64;
        let mut unheard = unheard + open.unheard;
        let outcomes = match answer {
            Answer::Outcomes(outcomes) if outcomes.len() == deliveries.len() => Some(outcomes),
            Answer::Outcomes(_) => None,
            Answer::Contradiction(text) => {
                self.violation(format!("a reply does not add up: {text}"));
                unheard += 1;
                None
            }
            Answer::None => None,
        };
        if outcomes.is_none() {
            self.tally.errors += deliveries.len() as u64;
        }
        for (place, planned) in deliveries.into_iter().enumerate() {
            let outcome = outcomes.and_then(|outcomes| outcomes.get(place)).copied();
            self.settle(planned, outcome, unheard);
        }
    }

    fn settle(&mut self, planned: Planned, outcome: Option<Outcome>, unheard: u64) {
        match outcome {
            None => {}
            Some(Outcome::Rejected) => self.tally.rejected += 1,
            Some(Outcome::Accepted) => self.tally.accepted += 1,
            Some(Outcome::Duplicate) => self.tally.duplicates += 1,
            Some(Outcome::Conflict) => {
                self.tally.duplicates += 1;
                self.tally.conflicts += 1;
            }
        }
        self.tally.received = self.tally.accepted + self.tally.duplicates;
        let fresh = self.fresh;
        let Some((known, content)) = self.known(planned) else {
            if let Some(outcome) = outcome.filter(|outcome| *outcome != Outcome::Rejected) {
                let number = planned.event;
                self.violation(format!("invalid event {number} is not rejected but {outcome:?}"));
            }
            return;
        };
        if known.under_way[content] < UNDER_WAY_MANY {
            known.under_way[content] = known.under_way[content].saturating_sub(1);
        }
        if outcome.is_none() || unheard > 0 {
            known.set(UNSURE, content);
        }
        let came = |content: usize| !fresh || known.may_have_come(content);
        let broken = match outcome {
            None => None,
            Some(Outcome::Accepted) if known.has_any(ACCEPTED) => Some("was accepted twice"),
            Some(Outcome::Accepted) => {
                known.set(ACCEPTED, content);
                None
            }
            Some(Outcome::Duplicate) => {
                let broken = (!came(content)).then_some("is called a duplicate of nothing");
                known.set(DUPLICATE, content);
                broken
            }
            Some(Outcome::Conflict) => {
                let broken = (!came(1 - content))
                    .then_some("is called a conflict, with nothing that was sent");
                known.set(CONFLICT, content);
                broken
            }
            Some(Outcome::Rejected) => Some("is valid but rejected"),
        };
        self.unheard += unheard;
        if let Some(broken) = broken {
            let id = self.plan.event_id(planned.event);
            self.violation(format!("event {id} {broken}"));
        }
    }

    /// What is known of the event and which of its contents is meant; `None`
    /// for an invalid one.
    fn known(&mut self, planned: Planned) -> Option<(&mut Known, usize)> {
        if planned.kind == Kind::Invalid {
            return None;
        }
        // An event's number is below the number of deliveries generated so far.
        let place = planned.event as usize;
        if place >= self.events.len() {
            self.events.resize(place + 1, Known::default());
        }
        Some((&mut self.events[place], usize::from(planned.is_other_content())))
    }

    /// Notes a promise that was broken.
    pub fn violation(&mut self, text: String) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_LISTED_MAX {
            self.violations.push(text);
        }
    }

    /// Notes an event that is stored under one of the run's topics.
    pub fn stored(&mut self, topic: &str, event: &StoredEvent) {
        self.stored += 1;
        let id = event.event_id.as_str();
        let stored_payload = event.payload.get();
        let number = self.plan.event_of(id).filter(|number| self.plan.topic_of(*number) == topic);
        let Some(number) = number else {
            return self.violation(format!("event {id} is stored in {topic} but was never sent"));
        };
        let known = self.events.get(number as usize).copied().unwrap_or_default();
        if !known.has_any(SENT) {
            return self.violation(format!("event {id} is stored but was never sent"));
        }
        let content = [Kind::New, Kind::Conflict].into_iter().position(|kind| {
            let payload = self.plan.payload(Planned { event: number, kind });
            event.source == SOURCE
                && payload.is_ok_and(|payload| same_json(&payload, stored_payload))
        });
        let Some(content) = content.filter(|content| known.has(SENT, *content)) else {
            return self.violation(format!(
                "event {id} is stored with content that was never sent: source {:?}, payload {}",
                event.source, stored_payload
            ));
        };
        if known.has_any(STORED) {
            self.violation(format!("event {id} is stored twice"));
        } else if !known.can_be_stored(content, self.fresh) {
            self.violation(format!("event {id} is stored with content that its replies rule out"));
        }
        self.events[number as usize].set(STORED, content);
    }

    /// Holds the counters, and all events if they were read back, against the
    /// replies.
    #[must_use]
    pub fn check(mut self, after: &Stats, read_back: bool) -> Check {
        if self.before.store.is_some() && self.before.store != after.started_at {
            self.violation("the store is not the one that the run was sent to".to_owned());
        }
        let unsettled = self.close_open();
        self.find_lost(read_back);
        self.find_sums(after);

        let new = own_topics(&self.plan, after);
        let old = self.before.own;
        let tally = self.tally;
        let range = |heard: u64| heard..=heard + self.unheard;
        let distinct = self.distinct();
        let certain =
            self.events.iter().all(|known| !known.has_any(SENT) || !known.can_be_absent());
        let unique = if self.fresh && read_back {
            self.stored..=self.stored
        } else if self.fresh && certain {
            // Every event has an answer, so every one is stored; once.
            distinct..=distinct
        } else {
            tally.accepted..=distinct.min(tally.accepted + self.unheard).max(tally.accepted)
        };
        let conflicts = match self.plan.spec().conflicts > 0.0 {
            true => range(tally.conflicts),
            false => tally.conflicts..=tally.conflicts,
        };
        let change = |of: fn(&Counters) -> u64| of(&new).wrapping_sub(of(&old)).cast_signed();
        let rejected = after.rejected.wrapping_sub(self.before.rejected).cast_signed();
        let rows = vec![
            Row::new("received", range(tally.received), change(|c| c.received)),
            Row::new("unique_processed", unique, change(|c| c.unique_processed)),
            Row::new("duplicate_dropped", range(tally.duplicates), change(|c| c.duplicate_dropped)),
            Row::new("conflicts", conflicts, change(|c| c.conflicts)),
            // Of all topics, since a rejected event has none.
            Row::of("rejected", tally.rejected, None, rejected),
        ];
        let ok = rows.iter().all(|row| row.ok) && self.violations.is_empty();
        Check {
            rows,
            violations: self.violations,
            violations_total: self.violations_total,
            events_read: read_back.then_some(self.stored),
            unsettled,
            ok,
        }
    }

    /// Takes what is not settled for unheard, each attempt of it. Returns the
    /// deliveries.
    fn close_open(&mut self) -> u64 {
        let mut unsettled = 0;
        for Open { deliveries, attempts, .. } in std::mem::take(&mut self.open).into_values() {
            unsettled += deliveries.len() as u64;
            let valid = deliveries.iter().filter(|planned| planned.kind != Kind::Invalid).count();
            self.unheard += attempts * valid as u64;
        }
        unsettled
    }

    /// Events about which the replies do not agree, and events that the replies
    /// say are stored and that are not.
    fn find_lost(&mut self, read_back: bool) {
        if !self.fresh {
            // An earlier run with the same seed stored them.
            return;
        }
        for place in 0..self.events.len() {
            let known = self.events[place];
            if !known.has_any(SENT) || known.can_be_absent() || read_back && known.has_any(STORED) {
                continue;
            }
            let possible = (0..2).any(|content| known.can_be_stored(content, true));
            let broken = if read_back && known.has_any(ACCEPTED) {
                "was acknowledged and is not stored"
            } else if read_back {
                "was acknowledged as a duplicate and is not stored"
            } else if possible {
                continue;
            } else if (0..2).any(|content| known.may_have_come(content)) {
                "has replies that contradict each other"
            } else {
                "was never stored, yet called a duplicate"
            };
            let id = self.plan.event_id(place as u64);
            self.violation(format!("event {id} {broken}"));
        }
    }

    /// What must hold within one snapshot, whoever else publishes.
    fn find_sums(&mut self, stats: &Stats) {
        let total = ("all topics", stats.total);
        let topics: BTreeMap<_, _> = stats.by_topic.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let mut sum = Counters::default();
        for (name, counters) in std::iter::once(total).chain(topics.iter().map(|(k, v)| (*k, *v))) {
            let Counters { received, unique_processed, duplicate_dropped, .. } = counters;
            if received != unique_processed + duplicate_dropped {
                self.violation(format!(
                    "in /stats of {name}: received {received} is not unique_processed \
                     {unique_processed} + duplicate_dropped {duplicate_dropped}"
                ));
            }
        }
        for counters in topics.values() {
            sum += *counters;
        }
        if sum != stats.total {
            self.violation(format!(
                "in /stats the topics together are {sum:?}, but the totals {:?}",
                stats.total
            ));
        }
    }
}

/// Whether two texts are the same JSON value.
fn same_json(a: &str, b: &str) -> bool {
    let value = serde_json::from_str::<serde_json::Value>;
    a == b || matches!((value(a), value(b)), (Ok(a), Ok(b)) if a == b)
}

fn own_topics(plan: &Plan, stats: &Stats) -> Counters {
    let mut sum = Counters::default();
    for topic in plan.topics() {
        sum += stats.by_topic.get(&topic).copied().unwrap_or_default();
    }
    sum
}

#[cfg(test)]
mod tests;
