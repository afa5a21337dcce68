//! Seed → deliveries.
//!
//! A [`Plan`] of N deliveries with a share S of duplicates holds exactly
//! `round(N × S)` deliveries of an event that was delivered before, and N less
//! that many distinct events. Which, and where, follows from the seed alone:
//! the same plan gives the same bytes in the same order, on every machine. The
//! ids and topics carry the seed, so runs with other seeds never meet.

use anyhow::ensure;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::wire::Event;

/// The source of every event of a load.
pub const SOURCE: &str = "publisher-load";

/// What is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    seed: u64,
    deliveries: u64,
    repeated: u64,
    topics: u64,
}

/// One delivery of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Which of the distinct events, from 0 in the order of first delivery.
    pub event: u64,
    /// Whether it was delivered before.
    pub repeated: bool,
}

#[derive(Serialize)]
struct Payload<'a> {
    number: u64,
    user_id: String,
    action: &'a str,
    amount_cents: u64,
    token: String,
}

const ACTIONS: [&str; 5] = ["login", "view", "cart", "order", "logout"];

impl Plan {
    /// Plans `deliveries` of which the share `duplicates` repeats earlier ones.
    ///
    /// # Errors
    ///
    /// If the share is not in `0.0..1.0`, or leaves no distinct event to
    /// repeat, or there is no topic.
    pub fn new(seed: u64, deliveries: u64, duplicates: f64, topics: u64) -> anyhow::Result<Self> {
        ensure!((0.0..1.0).contains(&duplicates), "the share of duplicates is from 0 to below 1");
        ensure!(topics > 0, "at least one topic is needed");
        // Exact below 2^53 deliveries, which nobody sends.
        let repeated = (deliveries as f64 * duplicates).round() as u64;
        ensure!(
            deliveries == 0 || repeated < deliveries,
            "{deliveries} deliveries with {repeated} duplicates leave no event to repeat"
        );
        Ok(Self { seed, deliveries, repeated, topics })
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Deliveries in all.
    #[must_use]
    pub fn deliveries_len(&self) -> u64 {
        self.deliveries
    }

    /// Deliveries of events that were delivered before.
    #[must_use]
    pub fn repeated_len(&self) -> u64 {
        self.repeated
    }

    /// Distinct events.
    #[must_use]
    pub fn distinct_len(&self) -> u64 {
        self.deliveries - self.repeated
    }

    /// What names this run in its topics and ids.
    #[must_use]
    pub fn run_id(&self) -> String {
        format!("{:016x}", self.seed)
    }

    /// The topics of the run.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        (0..self.topics).map(|topic| self.topic(topic)).collect()
    }

    fn topic(&self, number: u64) -> String {
        format!("load-{}-{number}", self.run_id())
    }

    /// The id of an event, for messages about it.
    #[must_use]
    pub fn event_id(&self, event: u64) -> String {
        format!("{}-{event}", self.run_id())
    }

    /// The bytes of an event, the same however often it is delivered.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub fn event(&self, event: u64) -> serde_json::Result<Vec<u8>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // Stream 0 is the schedule's.
        rng.set_stream(event + 1);
        let topic = self.topic(below(&mut rng, self.topics));
        let action = ACTIONS[below(&mut rng, ACTIONS.len() as u64) as usize];
        let payload = Payload {
            number: event,
            user_id: format!("user-{}", below(&mut rng, 10_000)),
            action,
            amount_cents: below(&mut rng, 1_000_000),
            token: format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()),
        };
        let event_id = self.event_id(event);
        serde_json::to_vec(&Event { topic: &topic, event_id: &event_id, source: SOURCE, payload })
    }

    /// All deliveries in the order they are to be sent.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            rng: ChaCha8Rng::seed_from_u64(self.seed),
            left: self.deliveries,
            repeated_left: self.repeated,
            distinct: 0,
        }
    }
}

/// The deliveries of a [`Plan`], one after the other; it holds none of them.
#[derive(Debug)]
pub struct Schedule {
    rng: ChaCha8Rng,
    left: u64,
    repeated_left: u64,
    distinct: u64,
}

impl Iterator for Schedule {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.left == 0 {
            return None;
        }
        // Selection sampling: every choice of places is equally likely and
        // exactly `repeated` of them are chosen. The first place is never one.
        let repeated = self.distinct > 0 && below(&mut self.rng, self.left) < self.repeated_left;
        self.left -= 1;
        if repeated {
            self.repeated_left -= 1;
            let event = below(&mut self.rng, self.distinct);
            return Some(Planned { event, repeated });
        }
        let event = self.distinct;
        self.distinct += 1;
        Some(Planned { event, repeated })
    }
}

/// A number in `0..bound`. Ours rather than the library's, whose choice may
/// change between versions and with it what a seed means.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(plan: &Plan) -> (u64, u64) {
        let mut seen = std::collections::HashSet::new();
        let mut repeated = 0;
        for planned in plan.schedule() {
            assert_eq!(!seen.insert(planned.event), planned.repeated, "{planned:?}");
            repeated += u64::from(planned.repeated);
        }
        (seen.len() as u64, repeated)
    }

    #[test]
    fn the_classic_job_is_exact_for_every_seed() {
        for seed in 0..50 {
            let plan = Plan::new(seed, 5_000, 0.2, 4).unwrap();
            assert_eq!(count(&plan), (4_000, 1_000), "seed {seed}");
        }
    }

    #[test]
    fn shares_are_exact_at_the_edges() {
        for (deliveries, share, expected) in [
            (0, 0.2, (0, 0)),
            (1, 0.0, (1, 0)),
            (1, 0.4, (1, 0)),
            (2, 0.5, (1, 1)),
            (10, 0.9, (1, 9)),
            (100, 0.0, (100, 0)),
            (1_000, 0.333, (667, 333)),
        ] {
            for seed in 0..20 {
                let plan = Plan::new(seed, deliveries, share, 3).unwrap();
                assert_eq!(count(&plan), expected, "{deliveries} × {share}, seed {seed}");
            }
        }
        assert!(Plan::new(1, 10, 1.0, 1).is_err());
        assert!(Plan::new(1, 1, 0.9, 1).is_err());
        assert!(Plan::new(1, 10, 0.2, 0).is_err());
        assert!(Plan::new(1, 10, f64::NAN, 1).is_err());
    }

    #[test]
    fn a_seed_means_the_same_bytes_for_ever() {
        let plan = Plan::new(1, 8, 0.5, 2).unwrap();
        let order: Vec<u64> = plan.schedule().map(|planned| planned.event).collect();
        assert_eq!(order, GOLDEN_ORDER);
        assert_eq!(String::from_utf8(plan.event(3).unwrap()).unwrap(), GOLDEN_EVENT);
    }

    const GOLDEN_ORDER: [u64; 8] = [0, 0, 1, 0, 2, 0, 3, 1];
    const GOLDEN_EVENT: &str = r#"{"topic":"load-0000000000000001-1","event_id":"0000000000000001-3","source":"publisher-load","payload":{"number":3,"user_id":"user-4138","action":"cart","amount_cents":802592,"token":"92e6cb938ae2fe7009adc576d5070117"}}"#;

    #[test]
    fn other_seeds_share_no_identity() {
        let plans = [Plan::new(1, 9, 0.0, 1).unwrap(), Plan::new(2, 9, 0.0, 1).unwrap()];
        assert_ne!(plans[0].topics(), plans[1].topics());
        assert_ne!(plans[0].event_id(0), plans[1].event_id(0));
    }
}
