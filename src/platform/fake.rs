//! The ports over `rusqlite`, a map and a clock that is turned by hand, for
//! native unit tests of the real SQL.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use http::{Request, StatusCode};
use rusqlite::types::Value as SqlValue;

use crate::config::{Config, VARIABLES};
use crate::http::reply::{Body, Reply};
use crate::platform::{
    Clock, Database, Fault, Instance, KeyValue, Ports, Row, Signal, Signals, StoreError, Value,
};
use crate::routes as router;
use crate::time::UnixMillis;

/// 2026-01-02T03:04:05.678Z
pub const NOW: UnixMillis = 1_767_323_045_678;

/// Turns after which futures that have not ended never will.
const ROUNDS_MAX: usize = 1_000_000;

/// A platform in memory.
pub struct Desk {
    pub connection: rusqlite::Connection,
    pub statements: RefCell<Vec<String>>,
    pub key_value: RefCell<BTreeMap<String, Vec<u8>>>,
    pub key_value_writes: Cell<usize>,
    pub key_value_fails: Cell<bool>,
    /// Faults that the next statements meet, in this order.
    pub faults: RefCell<Vec<Fault>>,
    pub now: Cell<UnixMillis>,
    pub slept: Cell<Duration>,
    /// How long each commit takes.
    pub commits_take: Cell<Duration>,
    pub retired: Cell<bool>,
    ready: Cell<bool>,
    instance: Instance,
}

impl Desk {
    pub fn new() -> Self {
        Desk {
            connection: rusqlite::Connection::open_in_memory().unwrap(),
            statements: RefCell::default(),
            key_value: RefCell::default(),
            key_value_writes: Cell::default(),
            key_value_fails: Cell::default(),
            faults: RefCell::default(),
            now: Cell::new(NOW),
            slept: Cell::default(),
            commits_take: Cell::default(),
            retired: Cell::default(),
            ready: Cell::default(),
            instance: Instance::default(),
        }
    }

    /// What another instance over the same stores would be.
    pub fn forget_instance(&mut self) {
        self.instance = Instance::default();
        self.ready.set(false);
    }

    pub fn publish(&self, body: &str) -> (StatusCode, serde_json::Value) {
        self.request("POST", "/publish", body)
    }

    pub fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        self.request("GET", path, "")
    }

    pub fn request(&self, method: &str, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let parts: Parts = request.into_parts().0;
        let reply = now(router::handle(self, &config(), &parts, body.as_bytes()))
            .unwrap_or_else(|problem| problem.into_reply());
        let status = reply.status;
        (status, json(reply))
    }
}

/// The reply's body; text that is no JSON as a string.
pub fn json(reply: Reply) -> serde_json::Value {
    match reply.body {
        Body::Whole(body) => serde_json::from_slice(&body)
            .unwrap_or_else(|_| String::from_utf8(body).unwrap().into()),
        Body::Feed(_) => serde_json::Value::Null,
    }
}

pub fn config() -> Config {
    let values: [String; VARIABLES.len()] =
        ["10485760", "10000", "5000", "1", "off", ""].map(str::to_owned);
    Config::from_values(&values).unwrap()
}

/// The result of a future that waits for nothing but a [`Desk`].
pub fn now<T>(future: impl Future<Output = T>) -> T {
    all(vec![future]).remove(0)
}

/// The results of futures that take turns, as the requests of an instance do.
pub fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut context = Context::from_waker(Waker::noop());
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let mut rounds = 0;
    while results.iter().any(Option::is_none) {
        rounds += 1;
        assert!(rounds < ROUNDS_MAX, "something hangs");
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(done) = future.as_mut().poll(&mut context)
            {
                *result = Some(done);
            }
        }
    }
    results.into_iter().flatten().collect()
}

/// Lets the others have their turn, once.
async fn take_turns() {
    let mut waited = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Database for Desk {
    async fn execute(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.statements.borrow_mut().push(statement.to_owned());
        let mut faults = self.faults.borrow_mut();
        if !faults.is_empty() {
            return Err(StoreError { fault: faults.remove(0), message: "planted".to_owned() });
        }
        run(&self.connection, statement, parameters)
            .map_err(|error| StoreError::from_sqlite(error.to_string()))
    }

    /// Takes a turn before and after the statement, in which others go on.
    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        take_turns().await;
        let result = self.execute(statement, parameters).await;
        self.slept.set(self.slept.get() + self.commits_take.get());
        take_turns().await;
        result
    }

    fn is_ready(&self) -> bool {
        self.ready.get()
    }

    fn set_ready(&self) {
        self.ready.set(true);
    }
}

fn run(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
) -> rusqlite::Result<Vec<Row>> {
    let mut prepared = connection.prepare(statement)?;
    let columns = prepared.column_count();
    let parameters = parameters.into_iter().map(|parameter| match parameter {
        Value::Null => SqlValue::Null,
        Value::Integer(value) => SqlValue::Integer(value),
        Value::Text(value) => SqlValue::Text(value),
    });
    let rows = prepared.query_map(rusqlite::params_from_iter(parameters), |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get(column)? {
                    SqlValue::Integer(value) => Value::Integer(value),
                    SqlValue::Text(value) => Value::Text(value),
                    SqlValue::Null => Value::Null,
                    other => panic!("unexpected {other:?}"),
                })
            })
            .collect()
    })?;
    rows.collect()
}

impl Desk {
    fn check_key_value(&self) -> Result<(), StoreError> {
        if self.key_value_fails.get() {
            return Err(StoreError::unavailable("planted"));
        }
        Ok(())
    }
}

impl KeyValue for Desk {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.check_key_value()?;
        Ok(self.key_value.borrow().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.check_key_value()?;
        self.key_value_writes.set(self.key_value_writes.get() + 1);
        self.key_value.borrow_mut().insert(key.to_owned(), value.to_vec());
        Ok(())
    }
}

impl Clock for Desk {
    fn now(&self) -> UnixMillis {
        self.now.get()
    }

    fn monotonic(&self) -> Duration {
        self.slept.get()
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.set(self.slept.get() + duration);
        take_turns().await;
    }

    async fn yield_now(&self) {
        take_turns().await;
    }
}

impl Signals for Desk {
    fn signal(&self) -> (Signal, impl Future<Output = ()>) {
        let silent = Rc::new(());
        let waits_for = Rc::downgrade(&silent);
        let wait = std::future::poll_fn(move |_| match waits_for.strong_count() {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        });
        (Box::new(move || drop(silent)), wait)
    }
}

impl Ports for Desk {
    async fn retire(&self) {
        self.retired.set(true);
    }

    fn instance(&self) -> &Instance {
        &self.instance
    }
}
