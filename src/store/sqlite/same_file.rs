//! Whether the connection of an instance is to the database that others find.
//!
//! A file that is deleted, moved or replaced stays with those that have it open:
//! they would go on to commit into what nobody finds again. Statements do not
//! tell, a new connection does: it opens what is at the path now. So an instance
//! looks before it writes, when it has not looked for a while. Most instances
//! do not live that long; one that has a stream open does.
//!
//! A platform that looks itself (the embedded host does, before each result)
//! makes this superfluous; Spin does not look.

use super::columns::Columns;
use super::statement::query;
use crate::platform::sqlite::SqliteConnection;
use crate::store::model::StoreError;

/// How long an instance believes what it last saw, in milliseconds: for as long,
/// on such a platform, it may acknowledge what is lost.
pub(super) const LOOK_INTERVAL_MS: u64 = 1000;

/// Compares the database of `kept` with that of `found`, which was opened after it.
///
/// # Errors
///
/// When they are not the same one, and what the store says.
pub(super) fn check(
    kept: &dyn SqliteConnection,
    found: &dyn SqliteConnection,
) -> Result<(), StoreError> {
    let kept = Place::of(kept)?;
    let why = match Place::of(found) {
        // There are only ever more events, and `kept` was asked first.
        Ok(found) if found.created_at == kept.created_at && found.newest >= kept.newest => {
            return Ok(());
        }
        Ok(_) => "it holds other events".to_owned(),
        Err(error) if error.is_busy() => return Err(error),
        Err(error) => error.message,
    };
    Err(StoreError::unavailable(format!(
        "the database was deleted, moved or replaced since it was opened: {why}"
    )))
}

/// What tells one database from another.
struct Place {
    created_at: i64,
    newest: i64,
}

impl Place {
    fn of(connection: &dyn SqliteConnection) -> Result<Self, StoreError> {
        const PLACE: &str = "SELECT created_at, (SELECT coalesce(max(seq), 0) FROM event_log) \
            FROM service";
        let mut columns = Columns::first_of(query(connection, PLACE, Vec::new())?)?;
        Ok(Place { created_at: columns.integer()?, newest: columns.integer()? })
    }
}
