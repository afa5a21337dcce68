//! SIGINT and SIGTERM as a value that tasks can watch.

use std::thread;
use std::time::Duration;

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

    /// Waits for some time, or until the run should end.
    pub async fn sleep(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.wait() => {}
        }
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
    on_each(move || {
        if sender.send_replace(true) {
            #[cfg(unix)]
            crate::process::kill_started();
            std::process::exit(EXIT_INTERRUPTED.into());
        }
        // Not here: standard error may be a pipe that is full. Without a thread
        // for it, it is not said.
        let said = || console::note("stopping; once more to stop at once");
        thread::Builder::new().spawn(said).ok();
    })
    .context("cannot watch for signals")?;
    Ok(Stop::new(receiver))
}

/// Calls this for each signal, on a thread of its own: whatever the others are
/// held up by, a full pipe or a long computation, must not hold up the end.
#[cfg(unix)]
fn on_each(mut act: impl FnMut() + Send + 'static) -> std::io::Result<()> {
    use std::io::Read as _;

    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = counted(&[SIGINT, SIGTERM])?;
    let pass_on = move || {
        // Cannot fail: the other end is the handlers', and stays.
        while signals.read_exact(&mut [0]).is_ok() {
            act();
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass_on)?;
    Ok(())
}

/// A byte for each of these signals. Two that come close together are two, which
/// tokio would make one of.
#[cfg(unix)]
fn counted(signals: &[std::ffi::c_int]) -> std::io::Result<std::os::unix::net::UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    for &signal in signals {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

#[cfg(not(unix))]
fn on_each(mut act: impl FnMut() + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pass_on = move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                act();
            }
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass_on)?;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read as _;

    #[test]
    fn signals_close_together_are_all_counted() {
        let signal = signal_hook::consts::SIGUSR1;
        let mut signals = super::counted(&[signal]).unwrap();
        for _ in 0..3 {
            // Back when the signal was handled.
            signal_hook::low_level::raise(signal).unwrap();
        }
        signals.set_nonblocking(true).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(signals.read(&mut bytes).unwrap(), 3);
    }
}
