//! The rows of a result, column by column. What a value is, and what is read of it, each
//! engine adds.

use std::fmt::Debug;

use super::model::StoreError;

/// The columns of a row, from the first to the last.
pub(super) struct Columns<V>(std::vec::IntoIter<V>);

impl<V: Debug> Columns<V> {
    pub(super) fn of(row: Vec<V>) -> Self {
        Columns(row.into_iter())
    }

    /// Those of the one row that a statement returns.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn first_of(rows: Vec<Vec<V>>) -> Result<Self, StoreError> {
        rows.into_iter().next().map(Columns::of).ok_or_else(|| StoreError::unexpected("no row"))
    }

    /// What `read` makes of the next column. It gives back what is not `what` it expects.
    ///
    /// # Errors
    ///
    /// When there is no such column.
    pub(super) fn next<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(V) -> Result<T, V>,
    ) -> Result<T, StoreError> {
        let found = match self.0.next().map(read) {
            Some(Ok(value)) => return Ok(value),
            Some(Err(other)) => Some(other),
            None => None,
        };
        Err(StoreError::unexpected(format_args!("{found:?} where {what} was expected")))
    }
}
