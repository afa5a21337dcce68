//! What a person sees: the dashboard, the API reference, and the document that
//! both it and other tools read.
//!
//! The pages ask nothing of any other host and need no framework: they are the
//! files of `web/`, as they are but for their compression, which most clients want.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::http::accept;
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::text::{compressed, decompressed, hex};

const DASHBOARD: Asset = Asset::html(compressed!("index.html"));
const DOCS: Asset = Asset::html(compressed!("docs.html"));
const OPENAPI: Asset =
    Asset { content_type: "application/json", content: compressed!("openapi.json") };

/// What the pages load, by name.
const ASSETS: [(&str, Asset); 20] = [
    (
        "style.css",
        Asset { content_type: "text/css; charset=utf-8", content: compressed!("style.css") },
    ),
    ("call.js", Asset::script(compressed!("call.js"))),
    ("chart.js", Asset::script(compressed!("chart.js"))),
    ("dashboard.js", Asset::script(compressed!("dashboard.js"))),
    ("docs.js", Asset::script(compressed!("docs.js"))),
    ("dom.js", Asset::script(compressed!("dom.js"))),
    ("feed.js", Asset::script(compressed!("feed.js"))),
    ("format.js", Asset::script(compressed!("format.js"))),
    ("history.js", Asset::script(compressed!("history.js"))),
    ("json.js", Asset::script(compressed!("json.js"))),
    ("key.js", Asset::script(compressed!("key.js"))),
    ("openapi.js", Asset::script(compressed!("openapi.js"))),
    ("publish.js", Asset::script(compressed!("publish.js"))),
    ("rates.js", Asset::script(compressed!("rates.js"))),
    ("requests.js", Asset::script(compressed!("requests.js"))),
    ("search.js", Asset::script(compressed!("search.js"))),
    ("stream.js", Asset::script(compressed!("stream.js"))),
    ("subscriptions.js", Asset::script(compressed!("subscriptions.js"))),
    ("topics.js", Asset::script(compressed!("topics.js"))),
    ("icon.svg", Asset { content_type: "image/svg+xml", content: compressed!("icon.svg") }),
];

/// What a page may do: load what this service serves, and talk to it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";

/// A file that is served as it is.
#[derive(Clone, Copy)]
struct Asset {
    content_type: &'static str,
    /// In gzip.
    content: &'static [u8],
}

impl Asset {
    const fn html(content: &'static [u8]) -> Self {
        Asset { content_type: HTML, content }
    }

    const fn script(content: &'static [u8]) -> Self {
        Asset { content_type: "text/javascript; charset=utf-8", content }
    }

    /// The file, or that the client has it already.
    ///
    /// # Errors
    ///
    /// 500 for a defect of ours.
    fn reply(self, request: &Request<'_>) -> Result<Reply, Problem> {
        let tag = etag(self.content);
        let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
        let known =
            known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let mut known = known.map(|one| one.trim().trim_start_matches("W/"));
        let unchanged = known.any(|one| one == "*" || one.as_bytes() == tag.as_bytes());
        let mut reply = if unchanged {
            Reply::whole(StatusCode::NOT_MODIFIED, self.content_type, Vec::new())
        } else if accept::prefers_gzip(request.headers()) {
            Reply::whole(StatusCode::OK, self.content_type, self.content.into())
                .with_header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
        } else {
            Reply::whole(StatusCode::OK, self.content_type, self.plain()?)
        };
        if self.content_type == HTML {
            let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
            reply = reply.with_header(header::CONTENT_SECURITY_POLICY, policy);
        }
        Ok(reply
            .with_header(header::ETAG, tag)
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .with_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
    }

    /// The file for somebody without a key, who may have one the next time.
    fn uncached(self) -> Result<Reply, Problem> {
        let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
        Ok(Reply::whole(StatusCode::OK, self.content_type, self.plain()?)
            .with_header(header::CONTENT_SECURITY_POLICY, policy)
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with_header(header::VARY, HeaderValue::from_static("accept"))
            .with_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
    }

    fn plain(self) -> Result<Vec<u8>, Problem> {
        decompressed(self.content).map_err(|error| Problem::internal(error.to_string()))
    }
}

fn etag(content: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(content);
    let hex = hex(&digest[..8]);
    // Digits and letters are always a header's value.
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether a client would rather show a page than text.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    accept::prefers(headers, &accept::HTML, &accept::TEXT)
}

/// The dashboard, which asks for a key.
///
/// # Errors
///
/// None.
pub(super) fn dashboard_page() -> Result<Reply, Problem> {
    DASHBOARD.uncached()
}

/// The API reference, which asks for a key.
///
/// # Errors
///
/// None.
pub(super) fn docs_page() -> Result<Reply, Problem> {
    DOCS.uncached()
}

/// The dashboard.
///
/// # Errors
///
/// None.
pub(super) fn dashboard(request: &Request<'_>) -> Result<Reply, Problem> {
    DASHBOARD.reply(request)
}

/// Answers `GET /docs`.
///
/// # Errors
///
/// None.
pub(super) async fn docs(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    DOCS.reply(request)
}

/// Answers `GET /openapi.json`.
///
/// # Errors
///
/// None.
pub(super) async fn openapi(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    OPENAPI.reply(request)
}

/// Answers `GET /assets/{name}`.
///
/// # Errors
///
/// 404 when there is no such file.
pub(super) async fn asset(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = request.name;
    match ASSETS.iter().find(|(known, _)| *known == name) {
        Some((_, asset)) => asset.reply(request),
        None => Err(Problem::new(Code::NotFound, format!("There is no file {name}."))),
    }
}
