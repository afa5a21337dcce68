//! Sekali stores events exactly once: a Spin HTTP component.
//!
//! Layers, each of which knows only what stands below it:
//!
//! | module | holds |
//! | --- | --- |
//! | `component` | \[wasm\] one request in, one reply out |
//! | `routes` | the route table; one file tells one route's story |
//! | `writer` | the one writer: commits what other instances hand over |
//! | `app` | the service as one instance has it, and what it remembers |
//! | `ingest` | bytes → events, by format; each format writes its own reply |
//! | `commit` | group commit: requests that wait share a commit, up to a deadline |
//! | `history` | service state in the key-value store |
//! | `pruner` | retention: what is over a limit is pruned, bit by bit |
//! | `limits` | how much each key may publish |
//! | `http` | what of HTTP belongs to no route: body, query, reply, problem, … |
//! | [`store`] | the trait that engines implement; `store/sqlite`, `store/postgres`: all SQL |
//! | `config` | the Spin variables, read once per instance; its role |
//! | [`event`] | topic, event id, source, event: invalid values cannot be built |
//! | [`platform`] | what is asked of the platform; over `spin_sdk`, and over fakes |
//! | `log` | structured lines on stderr |
//! | `text` | JSON that is safe to show, and texts that are cut |
//! | [`time`] | moments as they arrive and as they are shown |
//!
//! What is public serves the benchmark, which runs the store natively.

// Natively only tests and the benchmark use this crate, and only parts of it.
#![cfg_attr(not(target_family = "wasm"), allow(dead_code, unused_imports))]

mod app;
mod commit;
mod config;
pub mod event;
mod history;
mod http;
mod ingest;
mod limits;
mod log;
pub mod platform;
mod pruner;
mod routes;
pub mod store;
mod text;
pub mod time;
mod writer;

// What is called `spin_sdk` everywhere else. See docs/platform-notes.md, "Versions".
#[cfg(all(target_family = "wasm", feature = "spin-4-0", not(feature = "spin-4-1")))]
extern crate spin_sdk_6 as spin_sdk;
#[cfg(all(target_family = "wasm", not(any(feature = "spin-4-0", feature = "spin-4-1"))))]
compile_error!("for which hosts? Name the feature spin-4-1 or spin-4-0");

#[cfg(target_family = "wasm")]
mod component;

#[cfg(test)]
mod testing;
