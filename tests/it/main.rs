//! Black-box tests of the real release `.wasm` over HTTP.
//!
//! `cargo test` runs them against the embedded host, each with a state
//! directory and a port of its own. `SEKALI_URL=http://… cargo test --test it`
//! runs those that need no restart of the server against any running one.
//!
//! The store of the service is SQLite. `SEKALI_TEST_ENGINE=postgres cargo test --test it`
//! runs all that is not of SQLite alone on PostgreSQL, which has to be installed, and with
//! `libsql` on the stand-in for a libSQL server that these tests have.
//!
//! A file is about a route, or about what is of no route and named after that.
//! Beside them, `tests/corpus/*.toml` holds requests and their replies as data.
//!
//! The host and the publisher run as processes of their own, which can be
//! killed: this binary starts itself again and becomes one of them.

mod support;

// Routes.
mod access;
mod codings;
mod cors;
mod elasticsearch;
mod event_stream;
mod event_stream_resume;
mod events;
mod health;
mod keys;
mod loki;
mod metrics;
#[cfg(target_os = "linux")]
mod mutations;
mod openapi;
mod otlp;
mod pages;
mod publish;
mod publish_bodies;
mod publish_replies;
mod publish_stream;
mod routes;
mod search;
mod splunk;
mod stats;
mod stats_stream;
mod streams;
mod subscription_lag;
mod subscriptions;
mod tracing;
mod webhooks;

// The store, the host, and what goes wrong.
mod backup;
mod balancer;
mod chaining;
mod checkpoint;
mod clock;
mod configuration;
mod contention;
mod crash;
mod exports;
mod health_of_commits;
mod host;
mod host_postgres;
mod host_redis;
mod key_value;
mod libsql;
mod locked_store;
mod log;
mod lost_store;
mod one_writer;
mod postgres;
mod postgres_alone;
mod publisher;
mod quotas;
mod redis;
mod replicas;
mod restart;
mod retention;
mod runtime_config;
mod ship_streams;
mod single_write_replies;
mod slow_clients;
mod store;

use std::process::ExitCode;
use std::{env, io};

use libtest_mimic::Arguments;

use support::{corpus, engine, process, registry};

fn main() -> io::Result<ExitCode> {
    if let Some(code) = process::become_process(env::args_os()) {
        return Ok(code);
    }
    engine::check_engine()?;
    let arguments = Arguments::from_args();
    let mut trials = registry::trials();
    trials.extend(corpus::trials()?);
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
