//! The open loop: requests are sent when their time has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::run::Run;
use crate::pace::Moments;

/// A request that could not be sent this long after the end is dropped.
const DROP_AFTER: Duration = Duration::from_millis(100);
/// Moments that have come and are not seen to. When there are more the thread
/// waits: it knows what is due, and being late is told all the same.
const MOMENTS_DUE_MAX: usize = 1_024;
/// The longest that the thread which keeps the time sleeps, so that it sees the
/// end of the run.
const PACE_SLEEP_MAX: Duration = Duration::from_millis(50);

/// Sends each request when it is due, or as soon as fewer are under way than may
/// be; evenly, or at random by a seed.
pub(super) async fn deliver(run: &Arc<Run>, poisson_seed: Option<u64>) -> anyhow::Result<()> {
    let spec = run.options().plan.spec();
    let batch = (spec.batch.min + spec.batch.max) as f64 / 2.0;
    let moments = Moments::new(run.options().rate / batch, poisson_seed, spec.burst);
    let end = run.options().duration;
    let moments = moments.take_while(move |moment| end.is_none_or(|end| *moment < end));
    let (sender, mut due) = mpsc::channel(MOMENTS_DUE_MAX);
    let began = run.began();
    // A thread, since timers of the runtime tell no less than milliseconds.
    std::thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || keep_time(began, moments, &sender))
        .context("cannot start a thread to keep the time")?;

    let free = Arc::new(Semaphore::new(run.options().concurrency));
    let over = end.and_then(|end| began.checked_add(end.saturating_add(DROP_AFTER)));
    // Until when all that may be under way were.
    let mut full_until = began;
    let mut under_way = JoinSet::new();
    let mut stop = run.stop();
    loop {
        let intended = tokio::select! {
            intended = due.recv() => intended,
            () = stop.wait() => None,
        };
        let Some(intended) = intended else { break };
        let permit = match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = Arc::clone(&free).acquire_owned().await?;
                full_until = Instant::now();
                permit
            }
        };
        let now = Instant::now();
        if over.is_some_and(|over| now > over) {
            run.state().pace.dropped_requests += 1;
            continue;
        }
        let Some(request) = run.next() else { break };
        run.state().pace.sent(now.saturating_duration_since(intended), intended < full_until);
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

/// Sends every moment on as its time comes, until nobody listens.
fn keep_time(
    began: Instant,
    moments: impl Iterator<Item = Duration>,
    sender: &mpsc::Sender<Instant>,
) {
    for moment in moments {
        let Some(due) = began.checked_add(moment) else { return };
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if sender.is_closed() {
                return;
            }
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(PACE_SLEEP_MAX));
        }
        if sender.blocking_send(due).is_err() {
            return;
        }
    }
}
