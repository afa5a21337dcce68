//! What came of `publisher load`, `resume`, `verify` and `chaos`.
//!
//! As JSON it is described by `publisher schema`. A field that is removed, or
//! means something else, raises [`SCHEMA_VERSION`]; one that is added does not.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::output::Report;
use super::table::{align, table};
use crate::auditor::{Check, Tally};
use crate::workload::Spec;

/// The version of the report as JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Each when an earlier one is answered.
    Closed,
    /// At a rate, evenly, whatever the service does.
    Constant,
    /// At a rate, at random moments, whatever the service does.
    Poisson,
}

/// Latencies of answered requests in milliseconds, to three digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half of them are below.
    pub p50: f64,
    /// 90 of 100 are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1,000 are below.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

/// Both ways to look at latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Latencies {
    /// From the moment that a request was sent to its reply, its retries
    /// included. In a pause of the service only those under way wait.
    pub raw: Latency,
    /// From the moment that a request was to be sent to its reply: what a user
    /// would have waited, also for a pause before it could be sent (no
    /// coordinated omission). Absent in a closed loop, which has no such moment.
    pub corrected: Option<Latency>,
}

/// How well the rate was held in an open loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Pace", deny_unknown_fields)]
pub struct Pacing {
    /// The rate asked for, in events a second.
    pub rate: f64,
    /// The rate at which events were sent.
    pub sent_rate: f64,
    /// Requests sent over 10 ms after their time because all that may be under
    /// way were: the service did not hold the rate, or `--concurrency` is too low.
    pub late_requests: u64,
    /// Requests sent over 10 ms after their time although fewer than may be
    /// were under way: this program or its machine did not hold the rate.
    pub late_by_tool: u64,
    /// The latest that a request was sent after its time, in milliseconds.
    pub late_max_ms: f64,
    /// Requests that were not sent: the run ended before their turn came.
    pub dropped_requests: u64,
    /// Whether the rate was held: none dropped, and under 1 of 100 late.
    pub held: bool,
}

/// A part of the run, of a second or more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Interval {
    /// When it begins, in seconds from the first request.
    pub from_second: f64,
    /// How long it is, in seconds.
    pub seconds: f64,
    /// Whether it was warm-up, which counts for no figure but these.
    pub warm_up: bool,
    /// Requests answered.
    pub requests: u64,
    /// Deliveries answered as stored.
    pub accepted: u64,
    /// Deliveries answered as stored before.
    pub duplicates: u64,
    /// Deliveries answered as invalid.
    pub rejected: u64,
    /// Requests without an answer.
    pub errors: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Half of the latencies are below, in milliseconds; corrected in an open
    /// loop, raw in a closed one.
    pub p50_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// A bar of the histogram of latencies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Bar", deny_unknown_fields)]
pub struct Bucket {
    /// Its upper end in milliseconds; its lower end is that of the bar before.
    pub up_to_ms: f64,
    /// Raw latencies in it.
    pub raw: u64,
    /// Corrected latencies in it.
    pub corrected: u64,
}

/// A threshold of `--fail-if`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Threshold {
    /// As it was given.
    pub fail_if: String,
    /// What was measured: milliseconds, percent, or a number; absent if nothing
    /// was.
    pub observed: Option<f64>,
    /// Whether it was crossed, or could not be told.
    pub crossed: bool,
}

/// The end of the service, or of one of its processes, by our hand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Kill {
    /// Which of the commands had started what was killed; the first is 1.
    pub process: usize,
    /// When, in seconds from the first request.
    pub at_second: f64,
    /// How long the service had been healthy, in milliseconds.
    pub up_ms: f64,
    /// Deliveries acknowledged by then.
    pub acknowledged: u64,
    /// Requests under way at that moment.
    pub under_way: u64,
    /// From the kill until the service was healthy again, in milliseconds.
    pub down_ms: f64,
}

/// What came of a load.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Report of publisher load, resume, verify and chaos", deny_unknown_fields)]
pub struct LoadReport {
    /// The version of this document: 1.
    pub schema_version: u32,
    /// This program and its version.
    pub program: String,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// Where the service is.
    pub url: String,
    /// What the deliveries were derived from.
    pub seed: u64,
    /// What names the run in its topics and ids.
    pub run: String,
    /// What the load looks like.
    pub workload: Spec,
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Most requests under way at a time.
    pub concurrency: u64,
    /// Deliveries planned; absent: as many as fit into the time.
    pub planned: Option<u64>,
    /// Distinct valid events sent.
    pub distinct: u64,
    /// Deliveries by what came of them.
    #[serde(flatten)]
    pub tally: Tally,
    /// Requests without an answer, by kind: a status, `connect`, `timeout`,
    /// `broken`, or `protocol`.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Attempts that failed and could be made again, by kind.
    pub losses_by_kind: BTreeMap<String, u64>,
    /// Requests settled, each with all its attempts.
    pub requests: u64,
    /// Of these, those that were sent before the end of the warm-up, and are in
    /// no latency.
    pub warm_up_requests: u64,
    /// Bodies sent, in bytes on the wire, without attempts after the first.
    pub bytes_sent: u64,
    /// Bodies of replies, in bytes.
    pub bytes_received: u64,
    /// What was measured, from the end of the warm-up to the last reply, or to
    /// the end of a closed loop that has its time, in seconds.
    pub seconds: f64,
    /// Deliveries answered in a second.
    pub events_per_second: f64,
    /// Latencies of answered requests.
    pub latency_ms: Latencies,
    /// How well the rate was held; absent in a closed loop.
    pub pace: Option<Pacing>,
    /// CPU time of this program as a share of one core, by the operating
    /// system; absent where it does not say.
    pub tool_cpu_cores: Option<f64>,
    /// The run in parts.
    pub timeline: Vec<Interval>,
    /// The latencies as a histogram; its bars grow by a constant factor.
    pub histogram: Vec<Bucket>,
    /// Thresholds.
    pub thresholds: Vec<Threshold>,
    /// Ends of the service by our hand.
    pub kills: Vec<Kill>,
    /// The audit.
    pub check: Check,
    /// How long the audit took, in seconds.
    pub check_seconds: f64,
    /// Where the ledger is, if one was kept.
    pub ledger: Option<String>,
    /// Deliveries that were planned and not sent.
    pub unsent: u64,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
    /// Why the run ended early, or the first request without an answer.
    pub failure: Option<String>,
    /// Whether everything was delivered, every check held and no threshold was
    /// crossed.
    pub ok: bool,
}

impl LoadReport {
    /// Whether everything was delivered and every check held, whatever the
    /// thresholds say.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let whole = self.failure.is_none() && self.unsent == 0 && !self.interrupted;
        self.check.ok && whole && self.tally.errors == 0
    }

    /// Whether a threshold was crossed.
    #[must_use]
    pub fn crosses_threshold(&self) -> bool {
        self.thresholds.iter().any(|threshold| threshold.crossed)
    }
}

impl Report for LoadReport {
    fn ok(&self) -> bool {
        self.ok
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.sums());
        if self.latency_ms.raw.count > 0 {
            text += &format!("{}\n", self.latencies());
        }
        let mut check = table(&["change in /stats", "expected", "observed", ""]);
        for row in &self.check.rows {
            let verdict = if row.ok { "ok" } else { "MISMATCH" };
            check.add_row([&row.counter, &row.expected(), &row.observed.to_string(), verdict]);
        }
        align(&mut check);
        text += &format!("{check}\n");
        for line in self.remarks() {
            text += &line;
            text.push('\n');
        }
        text
    }
}

impl LoadReport {
    fn sums(&self) -> comfy_table::Table {
        let mut sums = table(&["", "load"]);
        let rows = [
            ("sent", self.tally.sent.to_string()),
            ("accepted", self.tally.accepted.to_string()),
            ("duplicates", self.tally.duplicates.to_string()),
            ("conflicts", self.tally.conflicts.to_string()),
            ("rejected", self.tally.rejected.to_string()),
            ("errors", self.tally.errors.to_string()),
            ("retries", self.tally.retries.to_string()),
            ("requests", self.requests.to_string()),
            ("MB sent", format!("{:.1}", self.bytes_sent as f64 / 1e6)),
            ("MB received", format!("{:.1}", self.bytes_received as f64 / 1e6)),
            ("seconds", format!("{:.2}", self.seconds)),
            ("events/s", format!("{:.0}", self.events_per_second)),
        ];
        for (name, value) in rows {
            sums.add_row([name, &value]);
        }
        if let Some(cores) = self.tool_cpu_cores {
            sums.add_row(["cores used by this tool", &format!("{cores:.2}")]);
        }
        align(&mut sums);
        sums
    }

    fn latencies(&self) -> comfy_table::Table {
        let header = ["latency, ms", "p50", "p90", "p99", "p99.9", "max", "mean"];
        let mut latencies = table(&header);
        let Latencies { raw, corrected } = self.latency_ms;
        for (name, latency) in
            std::iter::once(("raw", raw)).chain(corrected.map(|l| ("corrected", l)))
        {
            let Latency { p50, p90, p99, p99_9, max, mean, .. } = latency;
            let figures = [p50, p90, p99, p99_9, max, mean].map(|ms| format!("{ms:.2}"));
            latencies.add_row(std::iter::once(name.to_owned()).chain(figures));
        }
        align(&mut latencies);
        latencies
    }

    /// What is to be said beside the figures, a line each; the verdict last.
    fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, kinds) in
            [("errors", &self.errors_by_kind), ("attempts that failed", &self.losses_by_kind)]
        {
            if !kinds.is_empty() {
                let kinds: Vec<_> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
                lines.push(format!("{what}: {}", kinds.join(", ")));
            }
        }
        lines.extend(self.pace.map(Pacing::text));
        lines.extend(self.check.violations.iter().map(|text| format!("MISMATCH: {text}")));
        let unlisted = self.check.violations_total - self.check.violations.len() as u64;
        if unlisted > 0 {
            lines.push(format!("MISMATCH: … and {unlisted} more"));
        }
        if let Some(failure) = &self.failure {
            lines.push(format!("FAILED: {failure}"));
        }
        if self.interrupted && self.unsent == 0 {
            lines.push("interrupted before its time was up".to_owned());
        }
        if self.unsent > 0 {
            let why = if self.interrupted { "interrupted" } else { "stopped" };
            let planned = self.planned.unwrap_or_default();
            lines.push(format!("{why}: {} of {planned} events not sent", self.unsent));
        }
        for threshold in self.thresholds.iter().filter(|threshold| threshold.crossed) {
            let seen = threshold.observed.map_or("nothing".to_owned(), |seen| format!("{seen:.2}"));
            lines.push(format!("THRESHOLD: --fail-if '{}': measured {seen}", threshold.fail_if));
        }
        if self.check.unsettled > 0 {
            lines.push(format!(
                "{} deliveries have neither a reply nor a failure",
                self.check.unsettled
            ));
        }
        if let Some(events) = self.check.events_read {
            lines.push(format!("{events} events read back in {:.1} s", self.check_seconds));
        }
        if let Some(ledger) = &self.ledger {
            lines.push(format!("ledger: {ledger}"));
        }
        let verdict = if self.is_sound() { "every check holds" } else { "NOT as expected" };
        lines.push(format!("{verdict} (seed {}, {})", self.seed, self.url));
        lines
    }
}

impl Pacing {
    fn text(self) -> String {
        let Self { rate, sent_rate, late_requests, late_by_tool, late_max_ms, .. } = self;
        let held = if self.held { "held" } else { "NOT HELD" };
        let mut text = format!(
            "rate of {rate} events/s {held}: {sent_rate:.1} sent; latest {late_max_ms:.1} ms \
             after its time"
        );
        for (count, what) in [
            (late_requests, "sent over 10 ms late, all connections being busy"),
            (late_by_tool, "sent over 10 ms late by this tool"),
            (self.dropped_requests, "dropped, their turn not having come by the end"),
        ] {
            if count > 0 {
                text += &format!("; {count} requests {what}");
            }
        }
        text
    }
}
