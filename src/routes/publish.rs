//! `POST /publish`: takes events, replies when they are on disk.

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use crate::commit;
use crate::config::Config;
use crate::event::{Event, FieldError};
use crate::http::problem::{InvalidEvent, Problem};
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::ingest::native as body;
use crate::platform::Ports;
use crate::routes::stats;
use crate::store::sqlite::event_log::Outcome;

/// Which events the reply names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Results {
    /// Those that were not accepted.
    Notable,
    All,
    None,
}

/// One event of the reply's `results`.
#[derive(Serialize)]
struct EventResult<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Default, Serialize)]
struct Accepted<'a> {
    received: usize,
    accepted: usize,
    duplicates: usize,
    conflicts: usize,
    rejected: usize,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<EventResult<'a>>>,
}

/// Answers one publish.
///
/// # Errors
///
/// The contract's: 413, 422 and 503.
pub async fn publish(
    ports: &impl Ports,
    config: &Config,
    query: &Query<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Problem> {
    let named = query.read("results", |value| match value {
        "all" => Ok(Results::All),
        "none" => Ok(Results::None),
        _ => Err("must be all or none".to_owned()),
    })?;
    let named = named.unwrap_or(Results::Notable);
    let strict = query.switch("strict")?;
    let atomic = query.switch("atomic")?;

    let mut events = Vec::new();
    let mut parsed: Vec<Parsed> = Vec::new();
    for element in body::split(body, promises_lines(headers), config.batch_events_max)? {
        let event = element.map_err(|error| vec![error]).and_then(Event::parse);
        parsed.push(event.map(|event| {
            events.push(event);
            events.len() - 1
        }));
    }
    let rejected: Vec<&'static str> = parsed.iter().filter_map(reason).collect();
    let refused = !rejected.is_empty() && (atomic || events.is_empty());
    if refused {
        events.clear();
    }

    let outcomes = if parsed.is_empty() {
        Vec::new()
    } else {
        commit::commit(ports, config, &events, rejected)
            .await
            .map_err(|error| Problem::store(&error, config.retry_after_seconds))?
    };
    stats::snapshot_each_minute(ports, config).await;
    if refused {
        return Err(refusal(parsed, atomic));
    }
    let reply = settle(&parsed, &events, &outcomes, named)?;
    let status = match reply.conflicts {
        1.. if strict => StatusCode::CONFLICT,
        _ => StatusCode::OK,
    };
    Ok(Reply::json(status, &reply))
}

fn promises_lines(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type.is_some_and(reply::is_ndjson)
}

/// One event of a body: its place among the valid ones, or what is wrong with it.
type Parsed = Result<usize, Vec<FieldError>>;

/// The reason by which a rejected event is counted: its first wrong field.
fn reason(event: &Parsed) -> Option<&'static str> {
    event.as_ref().err().map(|wrong| wrong.first().map_or("event", |error| error.field))
}

fn refusal(parsed: Vec<Parsed>, atomic: bool) -> Problem {
    let of = parsed.len();
    let mut invalid = 0;
    let mut errors = Vec::new();
    for (index, event) in parsed.into_iter().enumerate() {
        if let Err(wrong) = event {
            invalid += 1;
            errors.extend(wrong.into_iter().map(|error| InvalidEvent::new(index, error)));
        }
    }
    let kept =
        if atomic { "the request is atomic, so nothing was stored" } else { "none was stored" };
    Problem::invalid_events(format!("Of {of} events {invalid} are not valid; {kept}."), errors)
}

/// Puts each event and its outcome together.
fn settle<'a>(
    parsed: &'a [Parsed],
    events: &'a [Event],
    outcomes: &[Outcome],
    named: Results,
) -> Result<Accepted<'a>, Problem> {
    let mut reply = Accepted::default();
    let mut results = Vec::new();
    for (index, event) in parsed.iter().enumerate() {
        let (status, seq, wrong) = match event {
            Err(errors) => {
                reply.rejected += 1;
                ("rejected", None, errors.first())
            }
            Ok(place) => match outcomes.get(*place) {
                Some(Outcome::Accepted { seq }) => {
                    reply.accepted += 1;
                    ("accepted", Some(*seq), None)
                }
                Some(Outcome::Conflict) => {
                    reply.duplicates += 1;
                    reply.conflicts += 1;
                    ("conflict", None, None)
                }
                Some(Outcome::Duplicate) => {
                    reply.duplicates += 1;
                    ("duplicate", None, None)
                }
                None => return Err(Problem::internal("there are fewer outcomes than events")),
            },
        };
        if named == Results::All || (named == Results::Notable && seq.is_none()) {
            let event = event.as_ref().ok().and_then(|place| events.get(*place));
            results.push(EventResult {
                index,
                topic: event.map(|event| event.topic.as_str()),
                event_id: event.map(|event| event.event_id.as_str()),
                status,
                seq,
                field: wrong.map(|error| error.field),
                detail: wrong.map(ToString::to_string),
            });
        }
    }
    reply.received = reply.accepted + reply.duplicates;
    reply.message = format!(
        "Received {} events, accepted {}, rejected {} duplicates",
        reply.received, reply.accepted, reply.duplicates
    );
    reply.results = (named != Results::None).then_some(results);
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::Fault;
    use crate::platform::fake::Desk;

    #[test]
    fn tells_each_event_its_outcome() {
        let desk = Desk::new();
        let event = json!({"topic": "t", "event_id": "1", "source": "s"});
        let other = json!({"topic": "t", "event_id": "1", "source": "s", "payload": [1]});
        let body = json!([event, event, other, {"topic": "t"}]);
        let (status, reply) = desk.publish(&body.to_string());
        assert_eq!(status, 200);
        assert_eq!(reply["message"], "Received 3 events, accepted 1, rejected 2 duplicates");
        assert_eq!(
            reply["results"],
            json!([
                {"index": 1, "topic": "t", "event_id": "1", "status": "duplicate"},
                {"index": 2, "topic": "t", "event_id": "1", "status": "conflict"},
                {"index": 3, "status": "rejected", "field": "event_id",
                 "detail": "event_id is required"},
            ])
        );
        let (_, stats) = desk.get("/stats");
        assert_eq!(stats["received"], 3);
        assert_eq!(stats["rejected"], 1);
    }

    #[test]
    fn a_store_that_fails_stores_nothing_and_says_503() {
        for (fault, code) in [
            (Fault::Busy, "store_busy"),
            (Fault::Full, "store_full"),
            (Fault::Unavailable, "store_unavailable"),
        ] {
            let desk = Desk::new();
            desk.faults.replace(vec![fault; 100_000]);
            let (status, reply) = desk.publish(r#"{"topic":"t","event_id":"1","source":"s"}"#);
            assert_eq!((status.as_u16(), &reply["code"]), (503, &json!(code)));
            desk.faults.replace(Vec::new());
            let (_, stats) = desk.get("/stats");
            assert_eq!(stats["received"], 0);
        }
    }

    #[test]
    fn the_key_value_store_is_written_once_a_minute_and_may_fail() {
        let desk = Desk::new();
        let publish = |id: usize| {
            desk.publish(
                &json!({"topic": "t", "event_id": id.to_string(), "source": "s"}).to_string(),
            )
        };
        publish(0);
        let writes = desk.key_value_writes.get();
        assert_eq!(writes, 3, "the snapshot, its minute and the time of first start");
        for id in 1..50 {
            publish(id);
        }
        assert_eq!(desk.key_value_writes.get(), writes);
        desk.now.set(desk.now.get() + 60_000);
        publish(50);
        assert_eq!(desk.key_value_writes.get(), writes + 2);
        let (_, history) = desk.get("/stats/history");
        assert_eq!(
            history,
            json!([
                {"minute": "2026-01-02T03:04Z", "received": 1, "unique_processed": 1,
                 "duplicate_dropped": 0},
                {"minute": "2026-01-02T03:05Z", "received": 51, "unique_processed": 51,
                 "duplicate_dropped": 0},
            ])
        );

        desk.key_value_fails.set(true);
        desk.now.set(desk.now.get() + 60_000);
        assert_eq!(publish(51).0, 200);
        assert_eq!(desk.get("/health").0, 503);
        assert_eq!(desk.get("/stats").0, 200);
        assert_eq!(desk.get("/stats/history").0, 503);
        desk.key_value_fails.set(false);
        desk.key_value.borrow_mut().clear();
        assert_eq!(publish(52).0, 200);
        assert_eq!(desk.get("/health").0, 200);
        assert_eq!(desk.get("/stats").1["started_at"], "2026-01-02T03:04:05.678Z");
    }

    #[test]
    fn snapshots_are_kept_for_a_day() {
        let desk = Desk::new();
        for minute in 0..3 {
            desk.publish(&format!(r#"{{"topic":"t","event_id":"{minute}","source":"s"}}"#));
            desk.now.set(desk.now.get() + 60_000);
        }
        desk.now.set(desk.now.get() + (stats::HISTORY_MINUTES_MAX - 2) * 60_000);
        desk.publish(r#"{"topic":"t","event_id":"next day","source":"s"}"#);
        let (_, history) = desk.get("/stats/history");
        let minutes: Vec<&str> =
            history.as_array().unwrap().iter().filter_map(|one| one["minute"].as_str()).collect();
        assert_eq!(minutes, ["2026-01-02T03:06Z", "2026-01-03T03:05Z"]);
        let kept = String::from_utf8(desk.key_value.borrow()["snapshots"].clone()).unwrap();
        assert_eq!(kept.matches("minute").count(), 2);
    }
}
