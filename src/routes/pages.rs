//! What a person sees: the dashboard, the API reference, and the document that
//! both it and other tools read.
//!
//! The pages ask nothing of any other host and need no framework: they are the
//! files of `web/`, embedded as they are.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::http::accept;
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::text::hex;

const DASHBOARD: Asset = Asset::html(include_str!("../web/index.html"));
const DOCS: Asset = Asset::html(include_str!("../web/docs.html"));
const OPENAPI: Asset =
    Asset { content_type: "application/json", content: include_str!("../openapi.json") };

/// What the pages load, by name.
const ASSETS: [(&str, Asset); 17] = [
    (
        "style.css",
        Asset {
            content_type: "text/css; charset=utf-8",
            content: include_str!("../web/style.css"),
        },
    ),
    ("call.js", Asset::script(include_str!("../web/call.js"))),
    ("chart.js", Asset::script(include_str!("../web/chart.js"))),
    ("dashboard.js", Asset::script(include_str!("../web/dashboard.js"))),
    ("docs.js", Asset::script(include_str!("../web/docs.js"))),
    ("dom.js", Asset::script(include_str!("../web/dom.js"))),
    ("feed.js", Asset::script(include_str!("../web/feed.js"))),
    ("format.js", Asset::script(include_str!("../web/format.js"))),
    ("history.js", Asset::script(include_str!("../web/history.js"))),
    ("json.js", Asset::script(include_str!("../web/json.js"))),
    ("openapi.js", Asset::script(include_str!("../web/openapi.js"))),
    ("publish.js", Asset::script(include_str!("../web/publish.js"))),
    ("requests.js", Asset::script(include_str!("../web/requests.js"))),
    ("stream.js", Asset::script(include_str!("../web/stream.js"))),
    ("subscriptions.js", Asset::script(include_str!("../web/subscriptions.js"))),
    ("topics.js", Asset::script(include_str!("../web/topics.js"))),
    ("icon.svg", Asset { content_type: "image/svg+xml", content: include_str!("../web/icon.svg") }),
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
    content: &'static str,
}

impl Asset {
    const fn html(content: &'static str) -> Self {
        Asset { content_type: HTML, content }
    }

    const fn script(content: &'static str) -> Self {
        Asset { content_type: "text/javascript; charset=utf-8", content }
    }

    /// The file, or that the client has it already.
    fn reply(self, request: &Request<'_>) -> Reply {
        let tag = etag(self.content);
        let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
        let known =
            known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let mut known = known.map(|one| one.trim().trim_start_matches("W/"));
        let unchanged = known.any(|one| one == "*" || one.as_bytes() == tag.as_bytes());
        let mut reply = if unchanged {
            Reply::whole(StatusCode::NOT_MODIFIED, self.content_type, Vec::new())
        } else {
            Reply::whole(StatusCode::OK, self.content_type, self.content.into())
        };
        if self.content_type == HTML {
            let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
            reply = reply.with_header(header::CONTENT_SECURITY_POLICY, policy);
        }
        reply
            .with_header(header::ETAG, tag)
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .with_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }
}

fn etag(content: &str) -> HeaderValue {
    let digest = Sha256::digest(content);
    let hex = hex(&digest[..8]);
    // Digits and letters are always a header's value.
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether a client would rather show a page than text.
pub(super) fn wants_html(request: &Request<'_>) -> bool {
    accept::prefers(request.headers(), &accept::HTML, &accept::TEXT)
}

/// The dashboard.
pub(super) fn dashboard(request: &Request<'_>) -> Reply {
    DASHBOARD.reply(request)
}

/// Answers `GET /docs`.
///
/// # Errors
///
/// None.
pub(super) async fn docs(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    Ok(DOCS.reply(request))
}

/// Answers `GET /openapi.json`.
///
/// # Errors
///
/// None.
pub(super) async fn openapi(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    Ok(OPENAPI.reply(request))
}

/// Answers `GET /assets/{name}`.
///
/// # Errors
///
/// 404 when there is no such file.
pub(super) async fn asset(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = request.name;
    match ASSETS.iter().find(|(known, _)| *known == name) {
        Some((_, asset)) => Ok(asset.reply(request)),
        None => Err(Problem::new(Code::NotFound, format!("There is no file {name}."))),
    }
}
