//! The platform over `spin_sdk`. With `component.rs` the only place that names it.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use spin_sdk::key_value::Store;
use spin_sdk::variables;
use spin_sdk::wasip3::http::client;
use spin_sdk::wasip3::http::types::{
    ErrorCode, Fields, Method, Request, Response, Scheme, Trailers,
};
use spin_sdk::wasip3::{wit_future, wit_stream};
use spin_sdk::wit_bindgen::{
    FutureWriter, StreamReader, StreamResult, StreamWriter, spawn, yield_async,
};

use super::chaining::{Called, Chaining, Line, Receiver, Sender};
use super::scheduling::{YIELDS_BEFORE_RETIRING, yields};
use super::{Clock, KeyValue, KeyValueError, Scheduler, Variables, Wake, in_time, until_free};
use crate::time::UnixMillis;

mod back_pressure;
mod postgres;
#[cfg_attr(not(feature = "sqlite"), path = "spin/no_sqlite.rs")]
mod sqlite;

const KEY_VALUE_STORE: &str = "default";

/// Spin, as one instance sees it.
#[derive(Default)]
pub(crate) struct Spin {
    /// Requests that may stay for long.
    kept_alive: Cell<usize>,
    /// Requests that are not to wait for the key-value store.
    under_way: Cell<usize>,
    retired: Cell<bool>,
    started: OnceCell<Instant>,
}

impl Spin {
    /// Notes a request that may stay for long, until the guard is dropped. To be
    /// called before the first `await` of the request: see [`Scheduler::retire`].
    pub(crate) fn keep_alive(self: &Rc<Self>) -> KeepAlive {
        self.kept_alive.set(self.kept_alive.get() + 1);
        KeepAlive(Rc::clone(self))
    }

    /// Notes a request that is not to wait for the key-value store, until the guard is
    /// dropped.
    pub(crate) fn under_way(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(Rc::clone(self))
    }

    /// Takes no more requests until the guard is dropped. To be called before the
    /// first `await` of a request. The host has just taken the request out of the
    /// queue for this instance then, and does not put the instance into the queue
    /// again until it has come to rest. Later, the instance may be in the queue: a
    /// request that comes next wakes it, and waits for it.
    pub(crate) fn close_door(self: &Rc<Self>) -> ClosedDoor {
        back_pressure::raise();
        ClosedDoor
    }

    /// Takes no more requests at all. To be called at the same moment.
    pub(crate) fn close_door_for_good(&self) {
        back_pressure::raise();
    }

    fn may_retire(&self) -> bool {
        back_pressure::IS_THERE && self.kept_alive.get() == 0 && !self.retired.get()
    }
}

/// A request that may stay for long: its instance does not retire meanwhile.
pub(crate) struct KeepAlive(Rc<Spin>);

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.kept_alive.set(self.0.kept_alive.get() - 1);
    }
}

/// A request that is not to wait for the key-value store.
pub(crate) struct UnderWay(Rc<Spin>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// An instance that takes no requests.
pub(crate) struct ClosedDoor;

impl Drop for ClosedDoor {
    fn drop(&mut self) {
        back_pressure::release();
    }
}

#[async_trait(?Send)]
impl Clock for Spin {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.started.get_or_init(Instant::now).elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        spin_sdk::time::sleep(duration).await;
    }
}

#[async_trait(?Send)]
impl Scheduler for Spin {
    async fn yield_now(&self) {
        yield_async().await;
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        spawn(task);
    }

    /// A stream of the component model with both its ends in this instance:
    /// the host wakes the reader when the writer goes. The Rust way, a waker,
    /// would need `inter-task-wakeup` of `wit-bindgen`, which makes newer
    /// releases of wasmtime trap.
    fn wakeup(&self) -> (Wake, LocalBoxFuture<'static, ()>) {
        let (writer, mut reader) = wit_stream::new::<u8>();
        let wait = async move {
            // Nothing is ever written: it ends.
            reader.next().await;
        };
        (Box::new(move || drop(writer)), Box::pin(wait))
    }

    /// Back-pressure that is never released. The host asks for it before it
    /// hands a request over, and ends an instance that has it and nothing else.
    ///
    /// A request that was handed over and has not begun yet would wait for ever.
    /// There is none when a turn that was yielded comes back: the host runs all
    /// that is ready before it, and hands nothing over in between. A turn is not
    /// yielded when another event of this very request is there; of these there
    /// can be one, the timer of an instance that lingers.
    ///
    /// The host may wake this very instance for a request that comes later, and
    /// if it does not take it, wakes no other until it ends. So an instance with
    /// a request that may stay for long does not retire.
    async fn retire(&self) {
        if self.may_retire() {
            yields(self, YIELDS_BEFORE_RETIRING).await;
            if self.may_retire() {
                self.retired.set(true);
                back_pressure::raise();
            }
        }
    }
}

#[async_trait(?Send)]
impl Variables for Spin {
    async fn variable(&self, name: &str) -> Result<String, String> {
        variables::get(name).await.map_err(|error| error.to_string())
    }

    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[async_trait(?Send)]
impl KeyValue for Spin {
    fn is_free(&self) -> bool {
        self.under_way.get() == 0
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        until_free(self, self).await;
        let get = async { open_key_value().await?.get(key).await.map_err(key_value_error) };
        in_time(self, get).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        until_free(self, self).await;
        let set = async { open_key_value().await?.set(key, value).await.map_err(key_value_error) };
        in_time(self, set).await
    }
}

async fn open_key_value() -> Result<Store, KeyValueError> {
    Store::open(KEY_VALUE_STORE).await.map_err(key_value_error)
}

fn key_value_error(error: spin_sdk::key_value::Error) -> KeyValueError {
    KeyValueError(error.to_string())
}

/// How much of a line is read at a time, in bytes.
const LINE_READ_BYTES: usize = 64 * 1024;

/// What one side of a line says: the body of a request or of a reply, which goes on.
struct SpinSender {
    writer: StreamWriter<u8>,
    /// Its end would end the body.
    _trailers: FutureWriter<Result<Option<Trailers>, ErrorCode>>,
}

/// What the other side says.
struct SpinReceiver {
    reader: StreamReader<u8>,
    _result: FutureWriter<Result<(), ErrorCode>>,
}

#[async_trait(?Send)]
impl Sender for SpinSender {
    async fn send(&mut self, bytes: Vec<u8>) -> bool {
        self.writer.write_all(bytes).await.is_empty()
    }
}

#[async_trait(?Send)]
impl Receiver for SpinReceiver {
    async fn receive(&mut self, read: &mut Vec<u8>) -> bool {
        let mut buffer = std::mem::take(read);
        buffer.reserve(LINE_READ_BYTES);
        let (result, buffer) = self.reader.read(buffer).await;
        *read = buffer;
        matches!(result, StreamResult::Complete(_))
    }
}

fn line(
    writer: StreamWriter<u8>,
    trailers: FutureWriter<Result<Option<Trailers>, ErrorCode>>,
    reader: StreamReader<u8>,
    result: FutureWriter<Result<(), ErrorCode>>,
) -> Line {
    Line {
        sender: Box::new(SpinSender { writer, _trailers: trailers }),
        receiver: Box::new(SpinReceiver { reader, _result: result }),
    }
}

/// The other side of a line that another instance opened, and the reply to it, of this
/// status.
pub(crate) fn accept_line(request: Request, status: u16) -> (Response, Line) {
    let (writer, body) = wit_stream::new::<u8>();
    let (trailers_writer, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    // Every status that is used is one.
    response.set_status_code(status).ok();
    let (result_writer, result) = wit_future::new(|| Ok(()));
    let (reader, _) = Request::consume_body(request, result);
    (response, line(writer, trailers_writer, reader, result_writer))
}

#[async_trait(?Send)]
impl Chaining for Spin {
    /// With a request as it is, and not by way of the SDK, which would keep the
    /// instance for as long as the request has not ended.
    async fn call(&self, name: &str, path: &str) -> Result<Called, String> {
        if !back_pressure::IS_THERE {
            return Err("nobody can be the one writer without back-pressure".to_owned());
        }
        let (writer, body) = wit_stream::new::<u8>();
        let (trailers_writer, trailers) = wit_future::new(|| Ok(None));
        let (request, _sent) = Request::new(Fields::new(), Some(body), trailers, None);
        let authority = format!("{name}.spin.internal");
        request
            .set_method(&Method::Post)
            .and_then(|()| request.set_scheme(Some(&Scheme::Http)))
            .and_then(|()| request.set_authority(Some(&authority)))
            .and_then(|()| request.set_path_with_query(Some(path)))
            .map_err(|()| format!("no request for {authority}{path}"))?;
        let response = client::send(request).await.map_err(|error| error.to_string())?;
        let status = response.get_status_code();
        let (result_writer, result) = wit_future::new(|| Ok(()));
        let (reader, _) = Response::consume_body(response, result);
        let line = line(writer, trailers_writer, reader, result_writer);
        Ok(Called { status, line })
    }
}
