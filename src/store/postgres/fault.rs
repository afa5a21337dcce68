//! Errors → what kind of fault it is.

use crate::platform::postgres::PostgresError;
use crate::store::model::{Fault, StoreError};

/// What functions say while the store is being taken over from another version.
const TAKING_OVER: &str = "SK002";

/// Whether a store said that it is being taken over.
pub(super) fn is_taking_over(error: &StoreError) -> bool {
    error.message.starts_with(TAKING_OVER)
}

/// Sorts an error of opening a connection. Nothing was asked for yet.
pub(super) fn not_opened(error: PostgresError) -> StoreError {
    match error {
        PostgresError::Platform(message) => StoreError::unavailable(message),
        error @ PostgresError::Server { .. } => store_error(error),
    }
}

/// Sorts an error of a statement into a [`Fault`], by its SQLSTATE.
pub(super) fn store_error(error: PostgresError) -> StoreError {
    let is_lost = may_be_of_connection(&error);
    let (code, message) = match error {
        PostgresError::Platform(message) => return StoreError::indeterminate(message),
        PostgresError::Server { code, message } => (code, message),
    };
    let fault = match code.as_str() {
        // Others hold what is needed: serialization, deadlock, a lock that was not given
        // in time, too many connections, a statement that was cut off.
        "40001" | "40P01" | "55P03" | "53300" | "57014" => Fault::Busy,
        // The server is coming up.
        "57P03" => Fault::Busy,
        TAKING_OVER => Fault::Busy,
        "53100" => Fault::Full,
        // Had it committed, it could not say so any more.
        _ if is_lost => Fault::Indeterminate,
        _ => Fault::Unavailable,
    };
    StoreError { fault, message: format!("{code} {message}") }
}

/// Whether the schema, or a function of it, is not there.
pub(super) fn is_without_schema(error: &PostgresError) -> bool {
    // Undefined: schema, table, function.
    matches!(error, PostgresError::Server { code, .. }
        if matches!(code.as_str(), "3F000" | "42P01" | "42883"))
}

/// Whether another connection may do better.
pub(super) fn may_be_of_connection(error: &PostgresError) -> bool {
    match error {
        PostgresError::Platform(_) => true,
        // Connection exceptions, and what an operator or a crash ends.
        PostgresError::Server { code, .. } => code.starts_with("08") || code.starts_with("57P"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_by_their_codes() {
        for (code, expected) in [
            ("55P03", Fault::Busy),
            ("40P01", Fault::Busy),
            ("57P01", Fault::Indeterminate),
            ("57P03", Fault::Busy),
            ("08006", Fault::Indeterminate),
            ("53300", Fault::Busy),
            ("53100", Fault::Full),
            ("25006", Fault::Unavailable),
            ("28P01", Fault::Unavailable),
        ] {
            let error =
                PostgresError::Server { code: code.to_owned(), message: "words".to_owned() };
            let error = store_error(error);
            assert_eq!((error.fault, error.message), (expected, format!("{code} words")));
        }
    }
}
