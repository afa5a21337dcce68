//! Black-box tests of the real release `.wasm` over HTTP.
//!
//! `cargo test` runs them against the embedded host, each with a state
//! directory and a port of its own. `SEKALI_URL=http://… cargo test --test it`
//! runs those that need no restart of the server against any running one.
//!
//! The host and the publisher run as processes of their own, which can be
//! killed: this binary starts itself again and becomes one of them.

/// The component built once, servers, and what a failing test prints.
mod harness;

/// What makes a function a test.
mod registry;

/// Requests, replies, and what the service says of itself.
mod client;

/// Every reply of every test, held against the description of the API.
mod described;

/// What the replies of a test said, held against what is stored.
mod tally;

/// Rows of the contract: `tests/corpus/*.toml`, a request and its reply each.
mod corpus;

/// What is too large, too odd or too broken for a row of the corpus.
mod bodies;

/// Many clients at once.
mod races;

/// Server-sent events as a client reads them.
mod event_source;

/// Events and counters as they come.
mod streams;

/// Subscribers that lose their connection, or the host, and go on.
mod followers;

/// Named subscriptions, and pages that are read one after the other.
mod workers;

/// What is watched: metrics and health.
mod watched;

/// What is for browsers: pages, their assets, and pages of other origins.
mod browsers;

/// More clients than the store has room for at once, and clients and instances
/// that come and go meanwhile.
mod contention;

/// A store that another process holds.
mod held_store;

/// Replies that would wait for an acknowledgement if they left in two writes.
mod one_write;

/// SIGKILL in the middle of a load.
mod crash;

/// Restarts, many instances at once, and state that cannot be written.
mod state;

/// The host's own words and manners: flags, errors, a graceful stop.
mod host;

/// The publisher against the real service.
mod publisher_runs;

use std::env;
use std::io;
use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> io::Result<ExitCode> {
    if let Some(code) = harness::become_process(env::args_os()) {
        return Ok(code);
    }
    let arguments = Arguments::from_args();
    let mut trials = registry::trials();
    trials.extend(corpus::trials()?);
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
