//! Holds what was expected against what replies, counters and stored events say.
//!
//! The auditor follows a run: a request is about to be sent, is retried, is
//! settled. It is fed by the run itself or, later, from its ledger, with the same
//! result. What follows from the contract, and is checked:
//!
//! - A reply adds up, and names the outcome of each of its events.
//! - An event is accepted once: twice means it was stored twice. A duplicate
//!   has an original, and a conflict has another content that came first: where
//!   no such delivery was accepted, is under way, or is indeterminate, it was
//!   dropped as a duplicate of nothing, which is a loss.
//! - All replies about one event agree on one stored content. Read back, it is
//!   that one; and nothing is stored that was not sent.
//! - As many events as the service says it has pruned may be missing when events are
//!   read back, and no more. Their identities are still there: deliver the same again,
//!   and all are duplicates.
//! - The counters move by what the replies said. An attempt whose reply was lost
//!   is *indeterminate*: it may have been counted or not, so each of its events
//!   widens the range by one; without such attempts the check is for equality.
//!
//! Only the run's own topics are compared, since others may publish meanwhile.
//! An event takes four bytes here, whatever it has on the wire: ten million are
//! 40 MB.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::wire::{Counters, Outcome, Stats, StoredEvent};
use crate::workload::{Kind, Plan, Planned, PlannedRequest, SOURCE};

mod check;
mod event_state;

pub use check::{Check, Row, Tally};
use event_state::{ACCEPTED, CONFLICT, DUPLICATE, EventState, INDETERMINATE, SENT, STORED};

/// Broken promises that are listed one by one; the rest are counted.
const VIOLATIONS_LISTED_MAX: usize = 20;

/// The service's counters before a run, as far as they concern it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of the run's own topics.
    pub own: Counters,
    /// Invalid events of all.
    pub rejected: u64,
    /// What names the store, if anything does.
    pub store: Option<String>,
}

impl Baseline {
    /// Out of `/stats`, for a run of this plan.
    #[must_use]
    pub fn of(plan: &Plan, stats: &Stats) -> Self {
        let Stats { rejected, started_at, .. } = stats;
        Self { own: own_topics(plan, stats), rejected: *rejected, store: started_at.clone() }
    }
}

/// A request that is not settled.
#[derive(Debug, Clone)]
struct Unsettled {
    /// What it delivers.
    deliveries: Vec<Planned>,
    /// How often it was sent.
    attempts: u64,
    /// Of these, how often by a process that is no more, with what result
    /// nobody knows.
    indeterminate: u64,
}

/// The audit of one run.
#[derive(Debug, Clone)]
pub struct Auditor {
    plan: Plan,
    baseline: Baseline,
    /// Whether none of the run's events can have been stored before it.
    fresh: bool,
    tally: Tally,
    /// Deliveries that the service may have counted or not.
    indeterminate: u64,
    unsettled: HashMap<u64, Unsettled>,
    events: Vec<EventState>,
    /// Events read back.
    stored: u64,
    violations: Vec<String>,
    violations_total: u64,
}

impl Auditor {
    /// Begins to follow a plan, with the service's counters as they are.
    #[must_use]
    pub fn new(plan: Plan, baseline: Baseline) -> Self {
        Self {
            plan,
            fresh: baseline.own == Counters::default(),
            baseline,
            tally: Tally::default(),
            indeterminate: 0,
            unsettled: HashMap::new(),
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

    /// Whether none of the run's events can have been stored before it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The sums so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Distinct events that were sent, settled or not.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.events.iter().filter(|event| event.has_any(SENT)).count() as u64
    }

    /// Whether there are requests of which nobody knows what came of them.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Requests that are not settled, in the order they were first sent.
    #[must_use]
    pub fn unsettled(&self) -> Vec<PlannedRequest> {
        let unsettled: BTreeMap<_, _> = self.unsettled.iter().collect();
        unsettled
            .into_iter()
            .map(|(number, request)| PlannedRequest {
                number: *number,
                deliveries: request.deliveries.clone(),
            })
            .collect()
    }

    /// Notes that a request is about to be sent.
    pub fn sent(&mut self, request: PlannedRequest) {
        for planned in &request.deliveries {
            let Some((event, content)) = self.event(*planned) else { continue };
            event.begin(content);
        }
        let unsettled = Unsettled { deliveries: request.deliveries, attempts: 1, indeterminate: 0 };
        self.unsettled.insert(request.number, unsettled);
    }

    /// Notes that a request is about to be sent again.
    pub fn retried(&mut self, number: u64) {
        if let Some(request) = self.unsettled.get_mut(&number) {
            request.attempts += 1;
            self.tally.retries += 1;
        }
    }

    /// Notes that a request is about to be sent again by another process than
    /// before: what became of its earlier attempts nobody knows any more.
    pub fn resumed(&mut self, number: u64) {
        if let Some(request) = self.unsettled.get_mut(&number) {
            request.indeterminate = request.attempts;
        }
        self.retried(number);
    }

    /// Settles a request; `indeterminate` of its attempts have no reply and may have
    /// been stored, and so may those of an earlier process.
    pub fn settled(&mut self, number: u64, indeterminate: u64, answer: &Answer) {
        let Some(request) = self.unsettled.remove(&number) else {
            return self.violation(format!("request {number} is settled, but was not under way"));
        };
        let deliveries = request.deliveries;
        self.tally.sent += deliveries.len() as u64;
        let mut indeterminate = indeterminate + request.indeterminate;
        let outcomes = match answer {
            Answer::Outcomes(outcomes) if outcomes.len() == deliveries.len() => Some(outcomes),
            Answer::Outcomes(_) => None,
            Answer::Contradiction(text) => {
                self.violation(format!("a reply does not add up: {text}"));
                indeterminate += 1;
                None
            }
            Answer::None => None,
        };
        if outcomes.is_none() {
            self.tally.errors += deliveries.len() as u64;
        }
        for (index, planned) in deliveries.into_iter().enumerate() {
            let outcome = outcomes.and_then(|outcomes| outcomes.get(index)).copied();
            self.settle(planned, outcome, indeterminate);
        }
    }

    fn settle(&mut self, planned: Planned, outcome: Option<Outcome>, indeterminate: u64) {
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
        let Some((event, content)) = self.event(planned) else {
            if let Some(outcome) = outcome.filter(|outcome| *outcome != Outcome::Rejected) {
                let number = planned.event;
                self.violation(format!("invalid event {number} is not rejected but {outcome:?}"));
            }
            return;
        };
        event.end(content);
        if outcome.is_none() || indeterminate > 0 {
            event.set(INDETERMINATE, content);
        }
        let arrived = |content: usize| !fresh || event.may_have_arrived(content);
        let broken = match outcome {
            None => None,
            Some(Outcome::Accepted) if event.has_any(ACCEPTED) => Some("was accepted twice"),
            Some(Outcome::Accepted) => {
                event.set(ACCEPTED, content);
                None
            }
            Some(Outcome::Duplicate) => {
                let broken = (!arrived(content)).then_some("is called a duplicate of nothing");
                event.set(DUPLICATE, content);
                broken
            }
            Some(Outcome::Conflict) => {
                let broken = (!arrived(1 - content))
                    .then_some("is called a conflict, with nothing that was sent");
                event.set(CONFLICT, content);
                broken
            }
            Some(Outcome::Rejected) => Some("is valid but rejected"),
        };
        self.indeterminate += indeterminate;
        if let Some(broken) = broken {
            let id = self.plan.event_id(planned.event);
            self.violation(format!("event {id} {broken}"));
        }
    }

    /// What is known of the event and which of its contents is meant; `None`
    /// for an invalid one.
    fn event(&mut self, planned: Planned) -> Option<(&mut EventState, usize)> {
        if planned.kind == Kind::Invalid {
            return None;
        }
        // An event's number is below the number of deliveries generated so far.
        let index = planned.event as usize;
        if index >= self.events.len() {
            self.events.resize(index + 1, EventState::default());
        }
        Some((&mut self.events[index], usize::from(planned.is_other_content())))
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
        let state = self.events.get(number as usize).copied().unwrap_or_default();
        if !state.has_any(SENT) {
            return self.violation(format!("event {id} is stored but was never sent"));
        }
        let content = [Kind::New, Kind::Conflict].into_iter().position(|kind| {
            let payload = self.plan.payload(Planned { event: number, kind });
            event.source == SOURCE
                && payload.is_ok_and(|payload| same_json(&payload, stored_payload))
        });
        let Some(content) = content.filter(|content| state.has(SENT, *content)) else {
            return self.violation(format!(
                "event {id} is stored with content that was never sent: source {:?}, payload {}",
                event.source, stored_payload
            ));
        };
        if state.has_any(STORED) {
            self.violation(format!("event {id} is stored twice"));
        } else if !state.can_be_stored(content, self.fresh) {
            self.violation(format!("event {id} is stored with content that its replies rule out"));
        }
        self.events[number as usize].set(STORED, content);
    }

    /// Holds the counters, and all events if they were read back, against the
    /// replies.
    #[must_use]
    pub fn check(mut self, after: &Stats, read_back: bool) -> Check {
        if self.baseline.store.is_some() && self.baseline.store != after.started_at {
            self.violation("the store is not the one that the run was sent to".to_owned());
        }
        let unsettled = self.close_unsettled();
        let new = own_topics(&self.plan, after);
        self.find_lost(read_back, new.pruned);
        self.check_sums(after);

        let old = self.baseline.own;
        let tally = self.tally;
        let range = |answered: u64| answered..=answered + self.indeterminate;
        let distinct = self.distinct();
        let certain =
            self.events.iter().all(|event| !event.has_any(SENT) || !event.can_be_absent());
        let unique = if self.fresh && read_back {
            // What was read may have been pruned before it was counted, or after.
            self.stored..=self.stored + new.pruned
        } else if self.fresh && certain {
            // Every event has an answer, so every one is stored; once.
            distinct..=distinct
        } else {
            tally.accepted..=distinct.min(tally.accepted + self.indeterminate).max(tally.accepted)
        };
        let conflicts = match self.plan.spec().conflicts > 0.0 {
            true => range(tally.conflicts),
            false => tally.conflicts..=tally.conflicts,
        };
        let change = |of: fn(&Counters) -> u64| of(&new).wrapping_sub(of(&old)).cast_signed();
        let rejected = after.rejected.wrapping_sub(self.baseline.rejected).cast_signed();
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

    /// Takes each attempt of what is not settled for indeterminate. Returns the
    /// deliveries.
    fn close_unsettled(&mut self) -> u64 {
        let mut unsettled = 0;
        for Unsettled { deliveries, attempts, .. } in
            std::mem::take(&mut self.unsettled).into_values()
        {
            unsettled += deliveries.len() as u64;
            let valid = deliveries.iter().filter(|planned| planned.kind != Kind::Invalid).count();
            self.indeterminate += attempts * valid as u64;
        }
        unsettled
    }

    /// Events about which the replies do not agree, and events that the replies
    /// say are stored and that are not: as many as were pruned may be missing.
    fn find_lost(&mut self, read_back: bool, pruned: u64) {
        if !self.fresh {
            // An earlier run with the same seed stored them.
            return;
        }
        let is_lost = |event: &EventState| {
            event.has_any(SENT) && !event.can_be_absent() && !(read_back && event.has_any(STORED))
        };
        let missing = self.events.iter().filter(|event| is_lost(event)).count() as u64;
        if read_back && missing <= pruned {
            return;
        }
        for number in 0..self.events.len() {
            let event = self.events[number];
            if !is_lost(&event) {
                continue;
            }
            let possible = (0..2).any(|content| event.can_be_stored(content, true));
            let broken = if read_back && event.has_any(ACCEPTED) {
                "was acknowledged and is not stored"
            } else if read_back {
                "was acknowledged as a duplicate and is not stored"
            } else if possible {
                continue;
            } else if (0..2).any(|content| event.may_have_arrived(content)) {
                "has replies that contradict each other"
            } else {
                "was never stored, yet called a duplicate"
            };
            let id = self.plan.event_id(number as u64);
            self.violation(format!("event {id} {broken}"));
        }
    }

    /// What must hold within one snapshot, whoever else publishes; of one that is
    /// mixed of several, what must hold of each number.
    fn check_sums(&mut self, stats: &Stats) {
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
        if sum != stats.total && !stats.is_mixed {
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
