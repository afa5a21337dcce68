//! A reply on its way out: status, headers and body, of no HTTP library.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::events::Pages;

/// The media type of rows, one per line.
pub const NDJSON: &str = "application/x-ndjson";

/// Whether a media type, with or without parameters, is that of rows, one per
/// line, under one of its names.
pub fn is_ndjson(media_type: &str) -> bool {
    let name = media_type.split(';').next().unwrap_or_default().trim();
    [NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// What a reply carries.
pub enum Body {
    /// All of it, sent with its length in one write: Spin does not set
    /// `TCP_NODELAY`, so a small reply in two writes waits 40 ms for the
    /// client's delayed acknowledgement.
    Whole(Vec<u8>),
    /// Rows that are read while they are sent, so that they are never all in
    /// memory; the writer of the body asks for one part after another.
    Pages(Pages),
}

/// A reply.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, less `content-length`, which the writer of the body sets.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
}

impl Reply {
    /// `value` as JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Reply::whole(status, "application/json", body),
            // Only a map with keys that are no strings gets here, and there is none.
            Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: &str) -> Self {
        Reply::whole(status, "text/plain; charset=utf-8", text.into())
    }

    /// A body that is all there.
    pub fn whole(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        Reply { status, headers: HeaderMap::new(), body: Body::Whole(body) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// A body that is read while it is sent.
    pub fn pages(content_type: &'static str, pages: Pages) -> Self {
        Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: Body::Pages(pages) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// Sets a header, in place of one of that name.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}
