//! The order of deliveries, and how they are put into requests.

use rand_chacha::ChaCha8Rng;

use super::random::below;
use super::spec::{Range, Spec};

/// The resolution of the shares of a load without end.
const SHARE_PARTS: u64 = 1 << 32;

/// What a delivery is to the service that gets each in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An event that was not delivered before.
    New,
    /// An event as it was delivered before.
    Repeat,
    /// The identity of an earlier event with other content.
    Conflict,
    /// Not a valid event.
    Invalid,
}

/// One delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Planned {
    /// Which of the distinct events, from 0 in the order of first delivery;
    /// invalid ones are numbered by themselves.
    pub event: u64,
    /// What it is.
    pub kind: Kind,
}

impl Planned {
    /// Whether its content is the other one, not that of the first delivery.
    #[must_use]
    pub fn is_other_content(self) -> bool {
        self.kind == Kind::Conflict
    }
}

/// The deliveries of a [`Plan`](super::Plan), one after the other; it holds none of them.
#[derive(Debug)]
pub struct Schedule {
    rng: ChaCha8Rng,
    /// Deliveries that are left; `None`: without end.
    left: Option<u64>,
    /// How many of those that are left repeat, conflict and are invalid; without
    /// end, of [`SHARE_PARTS`].
    shares: [u64; 3],
    distinct: u64,
    invalid: u64,
    within: u64,
    /// The last `within` events' deliveries so far, if there is a limit to them.
    deliveries: Vec<u64>,
    deliveries_max: u64,
}

impl Schedule {
    /// So many deliveries, or deliveries without end.
    pub(super) fn new(spec: &Spec, deliveries: Option<u64>, rng: ChaCha8Rng) -> Self {
        let within = spec.within.unwrap_or(u64::MAX);
        let counted = spec.deliveries_max.map_or(0, |_| within as usize);
        Self {
            rng,
            left: deliveries,
            shares: spec.shares(deliveries.unwrap_or(SHARE_PARTS)),
            distinct: 0,
            invalid: 0,
            within,
            deliveries: vec![0; counted],
            deliveries_max: spec.deliveries_max.unwrap_or(u64::MAX),
        }
    }

    /// One of the recent events that may be delivered again, if there is one.
    fn earlier(&mut self) -> Option<u64> {
        let first = self.distinct.saturating_sub(self.within);
        let count = self.distinct - first;
        if count == 0 {
            return None;
        }
        let start = below(&mut self.rng, count);
        if self.deliveries.is_empty() {
            return Some(first + start);
        }
        (0..count).map(|step| first + (start + step) % count).find(|event| {
            let index = (event % self.within) as usize;
            self.deliveries[index] < self.deliveries_max
        })
    }

    fn delivered(&mut self, event: u64) {
        if !self.deliveries.is_empty() {
            self.deliveries[(event % self.within) as usize] += 1;
        }
    }

    /// What the next delivery is, by its share of those that are left: every
    /// choice of places is equally likely, and the numbers come out exactly.
    fn kind(&mut self) -> Kind {
        // The first event is always new.
        if self.distinct == 0 && self.shares[2] == 0 {
            return Kind::New;
        }
        let mut drawn = below(&mut self.rng, self.left.unwrap_or(SHARE_PARTS));
        for (kind, share) in
            [Kind::Repeat, Kind::Conflict, Kind::Invalid].into_iter().zip(self.shares)
        {
            if drawn < share {
                return kind;
            }
            drawn -= share;
        }
        Kind::New
    }

    /// Notes that one of its share is used up.
    fn spend(&mut self, kind: Kind) {
        let index = match kind {
            Kind::New => return,
            Kind::Repeat => 0,
            Kind::Conflict => 1,
            Kind::Invalid => 2,
        };
        if self.left.is_some() {
            self.shares[index] -= 1;
        }
    }

    fn new_event(&mut self) -> Planned {
        let event = self.distinct;
        self.distinct += 1;
        if !self.deliveries.is_empty() {
            self.deliveries[(event % self.within) as usize] = 1;
        }
        Planned { event, kind: Kind::New }
    }
}

impl Iterator for Schedule {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.left == Some(0) {
            return None;
        }
        let kind = self.kind();
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        let planned = match kind {
            Kind::New => return Some(self.new_event()),
            Kind::Invalid => {
                self.invalid += 1;
                Planned { event: self.invalid - 1, kind }
            }
            Kind::Repeat | Kind::Conflict => match self.earlier() {
                Some(event) => {
                    self.delivered(event);
                    Planned { event, kind }
                }
                // None, or each was delivered as often as may be: a new one
                // takes the place, and its share is made up for later.
                None => return Some(self.new_event()),
            },
        };
        self.spend(kind);
        Some(planned)
    }
}

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRequest {
    /// Its index among all requests, from 0.
    pub number: u64,
    /// What it delivers, in order.
    pub deliveries: Vec<Planned>,
}

/// The requests of a [`Plan`](super::Plan), one after the other; it holds none of them.
#[derive(Debug)]
pub struct Requests {
    schedule: Schedule,
    batch: Range,
    rng: ChaCha8Rng,
    next: u64,
}

impl Requests {
    pub(super) fn new(schedule: Schedule, batch: Range, rng: ChaCha8Rng) -> Self {
        Self { schedule, batch, rng, next: 0 }
    }

    /// Has the requests from here on hold so many events.
    pub fn set_batch(&mut self, batch: Range) {
        self.batch = batch;
    }
}

impl Iterator for Requests {
    type Item = PlannedRequest;

    fn next(&mut self) -> Option<PlannedRequest> {
        let Range { min, max } = self.batch;
        let events = if min == max { min } else { min + below(&mut self.rng, max - min + 1) };
        let deliveries: Vec<_> = self.schedule.by_ref().take(events as usize).collect();
        if deliveries.is_empty() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(PlannedRequest { number, deliveries })
    }
}
