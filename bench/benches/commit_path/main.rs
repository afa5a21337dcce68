//! Measures the commit path: `cargo bench`, `cargo bench -- --help`.
//!
//! | module | holds |
//! | --- | --- |
//! | `cli` | arguments |
//! | `cases` | what is measured, and by which names |
//! | `workload` | what is delivered |
//! | `axum_service` | the reference: a plain native service, axum on SQLite or PostgreSQL |
//! | `native` | the component's statement on SQLite, without HTTP |
//! | `disk` | how fast the disk makes small appends durable |
//! | `slow_fsync` | a disk that is slower |
//! | `otlp` | exports of OTLP, and the loop that sends them |
//! | `postgres` | PostgreSQL servers |
//! | `database` | what a store holds |
//! | `process` | a server as a process |
//! | `server` | the embedded host |
//! | `load` | the publisher's closed and open loops, on a thread of their own |
//! | `subject` | a server under measurement: sent against held |
//! | `rounds` | the commit path in several rounds |
//! | `growth` | an empty store against a filled one |
//! | `figures` | what one measurement comes to, and several together |
//! | `targets` | what the figures are to come to |
//! | `machine` | where it was measured |
//! | `report` | Markdown, JSON |
//!
//! Client, workload, loops, histograms and audit are those of the publisher;
//! so a figure here and one of `publisher load` mean the same. What they take
//! of the machine that they share with the server is in the figures: with
//! requests of one event some 9 µs of CPU each, where the empty component takes
//! 90 and one that commits 400. The audit does not read every event back, as
//! `publisher load --audit` does: it counts rows and identities in the database.

mod axum_service;
mod cases;
mod cli;
mod database;
mod disk;
mod figures;
mod growth;
mod load;
mod machine;
mod native;
mod otlp;
mod postgres;
mod process;
mod report;
mod rounds;
mod server;
mod slow_fsync;
mod subject;
mod targets;
mod workload;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::Arguments;
use crate::figures::Figures;
use crate::growth::Growth;
use crate::machine::Machine;
use crate::rounds::Round;
use crate::slow_fsync::SlowFsync;
use crate::subject::Audit;
use crate::targets::MEGABYTE;

/// One run of the benchmark.
pub struct Run {
    arguments: Arguments,
    /// Where databases are made: on the disk that the build is on, since a
    /// temporary directory may be in memory.
    directory: PathBuf,
    machine: Machine,
    started_at: String,
    seed: u64,
}

impl Run {
    /// The slow disk of all servers, if that is asked for.
    fn slow_fsync(&self) -> Result<Option<SlowFsync>> {
        let slow = self.arguments.slow_fsync.map(|by| SlowFsync::new(&self.directory, by));
        slow.transpose()
    }

    /// A directory for the state of a host, removed when it is dropped.
    fn state_directory(&self) -> Result<TempDir> {
        TempDir::with_prefix_in("state-", &self.directory)
            .context("cannot create a state directory")
    }
}

/// What was measured.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// The commit path.
    CommitPath {
        /// The version of PostgreSQL, if anything was measured on it.
        postgres: Option<String>,
        /// All rounds.
        rounds: Vec<Round>,
    },
    /// A filled store against an empty one.
    Growth(Growth),
}

impl Measured {
    /// Whether all that is held is what was sent.
    fn matches(&self) -> bool {
        let matches = |audit: &Audit| audit.mismatches.is_empty();
        match self {
            Measured::CommitPath { rounds, .. } => {
                rounds.iter().flat_map(|round| &round.audits).all(matches)
            }
            Measured::Growth(growth) => growth
                .rounds
                .iter()
                .all(|round| matches(&round.empty_audit) && matches(&round.filled_audit)),
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = axum_service::become_service(std::env::args_os()) {
        return code;
    }
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all that is held is what was sent.
fn run(arguments: Arguments) -> Result<bool> {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = build.parent().unwrap_or(build).join("bench");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let now = native::now();
    let run = Run {
        seed: arguments.seed(now),
        started_at: sekali::time::rfc3339(now),
        machine: Machine::this(),
        directory,
        arguments,
    };
    let measured = match run.arguments.prefill {
        Some(events) => Measured::Growth(growth::measure(&run, events)?),
        None => {
            let rounds::Measured { postgres, rounds } = rounds::measure(&run)?;
            Measured::CommitPath { postgres, rounds }
        }
    };
    if let Some(file) = &run.arguments.json {
        let json = report::json(&run, &measured).context("cannot write the figures as JSON")?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let markdown = report::markdown(&run, &measured).context("cannot write the report")?;
    std::io::stdout().write_all(markdown.as_bytes()).context("cannot print the report")?;
    Ok(measured.matches())
}

/// Says what was measured as soon as it was, to stderr.
fn progress(round: &str, figures: &Figures) {
    let Figures { case, events_per_second, p50_ms, p99_ms, max_ms, .. } = figures;
    let cpu = figures.cpu_us_per_event.map_or_else(String::new, |us| format!("  CPU {us:.0} µs"));
    let of_postgres = figures.postgres_cpu_us_per_event;
    let of_postgres = of_postgres.map_or_else(String::new, |us| format!(" + {us:.0} µs"));
    let peak = figures
        .peak_rss_bytes
        .map_or_else(String::new, |bytes| format!("  peak RSS {:.0} MB", bytes as f64 / MEGABYTE));
    eprintln!(
        "round {round}  {case:<29} {events_per_second:>9.0}/s  p50 {p50_ms:>7.2} ms  \
         p99 {p99_ms:>7.2} ms  max {max_ms:>7.2} ms{cpu}{of_postgres}{peak}"
    );
}
