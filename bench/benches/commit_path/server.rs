//! The embedded host as a process of its own: built as `cargo up` builds it,
//! started on a free port, killed when it is dropped.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

/// The host's program.
const HOST: &str = "sekali-host";

/// The store's file in a state directory.
pub const DATABASE: &str = "sqlite_db.db";

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

    /// Starts a host on `state`. The first builds the component; all others
    /// serve the same, whatever is edited meanwhile.
    ///
    /// # Errors
    ///
    /// If it ends before it serves; it says why on stderr itself.
    pub fn start(&mut self, state: TempDir) -> Result<Host> {
        let mut command = command(&self.program);
        command.arg("--from").arg(root().join("spin.toml"));
        command.args(["--listen", "127.0.0.1:0", "--state-dir"]).arg(state.path());
        if self.component_built && !self.flags.iter().any(|flag| flag == NO_BUILD) {
            command.arg(NO_BUILD);
        }
        // The manifest says where the component is; so that is where it is to
        // be built, even if everything else is built elsewhere.
        command.args(&self.flags).env_remove("CARGO_TARGET_DIR");
        let context = || format!("cannot start {}", self.program.display());
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(context)?;
        let stdout = child.stdout.take().with_context(context)?;
        let mut host = Host { child, url: String::new(), state };
        let (found, address) = mpsc::channel();
        std::thread::spawn(move || {
            // To its end: a pipe that nobody reads would stop the host one day.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("Serving ") {
                    // The receiver waits, or has its address already.
                    found.send(url.trim().to_owned()).ok();
                }
            }
        });
        // No limit: the first start takes as long as the component's build, and
        // a host that ends closes the channel.
        match address.recv() {
            Ok(url) => host.url = url,
            Err(_) => bail!("the host ended before it served"),
        }
        self.component_built = true;
        Ok(host)
    }
}

/// A command at the root of the checkout, without what would change what is built or measured.
fn command(program: &Path) -> Command {
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
fn root() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench)
}

/// A running host.
pub struct Host {
    child: Child,
    /// Where it serves.
    pub url: String,
    state: TempDir,
}

impl Host {
    /// The file of its store.
    pub fn database(&self) -> PathBuf {
        self.state.path().join(DATABASE)
    }

    /// Begins to look for the most memory anew, where the system lets us.
    pub fn reset_peak_rss(&self) {
        // See proc(5). Where it is not to be had, the peak is that since the start.
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").ok();
    }

    /// Most memory that was resident, where the system tells.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
