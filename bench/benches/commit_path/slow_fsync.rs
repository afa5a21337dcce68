//! A slow disk: every fsync and fdatasync of a server takes longer by a given
//! time. `slow_fsync.c`, compiled when it is needed, is loaded into the process
//! before libc; so our host, the reference and PostgreSQL are slowed alike, and know
//! nothing of it.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::Process;

/// Whether there can be a slow disk here.
pub const SUPPORTED: bool = cfg!(target_os = "linux");

/// Where the library reads the time from, in microseconds.
const DELAY_VARIABLE: &str = "SEKALI_BENCH_SLOW_FSYNC_US";

/// The mode of a directory that all may read.
const FOR_ALL_TO_READ: u32 = 0o755;

/// A slow disk.
pub struct SlowFsync {
    directory: TempDir,
    by: Duration,
}

impl SlowFsync {
    /// Makes every sync take longer by this.
    ///
    /// # Errors
    ///
    /// If this is not Linux, or there is no C compiler.
    pub fn new(directory: &Path, by: Duration) -> Result<Self> {
        ensure!(SUPPORTED, "a slow disk can be had on Linux alone");
        let directory = TempDir::with_prefix_in("slow-fsync-", directory)
            .context("cannot create a directory for the slow disk")?;
        // PostgreSQL is run by another user where we are root.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(FOR_ALL_TO_READ))
            .context("cannot have the directory of the slow disk read by others")?;
        let slow = SlowFsync { directory, by };
        // The variables that the build of SQLite goes by as well.
        let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = source.join("benches/commit_path/slow_fsync.c");
        let status = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
            .arg(slow.library())
            .arg(format!("-DDELAY_VARIABLE=\"{DELAY_VARIABLE}\""))
            .arg(&source)
            .arg("-ldl")
            .status()
            .with_context(|| format!("a slow disk needs a C compiler: {}", compiler.display()))?;
        ensure!(status.success(), "{} does not compile ({status})", source.display());
        Ok(slow)
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("slow_fsync.so")
    }

    /// How much longer a sync takes, in milliseconds.
    pub fn ms(&self) -> f64 {
        milliseconds(self.by)
    }

    /// Starts a server, on a slow disk if there is one.
    ///
    /// # Errors
    ///
    /// If it does not start, or its disk would not be slow.
    pub fn start(
        slow: Option<&Self>,
        mut command: Command,
        start: impl FnOnce(Command) -> Result<Process>,
    ) -> Result<Process> {
        let Some(slow) = slow else { return start(command) };
        command.envs(slow.environment());
        let process = start(command)?;
        slow.ensure_loaded(process.id())?;
        Ok(process)
    }

    /// With what a program is started for its disk to be slow.
    pub fn environment(&self) -> Vec<(String, String)> {
        let library = self.library().to_string_lossy().into_owned();
        let by = self.by.as_micros().to_string();
        vec![("LD_PRELOAD".to_owned(), library), (DELAY_VARIABLE.to_owned(), by)]
    }

    /// Looks whether the disk of a process is slow.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn ensure_loaded(&self, process: u32) -> Result<()> {
        // The loader goes on without a library that it cannot use, and a static
        // program has no loader.
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))
            .context("cannot look whether the disk is slow")?;
        let library = self.library().canonicalize().context("the slow disk is gone")?;
        let loaded = maps.lines().any(|line| line.ends_with(&*library.to_string_lossy()));
        ensure!(loaded, "a server did not load {}, so its disk is not slow", library.display());
        Ok(())
    }
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Reads `2ms`, `500us`, `1s`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "us" => 0.000_001,
        "ms" => 0.001,
        "s" => 1.0,
        _ => return Err("must be a number with us, ms or s, as in 2ms".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "must be a number with us, ms or s".to_owned())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(by) if (DELAY_MIN..=DELAY_MAX).contains(&by) => Ok(by),
        _ => Err("must be from 1us to 1s".to_owned()),
    }
}

/// The least and the most that a sync can be made to take longer.
const DELAY_MIN: Duration = Duration::from_micros(1);
const DELAY_MAX: Duration = Duration::from_secs(1);
