//! A load in the middle of which the host is killed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libtest_mimic::Failed;

use super::{Client, Outcome, Reply, Server, Spread, Tally};

const WRITERS: u64 = 8;

/// What the clients know, over all lives of the server.
#[derive(Default)]
pub struct Ledger {
    /// Requests that got no reply, to be sent again as they were.
    unanswered: Vec<Vec<String>>,
    tally: Tally,
}

/// One life of the server: clients publish, batches of every size if `batch` is
/// 0, until so many requests have been answered and it is killed.
pub fn live_and_die(
    server: Server,
    topic: &str,
    batch: usize,
    kill_after: u64,
    ledger: &Mutex<Ledger>,
    next_id: &AtomicU64,
    spread: &mut Spread,
) -> Outcome {
    let client = server.client();
    let dead = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let seed = spread.below(u64::MAX);
                let (client, dead, answered) = (client.clone(), &dead, &answered);
                scope.spawn(move || {
                    write(&client, topic, batch, seed, ledger, next_id, answered, dead)
                })
            })
            .collect();
        while answered.load(Ordering::Acquire) < kill_after
            && writers.iter().any(|writer| !writer.is_finished())
        {
            std::hint::spin_loop();
        }
        let killed = server.kill();
        dead.store(true, Ordering::Release);
        for writer in writers {
            writer.join().map_err(|_| "a client panicked")??;
        }
        killed.map(drop)
    })
}

/// Publishes until the server is dead: first what got no answer in its last
/// life, then new events with some repeated ones among them.
#[allow(clippy::too_many_arguments, reason = "a test's thread, with all that it shares")]
fn write(
    client: &Client,
    topic: &str,
    batch: usize,
    seed: u64,
    ledger: &Mutex<Ledger>,
    next_id: &AtomicU64,
    answered: &AtomicU64,
    dead: &AtomicBool,
) -> Outcome {
    let mut spread = Spread(seed);
    while !dead.load(Ordering::Acquire) {
        let retry = lock(ledger)?.unanswered.pop();
        let ids = retry.unwrap_or_else(|| {
            let size = if batch == 0 { 1 + spread.below(200) as usize } else { batch };
            let mut ids: Vec<String> =
                (0..size).map(|_| next_id.fetch_add(1, Ordering::Relaxed).to_string()).collect();
            if spread.below(5) == 0 {
                ids.push(ids[0].clone());
            }
            ids
        });
        match deliver(client, topic, &ids)? {
            Some(reply) => {
                lock(ledger)?.tally.book(&ids, &reply)?;
                answered.fetch_add(1, Ordering::Release);
            }
            None => {
                let mut ledger = lock(ledger)?;
                ledger.tally.book_unanswered(ids.len() as u64);
                ledger.unanswered.push(ids);
            }
        }
    }
    Ok(())
}

fn lock(ledger: &Mutex<Ledger>) -> Result<std::sync::MutexGuard<'_, Ledger>, Failed> {
    ledger.lock().map_err(|_| "a client panicked".into())
}

/// `None` when there was no reply that acknowledges.
fn deliver(client: &Client, topic: &str, ids: &[String]) -> Result<Option<Reply>, Failed> {
    match client.publish_ids(topic, ids) {
        Ok(reply) if reply.status != 503 => reply.expect(200).map(Some),
        _ => Ok(None),
    }
}

/// Publishes what got no reply, and audits what is stored.
pub fn audit(server: &Server, topic: &str, mut ledger: Ledger) -> Outcome {
    let client = server.client();
    for ids in &ledger.unanswered {
        ledger.tally.publish(&client, topic, ids)?;
    }
    ledger.tally.audit(&client, topic)
}
