use serde_json::json;

use super::{
    HISTORY_MINUTES_MAX, KNOWN_MS_MAX, REST_MS, Snapshot, VISIT_GIVEN_UP_MS, VISIT_MS_MAX,
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

/// A value of the key-value store has 1 MB at most on Akamai Functions.
#[test]
fn a_day_of_snapshots_fits_a_small_store() {
    let largest = || Snapshot {
        minute: "2026-11-27T20:41:00Z".to_owned(),
        received: i64::MAX,
        unique_processed: i64::MAX,
        duplicate_dropped: i64::MAX,
    };
    let day: Vec<_> = (0..HISTORY_MINUTES_MAX).map(|_| largest()).collect();
    let bytes = serde_json::to_vec(&day).unwrap().len();
    assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
}
