//! The entry point: one request in, one reply out. Asks the routes, writes the
//! reply in one go, and logs what was refused.
//!
//! What other services call middleware (limits of the body, CORS headers, logging)
//! is here, around the one call of [`routes::handle`].

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{Either, Full, StreamBody};
use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::wasip3::http::types;
use spin_sdk::wasip3::wit_future;
use spin_sdk::wit_bindgen::spawn;

use crate::app::App;
use crate::http::cors;
use crate::http::problem::{Code, Problem};
use crate::http::reply::{Body, ByteStream, Reply};
use crate::http::request::RequestBody;
use crate::log::{self, Level, Line};
use crate::platform::Clock;
use crate::platform::scheduling::{
    YIELDS_BEFORE_LINGERING, YIELDS_BEFORE_REPLY, YIELDS_BEFORE_WORK, yields,
};
use crate::platform::spin::{KeepAlive, Spin};
use crate::routes::{self, Route};

/// What `Retry-After` says when the configuration that would say so is broken.
const MISCONFIGURED_RETRY_SECONDS: u32 = 30;

/// How long no line is to come until an instance says what it left out.
const LOG_QUIET: Duration = Duration::from_secs(1);

thread_local! {
    /// This instance. Its requests share it: they run on one thread, and one goes
    /// on only where another awaits.
    static SPIN: Rc<Spin> = Rc::new(Spin::default());
    /// The service, once its configuration could be read.
    static APP: RefCell<Option<Rc<App>>> = const { RefCell::new(None) };
}

type Frame = Result<http_body::Frame<Bytes>, anyhow::Error>;
type PartsBody = StreamBody<Pin<Box<dyn Stream<Item = Frame>>>>;

#[spin_sdk::http_service]
async fn handle(request: Request) -> Result<types::Response, types::ErrorCode> {
    let spin = SPIN.with(Rc::clone);
    let (head, body) = request.into_parts();
    let mut body = RequestBody::of(&head, body);
    let route = routes::find(head.uri.path());
    let path = route.as_ref().and_then(Route::path);
    let may_stay = route.as_ref().is_some_and(Route::may_stay);
    let keep_alive = may_stay.then(|| spin.keep_alive());
    yields(&*spin, YIELDS_BEFORE_WORK).await;
    let app = match app(&spin).await {
        Ok(app) => app,
        Err(why) => {
            body.discard().await;
            let problem =
                Problem::new(Code::Misconfigured, why).retry_after(MISCONFIGURED_RETRY_SECONDS);
            let line = line_of(&head, path, &problem);
            log::write(Some(Level::Error), Level::Error, spin.now(), line);
            yields(&*spin, YIELDS_BEFORE_REPLY).await;
            attend_log(&spin);
            return write(&head.method, problem.into_reply(), None, keep_alive);
        }
    };
    let result = {
        let read = async || body.read(&head.headers, app.config.body_bytes_max).await;
        routes::handle(&app, route, &head, read).await
    };
    let is_refused = result.is_err();
    let reply = result.unwrap_or_else(|problem| {
        let status = problem.status();
        let level = if status.is_server_error() { Level::Error } else { Level::Warn };
        app.log(level, line_of(&head, path, &problem));
        problem.into_reply()
    });
    let reply = cors::allow(&app.config.cors_origins, &head, reply);
    app.log(
        Level::Debug,
        Line {
            method: Some(head.method.as_str()),
            path: Some(head.uri.path()),
            status: Some(reply.status.as_u16()),
            ..Line::new("request answered")
        },
    );
    yields(&*spin, YIELDS_BEFORE_REPLY).await;
    if is_refused && may_have_body(&head) {
        // After the reply: whoever listens need not send the rest first. Not without
        // need, as the end of the body would come between the reply's head and body.
        let stays = spin.keep_alive();
        spawn(async move {
            body.discard().await;
            drop(stays);
        });
    }
    linger(&app);
    attend_log(&spin);
    write(&head.method, reply, Some(app), keep_alive)
}

/// Whether a body may come with a request. How long it is may not be told, in
/// chunks and over HTTP/2, but whoever reads sends none.
fn may_have_body(head: &Parts) -> bool {
    let length = head.headers.get(header::CONTENT_LENGTH);
    let reads = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    length.map_or(!reads, |length| length != "0")
}

/// The service, set up by the first request of an instance.
async fn app(spin: &Rc<Spin>) -> Result<Rc<App>, String> {
    if let Some(app) = APP.with_borrow(Clone::clone) {
        return Ok(app);
    }
    let loaded = App::load(Rc::clone(spin) as _).await?;
    // Another request may have been faster.
    Ok(APP.with_borrow_mut(|app| Rc::clone(app.get_or_insert(loaded))))
}

/// Keeps this instance for what it has to do when its requests are answered.
fn linger(app: &Rc<App>) {
    if app.wants_to_linger() {
        let app = Rc::clone(app);
        spawn(async move {
            yields(&*app.platform, YIELDS_BEFORE_LINGERING).await;
            app.linger().await;
        });
    }
}

/// Keeps this instance until it can say what it left out of the log: as long as
/// requests come they say so themselves.
fn attend_log(spin: &Rc<Spin>) {
    if log::attend() {
        let spin = Rc::clone(spin);
        spawn(async move {
            yields(&*spin, YIELDS_BEFORE_LINGERING).await;
            let mut lines = 0;
            while lines != log::lines() {
                lines = log::lines();
                spin.sleep(LOG_QUIET).await;
            }
            log::flush(spin.now());
        });
    }
}

fn line_of<'a>(request: &'a Parts, route: Option<&'static str>, problem: &'a Problem) -> Line<'a> {
    let status = problem.status();
    let message = if status.is_server_error() { "request failed" } else { "request refused" };
    Line {
        method: Some(request.method.as_str()),
        path: Some(request.uri.path()),
        route,
        status: Some(status.as_u16()),
        code: Some(problem.code().as_str()),
        detail: Some(problem.detail()),
        cause: problem.cause(),
        ..Line::new(message)
    }
}

fn write(
    method: &Method,
    reply: Reply,
    app: Option<Rc<App>>,
    keep_alive: Option<KeepAlive>,
) -> Result<types::Response, types::ErrorCode> {
    if *method == Method::HEAD || reply.status == StatusCode::NOT_MODIFIED {
        return without_body(reply);
    }
    with_body(reply, app, keep_alive).into_response()
}

/// The head of the reply to GET, and no body at all: an empty one would not
/// match `content-length`, and HTTP/2 takes a full one for an error. Of what
/// the client has already, the length is not told: it would be that of the
/// whole.
fn without_body(reply: Reply) -> Result<types::Response, types::ErrorCode> {
    let Reply { status, mut headers, body } = reply;
    if let Body::Whole(body) = body
        && status != StatusCode::NOT_MODIFIED
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let internal = |error: String| types::ErrorCode::InternalError(Some(error));
    let headers =
        headers.try_into().map_err(|error: types::HeaderError| internal(error.to_string()))?;
    // The writer is dropped at once, which says that there are no trailers.
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = types::Response::new(headers, None, trailers);
    match response.set_status_code(status.as_u16()) {
        Ok(()) => Ok(response),
        Err(()) => Err(internal(format!("{status} is no status"))),
    }
}

fn with_body(
    reply: Reply,
    app: Option<Rc<App>>,
    keep_alive: Option<KeepAlive>,
) -> Response<Either<Full<Bytes>, PartsBody>> {
    let Reply { status, mut headers, body } = reply;
    let body = match body {
        Body::Whole(body) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            Either::Left(Full::new(Bytes::from(body)))
        }
        Body::Stream(parts) => Either::Right(stream_body(parts, app, keep_alive)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is read from the store while it is sent; its instance stays for
/// as long. An error breaks it off, so that the client sees that it is not whole.
fn stream_body(
    parts: ByteStream,
    app: Option<Rc<App>>,
    keep_alive: Option<KeepAlive>,
) -> PartsBody {
    let frames = parts.map(move |part| {
        let _stays = &keep_alive;
        part.map(|bytes| http_body::Frame::data(Bytes::from(bytes))).map_err(|error| {
            if let Some(app) = &app {
                app.log_fault(Level::Error, "a stream was broken off", &error);
            }
            anyhow::anyhow!("the store does not answer")
        })
    });
    StreamBody::new(Box::pin(frames))
}
