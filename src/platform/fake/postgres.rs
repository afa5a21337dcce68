//! PostgreSQL for native unit tests: a real server, by a client that blocks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::rc::Rc;

use async_trait::async_trait;
use temporary_postgres::Database;
use temporary_postgres::postgres::types::private::BytesMut;
use temporary_postgres::postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use temporary_postgres::postgres::{self, Client, Config, NoTls};

use super::{FakePlatform, yield_once};
use crate::platform::postgres::{Postgres, PostgresConnection, PostgresError, Row, Value};

/// Sessions of a connection, whose statements go to one after the other.
const SESSIONS: usize = 2;

/// A database of its own; none where PostgreSQL is not installed, which is said once.
/// Where tests must not be skipped, that is a failure.
pub(crate) fn database() -> Option<Database> {
    let is_available = temporary_postgres::is_available_or_skip();
    is_available
        .unwrap_or_else(|error| panic!("{error}"))
        .then(|| temporary_postgres::shared().and_then(|server| server.database()))
        .map(|database| database.unwrap_or_else(|error| panic!("{error}")))
}

/// The way to PostgreSQL of a platform, and what goes wrong on it.
#[derive(Default)]
pub(crate) struct FakePostgres {
    /// Every statement that was run, on all connections.
    pub(crate) statements: RefCell<Vec<String>>,
    /// What the next statements meet, in this order.
    pub(crate) faults: RefCell<VecDeque<PostgresError>>,
    /// What the next attempts to open a connection meet, in this order.
    pub(crate) open_faults: RefCell<VecDeque<PostgresError>>,
    /// How many connections were opened.
    pub(crate) opened: Cell<usize>,
    /// All connections that there may be are taken: to open one takes until that has
    /// changed.
    pub(crate) is_full: Cell<bool>,
}

#[async_trait(?Send)]
impl Postgres for FakePlatform {
    async fn open(&self, address: &str) -> Result<Rc<dyn PostgresConnection>, PostgresError> {
        let postgres = Rc::clone(&self.postgres);
        yield_once().await;
        while postgres.is_full.get() {
            yield_once().await;
        }
        if let Some(fault) = postgres.open_faults.borrow_mut().pop_front() {
            return Err(fault);
        }
        let config: Config = address.parse().map_err(on_the_way)?;
        let session = |_| config.connect(NoTls).map_err(on_the_way);
        let sessions = (0..SESSIONS).map(session).collect::<Result<_, _>>()?;
        postgres.opened.set(postgres.opened.get() + 1);
        Ok(Rc::new(Connection { postgres, sessions: RefCell::new(sessions) }))
    }
}

/// Each statement has another session than the one before it, so what a session keeps
/// is not there when it is relied on.
struct Connection {
    postgres: Rc<FakePostgres>,
    sessions: RefCell<VecDeque<Client>>,
}

#[async_trait(?Send)]
impl PostgresConnection for Connection {
    /// Yields before and after the statement, so that others go on.
    async fn query(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, PostgresError> {
        yield_once().await;
        self.postgres.statements.borrow_mut().push(statement.to_owned());
        let fault = self.postgres.faults.borrow_mut().pop_front();
        let result = match fault {
            Some(fault) => Err(fault),
            None => self.run(statement, &parameters),
        };
        yield_once().await;
        result
    }
}

impl Connection {
    fn run(&self, statement: &str, parameters: &[Value]) -> Result<Vec<Row>, PostgresError> {
        let mut sessions = self.sessions.borrow_mut();
        sessions.rotate_left(1);
        let session = sessions.front_mut().expect("there are sessions");
        let parameters: Vec<_> =
            parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect();
        let rows = session.query(statement, &parameters).map_err(of_statement)?;
        rows.iter().map(|row| (0..row.len()).map(|column| value(row, column)).collect()).collect()
    }
}

/// Spin has no SQLSTATE of what keeps it from connecting, only words.
fn on_the_way(error: postgres::Error) -> PostgresError {
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    PostgresError::Platform(format!("{error}: {why}"))
}

fn of_statement(error: postgres::Error) -> PostgresError {
    match error.as_db_error() {
        Some(error) => PostgresError::Server {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
        },
        None => PostgresError::Platform(format!("{error:?}")),
    }
}

/// As strict as Spin's: a number is a `bigint`, and nothing is made text of.
impl ToSql for Value {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(value) => value.to_sql_checked(of, out),
            Value::Boolean(value) => value.to_sql_checked(of, out),
            Value::Text(value) => value.to_sql_checked(of, out),
            Value::Bytes(value) => value.to_sql_checked(of, out),
            Value::Integers(value) => value.to_sql_checked(of, out),
            Value::Texts(value) => value.to_sql_checked(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The value in a column, of the types that a [`Value`] can be.
fn value(row: &postgres::Row, column: usize) -> Result<Value, PostgresError> {
    match row.columns()[column].type_() {
        &Type::INT8 => get(row, column, Value::Integer),
        &Type::BOOL => get(row, column, Value::Boolean),
        &Type::TEXT | &Type::VARCHAR | &Type::BPCHAR => get(row, column, Value::Text),
        &Type::BYTEA => get(row, column, Value::Bytes),
        &Type::INT8_ARRAY => get(row, column, Value::Integers),
        &Type::TEXT_ARRAY | &Type::VARCHAR_ARRAY | &Type::BPCHAR_ARRAY => {
            get(row, column, Value::Texts)
        }
        other => Err(PostgresError::Platform(format!("a value of type {other}"))),
    }
}

fn get<'a, T: FromSql<'a>>(
    row: &'a postgres::Row,
    column: usize,
    of: impl Fn(T) -> Value,
) -> Result<Value, PostgresError> {
    let value: Option<T> = row.try_get(column).map_err(of_statement)?;
    Ok(value.map_or(Value::Null, of))
}

#[cfg(test)]
mod tests {
    use futures::future::LocalBoxFuture;

    use super::*;
    use crate::platform::fake::{all, now};

    fn query(
        connection: &Rc<dyn PostgresConnection>,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, PostgresError> {
        now(connection.query(statement, parameters))
    }

    fn code(result: Result<Vec<Row>, PostgresError>) -> String {
        match result {
            Err(PostgresError::Server { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_of_every_type_come_back() {
        let Some(database) = database() else { return };
        let connection = now(FakePlatform::new().open(&database.url())).unwrap();
        let values = vec![
            Value::Integer(i64::MIN),
            Value::Boolean(true),
            Value::Text("ä 😀".to_owned()),
            Value::Bytes(vec![0, 255, 1]),
            Value::Integers(vec![Some(1), None]),
            Value::Texts(vec![None, Some("{,\"}".to_owned())]),
            Value::Null,
        ];
        let statement = "SELECT $1::bigint, $2::boolean, $3::text, $4::bytea, $5::bigint[], \
            $6::text[], $7::text";
        assert_eq!(query(&connection, statement, values.clone()), Ok(vec![values]));
        let nulls = vec![Value::Null; 7];
        assert_eq!(query(&connection, statement, nulls.clone()), Ok(vec![nulls]));
    }

    #[test]
    fn what_spin_would_refuse_is_refused() {
        let Some(database) = database() else { return };
        let connection = now(FakePlatform::new().open(&database.url())).unwrap();
        for (statement, parameter) in [
            ("SELECT $1::int", Value::Integer(1)),
            ("SELECT $1::bigint", "1".into()),
            ("SELECT $1::jsonb::text", "{}".into()),
            ("SELECT 1 WHERE $1", Value::Boolean(true)),
            ("SELECT 1.5 WHERE $1", Value::Boolean(true)),
        ] {
            let result = query(&connection, statement, vec![parameter]);
            assert!(matches!(result, Err(PostgresError::Platform(_))), "{statement}: {result:?}");
        }
        assert_eq!(code(query(&connection, "SELECT 1; SELECT 2", Vec::new())), "42601");
    }

    #[test]
    fn an_error_has_its_code() {
        let Some(database) = database() else { return };
        let connection = now(FakePlatform::new().open(&database.url())).unwrap();
        assert_eq!(code(query(&connection, "SELECT FROM nothing", Vec::new())), "42P01");
        query(&connection, "CREATE TABLE t (n bigint PRIMARY KEY)", Vec::new()).unwrap();
        query(&connection, "INSERT INTO t VALUES (1)", Vec::new()).unwrap();
        let again = query(&connection, "INSERT INTO t VALUES (1)", Vec::new());
        assert_eq!(code(again), "23505");
        let platform = FakePlatform::new();
        let wrong = database.url().replace("service:", "service:wrong-");
        for (address, expected) in [
            (wrong.as_str(), "password authentication failed"),
            ("postgres://127.0.0.1:1/x", "error connecting"),
            ("nowhere", "invalid"),
        ] {
            match now(platform.open(address)).map(drop) {
                Err(PostgresError::Platform(words)) => {
                    assert!(words.contains(expected), "{address}: {words}");
                }
                other => panic!("{address}: {other:?}"),
            }
        }
    }

    #[test]
    fn nothing_of_a_session_stays() {
        let Some(database) = database() else { return };
        let connection = now(FakePlatform::new().open(&database.url())).unwrap();
        query(&connection, "SET application_name = 'mine'", Vec::new()).unwrap();
        let name = query(&connection, "SELECT current_setting('application_name')", Vec::new());
        assert_eq!(name, Ok(vec![vec!["".into()]]));
        query(&connection, "CREATE TEMPORARY TABLE t (n bigint)", Vec::new()).unwrap();
        assert_eq!(code(query(&connection, "SELECT FROM t", Vec::new())), "42P01");
    }

    #[test]
    fn what_is_planted_is_met() {
        let Some(database) = database() else { return };
        let platform = FakePlatform::new();
        let fault = || PostgresError::Platform("planted".to_owned());
        platform.postgres.open_faults.borrow_mut().push_back(fault());
        assert_eq!(now(platform.open(&database.url())).map(drop), Err(fault()));
        let connection = now(platform.open(&database.url())).unwrap();
        platform.postgres.faults.borrow_mut().push_back(fault());
        assert_eq!(query(&connection, "SELECT 1::bigint", Vec::new()), Err(fault()));
        query(&connection, "SELECT 2::bigint", Vec::new()).unwrap();
        assert_eq!(
            *platform.postgres.statements.borrow(),
            ["SELECT 1::bigint", "SELECT 2::bigint"]
        );
        assert_eq!(platform.postgres.opened.get(), 1);

        platform.postgres.is_full.set(true);
        let opens: LocalBoxFuture<'_, bool> =
            Box::pin(async { platform.open(&database.url()).await.is_ok() });
        let frees = Box::pin(async {
            yield_once().await;
            let opened_meanwhile = platform.postgres.opened.get();
            platform.postgres.is_full.set(false);
            opened_meanwhile == 1
        });
        assert_eq!(all(vec![opens, frees]), [true, true]);
    }
}
