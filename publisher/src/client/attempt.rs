//! One attempt of a request, and what it comes to.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, StatusCode};

use super::transport::{Error, ErrorKind, Reply, Transport};
use crate::retry;
use crate::wire::{Problem, excerpt};

/// How an attempt failed that may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransientError {
    /// There was no connection.
    Connect,
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken,
    /// The service answered with this status.
    Status(u16),
}

impl std::fmt::Display for TransientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Timeout => f.write_str("timeout"),
            Self::Broken => f.write_str("broken"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// Why a request has no reply.
#[derive(Debug)]
pub enum Failure {
    /// 413: over the service's limit of bytes or events.
    TooLarge(Problem),
    /// 422: not one event of it is valid.
    Invalid(Problem),
    /// Another status that is an answer.
    Refused {
        /// The status.
        status: StatusCode,
        /// What the service says about it.
        problem: Problem,
    },
    /// A success that is not the contract's.
    Protocol(String),
    /// Retries did not help within their limit.
    GaveUp {
        /// How the last attempt failed.
        error: TransientError,
        /// What the last attempt met.
        last: String,
        /// Attempts made.
        attempts: u64,
        /// Time since the first attempt.
        elapsed: Duration,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(problem) => write!(f, "413 too large: {problem}"),
            Self::Invalid(problem) => write!(f, "422 invalid: {problem}"),
            Self::Refused { status, problem } => write!(f, "{status}: {problem}"),
            Self::Protocol(text) => write!(f, "not a reply of the contract: {text}"),
            Self::GaveUp { last, attempts: 1, .. } => f.write_str(last),
            Self::GaveUp { last, attempts, elapsed, .. } => {
                let seconds = elapsed.as_secs_f64();
                write!(f, "gave up after {attempts} attempts in {seconds:.1} s: {last}")
            }
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The same, with the proxy that may be the reason; nothing if there is none.
    pub(super) fn by_way(self, via: &str) -> Self {
        match self {
            Self::TooLarge(problem) => Self::TooLarge(problem.with_note(via)),
            Self::Invalid(problem) => Self::Invalid(problem.with_note(via)),
            Self::Refused { status, problem } => {
                Self::Refused { status, problem: problem.with_note(via) }
            }
            Self::Protocol(text) => Self::Protocol(text + via),
            Self::GaveUp { error, last, attempts, elapsed } => {
                Self::GaveUp { error, last: last + via, attempts, elapsed }
            }
        }
    }

    /// What kind of failure it is, in a word.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::TooLarge(_) => "413".to_owned(),
            Self::Invalid(_) => "422".to_owned(),
            Self::Refused { status, .. } => status.as_u16().to_string(),
            Self::Protocol(_) => "protocol".to_owned(),
            Self::GaveUp { error, .. } => error.to_string(),
        }
    }
}

/// An attempt that failed and may be retried.
#[derive(Debug)]
pub(super) struct Retryable {
    pub(super) error: TransientError,
    pub(super) why: String,
    pub(super) indeterminate: bool,
    pub(super) retry_after: Option<Duration>,
}

/// What one attempt came to.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    /// And how many bytes it had.
    Reply(T, u64),
    Retryable(Retryable),
    Final(Failure),
}

pub(super) fn transient_error(kind: ErrorKind) -> TransientError {
    match kind {
        ErrorKind::Connect => TransientError::Connect,
        ErrorKind::Timeout => TransientError::Timeout,
        ErrorKind::Broken => TransientError::Broken,
    }
}

/// Sends once and reads the whole reply.
pub(super) async fn attempt<T>(
    transport: &Transport,
    request: Request<Bytes>,
    read: impl Fn(&Bytes) -> serde_json::Result<T>,
) -> Attempt<T> {
    let Reply { status, headers, body } = match transport.send(request).await {
        Ok(reply) => reply,
        Err(Error { kind, text }) => {
            return Attempt::Retryable(Retryable {
                error: transient_error(kind),
                why: text,
                // Without a connection nothing can have been stored.
                indeterminate: kind != ErrorKind::Connect,
                retry_after: None,
            });
        }
    };
    let retry_after = retry_after(&headers);
    let body = match body {
        Ok(body) => body,
        Err(Error { kind, text }) => {
            return Attempt::Retryable(Retryable {
                error: transient_error(kind),
                why: format!("{status}, and {text}"),
                indeterminate: true,
                retry_after,
            });
        }
    };
    match status {
        StatusCode::OK => match read(&body) {
            Ok(reply) => Attempt::Reply(reply, body.len() as u64),
            Err(error) => {
                let text = format!("{error} in {:?}", excerpt(&body));
                Attempt::Final(Failure::Protocol(text))
            }
        },
        StatusCode::PAYLOAD_TOO_LARGE => Attempt::Final(Failure::TooLarge(Problem::read(&body))),
        StatusCode::UNPROCESSABLE_ENTITY => Attempt::Final(Failure::Invalid(Problem::read(&body))),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Attempt::Retryable(Retryable {
            error: TransientError::Status(status.as_u16()),
            why: format!("{status}: {}", Problem::read(&body)),
            // A refusal for rate is given before the work; of the others, the
            // contract's 503 included, one cannot know.
            indeterminate: status != StatusCode::TOO_MANY_REQUESTS,
            retry_after,
        }),
        _ => Attempt::Final(Failure::Refused { status, problem: Problem::read(&body) }),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry::parse_retry_after(value, SystemTime::now())
}
