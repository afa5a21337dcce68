//! Why a stream has ended.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Response, StatusCode};

use super::super::attempt::{Attempt, Failure, Retryable, TransientError, transient_error};
use super::super::transport::{Down, Error, ErrorKind};
use crate::wire::{Problem, PublishReply};

/// Why a stream has ended.
pub(super) enum End {
    /// Nobody knows what of that which waits is stored.
    Lost {
        error: TransientError,
        why: String,
        indeterminate: bool,
    },
    /// The service does not want any of it.
    Refused {
        status: StatusCode,
        problem: Problem,
    },
    Protocol(String),
    /// Nothing waited for it.
    Idle,
}

impl End {
    pub(super) fn of(error: &Error) -> Self {
        End::Lost {
            error: transient_error(error.kind),
            why: error.text.clone(),
            indeterminate: error.kind != ErrorKind::Connect,
        }
    }

    /// A reply that is no stream.
    pub(super) async fn of_reply(response: Response<Down>, read_max: Duration) -> Self {
        let status = response.status();
        let body = tokio::time::timeout(read_max, response.into_body().collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
        Self::refused(status, &body.unwrap_or_default())
    }

    /// A reply that has ended before all was told.
    pub(super) fn broken() -> Self {
        End::Lost {
            error: TransientError::Broken,
            why: "the stream has ended".to_owned(),
            indeterminate: true,
        }
    }

    /// What did not come in time.
    pub(super) fn late(what: &str, within: Duration) -> Self {
        End::Lost {
            error: TransientError::Timeout,
            why: format!("no {what} within {} s", within.as_secs_f64()),
            indeterminate: true,
        }
    }

    /// A status other than 200, at the beginning or of the last line.
    pub(super) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let problem = Problem::read(body);
        let is_final =
            [StatusCode::NOT_IMPLEMENTED, StatusCode::HTTP_VERSION_NOT_SUPPORTED].contains(&status);
        let passes = status.is_server_error() && !is_final
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        match passes {
            true => End::Lost {
                error: TransientError::Status(status.as_u16()),
                why: format!("{status}: {problem}"),
                indeterminate: true,
            },
            false => End::Refused { status, problem },
        }
    }

    pub(super) fn attempt(&self) -> Attempt<PublishReply> {
        match self {
            End::Lost { error, why, indeterminate } => Attempt::Retryable(Retryable {
                error: *error,
                why: why.clone(),
                indeterminate: *indeterminate,
                retry_after: None,
            }),
            End::Refused { status, problem } => {
                Attempt::Final(Failure::Refused { status: *status, problem: problem.clone() })
            }
            End::Protocol(text) => Attempt::Final(Failure::Protocol(text.clone())),
            End::Idle => broken_off(),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Lost { why, .. } => f.write_str(why),
            End::Refused { status, problem } => write!(f, "{status}: {problem}"),
            End::Protocol(text) => write!(f, "not a reply of the contract: {text}"),
            End::Idle => f.write_str("the stream has ended"),
        }
    }
}

/// Nobody is there any more to tell what came of an attempt.
pub(in crate::client) fn broken_off<T>() -> Attempt<T> {
    Attempt::Retryable(Retryable {
        error: TransientError::Broken,
        why: "the stream has ended".to_owned(),
        indeterminate: true,
        retry_after: None,
    })
}
