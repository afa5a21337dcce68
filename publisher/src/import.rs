//! `publisher import`: the events of an export into a store.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`lines`] | the events of a file, line by line, and their sums |
//! | [`sending`] | events on their way: one request after the other, in the order of the file |
//! | [`verify`] | what is stored in the end, against the file |
//!
//! The file is read whole before anything is sent, since of an event that was stored
//! wrong the first content stays. Standard input can be read but once: what is wrong
//! with it is found when it was sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use indicatif::ProgressBar;
use tokio::task::block_in_place;

use crate::client::Client;
use crate::exported::manifest::Manifest;
use crate::exported::sums::{TopicSums, differences};
use crate::metrics::per_second;
use crate::progress;
use crate::report::import::ImportReport;
use crate::ship::batch::Limits;
use crate::ship::summary::Summary;
use crate::signal::Stop;

mod lines;
mod sending;
mod verify;

use lines::Lines;
use sending::Sending;
use verify::Before;

/// Differences to the manifest that are named; the rest are counted.
const DIFFERENCES_LISTED_MAX: usize = 20;

/// What to import and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub from: From,
    /// The manifest to hold it against, if there is one.
    pub manifest: Option<PathBuf>,
    pub limits: Limits,
    /// Whether to read back what was stored.
    pub verify: bool,
}

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    Stdin,
    File(PathBuf),
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Reads the file alone, and holds it against its manifest.
///
/// # Errors
///
/// If it cannot be read, is no export, or is not what its manifest says.
pub(crate) fn check(options: &Options, stop: &Stop) -> anyhow::Result<ImportReport> {
    let began = Instant::now();
    let manifest = options.manifest.as_deref().map(Manifest::read).transpose()?;
    let mut report = ImportReport::new(None, options.from.to_string());
    let sums = match &options.from {
        From::Stdin => {
            let lines = Lines::of_stdin()?;
            read_through(lines, &ProgressBar::hidden(), stop)?
        }
        From::File(path) => look_through(path, stop)?,
    };
    let Some(sums) = sums else {
        report.interrupted = true;
        return Ok(report);
    };
    ensure_same(manifest.as_ref(), &sums, &options.from)?;
    report.tally.events = sums.values().map(|sum| sum.events).sum();
    report.topics = sums.len() as u64;
    report.has_manifest = manifest.is_some();
    report.unreadable = manifest.map_or(0, |manifest| manifest.unreadable);
    report.seconds = began.elapsed().as_secs_f64();
    report.events_per_second = per_second(report.tally.events, began.elapsed());
    Ok(report)
}

/// Imports. What goes wrong once events were sent is in the report.
///
/// # Errors
///
/// If nothing was sent: the file is not what it should be, or the service does not
/// answer.
pub(crate) async fn run(
    client: Arc<Client>,
    options: Options,
    stop: Stop,
) -> anyhow::Result<ImportReport> {
    let began = Instant::now();
    let mut report = ImportReport::new(Some(client.url().to_owned()), options.from.to_string());
    let manifest = options.manifest.as_deref().map(Manifest::read).transpose()?;
    report.has_manifest = manifest.is_some();
    report.unreadable = manifest.as_ref().map_or(0, |manifest| manifest.unreadable);
    let (lines, bar) = match &options.from {
        From::Stdin => (Lines::of_stdin()?, ProgressBar::hidden()),
        From::File(path) => {
            let Some(sums) = block_in_place(|| look_through(path, &stop))? else {
                report.interrupted = true;
                return Ok(report);
            };
            ensure_same(manifest.as_ref(), &sums, &options.from)?;
            let task = format!("importing {} into {}", path.display(), client.url());
            (Lines::of_file(path)?, progress::bytes(&task, lines::length_bytes(path)?))
        }
    };
    let before = Before::look(&client).await?;

    let mut summary = Summary::default();
    let sending = Sending::new(Arc::clone(&client), options.limits, stop.clone());
    let sent = sending.run(lines, &bar, &mut summary).await;
    bar.finish_and_clear();
    let sent_in = began.elapsed();
    report.interrupted = summary.interrupted;
    match sent {
        Ok(sums) => {
            report.topics = sums.len() as u64;
            if !report.interrupted {
                let checked = ensure_same(manifest.as_ref(), &sums, &options.from)
                    .map_err(|error| format!("{error:#}, and it was sent"));
                report.failure = checked.err();
                if options.verify && report.failure.is_none() {
                    let verified = before.verify(&client, &sums, &stop, &mut summary).await;
                    match verified {
                        Ok(read_back) => report.read_back = Some(read_back),
                        Err(error) => report.failure = Some(format!("{error:#}")),
                    }
                    report.interrupted |= stop.is_set();
                }
            }
        }
        Err(error) => report.failure = Some(format!("{error:#}")),
    }
    summary.close();
    report.tally = summary.tally;
    report.notes = summary.notes;
    report.problems = summary.problems;
    report.seconds = began.elapsed().as_secs_f64();
    report.events_per_second = per_second(report.tally.accepted + report.tally.duplicates, sent_in);
    Ok(report)
}

/// The sums of a file; nothing if a signal came before its end.
fn look_through(path: &Path, stop: &Stop) -> anyhow::Result<Option<TopicSums>> {
    let task = format!("checking {}", path.display());
    let bar = progress::bytes(&task, lines::length_bytes(path)?);
    let sums = read_through(Lines::of_file(path)?, &bar, stop);
    bar.finish_and_clear();
    sums
}

fn read_through(
    mut lines: Lines,
    bar: &ProgressBar,
    stop: &Stop,
) -> anyhow::Result<Option<TopicSums>> {
    while lines.next(|_, _| ())?.is_some() {
        bar.set_position(lines.read_bytes());
        if stop.is_set() {
            return Ok(None);
        }
    }
    Ok(Some(lines.finish()))
}

/// Holds a file against its manifest.
fn ensure_same(manifest: Option<&Manifest>, sums: &TopicSums, from: &From) -> anyhow::Result<()> {
    let Some(manifest) = manifest else { return Ok(()) };
    let mut differ = differences(&manifest.topics, sums);
    if differ.is_empty() {
        return Ok(());
    }
    let more = differ.len().saturating_sub(DIFFERENCES_LISTED_MAX);
    differ.truncate(DIFFERENCES_LISTED_MAX);
    if more > 0 {
        differ.push(format!("… and {more} topics more"));
    }
    let found: u64 = sums.values().map(|sum| sum.events).sum();
    bail!(
        "{from} is not what its manifest says (cut off, or changed): {found} events, and {} in \
         the manifest\n{}",
        manifest.events,
        differ.join("\n")
    )
}
