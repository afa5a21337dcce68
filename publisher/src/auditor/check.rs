//! What an audit comes to: sums, comparisons and violations.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::Serialize;

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
    pub(super) fn new(counter: &str, expected: RangeInclusive<u64>, observed: i64) -> Self {
        let (min, max) = expected.into_inner();
        Self::of(counter, min, Some(max), observed)
    }

    pub(super) fn of(
        counter: &str,
        expected_min: u64,
        expected_max: Option<u64>,
        observed: i64,
    ) -> Self {
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
