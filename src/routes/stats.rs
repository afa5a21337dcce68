//! `GET /stats`: counters, in all and of a page of topics. `GET /stats/history`: their snapshot of each minute.

use std::collections::BTreeMap;
use std::rc::Rc;

use http::StatusCode;
use serde::Serialize;

use crate::app::App;
use crate::commit::by_key::{self, KeyCounts};
use crate::event::Topic;
use crate::http::problem::Problem;
use crate::http::query::{Parameter, Takes};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::log::Level;
use crate::store::{Counters, TopicRange};
use crate::time;

/// Most topics in one reply.
pub(super) const TOPICS_MAX: usize = 5_000;

/// Topics in a reply when the client does not say.
pub(super) const TOPICS_DEFAULT: usize = 1_000;

const TOPICS_AFTER: Parameter = Parameter::new("topics_after", Takes::Topic);
const TOPICS_LIMIT: Parameter =
    Parameter::new("topics_limit", Takes::Integer { unit: "", min: 0, max: TOPICS_MAX as u64 });

/// The parameters of `GET /stats`.
pub(super) const PARAMETERS: [Parameter; 2] = [TOPICS_AFTER, TOPICS_LIMIT];

/// Counters as they are shown.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CountersJson {
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    conflicts: i64,
    pruned: i64,
}

impl CountersJson {
    /// Those of one topic, or of topics together.
    pub(super) fn of(counters: &Counters) -> Self {
        CountersJson {
            received: counters.received(),
            unique_processed: counters.unique_processed,
            duplicate_dropped: counters.duplicate_dropped,
            conflicts: counters.conflicts,
            pruned: counters.pruned,
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
    topic_count: i64,
    topics: Vec<&'a str>,
    by_topic: BTreeMap<&'a str, CountersJson>,
    /// By the names of the keys that are there; none without keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_key: Option<BTreeMap<&'a str, KeyCounts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics_next: Option<&'a str>,
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
pub(super) async fn stats(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let query = request.query();
    let after = query.read(&TOPICS_AFTER, |topic| Topic::parse(topic))?;
    let limit = query.integer(&TOPICS_LIMIT)?.and_then(|limit| usize::try_from(limit).ok());
    let range = TopicRange {
        after: after.as_ref().map_or("", Topic::as_str),
        topics_max: limit.unwrap_or(TOPICS_DEFAULT),
    };
    let totals = app.ask(async |store| store.totals(range).await).await?;
    let keys = &app.config.keys;
    let measures = match keys.is_empty() {
        true => None,
        false => Some(app.ask(async |store| store.measures(0).await).await?),
    };
    let by_key = measures.as_ref().map(|measures| {
        let counted = by_key::of(&measures.counted);
        keys.names().map(|name| (name, counted.get(name).copied().unwrap_or_default())).collect()
    });
    let now = app.platform.now();
    let started_at = app.history.started_at(totals.created_at).await.unwrap_or_else(|error| {
        let message = "the time of first start could not be read";
        app.log_fault(Level::Error, message, &error);
        totals.created_at
    });
    let uptime = (now - started_at).max(0);
    let by_topic = totals.topics.iter().map(|one| (one.topic.as_str(), &one.counters));
    let last = totals.topics.last().map(|one| one.topic.as_str());
    let body = StatsJson {
        counters: CountersJson::of(&totals.all),
        rejected: totals.rejected,
        topic_count: totals.topic_count,
        topics: by_topic.clone().map(|(topic, _)| topic).collect(),
        by_topic: by_topic.map(|(topic, counters)| (topic, CountersJson::of(counters))).collect(),
        by_key,
        topics_next: last.filter(|_| totals.has_more),
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
    let snapshots = app.history.snapshots().await;
    app.report_unreadable_values();
    let snapshots = snapshots.map_err(|error| app.unavailable(&error))?;
    Ok(Reply::json(StatusCode::OK, &snapshots))
}
