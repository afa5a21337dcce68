//! What the tests are made with.

mod auditor;
pub mod bad_days;
mod client;
pub mod corpus;
pub mod crash_load;
mod data;
mod duplex;
pub mod engine;
pub mod libsql;
pub mod openapi;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod registry;
mod server;
mod session;
mod sse;
pub mod subscription;
mod threads;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

pub use auditor::{Auditor, stored_once};
pub use client::{Client, Counters, End, Reply};
pub use data::{Rng, batch, event, event_of_size, unique_topic};
pub use duplex::Duplex;
pub use engine::{Edit, make_snapshot_due};
pub use process::{publisher, shell_line, shown};
pub(crate) use registry::{any_server, no_server, own_server, sqlite_server, test};
pub use server::{Server, ServerOptions, Target, database, key_value_database};
pub use session::Session;
pub use sse::{Block, Event, Stream, end_cursor, event_stream_path};
pub use threads::{concurrently, join, while_polling};

/// What a test returns; its error is what the runner prints.
pub type TestResult = Result<(), Failed>;

/// How long anything that must happen may take before a test gives up on it.
/// Generous: a test that waits this long has failed.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Text of a file below the root.
pub fn read(path: &str) -> Result<String, Failed> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}").into())
}

pub fn check(holds: bool, why: impl FnOnce() -> String) -> TestResult {
    if holds { Ok(()) } else { Err(why().into()) }
}

pub fn check_eq<T: PartialEq + std::fmt::Debug>(got: T, expected: T, of: &str) -> TestResult {
    check(got == expected, || format!("{of}: expected {expected:?}, got {got:?}"))
}

/// A host and port of this machine that nobody listens on.
pub fn free_address() -> Result<String, Failed> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Polls until there is an answer.
pub fn wait_until<T>(
    what: &str,
    mut poll: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = poll()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {TIMEOUT:?} in vain until {what}").into());
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
