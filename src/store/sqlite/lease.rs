//! Which instance is the one writer.
//!
//! A lease in a row of `counters`: when it ends, and whose it is. It keeps instances
//! from writing side by side and is no lock: what is right does not depend on it.

use std::rc::Rc;

use super::columns::Columns;
use super::fault::store_error;
use super::setup::{Place, never_checkpoint, wait_for};
use super::statement::{Statement, query};
use crate::platform::sqlite::{Sqlite, SqliteConnection};
use crate::store::marks::Lease;
use crate::store::model::StoreError;

/// The name of the row.
pub(super) const WRITER_LEASE: &str = "writer_lease";

/// A lease that seems to end by so much later than one that is taken now, in
/// milliseconds, is from a clock that was ahead, and holds nobody off. Who waited for a
/// lock does not know how late it is.
const AHEAD_MS_MAX: i64 = 10_000;

/// How long an instance that may become the writer waits for the write lock, in
/// milliseconds; it takes no calls meanwhile.
const TAKE_MS_MAX: u32 = 50;

/// Bits of the number that hold the holder; the moment that the lease ends stands above
/// them, in milliseconds since 1970.
const HOLDER_BITS: u32 = 20;

/// The statement that takes a lease, or prolongs it, and returns a row to whoever has
/// it then.
pub(super) fn take(lease: Lease) -> Statement {
    const TAKE: &str = "INSERT INTO counters (name, value) VALUES (?1, ((?3 + ?4) << ?5) | ?2) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value \
        WHERE value & ((1 << ?5) - 1) = ?2 OR value >> ?5 <= ?3 OR value >> ?5 > ?3 + ?6 \
        RETURNING name";
    let parameters = vec![
        WRITER_LEASE.into(),
        holder(lease).into(),
        lease.now.into(),
        lease.for_ms.into(),
        i64::from(HOLDER_BITS).into(),
        (Lease::MS + AHEAD_MS_MAX).into(),
    ];
    Statement { sql: TAKE.into(), parameters }
}

/// The same on a connection of its own, before anything else is asked of the store and
/// while nothing else of the instance runs: the connection, if it has the lease.
///
/// # Errors
///
/// What the store says; that it has not been set up yet is among it.
pub(crate) fn take_first(
    sqlite: &dyn Sqlite,
    lease: Lease,
) -> Result<Option<Rc<dyn SqliteConnection>>, StoreError> {
    // Most who ask have come too late; a look costs no lock.
    const HELD: &str = "SELECT count(*) FROM counters WHERE name = ?1 \
        AND value & ((1 << ?5) - 1) <> ?2 AND value >> ?5 > ?3 AND value >> ?5 <= ?3 + ?6";
    let connection = sqlite.open().map_err(store_error)?;
    if never_checkpoint(&*connection)? == Place::File {
        wait_for(&*connection, TAKE_MS_MAX)?;
    }
    let Statement { sql, parameters } = take(lease);
    let held = query(&*connection, HELD, parameters.clone())?;
    if Columns::first_of(held)?.integer()? > 0 || query(&*connection, &sql, parameters)?.is_empty()
    {
        return Ok(None);
    }
    Ok(Some(connection))
}

fn holder(lease: Lease) -> i64 {
    i64::from(lease.holder & ((1 << HOLDER_BITS) - 1))
}

#[cfg(test)]
mod tests;
