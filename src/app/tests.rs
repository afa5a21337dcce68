use std::time::Duration;

use crate::commit::observed::UNREADABLE_EVENTS;
use crate::platform::fake::{busy, now, unavailable};
use crate::testing::TestService;

fn publish(service: &TestService, id: &str) {
    let event = format!(r#"{{"topic":"t","event_id":"{id}","source":"s","payload":[1]}}"#);
    assert_eq!(service.publish(&event).0, 200);
}

/// What the store counts of commits.
fn commits_counted(service: &TestService) -> i64 {
    let count = "SELECT coalesce(sum(value), 0) FROM counters WHERE name LIKE 'commit_events/le/%'";
    service.connection.query_row(count, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_instance_stores_what_it_observed_before_it_goes() {
    let service = TestService::new();
    let app = service.app();
    assert!(!app.wants_to_linger(), "nothing was written");
    publish(&service, "1");
    assert!(app.wants_to_linger());
    assert!(!app.wants_to_linger(), "it lingers already");
    assert_eq!(commits_counted(&service), 0);
    let began = service.slept.get();
    service.faults.replace(vec![busy(), busy()]);
    now(app.linger());
    assert_eq!(commits_counted(&service), 1);
    assert!(service.slept.get() - began >= Duration::from_millis(4 * 50), "after every write");
    assert!(!app.wants_to_linger(), "nothing was written since");
    publish(&service, "2");
    assert!(app.wants_to_linger());
}

#[test]
fn what_cannot_be_stored_is_given_up_and_ends_nothing() {
    let service = TestService::new();
    let app = service.app();
    for (faults, counted) in [(vec![busy(); 1000], 0), (vec![unavailable()], 1)] {
        // A commit takes along what could not be stored before it.
        publish(&service, "1");
        assert!(app.wants_to_linger());
        service.faults.replace(faults);
        now(app.linger());
        service.faults.replace(Vec::new());
        assert_eq!(commits_counted(&service), counted);
    }
    publish(&service, "2");
    now(app.linger());
    assert_eq!(commits_counted(&service), 3, "nothing that was observed is lost");
}

/// A store in which the payload of event 2 of 3 was damaged.
fn damaged() -> TestService {
    let service = TestService::new();
    for id in ["1", "2", "3"] {
        publish(&service, id);
    }
    service.connection.execute("UPDATE event_log SET payload = '{x' WHERE seq = 2", ()).unwrap();
    service
}

#[test]
fn a_row_that_cannot_be_shown_has_the_same_fate_for_every_reader() {
    let service = damaged();
    let (status, page) = service.get("/events");
    assert_eq!((status.as_u16(), &page["count"]), (200, &3.into()));
    let damaged = &page["events"][1];
    assert_eq!(damaged["event_id"], "2");
    assert_eq!(damaged["payload"], serde_json::Value::Null);
    assert!(damaged.as_object().unwrap().contains_key("payload"));
    assert_eq!(damaged["error"], "the stored payload is not JSON");
    for whole in [0, 2] {
        assert_eq!(page["events"][whole]["payload"], serde_json::json!([1]));
        assert!(!page["events"][whole].as_object().unwrap().contains_key("error"));
    }

    let text = serde_json::to_string(damaged).unwrap();
    let same = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    };
    let lines = [("accept", "application/x-ndjson")];
    let mut lines = service.stream_with("/events", &lines);
    same(lines.part().lines().nth(1).unwrap());
    let mut stream = service.stream("/events/stream");
    let frames = stream.part();
    let frames: Vec<&str> = frames.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(frames.len(), 3, "it goes on");
    same(frames[1]);
    service.request("PUT", "/subscriptions/consumer", "");
    let (status, page) = service.get("/subscriptions/consumer/events");
    assert_eq!(status, 200);
    assert_eq!(&page["events"][1], damaged);
    assert_eq!(page["next"], "3");
}

#[test]
fn a_row_that_cannot_be_shown_is_counted_once_by_each_instance() {
    let service = damaged();
    let counted = || {
        let count = "SELECT coalesce(sum(value), 0) FROM counters WHERE name = ?1";
        service
            .connection
            .query_row(count, [UNREADABLE_EVENTS], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    for _ in 0..3 {
        service.get("/events");
    }
    assert!(service.app().wants_to_linger(), "also without a commit");
    now(service.app().linger());
    assert_eq!(counted(), 1);
    let metrics = service.get("/metrics").1;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("sekali_unreadable_events_total 1\n"), "{metrics}");
}
