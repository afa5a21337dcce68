//! The routes that a load needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use publisher::wire::{Counters, Outcome};
use serde::Serialize;

use super::store::{Event, Settled, Store};

/// Most characters of a name.
const NAME_CHARS_MAX: usize = 255;

/// Most bytes of the results in a reply, unless all were asked for.
const RESULTS_BYTES_MAX: usize = 3_000;

/// Bytes of a result beside its names.
const RESULT_BYTES: usize = 70;

/// The service on a store.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/publish", post(publish))
        .route("/stats", get(stats))
        .route("/healthz", get(|| async { json(&Health { ok: true }) }))
        .with_state(store)
}

#[derive(Serialize)]
struct Health {
    ok: bool,
}

#[derive(Serialize)]
struct Reply<'a> {
    received: usize,
    accepted: usize,
    duplicates: usize,
    conflicts: usize,
    rejected: usize,
    message: String,
    results: Vec<EventResult<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    results_omitted: usize,
}

#[derive(Serialize)]
struct EventResult<'a> {
    index: usize,
    topic: &'a str,
    event_id: &'a str,
    status: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
}

#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    total: Counters,
    rejected: u64,
    topics: Vec<String>,
    by_topic: BTreeMap<String, Counters>,
}

/// One event, or an array of events. One that is not valid refuses them all.
async fn publish(
    State(store): State<Store>,
    RawQuery(query): RawQuery,
    body: axum::body::Bytes,
) -> Response {
    let events: Arc<[Event]> = match read(&body) {
        Ok(events) => events.into(),
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error).into_response(),
    };
    let Some(settled) = store.append(Arc::clone(&events)).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    json(&reply(&events, &settled, query.as_deref() == Some("results=all")))
}

fn read(body: &[u8]) -> Result<Vec<Event>, String> {
    let events: Vec<Event> = match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::from_slice(body).map(|event| vec![event]),
    }
    .map_err(|error| error.to_string())?;
    let fits = |name: &String| (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    match events
        .iter()
        .all(|event| [&event.topic, &event.event_id, &event.source].into_iter().all(fits))
    {
        true => Ok(events),
        false => Err(format!("names have 1 to {NAME_CHARS_MAX} characters")),
    }
}

fn reply<'a>(events: &'a [Event], settled: &[Settled], all: bool) -> Reply<'a> {
    let count = |wanted| settled.iter().filter(|settled| settled.outcome == wanted).count();
    let (accepted, conflicts) = (count(Outcome::Accepted), count(Outcome::Conflict));
    let (received, duplicates) = (events.len(), events.len() - accepted);
    let mut results = Vec::new();
    let mut bytes_left = RESULTS_BYTES_MAX;
    let mut results_omitted = 0;
    for (index, (event, Settled { outcome, seq })) in events.iter().zip(settled).enumerate() {
        if *outcome == Outcome::Accepted && !all {
            continue;
        }
        let bytes = event.topic.len() + event.event_id.len() + RESULT_BYTES;
        if bytes > bytes_left && !all {
            results_omitted += 1;
            continue;
        }
        bytes_left = bytes_left.saturating_sub(bytes);
        results.push(EventResult {
            index,
            topic: &event.topic,
            event_id: &event.event_id,
            status: *outcome,
            seq: *seq,
        });
    }
    Reply {
        received,
        accepted,
        duplicates,
        conflicts,
        rejected: 0,
        message: format!(
            "Received {received} events, accepted {accepted}, rejected {duplicates} duplicates"
        ),
        results,
        results_omitted,
    }
}

async fn stats(State(store): State<Store>) -> Response {
    let Ok(by_topic) = store.counters().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut total = Counters::default();
    for counters in by_topic.values() {
        total += *counters;
    }
    json(&Stats { total, rejected: 0, topics: by_topic.keys().cloned().collect(), by_topic })
}

fn json(reply: &impl Serialize) -> Response {
    match serde_json::to_vec(reply) {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
