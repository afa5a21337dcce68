//! Seed → the bytes of every event.

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::random::below;
use super::scatter::{gather, scatter};
use super::schedule::{Kind, Planned, Requests, Schedule};
use super::spec::{Ids, Popularity, Range, Spec};
use crate::wire::Event;

/// The source of every event of a load.
pub const SOURCE: &str = "publisher-load";

/// What random numbers are for. Each purpose has numbers of its own, so that
/// one more draw for one changes nothing of the others.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
enum Purpose {
    Content = 0,
    OtherContent = 0x9e37_79b9_7f4a_7c15,
    Invalid = 0xbf58_476d_1ce4_e5b9,
    BatchSizes = 0x94d0_49bb_1331_11eb,
}

/// What is to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    seed: u64,
    spec: Spec,
    /// Deliveries in all; `None`: without end.
    deliveries: Option<u64>,
    /// By Zipf's law: the sum of the weights of the topics up to each.
    weights: Option<Arc<[u64]>>,
}

/// What an event says.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload {
    /// A small record as a shop would log it.
    Record { number: u64, user_id: String, action: &'static str, amount_cents: u64, token: String },
    /// A text of a given size.
    Sized { number: u64, text: String },
}

const ACTIONS: [&str; 5] = ["login", "view", "cart", "order", "logout"];

/// What payloads of a given size are filled with: text, so that it compresses
/// as text does.
const WORDS: [&str; 32] = [
    "accepted",
    "address",
    "after",
    "cannot",
    "client",
    "closed",
    "commit",
    "connection",
    "daemon",
    "debug",
    "disk",
    "error",
    "failed",
    "from",
    "host",
    "info",
    "kernel",
    "memory",
    "open",
    "order",
    "port",
    "queue",
    "reading",
    "request",
    "retry",
    "root",
    "session",
    "socket",
    "started",
    "timeout",
    "user",
    "warning",
];

/// What is wrong with an invalid event, in turns.
const FAULTS: [fn(&mut serde_json::Value); 5] = [
    |event| event["topic"] = "".into(),
    |event| event["event_id"] = "x".repeat(256).into(),
    |event| event["source"] = 7.into(),
    |event| event["timestamp"] = "yesterday".into(),
    |event| {
        event.as_object_mut().map(|fields| fields.remove("source"));
    },
];

impl Plan {
    /// Plans so many deliveries, or deliveries without end.
    ///
    /// # Errors
    ///
    /// If there can be no such load, or no event would be left to repeat.
    pub fn new(seed: u64, spec: Spec, deliveries: Option<u64>) -> anyhow::Result<Self> {
        spec.check()?;
        let weights = (spec.topic_popularity == Popularity::Zipf).then(|| {
            let mut sum = 0;
            let weight = |rank: u64| {
                sum += (1 << 32) / (rank + 1);
                sum
            };
            (0..spec.topics).map(weight).collect()
        });
        let plan = Self { seed, spec, deliveries, weights };
        if let Some(deliveries) = deliveries.filter(|deliveries| *deliveries > 0) {
            let [repeats, conflicts, invalid] = plan.spec.shares(deliveries);
            ensure!(
                repeats + conflicts + invalid < deliveries,
                "{deliveries} deliveries with {repeats} duplicates leave no event to repeat"
            );
        }
        Ok(plan)
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the load looks like.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Deliveries in all; `None`: without end.
    #[must_use]
    pub fn deliveries(&self) -> Option<u64> {
        self.deliveries
    }

    /// What names this run in its topics and ids.
    #[must_use]
    pub fn run_id(&self) -> String {
        format!("{:016x}", self.seed)
    }

    /// The topics of the run.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        (0..self.spec.topics).map(|topic| self.topic(topic)).collect()
    }

    fn topic(&self, number: u64) -> String {
        format!("load-{}-{number}", self.run_id())
    }

    /// The id of an event.
    #[must_use]
    pub fn event_id(&self, event: u64) -> String {
        match self.spec.ids {
            Ids::Counting => format!("{}-{event}", self.run_id()),
            Ids::Scattered => format!("{}-{:016x}", self.run_id(), scatter(event ^ self.seed)),
        }
    }

    /// The event that has this id, if it is one of this run.
    #[must_use]
    pub fn event_of(&self, event_id: &str) -> Option<u64> {
        let (run, number) = event_id.split_once('-')?;
        let event = match self.spec.ids {
            Ids::Counting => number.parse().ok()?,
            Ids::Scattered => gather(u64::from_str_radix(number, 16).ok()?) ^ self.seed,
        };
        (run == self.run_id() && self.event_id(event) == event_id).then_some(event)
    }

    fn rng(&self, purpose: Purpose, event: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ purpose as u64);
        // Stream 0 is the schedule's.
        rng.set_stream(event + 1);
        rng
    }

    /// The number of an event's topic, and the draws that are left of it.
    fn draw_topic(&self, event: u64) -> (u64, ChaCha8Rng) {
        let mut rng = self.rng(Purpose::Content, event);
        let topic = match &self.weights {
            None => below(&mut rng, self.spec.topics),
            Some(weights) => {
                let sum = weights.last().copied().unwrap_or(1);
                let drawn = below(&mut rng, sum);
                weights.partition_point(|weight| *weight <= drawn) as u64
            }
        };
        (topic, rng)
    }

    /// The topic of an event.
    #[must_use]
    pub fn topic_of(&self, event: u64) -> String {
        self.topic(self.draw_topic(event).0)
    }

    /// The payload of an event, as compact JSON.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub fn payload(&self, planned: Planned) -> serde_json::Result<String> {
        serde_json::to_string(&self.topic_and_payload(planned)?.1)
    }

    /// The number of the topic of a valid delivery, and its payload.
    fn topic_and_payload(&self, planned: Planned) -> serde_json::Result<(u64, Payload)> {
        let event = planned.event;
        let (topic, mut rng) = self.draw_topic(event);
        if planned.kind == Kind::Conflict {
            rng = self.rng(Purpose::OtherContent, event);
        }
        let payload = match self.spec.payload_bytes {
            None => record(&mut rng, event),
            Some(range) => {
                let bytes = size(&mut rng, range);
                text(&mut rng, event, bytes as usize)?
            }
        };
        Ok((topic, payload))
    }

    /// The bytes of a delivery, the same however often it is delivered.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub fn event(&self, planned: Planned) -> serde_json::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write_event(planned, &mut out)?;
        Ok(out)
    }

    fn write_event(&self, planned: Planned, out: &mut Vec<u8>) -> serde_json::Result<()> {
        if planned.kind == Kind::Invalid {
            return self.write_invalid(planned.event, out);
        }
        let (topic, payload) = self.topic_and_payload(planned)?;
        let (topic, event_id) = (self.topic(topic), self.event_id(planned.event));
        let event = Event { topic: &topic, event_id: &event_id, source: SOURCE, payload };
        serde_json::to_writer(out, &event)
    }

    fn write_invalid(&self, number: u64, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut rng = self.rng(Purpose::Invalid, number);
        let mut event = serde_json::json!({
            "topic": self.topic(below(&mut rng, self.spec.topics)),
            "event_id": format!("{}-invalid-{number}", self.run_id()),
            "source": SOURCE,
            "payload": {"number": number},
        });
        FAULTS[(number % FAULTS.len() as u64) as usize](&mut event);
        serde_json::to_writer(out, &event)
    }

    /// The body of a request: one event as itself, several as an array.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub fn body(&self, deliveries: &[Planned]) -> serde_json::Result<Bytes> {
        if let [one] = deliveries {
            return Ok(self.event(*one)?.into());
        }
        let mut body = vec![b'['];
        for (index, planned) in deliveries.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            self.write_event(*planned, &mut body)?;
        }
        body.push(b']');
        Ok(body.into())
    }

    /// The same as lines, one for each event.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub fn lines(&self, deliveries: &[Planned]) -> serde_json::Result<Bytes> {
        let mut lines = Vec::new();
        for planned in deliveries {
            self.write_event(*planned, &mut lines)?;
            lines.push(b'\n');
        }
        Ok(lines.into())
    }

    /// All deliveries in the order they are to be sent.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(&self.spec, self.deliveries, ChaCha8Rng::seed_from_u64(self.seed))
    }

    /// All requests in the order they are to be sent.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests::new(self.schedule(), self.spec.batch, self.rng(Purpose::BatchSizes, 0))
    }
}

/// A small record as a shop would log it.
fn record(rng: &mut ChaCha8Rng, number: u64) -> Payload {
    let action = ACTIONS[below(rng, ACTIONS.len() as u64) as usize];
    Payload::Record {
        number,
        user_id: format!("user-{}", below(rng, 10_000)),
        action,
        amount_cents: below(rng, 1_000_000),
        token: format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()),
    }
}

/// A payload of so many bytes, if it can be so small.
fn text(rng: &mut ChaCha8Rng, number: u64, bytes: usize) -> serde_json::Result<Payload> {
    let empty = serde_json::to_string(&Payload::Sized { number, text: String::new() })?.len();
    let wanted = bytes.saturating_sub(empty);
    let mut text = String::with_capacity(wanted + 16);
    while text.len() < wanted {
        // Twelve words of five bits each.
        let mut bits = rng.next_u64();
        for _ in 0..12 {
            text.push_str(WORDS[(bits % WORDS.len() as u64) as usize]);
            text.push(' ');
            bits >>= 5;
        }
    }
    text.truncate(wanted);
    Ok(Payload::Sized { number, text })
}

/// A size in the range, each doubling as likely as the others. In whole numbers,
/// so that it is the same on every machine.
fn size(rng: &mut ChaCha8Rng, range: Range) -> u64 {
    let doublings = (range.max / range.min).ilog2();
    let least = range.min << below(rng, u64::from(doublings) + 1);
    let most = (least * 2 - 1).min(range.max);
    least + below(rng, most - least + 1)
}
