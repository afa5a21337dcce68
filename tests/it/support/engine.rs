//! The engine of the store behind every service that the tests start: SQLite, or
//! PostgreSQL with `SEKALI_TEST_ENGINE=postgres`. Each service has a database of its
//! own then, on a server that all of them share, and one that is started on the state
//! directory of another has the database of that.

use std::env;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use libtest_mimic::Failed;
use tempfile::TempDir;
use temporary_postgres::Database;
use temporary_postgres::postgres::NoTls;

use super::{Server, TIMEOUT, TestResult};

const VARIABLE: &str = "SEKALI_TEST_ENGINE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// The engine that the tests are run on.
pub fn engine() -> Engine {
    match env::var(VARIABLE).as_deref() {
        Ok("postgres") => Engine::Postgres,
        _ => Engine::Sqlite,
    }
}

/// Refuses an engine that there is not.
pub fn check_engine() -> io::Result<()> {
    match env::var_os(VARIABLE) {
        Some(name) if name != "postgres" && name != "sqlite" => Err(io::Error::other(format!(
            "{VARIABLE} is sqlite or postgres, not {}",
            name.display()
        ))),
        _ => Ok(()),
    }
}

impl Engine {
    /// What the service calls it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        }
    }
}

/// The databases of state directories.
static DATABASES: Mutex<Vec<(Weak<TempDir>, Arc<Database>)>> = Mutex::new(Vec::new());

/// The database that goes with a state directory, made when it is first asked for.
pub fn postgres_database(state: &Arc<TempDir>) -> Result<Arc<Database>, Failed> {
    let state = Arc::downgrade(state);
    let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
    // Those of tests that have ended.
    databases.retain(|(of, _)| of.strong_count() > 0);
    if let Some((_, database)) = databases.iter().find(|(of, _)| of.ptr_eq(&state)) {
        return Ok(Arc::clone(database));
    }
    let database = Arc::new(temporary_postgres::shared()?.database()?);
    databases.push((state, Arc::clone(&database)));
    Ok(database)
}

/// The environment of a host by which its services come to their engine.
pub fn environment(state: &Arc<TempDir>) -> Result<Vec<(&'static str, String)>, Failed> {
    if engine() == Engine::Sqlite {
        return Ok(Vec::new());
    }
    let database = postgres_database(state)?;
    Ok(vec![
        ("SPIN_VARIABLE_DATABASE_URL", database.url()),
        ("SPIN_VARIABLE_DATABASE_HOST", format!("postgres://{}", database.address())),
    ])
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
            Engine::Sqlite => {
                let database = server.database()?;
                database.busy_timeout(TIMEOUT)?;
                Ok(database.execute_batch(self.sqlite)?)
            }
            Engine::Postgres => {
                let database = postgres_database(&server.state)?;
                let mut client = database.superuser_config().connect(NoTls)?;
                Ok(client.batch_execute(self.postgres)?)
            }
        }
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
