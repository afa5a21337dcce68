//! `GET /stats`: counters. `GET /stats/history`: their snapshot of each minute.
//!
//! The counters live in SQLite, in the same commits as the events. The time of
//! the first start and the snapshots are service state in the key-value store:
//! when that store is empty or fails, nothing but they is missing.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::commit;
use crate::config::Config;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::log::{self, Level, Line};
use crate::platform::{Ports, StoreError};
use crate::store::sqlite::event_log::{self, TopicTotals, Totals};
use crate::time::{self, UnixMillis};

/// The key of the time of the first start.
pub const STARTED_AT: &str = "started_at";

/// The key of the snapshots, oldest first. One value holds them all, some
/// 100 kB for a day: a chart of the day is one call then, and not one for each
/// minute.
const SNAPSHOTS: &str = "snapshots";

/// The key of the minute of the newest. The first publish of every instance
/// asks whether its minute has a snapshot, which is to cost a look at a few
/// bytes and not at all of the day.
const NEWEST: &str = "newest_snapshot";

/// How long a snapshot is kept, in minutes.
pub const HISTORY_MINUTES_MAX: i64 = 24 * 60;

/// Counters as they are shown.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Counts {
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    conflicts: i64,
}

impl Counts {
    /// Those of one topic, or of topics together.
    pub fn of(totals: &TopicTotals) -> Self {
        Counts {
            received: totals.unique_processed + totals.duplicate_dropped,
            unique_processed: totals.unique_processed,
            duplicate_dropped: totals.duplicate_dropped,
            conflicts: totals.conflicts,
        }
    }

    fn of_all(totals: &Totals) -> Self {
        totals.topics.iter().map(Counts::of).fold(Counts::default(), |sum, topic| Counts {
            received: sum.received + topic.received,
            unique_processed: sum.unique_processed + topic.unique_processed,
            duplicate_dropped: sum.duplicate_dropped + topic.duplicate_dropped,
            conflicts: sum.conflicts + topic.conflicts,
        })
    }
}

#[derive(Serialize)]
struct Stats<'a> {
    #[serde(flatten)]
    counts: Counts,
    rejected: i64,
    topics: Vec<&'a str>,
    by_topic: BTreeMap<&'a str, Counts>,
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
/// 503 when the SQL store does not answer.
pub async fn stats(ports: &impl Ports, config: &Config) -> Result<Reply, Problem> {
    let totals = commit::ask(ports, config, async || event_log::totals(ports).await).await?;
    let now = ports.now();
    let started_at = started_at(ports, totals.created_at).await.unwrap_or_else(|error| {
        report(config, now, "the key-value store failed at the time of first start", &error);
        totals.created_at
    });
    let uptime = (now - started_at).max(0);
    let body = Stats {
        counts: Counts::of_all(&totals),
        rejected: totals.rejected,
        topics: totals.topics.iter().map(|topic| topic.topic.as_str()).collect(),
        by_topic: totals.topics.iter().map(|one| (one.topic.as_str(), Counts::of(one))).collect(),
        queue_depth: ports.instance().group.depth(),
        started_at: time::rfc3339(started_at),
        uptime_seconds: uptime as f64 / 1000.0,
        uptime_human: time::human(uptime),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(Reply::json(StatusCode::OK, &body))
}

async fn read_totals(ports: &impl Ports, config: &Config) -> Result<Totals, StoreError> {
    commit::patiently(ports, config.commit_wait_max, async || event_log::totals(ports).await).await
}

/// The time of the first start. The SQL store was created by the first request,
/// so its age stands in when the key-value store has lost its own note.
async fn started_at(ports: &impl Ports, created_at: UnixMillis) -> Result<UnixMillis, StoreError> {
    let noted = ports.get(STARTED_AT).await?;
    let noted = noted.and_then(|text| time::parse(std::str::from_utf8(&text).ok()?).ok());
    if let Some(noted) = noted {
        return Ok(noted);
    }
    ports.set(STARTED_AT, time::rfc3339(created_at).as_bytes()).await?;
    Ok(created_at)
}

/// One snapshot as it is kept and shown: the counters as the first publish of
/// the minute left them.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    minute: String,
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
}

/// Answers `GET /stats/history`, oldest first.
///
/// # Errors
///
/// 503 when the key-value store does not answer.
pub async fn history(ports: &impl Ports, config: &Config) -> Result<Reply, Problem> {
    let snapshots = read_history(ports)
        .await
        .map_err(|error| Problem::store(&error, config.retry_after_seconds))?;
    Ok(Reply::json(StatusCode::OK, &snapshots))
}

/// The snapshots of the last [`HISTORY_MINUTES_MAX`].
async fn read_history(ports: &impl Ports) -> Result<Vec<Snapshot>, StoreError> {
    let Some(value) = ports.get(SNAPSHOTS).await? else { return Ok(Vec::new()) };
    let mut snapshots: Vec<Snapshot> = serde_json::from_slice(&value)
        .map_err(|error| StoreError::unavailable(format!("the snapshots are none: {error}")))?;
    // Their names are in the order of time.
    let oldest = time::minute_name(time::minute_of(ports.now()) - HISTORY_MINUTES_MAX);
    snapshots.retain(|snapshot| snapshot.minute > oldest);
    Ok(snapshots)
}

/// Keeps a snapshot of the counters when a publish is the first of its minute.
///
/// It costs other publishes nothing, and a failure costs the snapshot alone:
/// the events are on disk already, so it is logged and the reply goes out.
pub async fn snapshot_each_minute(ports: &impl Ports, config: &Config) {
    let now = ports.now();
    let minute = time::minute_of(now);
    if ports.instance().minute_seen.replace(minute) == minute {
        return;
    }
    match snapshot(ports, config, minute).await {
        Ok(false) => {}
        Ok(true) => {
            let line = Line::new("a snapshot of the counters was kept");
            log::write(config.log_level, Level::Info, now, line);
        }
        Err(error) => report(config, now, "the snapshot of this minute could not be kept", &error),
    }
}

/// Whether this was the one to keep it.
async fn snapshot(ports: &impl Ports, config: &Config, minute: i64) -> Result<bool, StoreError> {
    let minute = time::minute_name(minute);
    if ports.get(NEWEST).await?.is_some_and(|newest| newest.as_slice() >= minute.as_bytes()) {
        return Ok(false);
    }
    let mut snapshots = read_history(ports).await?;
    snapshots.retain(|snapshot| snapshot.minute < minute);
    let totals = read_totals(ports, config).await?;
    let counts = Counts::of_all(&totals);
    snapshots.push(Snapshot {
        minute: minute.clone(),
        received: counts.received,
        unique_processed: counts.unique_processed,
        duplicate_dropped: counts.duplicate_dropped,
    });
    let value = serde_json::to_vec(&snapshots)
        .map_err(|error| StoreError::unavailable(error.to_string()))?;
    // Two instances that do this at once write nearly the same; were one of
    // them late by a minute, that minute would be missing, and nothing else.
    ports.set(SNAPSHOTS, &value).await?;
    ports.set(NEWEST, minute.as_bytes()).await?;
    started_at(ports, totals.created_at).await?;
    Ok(true)
}

fn report(config: &Config, now: UnixMillis, message: &'static str, error: &StoreError) {
    let line = Line { cause: Some(&error.message), ..Line::new(message) };
    log::write(config.log_level, Level::Error, now, line);
}
