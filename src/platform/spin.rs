//! The ports over `spin_sdk`. With `component.rs` the only place that names it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spin_sdk::key_value::Store;
use spin_sdk::sqlite::Error as SqliteError;
use spin_sdk::sqlite::Value as SqliteValue;
// Both halves of the interface: the synchronous one returns all rows in one hop
// and holds the instance while it runs; the asynchronous one lets the instance
// go on and streams rows through a channel of four.
use spin_sdk::sqlite::wit::sqlite::{Connection, RowResult};
use spin_sdk::variables;
use spin_sdk::wasip3::wit_stream;
use spin_sdk::wit_bindgen::{backpressure_inc, spawn, yield_async};

use crate::commit;
use crate::config::{Config, VARIABLES};
use crate::log::{self, Level, Line};
use crate::platform::{
    Clock, Database, Fault, Instance, KeyValue, Ports, Row, Signal, Signals, StoreError, Value,
};
use crate::time::UnixMillis;

const DATABASE: &str = "default";
const KEY_VALUE_STORE: &str = "default";

/// How long a connection that has committed stays open after the last commit,
/// in milliseconds. An instance that has taken its number of requests ends; were
/// its connection the only one, its closing would copy the log into the database
/// and delete it, and the next instance would begin a new one, at the price of
/// ten commits. So it stays until the next instance has had time to open its own.
const LINGER_MS: u64 = 50;

/// How often an instance that has nothing else to do tries again to add what it
/// saw of its commits to a busy store.
const OBSERVED_TRIES_MAX: u32 = 20;

/// Turns given away before the timer of an instance that lingers.
const LINGER_AFTER_TURNS: usize = 4;

/// Turns given away before the back-pressure of an instance that retires: one,
/// one more for an event that comes between, and one to spare.
const RETIRE_TURNS: usize = 3;

thread_local! {
    /// What this instance keeps. Requests of one instance share it: they take
    /// turns on one thread and change hands only at an `await`.
    static KEPT: Rc<Kept> = Rc::new(Kept::default());
}

#[derive(Default)]
struct Kept {
    /// Opening a connection costs more than a commit, so it is kept; after an
    /// error other than a busy store it is dropped, in case the fault is its own.
    connection: RefCell<Option<Rc<Connection>>>,
    ready: Cell<bool>,
    /// Whether a statement was to commit since the instance began to linger.
    committed: Cell<bool>,
    lingers: Cell<bool>,
    retired: Cell<bool>,
    /// Requests that may stay for long.
    staying: Cell<usize>,
    config: RefCell<Option<Rc<Config>>>,
    instance: Instance,
    started: Cell<Option<Instant>>,
}

/// Spin as the platform.
#[derive(Clone)]
pub struct Spin(Rc<Kept>);

impl Spin {
    /// The platform of this instance.
    pub fn new() -> Self {
        Spin(KEPT.with(Rc::clone))
    }

    /// The configuration, read by the first request of an instance.
    ///
    /// # Errors
    ///
    /// A sentence that names the variable that is missing or wrong.
    pub async fn config(&self) -> Result<Rc<Config>, String> {
        if let Some(config) = self.0.config.borrow().as_ref() {
            return Ok(Rc::clone(config));
        }
        let mut values: [String; VARIABLES.len()] = Default::default();
        for (name, value) in VARIABLES.iter().zip(&mut values) {
            *value = variables::get(name)
                .await
                .map_err(|error| format!("The variable {name} cannot be read: {error}."))?;
        }
        let config = Rc::new(Config::from_values(&values)?);
        self.0.config.replace(Some(Rc::clone(&config)));
        Ok(config)
    }

    fn connection(&self) -> Result<Rc<Connection>, SqliteError> {
        let mut kept = self.0.connection.borrow_mut();
        if let Some(connection) = kept.as_ref() {
            return Ok(Rc::clone(connection));
        }
        let opened = Rc::new(Connection::open(DATABASE)?);
        *kept = Some(Rc::clone(&opened));
        Ok(opened)
    }

    /// Keeps this instance, and so its connection, until no commit has come for
    /// [`LINGER_MS`]. Called by each request when its reply is made.
    pub fn linger(&self) {
        if !self.0.committed.get() || self.0.lingers.replace(true) {
            return;
        }
        let kept = Rc::clone(&self.0);
        spawn(async move {
            // A timer that runs beside a reply which is about to leave makes it
            // leave in two writes.
            give_turns(LINGER_AFTER_TURNS).await;
            let platform = Spin(kept);
            let mut tries_left = OBSERVED_TRIES_MAX;
            loop {
                while platform.0.committed.replace(false) {
                    spin_sdk::time::sleep(Duration::from_millis(LINGER_MS)).await;
                }
                match commit::add_observed(&platform).await {
                    Ok(false) => break,
                    Ok(true) => {}
                    Err(error) if error.fault == Fault::Busy && tries_left > 0 => {
                        tries_left -= 1;
                        platform.0.committed.set(true);
                    }
                    Err(error) => {
                        platform.report_unobserved(&error);
                        break;
                    }
                }
            }
            platform.0.lingers.set(false);
        });
    }

    /// Notes a request that may stay for long, until the guard is dropped. To be
    /// called before the first `await` of the request: see [`Ports::retire`].
    pub fn stay(&self) -> Stay {
        self.0.staying.set(self.0.staying.get() + 1);
        Stay(Rc::clone(&self.0))
    }

    fn report_unobserved(&self, error: &StoreError) {
        let message = "what was seen of commits could not be stored";
        let line = Line { cause: Some(&error.message), ..Line::new(message) };
        let least = self.0.config.borrow().as_ref().and_then(|config| config.log_level);
        log::write(least, Level::Warn, self.now(), line);
    }

    /// What a statement came to; the connection is given up when it may be at
    /// fault.
    fn settle(&self, result: Result<Vec<RowResult>, SqliteError>) -> Result<Vec<Row>, StoreError> {
        let result = result.map_err(store_error).and_then(|rows| {
            rows.into_iter().map(|row| row.values.into_iter().map(value).collect()).collect()
        });
        if result.as_ref().is_err_and(|error| error.fault != Fault::Busy) {
            self.0.connection.replace(None);
            self.0.ready.set(false);
        }
        result
    }

    async fn run(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<RowResult>, SqliteError> {
        let connection = self.connection()?;
        let parameters = parameters.into_iter().map(parameter).collect();
        let (_, mut rows, result) =
            connection.execute_async(statement.to_owned(), parameters).await?;
        let read = async {
            let mut read = Vec::new();
            while let Some(row) = rows.next().await {
                read.push(row);
            }
            read
        };
        // Both at once costs fewer turns. Errors, that of the commit among
        // them, are in the result.
        let (read, result) = futures::join!(read, result.into_future());
        result.map(|()| read)
    }
}

/// A request that may stay for long.
pub struct Stay(Rc<Kept>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.staying.set(self.0.staying.get() - 1);
    }
}

/// Gives so many turns of the event loop to the host and to other requests.
pub async fn give_turns(turns: usize) {
    for _ in 0..turns {
        yield_async().await;
    }
}

impl Database for Spin {
    async fn execute(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let parameters: Vec<SqliteValue> = parameters.into_iter().map(parameter).collect();
        let result = self
            .connection()
            .and_then(|connection| connection.execute(statement, &parameters))
            .map(|result| result.rows);
        self.settle(result)
    }

    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let result = self.run(statement, parameters).await;
        self.0.committed.set(true);
        self.settle(result)
    }

    fn is_ready(&self) -> bool {
        self.0.ready.get()
    }

    fn set_ready(&self) {
        self.0.ready.set(true);
    }
}

fn parameter(value: Value) -> SqliteValue {
    match value {
        Value::Null => SqliteValue::Null,
        Value::Integer(value) => SqliteValue::Integer(value),
        Value::Text(value) => SqliteValue::Text(value),
    }
}

fn value(value: SqliteValue) -> Result<Value, StoreError> {
    match value {
        SqliteValue::Null => Ok(Value::Null),
        SqliteValue::Integer(value) => Ok(Value::Integer(value)),
        SqliteValue::Text(value) => Ok(Value::Text(value)),
        other => Err(StoreError::unavailable(format!("unexpected value {other:?}"))),
    }
}

fn store_error(error: SqliteError) -> StoreError {
    match error {
        SqliteError::Io(message) => StoreError::from_sqlite(message),
        SqliteError::DatabaseFull => {
            StoreError { fault: Fault::Full, message: "the database is full".to_owned() }
        }
        other => StoreError::unavailable(other.to_string()),
    }
}

impl KeyValue for Spin {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        open_store().await?.get(key).await.map_err(key_value_error)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        open_store().await?.set(key, value).await.map_err(key_value_error)
    }
}

async fn open_store() -> Result<Store, StoreError> {
    Store::open(KEY_VALUE_STORE).await.map_err(key_value_error)
}

fn key_value_error(error: spin_sdk::key_value::Error) -> StoreError {
    StoreError::unavailable(format!("key-value store: {error}"))
}

impl Clock for Spin {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
    }

    fn monotonic(&self) -> Duration {
        let started = self.0.started.get().unwrap_or_else(|| {
            let now = Instant::now();
            self.0.started.set(Some(now));
            now
        });
        started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        spin_sdk::time::sleep(duration).await;
    }

    async fn yield_now(&self) {
        give_turns(1).await;
    }
}

impl Signals for Spin {
    /// A stream of the component model with both its ends in this instance:
    /// the host wakes the reader when the writer goes. The Rust way, a waker,
    /// would need `inter-task-wakeup` of `wit-bindgen`, which makes newer
    /// releases of wasmtime trap.
    fn signal(&self) -> (Signal, impl Future<Output = ()>) {
        let (writer, mut reader) = wit_stream::new::<u8>();
        let wait = async move {
            // Nothing is ever written: it ends.
            reader.next().await;
        };
        (Box::new(move || drop(writer)), wait)
    }
}

impl Ports for Spin {
    /// Back-pressure that is never released. The host asks for it before it
    /// hands a request over, and ends an instance that has it and nothing else.
    ///
    /// A request that was handed over and has not begun yet would wait for ever.
    /// There is none when a turn that was given away comes back: the host runs
    /// all that is ready before it, and hands nothing over in between. A turn is
    /// not given away when another event of this very request is there; of these
    /// there can be one, the timer of `linger`.
    ///
    /// The host may wake this very instance for a request that comes later, and
    /// if it does not take it, wakes no other until it ends. So an instance with
    /// a request that may stay for long does not retire.
    async fn retire(&self) {
        let may_go = || self.0.staying.get() == 0 && !self.0.retired.get();
        if may_go() {
            give_turns(RETIRE_TURNS).await;
            if may_go() {
                self.0.retired.set(true);
                backpressure_inc();
            }
        }
    }

    fn instance(&self) -> &Instance {
        &self.0.instance
    }
}
