//! The entry point: reads a bounded body, calls the router, writes the reply
//! in one go, and logs what was refused.

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::wasip3::http::types;
use spin_sdk::wasip3::http_compat::IncomingRequestBody;
use spin_sdk::wasip3::wit_future;

use crate::config::Config;
use crate::http::cors;
use crate::http::problem::{Code, Problem};
use crate::http::reply::{Body, Feed, Reply};
use crate::log::{self, Level, Line};
use crate::platform::Clock;
use crate::platform::spin::{Spin, Stay, give_turns};
use crate::routes::{self, Route};

/// How much of a body that is not wanted is read and thrown away, so that a
/// client which sends first and listens then gets its reply and not a broken
/// connection.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What `Retry-After` says when the configuration that would say so is broken.
const MISCONFIGURED_RETRY_SECONDS: u32 = 30;

/// Turns of the event loop until the host takes an instance for free again.
const BUSY_TURNS: usize = 2;

/// Turns of the event loop from the last answer of the host to the reply.
const REPLY_TURNS: usize = 2;

type Frame = Result<http_body::Frame<Bytes>, anyhow::Error>;
type Parted = StreamBody<Pin<Box<dyn Stream<Item = Frame>>>>;

#[spin_sdk::http_service]
async fn handle(request: Request) -> Result<types::Response, types::ErrorCode> {
    let platform = Spin::new();
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::of(&parts, body);
    let may_stay = Route::of(parts.uri.path()).is_some_and(Route::may_stay);
    let stay = may_stay.then(|| platform.stay());
    // Until an instance has had nothing to do for two turns after a request came
    // in, the host counts it as busy and starts another for the next request.
    // Instances contend for the one database, so the fewer the better: give the
    // host its turns first, and do the work then.
    give_turns(BUSY_TURNS).await;
    let config = platform.config().await;
    let least = config.as_ref().map_or(Some(Level::Error), |config| config.log_level);
    let (result, config) = match config {
        Ok(config) => (answer(&platform, &config, &parts, &mut body).await, Some(config)),
        Err(why) => (Err(misconfigured(why)), None),
    };
    if result.is_err() {
        body.discard().await;
    }
    let reply = result.unwrap_or_else(|problem| {
        log_problem(&platform, least, &parts, &problem);
        problem.into_reply()
    });
    let reply = match &config {
        Some(config) => cors::allow(&config.cors_origins, &parts, reply),
        None => reply,
    };
    log_request(&platform, least, &parts, &reply);
    // A reply that is returned in the same turn in which the host answered an
    // asynchronous call (the end of a body, a variable, the key-value store)
    // leaves in two writes on Spin. After a turn more it leaves in one. A turn
    // is not given away when the host has another answer ready, hence two.
    give_turns(REPLY_TURNS).await;
    platform.linger();
    match parts.method {
        Method::HEAD => without_body(reply),
        _ if reply.status == StatusCode::NOT_MODIFIED => without_body(reply),
        _ => with_body(reply, platform, config, stay).into_response(),
    }
}

fn misconfigured(why: String) -> Problem {
    Problem::new(Code::Misconfigured, why).retry_after(MISCONFIGURED_RETRY_SECONDS)
}

async fn answer(
    platform: &Spin,
    config: &Config,
    request: &Parts,
    body: &mut RequestBody,
) -> Result<Reply, Problem> {
    let route = Route::of(request.uri.path());
    let body = match route {
        Some(route) if route.reads_body(&request.method) => {
            check_content_coding(request)?;
            body.read(config.body_bytes_max).await?
        }
        _ => Vec::new(),
    };
    routes::handle(platform, config, request, &body).await
}

fn check_content_coding(request: &Parts) -> Result<(), Problem> {
    for coding in request.headers.get_all(header::CONTENT_ENCODING) {
        let name = coding.as_bytes().trim_ascii();
        if !name.is_empty() && !name.eq_ignore_ascii_case(b"identity") {
            return Err(Problem::new(
                Code::UnsupportedEncoding,
                format!(
                    "The content coding {} is not supported; send the body as it is.",
                    String::from_utf8_lossy(coding.as_bytes())
                ),
            )
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        }
    }
    Ok(())
}

/// The body of a request, and how much of it is read.
struct RequestBody {
    stream: IncomingRequestBody,
    bytes_read: u64,
    /// If the client announced it.
    length: Option<u64>,
    /// The client sends the body only once we consent, which the first look at
    /// the stream does.
    awaits_consent: bool,
}

impl RequestBody {
    fn of(request: &Parts, stream: IncomingRequestBody) -> Self {
        let length = request.headers.get(header::CONTENT_LENGTH);
        RequestBody {
            stream,
            bytes_read: 0,
            length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            awaits_consent: request.headers.contains_key(header::EXPECT),
        }
    }

    /// The next part; `None` when no more is to come.
    ///
    /// A body whose length is known is read up to that length and not to the
    /// end of its stream, which arrives later than the last byte.
    async fn next(&mut self) -> Option<Result<Bytes, types::ErrorCode>> {
        while self.length.is_none_or(|length| self.bytes_read < length) {
            match self.stream.frame().await? {
                Ok(frame) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.bytes_read += data.len() as u64;
                    return Some(Ok(data));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Reads the whole body, `body_bytes_max` bytes at most.
    async fn read(&mut self, body_bytes_max: usize) -> Result<Vec<u8>, Problem> {
        if self.length.is_some_and(|length| length > body_bytes_max as u64) {
            return Err(Problem::body_too_large(body_bytes_max));
        }
        let mut read = Vec::new();
        while let Some(data) = self.next().await {
            let data = data.map_err(|error| self.incomplete().caused_by(error.to_string()))?;
            if read.len() + data.len() > body_bytes_max {
                return Err(Problem::body_too_large(body_bytes_max));
            }
            read.extend_from_slice(&data);
        }
        match self.length {
            Some(length) if self.bytes_read < length => Err(self.incomplete()),
            _ => Ok(read),
        }
    }

    /// Reads what is left of the body of a request that was refused.
    async fn discard(&mut self) {
        if self.awaits_consent && self.bytes_read == 0 {
            return;
        }
        let enough = self.bytes_read + DISCARD_BYTES_MAX;
        // How it ends does not matter any more.
        while self.bytes_read < enough && matches!(self.next().await, Some(Ok(_))) {}
    }

    fn incomplete(&self) -> Problem {
        let announced = self.length.map_or_else(String::new, |length| format!(" of {length}"));
        Problem::new(
            Code::IncompleteBody,
            format!(
                "The body ended after {}{announced} bytes; nothing of it was stored.",
                self.bytes_read
            ),
        )
    }
}

fn log_problem(platform: &Spin, least: Option<Level>, request: &Parts, problem: &Problem) {
    let status = problem.status();
    let (level, message) = if status.is_server_error() {
        (Level::Error, "request failed")
    } else {
        (Level::Warn, "request refused")
    };
    let line = Line {
        method: Some(request.method.as_str()),
        path: Some(request.uri.path()),
        status: Some(status.as_u16()),
        code: Some(problem.code().as_str()),
        detail: Some(problem.detail()),
        cause: problem.cause(),
        ..Line::new(message)
    };
    log::write(least, level, platform.now(), line);
}

fn log_request(platform: &Spin, least: Option<Level>, request: &Parts, reply: &Reply) {
    let line = Line {
        method: Some(request.method.as_str()),
        path: Some(request.uri.path()),
        status: Some(reply.status.as_u16()),
        ..Line::new("request answered")
    };
    log::write(least, Level::Debug, platform.now(), line);
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
    platform: Spin,
    config: Option<Rc<Config>>,
    stay: Option<Stay>,
) -> Response<Either<Full<Bytes>, Parted>> {
    let Reply { status, mut headers, body } = reply;
    let body = match (body, config) {
        (Body::Whole(body), _) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            Either::Left(Full::new(Bytes::from(body)))
        }
        (Body::Feed(feed), Some(config)) => Either::Right(parted(feed, platform, config, stay)),
        (Body::Feed(_), None) => Either::Left(Full::default()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is read from the store while it is sent. An error breaks it
/// off, so that the client sees that it is not whole.
fn parted(feed: Feed, platform: Spin, config: Rc<Config>, stay: Option<Stay>) -> Parted {
    let frames = stream::unfold(Some((feed, stay)), move |feed| {
        let (platform, config) = (platform.clone(), Rc::clone(&config));
        async move {
            let (mut feed, stay) = feed?;
            match feed.next(&platform, &config).await {
                Ok(Some(part)) => {
                    Some((Ok(http_body::Frame::data(Bytes::from(part))), Some((feed, stay))))
                }
                Ok(None) => None,
                Err(error) => {
                    let message = "a stream was broken off";
                    let line = Line { cause: Some(&error.message), ..Line::new(message) };
                    log::write(config.log_level, Level::Error, platform.now(), line);
                    Some((Err(anyhow::anyhow!("the store does not answer")), None))
                }
            }
        }
    });
    StreamBody::new(Box::pin(frames))
}
