use super::super::setup::{run_statement, statements};
use super::super::tests::{accepted, append, ready, store};
use super::super::*;
use super::*;
use crate::event::sample;
use crate::platform::fake::{FakePlatform, NOW, now};
use crate::store::conformance::TOPICS;
use crate::store::{Fault, Order, Start};

const SCHEMA_4: &str = include_str!("schema_4.sql");

const ALL: PageLimit = PageLimit { events_max: 1_000, bytes_max: 1_000_000 };

/// A store of version 4, created at 5.
fn version_4() -> Rc<FakePlatform> {
    let platform = FakePlatform::new();
    for statement in statements(SCHEMA_4) {
        run_statement(&*platform.database, statement, 5).unwrap();
    }
    platform.connection.execute_batch("PRAGMA user_version = 4").unwrap();
    platform
}

/// Stores an event as version 4 did.
fn deliver(platform: &FakePlatform, topic: &str, id: &str, received_at: i64) {
    let event = sample(topic, id, "1");
    let deliver = "INSERT INTO incoming_delivery (latest, received_at, seq_before, topic, event_id, \
        source, content, timestamp, payload) VALUES (?1, ?1, 0, ?2, ?3, 's', ?4, NULL, '1')";
    let row = (received_at, topic, id, event.content());
    platform.connection.execute(deliver, row).unwrap();
}

fn count(platform: &FakePlatform, query: &str) -> i64 {
    platform.connection.query_row(query, [], |row| row.get(0)).unwrap()
}

/// What is in a store after it was taken over is what is in one that was made so.
fn check_schema(platform: &FakePlatform) {
    let objects = |platform: &FakePlatform| -> Vec<(String, String, String)> {
        let query = "SELECT type, name, replace(coalesce(sql, ''), '\"', '') FROM sqlite_schema \
            WHERE name NOT IN ('topic_totals', 'service') ORDER BY name";
        let mut query = platform.connection.prepare(query).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        query.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    let new = FakePlatform::new();
    ready(&new);
    for (found, expected) in objects(platform).iter().zip(&objects(&new)) {
        assert_eq!(found, expected);
    }
    assert_eq!(objects(platform).len(), objects(&new).len());
    let columns = "SELECT group_concat(name || type || \"notnull\") \
        FROM pragma_table_info('topic_totals')";
    let columns = |platform: &FakePlatform| -> String {
        platform.connection.query_row(columns, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(columns(platform), columns(&new));
    assert_eq!(count(platform, "SELECT user_version FROM pragma_user_version"), SCHEMA_VERSION);
}

/// Contents and identities are copied in several steps each, and each instance that goes
/// on is another one.
#[test]
fn a_store_is_taken_over_in_steps_and_read_meanwhile() {
    const EVENTS: i64 = 3 * ROWS_MAX + 1;
    let platform = version_4();
    deliver(&platform, "t", "first", 10);
    let fill = format!(
        "INSERT INTO topic_totals VALUES (2, 'u', {EVENTS} - 2, 7, 1);
         WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {EVENTS} - 1)
         INSERT INTO event_log SELECT i, 2, 20, x'00', 'id ' || (i * 7919 % {EVENTS}), 's', NULL, '1'
         FROM n"
    );
    platform.connection.execute_batch(&fill).unwrap();
    deliver(&platform, "t", "last", 30);
    let subscribe = "INSERT INTO subscriptions VALUES ('all', '[]', 5, 5, 1, 1, NULL), \
        ('of t', '[\"t\"]', 5, 1, 1, 1, NULL)";
    platform.connection.execute_batch(subscribe).unwrap();

    platform.commits_take.set(Duration::from_millis(TAKE_OVER_MS_MAX));
    let event = sample("t", "first", "1");
    let newest = Filter { order: Order::Descending, ..Filter::default() };
    let mut told = Vec::new();
    loop {
        let store = store(&platform);
        let newest = now(store.page(&newest, PageLimit { events_max: 2, ..ALL })).unwrap();
        assert_eq!(newest[0].event_id, "last");
        let totals = now(store.totals(TOPICS)).unwrap();
        assert_eq!((totals.all.unique_processed, totals.all.pruned), (EVENTS, 0));
        let lags =
            now(store.subscriptions()).unwrap().iter().map(|one| one.lag).collect::<Vec<_>>();
        assert_eq!(lags, [EVENTS - 5, 1]);
        let between = now(store.received_between(Some(25), None)).unwrap();
        assert_eq!(between.0.unwrap().number(), EVENTS - 1);
        let encoded = store.encode(&[&event]).unwrap();
        let deliveries = Deliveries { encoded, events: 1, ..Deliveries::default() };
        match now(store.append(&[&deliveries], None)) {
            Ok(outcomes) => {
                assert_eq!(outcomes, [Outcome::Duplicate]);
                break;
            }
            Err(error) => {
                assert_eq!(error.fault, Fault::Busy, "{error}");
                assert!(error.message.contains("earlier version"), "{error}");
                let probe = now(store.try_commit()).unwrap_err();
                assert_eq!(probe.fault, Fault::Busy, "{probe}");
                told.push(error.message);
            }
        }
        assert!(told.len() < 20, "no end: {told:?}");
    }
    assert!(told.len() >= 8, "{told:?}");
    assert!(told[1].contains(&format!("{ROWS_MAX} of {EVENTS} events are copied")), "{told:?}");
    check_schema(&platform);
    assert_eq!(count(&platform, "SELECT count(*) FROM identity"), EVENTS);
    assert_eq!(count(&platform, "SELECT count(*) FROM event_log"), EVENTS);
    let bytes = "SELECT sum(octet_length(event_id) + 2) FROM event_log";
    let counted = "SELECT sum(content_bytes) FROM topic_totals";
    assert_eq!(count(&platform, counted), count(&platform, bytes));
    platform.commits_take.set(Duration::ZERO);
    let events = [sample("t", "last", "2"), sample("u", "new", "1")];
    assert_eq!(append(&ready(&platform), &events, 0), [Outcome::Conflict, accepted(EVENTS + 1)]);
}

/// One that is late finds it done, whatever it was about to do.
#[test]
fn an_instance_that_is_late_takes_nothing_away() {
    let platform = version_4();
    deliver(&platform, "t", "a", 10);
    let late = ready(&platform);
    append(&ready(&platform), &[sample("t", "b", "1")], 0);
    assert_eq!(begin(&*platform, NOW), Ok(true));
    assert_eq!(now(step(&*platform, &*platform.database, NOW)), Ok(Step::Done));
    let events = [sample("t", "a", "1"), sample("t", "b", "1"), sample("t", "c", "1")];
    let outcomes = append(&late, &events, 0);
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Duplicate, accepted(3)]);
    assert_eq!(count(&platform, "SELECT count(*) FROM event_log"), 3);
    check_schema(&platform);
}

#[test]
fn a_store_without_events_and_one_without_a_version_are_taken_over() {
    for version in [0, 4] {
        for events in [0, 2] {
            let platform = version_4();
            for id in 0..events {
                deliver(&platform, "t", &id.to_string(), 10);
            }
            platform.connection.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
            now(ready(&platform).head()).unwrap();
            assert_eq!(
                append(&ready(&platform), &[sample("t", "new", "1")], 0),
                [accepted(events + 1)]
            );
            check_schema(&platform);
            let end = Definition { name: "x", topics: &[], start: Start::End };
            let defined = now(ready(&platform).define_subscription(end, 9)).unwrap().unwrap();
            assert_eq!(defined.lag, 0);
        }
    }
}

/// What version 3 had instead of the views and triggers of version 4.
const BACK_TO_VERSION_3: &str = "
    DROP VIEW incoming_delivery;
    DROP VIEW incoming_group;
    DROP VIEW incoming_counted_group;
    CREATE VIEW incoming_commit AS
      SELECT '' AS batch, 0 AS received_at, 0 AS rejected, 0 AS seq_before WHERE false;
    CREATE VIEW incoming_counted_commit AS
      SELECT '' AS batch, 0 AS received_at, 0 AS rejected, '' AS counts, 0 AS seq_before WHERE false;
    CREATE VIEW incoming_event AS
      SELECT 0 AS received_at, '' AS topic, '' AS event_id, '' AS source, x'' AS content,
             '' AS timestamp, '' AS payload
      WHERE false;
    CREATE TRIGGER take_commit INSTEAD OF INSERT ON incoming_commit
    BEGIN
      INSERT INTO incoming_event
        (received_at, topic, event_id, source, content, timestamp, payload)
      SELECT NEW.received_at, value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3),
             value ->> 4, value ->> 5
      FROM json_each(NEW.batch);
      UPDATE service SET rejected = rejected + NEW.rejected WHERE NEW.rejected > 0;
    END;
    CREATE TRIGGER take_counted_commit INSTEAD OF INSERT ON incoming_counted_commit
    BEGIN
      INSERT INTO counters (name, value) SELECT key, value FROM json_each(NEW.counts) WHERE true
      ON CONFLICT (name) DO UPDATE SET value = value + excluded.value;
      INSERT INTO incoming_commit (batch, received_at, rejected, seq_before)
      VALUES (NEW.batch, NEW.received_at, NEW.rejected, NEW.seq_before);
    END;
    CREATE TRIGGER take_event INSTEAD OF INSERT ON incoming_event
    BEGIN
      INSERT INTO topic_totals (topic, unique_processed, duplicate_dropped, conflicts)
      VALUES (NEW.topic, 0, 0, 0)
      ON CONFLICT (topic) DO NOTHING;
      INSERT INTO event_log (topic_id, received_at, content, event_id, source, timestamp, payload)
      VALUES (
        (SELECT id FROM topic_totals WHERE topic = NEW.topic),
        NEW.received_at, NEW.content, NEW.event_id, NEW.source, NEW.timestamp, NEW.payload
      )
      ON CONFLICT (topic_id, event_id) DO NOTHING;
      UPDATE topic_totals SET
        unique_processed  = unique_processed  + changes(),
        duplicate_dropped = duplicate_dropped + (changes() = 0)
      WHERE topic = NEW.topic;
    END;
    PRAGMA user_version = 3";

#[test]
fn a_store_of_version_3_is_taken_over() {
    // As version 3 wrote it.
    const COMMIT: &str = "
        INSERT INTO incoming_counted_commit (batch, received_at, rejected, counts, seq_before)
        SELECT json_array(json_array('t', 'a', 's', hex(?1), NULL, '1')), 10, 2,
          json_object('rejected/topic', 2), 0";
    let platform = version_4();
    platform.connection.execute_batch(BACK_TO_VERSION_3).unwrap();
    platform.connection.execute(COMMIT, [sample("t", "a", "1").content()]).unwrap();
    let events = [sample("t", "a", "1"), sample("t", "b", "1"), sample("t", "a", "2")];
    let outcomes = append(&ready(&platform), &events, 1);
    assert_eq!(outcomes, [Outcome::Duplicate, accepted(2), Outcome::Conflict]);
    assert_eq!(append(&ready(&platform), &events[..1], 0), [Outcome::Duplicate]);
    let measures = now(ready(&platform).measures(9)).unwrap();
    assert_eq!((measures.rejected, measures.counted["rejected/topic"]), (3, 3));
    let stored = now(ready(&platform).page(&Filter::default(), ALL)).unwrap();
    assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), [10, NOW]);
    check_schema(&platform);
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
    let platform = version_4();
    deliver(&platform, "t", "a", 10);
    platform.connection.execute_batch(BACK_TO_VERSION_3).unwrap();
    platform.connection.execute_batch(BACK_TO_VERSION_2).unwrap();
    assert_eq!(now(ready(&platform).subscriptions()), Ok(Vec::new()));
    let outcomes = append(&ready(&platform), &[sample("t", "a", "1"), sample("t", "b", "1")], 1);
    assert_eq!(outcomes, [Outcome::Duplicate, accepted(2)]);
    let measures = now(ready(&platform).measures(9)).unwrap();
    assert_eq!((measures.rejected, measures.counted["rejected/topic"]), (1, 1));
    check_schema(&platform);
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
    // What a migration of version 4 that was cut off left: nothing of it, some of its
    // tables, or all but the end.
    for done in 0..3 {
        let platform = FakePlatform::new();
        platform.connection.execute_batch(VERSION_1).unwrap();
        for (seq, id) in [(1, "a"), (2, "b")] {
            let content = sample("t", id, "1").content().to_vec();
            let row = (seq, seq * 10, content, id);
            let insert = "INSERT INTO events VALUES (?1, ?2, ?3, 't', ?4, 's', NULL, '1')";
            platform.connection.execute(insert, row).unwrap();
        }
        let tables = statements(SCHEMA_4).take(if done > 0 { 99 } else { 0 });
        let copied = statements(SCHEMA_FROM_1).take(if done > 1 { 99 } else { 0 });
        for statement in tables.chain(copied) {
            run_statement(&*platform.database, statement, 1).unwrap();
        }
        let stored = now(ready(&platform).page(&Filter::default(), ALL)).unwrap();
        assert_eq!(stored.len(), 2, "{done}");
        assert_eq!(
            append(
                &ready(&platform),
                &[sample("t", "b", "1"), sample("t", "a", "2"), sample("u", "a", "1")],
                1
            ),
            [Outcome::Duplicate, Outcome::Conflict, accepted(3)],
            "cut off at {done}"
        );
        let totals = now(ready(&platform).totals(TOPICS)).unwrap();
        assert_eq!((totals.created_at, totals.rejected), (5, 8));
        let topic = &totals.topics[0].counters;
        assert_eq!((topic.unique_processed, topic.duplicate_dropped, topic.conflicts), (2, 5, 2));
        let stored = now(ready(&platform).page(&Filter::default(), ALL)).unwrap();
        assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), [10, 20, NOW]);
        check_schema(&platform);
        assert_eq!(count(&platform, "SELECT count(*) FROM events WHERE topic = 't'"), 2);
    }
}
