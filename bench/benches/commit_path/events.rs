//! The number of a delivery → the bytes of an event.
//!
//! Stateless and the same for each seed, so that the native reference and any
//! number of connections deliver the same events without keeping any of them:
//! one delivery in five repeats an earlier one, chosen evenly from all.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};

/// Topics that the events are spread over.
pub const TOPICS: u64 = 10;

/// One delivery in so many repeats an earlier one.
const REPEATED_ONE_IN: u64 = 5;

/// Length of an event of this mix, about, for the size of buffers.
const EVENT_BYTES: usize = 256;

const ACTIONS: [&str; 5] = ["login", "view", "cart", "order", "logout"];

/// What a random number is for: draws of one number that differ in this are
/// independent of each other.
#[derive(Clone, Copy)]
enum Draw {
    Repeats,
    Origin,
    Topic,
    User,
    Action,
    Amount,
    Token,
    TokenRest,
}

/// The events of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    seed: u64,
}

impl Mix {
    /// The events of `seed`. Those of another seed share no identity with them.
    pub fn new(seed: u64) -> Self {
        Mix { seed }
    }

    /// Which event delivery number `delivery` carries. An event has the number
    /// of its first delivery.
    pub fn event_of(self, delivery: u64) -> u64 {
        let mut event = delivery;
        while event > 0 && self.draw(event, Draw::Repeats).is_multiple_of(REPEATED_ONE_IN) {
            event = self.draw(event, Draw::Origin) % event;
        }
        event
    }

    /// How many of `deliveries` are the first of their event.
    pub fn distinct(self, deliveries: Range<u64>) -> u64 {
        deliveries.map(|delivery| u64::from(self.event_of(delivery) == delivery)).sum()
    }

    /// The topic and the id of an event; ids are 32 hexadecimal digits in no order.
    pub fn identity(self, event: u64) -> (String, String) {
        let event_id = self.id_digits(event).concat();
        let topic = Self::topic(self.draw(event, Draw::Topic) % TOPICS);
        (topic, String::from_utf8_lossy(&event_id).into_owned())
    }

    /// The name of number `topic` of [`TOPICS`].
    pub fn topic(topic: u64) -> String {
        format!("bench-{topic}")
    }

    /// Writes the JSON of the event that `delivery` carries, the same however
    /// often it is delivered.
    ///
    /// # Errors
    ///
    /// None that can be told how to come about: writing to memory does not fail.
    pub fn write_event(self, delivery: u64, out: &mut BytesMut) -> Result<()> {
        let event = self.event_of(delivery);
        let topic = self.draw(event, Draw::Topic) % TOPICS;
        let user = self.draw(event, Draw::User) % 10_000;
        let action = ACTIONS[(self.draw(event, Draw::Action) % ACTIONS.len() as u64) as usize];
        let amount = self.draw(event, Draw::Amount) % 1_000_000;
        out.reserve(EVENT_BYTES);
        write!(out, r#"{{"topic":"bench-{topic}","event_id":""#).context("an event")?;
        self.id_digits(event).iter().for_each(|digits| out.put_slice(digits));
        out.put_slice(br#"","source":"sekali-bench","timestamp":"2026-01-02T03:04:05.678Z","#);
        write!(out, r#""payload":{{"user_id":"user-{user}","action":"{action}","#)
            .and_then(|()| write!(out, r#""amount_cents":{amount},"token":""#))
            .context("a payload")?;
        out.put_slice(&hex(self.draw(event, Draw::Token)));
        out.put_slice(&hex(self.draw(event, Draw::TokenRest)));
        out.put_slice(br#""}}"#);
        Ok(())
    }

    /// Writes a request body: one event, or an array of several.
    ///
    /// # Errors
    ///
    /// As for [`Mix::write_event`].
    pub fn write_body(self, deliveries: Range<u64>, out: &mut BytesMut) -> Result<()> {
        if deliveries.end - deliveries.start == 1 {
            return self.write_event(deliveries.start, out);
        }
        let mut separator = b'[';
        for delivery in deliveries {
            out.put_u8(separator);
            self.write_event(delivery, out)?;
            separator = b',';
        }
        out.put_u8(b']');
        Ok(())
    }

    /// The first half of an id is already another one for each event, as
    /// [`mixed`] is one to one.
    fn id_digits(self, event: u64) -> [[u8; 16]; 2] {
        let first = mixed(self.seed.wrapping_add(event.wrapping_mul(STEP)));
        [hex(first), hex(mixed(first ^ self.seed.rotate_left(32)))]
    }

    fn draw(self, number: u64, draw: Draw) -> u64 {
        let of_number = mixed(self.seed ^ mixed(number.wrapping_add(STEP)));
        mixed(of_number.wrapping_add((draw as u64 + 1).wrapping_mul(STEP)))
    }
}

/// Hands out the deliveries of one store, each once and without a gap, to any
/// number of connections. So the event that a delivery repeats was handed out
/// before, and what was sent follows from how many were handed out.
#[derive(Debug)]
pub struct Feed {
    mix: Mix,
    first: u64,
    next: AtomicU64,
}

impl Feed {
    /// Begins with delivery number `first`.
    pub fn new(mix: Mix, first: u64) -> Self {
        Feed { mix, first, next: AtomicU64::new(first) }
    }

    /// The events.
    pub fn mix(&self) -> Mix {
        self.mix
    }

    /// The next `count` deliveries, which are to be sent now.
    pub fn take(&self, count: u64) -> Range<u64> {
        let start = self.next.fetch_add(count, Ordering::Relaxed);
        start..start + count
    }

    /// All that were handed out.
    pub fn taken(&self) -> Range<u64> {
        self.first..self.next.load(Ordering::Relaxed)
    }
}

/// The odd constant of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: spreads numbers well, one to one.
fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(number >> (60 - 4 * place)) as usize & 15])
}
