//! SIGINT and SIGTERM as a value that tasks can watch.

use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::console;

/// The exit code of a process ended by SIGINT, as shells report it.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Tells tasks that the run should come to its end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop that its sender announces.
    #[must_use]
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// One that never comes.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(false).1)
    }

    /// Whether the run should end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the run should end; for ever if nobody can say so any more.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Watches for SIGINT and SIGTERM. The first sets the returned [`Stop`], the
/// second ends the process at once, for the user who does not want to wait.
///
/// A thread of its own does that: whatever the others are held up by, a full
/// pipe or a long computation, must not hold up the end.
///
/// # Errors
///
/// If the process may not install signal handlers.
pub(crate) fn watch() -> anyhow::Result<Stop> {
    let (sender, receiver) = watch::channel(false);
    let (installed, is_installed) = mpsc::channel();
    spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                // Nobody waits for it only if this process is at its end.
                installed.send(Err(error)).ok();
                return;
            }
        };
        runtime.block_on(async {
            let signals = Signals::install();
            let (signals, result) = match signals {
                Ok(signals) => (Some(signals), Ok(())),
                Err(error) => (None, Err(error)),
            };
            installed.send(result).ok();
            if let Some(signals) = signals {
                pass_on(signals, &sender).await;
            }
        });
    })
    .context("cannot start a thread")?;
    is_installed
        .recv()
        .context("the thread that watches for signals died")?
        .context("cannot watch for signals")?;
    Ok(Stop::new(receiver))
}

async fn pass_on(mut signals: Signals, sender: &watch::Sender<bool>) {
    loop {
        if let Err(error) = signals.next().await {
            console::note(format_args!("cannot watch for Ctrl-C: {error}"));
            return;
        }
        if sender.send_replace(true) {
            #[cfg(unix)]
            crate::process::kill_started();
            std::process::exit(EXIT_INTERRUPTED.into());
        }
        // Not here: standard error may be a pipe that is full. Without a thread
        // for it, it is not said.
        spawn(|| console::note("stopping; once more to stop at once")).ok();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("signals".to_owned()).spawn(work)
}

/// The signals that ask this process to end.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    fn install() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for one.
    async fn next(&mut self) -> std::io::Result<()> {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await?;
        Ok(())
    }
}
