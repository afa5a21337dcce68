//! Moments that instances note for each other.

use super::columns::Columns;
use super::statement::Statement;
use crate::platform::postgres::{Row, Value};
use crate::store::marks::{Claim, Claimed, Marks};
use crate::store::model::StoreError;
use crate::time::UnixMillis;

/// All marks.
pub(super) fn all() -> Statement {
    const ALL: &str = "SELECT array_agg(m.name), array_agg(m.at) FROM sekali.marks m";
    Statement { sql: ALL, parameters: Vec::new() }
}

/// The marks that [`all`] returned.
///
/// # Errors
///
/// When the row is none of marks.
pub(super) fn marks(rows: Vec<Row>) -> Result<Marks, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let (names, moments) = (columns.texts()?, columns.integers()?);
    Ok(Marks(names.into_iter().zip(moments).collect()))
}

/// Sets `marks`. In the order of their names, so that nobody waits for somebody who
/// waits for them.
pub(super) fn set(marks: &[(&str, UnixMillis)]) -> Statement {
    const SET: &str = "INSERT INTO sekali.marks AS m (name, at) \
        SELECT d.name, d.at FROM unnest($1::text[], $2::bigint[]) AS d(name, at) ORDER BY d.name \
        ON CONFLICT (name) DO UPDATE SET at = excluded.at";
    Statement { sql: SET, parameters: names_and_moments(marks).into() }
}

fn names_and_moments(marks: &[(&str, UnixMillis)]) -> [Value; 2] {
    let names = marks.iter().map(|(name, _)| Some((*name).to_owned())).collect();
    let moments = marks.iter().map(|(_, at)| Some(*at)).collect();
    [Value::Texts(names), Value::Integers(moments)]
}

/// Gives a claim back and sets `marks`, if it is not another's.
pub(super) fn release(claimed: Claimed<'_>, marks: &[(&str, UnixMillis)]) -> Statement {
    const RELEASE: &str = "WITH released AS (UPDATE sekali.marks m SET at = 0 \
        WHERE m.name = $3 AND m.at = $4 RETURNING m.name) \
        INSERT INTO sekali.marks AS m (name, at) \
        SELECT d.name, d.at FROM unnest($1::text[], $2::bigint[]) AS d(name, at) \
        WHERE EXISTS (SELECT FROM released) ORDER BY d.name \
        ON CONFLICT (name) DO UPDATE SET at = excluded.at";
    let [names, moments] = names_and_moments(marks);
    let parameters = vec![names, moments, claimed.mark.into(), claimed.until.into()];
    Statement { sql: RELEASE, parameters }
}

/// Makes a claim, and returns a row to whoever has it.
pub(super) fn claim(claim: Claim<'_>) -> Statement {
    const CLAIM: &str = "INSERT INTO sekali.marks AS m (name, at) \
        VALUES ($1, $2::bigint + $3::bigint) \
        ON CONFLICT (name) DO UPDATE SET at = excluded.at \
        WHERE m.at <= $2 OR m.at > $2 + 2 * $3 RETURNING m.at";
    let parameters = vec![claim.mark.into(), claim.now.into(), claim.for_ms.into()];
    Statement { sql: CLAIM, parameters }
}
