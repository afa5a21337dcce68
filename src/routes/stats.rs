//! `GET /stats`: counters. `GET /stats/history`: their snapshot of each minute.

use std::collections::BTreeMap;
use std::rc::Rc;

use http::StatusCode;
use serde::Serialize;

use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::log::Level;
use crate::store::Counters;
use crate::time;

/// Counters as they are shown.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CountersJson {
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    conflicts: i64,
}

impl CountersJson {
    /// Those of one topic, or of topics together.
    pub(super) fn of(counters: &Counters) -> Self {
        CountersJson {
            received: counters.received(),
            unique_processed: counters.unique_processed,
            duplicate_dropped: counters.duplicate_dropped,
            conflicts: counters.conflicts,
        }
    }
}

/// The reply of `GET /stats`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct StatsJson<'a> {
    #[serde(flatten)]
    counters: CountersJson,
    rejected: i64,
    topics: Vec<&'a str>,
    by_topic: BTreeMap<&'a str, CountersJson>,
    queue_depth: usize,
    started_at: String,
    uptime_seconds: f64,
    uptime_human: String,
    version: &'static str,
}

/// Answers `GET /stats`.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(super) async fn stats(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let totals = app.ask(async |store| store.totals().await).await?;
    let now = app.platform.now();
    let started_at = app.history.started_at(totals.created_at).await.unwrap_or_else(|error| {
        let message = "the key-value store failed at the time of first start";
        app.log_fault(Level::Error, message, &error);
        totals.created_at
    });
    let uptime = (now - started_at).max(0);
    let by_topic = totals.topics.iter().map(|one| (one.topic.as_str(), &one.counters));
    let body = StatsJson {
        counters: CountersJson::of(&totals.all()),
        rejected: totals.rejected,
        topics: by_topic.clone().map(|(topic, _)| topic).collect(),
        by_topic: by_topic.map(|(topic, counters)| (topic, CountersJson::of(counters))).collect(),
        queue_depth: app.commits.depth(),
        started_at: time::rfc3339(started_at),
        uptime_seconds: uptime as f64 / 1000.0,
        uptime_human: time::human(uptime),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(Reply::json(StatusCode::OK, &body))
}

/// Answers `GET /stats/history`, oldest first.
///
/// # Errors
///
/// 503 when the key-value store does not answer.
pub(super) async fn history(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let snapshots = app.history.snapshots().await.map_err(|error| app.unavailable(&error))?;
    Ok(Reply::json(StatusCode::OK, &snapshots))
}
