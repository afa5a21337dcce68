//! What a load looks like: named workloads, and the same as a TOML file.
//!
//! Shares are of all deliveries. Every field may be left out of a file; what
//! it stands for then is the workload `default`.

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most topics of a load.
pub const TOPICS_MAX: u64 = 10_000;
/// The most events in a request that can be asked for.
pub const BATCH_EVENTS_MAX: u64 = 1_000_000;
/// The smallest payload whose size can be asked for, in bytes.
pub const PAYLOAD_BYTES_MIN: u64 = 32;
/// The largest payload that can be asked for, in bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The most recent events that repeats can be chosen from.
pub(super) const WITHIN_MAX: u64 = 1_000_000;
/// The longest period of bursts, in milliseconds: one day.
pub(super) const BURST_PERIOD_MS_MAX: u64 = 86_400_000;

/// How often each topic is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// By Zipf's law: the n-th topic 1/n as often as the first.
    Zipf,
}

/// How the ids of events follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// They count up.
    #[default]
    Counting,
    /// In no order, as random ids: each has another place in an index.
    Scattered,
}

impl Ids {
    fn is_counting(&self) -> bool {
        *self == Self::Counting
    }
}

/// A number from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Range {
    /// Always the same.
    #[must_use]
    pub const fn exactly(number: u64) -> Self {
        Self { min: number, max: number }
    }

    fn check(self, least: u64, most: u64) -> anyhow::Result<()> {
        let Self { min, max } = self;
        ensure!(min <= max, "the least, {min}, is over the most, {max}");
        ensure!((least..=most).contains(&min) && max <= most, "expected from {least} to {most}");
        Ok(())
    }
}

/// Times of sending with times of silence between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// From the beginning of one burst to that of the next, in milliseconds.
    pub period_ms: u64,
    /// The share of the period in which everything is sent.
    pub share: f64,
}

/// What a load looks like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Topics to spread the events over.
    pub topics: u64,
    /// How often each topic is chosen.
    pub topic_popularity: Popularity,
    /// How the ids of events follow each other; absent: they count up.
    #[serde(skip_serializing_if = "Ids::is_counting")]
    pub ids: Ids,
    /// Events in a request, every number alike.
    pub batch: Range,
    /// The share of deliveries that repeats an earlier event as it was.
    pub duplicates: f64,
    /// The share of deliveries with an earlier event's id and other content.
    pub conflicts: f64,
    /// The share of deliveries that are not valid events.
    pub invalid: f64,
    /// Repeats and conflicts are of the last so many distinct events; absent:
    /// of any.
    pub within: Option<u64>,
    /// The most deliveries of one event; needs `within`.
    pub deliveries_max: Option<u64>,
    /// The size of payloads, every order of magnitude alike; absent: small
    /// records of some 130 bytes.
    pub payload_bytes: Option<Range>,
    /// Bursts instead of an even load.
    pub burst: Option<Burst>,
}

impl Spec {
    /// One event a request, a fifth of them repeats, over four topics.
    pub const DEFAULT: Self = Self {
        topics: 4,
        topic_popularity: Popularity::Uniform,
        ids: Ids::Counting,
        batch: Range::exactly(1),
        duplicates: 0.2,
        conflicts: 0.0,
        invalid: 0.0,
        within: None,
        deliveries_max: None,
        payload_bytes: None,
        burst: None,
    };
}

impl Default for Spec {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A workload that can be asked for by its name.
#[derive(Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it is like, for people.
    pub about: &'static str,
    /// What it is like.
    pub spec: Spec,
}

/// All workloads that have a name.
pub const NAMED: [Named; 9] = [
    Named {
        name: "default",
        about: "one event a request, 20% repeats, 4 topics",
        spec: Spec::DEFAULT,
    },
    Named {
        name: "retry",
        about: "clients that do not wait: every event up to three times, also while the first is under way",
        spec: Spec { duplicates: 0.5, within: Some(32), deliveries_max: Some(3), ..Spec::DEFAULT },
    },
    Named {
        name: "batch",
        about: "50 events a request, 20% repeats, most of them within the same request",
        spec: Spec { batch: Range::exactly(50), within: Some(25), ..Spec::DEFAULT },
    },
    Named {
        name: "mixed",
        about: "1 to 100 events a request of 100 B to 4 kB over 20 topics, 20% repeats, 2% conflicts, 1% invalid",
        spec: Spec {
            topics: 20,
            topic_popularity: Popularity::Zipf,
            batch: Range { min: 1, max: 100 },
            conflicts: 0.02,
            invalid: 0.01,
            payload_bytes: Some(Range { min: 100, max: 4_000 }),
            ..Spec::DEFAULT
        },
    },
    Named {
        name: "topics",
        about: "1,000 topics, the n-th 1/n as popular as the first",
        spec: Spec { topics: 1_000, topic_popularity: Popularity::Zipf, ..Spec::DEFAULT },
    },
    Named {
        name: "burst",
        about: "all of a second's events in its first fifth",
        spec: Spec { burst: Some(Burst { period_ms: 1_000, share: 0.2 }), ..Spec::DEFAULT },
    },
    Named {
        name: "conflict",
        about: "10% repeats, and 10% that reuse an id for other content",
        spec: Spec { duplicates: 0.1, conflicts: 0.1, within: Some(1_000), ..Spec::DEFAULT },
    },
    Named {
        name: "poison",
        about: "20 events a request, a tenth of them invalid in one of several ways",
        spec: Spec { batch: Range::exactly(20), invalid: 0.1, ..Spec::DEFAULT },
    },
    Named {
        name: "sizes",
        about: "payloads of 100 B to 100 kB, every order of magnitude alike",
        spec: Spec { payload_bytes: Some(Range { min: 100, max: 100_000 }), ..Spec::DEFAULT },
    },
];

impl Spec {
    /// The workload of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMED.iter().find(|named| named.name == name).map(|named| named.spec)
    }

    /// Reads a workload out of the text of a TOML file.
    ///
    /// # Errors
    ///
    /// If it is not TOML, has other fields, or values that cannot be; the
    /// message names them.
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        let spec: Self = toml::from_str(text)?;
        spec.check()?;
        Ok(spec)
    }

    /// Whether an event may be delivered more than once.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.duplicates > 0.0 || self.conflicts > 0.0
    }

    /// Of so many deliveries, how many repeat, conflict, and are invalid.
    pub(super) fn shares(&self, deliveries: u64) -> [u64; 3] {
        // Exact below 2^53 deliveries, which nobody sends.
        let Self { duplicates, conflicts, invalid, .. } = *self;
        [duplicates, conflicts, invalid].map(|share| (deliveries as f64 * share).round() as u64)
    }

    /// Whether there can be such a load.
    ///
    /// # Errors
    ///
    /// If not; the message names the field.
    pub fn check(&self) -> anyhow::Result<()> {
        Range::exactly(self.topics).check(1, TOPICS_MAX).context("topics")?;
        self.batch.check(1, BATCH_EVENTS_MAX).context("batch")?;
        for (name, share) in [
            ("duplicates", self.duplicates),
            ("conflicts", self.conflicts),
            ("invalid", self.invalid),
        ] {
            ensure!((0.0..1.0).contains(&share), "{name}: expected a share from 0 to below 1");
        }
        let repeats = self.duplicates + self.conflicts;
        ensure!(
            repeats + self.invalid < 1.0,
            "duplicates, conflicts and invalid together leave no event to be new"
        );
        if let Some(within) = self.within {
            Range::exactly(within).check(1, WITHIN_MAX).context("within")?;
        }
        if let Some(max) = self.deliveries_max {
            ensure!(self.within.is_some(), "deliveries_max: needs within");
            ensure!(max > 0, "deliveries_max: expected at least 1");
        }
        if let Some(bytes) = self.payload_bytes {
            bytes.check(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX).context("payload_bytes")?;
        }
        if let Some(Burst { period_ms, share }) = self.burst {
            Range::exactly(period_ms).check(1, BURST_PERIOD_MS_MAX).context("burst.period_ms")?;
            ensure!(share > 0.0 && share <= 1.0, "burst.share: expected over 0 and up to 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_workloads_can_be_and_are_told_apart() {
        for (index, named) in NAMED.iter().enumerate() {
            named.spec.check().unwrap_or_else(|error| panic!("{}: {error}", named.name));
            assert_eq!(Spec::named(named.name), Some(named.spec));
            assert!(NAMED[..index].iter().all(|other| other.spec != named.spec));
        }
        assert_eq!(Spec::named("other"), None);
    }

    #[test]
    fn files_are_read_and_what_is_wrong_is_named() {
        let spec = Spec::from_toml(
            "topics = 3\nbatch = { min = 1, max = 9 }\nburst = { period_ms = 500, share = 0.1 }",
        )
        .unwrap();
        assert_eq!((spec.topics, spec.batch.max, spec.duplicates), (3, 9, 0.2));
        for (text, part) in [
            ("topics = 0", "topics"),
            ("topic = 1", "topic"),
            ("batch = { min = 3, max = 2 }", "batch"),
            ("duplicates = 1.0", "duplicates"),
            ("duplicates = 0.5\nconflicts = 0.5", "together"),
            ("invalid = nan", "invalid"),
            ("deliveries_max = 3", "within"),
            ("payload_bytes = { min = 1, max = 2 }", "payload_bytes"),
            ("burst = { period_ms = 0, share = 0.5 }", "period_ms"),
            ("burst = { period_ms = 1, share = 0 }", "share"),
        ] {
            let error = format!("{:#}", Spec::from_toml(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_workload_survives_being_written_and_read() {
        for named in &NAMED {
            for ids in [Ids::Counting, Ids::Scattered] {
                let spec = Spec { ids, ..named.spec };
                let json = serde_json::to_string(&spec).unwrap();
                assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
            }
        }
    }
}
