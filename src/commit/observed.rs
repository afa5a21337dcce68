//! What an instance observes of its commits, and what of it is added up in the
//! store.
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
//!
//! Of a group that is handed over, the one writer notes all of this: it is told how long
//! the requests have waited. What else an instance is to add goes along with what it
//! hands over, and into the next commit of the one writer. Should no answer come, it is
//! added again.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::store::Increments;

/// Commits after which an instance adds what it saw to its next commit.
const OBSERVED_COMMITS_MAX: u32 = 32;

/// The same, as a time.
const OBSERVED_SECONDS_MAX: u64 = 1;

/// The name under which instances count the stored events that they cannot show.
pub(crate) const UNREADABLE_EVENTS: &str = "unreadable_events";

/// The name under which instances count the values of the key-value store that they
/// could not read, and replaced.
pub(crate) const UNREADABLE_VALUES: &str = "unreadable_key_value_values";

/// A kind of observation, counted in buckets.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Its name, in the store and in `/metrics`.
    pub(crate) name: &'static str,
    /// What it tells, for people.
    pub(crate) help: &'static str,
    /// The largest value of each bucket, in units of `1 / per_unit`; the last
    /// bucket, which has no end, is not among them.
    pub(crate) bounds: &'static [i64],
    /// How many of the units that are stored make one that is shown.
    pub(crate) per_unit: i64,
}

/// How long requests waited for their events to be on disk, in microseconds.
pub(crate) const COMMIT_SECONDS: Histogram = Histogram {
    name: "commit_seconds",
    help: "Time from a publish's events being read to their being on disk.",
    bounds: &[
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000,
    ],
    per_unit: 1_000_000,
};

/// How many requests shared a commit.
pub(crate) const COMMIT_REQUESTS: Histogram = Histogram {
    name: "commit_requests",
    help: "Publish requests in one commit: the size of its group.",
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128],
    per_unit: 1,
};

/// How many events were in a commit.
pub(crate) const COMMIT_EVENTS: Histogram = Histogram {
    name: "commit_events",
    help: "Deliveries of events in one commit.",
    bounds: &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000],
    per_unit: 1,
};

/// All of them.
pub(crate) const HISTOGRAMS: [&Histogram; 3] = [&COMMIT_SECONDS, &COMMIT_REQUESTS, &COMMIT_EVENTS];

/// Their places there.
const SECONDS: usize = 0;
const REQUESTS: usize = 1;
const EVENTS: usize = 2;

impl Histogram {
    /// The index of the bucket that `value` falls into, by a binary search.
    fn bucket_of(&self, value: i64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// The name under which the store counts observations up to `bound`, and above
    /// the bound before it.
    pub(crate) fn bucket_name(&self, bound: Option<&i64>) -> String {
        match bound {
            Some(bound) => format!("{}/le/{bound}", self.name),
            None => format!("{}/le/inf", self.name),
        }
    }

    /// The name under which the store adds the observed values up.
    pub(crate) fn sum_name(&self) -> String {
        format!("{}/sum", self.name)
    }
}

/// Most buckets of a histogram.
const BUCKETS_MAX: usize = 16;

/// The observations of one histogram.
#[derive(Clone, Copy, Debug, Default)]
struct Observations {
    buckets: [i64; BUCKETS_MAX],
    sum: i64,
}

/// What an instance saw of its commits and has not added to the store yet. Kept
/// as plain numbers: every request adds to it.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    histograms: RefCell<[Observations; HISTOGRAMS.len()]>,
    /// What was counted by name, and what could not be added.
    left: RefCell<Increments>,
    /// How often something was noted, in commits.
    noted: Cell<u32>,
    since: Cell<Duration>,
}

impl Observed {
    /// Notes a commit: of how many events, and how long each of its requests
    /// waited for it.
    pub(crate) fn note(&self, events: usize, waited: impl ExactSizeIterator<Item = Duration>) {
        let mut histograms = self.histograms.borrow_mut();
        let mut observe = |histogram: usize, value: i64| {
            let observations = &mut histograms[histogram];
            observations.buckets[HISTOGRAMS[histogram].bucket_of(value)] += 1;
            observations.sum += value;
        };
        observe(REQUESTS, whole(waited.len()));
        observe(EVENTS, whole(events));
        for waited in waited {
            observe(SECONDS, whole(waited.as_micros()));
        }
        self.noted.set(self.noted.get() + 1);
    }

    /// Adds what another instance observed.
    pub(crate) fn add(&self, increments: Increments) {
        if !increments.is_empty() {
            self.keep(increments);
            self.noted.set(self.noted.get() + 1);
        }
    }

    /// Counts one more of what is counted under `name`.
    pub(crate) fn count(&self, name: &str) {
        *self.left.borrow_mut().entry(name.to_owned()).or_default() += 1;
        self.noted.set(self.noted.get() + 1);
    }

    /// Whether something was noted and not taken.
    pub(crate) fn is_some(&self) -> bool {
        self.noted.get() > 0
    }

    /// What was noted, if it is time to add it to the store.
    pub(crate) fn take_if_due(&self, now: Duration) -> Option<Increments> {
        let waits = now.saturating_sub(self.since.get()).as_secs() < OBSERVED_SECONDS_MAX;
        if self.noted.get() == 0 || (waits && self.noted.get() < OBSERVED_COMMITS_MAX) {
            return None;
        }
        self.since.set(now);
        self.take()
    }

    /// What was noted, if anything was.
    pub(crate) fn take(&self) -> Option<Increments> {
        if self.noted.replace(0) == 0 {
            return None;
        }
        let mut increments = self.left.take();
        for (histogram, observations) in HISTOGRAMS.iter().zip(self.histograms.take()) {
            let bounds = histogram.bounds.iter().map(Some).chain([None]);
            let buckets = bounds.zip(observations.buckets).filter(|(_, count)| *count > 0);
            for (bound, count) in buckets {
                *increments.entry(histogram.bucket_name(bound)).or_default() += count;
            }
            if observations.sum > 0 {
                *increments.entry(histogram.sum_name()).or_default() += observations.sum;
            }
        }
        Some(increments)
    }

    /// Takes back what could not be added.
    pub(crate) fn put_back(&self, increments: Increments) {
        self.keep(increments);
        self.noted.set(OBSERVED_COMMITS_MAX);
    }

    fn keep(&self, increments: Increments) {
        let mut left = self.left.borrow_mut();
        for (name, count) in increments {
            *left.entry(name).or_default() += count;
        }
    }
}

fn whole<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_fits() {
        for (histogram, name) in
            [(SECONDS, "commit_seconds"), (REQUESTS, "commit_requests"), (EVENTS, "commit_events")]
        {
            assert_eq!(HISTOGRAMS[histogram].name, name);
            assert!(HISTOGRAMS[histogram].bounds.is_sorted_by(|a, b| a < b));
            assert!(HISTOGRAMS[histogram].bucket_of(i64::MAX) < BUCKETS_MAX);
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
        let expected: Increments =
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
