//! The end of a run: a table for people, JSON for machines.

use std::io::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::{Check, Tally};
use crate::ship::{FileReport, ShipReport};

/// Latencies of answered requests, retries included, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Reads a histogram of microseconds.
    #[must_use]
    pub fn of(micros: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let at = |quantile| ms(micros.value_at_quantile(quantile));
        // A quantile is the top of its bucket, the maximum is not rounded up.
        let max = ms(micros.max());
        Self { p50: at(0.5).min(max), p95: at(0.95).min(max), p99: at(0.99).min(max), max }
    }
}

/// What came of `publisher load`.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// Where the service is.
    pub url: String,
    /// What the deliveries were derived from.
    pub seed: u64,
    /// What names the run in its topics and ids.
    pub run: String,
    /// Deliveries planned.
    pub planned: u64,
    /// Distinct events planned.
    pub distinct: u64,
    /// Repeated deliveries planned.
    pub repeated: u64,
    /// What the replies said.
    #[serde(flatten)]
    pub tally: Tally,
    /// Requests, each with all its attempts.
    pub requests: u64,
    /// From the first request to the last reply.
    pub seconds: f64,
    /// Deliveries answered in a second.
    pub events_per_second: f64,
    /// Latencies of answered requests.
    pub latency_ms: Latency,
    /// The audit.
    pub check: Check,
    /// Deliveries that were planned and not sent.
    pub unsent: u64,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
    /// Why the run ended early.
    pub failure: Option<String>,
}

impl LoadReport {
    /// Whether everything was delivered and every check held.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.check.ok && self.failure.is_none() && self.unsent == 0 && self.tally.errors == 0
    }
}

/// Writes to standard output; machines get one JSON object and nothing else.
///
/// # Errors
///
/// If standard output cannot be written to.
pub fn print(report: &impl Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let mut value = serde_json::to_value(report)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("ok".into(), report.ok().into());
        }
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", report.text())?;
    }
    out.flush()?;
    Ok(())
}

/// The end of a run.
pub trait Report: Serialize {
    /// Whether the run did what it was asked to.
    fn ok(&self) -> bool;
    /// The report for people, lines ended.
    fn text(&self) -> String;
}

impl Report for LoadReport {
    fn ok(&self) -> bool {
        Self::ok(self)
    }

    fn text(&self) -> String {
        let Tally { sent, accepted, duplicates, conflicts, rejected, errors, retries, .. } =
            self.tally;
        let mut sums = table(&["", "load"]);
        for (name, value) in [
            ("sent", sent.to_string()),
            ("accepted", accepted.to_string()),
            ("duplicates", duplicates.to_string()),
            ("conflicts", conflicts.to_string()),
            ("rejected", rejected.to_string()),
            ("errors", errors.to_string()),
            ("retries", retries.to_string()),
            ("requests", self.requests.to_string()),
            ("seconds", format!("{:.2}", self.seconds)),
            ("events/s", format!("{:.0}", self.events_per_second)),
            ("p50 ms", format!("{:.2}", self.latency_ms.p50)),
            ("p95 ms", format!("{:.2}", self.latency_ms.p95)),
            ("p99 ms", format!("{:.2}", self.latency_ms.p99)),
            ("max ms", format!("{:.2}", self.latency_ms.max)),
        ] {
            sums.add_row([name, &value]);
        }
        align(&mut sums);
        let mut check = table(&["change in /stats", "expected", "observed", ""]);
        for row in &self.check.rows {
            let verdict = if row.ok { "ok" } else { "MISMATCH" };
            check.add_row([&row.counter, &row.expected(), &row.observed.to_string(), verdict]);
        }
        align(&mut check);
        let mut text = format!("{sums}\n{check}\n");
        for violation in &self.check.violations {
            text += &format!("MISMATCH: {violation}\n");
        }
        if let Some(failure) = &self.failure {
            text += &format!("FAILED: {failure}\n");
        }
        if self.unsent > 0 {
            let why = if self.interrupted { "interrupted" } else { "stopped" };
            text += &format!("{why}: {} of {} events not sent\n", self.unsent, self.planned);
        }
        let verdict = if self.ok() { "every check holds" } else { "NOT as expected" };
        text + &format!("{verdict} (seed {}, {})\n", self.seed, self.url)
    }
}

impl Report for ShipReport {
    fn ok(&self) -> bool {
        Self::ok(self)
    }

    fn text(&self) -> String {
        let mut sums = table(&[
            "file",
            "lines",
            "accepted",
            "duplicates",
            "conflicts",
            "rejected",
            "unsent",
            "bad UTF-8",
            "bytes",
            "seconds",
            "lines/s",
        ]);
        for file in &self.files {
            sums.add_row(row(file));
        }
        if self.files.len() > 1 {
            sums.add_row(row(&self.total));
        }
        align(&mut sums);
        let mut text = format!("{sums}\n");
        for file in &self.files {
            let name = &file.file;
            for note in &file.notes {
                text += &format!("{name}: {note}\n");
            }
            for problem in &file.problems {
                text += &format!("PROBLEM: {name}: {problem}\n");
            }
            if let Some(failure) = &file.failure {
                text += &format!("FAILED: {name}: {failure}\n");
            }
        }
        text
    }
}

fn row(file: &FileReport) -> Vec<String> {
    let tally = &file.tally;
    let mut row = vec![file.file.clone()];
    row.extend(
        [
            tally.lines,
            tally.accepted,
            tally.duplicates,
            tally.conflicts,
            tally.rejected,
            tally.unacknowledged,
            tally.invalid_utf8,
            tally.bytes,
        ]
        .map(|count| count.to_string()),
    );
    row.push(format!("{:.2}", file.seconds));
    row.push(format!("{:.0}", file.lines_per_second));
    row
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    table
}

/// Numbers to the right, names to the left.
fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
