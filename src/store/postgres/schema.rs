//! Makes the schema.

use super::fault;
use crate::platform::postgres::PostgresConnection;
use crate::store::model::StoreError;

/// Version 1, as one statement that does nothing if it is there.
pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// From version 1 to 2, in the same way.
pub(super) const SCHEMA_FROM_1: &str = include_str!("schema_from_1.sql");

/// Makes what is not there of the schema.
///
/// # Errors
///
/// What the store says, such as that the role may not.
pub(super) async fn make(connection: &dyn PostgresConnection) -> Result<(), StoreError> {
    for schema in [SCHEMA, SCHEMA_FROM_1] {
        connection.query(schema, Vec::new()).await.map_err(|error| {
            let error = fault::store_error(error);
            let message = format!(
                "the schema cannot be made or brought up to date: {}; its owner has to run \
                 schema.sql, schema_from_1.sql and grants.sql if this role may not",
                error.message
            );
            StoreError { message, ..error }
        })?;
    }
    Ok(())
}
