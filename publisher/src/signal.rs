//! SIGINT and SIGTERM as a value that tasks can watch.

use anyhow::Context as _;
use tokio::sync::watch;

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
/// # Errors
///
/// If the process may not install signal handlers.
pub(crate) fn watch() -> anyhow::Result<Stop> {
    let (sender, receiver) = watch::channel(false);
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?
    };
    #[cfg(unix)]
    let mut interrupt = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?
    };
    tokio::spawn(async move {
        loop {
            #[cfg(unix)]
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            #[cfg(not(unix))]
            if let Err(error) = tokio::signal::ctrl_c().await {
                eprintln!("publisher: cannot watch for Ctrl-C: {error}");
                return;
            }
            if sender.send_replace(true) {
                #[cfg(unix)]
                crate::process::kill_started();
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            eprintln!("publisher: stopping; once more to stop at once");
        }
    });
    Ok(Stop::new(receiver))
}
