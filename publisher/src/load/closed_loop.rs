//! The closed loop: each request is sent when an earlier one is answered.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::run::Run;
use super::workers::repeat;

/// Sends by so many workers as requests may be under way.
pub(super) async fn deliver(run: &Arc<Run>) -> anyhow::Result<()> {
    let shared = Arc::clone(run);
    repeat(run.options().concurrency, move || {
        let run = Arc::clone(&shared);
        async move {
            wait_for_burst(&run).await;
            let Some(request) = run.next_request() else { return ControlFlow::Break(()) };
            run.deliver(request, None).await;
            ControlFlow::Continue(())
        }
    })
    .await
}

/// Waits until something may be sent, if the load comes in bursts, or until the
/// run is to end.
async fn wait_for_burst(run: &Run) {
    let Some(burst) = run.options().plan.spec().burst else { return };
    let mut stop = run.stop();
    loop {
        let since_began = run.began().elapsed();
        let end = run.options().duration.unwrap_or(Duration::MAX);
        let time_left = end.saturating_sub(since_began);
        let wait = burst.time_to_burst(since_began).min(time_left);
        if wait.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.wait() => return,
        }
    }
}
