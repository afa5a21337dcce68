//! `POST /prune`: what is over a limit of retention is pruned now.
//!
//! Publishing sees to it, so this is for a service to which nobody publishes, and for
//! those who want it done at a time of their own.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::http::request::Request;

/// The reply.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PrunedJson {
    /// Events whose contents went.
    pruned: i64,
    /// How many bytes they had.
    bytes: i64,
    /// Identities of pruned events that were forgotten.
    identities_forgotten: i64,
    /// Whether nothing is left to do: else there is more than one request does.
    complete: bool,
}

/// Answers one request.
///
/// # Errors
///
/// 503 when another instance prunes, or the store does not answer.
pub(super) async fn prune(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let made = app.pruner.pass_now().await.map_err(|error| app.unavailable(&error))?;
    let Some(pass) = made else {
        let detail = "Another instance prunes at the moment.";
        return Err(
            Problem::new(Code::StoreBusy, detail).retry_after(app.config.retry_after_seconds)
        );
    };
    app.log_pass(pass);
    let body = PrunedJson {
        pruned: pass.events,
        bytes: pass.bytes,
        identities_forgotten: pass.identities,
        complete: pass.is_complete,
    };
    Ok(Reply::json(StatusCode::OK, &body)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}
