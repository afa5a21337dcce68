//! A server as a process of its own: started on a free port, looked at from
//! outside, killed when it is dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use publisher::usage::CpuTime;
use tempfile::TempDir;

use crate::database::Database;
use crate::figures::Span;
use crate::postgres::FreshDatabase;

/// What the line on stdout begins with that tells where a server serves.
pub const SERVING: &str = "Serving ";

/// A running server.
pub struct Process {
    child: Child,
    /// Where it serves.
    pub url: String,
    /// Its store.
    pub database: Database,
    /// Removed when the process has ended.
    _state: Option<TempDir>,
}

impl Process {
    /// Starts a server that keeps its events in `database` and whatever else in
    /// `state`, and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it ends before it serves; it says why on stderr itself.
    pub fn start(mut command: Command, database: Database, state: Option<TempDir>) -> Result<Self> {
        let program = command.get_program().to_owned();
        let context = || format!("cannot start {}", program.display());
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(context)?;
        let stdout = child.stdout.take().with_context(context)?;
        let mut process = Process { child, url: String::new(), database, _state: state };
        let (found, address) = mpsc::channel();
        std::thread::spawn(move || {
            // To its end: a pipe that nobody reads would stop the server one day.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix(SERVING) {
                    // The receiver waits, or has its address already.
                    found.send(url.trim().to_owned()).ok();
                }
            }
        });
        // No limit: the first start of a host takes as long as the component's
        // build, and a server that ends closes the channel.
        match address.recv() {
            Ok(url) => process.url = url,
            Err(_) => bail!("{} ended before it served", program.display()),
        }
        Ok(process)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Begins to look for the most memory anew, where the system lets us.
    pub fn reset_peak_rss(&self) {
        // See proc(5). Where it is not to be had, the peak is that since the start.
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").ok();
    }

    /// Most memory that was resident, where the system tells.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Cores that are busy on average, while it is measured from now on.
#[derive(Clone, Copy, Debug)]
pub struct BusyCores {
    /// For a process; `None` where the system does not tell.
    pub process: Option<f64>,
    /// For the PostgreSQL server that it has its store on, if there is one.
    pub postgres: Option<f64>,
}

impl BusyCores {
    /// Of a process and its store. Takes as long as the span.
    pub fn of(id: u32, database: &Database, span: Span) -> Self {
        let both = || {
            let postgres = database.on_postgres().and_then(FreshDatabase::cpu_time);
            (CpuTime::of_process(id), postgres)
        };
        std::thread::sleep(span.warm_up);
        let before = both();
        std::thread::sleep(span.measured);
        let after = both();
        let cores = |before: Option<CpuTime>, after: Option<CpuTime>| before?.cores_until(after?);
        BusyCores { process: cores(before.0, after.0), postgres: cores(before.1, after.1) }
    }
}

/// A command at the root of the checkout, without what would change what is built or measured.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        // A developer's settings of Spin; and what cargo tells this program of
        // itself, which some build scripts take for a reason to run again.
        if ["SPIN_", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| shown.starts_with(of)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench)
}
