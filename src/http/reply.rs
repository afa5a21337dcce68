//! A reply on its way out: status, headers and body, of no HTTP library.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::config::Config;
use crate::platform::{Ports, StoreError};
use crate::routes::event_stream::LiveEvents;
use crate::routes::events::Pages;
use crate::routes::stats_stream::LiveStats;

/// The media type of rows, one per line.
pub const NDJSON: &str = "application/x-ndjson";

/// Whether a media type, with or without parameters, is that of rows, one per
/// line, under one of its names.
pub fn is_ndjson(media_type: &str) -> bool {
    [NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"]
        .iter()
        .any(|known| is_media_type(media_type, known))
}

/// Whether the client names a media type for which `is_wanted` holds as what it
/// accepts, and not only to refuse it.
pub fn accepts(headers: &HeaderMap, is_wanted: impl Fn(&str) -> bool) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).any(|range| {
        let refused = range.split(';').skip(1).any(|parameter| {
            let quality = parameter.trim().strip_prefix("q=").map(str::parse::<f32>);
            quality.is_some_and(|quality| quality == Ok(0.0))
        });
        is_wanted(range) && !refused
    })
}

/// Whether a media type, with or without parameters, is `name`.
pub fn is_media_type(media_type: &str, name: &str) -> bool {
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(name)
}

/// What a reply carries.
pub enum Body {
    /// All of it, sent with its length in one write: Spin does not set
    /// `TCP_NODELAY`, so a small reply in two writes waits 40 ms for the
    /// client's delayed acknowledgement.
    Whole(Vec<u8>),
    /// What is read while it is sent, so that it is never all in memory, or
    /// has no end; the writer of the body asks for one part after another.
    Feed(Feed),
}

/// A body that comes in parts.
pub enum Feed {
    /// The rows of one read.
    Pages(Pages),
    /// Events as they are stored.
    Events(LiveEvents),
    /// Counters as they change.
    Stats(LiveStats),
}

impl Feed {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    ///
    /// What the store says. The body is to be broken off then, so that the
    /// client sees that it is not whole.
    pub async fn next(
        &mut self,
        ports: &impl Ports,
        config: &Config,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Feed::Pages(pages) => pages.next(ports, config).await,
            Feed::Events(events) => events.next(ports, config).await.map(Some),
            Feed::Stats(stats) => stats.next(ports, config).await.map(Some),
        }
    }
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

    /// A body that comes in parts.
    pub fn feed(content_type: &'static str, feed: Feed) -> Self {
        Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: Body::Feed(feed) }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// Sets a header, in place of one of that name.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}
