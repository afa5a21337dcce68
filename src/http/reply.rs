//! A reply on its way out: status, headers and body, of no HTTP library.

use futures::StreamExt;
use futures::stream::{self, LocalBoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::store::StoreError;
use crate::text;

/// A body that is read while it is sent: the next part is asked for when the one
/// before is on its way. An error breaks the body off, so that the client sees
/// that it is not whole.
pub(crate) type ByteStream = LocalBoxStream<'static, Result<Vec<u8>, StoreError>>;

/// What makes the parts of such a body, one after the other.
pub(crate) trait Parts: Sized + 'static {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    ///
    /// What the store says.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError>;

    /// The body.
    fn into_stream(self) -> ByteStream {
        stream::try_unfold(self, async |mut parts| {
            Ok(parts.next().await?.map(|part| (part, parts)))
        })
        .boxed_local()
    }
}

/// What a reply carries.
pub(crate) enum Body {
    /// All of it, sent with its length in one write: Spin does not set
    /// `TCP_NODELAY`, so a small reply in two writes waits 40 ms for the
    /// client's delayed acknowledgement.
    Whole(Vec<u8>),
    /// What is never all in memory, or has no end.
    Stream(ByteStream),
}

/// A reply.
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers, less `content-length`, which the writer of the body sets.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Body,
}

impl Reply {
    /// `value` as JSON that a terminal can show.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match text::to_json(value) {
            Ok(body) => Reply::whole(status, "application/json", body),
            // Only a map with keys that are no strings gets here, and there is none.
            Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Plain text.
    pub(crate) fn text(status: StatusCode, text: &str) -> Self {
        Reply::whole(status, "text/plain; charset=utf-8", text.into())
    }

    /// A body that is all there.
    pub(crate) fn whole(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        Reply { status, headers: HeaderMap::new(), body: Body::Whole(body) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// A body that comes in parts.
    pub(crate) fn stream(content_type: &'static str, parts: ByteStream) -> Self {
        Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: Body::Stream(parts) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// The same, each part of it as it comes: nginx and its kind collect a reply before
    /// they pass it on, unless told.
    pub(crate) fn passed_on_at_once(self) -> Self {
        const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
        self.with_header(BUFFERING, HeaderValue::from_static("no"))
    }

    /// The same, which depends on the header `name` of the request: caches must not give
    /// it to who sends another.
    pub(crate) fn varying_by(self, name: &'static str) -> Self {
        let others = self.headers.get(header::VARY).map(HeaderValue::as_bytes);
        let names = others.map(|others| [others, b", ", name.as_bytes()].concat());
        let value = names.and_then(|names| HeaderValue::from_bytes(&names).ok());
        self.with_header(header::VARY, value.unwrap_or(HeaderValue::from_static(name)))
    }

    /// Sets a header, in place of one of that name.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}
