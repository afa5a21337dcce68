//! `publisher backup`: the SQLite files of a service, copied while it runs.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`copy`] | one database → a copy of one moment |
//! | [`check`] | whether a copy is sound, and its counters are those of its events |
//!
//! All is copied into a directory beside the one that is wanted, which gets its name once
//! everything in it is on disk and was checked.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;

use crate::progress;
use crate::report::backup::BackupReport;
use crate::signal::Stop;
use crate::unnamed::{directory, sync_directory};

pub(crate) mod check;
mod copy;

use check::Depth;

/// The name of the database of events, in a state directory and in a backup.
const DATABASE: &str = "sqlite_db.db";
/// The same of the key-value store.
const KEY_VALUE: &str = "sqlite_key_value.db";
/// What a backup says of itself.
const ABOUT: &str = "backup.json";

/// What to back up, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The directory to be made.
    pub to: PathBuf,
    /// The database of events.
    pub database: PathBuf,
    /// The key-value store, which need not be there.
    pub key_value: PathBuf,
    pub depth: Depth,
}

impl Options {
    /// Of the files of a state directory, unless some are elsewhere.
    #[must_use]
    pub(crate) fn new(
        to: PathBuf,
        state: &Path,
        database: Option<PathBuf>,
        key_value: Option<PathBuf>,
        depth: Depth,
    ) -> Self {
        Self {
            to,
            database: database.unwrap_or_else(|| state.join(DATABASE)),
            key_value: key_value.unwrap_or_else(|| state.join(KEY_VALUE)),
            depth,
        }
    }
}

/// Makes a backup. If it is interrupted, nothing is left of it.
///
/// # Errors
///
/// If a file cannot be read or written, or the copy is not sound: then there is none.
pub(crate) fn run(options: &Options, stop: &Stop) -> anyhow::Result<BackupReport> {
    let began = Instant::now();
    let Options { to, database, key_value, depth } = options;
    let shown = to.display();
    ensure!(to.symlink_metadata().is_err(), "{shown} is there already");
    ensure!(database.is_file(), "there is no database at {}", database.display());
    let mut report = BackupReport::new(shown.to_string(), database.display().to_string());
    let made = made(to).with_context(|| format!("cannot write {shown}"))?;
    let copied = {
        let bar = progress::place(&format!("backing up {} to {shown}", database.display()), 0);
        let copied = copy::copy(database, &made.path().join(DATABASE), &bar, stop);
        bar.finish_and_clear();
        copied.with_context(|| format!("cannot copy {}", database.display()))?
    };
    report.copy_seconds = began.elapsed().as_secs_f64();
    let Some(bytes) = copied else {
        report.interrupted = true;
        return Ok(report);
    };
    report.bytes = bytes;
    if key_value.is_file() {
        let bar = ProgressBar::hidden();
        let copied = copy::copy(key_value, &made.path().join(KEY_VALUE), &bar, stop);
        report.key_value_bytes =
            copied.with_context(|| format!("cannot copy {}", key_value.display()))?;
    } else {
        report.notes.push(format!("there is no key-value store at {}", key_value.display()));
    }
    let check = |name: &str| {
        let path = made.path().join(name);
        check::check(&path, *depth).with_context(|| format!("the copy of {name} is no use"))
    };
    report.found(&check(DATABASE)?);
    if report.key_value_bytes.is_some() {
        check(KEY_VALUE)?;
    }
    if stop.is_set() {
        report.interrupted = true;
        return Ok(report);
    }
    report.seconds = began.elapsed().as_secs_f64();
    let about = format!("{:#}\n", serde_json::to_value(&report)?);
    let name = || {
        let mut file = File::create_new(made.path().join(ABOUT))?;
        file.write_all(about.as_bytes())?;
        file.sync_all()?;
        sync_directory(made.path())?;
        std::fs::rename(made.path(), to)?;
        sync_directory(directory(to))
    };
    name().with_context(|| format!("cannot write {shown}"))?;
    // What has another name now is not to be removed.
    drop(made.keep());
    Ok(report)
}

/// A directory that is to be renamed to `to`, and goes if it is not.
fn made(to: &Path) -> anyhow::Result<tempfile::TempDir> {
    let name = to.file_name().context("that is not the name of a directory")?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    let mut builder = tempfile::Builder::new();
    Ok(builder.prefix(&prefix).suffix(".part").tempdir_in(directory(to))?)
}
