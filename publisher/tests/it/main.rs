//! The real `publisher` program against a service in memory that keeps the
//! contract, or breaks it where a test says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit; // `--audit`: each way in which a store can be wrong.
mod backup; // `backup`: of one moment, and checked, or not there.
mod chaos; // `chaos`: what it starts and kills, and what it leaves alone.
mod credentials; // Users and passwords: sent, and neither shown nor kept.
mod export; // `export`: all events or no file; what it is checked by.
mod fake; // The service: outcomes, counters, stored events, faults and lies.
mod follow; // `ship --follow`: growth, rotation, the end.
mod harness; // Running the program; waiting on conditions; real logs.
mod identity; // What a file is: alike ones, parts, pipes, packed ones, encodings.
mod import; // `import`: in order, once, and held against the file before and after.
mod ledger; // `--ledger`, `verify` and `resume`: runs that were broken off.
mod load; // `load`: exactness, and that a lying service is found out.
mod manners; // Standard streams that are gone, empty variables, signals, proxies.
mod open_loop; // `--rate`: pauses are seen for what they are; warm-up.
mod report; // The report as JSON and its schema; thresholds.
mod retry; // What is tried again, and what is not.
mod rotation; // `ship --follow`: through rotations, outages and restarts.
mod rounds; // `ship --follow`: whatever happens, in any order.
mod ship; // `ship`: every line once.
mod streams; // `ship --streams`: over streams, and what there is without.
mod transport; // `--gzip` and `--http2`.
mod workload; // `--workload`: all that have a name, and files.
