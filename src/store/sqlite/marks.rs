//! Moments that instances note for each other: rows of `counters` whose names
//! begin with `mark/`.

use super::columns::Columns;
use super::statement::{Statement, query};
use crate::platform::sqlite::SqliteConnection;
use crate::store::model::{Claim, Marks, StoreError};
use crate::time::UnixMillis;

/// All marks.
///
/// # Errors
///
/// What the store says.
pub(crate) fn all(connection: &dyn SqliteConnection) -> Result<Marks, StoreError> {
    // A range of the primary key: '0' comes after '/'.
    const MARKS: &str =
        "SELECT substr(name, 6), value FROM counters WHERE name >= 'mark/' AND name < 'mark0'";
    let mut marks = Marks::default();
    for row in query(connection, MARKS, Vec::new())? {
        let mut columns = Columns::of(row);
        marks.0.insert(columns.text()?, columns.integer()?);
    }
    Ok(marks)
}

/// The statement that sets `marks`.
///
/// # Errors
///
/// None that names can cause.
pub(super) fn set(marks: &[(&str, UnixMillis)]) -> Result<Statement, StoreError> {
    const SET: &str = "INSERT INTO counters (name, value) \
        SELECT 'mark/' || (value ->> 0), value ->> 1 FROM json_each(?1) WHERE true \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    let marks = serde_json::to_string(marks).map_err(StoreError::unexpected)?;
    Ok(Statement { sql: SET.into(), parameters: vec![marks.into()] })
}

/// The statement that makes a claim, and returns a row to whoever has it.
pub(super) fn claim(claim: Claim<'_>) -> Statement {
    const CLAIM: &str = "INSERT INTO counters (name, value) VALUES ('mark/' || ?1, ?2 + ?3) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value \
        WHERE value <= ?2 OR value > ?2 + 2 * ?3 RETURNING name";
    let parameters = vec![claim.mark.into(), claim.now.into(), claim.for_ms.into()];
    Statement { sql: CLAIM.into(), parameters }
}
