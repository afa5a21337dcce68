use serde_json::value::RawValue;

use super::setup::{SCHEMA, SCHEMA_FROM_1, SCHEMA_FROM_2, run_statement, statements};
use super::*;
use crate::platform::Fault;
use crate::platform::fake::{Desk, NOW, now};

fn event(topic: &str, event_id: &str, payload: &str) -> Event {
    let (topic, event_id) = (serde_json::json!(topic), serde_json::json!(event_id));
    let json =
        format!(r#"{{"topic":{topic},"event_id":{event_id},"source":"s","payload":{payload}}}"#);
    Event::parse(&RawValue::from_string(json).unwrap()).unwrap()
}

fn ready(desk: &Desk) {
    now(ensure_ready(desk, NOW)).unwrap();
}

fn append_now(desk: &Desk, events: &[Event], rejected: usize) -> Vec<Outcome> {
    let deliveries = Deliveries::new(events, vec!["topic"; rejected]).unwrap();
    now(append(desk, desk.now.get(), &[&deliveries], None)).unwrap()
}

#[test]
fn every_outcome_comes_from_the_one_statement() {
    let desk = Desk::new();
    ready(&desk);
    let statements = desk.statements.borrow().len();
    let outcomes = append_now(
        &desk,
        &[
            event("t", "a", "1"),
            event("t", "b", "1"),
            event("t", "a", "1"),
            event("t", "a", "2"),
            event("u", "a", "1"),
        ],
        3,
    );
    assert_eq!(
        outcomes,
        [
            Outcome::Accepted { seq: 1 },
            Outcome::Accepted { seq: 2 },
            Outcome::Duplicate,
            Outcome::Conflict,
            Outcome::Accepted { seq: 3 },
        ]
    );
    assert_eq!(append_now(&desk, &[event("t", "a", "2")], 1), [Outcome::Conflict]);
    assert_eq!(append_now(&desk, &[event("t", "c", "2")], 0), [Outcome::Accepted { seq: 4 }]);
    assert_eq!(append_now(&desk, &[], 2), []);
    assert_eq!(desk.statements.borrow().len(), statements + 4);
    let totals = now(totals(&desk)).unwrap();
    assert_eq!(totals.rejected, 6);
    assert_eq!(totals.created_at, NOW);
    let topic = |topic: &str, unique_processed, duplicate_dropped, conflicts| TopicTotals {
        topic: topic.to_owned(),
        unique_processed,
        duplicate_dropped,
        conflicts,
    };
    assert_eq!(totals.topics, [topic("t", 3, 3, 2), topic("u", 1, 0, 0)]);
}

#[test]
fn an_instance_that_finds_the_schema_writes_nothing() {
    let mut desk = Desk::new();
    ready(&desk);
    let before = desk.connection.total_changes();
    desk.forget_instance();
    desk.statements.borrow_mut().clear();
    ready(&desk);
    assert_eq!(desk.connection.total_changes(), before);
    desk.statements.borrow_mut().clear();
    ready(&desk);
    assert!(desk.statements.borrow().is_empty());
}

#[test]
fn a_schema_that_was_left_half_way_is_finished() {
    for done in 0..statements(SCHEMA).count() {
        let desk = Desk::new();
        for statement in statements(SCHEMA).take(done) {
            now(run_statement(&desk, statement, 1)).unwrap();
        }
        ready(&desk);
        assert_eq!(append_now(&desk, &[event("t", "a", "1")], 0).len(), 1);
    }
}

#[test]
fn a_store_of_version_1_is_taken_over() {
    const VERSION_1: &str = "
        CREATE TABLE events (seq INTEGER PRIMARY KEY, received_at INTEGER NOT NULL,
          content BLOB NOT NULL, topic TEXT NOT NULL, event_id TEXT NOT NULL, source TEXT NOT NULL,
          timestamp TEXT, payload TEXT NOT NULL, UNIQUE (topic, event_id)) STRICT;
        CREATE INDEX events_by_topic ON events (topic);
        CREATE TABLE topics (topic TEXT PRIMARY KEY, unique_processed INTEGER NOT NULL,
          duplicate_dropped INTEGER NOT NULL, conflicts INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE service (id INTEGER PRIMARY KEY CHECK (id = 1), created_at INTEGER NOT NULL,
          rejected INTEGER NOT NULL) STRICT;
        INSERT INTO service VALUES (1, 5, 7);
        CREATE TABLE verdict (id INTEGER PRIMARY KEY, place, outcome, seq);
        CREATE VIEW deliveries AS SELECT 0 AS place FROM events WHERE false;
        INSERT INTO topics VALUES ('t', 2, 3, 1);
        PRAGMA user_version = 1";
    // What a migration that was cut off after so many of its statements left.
    for done in 0..statements(SCHEMA).chain(statements(SCHEMA_FROM_1)).count() {
        let desk = Desk::new();
        desk.connection.execute_batch(VERSION_1).unwrap();
        for (seq, id) in [(1, "a"), (2, "b")] {
            let content = event("t", id, "1").content.to_vec();
            let row = (seq, seq * 10, content, id);
            let insert = "INSERT INTO events VALUES (?1, ?2, ?3, 't', ?4, 's', NULL, '1')";
            desk.connection.execute(insert, row).unwrap();
        }
        for statement in statements(SCHEMA).chain(statements(SCHEMA_FROM_1)).take(done) {
            now(run_statement(&desk, statement, 1)).unwrap();
        }
        ready(&desk);
        assert_eq!(
            append_now(
                &desk,
                &[event("t", "b", "1"), event("t", "a", "2"), event("u", "a", "1")],
                1
            ),
            [Outcome::Duplicate, Outcome::Conflict, Outcome::Accepted { seq: 3 }],
            "cut off after {done}"
        );
        let totals = now(totals(&desk)).unwrap();
        assert_eq!((totals.created_at, totals.rejected), (5, 8));
        let topic = &totals.topics[0];
        assert_eq!((topic.unique_processed, topic.duplicate_dropped, topic.conflicts), (2, 5, 2));
        let stored = now(page(&desk, &Filter::default(), 9, 1000)).unwrap();
        assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), [10, 20, NOW]);
        let left =
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('topics', 'verdict', 'deliveries')";
        let count = |query: &str| desk.connection.query_row(query, [], |row| row.get::<_, i64>(0));
        assert_eq!(count(left).unwrap(), 0);
        assert_eq!(count("SELECT count(*) FROM events WHERE topic = 't'").unwrap(), 2);
    }
}

#[test]
fn a_store_of_version_2_is_taken_over() {
    const BACK_TO_VERSION_2: &str = "
        DROP TABLE counters;
        DROP TABLE subscriptions;
        DROP VIEW incoming_commit;
        DROP VIEW incoming_counted_commit;
        CREATE VIEW incoming_batch AS
          SELECT '' AS batch, 0 AS received_at, 0 AS rejected, 0 AS seq_before WHERE false;
        CREATE TRIGGER take_batch INSTEAD OF INSERT ON incoming_batch
        BEGIN
          UPDATE service SET rejected = rejected + NEW.rejected WHERE NEW.rejected > 0;
        END;
        PRAGMA user_version = 2";
    for done in 0..=statements(SCHEMA).chain(statements(SCHEMA_FROM_2)).count() {
        let mut desk = Desk::new();
        ready(&desk);
        append_now(&desk, &[event("t", "a", "1")], 2);
        desk.connection.execute_batch(BACK_TO_VERSION_2).unwrap();
        desk.forget_instance();
        for statement in statements(SCHEMA).chain(statements(SCHEMA_FROM_2)).take(done) {
            now(run_statement(&desk, statement, 1)).unwrap();
        }
        ready(&desk);
        let outcomes = append_now(&desk, &[event("t", "a", "1"), event("t", "b", "1")], 1);
        assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Accepted { seq: 2 }]);
        let measures = now(measures(&desk, 9)).unwrap();
        assert_eq!((measures.rejected, measures.counts["rejected/topic"]), (3, 1));
        let left =
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('take_batch', 'incoming_batch')";
        let left = desk.connection.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left, 0, "cut off after {done}");
    }
}

#[test]
fn a_schema_of_another_version_is_left_alone() {
    let desk = Desk::new();
    now(desk.execute("PRAGMA user_version = 4", Vec::new())).unwrap();
    let error = now(ensure_ready(&desk, NOW)).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
    assert!(error.message.contains("version 4"), "{error}");
}

#[test]
fn pages_hold_what_the_filter_says() {
    let desk = Desk::new();
    ready(&desk);
    for index in 0..20 {
        let topic = if index % 2 == 0 { "even" } else { "odd" };
        append_now(&desk, &[event(topic, &index.to_string(), "\"12345678\"")], 0);
    }
    let seqs = |filter: Filter, events_max, bytes_max| {
        let page = now(page(&desk, &filter, events_max, bytes_max)).unwrap();
        page.into_iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    let all = Filter::default;
    assert_eq!(seqs(all(), 3, 1000), [1, 2, 3]);
    assert_eq!(seqs(Filter { above: Some(18), ..all() }, 9, 1000), [19, 20]);
    assert_eq!(seqs(Filter { descending: true, ..all() }, 2, 1000), [20, 19]);
    let odd = Filter { topics: vec!["odd".to_owned()], ..all() };
    assert_eq!(seqs(odd.clone(), 3, 1000), [2, 4, 6]);
    assert_eq!(seqs(Filter { below: Some(6), descending: true, ..odd }, 9, 1000), [4, 2]);
    assert_eq!(seqs(Filter { source: Some("x".to_owned()), ..all() }, 9, 1000), [0; 0]);
    // Twelve bytes each: a page ends once they reach the limit, and is never empty.
    assert_eq!(seqs(all(), 9, 30), [1, 2, 3]);
    assert_eq!(seqs(all(), 9, 1), [1]);
}

#[test]
fn time_of_receipt_never_decreases_and_is_found_by_halves() {
    let desk = Desk::new();
    ready(&desk);
    assert_eq!(now(first_seq_since(&desk, 0)).unwrap(), 1);
    for (index, received_at) in [10, 20, 20, 15, 30].into_iter().enumerate() {
        desk.now.set(received_at);
        append_now(&desk, &[event("t", &index.to_string(), "1")], 0);
    }
    let stored = now(page(&desk, &Filter::default(), 9, 1000)).unwrap();
    let times: Vec<i64> = stored.iter().map(|event| event.received_at).collect();
    assert_eq!(times, [10, 20, 20, 20, 30]);
    for (moment, seq) in [(0, 1), (10, 1), (11, 2), (20, 2), (21, 5), (30, 5), (31, 6)] {
        assert_eq!(now(first_seq_since(&desk, moment)).unwrap(), seq, "{moment}");
    }
}

#[test]
fn text_comes_back_as_it_was_given() {
    let desk = Desk::new();
    ready(&desk);
    for (index, payload) in [
        r#"{"n":1.2300e+400,"m":-0,"big":123456789012345678901234567890}"#,
        r#""\u0000 \" \\ \/ 😀 \ud83d\ude00 ''; DROP TABLE events; --""#,
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("'; -- {index} \u{202e}");
        append_now(&desk, &[event(&topic, "😀", payload)], 0);
        let filter = Filter { topics: vec![topic.clone()], ..Filter::default() };
        let stored = now(page(&desk, &filter, 9, 1000)).unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].payload, payload);
        assert_eq!(stored[0].topic, topic);
        assert_eq!(stored[0].event_id, "😀");
        assert_eq!(stored[0].timestamp, None);
    }
}
