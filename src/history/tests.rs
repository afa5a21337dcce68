use serde_json::json;

use super::{
    HISTORY_MINUTES_MAX, KNOWN_MS_MAX, REST_MS, Snapshot, TOPICS_BYTES_MAX, TOPICS_MAX,
    TOPICS_MINUTES, VISIT_GIVEN_UP_MS, VISIT_MS_MAX,
};
use crate::platform::fake::{NOW, now};
use crate::testing::TestService;

fn publish(service: &TestService, id: &str) {
    let event = format!(r#"{{"topic":"t","event_id":"{id}","source":"s"}}"#);
    assert_eq!(service.publish(&event).0, 200);
}

fn later(service: &TestService, millis: i64) {
    service.now.set(service.now.get() + millis);
}

fn history(service: &TestService) -> Vec<String> {
    let (status, history) = service.get("/stats/history");
    assert_eq!(status, 200);
    history.as_array().unwrap().iter().map(|one| one["minute"].to_string()).collect()
}

fn counted(service: &TestService) -> bool {
    now(service.app().linger());
    let metrics = service.get("/metrics").1;
    metrics.as_str().unwrap().contains("sekali_unreadable_key_value_values_total 1\n")
}

#[test]
fn damaged_values_are_replaced_and_counted() {
    for (key, damaged) in [
        ("snapshots", &b"\xff garbage"[..]),
        ("snapshots", b"{}"),
        ("snapshots", b""),
        ("started_at", b"\xff"),
        ("started_at", b""),
    ] {
        for reads_first in [true, false] {
            let service = TestService::new();
            publish(&service, "1");
            let before = service.key_value.borrow()[key].clone();
            service.key_value.borrow_mut().insert(key.to_owned(), damaged.to_vec());
            if reads_first {
                service.get("/stats/history");
                assert_eq!(service.get("/stats").0, 200);
                assert_eq!(service.get("/health").0, 200);
            }
            later(&service, 60_000);
            publish(&service, "2");
            assert_eq!(history(&service).len(), if key == "snapshots" { 1 } else { 2 });
            if key == "started_at" {
                assert_eq!(service.key_value.borrow()[key], before);
            }
            assert!(counted(&service), "{key}: {damaged:?}");
        }
    }
}

#[test]
fn what_can_be_read_of_a_damaged_value_is_kept() {
    let service = TestService::new();
    publish(&service, "1");
    let kept = service.key_value.borrow()["snapshots"].clone();
    let mut kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    kept.as_array_mut().unwrap().push(json!({"minute": 5}));
    service.key_value.borrow_mut().insert("snapshots".to_owned(), kept.to_string().into());
    assert_eq!(history(&service).len(), 1);
    assert_eq!(history(&service).len(), 1);
    assert!(counted(&service), "once: it was replaced");
}

#[test]
fn a_store_that_fails_is_left_alone_by_all_for_a_while() {
    let service = TestService::new();
    service.key_value_fails.set(true);
    publish(&service, "1");
    service.key_value_fails.set(false);
    for instance in 0..3 {
        let next = TestService::over(service.platform());
        publish(&next, &instance.to_string());
        assert_eq!(next.get("/health").0, 503);
        assert_eq!(next.get("/stats/history").0, 503);
    }
    assert_eq!(service.key_value_writes.get(), 0);
    later(&service, REST_MS);
    let next = TestService::over(service.platform());
    publish(&next, "9");
    assert_eq!(next.get("/health").0, 200);
    assert_eq!(history(&next).len(), 1);
}

#[test]
fn health_tells_of_a_visit_that_does_not_come_back() {
    let service = TestService::new();
    publish(&service, "1");
    let visit = format!("UPDATE counters SET value = {NOW} WHERE name = 'mark/key_value/began_at'");
    service.connection.execute(&visit, ()).unwrap();
    assert_eq!(service.get("/health").0, 200, "it has just begun");
    later(&service, VISIT_MS_MAX + 1);
    let (status, health) = service.get("/health");
    assert_eq!((status.as_u16(), &health["stores"]["key_value"]["status"]), (503, &json!("busy")));
    later(&service, VISIT_GIVEN_UP_MS);
    service.get("/health");
    assert_eq!(service.get("/health").0, 200);
}

#[test]
fn health_has_the_store_visited_when_nobody_publishes() {
    let service = TestService::new();
    assert_eq!(service.get("/health").0, 200);
    service.key_value_fails.set(true);
    assert_eq!(service.get("/health").0, 200, "it was visited just now");
    later(&service, KNOWN_MS_MAX + 1);
    service.get("/health");
    assert_eq!(service.get("/health").0, 503);
    service.key_value_fails.set(false);
    later(&service, REST_MS);
    service.get("/health");
    assert_eq!(service.get("/health").0, 200);
}

#[test]
fn the_history_goes_on_after_a_clock_that_was_ahead() {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let service = TestService::new();
    publish(&service, "1");
    later(&service, DAY);
    publish(&service, "2");
    later(&service, -DAY + 60_000);
    publish(&service, "3");
    assert_eq!(service.get("/events").1["events"][2]["received_at"], "2026-01-02T03:05:05.678Z");
    let minutes = [r#""2026-01-02T03:04Z""#, r#""2026-01-02T03:05Z""#];
    assert_eq!(history(&service)[..], minutes[1..], "the first was dropped as a day old");
    later(&service, 60_000);
    publish(&service, "4");
    assert_eq!(history(&service).len(), 2);
    assert_eq!(service.get("/health").0, 200);
}

#[test]
fn topics_are_told_apart_every_fifteen_minutes() {
    let service = TestService::new();
    let quarter_ms = TOPICS_MINUTES * 60_000;
    service.now.set(NOW - NOW.rem_euclid(quarter_ms));
    let deliver = |topic: &str, ids: std::ops::Range<usize>| {
        let events: Vec<_> = ids
            .map(|id| json!({"topic": topic, "event_id": id.to_string(), "source": "s"}))
            .collect();
        assert_eq!(service.publish(&json!(events).to_string()).0, 200);
    };
    deliver("a", 0..3);
    later(&service, 60_000);
    deliver("b", 0..9);
    later(&service, quarter_ms);
    deliver("a", 2..4);
    later(&service, quarter_ms - 120_000);
    deliver("a", 0..1);
    let told: Vec<_> = service.get("/stats/history").1.as_array().unwrap().clone();
    let told: Vec<_> = told.iter().map(|one| one["by_topic"].clone()).collect();
    let none = serde_json::Value::Null;
    assert_eq!(told, [json!({"a": 3}), none.clone(), json!({"a": 5, "b": 9}), none]);

    // The busiest, as far as their names go.
    for topic in 0..TOPICS_MAX {
        deliver(&format!("{topic:02}"), 0..20);
    }
    later(&service, quarter_ms);
    deliver("a", 0..30);
    let newest = || service.get("/stats/history").1.as_array().unwrap().last().unwrap().clone();
    let told = newest()["by_topic"].as_object().unwrap().clone();
    assert_eq!((told.len(), &told["a"]), (TOPICS_MAX, &json!(36)));
    assert!(!told.contains_key("b"), "{told:?}");
    let long = "x".repeat(TOPICS_BYTES_MAX / 6);
    for topic in 0..6 {
        deliver(&format!("{topic}{long}"), 0..100);
    }
    later(&service, quarter_ms);
    deliver("a", 0..1);
    assert_eq!(newest()["by_topic"].as_object().unwrap().len(), 5);
}

/// A value of the key-value store has 1 MB at most on Akamai Functions.
#[test]
fn a_day_of_snapshots_fits_a_small_store() {
    let by_topic = |minute: i64| {
        let of_topics = if minute % TOPICS_MINUTES == 0 { TOPICS_MAX } else { 0 };
        let name = |topic| format!("{topic:0width$}", width = TOPICS_BYTES_MAX / TOPICS_MAX);
        (0..of_topics).map(|topic| (name(topic), i64::MAX)).collect()
    };
    let largest = |minute| Snapshot {
        minute: "2026-11-27T20:41:00Z".to_owned(),
        received: i64::MAX,
        unique_processed: i64::MAX,
        duplicate_dropped: i64::MAX,
        by_topic: by_topic(minute),
    };
    let day: Vec<_> = (0..HISTORY_MINUTES_MAX).map(largest).collect();
    let bytes = serde_json::to_vec(&day).unwrap().len();
    assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
}
