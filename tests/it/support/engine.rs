//! The engine of the store behind every service that the tests start: SQLite, or with
//! `SEKALI_TEST_ENGINE` another. Each service has a database of its own then, and one
//! that is started on the state directory of another has the database of that.
//!
//! | name | is |
//! | --- | --- |
//! | `sqlite` | SQLite in a file, as by default |
//! | `libsql` | the same engine on the stand-in for a libSQL server, one for each service |
//! | `postgres` | PostgreSQL, on a server that all of them share |

use std::env;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use libtest_mimic::Failed;
use rusqlite::Connection;
use tempfile::TempDir;
use temporary_postgres::Database;
use temporary_postgres::postgres::NoTls;

use super::libsql::{Libsql, TOKEN};
use super::{Server, TIMEOUT, TestResult};

const VARIABLE: &str = "SEKALI_TEST_ENGINE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Libsql,
    Postgres,
}

/// The engine that the tests are run on.
pub fn engine() -> Engine {
    match env::var(VARIABLE).as_deref() {
        Ok("libsql") => Engine::Libsql,
        Ok("postgres") => Engine::Postgres,
        _ => Engine::Sqlite,
    }
}

/// Refuses an engine that there is not.
pub fn check_engine() -> io::Result<()> {
    match env::var_os(VARIABLE) {
        Some(name) if !["libsql", "postgres", "sqlite"].iter().any(|known| name == *known) => {
            Err(io::Error::other(format!(
                "{VARIABLE} is sqlite, libsql or postgres, not {}",
                name.display()
            )))
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// What the service calls it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite | Engine::Libsql => "sqlite",
            Engine::Postgres => "postgres",
        }
    }
}

/// What goes with state directories, for as long as they are there.
struct ByState<T>(Mutex<Vec<(Weak<TempDir>, Arc<T>)>>);

impl<T> ByState<T> {
    /// What goes with `state`, made when it is first asked for.
    fn of(
        &self,
        state: &Arc<TempDir>,
        make: impl FnOnce() -> Result<T, Failed>,
    ) -> Result<Arc<T>, Failed> {
        let state = Arc::downgrade(state);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of tests that have ended.
        known.retain(|(of, _)| of.strong_count() > 0);
        if let Some((_, found)) = known.iter().find(|(of, _)| of.ptr_eq(&state)) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(make()?);
        known.push((state, Arc::clone(&made)));
        Ok(made)
    }
}

static DATABASES: ByState<Database> = ByState(Mutex::new(Vec::new()));

static LIBSQL_SERVERS: ByState<Libsql> = ByState(Mutex::new(Vec::new()));

/// The PostgreSQL database that goes with a state directory.
pub fn postgres_database(state: &Arc<TempDir>) -> Result<Arc<Database>, Failed> {
    DATABASES.of(state, || Ok(temporary_postgres::shared()?.database()?))
}

/// The libSQL server that goes with a state directory.
fn libsql_server(state: &Arc<TempDir>) -> Result<Arc<Libsql>, Failed> {
    LIBSQL_SERVERS.of(state, Libsql::start)
}

/// The environment of a host by which its services come to their engine.
pub fn environment(state: &Arc<TempDir>) -> Result<Vec<(&'static str, String)>, Failed> {
    match engine() {
        Engine::Sqlite => Ok(Vec::new()),
        Engine::Libsql => {
            let server = libsql_server(state)?;
            let file = server.configuration(&server.address, TOKEN)?;
            Ok(vec![("RUNTIME_CONFIG_FILE", file.display().to_string())])
        }
        Engine::Postgres => {
            let database = postgres_database(state)?;
            Ok(vec![
                ("SPIN_VARIABLE_DATABASE_URL", database.url()),
                ("SPIN_VARIABLE_DATABASE_HOST", format!("postgres://{}", database.address())),
            ])
        }
    }
}

/// What is done to the data of a service behind its back, in the words of each engine;
/// several statements at once, if need be.
pub struct Edit<'a> {
    pub sqlite: &'a str,
    pub postgres: &'a str,
}

impl Edit<'_> {
    pub fn apply(&self, server: &Server) -> TestResult {
        match engine() {
            Engine::Sqlite => self.apply_to(&server.database()?),
            Engine::Libsql => self.apply_to(&libsql_server(&server.state)?.database()?),
            Engine::Postgres => {
                let database = postgres_database(&server.state)?;
                let mut client = database.superuser_config().connect(NoTls)?;
                Ok(client.batch_execute(self.postgres)?)
            }
        }
    }

    fn apply_to(&self, database: &Connection) -> TestResult {
        database.busy_timeout(TIMEOUT)?;
        Ok(database.execute_batch(self.sqlite)?)
    }
}

/// Has the next publish of every instance that does not know better want a snapshot,
/// as in the next minute.
pub fn make_snapshot_due(server: &Server) -> TestResult {
    let due = Edit {
        sqlite: "UPDATE counters SET value = 0 WHERE name = 'mark/key_value/snapshot_due_at'",
        postgres: "UPDATE sekali.marks SET at = 0 WHERE name = 'key_value/snapshot_due_at'",
    };
    due.apply(server)
}
