//! `POST /v1/logs`: takes logs from SDKs and collectors of OpenTelemetry.

use std::rc::Rc;

use super::publish::{input, take};
use crate::app::App;
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::otlp;

/// Answers one export of logs.
///
/// # Errors
///
/// The contract's: 400, 413, 415 and 503.
pub(crate) async fn logs(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    take(app, request, otlp::open(&request.query(), &input(app, request))?).await
}

/// Answers an export of anything else, which an SDK sends unless it is told not to.
///
/// # Errors
///
/// 404.
pub(crate) async fn no_logs(_: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    Err(Problem::new(Code::NotFound, "Of OTLP only logs are taken, at /v1/logs."))
}
