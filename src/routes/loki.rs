//! `POST /loki/api/v1/push`: takes lines from clients of Loki.

use std::rc::Rc;

use super::publish::{input, take};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::{Input, loki};

/// Answers one push.
///
/// # Errors
///
/// The contract's: 400, 413, 415 and 503.
pub(crate) async fn push(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let body = loki::decode(request.body, request.headers(), app.config.body_bytes_max)?;
    let input = Input { body: &body, ..input(app, request) };
    take(app, request, loki::open(&request.query(), &input)?).await
}
