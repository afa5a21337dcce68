use serde_json::{Value, json};

use super::*;
use crate::platform::fake::postgres::database;
use crate::platform::fake::{FakePlatform, NOW, now};
use crate::platform::postgres::PostgresError;
use crate::store::TopicGroup;
use crate::store::postgres::PostgresStore;
use crate::testing::TestService;
use crate::time::DAY_MS;

fn service(variables: &[(&str, &str)]) -> TestService {
    let platform = FakePlatform::new();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    platform.variables.borrow_mut().extend(variables);
    TestService::over(platform)
}

/// Publishes events of a topic, by their numbers, and tells what came of them.
fn publish(service: &TestService, topic: &str, ids: std::ops::Range<usize>) -> Value {
    let events: Vec<Value> = ids
        .map(|id| json!({"topic": topic, "event_id": id.to_string(), "source": "s", "payload": 1}))
        .collect();
    let (status, reply) = service.publish(&json!(events).to_string());
    assert_eq!(status, 200);
    reply
}

fn prune(service: &TestService) -> Value {
    let (status, reply) = service.request("POST", "/prune", "");
    assert_eq!(status, 200);
    reply
}

fn ids(service: &TestService, query: &str) -> Vec<String> {
    let page = service.get(&format!("/events?{query}")).1;
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_limit_holds_for_the_topics_that_it_is_for() {
    let service = service(&[
        ("retention_days", "audit.*=all, debug.*=1, 3"),
        ("retention_events_max", "audit.*=2"),
        // A digit of an id, a source and a payload: three bytes each.
        ("retention_bytes_max", "small=9"),
    ]);
    for (day, topic) in (0..6).flat_map(|day| ["audit.a", "debug.x", "other"].map(|t| (day, t))) {
        service.now.set(NOW + day as i64 * DAY_MS);
        publish(&service, topic, day..day + 1);
    }
    publish(&service, "small", 0..5);
    service.now.set(NOW + 5 * DAY_MS + 1);
    let done = prune(&service);
    let expected = json!({"pruned": 4 + 5 + 3 + 2, "bytes": 14 * 3, "identities_forgotten": 0,
        "complete": true});
    assert_eq!(done, expected);
    assert_eq!(ids(&service, "topic=audit.a"), ["4", "5"]);
    assert_eq!(ids(&service, "topic=debug.x"), ["5"]);
    assert_eq!(ids(&service, "topic=other"), ["3", "4", "5"]);
    assert_eq!(ids(&service, "topic=small"), ["2", "3", "4"]);
    service.now.set(service.now.get() + PASS_INTERVAL_MS);
    assert_eq!(prune(&service)["pruned"], 0);
    // All of it is a duplicate, and counted as pruned.
    for topic in ["audit.a", "debug.x", "other"] {
        assert_eq!(publish(&service, topic, 0..6)["duplicates"], 6, "{topic}");
    }
    let stats = service.get("/stats").1;
    assert_eq!(
        (&stats["pruned"], &stats["by_topic"]["debug.x"]["pruned"]),
        (&json!(14), &json!(5))
    );
    let metrics = service.get("/metrics").1;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("sekali_events_pruned_total{topic=\"small\"} 2\n"), "{metrics}");
}

#[test]
fn one_instance_prunes_once_a_minute() {
    let first = service(&[("retention_events_max", "2")]);
    let second = TestService::over(first.platform());
    publish(&first, "t", 0..5);
    assert!(first.app().pruner.may_be_due());
    let pass = now(first.app().pruner.pass_if_due()).unwrap().unwrap();
    assert_eq!((pass.events, pass.is_complete), (3, true));
    publish(&first, "t", 5..9);
    assert!(!first.app().pruner.may_be_due() && second.app().pruner.may_be_due());
    assert_eq!(now(second.app().pruner.pass_if_due()), Ok(None));
    assert!(!second.app().pruner.may_be_due());
    assert_eq!(ids(&first, "").len(), 6);
    first.now.set(first.now.get() + PASS_INTERVAL_MS);
    assert!(second.app().pruner.may_be_due());
    assert_eq!(now(second.app().pruner.pass_if_due()).unwrap().unwrap().events, 4);
    assert_eq!(ids(&first, ""), ["7", "8"]);
    // On demand at any time, but there is one at a time, until it is taken for dead.
    publish(&first, "t", 9..10);
    assert_eq!(prune(&second)["pruned"], 1);
    assert!(now(first.app().pruner.claim()).unwrap().is_some());
    assert_eq!(second.request("POST", "/prune", "").0, 503);
    first.now.set(first.now.get() + PASS_GIVEN_UP_MS);
    assert_eq!(prune(&second)["pruned"], 0);
}

#[test]
fn without_limits_nothing_is_asked_or_pruned() {
    let service = TestService::new();
    publish(&service, "t", 0..3);
    assert!(!service.app().pruner.may_be_due());
    assert_eq!(prune(&service)["pruned"], 0);
    assert_eq!(ids(&service, "").len(), 3);
}

#[test]
fn a_pass_that_takes_long_is_gone_on_with() {
    let first = service(&[("retention_events_max", "10")]);
    let all = 10 * STEP_EVENTS_MAX;
    publish(&first, "t", 0..all as usize);
    // With the rest after it a step is twice as long.
    first.commits_take.set(Duration::from_millis(PASS_MS_MAX / 5));
    let pass = now(first.app().pruner.pass_if_due()).unwrap().unwrap();
    assert_eq!((pass.events, pass.is_complete), (3 * STEP_EVENTS_MAX, false));
    let second = TestService::over(first.platform());
    assert!(first.app().pruner.may_be_due() && second.app().pruner.may_be_due());
    first.commits_take.set(Duration::ZERO);
    let pass = now(second.app().pruner.pass_if_due()).unwrap().unwrap();
    assert_eq!((pass.events, pass.is_complete), (all - 10 - 3 * STEP_EVENTS_MAX, true));
    assert_eq!(ids(&first, "").len(), 10);
}

#[test]
fn a_pass_whose_claim_is_anothers_prunes_nothing_more() {
    let first = service(&[("retention_events_max", "10")]);
    let second = TestService::over(first.platform());
    publish(&first, "t", 0..30);
    let late = now(first.app().pruner.claim()).unwrap().unwrap();
    first.now.set(first.now.get() + PASS_GIVEN_UP_MS);
    let claimed = now(second.app().pruner.claim()).unwrap().unwrap();
    let pass = now(first.app().pruner.pass(late, Pace::OnDemand, None)).unwrap();
    assert_eq!((pass.events, pass.is_complete), (0, false));
    assert_eq!(second.request("POST", "/prune", "").0, 503, "its claim is its own still");
    let pass = now(second.app().pruner.pass(claimed, Pace::OnDemand, None)).unwrap();
    assert_eq!((pass.events, pass.is_complete), (20, true));
    assert_eq!(now(first.app().pruner.pass_if_due()), Ok(None), "the minute has its pass");
}

#[test]
fn a_step_whose_answer_was_lost_is_not_made_again() {
    let Some(database) = database() else { return };
    let platform = FakePlatform::new();
    let store =
        PostgresStore::new(platform.clone(), platform.clone(), platform.clone(), database.url());
    let store = RetryingStore::new(Rc::new(store), platform.clone(), Duration::from_secs(1));
    let pruner = Pruner::new(platform.clone(), store, Retention::default());
    let claimed = now(pruner.claim()).unwrap().unwrap();
    let group = TopicGroup::default();
    let step = Prune {
        claimed,
        group: &group,
        after: Cursor::START,
        up_to: Cursor::END,
        received_before: None,
        events_max: 1,
        bytes_enough: None,
    };
    assert!(now(pruner.step(step)).unwrap().is_some());
    let broken = PostgresError::Platform("connection closed".to_owned());
    platform.postgres.faults.borrow_mut().push_back(broken);
    assert_eq!(now(pruner.step(step)), Ok(None));
    assert!(platform.postgres.faults.borrow().is_empty());
}

#[test]
fn few_events_that_are_large_are_a_step() {
    let service = service(&[("retention_events_max", "1")]);
    let payload = "x".repeat(usize::try_from(STEP_BYTES_ENOUGH).unwrap() / 4);
    for id in 0..9 {
        let event = json!({"topic": "t", "event_id": id.to_string(), "timestamp":
            "2026-01-01T00:00:00Z", "source": "s", "payload": {"text": payload}});
        assert_eq!(service.request("POST", "/publish", &event.to_string()).0, 200);
    }
    service.statements.borrow_mut().clear();
    assert_eq!(prune(&service)["pruned"], 8);
    let is_step = |statement: &&String| statement.contains("incoming_pruning");
    assert_eq!(service.statements.borrow().iter().filter(is_step).count(), 2);
}

#[test]
fn the_more_is_due_the_faster_it_goes() {
    let interval = |due| Pace::BesideOthers.interval(due, 100).as_millis();
    assert_eq!([0, 1, 600_000].map(interval), [100; 3]);
    assert_eq!(interval(6_000_000), 10);
    assert_eq!(interval(i64::MAX), 0);
    assert_eq!(Pace::BesideOthers.interval(1, 1).as_millis(), 1, "of few that are large");
    assert_eq!(Pace::OnDemand.interval(1, 100), Duration::ZERO);
}

#[test]
fn a_store_that_fails_ends_a_pass_and_the_next_one_goes_on() {
    let service = service(&[("retention_events_max", "1")]);
    publish(&service, "t", 0..3);
    service.faults.replace(vec![crate::platform::fake::unavailable()]);
    assert!(now(service.app().pruner.pass_if_due()).is_err());
    service.now.set(service.now.get() + PASS_INTERVAL_MS);
    let pass = now(service.app().pruner.pass_if_due()).unwrap().unwrap();
    assert_eq!(pass.events, 2);
}

#[test]
fn identities_are_forgotten_when_that_is_asked_for() {
    let service = service(&[("retention_days", "1"), ("identity_retention_days", "3")]);
    publish(&service, "t", 0..4);
    service.now.set(NOW + 2 * DAY_MS);
    publish(&service, "t", 4..6);
    assert_eq!(prune(&service)["pruned"], 4);
    assert_eq!(publish(&service, "t", 0..4)["duplicates"], 4);
    service.now.set(NOW + 4 * DAY_MS);
    let done = prune(&service);
    assert_eq!((&done["pruned"], &done["identities_forgotten"]), (&json!(2), &json!(4)));
    let reply = publish(&service, "t", 0..6);
    assert_eq!((&reply["accepted"], &reply["duplicates"]), (&json!(4), &json!(2)));
}

#[test]
fn a_reader_is_told_what_it_misses() {
    let service = service(&[("retention_events_max", "t=3")]);
    publish(&service, "u", 0..1);
    publish(&service, "t", 0..6);
    for name in ["all", "u"] {
        let topics = if name == "u" { r#"{"topics":["u"]}"# } else { "{}" };
        assert_eq!(service.request("PUT", &format!("/subscriptions/{name}"), topics).0, 201);
    }
    let told = |path: &str| service.get(path).1["pruned_before"].clone();
    for path in ["/events", "/events?order=desc", "/subscriptions/all/events"] {
        assert_eq!(told(path), Value::Null, "{path}");
    }
    // Of the places 2 to 7 those up to 4 go.
    assert_eq!(prune(&service)["pruned"], 3);
    for (path, expected) in [
        ("/events", json!("4")),
        ("/events?after=1", json!("4")),
        ("/events?after=3&topic=t", json!("4")),
        ("/events?after=4", Value::Null),
        ("/events?topic=u", Value::Null),
        ("/events?limit=1", Value::Null),
        ("/events?order=desc", json!("4")),
        ("/events?order=desc&limit=3", Value::Null),
        ("/events?order=desc&limit=3&after=5", json!("4")),
        ("/events?contains=1", json!("4")),
        ("/events?contains=1&topic=u", Value::Null),
        ("/events?since=2030-01-01", Value::Null),
        ("/subscriptions/all/events", json!("4")),
        ("/subscriptions/u/events", Value::Null),
    ] {
        assert_eq!(told(path), expected, "{path}");
    }
    for accept in ["application/x-ndjson", "application/cloudevents-batch+json"] {
        let reply = service.send("GET", "/events", &[("accept", accept)], "").unwrap();
        assert_eq!(reply.headers["sekali-pruned-before"], "4", "{accept}");
    }
    let stream = |query: &str| service.stream(&format!("/events/stream?{query}")).part();
    let first = stream("");
    let begin = "retry: 1000\nid: 0\n\nevent: pruned\ndata: {\"pruned_before\":\"4\"}\n\nid: 1\n";
    assert!(first.starts_with(begin), "{first}");
    for query in ["after=4", "after=end", "topic=u"] {
        assert!(!stream(query).contains("pruned"), "{query}");
    }
    // What is acknowledged is not missed.
    let lag = |name: &str| service.get(&format!("/subscriptions/{name}")).1["lag"].clone();
    assert_eq!((lag("all"), lag("u")), (json!(4), json!(1)));
    service.request("POST", "/subscriptions/all/ack", r#"{"cursor":"4"}"#);
    assert_eq!((told("/subscriptions/all/events"), lag("all")), (Value::Null, json!(3)));
}
