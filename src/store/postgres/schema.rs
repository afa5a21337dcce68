//! Makes the schema.

use super::fault;
use crate::platform::postgres::PostgresConnection;
use crate::store::model::StoreError;
use crate::text::{compressed, decompressed};

/// Version 1, as one statement that does nothing if it is there; and from version 1 to 2,
/// in the same way.
const SCHEMAS: [&[u8]; 2] = [compressed!("schema.sql"), compressed!("schema_from_1.sql")];

/// Makes what is not there of the schema.
///
/// # Errors
///
/// What the store says, such as that the role may not.
pub(super) async fn make(connection: &dyn PostgresConnection) -> Result<(), StoreError> {
    for compressed in SCHEMAS {
        let schema = decompressed(compressed).map_err(StoreError::unexpected)?;
        let schema = String::from_utf8(schema).map_err(StoreError::unexpected)?;
        connection.query(&schema, Vec::new()).await.map_err(|error| {
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
