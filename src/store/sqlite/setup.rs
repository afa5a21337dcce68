//! A connection made ready: its settings, and a schema of this version.

use super::columns::Columns;
use super::server;
use super::statement::query;
use crate::platform::sqlite::{SqliteConnection, Value};
use crate::store::model::StoreError;
use crate::time::UnixMillis;

pub(super) const SCHEMA: &str = include_str!("schema.sql");
pub(super) const SCHEMA_FROM_1: &str = include_str!("schema_from_1.sql");
pub(super) const SCHEMA_FROM_4: &str = include_str!("schema_from_4.sql");
pub(super) const SCHEMA_VERSION: i64 = 5;

/// How long a statement waits for another writer, in milliseconds. SQLite
/// looks again after 1 ms and after 3. Longer, and the batch in the statement
/// could not grow while it waits; shorter, and most of the time would go into
/// statements that fail.
const BUSY_TIMEOUT_MS: u32 = 3;

/// How many pages a connection keeps that commits large groups, in KiB. SQLite's 2,000 are
/// full when some 500 events have each changed a page of the index of identities, and what
/// there is no room for is written to the log before the commit, and read from it again.
const LARGE_GROUPS_CACHE_KIB: u32 = 16 * 1024;

/// Where a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file.
    File,
    /// On a libSQL server.
    Server,
}

/// What a connection can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// To read and to write.
    Whole,
    /// To be taken over from an earlier version (`take_over.rs`).
    OfEarlierVersion,
}

/// Makes a connection ready that [`never_checkpoint`] was called for: its settings,
/// and a schema. Three statements and no write when that is of this version, since
/// every instance begins with it.
///
/// # Errors
///
/// What the store says; the next call tries again.
pub(super) fn make_ready(
    connection: &dyn SqliteConnection,
    place: Place,
    now: UnixMillis,
) -> Result<Readiness, StoreError> {
    // The platform's own busy timeout (5 s) still holds here: switching to WAL
    // and creating the schema take locks that an instance which is closing its
    // connection may hold for a moment.
    let mut found = settings(connection)?;
    if place == Place::File && found != READY {
        let mode = query(connection, "PRAGMA journal_mode = WAL", Vec::new())?;
        if let Some([Value::Text(mode)]) = mode.first().map(Vec::as_slice)
            && !matches!(mode.as_str(), "wal" | "memory")
        {
            return Err(StoreError::unavailable(format!(
                "journal_mode stays {mode}, WAL is needed"
            )));
        }
        query(connection, "PRAGMA synchronous = FULL", Vec::new())?;
        found = settings(connection)?;
    }
    let readiness = match found.user_version {
        SCHEMA_VERSION => Readiness::Whole,
        // Unless one of an earlier version was begun.
        0 if !has(connection, "event_log", "UNIQUE")? => {
            run_script(connection, SCHEMA, now)?;
            query(connection, &format!("PRAGMA user_version = {SCHEMA_VERSION}"), Vec::new())?;
            Readiness::Whole
        }
        0..SCHEMA_VERSION => Readiness::OfEarlierVersion,
        other => {
            return Err(StoreError::unavailable(format!(
                "the database has schema version {other}, this component knows {SCHEMA_VERSION}"
            )));
        }
    };
    if place == Place::File {
        hardly_wait(connection)?;
    }
    Ok(readiness)
}

/// Keeps a connection from making checkpoints when it commits: see `checkpoint.rs`.
/// The first statement of every connection, which also tells where the database is.
///
/// # Errors
///
/// What the store says.
pub(super) fn never_checkpoint(connection: &dyn SqliteConnection) -> Result<Place, StoreError> {
    match query(connection, "PRAGMA wal_autocheckpoint = 0", Vec::new()) {
        Ok(_) => Ok(Place::File),
        Err(error) if server::is_refused(&error) => Ok(Place::Server),
        Err(error) => Err(error),
    }
}

/// Has a connection wait for other writers as little as ours do.
///
/// # Errors
///
/// What the store says.
pub(super) fn hardly_wait(connection: &dyn SqliteConnection) -> Result<(), StoreError> {
    wait_for(connection, BUSY_TIMEOUT_MS)
}

/// Has a connection wait for other writers for so many milliseconds.
///
/// # Errors
///
/// What the store says.
pub(super) fn wait_for(connection: &dyn SqliteConnection, ms: u32) -> Result<(), StoreError> {
    query(connection, &format!("PRAGMA busy_timeout = {ms}"), Vec::new()).map(drop)
}

/// Has a connection keep the pages of a large group of events in memory.
///
/// # Errors
///
/// What the store says.
pub(super) fn keep_large_groups(connection: &dyn SqliteConnection) -> Result<(), StoreError> {
    let keep = format!("PRAGMA cache_size = -{LARGE_GROUPS_CACHE_KIB}");
    query(connection, &keep, Vec::new()).map(drop)
}

/// What a connection finds.
#[derive(PartialEq)]
struct Settings {
    wal: bool,
    synchronous_full: bool,
    user_version: i64,
}

/// What it finds when all is done.
const READY: Settings =
    Settings { wal: true, synchronous_full: true, user_version: SCHEMA_VERSION };

fn settings(connection: &dyn SqliteConnection) -> Result<Settings, StoreError> {
    // To read sqlite_schema has the connection notice a schema that changed
    // since it read it, while another instance created it; a pragma does not.
    const SETTINGS: &str = "SELECT journal_mode, synchronous, user_version \
        FROM pragma_journal_mode, pragma_synchronous, pragma_user_version, \
          (SELECT count(*) FROM sqlite_schema)";
    const SYNCHRONOUS_FULL: i64 = 2;
    let rows = query(connection, SETTINGS, Vec::new())?;
    let mut columns = Columns::first_of(rows)?;
    Ok(Settings {
        wal: columns.text()? == "wal",
        synchronous_full: columns.integer()? == SYNCHRONOUS_FULL,
        user_version: columns.integer()?,
    })
}

/// Whether a table is there, and of its definition whether it has a word.
///
/// # Errors
///
/// What the store says.
pub(super) fn has(
    connection: &dyn SqliteConnection,
    table: &str,
    word: &str,
) -> Result<bool, StoreError> {
    const HAS: &str = "SELECT count(*) FROM sqlite_schema \
        WHERE type = 'table' AND name = ?1 AND sql LIKE '%' || ?2 || '%'";
    let rows = query(connection, HAS, vec![table.into(), word.into()])?;
    Ok(Columns::first_of(rows)?.integer()? > 0)
}

/// Runs a script, statement by statement.
///
/// # Errors
///
/// What the store says.
pub(super) fn run_script(
    connection: &dyn SqliteConnection,
    script: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for statement in statements(script) {
        run_statement(connection, statement, now)?;
    }
    Ok(())
}

/// Makes all tables but that of events.
///
/// # Errors
///
/// What the store says.
pub(super) fn run_tables(
    connection: &dyn SqliteConnection,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for statement in statements(SCHEMA) {
        let first = statement.lines().find(|line| !line.is_empty() && !line.starts_with("--"));
        let first = first.unwrap_or_default();
        let is_table =
            ["CREATE TABLE", "CREATE INDEX", "INSERT"].iter().any(|what| first.starts_with(what));
        if is_table && !first.contains("event_log") {
            run_statement(connection, statement, now)?;
        }
    }
    Ok(())
}

pub(super) fn run_statement(
    connection: &dyn SqliteConnection,
    statement: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let parameters = if statement.contains("?1") { vec![now.into()] } else { Vec::new() };
    query(connection, statement, parameters).map(drop)
}

pub(super) fn statements(script: &'static str) -> impl Iterator<Item = &'static str> {
    script.split(";\n\n").map(|statement| statement.trim().trim_end_matches(';')).filter(
        |statement| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--")),
    )
}
