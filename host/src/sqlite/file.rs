//! Statements on SQLite files.

use rusqlite::CachedStatement;
use rusqlite::types::ValueRef;
use tokio::sync::{mpsc, oneshot};

use super::limits::{RESULT_BYTES_MAX, row_bytes, too_large};
use crate::bindings::sqlite::{Error, QueryResult, RowResult, Value};

fn io_error(error: rusqlite::Error) -> Error {
    Error::Io(error.to_string())
}

/// Prepares the first statement of `sql`. The release of rusqlite that Spin builds
/// on leaves out the rest without a word; this one refuses it.
fn prepare<'a>(
    connection: &'a rusqlite::Connection,
    sql: &str,
) -> rusqlite::Result<CachedStatement<'a>> {
    match connection.prepare_cached(sql) {
        Err(rusqlite::Error::MultipleStatement) => {
            let mut beginnings = sql.match_indices(';').map(|(end, _)| &sql[..=end]);
            let first = beginnings.find(|beginning| connection.prepare(beginning).is_ok());
            connection.prepare_cached(first.unwrap_or(sql))
        }
        prepared => prepared,
    }
}

/// Runs the first statement of `statement` and collects its rows.
pub(super) fn query(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
    result_bytes_max: usize,
) -> Result<QueryResult, Error> {
    let mut statement = prepare(connection, statement).map_err(io_error)?;
    let columns = column_names(&statement);
    let mut cursor = statement.query(bound(parameters)).map_err(io_error)?;
    let mut rows = Vec::new();
    let mut result_bytes = size_of::<QueryResult>();
    while let Some(row) = cursor.next().map_err(io_error)? {
        let row = row_result(row, columns.len())?;
        result_bytes += row_bytes(&row);
        if result_bytes > result_bytes_max {
            return Err(too_large(result_bytes_max));
        }
        rows.push(row);
    }
    Ok(QueryResult { columns, rows })
}

/// Runs the first statement of `statement`, sending its columns and then each
/// row as it comes.
pub(super) fn send_rows(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
    columns_sender: oneshot::Sender<Vec<String>>,
    rows_sender: &mpsc::Sender<RowResult>,
) -> Result<(), Error> {
    let prepared = prepare(connection, statement);
    let columns = prepared.as_ref().map(|s| column_names(s)).unwrap_or_default();
    let column_count = columns.len();
    columns_sender.send(columns).map_err(|_| Error::Io("column send error".to_owned()))?;
    let mut statement = prepared.map_err(io_error)?;
    let mut cursor = statement.query(bound(parameters)).map_err(io_error)?;
    while let Some(row) = cursor.next().map_err(io_error)? {
        let row = row_result(row, column_count)?;
        if row_bytes(&row) > RESULT_BYTES_MAX {
            return Err(too_large(RESULT_BYTES_MAX));
        }
        rows_sender.blocking_send(row).map_err(|_| Error::Io("row send error".to_owned()))?;
    }
    Ok(())
}

fn column_names(statement: &rusqlite::Statement<'_>) -> Vec<String> {
    statement.column_names().into_iter().map(str::to_owned).collect()
}

fn bound(parameters: Vec<Value>) -> impl rusqlite::Params {
    rusqlite::params_from_iter(parameters.into_iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(integer) => rusqlite::types::Value::Integer(integer),
        Value::Real(real) => rusqlite::types::Value::Real(real),
        Value::Text(text) => rusqlite::types::Value::Text(text),
        Value::Blob(blob) => rusqlite::types::Value::Blob(blob),
    }))
}

fn row_result(row: &rusqlite::Row<'_>, column_count: usize) -> Result<RowResult, Error> {
    let values = (0..column_count)
        .map(|column| match row.get_ref(column).map_err(io_error)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(integer) => Ok(Value::Integer(integer)),
            ValueRef::Real(real) => Ok(Value::Real(real)),
            // SQLite stores what it is given; a text that is not UTF-8 cannot
            // pass to the guest as one.
            ValueRef::Text(text) => String::from_utf8(text.to_vec())
                .map(Value::Text)
                .map_err(|error| Error::Io(error.to_string())),
            ValueRef::Blob(blob) => Ok(Value::Blob(blob.to_vec())),
        })
        .collect::<Result<_, Error>>()?;
    Ok(RowResult { values })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::limits::ROWS_AHEAD_MAX;
    use super::*;
    use crate::database_file::DatabaseFile;
    use crate::resources::FileConnection;

    fn connection() -> FileConnection {
        FileConnection::new(Arc::new(DatabaseFile::new(None)), false)
    }

    fn run(
        connection: &FileConnection,
        statement: &str,
        parameters: &[Value],
    ) -> Result<QueryResult, Error> {
        connection.run(|opened| query(opened, statement, parameters.to_vec(), RESULT_BYTES_MAX))
    }

    #[test]
    fn values_go_in_and_come_out() {
        let blob = Value::Blob(vec![0, 255]);
        let given = [
            Value::Integer(i64::MIN),
            Value::Real(0.5),
            Value::Text("ä\0".into()),
            blob,
            Value::Null,
        ];
        let result = run(&connection(), "SELECT ? AS a, ?, ?, ?, ?", &given).expect("rows");
        assert_eq!(result.columns[0], "a");
        assert_eq!(format!("{:?}", result.rows[0].values), format!("{given:?}"));
    }

    #[test]
    fn only_the_first_statement_runs() {
        let connection = connection();
        run(&connection, "CREATE TABLE t (a); CREATE TABLE u (a)", &[]).expect("a table");
        run(&connection, "SELECT * FROM t", &[]).expect("the table");
        run(&connection, "SELECT * FROM u", &[]).expect_err("no second table");
    }

    #[test]
    fn files_cannot_be_attached() {
        let connection = connection();
        for (target, expected) in
            [("''", true), ("':memory:'", true), ("'x.db'", false), ("'file::memory:'", false)]
        {
            let attached = run(&connection, &format!("ATTACH {target} AS other"), &[]).is_ok();
            assert_eq!(attached, expected, "{target}");
            if attached {
                run(&connection, "DETACH other", &[]).expect("detached");
            }
        }
    }

    #[test]
    fn results_are_bounded() {
        let connection = connection();
        let three = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
        let bytes = size_of::<QueryResult>() + 3 * size_of::<Value>();
        let run = |bytes_max| connection.run(|opened| query(opened, three, Vec::new(), bytes_max));
        run(bytes).expect("it fits");
        let error = run(bytes - 1).expect_err("too large");
        assert!(error.to_string().contains("exceeds limit"), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        let error = run(&connection(), "SELECT CAST(x'ff' AS TEXT)", &[]).expect_err("not UTF-8");
        assert!(matches!(error, Error::Io(_)), "{error}");
    }

    #[test]
    fn errors_of_asynchronous_statements_follow_their_columns() {
        for (statement, columns, row_count, succeeds) in [
            ("SELECT 1 AS a UNION ALL SELECT 2", vec!["a"], 2, true),
            ("SELEC", vec![], 0, false),
            ("SELECT abs(-9223372036854775808) AS a", vec!["a"], 0, false),
        ] {
            let (columns_sender, columns_receiver) = oneshot::channel();
            let (rows_sender, mut rows) = mpsc::channel(ROWS_AHEAD_MAX);
            let result = connection().run(|opened| {
                send_rows(opened, statement, Vec::new(), columns_sender, &rows_sender)
            });
            assert_eq!(columns_receiver.blocking_recv().expect("columns"), columns, "{statement}");
            drop(rows_sender);
            let rows = std::iter::from_fn(|| rows.blocking_recv()).count();
            assert_eq!((rows, result.is_ok()), (row_count, succeeds), "{statement}");
        }
    }
}
