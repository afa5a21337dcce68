//! The entry point: reads a bounded body, calls the router, writes the reply
//! in one go, and logs what was refused.

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use http::request::Parts;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use spin_sdk::http::Request;
use spin_sdk::wit_bindgen::yield_async;

use crate::config::Config;
use crate::events::Pages;
use crate::log::{self, Level, Line};
use crate::ports::Clock;
use crate::problem::{Code, Problem};
use crate::reply::{Body, Reply};
use crate::router::{self, Route};
use crate::spin::Spin;

/// A body that is too large is read on and thrown away up to this many times
/// its limit, so that a client which sends first and listens then gets its
/// 413 and not a broken connection.
const DISCARD_LIMITS_MAX: usize = 4;

/// What `Retry-After` says when the configuration that would say so is broken.
const MISCONFIGURED_RETRY_SECONDS: u32 = 30;

type Frame = Result<http_body::Frame<Bytes>, anyhow::Error>;
type Parted = StreamBody<Pin<Box<dyn Stream<Item = Frame>>>>;

#[spin_sdk::http_service]
async fn handle(request: Request) -> Response<Either<Full<Bytes>, Parted>> {
    let platform = Spin::new();
    let (parts, body) = request.into_parts();
    let config = platform.config().await;
    let least = config.as_ref().map_or(Some(Level::Error), |config| config.log_level);
    let (result, config) = match config {
        Ok(config) => (answer(&platform, &config, &parts, body).await, Some(config)),
        Err(why) => (Err(misconfigured(why)), None),
    };
    let reply = result.unwrap_or_else(|problem| {
        log_problem(&platform, least, &parts, &problem);
        problem.into_reply()
    });
    log_request(&platform, least, &parts, &reply);
    into_response(reply, platform, config)
}

fn misconfigured(why: String) -> Problem {
    Problem::new(Code::Misconfigured, why).retry_after(MISCONFIGURED_RETRY_SECONDS)
}

async fn answer(
    platform: &Spin,
    config: &Config,
    request: &Parts,
    body: impl http_body::Body<Data = Bytes, Error: std::fmt::Display>,
) -> Result<Reply, Problem> {
    let route = Route::of(request.uri.path());
    let body = match route {
        Some(route) if route.reads_body(&request.method) => {
            check_content_coding(request)?;
            read_body(request, body, config.body_bytes_max).await?
        }
        _ => Vec::new(),
    };
    router::handle(platform, config, request, &body).await
}

fn check_content_coding(request: &Parts) -> Result<(), Problem> {
    for coding in request.headers.get_all(header::CONTENT_ENCODING) {
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
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

/// Reads a body of `body_bytes_max` bytes at most.
///
/// A body whose length is known is read up to that length and not to the end
/// of its stream: the end arrives later than the last byte, and on Spin the
/// reply would then leave in two writes (40 ms, see `Body::Whole`). Where it
/// is not known, one yield before the reply has the same effect.
async fn read_body(
    request: &Parts,
    body: impl http_body::Body<Data = Bytes, Error: std::fmt::Display>,
    body_bytes_max: usize,
) -> Result<Vec<u8>, Problem> {
    let length = request
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let awaits_consent = request.headers.contains_key(header::EXPECT);
    if length.is_some_and(|length| length > body_bytes_max) && awaits_consent {
        return Err(Problem::body_too_large(body_bytes_max));
    }
    let mut body = std::pin::pin!(body);
    let mut read = Vec::with_capacity(length.unwrap_or(0).min(body_bytes_max));
    let mut bytes = 0;
    while length.is_none_or(|length| bytes < length) {
        match body.as_mut().frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    bytes += data.len();
                    if bytes <= body_bytes_max {
                        read.extend_from_slice(&data);
                    } else if bytes / DISCARD_LIMITS_MAX > body_bytes_max {
                        break;
                    } else {
                        read = Vec::new();
                    }
                }
            }
            Some(Err(error)) => {
                return Err(incomplete(bytes, length).caused_by(error.to_string()));
            }
            None if length.is_some() => return Err(incomplete(bytes, length)),
            None => break,
        }
    }
    if length.is_none() {
        yield_async().await;
    }
    if bytes > body_bytes_max {
        return Err(Problem::body_too_large(body_bytes_max));
    }
    Ok(read)
}

fn incomplete(bytes: usize, length: Option<usize>) -> Problem {
    let announced = length.map_or_else(String::new, |length| format!(" of {length}"));
    Problem::new(
        Code::IncompleteBody,
        format!("The body ended after {bytes}{announced} bytes; nothing of it was stored."),
    )
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

fn into_response(
    reply: Reply,
    platform: Spin,
    config: Option<Rc<Config>>,
) -> Response<Either<Full<Bytes>, Parted>> {
    let Reply { status, mut headers, body } = reply;
    let body = match (body, config) {
        (Body::Whole(body), _) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            Either::Left(Full::new(Bytes::from(body)))
        }
        (Body::Pages(pages), Some(config)) => Either::Right(parted(pages, platform, config)),
        (Body::Pages(_), None) => Either::Left(Full::default()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A body that is read from the store while it is sent. An error breaks it
/// off, so that the client sees that it is not whole.
fn parted(pages: Pages, platform: Spin, config: Rc<Config>) -> Parted {
    let parts = stream::unfold(Some(pages), move |pages| {
        let (platform, config) = (platform.clone(), Rc::clone(&config));
        async move {
            let mut pages = pages?;
            match pages.next(&platform, &config).await {
                Ok(Some(lines)) => {
                    Some((Ok(http_body::Frame::data(Bytes::from(lines))), Some(pages)))
                }
                Ok(None) => None,
                Err(error) => {
                    let message = "a stream of events was broken off";
                    let line = Line { cause: Some(&error.message), ..Line::new(message) };
                    log::write(config.log_level, Level::Error, platform.now(), line);
                    Some((Err(anyhow::anyhow!("the store does not answer")), None))
                }
            }
        }
    });
    StreamBody::new(Box::pin(parts))
}
