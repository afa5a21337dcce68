//! SQLite's words → what kind of fault it is.

use super::server;
use crate::platform::sqlite::SqliteError;
use crate::store::model::{Fault, StoreError};

/// Sorts an error into a [`Fault`].
///
/// Spin hands most errors of SQLite on as text alone (`error.io(string)`), so
/// the text is all there is to tell them apart by. The texts are those of
/// `sqlite3ErrStr` in SQLite's `main.c`, which are stable.
pub(super) fn store_error(error: SqliteError) -> StoreError {
    if let SqliteError::Sqlite(message) = &error
        && let Some(fault) = server::fault_of(message)
    {
        return StoreError { fault, message: message.clone() };
    }
    match error {
        SqliteError::Sqlite(message) if message.contains("is locked") => StoreError::busy(message),
        SqliteError::Sqlite(message) if message.contains("is full") => {
            StoreError { fault: Fault::Full, message }
        }
        SqliteError::Full => {
            StoreError { fault: Fault::Full, message: "the database is full".to_owned() }
        }
        SqliteError::Sqlite(message) | SqliteError::Platform(message) => {
            StoreError::unavailable(message)
        }
    }
}
