//! The entry point: one request in, one reply out. Asks the routes, writes the
//! reply in one go, and logs what was refused.
//!
//! What other services call middleware (limits of the body, CORS headers, logging)
//! is here, around the one call of [`routes::handle`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
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
use crate::config::Role;
use crate::http::cors;
use crate::http::noted::{Noted, millis};
use crate::http::problem::{Code, Problem};
use crate::http::reply::{Body, ByteStream, Reply};
use crate::http::request::{Incoming, RequestBody};
use crate::http::trace::{Ids, Trace};
use crate::log::{self, Level, Line};
use crate::platform::Clock;
use crate::platform::scheduling::{
    YIELDS_BEFORE_LINGERING, YIELDS_BEFORE_REPLY, YIELDS_BEFORE_WORK, yields,
};
use crate::platform::spin::{KeepAlive, Spin, UnderWay, accept_line};
use crate::routes::{self, KeyValueUse, Route};
use crate::store::{frames, sqlite};
use crate::writer::Writer;

/// What `Retry-After` says when the configuration that would say so is broken.
const MISCONFIGURED_RETRY_SECONDS: u32 = 30;

/// How long no line is to come until an instance says what it left out.
const LOG_QUIET: Duration = Duration::from_secs(1);

thread_local! {
    /// This instance. Its requests share it: they run on one thread, and one goes
    /// on only where another awaits.
    static SPIN: Rc<Spin> = Rc::new(Spin::default());
    /// The role of an instance that writes for others, if that is its role.
    static WRITER: Option<Rc<Writer>> =
        SPIN.with(|spin| Role::is_writer(&**spin)).then(Rc::default);
    /// What makes ids for its requests.
    static IDS: Ids = Ids::default();
    /// The service, once its configuration could be read.
    static APP: RefCell<Option<Rc<App>>> = const { RefCell::new(None) };
}

type Frame = Result<http_body::Frame<Bytes>, anyhow::Error>;
type PartsBody = StreamBody<Pin<Box<dyn Stream<Item = Frame>>>>;

#[spin_sdk::http_service]
async fn handle(request: Request) -> Result<types::Response, types::ErrorCode> {
    let spin = SPIN.with(Rc::clone);
    if WRITER.with(Option::is_some) {
        return take_line(&spin, request).await;
    }
    let (head, body) = request.into_parts();
    let mut body = RequestBody::of(&head, body);
    let trace = IDS.with(|ids| Trace::of(&head.headers, ids));
    let began = is_timed(&trace).then(|| spin.monotonic());
    let route = routes::find(head.uri.path());
    let path = route.as_ref().and_then(Route::path);
    let refuse = route.as_ref().and_then(Route::refuse);
    let may_stay = route.as_ref().is_some_and(Route::may_stay);
    let keep_alive = may_stay.then(|| spin.keep_alive());
    let key_value = key_value_use(route.as_ref(), &head.method);
    let mut door = may_call_key_value(key_value).then(|| spin.close_door());
    // What may stay for long is not waited for.
    let waits = key_value != KeyValueUse::Always && !may_stay;
    let under_way = waits.then(|| spin.under_way());
    yields(&*spin, YIELDS_BEFORE_WORK).await;
    let app = match app(&spin).await {
        Ok(app) => app,
        Err(why) => {
            body.discard().await;
            let problem =
                Problem::new(Code::Misconfigured, why).retry_after(MISCONFIGURED_RETRY_SECONDS);
            let line = line_of(&head, &trace, path, &problem);
            log::write(Some(Level::Error), Level::Error, || spin.now(), line);
            yields(&*spin, YIELDS_BEFORE_REPLY).await;
            attend_log(&spin);
            let reply = trace.name(routes::refuse(refuse, &head, &trace, problem));
            return write(&head.method, reply, Held { keep_alive, under_way }, None);
        }
    };
    let noted = Noted::since(began.filter(|_| app.config.server_timing));
    let is_open = route.as_ref().is_some_and(|route| route.is_open(&app.config));
    let refuse = refuse.filter(|_| is_open);
    if key_value == KeyValueUse::WhenDue && door.is_some() && !app.history.is_due().await {
        door = None;
    }
    let result = {
        let read = async |as_it_comes: bool| {
            if as_it_comes {
                return body.stream(&head.headers).map(Incoming::Stream);
            }
            let body = body.read(&head.headers, app.config.body_bytes_max).await;
            // Once the body is here, however slowly it came, and before a commit that
            // may wait for a busy store: of all instances one keeps its door closed.
            if key_value == KeyValueUse::WhenDue && door.is_some() && !app.claim_snapshot().await {
                door = None;
            }
            body.map(Incoming::Whole)
        };
        routes::handle(&app, route, &head, &trace, &noted, read).await
    };
    let is_refused = result.is_err();
    let reply = result.unwrap_or_else(|problem| {
        let status = problem.status();
        let level = if status.is_server_error() { Level::Error } else { Level::Warn };
        app.log(level, line_of(&head, &trace, path, &problem));
        routes::refuse(refuse, &head, &trace, problem)
    });
    let reply = noted.tell(reply, &*spin);
    let reply = trace.name(cors::allow(&app.config.cors_origins, &head, reply));
    let line = Line {
        method: Some(head.method.as_str()),
        path: Some(head.uri.path()),
        route: path,
        status: Some(reply.status.as_u16()),
        ..trace.line("request answered")
    };
    match began.and_then(|began| Some((began, sample_rate(&app, &trace)?))) {
        Some((began, sample_rate)) => {
            let line = Line {
                bytes: body.bytes_read(),
                events: noted.events(),
                key: noted.key().map(|key| key.name.as_str()),
                duration_ms: Some(millis(spin.monotonic().saturating_sub(began))),
                sample_rate: Some(sample_rate),
                is_always_written: true,
                ..line
            };
            app.log(Level::Info, line);
        }
        None => app.log(Level::Debug, line),
    }
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
    match door.and_then(|door| Some((door, app.take_wanted_visit()?))) {
        // It takes no others meanwhile.
        Some((door, visit)) => {
            after_reply(&app, door, async move |app| app.visit_key_value(visit).await);
        }
        None => linger(&app),
    }
    if key_value == KeyValueUse::WhenDue && app.pruner.may_be_due() {
        after_reply(&app, spin.keep_alive(), async |app| app.prune().await);
    }
    attend_log(&spin);
    write(&head.method, reply, Held { keep_alive, under_way }, Some((app, trace)))
}

/// Takes a line of an instance that hands its commits over, or leaves it to another
/// writer.
async fn take_line(spin: &Rc<Spin>, request: Request) -> Result<types::Response, types::ErrorCode> {
    let internal = |why: &str| types::ErrorCode::InternalError(Some(why.to_owned()));
    let Some(writer) = WRITER.with(Clone::clone) else { return Err(internal("no writer")) };
    let Some(request) = request.into_body().take_unstarted() else {
        return Err(internal("the request has begun"));
    };
    let taken = match request.get_path_with_query().as_deref() {
        Some(frames::PATH) => writer.take_line(&**spin),
        _ => None,
    };
    // Before the first `await`: see `Spin::close_door`.
    if taken.as_ref().is_none_or(|taken| taken.is_last) {
        spin.close_door_for_good();
    }
    if taken.as_ref().is_some_and(|taken| !taken.is_first) {
        yields(&**spin, YIELDS_BEFORE_WORK).await;
    }
    let status = match &taken {
        None => sqlite::ANOTHER_WRITES,
        Some(taken) if taken.is_busy => sqlite::BUSY,
        Some(_) => sqlite::QUIET,
    };
    let (response, line) = accept_line(request, status);
    if let Some(taken) = taken {
        let spin = Rc::clone(spin);
        spawn(async move {
            match app(&spin).await {
                Ok(app) => writer.serve(&app, taken, line).await,
                Err(why) => {
                    let message = "a line of another instance cannot be served";
                    let line = Line { detail: Some(&why), ..Line::new(message) };
                    log::write(Some(Level::Error), Level::Error, || spin.now(), line);
                }
            }
        });
    }
    Ok(response)
}

/// Whether it may matter when a request began, as far as can be told at once.
fn is_timed(trace: &Trace) -> bool {
    APP.with_borrow(|app| {
        app.as_ref().is_none_or(|app| app.config.server_timing || sample_rate(app, trace).is_some())
    })
}

/// Of which share of the requests there is a line of access, if there is one of this.
fn sample_rate(app: &App, trace: &Trace) -> Option<f64> {
    let share = app.config.access_log.filter(|share| share.has(trace.chosen_by()))?;
    Some(share.rate())
}

/// How a request may use the key-value store.
fn key_value_use(route: Option<&Route>, method: &Method) -> KeyValueUse {
    let operation = route.and_then(|route| route.operation(method));
    operation.map_or(KeyValueUse::Never, |operation| operation.key_value)
}

/// Whether a request may lead to calls of the key-value store, as far as can be told
/// at once.
fn may_call_key_value(key_value: KeyValueUse) -> bool {
    match key_value {
        KeyValueUse::Never => false,
        KeyValueUse::WhenDue => {
            APP.with_borrow(|app| app.as_ref().is_none_or(|app| app.history.may_be_due()))
        }
        KeyValueUse::Always => true,
    }
}

/// Does `work` when the reply of this request is out. What is `held` meanwhile says
/// whether the instance takes others.
fn after_reply(app: &Rc<App>, held: impl Sized + 'static, work: impl AsyncFnOnce(&App) + 'static) {
    let app = Rc::clone(app);
    spawn(async move {
        yields(&*app.platform, YIELDS_BEFORE_LINGERING).await;
        work(&app).await;
        drop(held);
        if app.wants_to_linger() {
            app.linger().await;
        }
    });
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

fn line_of<'a>(
    request: &'a Parts,
    trace: &'a Trace,
    route: Option<&'static str>,
    problem: &'a Problem,
) -> Line<'a> {
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
        ..trace.line(message)
    }
}

/// What is held until a reply is out.
struct Held {
    keep_alive: Option<KeepAlive>,
    #[expect(dead_code, reason = "it is held, and read by nobody")]
    under_way: Option<UnderWay>,
}

fn write(
    method: &Method,
    reply: Reply,
    held: Held,
    of_request: Option<(Rc<App>, Trace)>,
) -> Result<types::Response, types::ErrorCode> {
    if *method == Method::HEAD || has_no_body(reply.status) {
        return without_body(reply);
    }
    with_body(reply, held, of_request).into_response()
}

/// Whether no reply of this status has a body, nor a length.
fn has_no_body(status: StatusCode) -> bool {
    [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

/// The head of the reply to GET, and no body at all: an empty one would not
/// match `content-length`, and HTTP/2 takes a full one for an error. Of what
/// the client has already, the length is not told: it would be that of the
/// whole.
fn without_body(reply: Reply) -> Result<types::Response, types::ErrorCode> {
    let Reply { status, mut headers, body } = reply;
    if let Body::Whole(body) = body
        && !has_no_body(status)
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
    held: Held,
    of_request: Option<(Rc<App>, Trace)>,
) -> Response<Either<WholeBody, PartsBody>> {
    let Reply { status, mut headers, body } = reply;
    let body = match body {
        Body::Whole(body) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            Either::Left(WholeBody { body: Full::new(Bytes::from(body)), _held: held })
        }
        Body::Stream(parts) => Either::Right(stream_body(parts, of_request, held.keep_alive)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is there, and what is held until the host has all of it.
struct WholeBody {
    body: Full<Bytes>,
    _held: Held,
}

impl http_body::Body for WholeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A body that is read from the store while it is sent; its instance stays for
/// as long. An error breaks it off, so that the client sees that it is not whole.
fn stream_body(
    parts: ByteStream,
    of_request: Option<(Rc<App>, Trace)>,
    keep_alive: Option<KeepAlive>,
) -> PartsBody {
    let frames = parts.map(move |part| {
        let _stays = &keep_alive;
        part.map(|bytes| http_body::Frame::data(Bytes::from(bytes))).map_err(|error| {
            if let Some((app, trace)) = &of_request {
                let line = trace.line("a stream was broken off");
                app.log(Level::Error, Line { cause: Some(&error.message), ..line });
            }
            anyhow::anyhow!("the store does not answer")
        })
    });
    StreamBody::new(Box::pin(frames))
}
