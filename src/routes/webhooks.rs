//! `POST /webhooks/{topic}`: takes what senders of webhooks sign.

use std::rc::Rc;

use super::publish::{input, take};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::webhook::{self, Senders, Watch};

/// Answers one delivery.
///
/// # Errors
///
/// The contract's: 401 for one that is not signed as it should be, 404 for a topic that
/// nobody may sign for, 413, 415, 422 and 503.
pub(crate) async fn receive(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let senders = Senders::of(&app.config.webhooks, request.name)?;
    webhook::check_coding(request.headers())?;
    let watch =
        Watch { now: app.platform.now(), tolerance_seconds: app.config.webhook_tolerance_seconds };
    let verified = senders.verify(&input(app, request), watch);
    let delivery = verified.inspect_err(|unverified| {
        app.commits.observed.count(&unverified.reason.counter());
    })?;
    take(app, request, delivery.open()?).await
}
