//! `/services/collector`: Splunk's HTTP event collector, for clients that know no other
//! protocol. Whatever `Authorization` they send is taken.

use std::rc::Rc;

use http::StatusCode;

use super::health;
use super::publish::{input, take};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::splunk;

/// Answers a request with events in JSON.
///
/// # Errors
///
/// 400, 413 and 503, as Splunk has them.
pub(crate) async fn events(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    take(app, request, splunk::open_events(&request.query(), &input(app, request))?).await
}

/// Answers a request with lines of text.
///
/// # Errors
///
/// Those of [`events`].
pub(crate) async fn raw(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    take(app, request, splunk::open_raw(&request.query(), &input(app, request))?).await
}

/// Answers a question after acknowledgements.
///
/// # Errors
///
/// None: that there are none is in the reply.
pub(crate) async fn acknowledgements(_: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    Ok(splunk::no_acknowledgements())
}

/// Answers whether events are taken.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(crate) async fn health(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let is_healthy = health::takes_events(app).await;
    Ok(splunk::health(is_healthy, app.config.retry_after_seconds))
}

/// Answers `OPTIONS`, by which Docker's log driver probes the address that it is given.
///
/// # Errors
///
/// None.
pub(crate) async fn probe(_: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    Ok(Reply::text(StatusCode::OK, ""))
}

#[cfg(test)]
mod tests;
