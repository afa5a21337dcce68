//! The open loop: requests are sent when their time has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::run::Run;
use crate::pacing::ArrivalTimes;

/// A request that could not be sent this long after the end is dropped.
const DROP_AFTER: Duration = Duration::from_millis(100);
/// Requests that are due and wait. When there are more the pacer waits: it knows
/// what is due, and being late is counted all the same.
const DUE_MAX: usize = 1_024;
/// The longest that the pacer sleeps, so that it sees the end of the run.
const PACER_SLEEP_MAX: Duration = Duration::from_millis(50);

/// Sends each request when it is due, or as soon as fewer are under way than may
/// be; evenly, or at random by a seed.
pub(super) async fn deliver(run: &Arc<Run>, poisson_seed: Option<u64>) -> anyhow::Result<()> {
    let spec = run.options().plan.spec();
    let batch = (spec.batch.min + spec.batch.max) as f64 / 2.0;
    let arrivals = ArrivalTimes::new(run.options().rate / batch, poisson_seed, spec.burst);
    let end = run.options().duration;
    let arrivals = arrivals.take_while(move |arrival| end.is_none_or(|end| *arrival < end));
    let (sender, mut due) = mpsc::channel(DUE_MAX);
    let began = run.began();
    // A thread, since timers of the runtime tell no less than milliseconds.
    std::thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || pace(began, arrivals, &sender))
        .context("cannot start a thread to keep the time")?;

    let permits = Arc::new(Semaphore::new(run.options().concurrency));
    let deadline = end.and_then(|end| began.checked_add(end.saturating_add(DROP_AFTER)));
    // Until when as many were under way as may be.
    let mut saturated_until = began;
    let mut under_way = JoinSet::new();
    let mut stop = run.stop();
    loop {
        let intended = tokio::select! {
            intended = due.recv() => intended,
            () = stop.wait() => None,
        };
        let Some(intended) = intended else { break };
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = Arc::clone(&permits).acquire_owned().await?;
                saturated_until = Instant::now();
                permit
            }
        };
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now > deadline) {
            run.state().pace.dropped_requests += 1;
            continue;
        }
        let Some(request) = run.next_request() else { break };
        run.state().pace.sent(now.saturating_duration_since(intended), intended < saturated_until);
        let run = Arc::clone(run);
        under_way.spawn(async move {
            run.deliver(request, Some(intended)).await;
            drop(permit);
        });
        while under_way.try_join_next().is_some() {}
    }
    drop(due);
    while let Some(request) = under_way.join_next().await {
        request.context("a request of the load died")?;
    }
    Ok(())
}

/// The pacer: sends on each arrival when it is due, until nobody receives.
fn pace(began: Instant, arrivals: impl Iterator<Item = Duration>, sender: &mpsc::Sender<Instant>) {
    for arrival in arrivals {
        let Some(due) = began.checked_add(arrival) else { return };
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if sender.is_closed() {
                return;
            }
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(PACER_SLEEP_MAX));
        }
        if sender.blocking_send(due).is_err() {
            return;
        }
    }
}
