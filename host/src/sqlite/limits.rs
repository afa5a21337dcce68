//! How large the results of statements may be.

use crate::bindings::sqlite::{Error, RowResult, Value};

/// The result of one synchronous statement, or one row of an asynchronous one.
pub(super) const RESULT_BYTES_MAX: usize = 128 << 20;
/// Rows that an asynchronous statement may be ahead of the guest.
pub(super) const ROWS_AHEAD_MAX: usize = 4;

/// What a result of more than `result_bytes_max` is refused with.
pub(super) fn too_large(result_bytes_max: usize) -> Error {
    Error::Io(format!("query result exceeds limit of {result_bytes_max} bytes"))
}

/// What a row takes in memory.
pub(super) fn row_bytes(row: &RowResult) -> usize {
    let value_bytes = |value: &Value| {
        size_of::<Value>()
            + match value {
                Value::Text(text) => text.len(),
                Value::Blob(blob) => blob.len(),
                Value::Integer(_) | Value::Real(_) | Value::Null => 0,
            }
    };
    row.values.iter().map(value_bytes).sum()
}
