//! What a store holds, counted past the server that keeps it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};

use crate::postgres::FreshDatabase;

/// Queries that count what is in a database.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Events.
    pub rows: &'static str,
    /// Their distinct identities.
    pub identities: &'static str,
}

/// What was counted.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Events.
    pub all: u64,
    /// Their distinct identities.
    pub identities: u64,
}

/// A database, and what the benchmark knows of its schema.
#[derive(Clone, Debug)]
pub struct Database {
    kept: Kept,
    counts: Counts,
}

#[derive(Clone, Debug)]
enum Kept {
    Sqlite(PathBuf),
    Postgres(Arc<FreshDatabase>),
}

impl Database {
    /// A file of SQLite.
    pub fn sqlite(file: PathBuf, counts: Counts) -> Self {
        Database { kept: Kept::Sqlite(file), counts }
    }

    /// On a server of PostgreSQL.
    pub fn postgres(database: FreshDatabase, counts: Counts) -> Self {
        Database { kept: Kept::Postgres(Arc::new(database)), counts }
    }

    /// The one on a server of PostgreSQL, if it is one.
    pub fn on_postgres(&self) -> Option<&FreshDatabase> {
        match &self.kept {
            Kept::Sqlite(_) => None,
            Kept::Postgres(database) => Some(database),
        }
    }

    /// Counts what is in it.
    ///
    /// # Errors
    ///
    /// What SQLite or PostgreSQL says.
    pub fn rows(&self) -> Result<Rows> {
        let Counts { rows, identities } = self.counts;
        match &self.kept {
            Kept::Sqlite(file) => {
                let context = || format!("cannot count the rows of {}", file.display());
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let database = Connection::open_with_flags(file, flags).with_context(context)?;
                let count = |query| database.query_row(query, (), |row| row.get(0));
                let counted = || Ok(Rows { all: count(rows)?, identities: count(identities)? });
                counted().map_err(|error: rusqlite::Error| error).with_context(context)
            }
            Kept::Postgres(database) => {
                let counted = || {
                    let all = database.count(rows)?;
                    anyhow::Ok(Rows { all, identities: database.count(identities)? })
                };
                counted().context("cannot count the rows on PostgreSQL")
            }
        }
    }
}
