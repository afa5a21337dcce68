//! The native companion of Sekali: it ships log files into the service, moves events
//! out of it and into it, drives load against it, and holds the service's counters
//! against what it was told.
//!
//! It knows the public HTTP contract and nothing of the service's types, so a
//! service that drifts from its contract fails here.
//!
//! # Map
//!
//! From above to below: a file imports what stands below it and nothing else. A
//! program that measures a service can use what is public.
//!
//! | module | what it does |
//! | --- | --- |
//! | `cli` | arguments, and the way from them to a run and its exit code |
//! | `export`, `import` | `publisher export`, `import`: events out of a store, and into one |
//! | `backup` | `publisher backup`: the SQLite files of a service, copied while it runs |
//! | `exported` | what an export is: lines, and a manifest to check them by |
//! | `ship` | `publisher ship`: lines of files, each stored once |
//! | `chaos` | `publisher chaos`: kills the service during a load; where there are process groups |
//! | `calibrate` | `publisher calibrate`: how fast this program itself is |
//! | [`load`] | `publisher load`, `resume`, `verify`: deliveries, sent and settled |
//! | [`audit`] | reads back what is stored and shows it to the auditor |
//! | `ledger` | what was sent and answered: a write-ahead log on disk |
//! | `threshold` | conditions under which a run fails |
//! | [`metrics`] | latencies as histograms, rates, errors, over time |
//! | [`pacing`] | when requests are to be sent, and how well that was held |
//! | [`report`] | the end of a run as a table, as JSON, as a page with charts |
//! | [`auditor`] | what was expected, against replies, counters and stored events |
//! | [`workload`] | seed → deliveries, byte for byte the same for the same seed |
//! | [`answer`] | what a request was answered: the outcome of each event |
//! | [`client`] | HTTP: publish, read, readiness; every retry is decided here |
//! | `retry` | how long to wait before the next attempt |
//! | [`wire`] | the service's replies, as the contract promises them |
//! | `progress` | how it goes: a bar on a terminal, lines elsewhere |
//! | [`signal`] | SIGINT and SIGTERM as a value that tasks can watch |
//! | `process` | the service as a process group of ours |
//! | `state` | where runs and the registry of files are kept |
//! | `compression` | files that are compressed, read and written |
//! | `unnamed` | files that have their name only once they are whole |
//! | `console` | notes and results, also where nobody hears them |
//! | `address` | where the service is and who asks, without showing what is secret |
//! | [`usage`] | what this process takes of the machine |
//!
//! # Exit codes
//!
//! 0: everything was acknowledged and every check held. 1: something was not,
//! and the output names it. 2: the arguments are wrong. 3: every check held,
//! and a threshold was crossed. 130: interrupted before the end.

#![warn(unreachable_pub)]
#![warn(clippy::print_stderr, clippy::print_stdout)]

use std::ffi::OsString;
use std::process::ExitCode;

mod address;
pub mod answer;
pub mod audit;
pub mod auditor;
mod backup;
mod calibrate;
#[cfg(unix)]
mod chaos;
mod cli;
pub mod client;
mod compression;
mod console;
mod export;
mod exported;
mod import;
mod ledger;
pub mod load;
pub mod metrics;
pub mod pacing;
#[cfg(unix)]
mod process;
mod progress;
pub mod report;
mod retry;
mod ship;
pub mod signal;
mod state;
mod threshold;
mod unnamed;
pub mod usage;
pub mod wire;
pub mod workload;

/// The whole program: `args` begin with the program's name, as in
/// [`std::env::args_os`]. A test's binary may call it to be a publisher.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(args)
}
