//! The native companion of Sekali: it ships log files into the service, drives
//! load against it, and holds the service's counters against what it was told.
//!
//! It knows the public HTTP contract and nothing of the service's types, so a
//! service that drifts from its contract fails here.
//!
//! # Map
//!
//! | module | what it does |
//! | --- | --- |
//! | [`cli`] | arguments, and the way from them to a run and its exit code |
//! | [`wire`] | the service's replies, as the contract promises them |
//! | [`client`] | HTTP: publish, read, readiness; every retry is decided here |
//! | [`retry`] | how long to wait before the next attempt |
//! | [`ship`] | `publisher ship`: lines of files, each stored once |
//! | [`workload`] | seed → deliveries, byte for byte the same for the same seed |
//! | [`pacing`] | when requests are to be sent, and how well that was held |
//! | [`load`] | `publisher load`, `resume`, `verify`: deliveries, sent and settled |
//! | [`answer`] | what a request was answered: the outcome of each event |
//! | [`ledger`] | what was sent and answered, on disk, written ahead |
//! | [`auditor`] | what was expected, against replies, counters and stored events |
//! | [`audit`] | reads back what is stored |
//! | `chaos` | `publisher chaos`: kills the service during a load; where there are process groups |
//! | `process` | the service as a process group of ours |
//! | [`calibrate`] | `publisher calibrate`: how fast this program itself is |
//! | [`metrics`] | latencies as histograms, rates, errors, over time |
//! | [`threshold`] | conditions under which a run fails |
//! | [`report`] | the end of a run as a table, as JSON, as a page with charts |
//! | [`progress`] | how it goes: a bar on a terminal, lines elsewhere |
//! | [`signal`] | SIGINT and SIGTERM as a value that tasks can watch |
//! | [`state`] | where runs and the registry of files are kept |
//! | [`usage`] | what this process takes of the machine |
//!
//! # Exit codes
//!
//! 0: everything was acknowledged and every check held. 1: something was not,
//! and the output names it. 2: the arguments are wrong. 3: every check held,
//! and a threshold was crossed. 130: interrupted before the end.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod answer;
pub mod audit;
pub mod auditor;
pub mod calibrate;
#[cfg(unix)]
pub mod chaos;
pub mod cli;
pub mod client;
pub mod ledger;
pub mod load;
pub mod metrics;
pub mod pacing;
#[cfg(unix)]
pub mod process;
pub mod progress;
pub mod report;
pub mod retry;
pub mod ship;
pub mod signal;
pub mod state;
pub mod threshold;
pub mod usage;
pub mod wire;
pub mod workload;

/// The whole program: `args` begin with the program's name, as in
/// [`std::env::args_os`]. A test's binary may call it to be a publisher.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(args)
}
