//! Seed → deliveries.
//!
//! A [`Plan`] of N deliveries holds exactly `round(N × share)` of each kind
//! that its [`Spec`] gives a share; which, and where, follows from the seed
//! alone: the same plan gives the same bytes in the same order, on every
//! machine. The ids and topics carry the seed, so runs with other seeds never
//! meet. Events have numbers, and each one's content follows from its number,
//! so an audit needs no copy of what was sent.

mod plan;
mod random;
mod scatter;
mod schedule;
mod spec;

pub use plan::{Plan, SOURCE};
pub use schedule::{Kind, Planned, PlannedRequest, Requests, Schedule};
pub use spec::{
    BATCH_EVENTS_MAX, Burst, Ids, NAMED, Named, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Popularity,
    Range, Spec, TOPICS_MAX,
};

#[cfg(test)]
mod tests;
