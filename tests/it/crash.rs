//! SIGKILL in the middle of a load.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::support::crash::{Ledger, audit, live_and_die};
use crate::support::{Outcome, Spread, Start, own_server, test, unique_topic};

/// Kills in each test; four tests make 24.
const KILLS: u64 = 6;

/// A kill comes after this many acknowledged requests at most, in each life.
const REQUESTS_UNTIL_KILL_MAX: u64 = 120;

#[test(own_server)]
fn single_events() -> Outcome {
    survive(1, 1)
}

#[test(own_server)]
fn batches_of_25() -> Outcome {
    survive(2, 25)
}

#[test(own_server)]
fn batches_of_400() -> Outcome {
    survive(3, 400)
}

#[test(own_server)]
fn batches_of_every_size() -> Outcome {
    survive(4, 0)
}

/// SIGKILL in the middle of a load, again and again on the same state.
fn survive(seed: u64, batch: usize) -> Outcome {
    let topic = unique_topic("crash");
    let state = Arc::new(TempDir::new()?);
    let mut spread = Spread(seed);
    let ledger = Mutex::new(Ledger::default());
    let next_id = AtomicU64::new(0);
    for _ in 0..KILLS {
        let server = Start::on(&state).start()?;
        let kill_after = 1 + spread.below(REQUESTS_UNTIL_KILL_MAX);
        live_and_die(server, &topic, batch, kill_after, &ledger, &next_id, &mut spread)?;
    }
    let server = Start::on(&state).start()?;
    let ledger = ledger.into_inner().map_err(|_| "a client panicked")?;
    audit(&server, &topic, ledger).map_err(|failed| server.explain(failed))
}
