//! The reference that counts: what an engineer would write in a day without
//! Spin. axum for HTTP, rusqlite for a plain schema, and one thread that writes,
//! with one transaction for all requests that wait.
//!
//! It keeps what Sekali promises of a publish: stored once by `(topic, event_id)`,
//! counters that balance, and a reply after the commit is on disk (WAL,
//! `synchronous=FULL`) that tells a repeat from a conflict. It has nothing else:
//! no other formats, no limits, no readers, no recovery; and contents are
//! compared as texts, where Sekali compares JSON values.
//!
//! | module | holds |
//! | --- | --- |
//! | `routes` | HTTP |
//! | `writer` | the one thread that writes, and what waits for it |
//! | `store` | the schema and its statements |
//!
//! It is this program, started again in another role: see [`become_service`].

mod routes;
mod store;
mod writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{Process, SERVING, command};
use crate::slow_fsync::SlowFsync;

use store::COUNTS;

/// The first argument of this program in its other role; the second is the
/// database.
const ROLE: &str = "--become-axum-service";

/// The store's file in a state directory.
const DATABASE: &str = "events.db";

/// Becomes the service, if this program was started as it.
pub fn become_service(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.skip(1);
    if args.next()? != ROLE {
        return None;
    }
    let database = PathBuf::from(args.next()?);
    match serve(&database) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Starts the service on `state`, on a slow disk if that is given.
///
/// # Errors
///
/// If it ends before it serves; it says why on stderr itself.
pub fn start(state: TempDir, disk: Option<&SlowFsync>) -> Result<Process> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut command = command(&program);
    command.arg(ROLE).arg(state.path().join(DATABASE));
    SlowFsync::start(disk, command, |command| Process::start(command, state, DATABASE, COUNTS))
}

/// Serves until the process is ended.
fn serve(database: &Path) -> Result<()> {
    // As the documentation of tokio has it: a thread for each core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let routes = routes::routes(database)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{SERVING}http://{}", listener.local_addr()?);
        axum::serve(listener, routes).await.context("cannot serve")
    })
}
