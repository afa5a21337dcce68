//! The end of a run: Markdown for people, JSON for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cases::{Case, Engine, Service, Setting};
use crate::figures::{Figures, Spread};
use crate::growth::{self, Growth};
use crate::machine::Machine;
use crate::rounds::{CASES, Round, SLOW_FSYNC};
use crate::slow_fsync::milliseconds;
use crate::subject::Audit;
use crate::targets::{Bound, MEGABYTE, TARGETS};
use crate::{Measured, Run};

/// All that a run came to.
#[derive(Serialize)]
struct Report<'a> {
    started_at: &'a str,
    machine: &'a Machine,
    seed: u64,
    measured_seconds: f64,
    measured_seconds_on_postgres: f64,
    url: Option<&'a str>,
    host_flags: &'a [String],
    /// How much longer each sync of the servers took, if that was asked for.
    slow_fsync_ms: Option<f64>,
    #[serde(flatten)]
    measured: &'a Measured,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetReport>,
    matches: bool,
}

/// One of the figures of a measurement.
type Figure = fn(&Figures) -> f64;

#[derive(Serialize)]
struct TargetReport {
    case: Case,
    figure: &'static str,
    bound: Bound,
    found: Option<Spread>,
    met: Option<bool>,
}

/// The report as JSON.
///
/// # Errors
///
/// None: all of it can be written as JSON.
pub fn json(run: &Run, measured: &Measured) -> serde_json::Result<String> {
    let seconds = |engine| run.arguments.span(engine).measured.as_secs_f64();
    let report = Report {
        started_at: &run.started_at,
        machine: &run.machine,
        seed: run.seed,
        measured_seconds: seconds(Engine::Sqlite),
        measured_seconds_on_postgres: seconds(Engine::Postgres),
        url: run.arguments.url.as_deref(),
        host_flags: &run.arguments.host_flag,
        slow_fsync_ms: run.arguments.slow_fsync.map(milliseconds),
        measured,
        targets: match measured {
            Measured::CommitPath { rounds, .. } => target_reports(rounds),
            Measured::Growth(_) => Vec::new(),
        },
        matches: measured.matches(),
    };
    serde_json::to_string_pretty(&report)
}

fn target_reports(rounds: &[Round]) -> Vec<TargetReport> {
    let of = |target: &crate::targets::Target| {
        let found = target.figure(rounds);
        TargetReport {
            case: target.case,
            figure: target.figure,
            bound: target.bound,
            found,
            met: found.map(|found| target.bound.is_met(found.median)),
        }
    };
    TARGETS.iter().map(of).collect()
}

/// The report as Markdown.
///
/// # Errors
///
/// None: writing to memory does not fail.
pub fn markdown(run: &Run, measured: &Measured) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    header(&mut out, run)?;
    match measured {
        Measured::CommitPath { postgres, rounds } => {
            if let Some(version) = postgres {
                let seconds = run.arguments.span(Engine::Postgres).measured.as_secs_f64();
                writeln!(
                    out,
                    "- PostgreSQL {version} on the same machine, durable commits; seconds a \
                     measurement: {seconds}"
                )?;
            }
            commit_path(&mut out, rounds)?;
        }
        Measured::Growth(growth) => growth_report(&mut out, growth)?,
    }
    Ok(out)
}

fn header(out: &mut String, run: &Run) -> std::fmt::Result {
    let Machine { cpu, cores, kernel } = &run.machine;
    let seconds = run.arguments.span(Engine::Sqlite).measured.as_secs_f64();
    let rounds = run.arguments.rounds();
    writeln!(out, "# Sekali, {}\n", run.started_at)?;
    writeln!(out, "- {cpu}, {cores} cores, {kernel}")?;
    writeln!(out, "- rounds: {rounds}, seconds a measurement: {seconds}, seed: {}", run.seed)?;
    match (&run.arguments.url, run.arguments.host_flag.as_slice()) {
        (Some(url), _) => writeln!(out, "- the server at {url}")?,
        (None, []) => writeln!(out, "- the embedded host, without flags")?,
        (None, flags) => writeln!(out, "- the embedded host, with {}", flags.join(" "))?,
    }
    if let Some(by) = run.arguments.slow_fsync.map(milliseconds) {
        writeln!(
            out,
            "- **slow disk**: every fsync and fdatasync of the servers took {by} ms longer \
             than the disk does"
        )?;
    }
    Ok(())
}

fn commit_path(out: &mut String, rounds: &[Round]) -> std::fmt::Result {
    let before = Spread::of(rounds.iter().map(|round| round.syncs_before));
    let after = Spread::of(rounds.iter().map(|round| round.syncs_after));
    writeln!(
        out,
        "- fdatasync of 4 KiB appends: {}/s before a round, {}/s after it\n",
        spread(before, 0),
        spread(after, 0)
    )?;

    writeln!(
        out,
        "| case | events/s | p50 ms | p99 ms | ÷ axum | ÷ native statement | CPU µs an event | \
         target | peak RSS MB |"
    )?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")?;
    for case in CASES {
        let of_case: Vec<&Figures> =
            rounds.iter().filter_map(|round| round.figures(case)).collect();
        if of_case.is_empty() {
            continue;
        }
        let ratio = |reference: Option<Case>| {
            let reference = reference?;
            Spread::of(rounds.iter().filter_map(|round| round.rate_ratio(case, reference)))
        };
        let peak = of_case.iter().filter_map(|figures| figures.peak_rss_bytes).max();
        writeln!(
            out,
            "| {case} | {} | {} | {} | {} | {} | {} | {} | {} |",
            median(&of_case, |figures| figures.events_per_second, 0),
            median(&of_case, |figures| figures.p50_ms, 2),
            median(&of_case, |figures| figures.p99_ms, 2),
            spread(ratio(case.axum()), 2),
            spread(ratio(case.native_statement()), 2),
            cpu_of(&of_case),
            verdicts(case, rounds),
            peak.map_or_else(none, |bytes| format!("{:.0}", bytes as f64 / MEGABYTE)),
        )?;
    }

    let mut of_targets = target_reports(rounds);
    of_targets.retain(|target| target.found.is_some());
    if !of_targets.is_empty() {
        writeln!(out, "\n| target of | figure | wanted | median (min–max) | |")?;
        writeln!(out, "| --- | --- | --- | ---: | --- |")?;
    }
    for TargetReport { case, figure, bound, found, met } in of_targets {
        writeln!(out, "| {case} | {figure} | {bound} | {} | {} |", spread(found, 2), mark(met))?;
    }
    writeln!(
        out,
        "\n`single/C`, `batch-N/C`: events over C connections. `ndjson-…`, `gzip-ndjson-…`: the same in \
         lines, compressed or not; `otlp-…`: log records of OTLP in protocol buffers, which the \
         service gives ids; all three held against axum that takes an array. `axum-…`: the same to a plain native \
         service, axum and rusqlite with group commit. `native-statement/N`: the component's own \
         statement run natively by one writer, N events a commit, without HTTP; it does more than \
         a plain insert. `empty/C`: requests that nothing is done for, over C connections. \
         `open/half`: arrivals at half of the rate of `single/32`, latency from when they were due."
    )?;
    let measured = |is_meant: fn(Case) -> bool| {
        let mut meant = CASES.into_iter().filter(|case| is_meant(*case));
        meant.any(|case| rounds.iter().any(|round| round.figures(case).is_some()))
    };
    if measured(|case| case.engine() == Engine::Postgres) {
        writeln!(
            out,
            "`postgres-…`: Sekali on PostgreSQL. `axum-postgres-…`: the same to a plain native \
             service, axum and tokio-postgres with one statement for all requests that wait. Their \
             CPU is that of the service + that of PostgreSQL."
        )?;
    }
    if measured(|case| case.setting() == Setting::OrderedIds) {
        writeln!(out, "`ordered-…`: event ids come nearly in order; in all others in none.")?;
    }
    if measured(|case| case.setting() == Setting::SlowDisk) {
        let by = milliseconds(SLOW_FSYNC);
        writeln!(
            out,
            "`slow-…`: every fsync and fdatasync of the server that has the store takes {by} ms \
             longer."
        )?;
    }
    writeln!(out)?;
    for (service, engine, name) in [
        (Service::Sekali, Engine::Sqlite, ""),
        (Service::Axum, Engine::Sqlite, " (axum)"),
        (Service::Sekali, Engine::Postgres, " (PostgreSQL)"),
        (Service::Axum, Engine::Postgres, " (axum on PostgreSQL)"),
    ] {
        let audits = rounds.iter().flat_map(|round| &round.audits);
        let is_meant = |audit: &&Audit| (audit.service, audit.engine) == (service, engine);
        let mut meant = audits.filter(is_meant).peekable();
        if meant.peek().is_some() {
            audit_line(out, name, meant)?;
        }
    }
    Ok(())
}

/// CPU time of the server, and of the PostgreSQL server beside it.
fn cpu_of(of_case: &[&Figures]) -> String {
    let median = |figure: fn(&Figures) -> Option<f64>| {
        let figures = of_case.iter().filter_map(|figures| figure(figures));
        Spread::of(figures).map(|cpu| significant(cpu.median))
    };
    match (
        median(|figures| figures.cpu_us_per_event),
        median(|figures| figures.postgres_cpu_us_per_event),
    ) {
        (None, _) => none(),
        (Some(cpu), None) => cpu,
        (Some(cpu), Some(of_postgres)) => format!("{cpu} + {of_postgres}"),
    }
}

/// A figure with at least two digits, and none after the point where they suffice.
fn significant(figure: f64) -> String {
    let digits = usize::from(figure < 10.0);
    format!("{figure:.digits$}")
}

/// The targets of a case, in short.
fn verdicts(case: Case, rounds: &[Round]) -> String {
    let of_case: Vec<String> = TARGETS
        .iter()
        .filter(|target| target.case == case && !target.bound.is_aim())
        .filter_map(|target| {
            let met = target.bound.is_met(target.figure(rounds)?.median);
            Some(format!("{} {} {}", target.figure, target.bound, mark(Some(met))))
        })
        .collect();
    of_case.join("; ")
}

fn growth_report(out: &mut String, growth: &Growth) -> std::fmt::Result {
    let store = &growth.store;
    let per_event = |bytes: u64| bytes as f64 / store.events as f64;
    let per_event_in_all = per_event(store.bytes);
    writeln!(out, "- filled with {} events, {per_event_in_all:.0} bytes each\n", store.events)?;
    if !store.parts.is_empty() {
        writeln!(out, "| part | MB | bytes an event |\n| --- | ---: | ---: |")?;
        for part in &store.parts {
            let megabytes = part.bytes as f64 / MEGABYTE;
            writeln!(out, "| {} | {megabytes:.1} | {:.1} |", part.name, per_event(part.bytes))?;
        }
        writeln!(out)?;
    }

    writeln!(out, "| case | events/s empty | filled | ÷ | p50 ms empty | filled | ÷ |")?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for case in growth::CASES {
        let pairs: Vec<(&Figures, &Figures)> = growth
            .rounds
            .iter()
            .filter_map(|round| {
                let of = |figures: &'_ [Figures]| figures.iter().position(|f| f.case == case);
                Some((&round.empty[of(&round.empty)?], &round.filled[of(&round.filled)?]))
            })
            .collect();
        if pairs.is_empty() {
            continue;
        }
        let (empty, filled): (Vec<&Figures>, Vec<&Figures>) = pairs.iter().copied().unzip();
        let ratio = |figure: Figure| {
            let ratios = pairs.iter().map(|(empty, filled)| figure(filled) / figure(empty));
            spread(Spread::of(ratios), 2)
        };
        let rate: Figure = |figures| figures.events_per_second;
        let p50: Figure = |figures| figures.p50_ms;
        writeln!(
            out,
            "| {case} | {} | {} | {} | {} | {} | {} |",
            median(&empty, rate, 0),
            median(&filled, rate, 0),
            ratio(rate),
            median(&empty, p50, 2),
            median(&filled, p50, 2),
            ratio(p50),
        )?;
    }
    writeln!(
        out,
        "\nOf reads the rate is that of requests, over one connection; pages are of 100 events. \
         The empty store begins with {} events, so that there are pages.\n",
        growth::FIRST_EVENTS
    )?;
    audit_line(out, " (empty)", growth.rounds.iter().map(|round| &round.empty_audit))?;
    audit_line(out, " (filled)", growth.rounds.iter().map(|round| &round.filled_audit))
}

fn audit_line<'a>(
    out: &mut String,
    of: &str,
    audits: impl Iterator<Item = &'a Audit>,
) -> std::fmt::Result {
    let (mut deliveries, mut distinct, mut rows) = (0, 0, Some(0));
    let mut resent = BTreeMap::new();
    let mut mismatches: Vec<&str> = Vec::new();
    for audit in audits {
        deliveries += audit.deliveries;
        distinct += audit.distinct;
        rows = rows.zip(audit.rows).map(|(sum, rows)| sum + rows);
        for (kind, count) in &audit.resent {
            *resent.entry(kind.as_str()).or_insert(0) += count;
        }
        mismatches.extend(audit.mismatches.iter().map(String::as_str));
    }
    let rows = rows.map_or_else(|| "rows not counted".to_owned(), |rows| format!("{rows} rows"));
    let in_all: u64 = resent.values().sum();
    write!(
        out,
        "Audit{of}: {deliveries} deliveries of {distinct} events, {rows}; \
         {in_all} requests sent again"
    )?;
    if in_all > 0 {
        let kinds: Vec<_> = resent.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
        let kinds = kinds.join(", ");
        write!(out, " ({kinds}; what counts deliveries is checked within bounds)")?;
    }
    match mismatches.as_slice() {
        [] => writeln!(out, ". Replies, counters and rows match ✓"),
        mismatches => writeln!(out, ". MISMATCH ✗ {}", mismatches.join("; ")),
    }
}

fn median(figures: &[&Figures], of: Figure, digits: usize) -> String {
    let figures = figures.iter().map(|figures| of(figures));
    Spread::of(figures).map_or_else(none, |spread| format!("{:.digits$}", spread.median))
}

/// The median, and how far the rounds lie apart if there were several.
fn spread(spread: Option<Spread>, digits: usize) -> String {
    match spread {
        None => none(),
        Some(Spread { median, min, max }) if min.total_cmp(&max).is_eq() => {
            format!("{median:.digits$}")
        }
        Some(Spread { median, min, max }) => {
            format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
        }
    }
}

fn mark(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "✓",
        Some(false) => "✗",
        None => "",
    }
}

fn none() -> String {
    "-".to_owned()
}
