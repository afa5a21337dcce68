//! Cross-origin requests: which pages of other origins may call the service.
//!
//! Nothing here authenticates anyone, so no credentials are allowed, and what
//! a browser refuses a page `curl` may do all the same.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use crate::http::reply::Reply;
use crate::routes::Route;

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_AGE_SECONDS_MAX: u32 = 7200;

/// The headers that a page may read beside those that it always may.
const EXPOSED: &str = "retry-after, allow, accept-encoding, etag";

/// Pages of which origins may call the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Those of any origin.
    Any,
    /// Those of these origins, of none by default.
    Only(Vec<String>),
}

impl Origins {
    /// Reads `*`, or origins with commas between.
    ///
    /// # Errors
    ///
    /// A sentence that names what is no origin.
    pub fn parse(value: &str) -> Result<Self, String> {
        if value.trim() == "*" {
            return Ok(Origins::Any);
        }
        let given = value.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins = given.map(|given| {
            origin(given).ok_or_else(|| {
                format!(
                    "The variable cors_origins must be * or origins such as \
                     https://app.example:8443 with commas between, has {given:?}."
                )
            })
        });
        origins.collect::<Result<_, _>>().map(Origins::Only)
    }

    /// What `access-control-allow-origin` says to a page of `origin`.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Only(allowed) => allowed
                .iter()
                .any(|one| one.as_bytes() == origin.as_bytes())
                .then(|| origin.clone()),
        }
    }
}

/// An origin as a browser would send it: scheme, host, and port if it is not
/// that of the scheme.
fn origin(given: &str) -> Option<String> {
    let uri: Uri = given.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_origin = given.len() == scheme.len() + "://".len() + authority.as_str().len();
    if !is_origin || authority.as_str().contains('@') {
        return None;
    }
    let default_port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let origin = given.to_ascii_lowercase();
    Some(origin.strip_suffix(default_port).unwrap_or(&origin).to_owned())
}

/// The answer to a preflight, if `request` is one and its page is allowed.
pub fn preflight(origins: &Origins, request: &Parts) -> Option<Reply> {
    if request.method != Method::OPTIONS
        || !request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    origins.allow(request.headers.get(header::ORIGIN)?)?;
    let route = Route::of(request.uri.path())?;
    let mut reply = Reply::text(StatusCode::OK, "")
        .with_header(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(route.allowed()),
        )
        .with_header(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_AGE_SECONDS_MAX));
    // Headers decide nothing here, so a page may send any.
    if let Some(wanted) = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        reply = reply.with_header(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(reply)
}

/// Adds to a reply what lets an allowed page read it.
pub fn allow(origins: &Origins, request: &Parts, reply: Reply) -> Reply {
    let mut reply = reply;
    if matches!(origins, Origins::Only(allowed) if !allowed.is_empty()) {
        // A cache must not give the reply to one page to another.
        reply.headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    let allowed = request.headers.get(header::ORIGIN).and_then(|origin| origins.allow(origin));
    let Some(origin) = allowed else { return reply };
    let expose: HeaderName = header::ACCESS_CONTROL_EXPOSE_HEADERS;
    reply
        .with_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
        .with_header(expose, HeaderValue::from_static(EXPOSED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked() {
        assert_eq!(Origins::parse(" "), Ok(Origins::Only(Vec::new())));
        assert_eq!(Origins::parse(" * "), Ok(Origins::Any));
        assert_eq!(
            Origins::parse("https://A.example:443, http://127.0.0.1:5173,"),
            Ok(Origins::Only(vec![
                "https://a.example".to_owned(),
                "http://127.0.0.1:5173".to_owned()
            ]))
        );
        for wrong in ["a.example", "https://a.example/", "https://", "*, https://a", "http://u@a"] {
            let error = Origins::parse(wrong).unwrap_err();
            assert!(error.contains("cors_origins"), "{error}");
        }
    }
}
