//! Statements as they are asked for, and what comes of them, in the JSON of Hrana.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use rusqlite::types::{Value as Bound, ValueRef};
use rusqlite::{Connection, ErrorCode};
use serde_json::{Value, json};

/// Runs a statement, to its end whoever hears of it. An error may come after rows, since
/// the commit is what comes last.
pub fn run(connection: &Connection, asked: &Value, mut entry: impl FnMut(Value)) {
    if let Err(error) = steps(connection, asked, &mut entry) {
        let code = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => "SQLITE_BUSY",
            Some(ErrorCode::ConstraintViolation) => "SQLITE_CONSTRAINT",
            _ => "SQLITE_UNKNOWN",
        };
        let error = json!({"message": format!("SQLite error: {error}"), "code": code});
        entry(json!({"type": "step_error", "step": 0, "error": error}));
    }
}

fn steps(
    connection: &Connection,
    asked: &Value,
    entry: &mut impl FnMut(Value),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(asked["sql"].as_str().unwrap_or_default())?;
    for (index, value) in asked["args"].as_array().into_iter().flatten().enumerate() {
        let value = bound(value).ok_or(rusqlite::Error::InvalidQuery)?;
        statement.raw_bind_parameter(index + 1, value)?;
    }
    let names = statement.column_names();
    let columns: Vec<Value> = names.into_iter().map(|name| json!({"name": name})).collect();
    let count = columns.len();
    entry(json!({"type": "step_begin", "step": 0, "cols": columns}));
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let values = (0..count).map(|column| row.get_ref(column).map(told));
        let values = values.collect::<rusqlite::Result<Vec<Value>>>()?;
        entry(json!({"type": "row", "row": values}));
    }
    entry(json!({"type": "step_end", "affected_row_count": 0, "last_insert_rowid": null}));
    Ok(())
}

fn bound(value: &Value) -> Option<Bound> {
    let text = || value["value"].as_str();
    Some(match value["type"].as_str()? {
        "null" => Bound::Null,
        "integer" => Bound::Integer(text()?.parse().ok()?),
        "float" => Bound::Real(value["value"].as_f64()?),
        "text" => Bound::Text(text()?.to_owned()),
        "blob" => {
            let base64 = value["base64"].as_str()?.trim_end_matches('=');
            Bound::Blob(BASE64_STANDARD_NO_PAD.decode(base64).ok()?)
        }
        _ => return None,
    })
}

fn told(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => json!({"type": "null"}),
        ValueRef::Integer(integer) => json!({"type": "integer", "value": integer.to_string()}),
        ValueRef::Real(real) => json!({"type": "float", "value": real}),
        ValueRef::Text(text) => {
            json!({"type": "text", "value": String::from_utf8_lossy(text)})
        }
        ValueRef::Blob(blob) => {
            json!({"type": "blob", "base64": BASE64_STANDARD_NO_PAD.encode(blob)})
        }
    }
}
