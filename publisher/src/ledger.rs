//! What was expected, against what replies and `/stats` say.
//!
//! The ledger settles every request of a load and at the end holds the change
//! in the service's counters against the sum of its replies. Three things
//! follow from the contract, and each has a check:
//!
//! - A reply adds up, and names the outcome of each of its events.
//! - An event is accepted once: twice means it was stored twice. A duplicate
//!   has an original: where no other delivery of it was accepted, or is under
//!   way, or was lost sight of, it was dropped as a duplicate of nothing, which
//!   is a loss.
//! - The counters move by what the replies said. Attempts whose reply was lost
//!   may have been counted or not, so each of their events widens the range by
//!   one; without such attempts the check is for equality.
//!
//! Only the run's own topics are compared, since others may publish meanwhile.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::wire::{Counters, Outcome, PublishReply, Stats};
use crate::workload::{Plan, Planned};

/// Broken promises that are listed one by one; the rest are counted.
const VIOLATIONS_LISTED_MAX: usize = 10;

/// The sums over all settled requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What is compared.
    pub counter: String,
    /// The least that was expected.
    pub expected_min: u64,
    /// The most that was expected.
    pub expected_max: u64,
    /// What the service says.
    pub observed: i128,
    /// Whether it is within what was expected.
    pub ok: bool,
}

impl Row {
    fn new(counter: &str, expected: RangeInclusive<u64>, observed: i128) -> Self {
        let (expected_min, expected_max) = expected.into_inner();
        let ok = (i128::from(expected_min)..=i128::from(expected_max)).contains(&observed);
        Self { counter: counter.to_owned(), expected_min, expected_max, observed, ok }
    }

    /// The expectation in words.
    #[must_use]
    pub fn expected(&self) -> String {
        if self.expected_min == self.expected_max {
            self.expected_min.to_string()
        } else {
            format!("{} to {}", self.expected_min, self.expected_max)
        }
    }
}

/// The result of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The change in each counter.
    pub rows: Vec<Row>,
    /// Promises that were broken, in words.
    pub violations: Vec<String>,
    /// Whether everything held.
    pub ok: bool,
}

/// What is known of one event.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Deliveries that are not settled.
    under_way: u16,
    /// Whether a delivery was settled.
    sent: bool,
    /// Whether a delivery was accepted.
    accepted: bool,
    /// Whether a delivery had no answer or an ambiguous attempt: the event may
    /// be stored without our hearing of it.
    unsure: bool,
}

/// The books of one run.
#[derive(Debug)]
pub struct Ledger {
    plan: Plan,
    /// The service's counters before the run.
    before: Stats,
    /// Whether none of the run's events can have been stored before it.
    fresh: bool,
    tally: Tally,
    /// Deliveries the service may have counted without our hearing of it.
    unheard: u64,
    events: Vec<Known>,
    violations: Vec<String>,
    violations_unlisted: u64,
}

impl Ledger {
    /// Opens the books for a plan, with the service's counters as they are.
    #[must_use]
    pub fn new(plan: Plan, before: Stats) -> Self {
        Self {
            plan,
            fresh: own_topics(&plan, &before) == Counters::default(),
            before,
            tally: Tally::default(),
            unheard: 0,
            events: Vec::new(),
            violations: Vec::new(),
            violations_unlisted: 0,
        }
    }

    /// The sums so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Notes that a request is about to be sent.
    pub fn sending(&mut self, batch: &[Planned]) {
        for planned in batch {
            let known = self.known(planned.event);
            known.under_way = known.under_way.saturating_add(1);
        }
    }

    /// Settles a request that was answered, after `retries` of which
    /// `ambiguous` attempts may have been stored.
    pub fn answered(
        &mut self,
        sent: &[Planned],
        reply: &PublishReply,
        retries: u64,
        ambiguous: u64,
    ) {
        self.sent(sent, retries, ambiguous);
        self.tally.received += reply.received;
        self.tally.accepted += reply.accepted;
        self.tally.duplicates += reply.duplicates;
        self.tally.conflicts += reply.conflicts;
        self.tally.rejected += reply.rejected;

        let outcomes = match outcomes(sent.len(), reply) {
            Ok(outcomes) => outcomes,
            Err(text) => return self.violation(format!("a reply does not add up: {text}")),
        };
        for (planned, outcome) in sent.iter().zip(outcomes) {
            let id = self.plan.event_id(planned.event);
            let fresh = self.fresh;
            let known = self.known(planned.event);
            match outcome {
                Outcome::Accepted => {
                    if std::mem::replace(&mut known.accepted, true) {
                        self.violation(format!("event {id} was accepted twice"));
                    }
                }
                Outcome::Duplicate => {
                    let Known { under_way, accepted, unsure, .. } = *known;
                    if fresh && !accepted && !unsure && under_way == 0 {
                        self.violation(format!("event {id} is called a duplicate of nothing"));
                    }
                }
                Outcome::Conflict => {
                    self.violation(format!("event {id}, always sent alike, is called a conflict"));
                }
                Outcome::Rejected => self.violation(format!("event {id} is valid but rejected")),
            }
        }
    }

    /// Settles a request that has no answer.
    pub fn failed(&mut self, sent: &[Planned], retries: u64, ambiguous: u64) {
        self.sent(sent, retries, ambiguous);
        self.tally.errors += sent.len() as u64;
        for planned in sent {
            self.known(planned.event).unsure = true;
        }
    }

    fn sent(&mut self, sent: &[Planned], retries: u64, ambiguous: u64) {
        self.tally.sent += sent.len() as u64;
        self.tally.retries += retries;
        self.unheard += ambiguous * sent.len() as u64;
        for planned in sent {
            let known = self.known(planned.event);
            known.under_way = known.under_way.saturating_sub(1);
            known.sent = true;
            known.unsure |= ambiguous > 0;
        }
    }

    fn known(&mut self, event: u64) -> &mut Known {
        // An event's number is below the number of deliveries generated so far.
        let place = event as usize;
        if place >= self.events.len() {
            self.events.resize(place + 1, Known::default());
        }
        &mut self.events[place]
    }

    fn violation(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_LISTED_MAX {
            self.violations.push(text);
        } else {
            self.violations_unlisted += 1;
        }
    }

    /// Holds the change in the counters against the replies.
    #[must_use]
    pub fn check(mut self, after: &Stats) -> Check {
        let old = own_topics(&self.plan, &self.before);
        let new = own_topics(&self.plan, after);
        self.find_lost();
        self.find_sums(after);

        let tally = self.tally;
        let answered_all = tally.errors == 0;
        let distinct = self.events.iter().filter(|known| known.sent).count() as u64;
        let range = |heard: u64| heard..=heard + self.unheard;
        let unique = if self.fresh && answered_all {
            // Every event has an answer, so every one is stored; once.
            distinct..=distinct
        } else {
            tally.accepted..=distinct.min(tally.accepted + self.unheard).max(tally.accepted)
        };
        let change = |of: fn(&Counters) -> u64| i128::from(of(&new)) - i128::from(of(&old));
        let rows = vec![
            Row::new("received", range(tally.received), change(|c| c.received)),
            Row::new("unique_processed", unique, change(|c| c.unique_processed)),
            Row::new("duplicate_dropped", range(tally.duplicates), change(|c| c.duplicate_dropped)),
            Row::new("conflicts", 0..=0, change(|c| c.conflicts)),
        ];
        if self.violations_unlisted > 0 {
            self.violations.push(format!("… and {} more", self.violations_unlisted));
        }
        let ok = rows.iter().all(|row| row.ok) && self.violations.is_empty();
        Check { rows, violations: self.violations, ok }
    }

    /// Events whose deliveries are all answered, and none as accepted.
    fn find_lost(&mut self) {
        if !self.fresh {
            // An earlier run with the same seed stored them.
            return;
        }
        for place in 0..self.events.len() {
            let Known { sent, accepted, unsure, .. } = self.events[place];
            if sent && !accepted && !unsure {
                let id = self.plan.event_id(place as u64);
                self.violation(format!("event {id} was never stored, yet called a duplicate"));
            }
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

fn own_topics(plan: &Plan, stats: &Stats) -> Counters {
    let mut sum = Counters::default();
    for topic in plan.topics() {
        sum += stats.by_topic.get(&topic).copied().unwrap_or_default();
    }
    sum
}

/// The outcome of each event of a request, out of its reply.
///
/// # Errors
///
/// If the reply contradicts itself or the request.
pub fn outcomes(sent: usize, reply: &PublishReply) -> Result<Vec<Outcome>, String> {
    let PublishReply { received, accepted, duplicates, conflicts, rejected, .. } = *reply;
    let mut outcomes = vec![Outcome::Accepted; sent];
    for result in &reply.results {
        let Some(outcome) = outcomes.get_mut(result.index) else {
            return Err(format!("result for index {} of {sent} events", result.index));
        };
        *outcome = result.status;
    }
    let count = |wanted: Outcome| outcomes.iter().filter(|o| **o == wanted).count() as u64;
    let named = (count(Outcome::Accepted), count(Outcome::Conflict), count(Outcome::Rejected));
    let dropped = count(Outcome::Duplicate) + named.1;
    if received != accepted + duplicates
        || received + rejected != sent as u64
        || named != (accepted, conflicts, rejected)
        || dropped != duplicates
    {
        return Err(format!(
            "{sent} events sent; received {received}, accepted {accepted}, duplicates \
             {duplicates}, conflicts {conflicts}, rejected {rejected}; named in its results: \
             {} accepted, {dropped} duplicates, {} conflicts, {} rejected",
            named.0, named.1, named.2
        ));
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests;
