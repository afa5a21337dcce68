//! `_bulk` of Elasticsearch, and what its clients ask before they send one.

use std::rc::Rc;

use super::health;
use super::publish::{input, take};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::elasticsearch;

/// Answers a bulk.
///
/// # Errors
///
/// 400, 413 and 503, as Elasticsearch has them.
pub(crate) async fn bulk(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let began = app.platform.monotonic();
    let took = || {
        let took = app.platform.monotonic().saturating_sub(began);
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
    };
    take(app, request, elasticsearch::open(&request.query(), &input(app, request), took)?).await
}

/// What the service says it is, to a client that would have it as JSON.
pub(super) fn info(app: &App, request: &Request<'_>) -> Option<Reply> {
    let headers = request.headers();
    let is_client = app.config.compat
        && (elasticsearch::prefers_json(headers)
            || elasticsearch::speaks_json(headers) && !super::pages::wants_html(headers));
    is_client.then(|| elasticsearch::info(headers))
}

/// Answers `GET /_license`.
///
/// # Errors
///
/// None.
pub(crate) async fn license(_: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    Ok(elasticsearch::license(request.headers()))
}

/// Answers `GET /_cluster/health`.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(crate) async fn health(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let is_healthy = health::takes_events(app).await;
    Ok(elasticsearch::health(request.headers(), is_healthy, app.config.retry_after_seconds))
}

#[cfg(test)]
mod tests;
