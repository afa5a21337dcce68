//! What the tests are made with.

mod auditor;
mod client;
pub mod corpus;
pub mod crash;
mod data;
pub mod openapi;
pub mod process;
pub mod prometheus;
pub mod registry;
mod server;
mod sse;
pub mod subscription;
mod threads;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

pub(crate) use auditor::{Tally, stored_once};
pub(crate) use client::{Client, Counters, End, Reply};
pub(crate) use data::{Spread, batch, event, event_of, unique_topic};
pub(crate) use process::{publisher, shown};
pub(crate) use registry::{any_server, no_server, own_server, test};
pub(crate) use server::{Server, Start, Target};
pub(crate) use sse::{Block, Event, Stream, check_next, end, opening, path_of, publish_one};
pub(crate) use threads::{at_once, join, watched};

/// What a test returns; its error is what the runner prints.
pub type Outcome = Result<(), Failed>;

/// How long anything that must happen may take before a test gives up on it,
/// in seconds. Generous: a test that waits this long has failed.
pub const PATIENCE_SECONDS: u64 = 120;

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Text of a file below the root.
pub fn read(path: &str) -> Result<String, Failed> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}").into())
}

pub fn check(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why().into()) }
}

pub fn check_eq<T: PartialEq + std::fmt::Debug>(got: T, expected: T, of: &str) -> Outcome {
    check(got == expected, || format!("{of}: expected {expected:?}, got {got:?}"))
}

/// Asks again and again until there is an answer.
pub fn until<T>(
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE_SECONDS} s in vain until {what}").into());
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
