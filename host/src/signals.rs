//! Signals that tell the server to stop: SIGTERM and SIGINT, or Ctrl-C.

#[cfg(unix)]
use anyhow::Context;
use anyhow::Result;
use tokio::sync::oneshot;

#[cfg(not(unix))]
use crate::console;

/// Signals that tell the server to stop.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// What the system says.
    #[cfg(unix)]
    pub(crate) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// Ends with the next signal.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            console::message(format_args!("cannot listen for Ctrl-C: {error}"));
            std::future::pending().await
        }
    }

    /// Gives them back once it is `started`, and ends the process at one that comes
    /// before. Who handles no signals is ended by them as well, but for the first
    /// process of a container, which would not notice.
    pub(crate) async fn end_until(mut self, started: oneshot::Receiver<()>, code: u8) -> Self {
        tokio::select! {
            _ = started => self,
            () = self.next() => std::process::exit(code.into()),
        }
    }
}
