//! One database → a copy of one moment.
//!
//! By SQLite's backup API, within one read transaction. In WAL mode that holds nobody up:
//! a commit needs the lock of writers and no other, and readers see what was committed
//! when they began. What it does hold up is the end of a checkpoint, so the log grows by
//! what is written meanwhile. Beside it, `VACUUM INTO` would take longer, as it makes
//! each index again, and the copy would not be in WAL mode.
//!
//! The source is opened for reading alone, and is not checkpointed when it is closed: with
//! a service running only the service may do that.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::signal::Stop;

/// Pages that are copied at a time, before it is looked whether to stop.
const STEP_PAGES: i32 = 1_000;
/// How long to wait for a database that is busy, in milliseconds: in WAL mode it hardly
/// ever is.
const BUSY_MS_MAX: u64 = 5_000;
/// The wait before a step is tried again, in milliseconds.
const BUSY_PAUSE_MS: u64 = 10;

/// Copies a database; its length in bytes once it is on disk, nothing if a signal came
/// before the end.
///
/// # Errors
///
/// If it cannot be read, is none, or cannot be written.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    bar: &ProgressBar,
    stop: &Stop,
) -> anyhow::Result<Option<u64>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    source.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    // The first read decides which moment it is of.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;

    let mut copy = Connection::open(to)?;
    // It is on disk, or it is not there: what is half done is thrown away.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let backup = Backup::new(&source, &mut copy)?;
    let mut waited = Duration::ZERO;
    loop {
        if stop.is_set() {
            return Ok(None);
        }
        match backup.step(STEP_PAGES)? {
            StepResult::Done => break,
            StepResult::More => {
                let progress = backup.progress();
                let (all, left) = (progress.pagecount, progress.remaining);
                bar.set_length(u64::try_from(all).unwrap_or_default());
                bar.set_position(u64::try_from(all - left).unwrap_or_default());
            }
            _ => {
                anyhow::ensure!(waited.as_millis() < BUSY_MS_MAX.into(), "the database is locked");
                let pause = Duration::from_millis(BUSY_PAUSE_MS);
                std::thread::sleep(pause);
                waited += pause;
            }
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)?;
    source.execute_batch("COMMIT")?;
    source.close().map_err(|(_, error)| error)?;
    let file = File::options().write(true).open(to).context("cannot open the copy")?;
    file.sync_all().context("cannot write the copy to disk")?;
    Ok(Some(file.metadata()?.len()))
}
