//! What holds for a result of any store, and how an error is told.

use std::fmt::Debug;

use crate::bindings::key_value::Error;

/// One value, or one key of a listing.
const RESULT_BYTES_MAX: usize = 128 << 20;
/// Keys that a listing may be ahead of the guest.
pub(super) const KEYS_AHEAD_MAX: usize = 4;

/// A value, if the guest may be given it.
///
/// # Errors
///
/// That it is too large.
pub(super) fn value(value: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
    let value_bytes = size_of_val(&value) + value.as_ref().map_or(0, Vec::len);
    if value_bytes > RESULT_BYTES_MAX { Err(too_large()) } else { Ok(value) }
}

/// A key of a listing, if the guest may be given it.
///
/// # Errors
///
/// That it is too large.
pub(super) fn key(key: String) -> Result<String, Error> {
    if key.len() > RESULT_BYTES_MAX { Err(too_large()) } else { Ok(key) }
}

/// Spin gives the guest the error in its `Debug` form.
pub(super) fn other(error: impl Debug) -> Error {
    Error::Other(format!("{error:?}"))
}

fn too_large() -> Error {
    Error::Other(format!("query result exceeds limit of {RESULT_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_of_128_mib_with_what_holds_it() {
        let room = RESULT_BYTES_MAX - size_of::<Option<Vec<u8>>>();
        assert!(value(None).is_ok());
        assert!(value(Some(vec![0; room])).is_ok());
        assert!(matches!(value(Some(vec![0; room + 1])), Err(Error::Other(_))));
        assert!(key("a".repeat(RESULT_BYTES_MAX)).is_ok());
        assert!(matches!(key("a".repeat(RESULT_BYTES_MAX + 1)), Err(Error::Other(_))));
    }
}
