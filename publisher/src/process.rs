//! The service as a process of ours, with all that it starts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::address::masked;
use crate::state::open_private;

/// How long a service may take to end when it is asked to.
const TERMINATE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of the service's output that are reported when it ends by itself.
const OUTPUT_BYTES_REPORTED: usize = 2_000;

/// The process group of the service, 0 when there is none, for [`kill_started`].
static STARTED: AtomicI32 = AtomicI32::new(0);

/// Kills the service that was started last, if it is not ended. For the end of
/// this process at once, which drops nothing.
pub(crate) fn kill_started() {
    if let Some(group) = Pid::from_raw(STARTED.swap(0, Ordering::Relaxed)) {
        // There is nobody left to tell.
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// A service that was started by a command of the shell, in a process group of
/// its own, so that whatever the command starts can be ended with it, and
/// nothing else. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// The process group, until its leader has been waited for: after that the
    /// number may be somebody else's.
    group: Option<Pid>,
    output: PathBuf,
}

impl Service {
    /// Starts the command. Its output is added to a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or there is no shell.
    pub(crate) fn start(command: &str, output: &Path) -> anyhow::Result<Self> {
        let log = || -> std::io::Result<File> {
            open_private(std::fs::OpenOptions::new().append(true).create(true), output)
        };
        let log = || log().with_context(|| format!("cannot write {}", output.display()));
        let child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}` with sh", masked(command)))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        STARTED.store(group.map_or(0, Pid::as_raw_pid), Ordering::Relaxed);
        Ok(Self { child, group, output: output.to_owned() })
    }

    /// Kills the whole process group (SIGKILL) and waits for its leader.
    ///
    /// # Errors
    ///
    /// If it may not be killed.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let status = self.child.wait().await.context("cannot wait for the service")?;
        self.forget();
        Ok(status)
    }

    /// Asks the service to end (SIGTERM), and kills what is left of it when its
    /// leader has ended or takes too long.
    ///
    /// # Errors
    ///
    /// If it may not be killed.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        if tokio::time::timeout(TERMINATE_WAIT_MAX, self.child.wait()).await.is_err() {
            self.kill().await?;
        }
        self.signal(Signal::KILL)?;
        self.forget();
        Ok(())
    }

    /// The leader has been waited for.
    fn forget(&mut self) {
        self.group = None;
        STARTED.store(0, Ordering::Relaxed);
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(group) = self.group else { return Ok(()) };
        match kill_process_group(group, signal) {
            // It has ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("cannot end the service"),
        }
    }

    /// Waits until the service ends by itself, which it should not.
    ///
    /// # Errors
    ///
    /// Always, once it has: with its status and the end of its output.
    pub(crate) async fn exited(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await.context("cannot wait for the service")?;
        // What it started may be there still.
        self.signal(Signal::KILL)?;
        self.forget();
        let output = std::fs::read(&self.output).unwrap_or_default();
        let from = output.len().saturating_sub(OUTPUT_BYTES_REPORTED);
        let reported = String::from_utf8_lossy(&output[from..]);
        bail!(
            "the service ended by itself ({status}); its output ends with\n{}",
            masked(reported.trim_end())
        )
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // There is nobody left to tell.
        self.signal(Signal::KILL).ok();
    }
}
