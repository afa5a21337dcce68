//! The service, or what it needs, as a process of ours with all that it starts.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::address::masked;
use crate::state::open_private;

/// How long a service may take to end when it is asked to.
const TERMINATE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long what a service has started may take to be gone when it is killed. It is
/// not an error if it takes longer: what has died is there until whoever is its
/// parent by then has asked for its status.
const GROUP_GONE_WAIT_MAX: Duration = Duration::from_secs(2);
/// The interval at which that is polled.
const GROUP_GONE_POLL: Duration = Duration::from_millis(5);
/// Bytes of the service's output that are reported when it ends by itself.
const OUTPUT_BYTES_REPORTED: usize = 2_000;

/// The process groups of services that have not ended, for [`kill_started`].
static STARTED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn started() -> MutexGuard<'static, BTreeSet<i32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all services that were started and have not ended. For the end of this
/// process at once, which drops nothing.
pub(crate) fn kill_started() {
    for group in std::mem::take(&mut *started()).into_iter().filter_map(Pid::from_raw) {
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
        started().extend(group.map(Pid::as_raw_pid));
        Ok(Self { child, group, output: output.to_owned() })
    }

    /// Kills the whole process group (SIGKILL), and waits for its leader, and a while
    /// for the rest.
    ///
    /// # Errors
    ///
    /// If it may not be killed.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let status = self.child.wait().await.context("cannot wait for the service")?;
        let killed = Instant::now();
        while self.is_there() && killed.elapsed() < GROUP_GONE_WAIT_MAX {
            tokio::time::sleep(GROUP_GONE_POLL).await;
        }
        self.forget();
        Ok(status)
    }

    /// Whether any process of the group is.
    fn is_there(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
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
        if let Some(group) = self.group.take() {
            started().remove(&group.as_raw_pid());
        }
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
