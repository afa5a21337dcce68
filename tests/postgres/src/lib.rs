//! A PostgreSQL server for the tests of one process: in a temporary folder, on a
//! free port of 127.0.0.1, as a user that is not root, with the binaries that are
//! installed. It ends, and its folder goes, when the process does, however that
//! ends.
//!
//! ```no_run
//! # fn test() -> Result<(), Box<dyn std::error::Error>> {
//! if !temporary_postgres::is_available_or_skip()? {
//!     return Ok(());
//! }
//! let database = temporary_postgres::shared()?.database()?;
//! let mut client = database.connect()?;
//! client.batch_execute("CREATE TABLE t (n bigint)")?;
//! # Ok(())
//! # }
//! ```
//!
//! The server is no kinder than a stranger's: who connects is no superuser, and its
//! collation, time zone and date format are not those that a program may have
//! silently relied on (`server.rs`).
//!
//! | module | is |
//! | --- | --- |
//! | `server` | the server: started, stopped, killed, started again |
//! | `database` | a database of one test, and the way to it |
//! | `guard` | the process that holds the server, and ends it when nobody is left |
//! | `installed` | where PostgreSQL is, and who runs it |
//! | `processes` | the processes of this machine |
//! | `error` | what can go wrong |

mod database;
mod error;
mod guard;
mod installed;
mod processes;
mod server;

use std::io::Write;
use std::sync::{Once, OnceLock};

pub use database::Database;
pub use error::ServerError;
pub use postgres;
pub use server::{Options, Server};

/// Whether PostgreSQL is installed.
pub fn is_available() -> bool {
    installed::Binaries::find().is_ok()
}

/// Whether a test that needs PostgreSQL can go on. Where PostgreSQL is not
/// installed, one line on stderr says that such tests are skipped.
///
/// # Errors
///
/// With `CI=true` nothing is skipped: that PostgreSQL is not installed.
pub fn is_available_or_skip() -> Result<bool, ServerError> {
    static SAID: Once = Once::new();
    let Err(error) = installed::Binaries::find() else { return Ok(true) };
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(error);
    }
    SAID.call_once(|| {
        // Past the capture of the test harness, which would keep it from being seen.
        // Nobody can be told that nobody can be told.
        writeln!(std::io::stderr(), "skipped, since {error}").ok();
    });
    Ok(false)
}

/// The server that all tests of this process share, with the [`Options`] of the
/// beginning. Started when it is first asked for.
///
/// # Errors
///
/// Why it did not start; the same to everybody.
pub fn shared() -> Result<&'static Server, ServerError> {
    static SHARED: OnceLock<Result<Server, ServerError>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(Options::default())).as_ref().map_err(Clone::clone)
}
