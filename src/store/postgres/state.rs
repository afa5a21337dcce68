//! What the service keeps beside events: replicas share it, as they share the events.

use async_trait::async_trait;

use super::PostgresStore;
use super::columns::Columns;
use super::statement::Statement;
use crate::platform::postgres::Value;
use crate::platform::{KeyValue, KeyValueError};
use crate::store::model::StoreError;

#[async_trait(?Send)]
impl KeyValue for PostgresStore {
    /// Its calls hold up nobody.
    fn is_free(&self) -> bool {
        true
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        const GET: &str = "SELECT (SELECT s.value FROM sekali.state s WHERE s.key = $1)";
        let statement = Statement { sql: GET, parameters: vec![key.into()] };
        let rows = self.run(statement).await;
        rows.and_then(|rows| Columns::first_of(rows)?.optional_bytes()).map_err(key_value_error)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        const SET: &str = "INSERT INTO sekali.state (key, value) VALUES ($1, $2) \
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let parameters = vec![key.into(), Value::Bytes(value.to_vec())];
        let rows = self.run(Statement { sql: SET, parameters }).await;
        rows.map(drop).map_err(key_value_error)
    }
}

fn key_value_error(error: StoreError) -> KeyValueError {
    KeyValueError(error.message)
}
