//! Thresholds: `p99>50ms`, `errors>0`, `rate<1000`.

use std::str::FromStr;

use crate::report::load::{Latency, LoadReport, Threshold};

/// What can be compared.
#[derive(Debug, Clone, Copy)]
enum Metric {
    Latency {
        kind: LatencyKind,
        of: fn(&Latency) -> f64,
    },
    Count(OfReport),
    /// In percent of deliveries.
    ErrorShare,
    Rate,
}

/// Which latency is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LatencyKind {
    /// The corrected one in an open loop, else the raw one.
    Default,
    Raw,
    Corrected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    More,
    AtLeast,
    Less,
    AtMost,
}

/// A condition under which a run fails.
#[derive(Debug, Clone)]
pub(crate) struct FailIf {
    text: String,
    metric: Metric,
    comparison: Comparison,
    /// In milliseconds, percent, or as it is.
    limit: f64,
}

type OfLatency = fn(&Latency) -> f64;
type OfReport = fn(&LoadReport) -> u64;

const LATENCIES: [(&str, OfLatency); 6] = [
    ("mean", |latency| latency.mean),
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p99_9),
    ("max", |latency| latency.max),
];

const COUNTS: [(&str, OfReport); 7] = [
    ("errors", |report| report.tally.errors),
    ("retries", |report| report.tally.retries),
    ("rejected", |report| report.tally.rejected),
    ("conflicts", |report| report.tally.conflicts),
    ("late", |report| report.pace.map_or(0, |pace| pace.late_requests + pace.late_by_tool)),
    ("dropped", |report| report.pace.map_or(0, |pace| pace.dropped_requests)),
    ("mismatches", |report| {
        let counters = report.check.rows.iter().filter(|row| !row.ok).count() as u64;
        counters + report.check.violations_total
    }),
];

const EXPECTED: &str = "expected as p99>50ms, raw.p99.9>1s, errors>0, errors>0.1% or rate<1000; \
     metrics are mean, p50, p90, p99, p99.9, max (also as raw.… and corrected.…), rate, errors, \
     retries, rejected, conflicts, late, dropped and mismatches; comparisons >, >=, < and <=";

impl FromStr for FailIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| EXPECTED.to_owned())
    }
}

impl FailIf {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['<', '>'])?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::More),
            ("<", Comparison::Less),
        ]
        .into_iter()
        .find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?)))?;
        let (name, value) = (name.trim(), value.trim());
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let unit = &value[digits.len()..];
        let number: f64 = digits.trim().parse().ok().filter(|number: &f64| number.is_finite())?;

        let (kind, quantile) = match name.split_once('.') {
            Some(("raw", quantile)) => (LatencyKind::Raw, quantile),
            Some(("corrected", quantile)) => (LatencyKind::Corrected, quantile),
            _ => (LatencyKind::Default, name),
        };
        let latency = LATENCIES.iter().find(|(name, _)| *name == quantile);
        let count = COUNTS.iter().find(|(counted, _)| *counted == name);
        let (metric, factor) = match (latency, count, name, unit) {
            (Some((_, of)), _, _, "us") => (Metric::Latency { kind, of: *of }, 0.001),
            (Some((_, of)), _, _, "ms") => (Metric::Latency { kind, of: *of }, 1.0),
            (Some((_, of)), _, _, "s") => (Metric::Latency { kind, of: *of }, 1_000.0),
            (_, _, "errors", "%") => (Metric::ErrorShare, 1.0),
            (_, _, "rate", "") => (Metric::Rate, 1.0),
            (_, Some((_, of)), _, "") => (Metric::Count(*of), 1.0),
            _ => return None,
        };
        Some(Self { text: text.to_owned(), metric, comparison, limit: number * factor })
    }

    /// Holds a run against the condition. What was not measured, such as the
    /// latency of no request, fails.
    #[must_use]
    pub(crate) fn evaluate(&self, report: &LoadReport) -> Threshold {
        let observed = self.observe(report);
        let crossed = observed.is_none_or(|observed| match self.comparison {
            Comparison::More => observed > self.limit,
            Comparison::AtLeast => observed >= self.limit,
            Comparison::Less => observed < self.limit,
            Comparison::AtMost => observed <= self.limit,
        });
        Threshold { fail_if: self.text.clone(), observed, crossed }
    }

    fn observe(&self, report: &LoadReport) -> Option<f64> {
        match self.metric {
            Metric::Latency { kind, of } => {
                let latencies = report.latency_ms;
                let latency = match kind {
                    LatencyKind::Default => latencies.corrected.unwrap_or(latencies.raw),
                    LatencyKind::Raw => latencies.raw,
                    LatencyKind::Corrected => latencies.corrected?,
                };
                (latency.count > 0).then(|| of(&latency))
            }
            Metric::Count(of) => Some(of(report) as f64),
            Metric::ErrorShare => (report.tally.sent > 0)
                .then(|| report.tally.errors as f64 / report.tally.sent as f64 * 100.0),
            Metric::Rate => Some(report.events_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_threshold_is_refused() {
        for text in [
            "",
            "p99",
            "p99>",
            "p99>50",
            "p98>50ms",
            "errors>x",
            "errors>0ms",
            "rate<10%",
            "raw.errors>0",
            "rate>nan",
            "rate=3",
            "late>1s",
        ] {
            assert!(text.parse::<FailIf>().is_err(), "{text}");
        }
    }

    #[test]
    fn units_are_read() {
        let limit = |text: &str| text.parse::<FailIf>().unwrap().limit;
        assert_eq!(limit("p99>50ms"), 50.0);
        assert_eq!(limit(" raw.p99.9 >= 1.5s"), 1_500.0);
        assert_eq!(limit("corrected.max<200us"), 0.2);
        assert_eq!(limit("errors > 0.1%"), 0.1);
        assert_eq!(limit("rate<=1000"), 1_000.0);
    }
}
