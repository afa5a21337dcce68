//! The reference that counts: what an engineer would write in a day without
//! Spin. axum for HTTP, a plain schema, and one that writes, by one transaction
//! for all requests that wait: with rusqlite on SQLite, or with tokio-postgres on
//! PostgreSQL.
//!
//! It keeps what Sekali promises of a publish: stored once by `(topic, event_id)`,
//! counters that balance, and a reply after the commit is on disk (on SQLite WAL,
//! `synchronous=FULL`) that tells a repeat from a conflict. It has nothing else:
//! no other formats, no limits, no readers, no recovery; and contents are
//! compared as texts, where Sekali compares JSON values.
//!
//! | module | holds |
//! | --- | --- |
//! | `routes` | HTTP |
//! | `writer` | what waits for the one that writes |
//! | `store` | what is stored, and where |
//! | `sqlite` | schema and statements on SQLite, and a thread that writes |
//! | `postgres` | the same on PostgreSQL, and a task that writes |
//!
//! It is this program, started again in another role: see [`become_service`].

mod postgres;
mod routes;
mod sqlite;
mod store;
mod writer;

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::database::Database;
use crate::postgres::FreshDatabase;
use crate::process::{Process, SERVING, command};
use crate::slow_fsync::SlowFsync;

use store::{COUNTS, Store};

/// The first argument of this program in its other role; the second is the
/// database, a file or a URL.
const ROLE: &str = "--become-axum-service";

/// The store's file in a state directory.
const DATABASE: &str = "events.db";

/// Becomes the service, if this program was started as it.
pub fn become_service(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.skip(1);
    if args.next()? != ROLE {
        return None;
    }
    let database = args.next()?;
    match serve(&database.to_string_lossy()) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Starts the service on a file in `state`, on a slow disk if that is given.
///
/// # Errors
///
/// If it ends before it serves; it says why on stderr itself.
pub fn start(state: TempDir, disk: Option<&SlowFsync>) -> Result<Process> {
    let file = state.path().join(DATABASE);
    let command = service_on(file.as_os_str())?;
    SlowFsync::start(disk, command, |command| {
        Process::start(command, Database::sqlite(file, COUNTS), Some(state))
    })
}

/// Starts the service on a database of PostgreSQL.
///
/// # Errors
///
/// If it ends before it serves; it says why on stderr itself.
pub fn start_on_postgres(database: FreshDatabase) -> Result<Process> {
    let command = service_on(database.url().as_ref())?;
    Process::start(command, Database::postgres(database, COUNTS), None)
}

fn service_on(database: &OsStr) -> Result<Command> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut command = command(&program);
    command.arg(ROLE).arg(database);
    Ok(command)
}

/// Serves until the process is ended.
fn serve(database: &str) -> Result<()> {
    // As the documentation of tokio has it: a thread for each core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let routes = routes::routes(Store::open(database).await?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{SERVING}http://{}", listener.local_addr()?);
        axum::serve(listener, routes).await.context("cannot serve")
    })
}
