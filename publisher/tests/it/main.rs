//! The real `publisher` program against a service in memory that keeps the
//! contract, or breaks it where a test says so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake; // The service: outcomes, counters, faults and lies.
mod follow; // `ship --follow`: growth, rotation, the end.
mod harness; // Running the program; waiting on conditions; real logs.
mod load; // `load`: exactness, and that a lying service is found out.
mod retry; // What is tried again, and what is not.
mod ship; // `ship`: every line once.
