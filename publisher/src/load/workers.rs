//! Workers, each of which does one thing after the other.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinSet;

/// A closed loop: has so many workers call `send` again and again, each until it
/// breaks.
///
/// # Errors
///
/// If a worker panicked.
pub async fn repeat<Sending>(
    workers: usize,
    send: impl Fn() -> Sending + Send + Sync + 'static,
) -> anyhow::Result<()>
where
    Sending: Future<Output = ControlFlow<()>> + Send + 'static,
{
    let send = Arc::new(send);
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let send = Arc::clone(&send);
        running.spawn(async move { while send().await.is_continue() {} });
    }
    while let Some(worker) = running.join_next().await {
        worker.context("a worker of the load died")?;
    }
    Ok(())
}
