//! Moments that instances note for each other: rows of `counters` whose names
//! begin with `mark/`.

use super::columns::Columns;
use super::statement::{Statement, query};
use crate::platform::sqlite::SqliteConnection;
use crate::store::marks::{Claim, Claimed, Marks};
use crate::store::model::StoreError;
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

/// The condition that a claim, whose mark is `?2` and whose end is `?3`, is not another's.
macro_rules! is_claimed {
    () => {
        "EXISTS (SELECT 1 FROM counters WHERE name = 'mark/' || ?2 AND value = ?3)"
    };
}
pub(super) use is_claimed;

/// The beginning and the end of the statement that sets the marks in `?1`, on a condition.
macro_rules! set_where {
    ($condition:expr) => {
        concat!(
            "INSERT INTO counters (name, value) \
             SELECT 'mark/' || (value ->> 0), value ->> 1 FROM json_each(?1) WHERE ",
            $condition,
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
    };
}

/// The statement that sets `marks`.
///
/// # Errors
///
/// None that names can cause.
pub(super) fn set(marks: &[(&str, UnixMillis)]) -> Result<Statement, StoreError> {
    let marks = serde_json::to_string(marks).map_err(StoreError::unexpected)?;
    Ok(Statement { sql: set_where!("true").into(), parameters: vec![marks.into()] })
}

/// The statement that gives a claim back and sets `marks`, if it is not another's.
///
/// # Errors
///
/// None that names can cause.
pub(super) fn release(
    claimed: Claimed<'_>,
    marks: &[(&str, UnixMillis)],
) -> Result<Statement, StoreError> {
    let marks = [marks, &[(claimed.mark, 0)]].concat();
    let marks = serde_json::to_string(&marks).map_err(StoreError::unexpected)?;
    let parameters = vec![marks.into(), claimed.mark.into(), claimed.until.into()];
    Ok(Statement { sql: set_where!(is_claimed!()).into(), parameters })
}

/// The statement that makes a claim, and returns a row to whoever has it.
pub(super) fn claim(claim: Claim<'_>) -> Statement {
    const CLAIM: &str = "INSERT INTO counters (name, value) VALUES ('mark/' || ?1, ?2 + ?3) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value \
        WHERE value <= ?2 OR value > ?2 + 2 * ?3 RETURNING name";
    let parameters = vec![claim.mark.into(), claim.now.into(), claim.for_ms.into()];
    Statement { sql: CLAIM.into(), parameters }
}
