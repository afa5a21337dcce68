//! `POST /publish`: takes events, replies when they are on disk.

use std::rc::Rc;

use http::StatusCode;

use crate::app::App;
use crate::commit::by_key;
use crate::event::{Event, FieldError};
use crate::http::authentication::Caller;
use crate::http::noted::Phase;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::{self, Entry, Format, Input};
use crate::store::Outcome;

/// Answers one publish, in the format that it has.
///
/// # Errors
///
/// The contract's: 413, 422 and 503.
pub(crate) async fn publish(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    take(app, request, ingest::open(&request.query(), &input(app, request))?).await
}

/// What a format reads.
pub(super) fn input<'a>(app: &App, request: &Request<'a>) -> Input<'a> {
    Input {
        body: request.body,
        headers: request.headers(),
        name: request.name,
        trace_id: request.trace.trace_id(),
        batch_events_max: app.config.batch_events_max,
    }
}

/// Commits the events that a format reads, and lets it reply.
///
/// # Errors
///
/// What the format says, and 503 when the store does not answer.
pub(super) async fn take(
    app: &Rc<App>,
    request: &Request<'_>,
    mut format: Box<dyn Format + '_>,
) -> Result<Reply, Problem> {
    let publishing = Publishing { app, caller: &request.caller };
    loop {
        let mut entries = format.next()?;
        if entries.is_empty() {
            return format.reply();
        }
        publishing.refuse_topics(&mut entries)?;
        let rejected: Vec<&'static str> = entries.iter().filter_map(ingest::reason).collect();
        request.noted.add_events(entries.len());
        let mut events: Vec<&Event> =
            entries.iter().filter_map(|entry| entry.as_ref().ok()).collect();
        let stores_nothing = !rejected.is_empty() && (format.is_atomic() || events.is_empty());
        if stores_nothing {
            // The rejected ones are counted all the same.
            events.clear();
        }
        request.noted.end(Phase::Parse, &*app.platform);
        let committed = app.commits.commit(&events, rejected).await;
        request.noted.end(Phase::Commit, &*app.platform);
        let outcomes = committed.map_err(|error| app.unavailable(&error))?;
        publishing.note(entries.len(), &outcomes);
        format.settle(entries, (!stores_nothing).then_some(outcomes))?;
    }
}

/// What is due to a key for what comes by it.
pub(super) struct Publishing<'a> {
    pub(super) app: &'a App,
    pub(super) caller: &'a Caller,
}

impl Publishing<'_> {
    /// Rejects the events of topics that the key is not good for.
    ///
    /// # Errors
    ///
    /// 403 when all of them are.
    pub(super) fn refuse_topics(&self, entries: &mut [Entry]) -> Result<(), Problem> {
        let Some(key) = self.caller.key().filter(|key| !key.is_of_all_topics()) else {
            return Ok(());
        };
        let mut refused = Vec::new();
        for entry in entries.iter_mut() {
            let topic = entry.as_ref().ok().map(|event| event.topic().as_str());
            if let Some(topic) = topic.filter(|topic| !key.is_of(topic)) {
                refused.push(topic.to_owned());
                let detail = format!("is not one that the key {} is good for", key.name);
                *entry = Err(vec![FieldError::new("topic", detail)]);
            }
        }
        match refused.first() {
            Some(topic) if refused.len() == entries.len() => {
                Err(Problem::topic_refused(&key.name, topic))
            }
            _ => Ok(()),
        }
    }

    /// Counts what came by the key: so many entries, of which those that were committed had
    /// these outcomes.
    pub(super) fn note(&self, entries: usize, outcomes: &[Outcome]) {
        let Some(key) = self.caller.key() else { return };
        self.app.limits.spend(key, self.app.platform.monotonic(), entries, 0);
        self.app.commits.observed.add(by_key::increments(&key.name, entries, outcomes));
    }
}

/// Answers `HEAD`, by which shippers probe the address that they are given.
///
/// # Errors
///
/// None.
pub(crate) async fn probe(_: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    Ok(Reply::text(StatusCode::OK, ""))
}

#[cfg(test)]
mod memory;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::history::HISTORY_MINUTES_MAX;
    use crate::platform::fake;
    use crate::platform::sqlite::SqliteError;
    use crate::testing::TestService;

    #[test]
    fn tells_each_event_its_outcome() {
        let service = TestService::new();
        let event = json!({"topic": "t", "event_id": "1", "source": "s"});
        let other = json!({"topic": "t", "event_id": "1", "source": "s", "payload": [1]});
        let body = json!([event, event, other, {"topic": "t"}]);
        let (status, reply) = service.publish(&body.to_string());
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
        let (_, stats) = service.get("/stats");
        assert_eq!(stats["received"], 3);
        assert_eq!(stats["rejected"], 1);
    }

    #[test]
    fn a_store_that_fails_stores_nothing_and_says_503() {
        for (fault, code) in [
            (fake::busy(), "store_busy"),
            (SqliteError::Full, "store_full"),
            (fake::unavailable(), "store_unavailable"),
        ] {
            let service = TestService::new();
            service.faults.replace(vec![fault; 100_000]);
            let (status, reply) = service.publish(r#"{"topic":"t","event_id":"1","source":"s"}"#);
            assert_eq!((status.as_u16(), &reply["code"]), (503, &json!(code)));
            service.faults.replace(Vec::new());
            let (_, stats) = service.get("/stats");
            assert_eq!(stats["received"], 0);
        }
    }

    #[test]
    fn the_key_value_store_is_written_once_a_minute_and_may_fail() {
        let service = TestService::new();
        let publish = |id: usize| {
            service.publish(
                &json!({"topic": "t", "event_id": id.to_string(), "source": "s"}).to_string(),
            )
        };
        publish(0);
        let writes = service.key_value_writes.get();
        assert_eq!(writes, 2, "the snapshot and the time of first start");
        for id in 1..50 {
            publish(id);
        }
        assert_eq!(service.key_value_writes.get(), writes);
        service.now.set(service.now.get() + 60_000);
        publish(50);
        assert_eq!(service.key_value_writes.get(), writes + 1);
        let (_, history) = service.get("/stats/history");
        assert_eq!(
            history,
            json!([
                {"minute": "2026-01-02T03:04Z", "received": 1, "unique_processed": 1,
                 "duplicate_dropped": 0, "by_topic": {"t": 1}},
                {"minute": "2026-01-02T03:05Z", "received": 51, "unique_processed": 51,
                 "duplicate_dropped": 0},
            ])
        );

        service.key_value_fails.set(true);
        service.now.set(service.now.get() + 60_000);
        assert_eq!(publish(51).0, 200);
        assert_eq!(service.get("/health").0, 503);
        assert_eq!(service.get("/stats").0, 200);
        assert_eq!(service.get("/stats/history").0, 503);
        service.key_value_fails.set(false);
        service.key_value.borrow_mut().clear();
        assert_eq!(publish(52).0, 200);
        assert_eq!(service.key_value_writes.get(), writes + 1, "it is left alone for a while");
        service.now.set(service.now.get() + 10_000);
        assert_eq!(publish(53).0, 200);
        assert_eq!(service.key_value_writes.get(), writes + 3);
        assert_eq!(service.get("/health").0, 200);
        assert_eq!(service.get("/stats").1["started_at"], "2026-01-02T03:04:05.678Z");
    }

    #[test]
    fn snapshots_are_kept_for_a_day() {
        let service = TestService::new();
        for minute in 0..3 {
            service.publish(&format!(r#"{{"topic":"t","event_id":"{minute}","source":"s"}}"#));
            service.now.set(service.now.get() + 60_000);
        }
        service.now.set(service.now.get() + (HISTORY_MINUTES_MAX - 2) * 60_000);
        service.publish(r#"{"topic":"t","event_id":"next day","source":"s"}"#);
        let (_, history) = service.get("/stats/history");
        let minutes: Vec<&str> =
            history.as_array().unwrap().iter().filter_map(|one| one["minute"].as_str()).collect();
        assert_eq!(minutes, ["2026-01-02T03:06Z", "2026-01-03T03:05Z"]);
        let kept = String::from_utf8(service.key_value.borrow()["snapshots"].clone()).unwrap();
        assert_eq!(kept.matches("minute").count(), 2);
    }
}
