//! How fast the disk makes small appends durable: what bounds every commit.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Bytes appended before each sync: about a page of a write-ahead log.
const APPEND_BYTES: usize = 4096;

/// How long it is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Appends with `fdatasync` that a file in `directory` takes in a second.
///
/// # Errors
///
/// What the file system says.
pub fn syncs_per_second(directory: &Path) -> Result<f64> {
    let context = || format!("cannot measure the disk in {}", directory.display());
    let mut file = tempfile::tempfile_in(directory).with_context(context)?;
    let block = [b's'; APPEND_BYTES];
    let start = Instant::now();
    let mut syncs = 0_u32;
    while start.elapsed() < MEASURED {
        file.write_all(&block).and_then(|()| file.sync_data()).with_context(context)?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / start.elapsed().as_secs_f64())
}
