//! Counts by name: what rides along with a commit and is added up in the store.
//!
//! An instance lives for a hundred requests, and any of them may be asked for
//! `/metrics`, so what one instance has counted tells nothing. The store adds
//! up what all of them saw, in the statements that they run anyway:
//!
//! - `rejected/…`: deliveries that were no valid events, by the field that was
//!   wrong. Exact, like every counter of events: they are in the very commit
//!   that counts the delivery.
//! - `commit_seconds/…`, `commit_requests/…`, `commit_events/…`: histograms of
//!   the commits. An instance adds what it saw with every so many commits, and
//!   when it has had nothing to do for a moment. What an instance saw last is
//!   missing when it was killed, or found the store busy for a second.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Commits after which an instance adds what it saw to its next commit.
const OBSERVED_COMMITS_MAX: u32 = 32;

/// The same, as a time.
const OBSERVED_SECONDS_MAX: u64 = 1;

/// The prefix of the names that count rejected deliveries.
pub const REJECTED: &str = "rejected/";

/// Numbers to add, by name.
pub type Counts = BTreeMap<String, i64>;

/// A kind of observation, counted in ranges.
#[derive(Debug)]
pub struct Histogram {
    /// Its name, in the store and in `/metrics`.
    pub name: &'static str,
    /// What it tells, for people.
    pub help: &'static str,
    /// The largest value of each range, in units of `1 / per_unit`; the last
    /// range, which has no end, is not among them.
    pub bounds: &'static [i64],
    /// How many of the units that are stored make one that is shown.
    pub per_unit: i64,
}

/// How long requests waited for their events to be on disk, in microseconds.
pub const COMMIT_SECONDS: Histogram = Histogram {
    name: "commit_seconds",
    help: "Time from a publish's events being read to their being on disk.",
    bounds: &[
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000,
    ],
    per_unit: 1_000_000,
};

/// How many requests shared a commit.
pub const COMMIT_REQUESTS: Histogram = Histogram {
    name: "commit_requests",
    help: "Publish requests in one commit: the size of its group.",
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128],
    per_unit: 1,
};

/// How many events were in a commit.
pub const COMMIT_EVENTS: Histogram = Histogram {
    name: "commit_events",
    help: "Deliveries of events in one commit.",
    bounds: &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000],
    per_unit: 1,
};

/// All of them.
pub const HISTOGRAMS: [&Histogram; 3] = [&COMMIT_SECONDS, &COMMIT_REQUESTS, &COMMIT_EVENTS];

/// Their places there.
const SECONDS: usize = 0;
const REQUESTS: usize = 1;
const EVENTS: usize = 2;

impl Histogram {
    /// The range of `value`.
    fn range(&self, value: i64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// The name under which observations up to `bound`, and above the bound
    /// before it, are counted.
    pub fn bucket(&self, bound: Option<&i64>) -> String {
        match bound {
            Some(bound) => format!("{}/le/{bound}", self.name),
            None => format!("{}/le/inf", self.name),
        }
    }

    /// The name under which the observed values are added up.
    pub fn sum(&self) -> String {
        format!("{}/sum", self.name)
    }
}

/// Most ranges of a histogram.
const RANGES_MAX: usize = 16;

/// The observations of one histogram.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ranges: [i64; RANGES_MAX],
    sum: i64,
}

/// What an instance saw of its commits and has not added to the store yet. Kept
/// as plain numbers: every request adds to it.
#[derive(Debug, Default)]
pub struct Observed {
    tallies: RefCell<[Tally; HISTOGRAMS.len()]>,
    /// What could not be added.
    left: RefCell<Counts>,
    commits: Cell<u32>,
    since: Cell<Duration>,
}

impl Observed {
    /// Notes a commit: of how many events, and how long each of its requests
    /// waited for it.
    pub fn note(&self, events: usize, waited: impl ExactSizeIterator<Item = Duration>) {
        let mut tallies = self.tallies.borrow_mut();
        let mut observe = |histogram: usize, value: i64| {
            let tally = &mut tallies[histogram];
            tally.ranges[HISTOGRAMS[histogram].range(value)] += 1;
            tally.sum += value;
        };
        observe(REQUESTS, whole(waited.len()));
        observe(EVENTS, whole(events));
        for waited in waited {
            observe(SECONDS, whole(waited.as_micros()));
        }
        self.commits.set(self.commits.get() + 1);
    }

    /// What was noted, if it is time to add it to the store.
    pub fn take_if_due(&self, now: Duration) -> Option<Counts> {
        let waits = now.saturating_sub(self.since.get()).as_secs() < OBSERVED_SECONDS_MAX;
        if self.commits.get() == 0 || (waits && self.commits.get() < OBSERVED_COMMITS_MAX) {
            return None;
        }
        self.since.set(now);
        self.take()
    }

    /// What was noted, if anything was.
    pub fn take(&self) -> Option<Counts> {
        if self.commits.replace(0) == 0 {
            return None;
        }
        let mut counts = self.left.take();
        for (histogram, tally) in HISTOGRAMS.iter().zip(self.tallies.take()) {
            let bounds = histogram.bounds.iter().map(Some).chain([None]);
            let ranges = bounds.zip(tally.ranges).filter(|(_, count)| *count > 0);
            for (bound, count) in ranges {
                *counts.entry(histogram.bucket(bound)).or_default() += count;
            }
            if tally.sum > 0 {
                *counts.entry(histogram.sum()).or_default() += tally.sum;
            }
        }
        Some(counts)
    }

    /// Takes back what could not be added.
    pub fn put_back(&self, counts: Counts) {
        let mut left = self.left.borrow_mut();
        for (name, count) in counts {
            *left.entry(name).or_default() += count;
        }
        self.commits.set(OBSERVED_COMMITS_MAX);
    }
}

fn whole<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_room() {
        for (histogram, name) in
            [(SECONDS, "commit_seconds"), (REQUESTS, "commit_requests"), (EVENTS, "commit_events")]
        {
            assert_eq!(HISTOGRAMS[histogram].name, name);
            assert!(HISTOGRAMS[histogram].bounds.is_sorted_by(|a, b| a < b));
            assert!(HISTOGRAMS[histogram].range(i64::MAX) < RANGES_MAX);
        }
    }

    #[test]
    fn observations_ride_along_now_and_then() {
        let observed = Observed::default();
        let second = Duration::from_secs(1);
        assert_eq!(observed.take_if_due(second), None, "there is nothing to tell");
        let millis = [Duration::from_micros(250), Duration::from_micros(251)];
        observed.note(12_000, millis.into_iter());
        assert_eq!(observed.take_if_due(Duration::ZERO), None, "too soon");
        let counts = observed.take_if_due(second);
        let expected = [
            ("commit_events/le/inf", 1),
            ("commit_events/sum", 12_000),
            ("commit_requests/le/2", 1),
            ("commit_requests/sum", 2),
            ("commit_seconds/le/250", 1),
            ("commit_seconds/le/500", 1),
            ("commit_seconds/sum", 501),
        ];
        let expected: Counts =
            expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(counts, Some(expected.clone()));
        assert_eq!(observed.take_if_due(second * 5), None);
        observed.put_back(expected.clone());
        assert_eq!(observed.take_if_due(second), Some(expected), "nothing was lost");
        for _ in 0..OBSERVED_COMMITS_MAX {
            assert_eq!(observed.take_if_due(second), None);
            observed.note(1, [Duration::ZERO].into_iter());
        }
        assert!(observed.take_if_due(second).is_some());
    }
}
