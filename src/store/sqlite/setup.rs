//! A connection made ready: its settings, and a schema of this version.

use super::columns::Columns;
use crate::platform::{Database, StoreError, Value};
use crate::time::UnixMillis;

pub(super) const SCHEMA: &str = include_str!("schema.sql");
pub(super) const SCHEMA_FROM_1: &str = include_str!("schema_from_1.sql");
pub(super) const SCHEMA_FROM_2: &str = include_str!("schema_from_2.sql");
const SCHEMA_VERSION: i64 = 3;

/// How long a statement waits for another writer, in milliseconds. SQLite
/// looks again after 1 ms and after 3. Longer, and the batch in the statement
/// could not grow while it waits; shorter, and most of the time would go into
/// statements that fail.
const BUSY_TIMEOUT_MS: u32 = 3;

/// Makes the connection ready: its settings, and a schema of this version.
/// Free when it was done before; two statements and no write when the schema
/// is there, since every instance begins with it.
///
/// # Errors
///
/// What the store says; the next call tries again.
pub async fn ensure_ready(db: &impl Database, now: UnixMillis) -> Result<(), StoreError> {
    if db.is_ready() {
        return Ok(());
    }
    // The platform's own busy timeout (5 s) still holds here: switching to WAL
    // and creating the schema take locks that an instance which is closing its
    // connection may hold for a moment.
    let mut found = settings(db).await?;
    if found != READY {
        let mode = db.execute("PRAGMA journal_mode = WAL", Vec::new()).await?;
        if let Some([Value::Text(mode)]) = mode.first().map(Vec::as_slice)
            && !matches!(mode.as_str(), "wal" | "memory")
        {
            return Err(StoreError::unavailable(format!(
                "journal_mode stays {mode}, WAL is needed"
            )));
        }
        db.execute("PRAGMA synchronous = FULL", Vec::new()).await?;
        found = settings(db).await?;
    }
    match found.user_version {
        SCHEMA_VERSION => {}
        version @ 0..SCHEMA_VERSION => create_schema(db, now, version).await?,
        other => {
            return Err(StoreError::unavailable(format!(
                "the database has schema version {other}, this component knows {SCHEMA_VERSION}"
            )));
        }
    }
    db.execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}"), Vec::new()).await?;
    db.set_ready();
    Ok(())
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

async fn settings(db: &impl Database) -> Result<Settings, StoreError> {
    // The look at sqlite_schema has the connection notice a schema that changed
    // since it read it, while another instance created it; a pragma does not.
    const SETTINGS: &str = "SELECT journal_mode, synchronous, user_version \
        FROM pragma_journal_mode, pragma_synchronous, pragma_user_version, \
          (SELECT count(*) FROM sqlite_schema)";
    const SYNCHRONOUS_FULL: i64 = 2;
    let rows = db.execute(SETTINGS, Vec::new()).await?;
    let mut columns = Columns::first_of(rows)?;
    Ok(Settings {
        wal: columns.text()? == "wal",
        synchronous_full: columns.integer()? == SYNCHRONOUS_FULL,
        user_version: columns.integer()?,
    })
}

async fn create_schema(db: &impl Database, now: UnixMillis, from: i64) -> Result<(), StoreError> {
    run_script(db, SCHEMA, now).await?;
    if from == 1 {
        const EVENTS_1: &str =
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'events'";
        let rows = db.execute(EVENTS_1, Vec::new()).await?;
        if Columns::first_of(rows)?.integer()? > 0 {
            run_script(db, SCHEMA_FROM_1, now).await?;
        }
        for emptied in ["topics", "verdict"] {
            db.execute(&format!("DROP TABLE IF EXISTS {emptied}"), Vec::new()).await?;
        }
        // Once more, for the view that has the name of that table now.
        run_script(db, SCHEMA, now).await?;
    }
    if from == 2 {
        run_script(db, SCHEMA_FROM_2, now).await?;
    }
    db.execute(&format!("PRAGMA user_version = {SCHEMA_VERSION}"), Vec::new()).await?;
    Ok(())
}

async fn run_script(
    db: &impl Database,
    script: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for statement in statements(script) {
        run_statement(db, statement, now).await?;
    }
    Ok(())
}

pub(super) async fn run_statement(
    db: &impl Database,
    statement: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let parameters = if statement.contains("?1") { vec![now.into()] } else { Vec::new() };
    db.execute(statement, parameters).await.map(drop)
}

pub(super) fn statements(script: &'static str) -> impl Iterator<Item = &'static str> {
    script.split(";\n\n").map(|statement| statement.trim().trim_end_matches(';')).filter(
        |statement| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--")),
    )
}
