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
//! | [`client`] | HTTP: publish, statistics, readiness; every retry is decided here |
//! | [`retry`] | how long to wait before the next attempt |
//! | [`ship`] | `publisher ship`: lines of files, each stored once |
//! | [`load`] | `publisher load`: deliveries of a [`workload`], settled in a [`ledger`] |
//! | [`workload`] | seed → deliveries, byte for byte the same for the same seed |
//! | [`ledger`] | what was expected, against what replies and `/stats` say |
//! | [`report`] | the end of a run as a table or as JSON |
//! | [`progress`] | progress bars, on a terminal only |
//! | [`signal`] | SIGINT and SIGTERM as a value that tasks can watch |
//!
//! # Exit codes
//!
//! 0: everything was acknowledged and every check held. 1: something was not,
//! and the output names it. 2: the arguments are wrong. 130: interrupted
//! before the end.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod cli;
pub mod client;
pub mod ledger;
pub mod load;
pub mod progress;
pub mod report;
pub mod retry;
pub mod ship;
pub mod signal;
pub mod wire;
pub mod workload;

/// The whole program: `args` begin with the program's name, as in
/// [`std::env::args_os`]. A test's binary may call it to be a publisher.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::main(args)
}
