//! The embedded host, built as `cargo up` builds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::database::{Counts, Database};
use crate::native;
use crate::postgres::FreshDatabase;
use crate::process::{Process, command, root};
use crate::slow_fsync::SlowFsync;

/// The host's program.
const HOST: &str = "sekali-host";

/// The store's file in a state directory.
pub const DATABASE: &str = "sqlite_db.db";

/// All that the benchmark knows of the component's schema on PostgreSQL.
const POSTGRES_COUNTS: Counts = Counts {
    rows: "SELECT count(*) FROM sekali.event_log",
    identities: "SELECT count(*) FROM \
                 (SELECT DISTINCT topic_id, event_id FROM sekali.event_log) AS identities",
};

/// The flag that has the host serve what was built before.
const NO_BUILD: &str = "--no-build";

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<MessageTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
}

/// How hosts are started.
pub struct Launcher {
    program: PathBuf,
    flags: Vec<String>,
    component_built: bool,
}

impl Launcher {
    /// Builds the host, to be started with `flags`.
    ///
    /// # Errors
    ///
    /// If it does not build.
    pub fn new(flags: &[String]) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let output = command(Path::new(&cargo))
            .args(["build", "--bin", HOST, "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        ensure!(output.status.success(), "the host does not build ({})", output.status);
        let program = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Message>(line).ok())
            .find(|message| {
                message.reason == "compiler-artifact"
                    && message.target.as_ref().is_some_and(|target| target.name == HOST)
                    && message.executable.is_some()
            })
            .and_then(|message| message.executable)
            .context("cargo does not say where it put the host")?;
        Ok(Launcher { program, flags: flags.to_vec(), component_built: false })
    }

    /// Starts a host with its events in `state`, on a slow disk if that is given.
    ///
    /// # Errors
    ///
    /// If it ends before it serves; it says why on stderr itself.
    pub fn start(&mut self, state: TempDir, disk: Option<&SlowFsync>) -> Result<Process> {
        let database = Database::sqlite(state.path().join(DATABASE), native::COUNTS);
        let command = self.command(&state);
        let process = SlowFsync::start(disk, command, |command| {
            Process::start(command, database, Some(state))
        })?;
        self.component_built = true;
        Ok(process)
    }

    /// Starts a host with its events in a database of PostgreSQL.
    ///
    /// # Errors
    ///
    /// If it ends before it serves; it says why on stderr itself.
    pub fn start_on_postgres(
        &mut self,
        state: TempDir,
        database: FreshDatabase,
    ) -> Result<Process> {
        let mut command = self.command(&state);
        command.env("SPIN_VARIABLE_DATABASE_URL", database.url());
        command.env("SPIN_VARIABLE_DATABASE_HOST", database.host());
        let database = Database::postgres(database, POSTGRES_COUNTS);
        let process = Process::start(command, database, Some(state))?;
        self.component_built = true;
        Ok(process)
    }

    /// The first builds the component; all others serve the same, whatever is edited
    /// meanwhile.
    fn command(&self, state: &TempDir) -> Command {
        let mut command = command(&self.program);
        command.arg("--from").arg(root().join("spin.toml"));
        command.args(["--listen", "127.0.0.1:0", "--state-dir"]).arg(state.path());
        if self.component_built && !self.flags.iter().any(|flag| flag == NO_BUILD) {
            command.arg(NO_BUILD);
        }
        // The manifest says where the component is; so that is where it is to
        // be built, even if everything else is built elsewhere.
        command.args(&self.flags).env_remove("CARGO_TARGET_DIR");
        command
    }
}
