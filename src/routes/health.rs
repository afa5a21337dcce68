//! `GET /health` and `GET /healthz`: do the stores answer?

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::log::{Level, Line};
use crate::store::{Fault, StoreError};
use crate::time;

/// Whether the service does all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Status {
    Healthy,
    Unhealthy,
}

/// What a store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Answer {
    Ok,
    Busy,
    Full,
    Unavailable,
}

impl Answer {
    fn of(answer: &Result<(), StoreError>) -> Self {
        match answer.as_ref().map_err(|error| error.fault) {
            Ok(()) => Answer::Ok,
            Err(Fault::Busy) => Answer::Busy,
            Err(Fault::Full) => Answer::Full,
            Err(Fault::Unavailable) => Answer::Unavailable,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Answer::Ok => "ok",
            Answer::Busy => "busy",
            Answer::Full => "full",
            Answer::Unavailable => "unavailable",
        }
    }
}

/// The reply of `GET /health`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HealthJson<'a> {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    queue_size: usize,
    timestamp: String,
    stores: StoresJson<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct StoresJson<'a> {
    sqlite: &'a Check,
    key_value: &'a Check,
}

/// The reply of `GET /healthz`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HealthzJson {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What was asked of one store, and what it said.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Check {
    status: Answer,
    checked: &'static str,
    took_ms: f64,
}

impl Check {
    /// Waits for `answer`, and logs the reason when there is none.
    async fn of(
        app: &App,
        checked: &'static str,
        answer: impl Future<Output = Result<(), StoreError>>,
    ) -> Self {
        let began = app.platform.monotonic();
        let answer = answer.await;
        let took = app.platform.monotonic() - began;
        if let Err(error) = &answer {
            let message = "health check: a store does not answer";
            let line =
                Line { detail: Some(checked), cause: Some(&error.message), ..Line::new(message) };
            app.log(Level::Error, line);
        }
        Check { status: Answer::of(&answer), checked, took_ms: took.as_micros() as f64 / 1000.0 }
    }
}

/// What the stores said.
struct Checked {
    store: Check,
    key_value: Check,
}

impl Checked {
    async fn now(app: &App) -> Self {
        let store = "the schema is there and a row of it can be read";
        let key_value = "the last call succeeded, and none takes longer than 1000 ms";
        let probe = app.store.ask(async |store| store.probe().await);
        Checked {
            store: Check::of(app, store, probe).await,
            key_value: Check::of(app, key_value, app.check_key_value()).await,
        }
    }

    /// Why the service is not healthy, if it is not.
    fn reason(&self) -> Option<String> {
        match (self.store.status, self.key_value.status) {
            (Answer::Ok, Answer::Ok) => None,
            (Answer::Ok, key_value) => Some(format!(
                "The key-value store is {}: publishing works, \
                 but the history of the counters is not kept.",
                key_value.as_str()
            )),
            (store, Answer::Ok) => {
                Some(format!("The SQL store is {}: publishing does not work.", store.as_str()))
            }
            (store, key_value) => Some(format!(
                "The SQL store is {} and the key-value store is {}: \
                 publishing does not work.",
                store.as_str(),
                key_value.as_str()
            )),
        }
    }

    fn reply(&self, app: &App, body: &impl Serialize) -> Reply {
        if self.store.status == Answer::Ok && self.key_value.status == Answer::Ok {
            return Reply::json(StatusCode::OK, body);
        }
        let retry_after = HeaderValue::from(app.config.retry_after_seconds);
        Reply::json(StatusCode::SERVICE_UNAVAILABLE, body)
            .with_header(header::RETRY_AFTER, retry_after)
    }
}

/// Answers `GET /health`, 503 with the reason when a store does not answer.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(super) async fn health(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let checked = Checked::now(app).await;
    let reason = checked.reason();
    let body = HealthJson {
        status: if reason.is_none() { Status::Healthy } else { Status::Unhealthy },
        reason,
        queue_size: app.commits.depth(),
        timestamp: time::rfc3339(app.platform.now()),
        stores: StoresJson { sqlite: &checked.store, key_value: &checked.key_value },
    };
    Ok(checked.reply(app, &body))
}

/// Answers `GET /healthz`, the same for machines.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(super) async fn healthz(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let checked = Checked::now(app).await;
    let reason = checked.reason();
    Ok(checked.reply(app, &HealthzJson { ok: reason.is_none(), reason }))
}
