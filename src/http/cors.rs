//! Cross-origin requests: which pages of other origins may read its replies. What
//! the others may not send, `access` says.
//!
//! A page sends a key in a header that it sets, so no credentials of the browser are
//! allowed; and what a browser refuses a page, `curl` may do all the same.

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::config::Origins;
use crate::http::noted::SERVER_TIMING;
use crate::http::reply::Reply;

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_AGE_SECONDS_MAX: u32 = 7200;

/// The headers that a page may read beside those that it always may.
const EXPOSED: &str = "retry-after, allow, accept-encoding, etag, www-authenticate, \
    ratelimit-limit, ratelimit-remaining, ratelimit-reset, sekali-pruned-before, x-request-id, \
    traceresponse, server-timing";

/// By which a browser lets a page see what `Server-Timing` says.
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// The answer to a preflight of a route with the methods `allowed`, if `request`,
/// which is an `OPTIONS`, is one and its page may call the service.
pub(crate) fn preflight(origins: &Origins, request: &Parts, allowed: &str) -> Option<Reply> {
    request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    allow_origin(origins, request.headers.get(header::ORIGIN)?)?;
    let methods = HeaderValue::from_str(allowed).ok()?;
    let mut reply = Reply::text(StatusCode::OK, "")
        .with_header(header::ACCESS_CONTROL_ALLOW_METHODS, methods)
        .with_header(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_AGE_SECONDS_MAX));
    // Headers decide nothing here, so a page may send any.
    if let Some(wanted) = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        reply = reply.with_header(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(reply)
}

/// Adds to a reply what lets an allowed page read it.
pub(crate) fn allow(origins: &Origins, request: &Parts, reply: Reply) -> Reply {
    let mut reply = reply;
    if matches!(origins, Origins::Only(allowed) if !allowed.is_empty()) {
        // A cache must not give the reply to one page to another.
        reply = reply.varying_by("origin");
    }
    let allowed =
        request.headers.get(header::ORIGIN).and_then(|origin| allow_origin(origins, origin));
    let Some(origin) = allowed else { return reply };
    let expose: HeaderName = header::ACCESS_CONTROL_EXPOSE_HEADERS;
    if reply.headers.contains_key(SERVER_TIMING) {
        reply = reply.with_header(TIMING_ALLOW_ORIGIN, origin.clone());
    }
    reply
        .with_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
        .with_header(expose, HeaderValue::from_static(EXPOSED))
}

/// What `access-control-allow-origin` says to a page of `origin`.
pub(crate) fn allow_origin(origins: &Origins, origin: &HeaderValue) -> Option<HeaderValue> {
    match origins {
        Origins::Any => Some(HeaderValue::from_static("*")),
        Origins::Only(allowed) => {
            allowed.iter().any(|one| one.as_bytes() == origin.as_bytes()).then(|| origin.clone())
        }
    }
}
