//! The platform over `rusqlite`, a PostgreSQL server, a map and a clock that is turned
//! by hand, for native unit tests of the real SQL.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use rusqlite::types::Value as SqlValue;

use self::postgres::FakePostgres;
use super::chaining::{Called, Chaining, Line, Receiver, Sender};
use super::sqlite::{Row, Sqlite, SqliteConnection, SqliteError, Value};
use super::{Clock, KeyValue, KeyValueError, Scheduler, Variables, Wake};
use crate::time::UnixMillis;

pub(crate) mod postgres;

/// 2026-01-02T03:04:05.678Z
pub(crate) const NOW: UnixMillis = 1_767_323_045_678;

/// Rounds after which futures that have not ended never will.
const ROUNDS_MAX: usize = 1_000_000;

/// Another writer holds the database, as SQLite says it.
pub(crate) fn busy() -> SqliteError {
    SqliteError::Sqlite("planted: database is locked".to_owned())
}

/// The database does not answer.
pub(crate) fn unavailable() -> SqliteError {
    SqliteError::Sqlite("planted: disk I/O error".to_owned())
}

/// A platform in memory. What its stores hold stays when instances go.
pub(crate) struct FakePlatform {
    pub(crate) database: Rc<FakeDatabase>,
    pub(crate) postgres: Rc<FakePostgres>,
    pub(crate) key_value: RefCell<BTreeMap<String, Vec<u8>>>,
    pub(crate) key_value_writes: Cell<usize>,
    pub(crate) key_value_fails: Cell<bool>,
    /// Values that are not those of `spin.toml`.
    pub(crate) variables: RefCell<BTreeMap<String, String>>,
    /// The names of all variables that were asked for.
    pub(crate) variables_read: RefCell<Vec<String>>,
    pub(crate) environment: RefCell<BTreeMap<String, String>>,
    /// What the next calls of other components are answered; those that come after are
    /// denied.
    pub(crate) calls: RefCell<VecDeque<Called>>,
    /// Which components were called, in this order.
    pub(crate) called: RefCell<Vec<String>>,
    /// What is to run beside requests, which [`FakePlatform::run_spawned`] does.
    pub(crate) spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    pub(crate) now: Cell<UnixMillis>,
    pub(crate) retired: Cell<bool>,
}

/// Its database, and the monotonic clock, which a commit moves.
pub(crate) struct FakeDatabase {
    pub(crate) connection: rusqlite::Connection,
    /// Every statement that was run.
    pub(crate) statements: RefCell<Vec<String>>,
    /// What the next statements meet, in this order.
    pub(crate) faults: RefCell<Vec<SqliteError>>,
    pub(crate) slept: Cell<Duration>,
    /// How long each commit takes.
    pub(crate) commits_take: Cell<Duration>,
}

impl FakeDatabase {
    pub(crate) fn over(connection: rusqlite::Connection) -> Self {
        FakeDatabase {
            connection,
            statements: RefCell::default(),
            faults: RefCell::default(),
            slept: Cell::default(),
            commits_take: Cell::default(),
        }
    }
}

impl FakePlatform {
    pub(crate) fn new() -> Rc<Self> {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        Rc::new(FakePlatform {
            database: Rc::new(FakeDatabase::over(connection)),
            postgres: Rc::default(),
            key_value: RefCell::default(),
            key_value_writes: Cell::default(),
            key_value_fails: Cell::default(),
            variables: RefCell::default(),
            variables_read: RefCell::default(),
            environment: RefCell::default(),
            calls: RefCell::default(),
            called: RefCell::default(),
            spawned: RefCell::default(),
            now: Cell::new(NOW),
            retired: Cell::default(),
        })
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        self.slept.set(self.slept.get() + time);
    }

    /// Runs what was spawned, and what that spawns, to its end.
    pub(crate) fn run_spawned(&self) {
        self.beside_spawned(Vec::<LocalBoxFuture<'static, ()>>::new());
    }

    /// Runs `futures` and what they spawn, all to their ends.
    pub(crate) fn beside_spawned(&self, futures: Vec<impl Future<Output = ()>>) {
        let mut context = Context::from_waker(Waker::noop());
        let mut running: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        running.extend(futures.into_iter().map(|future| Box::pin(future) as _));
        let mut rounds = 0;
        loop {
            running.extend(self.spawned.take().into_iter().map(|task| task as _));
            if running.is_empty() {
                break;
            }
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "something hangs");
            running.retain_mut(|future| future.as_mut().poll(&mut context).is_pending());
        }
    }
}

impl Deref for FakePlatform {
    type Target = FakeDatabase;

    fn deref(&self) -> &FakeDatabase {
        &self.database
    }
}

/// The result of a future that waits for nothing but a [`FakePlatform`].
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    all(vec![future]).remove(0)
}

/// The results of futures that take turns, as the requests of an instance do.
pub(crate) fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
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
async fn yield_once() {
    let mut waited = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Sqlite for FakePlatform {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        Ok(Rc::clone(&self.database) as Rc<dyn SqliteConnection>)
    }
}

#[async_trait(?Send)]
impl SqliteConnection for FakeDatabase {
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError> {
        self.statements.borrow_mut().push(statement.to_owned());
        let mut faults = self.faults.borrow_mut();
        if !faults.is_empty() {
            return Err(faults.remove(0));
        }
        run(&self.connection, statement, parameters)
            .map_err(|error| SqliteError::Sqlite(error.to_string()))
    }

    /// Yields before and after the statement, so that others go on.
    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError> {
        yield_once().await;
        let result = self.query(statement, parameters);
        assert!(result.as_ref().map_or(0, Vec::len) <= 1, "{statement}");
        self.slept.set(self.slept.get() + self.commits_take.get());
        yield_once().await;
        result
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
        Value::Real(value) => SqlValue::Real(value),
        Value::Text(value) => SqlValue::Text(value),
        Value::Blob(value) => SqlValue::Blob(value),
    });
    let rows = prepared.query_map(rusqlite::params_from_iter(parameters), |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get(column)? {
                    SqlValue::Null => Value::Null,
                    SqlValue::Integer(value) => Value::Integer(value),
                    SqlValue::Real(value) => Value::Real(value),
                    SqlValue::Text(value) => Value::Text(value),
                    SqlValue::Blob(value) => Value::Blob(value),
                })
            })
            .collect()
    })?;
    rows.collect()
}

impl FakePlatform {
    fn check_key_value(&self) -> Result<(), KeyValueError> {
        match self.key_value_fails.get() {
            true => Err(KeyValueError("planted".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait(?Send)]
impl KeyValue for FakePlatform {
    fn is_free(&self) -> bool {
        true
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.check_key_value()?;
        Ok(self.key_value.borrow().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        self.check_key_value()?;
        self.key_value_writes.set(self.key_value_writes.get() + 1);
        self.key_value.borrow_mut().insert(key.to_owned(), value.to_vec());
        Ok(())
    }
}

#[async_trait(?Send)]
impl Variables for FakePlatform {
    async fn variable(&self, name: &str) -> Result<String, String> {
        self.variables_read.borrow_mut().push(name.to_owned());
        if let Some(value) = self.variables.borrow().get(name) {
            return Ok(value.clone());
        }
        let manifest: toml::Table = include_str!("../../spin.toml").parse().unwrap();
        let declared = manifest["variables"].get(name).and_then(|one| one["default"].as_str());
        declared.map(str::to_owned).ok_or_else(|| format!("no variable {name}"))
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.borrow().get(name).cloned()
    }
}

#[async_trait(?Send)]
impl Chaining for FakePlatform {
    async fn call(&self, name: &str, path: &str) -> Result<Called, String> {
        self.called.borrow_mut().push(format!("{name}{path}"));
        self.calls.borrow_mut().pop_front().ok_or_else(|| format!("{name} may not be called"))
    }
}

/// A line whose other side has said beforehand what it says.
pub(crate) struct FakeLine {
    /// What it says yet, in parts.
    pub(crate) says: VecDeque<Vec<u8>>,
    /// What it was told, in parts.
    pub(crate) told: Rc<RefCell<Vec<Vec<u8>>>>,
    /// Whether it stays, and is silent, when it has said all; else it ends.
    pub(crate) stays: bool,
    /// How many parts it takes. To send one more fails, and to go on then is a trap.
    pub(crate) takes: usize,
}

impl FakeLine {
    /// Says `parts`, and ends.
    pub(crate) fn saying(parts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        FakeLine {
            says: parts.into_iter().collect(),
            told: Rc::default(),
            stays: false,
            takes: usize::MAX,
        }
    }
}

impl From<FakeLine> for Line {
    fn from(line: FakeLine) -> Self {
        let sender = FakeSender { told: line.told.clone(), takes: Some(line.takes) };
        Line { sender: Box::new(sender), receiver: Box::new(line) }
    }
}

struct FakeSender {
    told: Rc<RefCell<Vec<Vec<u8>>>>,
    /// `None` once it takes no more.
    takes: Option<usize>,
}

#[async_trait(?Send)]
impl Sender for FakeSender {
    async fn send(&mut self, bytes: Vec<u8>) -> bool {
        self.takes = self.takes.expect("a trap: it was told that nobody reads").checked_sub(1);
        if self.takes.is_some() {
            self.told.borrow_mut().push(bytes);
        }
        self.takes.is_some()
    }
}

#[async_trait(?Send)]
impl Receiver for FakeLine {
    async fn receive(&mut self, read: &mut Vec<u8>) -> bool {
        match self.says.pop_front() {
            Some(part) => read.extend(part),
            None if self.stays => std::future::pending().await,
            None => return false,
        }
        true
    }
}

#[async_trait(?Send)]
impl Clock for FakePlatform {
    fn now(&self) -> UnixMillis {
        self.now.get()
    }

    fn monotonic(&self) -> Duration {
        self.slept.get()
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(duration);
        yield_once().await;
    }
}

#[async_trait(?Send)]
impl Scheduler for FakePlatform {
    async fn yield_now(&self) {
        yield_once().await;
    }

    /// Nothing runs beside requests here, but what a test runs between them.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        self.spawned.borrow_mut().push(task);
    }

    fn wakeup(&self) -> (Wake, LocalBoxFuture<'static, ()>) {
        let silent = Rc::new(());
        let waits_for = Rc::downgrade(&silent);
        let wait = std::future::poll_fn(move |_| match waits_for.strong_count() {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        });
        (Box::new(move || drop(silent)), Box::pin(wait))
    }

    async fn retire(&self) {
        self.retired.set(true);
    }
}
