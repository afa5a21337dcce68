//! Every error that a client can see: RFC 9457 `application/problem+json`.
//!
//! A [`Problem`] answers three questions: whose fault it is (4xx or 5xx),
//! whether the same request may be sent again (`Retry-After` is there or not),
//! and by which stable `code` a program can tell it apart. Causes go to the
//! log and stay there.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::event::FieldError;
use crate::http::reply::Reply;
use crate::http::room::Room;
use crate::http::trace::REQUEST_ID_BYTES_MAX;
use crate::store::{Cursor, Fault, StoreError};
use crate::text::{shortened, to_json};

/// Longest detail, in bytes of JSON. It may tell a client what it has sent, which
/// can be as long as a request's head.
const DETAIL_BYTES_MAX: usize = 1_000;

/// How much of what a client has sent is told back within a sentence, in bytes.
pub(crate) const TOLD_BACK_BYTES_MAX: usize = 200;

/// What went wrong, one name for each thing that a client may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The body is not JSON, or not one of the shapes.
    InvalidBody,
    /// The body ended before it was whole.
    IncompleteBody,
    /// The body is longer than `body_bytes_max`.
    BodyTooLarge,
    /// More events than `batch_events_max`.
    TooManyEvents,
    /// No event of the request is valid, or one is not and the request is atomic.
    InvalidEvents,
    /// A query parameter cannot be understood.
    InvalidParameter,
    /// A content coding that is not supported.
    UnsupportedEncoding,
    /// A content type that the route does not take.
    UnsupportedMediaType,
    /// Sent by a page of an origin that may not.
    OriginRefused,
    /// Sent to a host by which the service is not to be called.
    HostRefused,
    /// No key came with the request.
    KeyRequired,
    /// The key is not one of the service's.
    KeyUnknown,
    /// The key has ended.
    KeyExpired,
    /// The key is not good for this operation.
    ScopeMissing,
    /// The key is not good for this topic.
    TopicRefused,
    /// The key has published more than it may.
    RateLimited,
    /// No such route.
    NotFound,
    /// The route has other methods.
    MethodNotAllowed,
    /// No such subscription.
    SubscriptionNotFound,
    /// A webhook that is not signed as it should be.
    WebhookRefused,
    /// Webhooks of a topic that nobody may sign for.
    WebhookUnknown,
    /// A cursor that lies ahead of every event.
    CursorAhead,
    /// No room for another subscription.
    TooManySubscriptions,
    /// Another writer held the store for too long.
    StoreBusy,
    /// The store has no room left.
    StoreFull,
    /// The store does not answer.
    StoreUnavailable,
    /// A Spin variable has a value that cannot be used.
    Misconfigured,
    /// A defect of Sekali.
    Internal,
}

impl Code {
    /// The code as it stands in a reply.
    pub(crate) fn as_str(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Code::InvalidBody => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_body",
                "The body is not what was expected",
            ),
            Code::IncompleteBody => {
                (StatusCode::BAD_REQUEST, "incomplete_body", "The body ended too early")
            }
            Code::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
            }
            Code::TooManyEvents => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", "Too many events in one request")
            }
            Code::InvalidEvents => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_events", "Events are not valid")
            }
            Code::InvalidParameter => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", "A parameter is not valid")
            }
            Code::UnsupportedEncoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                "The content coding is not supported",
            ),
            Code::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The content type is not supported",
            ),
            Code::OriginRefused => {
                (StatusCode::FORBIDDEN, "origin_refused", "Pages of this origin may not send that")
            }
            Code::HostRefused => (
                StatusCode::MISDIRECTED_REQUEST,
                "host_refused",
                "The service is not to be called by this host",
            ),
            Code::KeyRequired => (StatusCode::UNAUTHORIZED, "key_required", "A key is needed"),
            Code::KeyUnknown => (StatusCode::UNAUTHORIZED, "key_unknown", "The key is not known"),
            Code::KeyExpired => (StatusCode::UNAUTHORIZED, "key_expired", "The key has ended"),
            Code::ScopeMissing => {
                (StatusCode::FORBIDDEN, "scope_missing", "The key is not good for this")
            }
            Code::TopicRefused => {
                (StatusCode::FORBIDDEN, "topic_refused", "The key is not good for this topic")
            }
            Code::RateLimited => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "The key has published too much")
            }
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is no such route"),
            Code::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The route does not have this method",
            ),
            Code::SubscriptionNotFound => {
                (StatusCode::NOT_FOUND, "subscription_not_found", "There is no such subscription")
            }
            Code::WebhookRefused => (
                StatusCode::UNAUTHORIZED,
                "webhook_refused",
                "The webhook is not signed as it should be",
            ),
            Code::WebhookUnknown => {
                (StatusCode::NOT_FOUND, "webhook_unknown", "No webhooks of this topic are taken")
            }
            Code::CursorAhead => {
                (StatusCode::CONFLICT, "cursor_ahead", "The cursor is ahead of every event")
            }
            Code::TooManySubscriptions => {
                (StatusCode::CONFLICT, "too_many_subscriptions", "There are too many subscriptions")
            }
            Code::StoreBusy => (StatusCode::SERVICE_UNAVAILABLE, "store_busy", "The store is busy"),
            Code::StoreFull => (StatusCode::SERVICE_UNAVAILABLE, "store_full", "The store is full"),
            Code::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "The store does not answer")
            }
            Code::Misconfigured => (
                StatusCode::SERVICE_UNAVAILABLE,
                "misconfigured",
                "The service is not configured correctly",
            ),
            Code::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service has a defect")
            }
        }
    }
}

/// One event of a request that is not valid.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct InvalidEvent {
    /// Its place in the body, from 0.
    pub(crate) index: usize,
    /// The field that is wrong, or `event` for the whole.
    pub(crate) field: &'static str,
    /// What is wrong with it.
    pub(crate) detail: String,
}

impl InvalidEvent {
    /// The event at `index` is wrong as `error` says.
    pub(crate) fn new(index: usize, error: &FieldError) -> Self {
        InvalidEvent { index, field: error.field, detail: error.to_string() }
    }
}

/// A problem as clients see it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ProblemJson<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [InvalidEvent],
    #[serde(skip_serializing_if = "Option::is_none")]
    results_omitted: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// How many of the events that are not valid a problem names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// As many as a short reply holds, from the first on.
    Fitting,
    /// All of them.
    All,
}

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<InvalidEvent>,
    /// Errors that are not listed.
    errors_omitted: usize,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<str>>,
    /// The id of the request, once it is known which that is.
    request_id: Option<Box<str>>,
}

impl Problem {
    /// A problem of kind `code`; `detail` is a sentence for people.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Cow::Owned(shorter) = shortened(&detail, DETAIL_BYTES_MAX) {
            detail = shorter;
        }
        let (errors, headers) = (Vec::new(), Vec::new());
        Problem { code, detail, errors, errors_omitted: 0, headers, cause: None, request_id: None }
    }

    /// The body is none of the shapes.
    pub(crate) fn invalid_body(detail: impl Into<String>) -> Self {
        Problem::new(Code::InvalidBody, detail)
    }

    /// The query parameter `name` is wrong as `detail`, the rest of a sentence, says.
    pub(crate) fn invalid_parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        Problem::new(Code::InvalidParameter, format!("The parameter {name} {detail}."))
    }

    /// The key `name` is not good for `topic`.
    pub(crate) fn topic_refused(name: &str, topic: &str) -> Self {
        let topic = shortened(topic, TOLD_BACK_BYTES_MAX);
        let detail = format!("The key {name} is not good for the topic {topic}.");
        Problem::new(Code::TopicRefused, detail)
    }

    /// More events than the limit.
    pub(crate) fn too_many_events(batch_events_max: usize) -> Self {
        Problem::new(
            Code::TooManyEvents,
            format!(
                "One request holds at most {batch_events_max} events (batch_events_max); \
                 send them in several."
            ),
        )
    }

    /// A longer body than the limit.
    pub(crate) fn body_too_large(body_bytes_max: usize) -> Self {
        Problem::new(
            Code::BodyTooLarge,
            format!(
                "A body has at most {body_bytes_max} bytes (body_bytes_max); \
                 send the events in several requests."
            ),
        )
    }

    /// A longer body than the limit when it is decoded.
    pub(crate) fn decoded_body_too_large(body_bytes_max: usize) -> Self {
        Problem::new(
            Code::BodyTooLarge,
            format!(
                "A body has at most {body_bytes_max} bytes when it is decoded (body_bytes_max); \
                 send the events in several requests."
            ),
        )
    }

    /// Events that are not valid, of which so many are named.
    pub(crate) fn invalid_events(
        detail: impl Into<String>,
        errors: impl IntoIterator<Item = InvalidEvent>,
        listed: Listed,
    ) -> Self {
        let mut problem = Problem::new(Code::InvalidEvents, detail);
        let mut room = match listed {
            Listed::Fitting => {
                let longest_id = "0".repeat(REQUEST_ID_BYTES_MAX);
                let told = ProblemJson { request_id: Some(&longest_id), ..problem.json() };
                Some(Room::beside(&told))
            }
            Listed::All => None,
        };
        for error in errors {
            let is_open = problem.errors_omitted == 0;
            if is_open && room.as_mut().is_none_or(|room| room.takes(&error)) {
                problem.errors.push(error);
            } else {
                problem.errors_omitted += 1;
            }
        }
        problem
    }

    /// A store that did not do its part. The request may be sent again as it
    /// is: what of it was stored, if anything, is a duplicate then.
    pub(crate) fn store(error: &StoreError, retry_after_seconds: u32) -> Self {
        let (code, detail) = match error.fault {
            Fault::Busy => (Code::StoreBusy, "Other writers held the store for too long."),
            Fault::Full => (Code::StoreFull, "The store has no room left."),
            Fault::Unavailable => (Code::StoreUnavailable, "The store does not answer."),
            Fault::Indeterminate => (Code::StoreUnavailable, "The store's answer was lost."),
        };
        Problem::new(code, format!("{detail} Send the request again."))
            .retry_after(retry_after_seconds)
            .caused_by(&error.message)
    }

    /// A cursor ahead of every event, the newest of which is `newest`.
    pub(crate) fn cursor_ahead(cursor: Cursor, newest: Cursor) -> Self {
        Problem::new(
            Code::CursorAhead,
            format!("The cursor {cursor} is ahead of the newest event, which is {newest}."),
        )
    }

    /// A defect of ours, described for the log alone.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Problem::new(Code::Internal, "The cause is in the service's log.").caused_by(cause)
    }

    /// Adds what only the log may see.
    pub(crate) fn caused_by(self, cause: impl Into<String>) -> Self {
        Problem { cause: Some(cause.into().into()), ..self }
    }

    /// Says which request it is of.
    pub(crate) fn of_request(self, request_id: &str) -> Self {
        Problem { request_id: Some(request_id.into()), ..self }
    }

    /// Adds `Retry-After`: the same request may be sent again.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the reply.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the reply.
    pub(crate) fn status(&self) -> StatusCode {
        self.code.parts().0
    }

    /// The stable code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The sentence for people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What only the log may see.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    fn json(&self) -> ProblemJson<'_> {
        let (status, code, title) = self.code.parts();
        ProblemJson {
            r#type: format!("urn:sekali:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            errors: &self.errors,
            results_omitted: (self.errors_omitted > 0).then_some(self.errors_omitted),
            request_id: self.request_id.as_deref(),
        }
    }

    /// The same as a line of JSON, for a client that has the head of its reply.
    pub(crate) fn into_line(self) -> Vec<u8> {
        // Only a map with keys that are no strings is no JSON, and there is none.
        let mut line = to_json(&self.json()).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// The reply that tells the client.
    pub(crate) fn into_reply(self) -> Reply {
        let reply = Reply::json(self.status(), &self.json()).with_header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        self.with_own_headers(reply)
    }

    /// The reply in another form, with the headers that the problem has, such as when to
    /// send the request again.
    pub(crate) fn into_reply_as(
        self,
        status: StatusCode,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Reply {
        self.with_own_headers(Reply::whole(status, content_type, body))
    }

    fn with_own_headers(self, reply: Reply) -> Reply {
        let mut reply = reply;
        // There may be several of a name.
        for (name, value) in self.headers {
            reply.headers.append(name, value);
        }
        reply
    }
}
