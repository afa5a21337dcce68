//! SIGKILL in the middle of a load.

use std::sync::Arc;

use tempfile::TempDir;

use crate::support::crash_load::CrashLoad;
use crate::support::{ServerOptions, TestResult, own_server, test, unique_topic};

/// Kills in each test; four tests make 24.
const KILLS: usize = 6;

/// A kill comes after this many acknowledged requests at most, in each life.
const REQUESTS_UNTIL_KILL_MAX: u64 = 120;

#[test(own_server)]
fn single_events() -> TestResult {
    kill_again_and_again(1, Some(1))
}

#[test(own_server)]
fn batches_of_25() -> TestResult {
    kill_again_and_again(2, Some(25))
}

#[test(own_server)]
fn batches_of_400() -> TestResult {
    kill_again_and_again(3, Some(400))
}

#[test(own_server)]
fn batches_of_every_size() -> TestResult {
    kill_again_and_again(4, None)
}

/// Kills the host again and again on the same state.
fn kill_again_and_again(seed: u64, batch: Option<usize>) -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let mut load = CrashLoad::new(&unique_topic("crash"), batch, seed);
    for _ in 0..KILLS {
        let server = ServerOptions::on(&state).start()?;
        load.run_until_killed(server, REQUESTS_UNTIL_KILL_MAX)?;
    }
    load.audit(&ServerOptions::on(&state).start()?)
}
