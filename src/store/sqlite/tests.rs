use std::rc::Rc;

use super::setup::{
    SCHEMA, SCHEMA_FROM_1, SCHEMA_FROM_2, SCHEMA_FROM_3, run_statement, statements,
};
use super::*;
use crate::event::sample;
use crate::platform::fake::{FakePlatform, NOW, busy, now, unavailable};
use crate::platform::sqlite::SqliteError;
use crate::store::conformance::{Fixture, TOPICS, conformance};
use crate::store::{Fault, Seq};

struct Sqlite(Rc<FakePlatform>);

impl Fixture for Sqlite {
    fn empty() -> Self {
        Sqlite(FakePlatform::new())
    }

    fn instance(&self) -> Rc<dyn Store> {
        Rc::new(store(&self.0))
    }

    fn set_now(&self, now: UnixMillis) {
        self.0.now.set(now);
    }
}

conformance!(Sqlite);

fn store(platform: &Rc<FakePlatform>) -> SqliteStore {
    SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
}

/// The store of one more instance, made ready.
fn ready(platform: &Rc<FakePlatform>) -> SqliteStore {
    let store = store(platform);
    now(store.probe()).unwrap();
    store
}

fn append(store: &SqliteStore, events: &[Event], rejected: usize) -> Vec<Outcome> {
    let events: Vec<&Event> = events.iter().collect();
    let encoded = store.encode(&events).unwrap();
    let rejected =
        [("topic".to_owned(), rejected as i64)].into_iter().filter(|(_, count)| *count > 0);
    let rejected = rejected.collect();
    let deliveries =
        Deliveries { encoded, events: events.len(), rejected, ..Deliveries::default() };
    now(store.append(&[&deliveries], None)).unwrap()
}

fn accepted(seq: i64) -> Outcome {
    Outcome::Accepted { seq: Seq::new(seq) }
}

#[test]
fn a_commit_is_one_statement_and_its_places_are_dense() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    platform.statements.borrow_mut().clear();
    let outcomes = append(&store, &[sample("t", "a", "1"), sample("t", "a", "2")], 3);
    assert_eq!(outcomes, [accepted(1), Outcome::Conflict]);
    assert_eq!(append(&store, &[sample("t", "b", "1")], 0), [accepted(2)]);
    assert_eq!(append(&store, &[], 2), []);
    assert_eq!(platform.statements.borrow().len(), 3);
}

/// The first of its two events is one that could be stored, beside others.
#[test]
fn a_commit_that_is_undone_changes_what_others_change() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    append(&store, &[sample("t", "a", "1")], 0);
    now(store.try_commit()).unwrap();
    let Statement { sql, parameters } = event_log::undone(NOW);
    let first = sql.replace(",\"1\":null", "");
    assert_ne!(first, sql);
    platform.database.query(&first, parameters.clone()).unwrap();
    let stored = "SELECT topic || ' ' || event_id || ' ' || source FROM events WHERE seq = 2";
    let stored: String = platform.connection.query_row(stored, [], |row| row.get(0)).unwrap();
    let [crate::platform::sqlite::Value::Text(event_id)] = &parameters[..] else { panic!() };
    assert_eq!(stored, format!("t {event_id} s"));
}

#[test]
fn the_longest_fields_have_their_place() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    let longest = |last: char| {
        let mut name: String = "\u{1d11e}".repeat(crate::event::NAME_CHARS_MAX - 1);
        name.push(last);
        name
    };
    let payload = format!("\"{}\"", "é".repeat(100_000));
    let events: Vec<Event> = ["a", "\u{1d11e}", "é"]
        .iter()
        .map(|last| longest(last.chars().next().unwrap()))
        .map(|name| sample(&name, &name, &payload))
        .collect();
    assert_eq!(append(&store, &events, 0), [accepted(1), accepted(2), accepted(3)]);
    for event in &events {
        assert_eq!(append(&store, std::slice::from_ref(event), 0), [Outcome::Duplicate]);
    }
    assert_eq!(append(&store, &events, 0), [Outcome::Duplicate; 3]);
    let page = PageLimit { events_max: 9, bytes_max: 9_000_000 };
    let stored = now(store.page(&Filter::default(), page)).unwrap();
    for (stored, event) in stored.iter().zip(&events) {
        assert_eq!(stored.event_id, event.event_id().as_str());
        assert_eq!(stored.topic, event.topic().as_str());
        assert_eq!(stored.payload, payload);
    }
}

/// A connection prepares a text that it has seen no second time.
#[test]
fn the_text_of_a_commit_is_constant() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    let mut texts = Vec::new();
    let mut id = 0;
    let mut commit = |events: usize, rejected: usize| {
        let events: Vec<Event> = (0..events)
            .map(|_| {
                id += 1;
                sample(&format!("t{}", id % 3), &id.to_string(), "1")
            })
            .collect();
        platform.statements.borrow_mut().clear();
        append(&store, &events, rejected);
        texts.extend(platform.statements.take());
    };
    for (events, rejected) in [(1, 0), (1, 0), (2, 0), (7, 0), (1_000, 0), (1, 1), (9, 2)] {
        commit(events, rejected);
    }
    assert_eq!(texts.len(), 7);
    texts.sort_unstable();
    texts.dedup();
    let known = "one event; any number; with counters; and with the pages of the log";
    assert_eq!(texts.len(), 4, "{known}: {texts:?}");
}

#[test]
fn a_connection_that_may_be_at_fault_is_given_up() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    for (fault, kept) in [(busy(), true), (unavailable(), false), (SqliteError::Full, false)] {
        platform.statements.borrow_mut().clear();
        platform.faults.replace(vec![fault.clone()]);
        assert!(now(store.head()).is_err());
        assert_eq!(now(store.head()), Ok(Cursor::START));
        let ran = platform.statements.borrow().len();
        assert_eq!(ran == 2, kept, "{ran} statements after {fault:?}: a new one is made ready");
    }
}

/// What is at the path of the database.
struct AtPath(RefCell<Rc<FakePlatform>>);

impl crate::platform::sqlite::Sqlite for AtPath {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        self.0.borrow().open()
    }
}

/// On a platform that does not tell.
#[test]
fn a_database_that_is_not_the_one_that_others_find_is_given_up() {
    let platform = FakePlatform::new();
    let at_path = Rc::new(AtPath(RefCell::new(platform.clone())));
    let store = SqliteStore::new(at_path.clone(), platform.clone(), platform.clone());
    append(&store, &[sample("t", "a", "1")], 0);
    let deliveries = Deliveries {
        encoded: store.encode(&[&sample("t", "b", "1")]).unwrap(),
        events: 1,
        ..Deliveries::default()
    };
    let empty = |_: &Rc<FakePlatform>| {};
    let of_another_time = |found: &Rc<FakePlatform>| {
        append(&ready_at(found, NOW + 1), &[sample("t", "a", "1")], 0);
    };
    let restored = |found: &Rc<FakePlatform>| drop(ready_at(found, NOW));
    let long = Duration::from_millis(same_file::LOOK_INTERVAL_MS);
    type Case<'a> = (&'a str, &'a dyn Fn(&Rc<FakePlatform>));
    let cases: [Case<'_>; 3] =
        [("empty", &empty), ("a backup", &restored), ("of another time", &of_another_time)];
    for (what, prepare) in cases {
        let found = FakePlatform::new();
        prepare(&found);
        at_path.0.replace(found.clone());
        // Not long after it was opened it is not looked at.
        now(store.append(&[&deliveries], None)).unwrap();
        platform.advance(long);
        let error = now(store.append(&[&deliveries], None)).unwrap_err();
        assert_eq!(error.fault, Fault::Unavailable, "{what}: {error}");
        assert!(error.message.contains("deleted, moved or replaced"), "{what}: {error}");
        // The next one is in the database that is there.
        let outcomes = now(store.append(&[&deliveries], None)).unwrap();
        assert!(matches!(outcomes[..], [Outcome::Accepted { .. }]), "{what}");
        let stored = "SELECT count(*) FROM event_log WHERE event_id = 'b'";
        let count: i64 = found.connection.query_row(stored, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1, "{what}");
    }
    // And one that is the same is kept, whatever others have stored meanwhile.
    let found = at_path.0.borrow().clone();
    append(&self::store(&found), &[sample("t", "c", "1")], 0);
    platform.advance(long);
    assert_eq!(now(store.append(&[&deliveries], None)).unwrap(), [Outcome::Duplicate]);
}

/// A store that was created at `moment`.
fn ready_at(platform: &Rc<FakePlatform>, moment: UnixMillis) -> SqliteStore {
    platform.now.set(moment);
    ready(platform)
}

#[test]
fn words_tell_the_fault() {
    for (error, expected) in [
        (SqliteError::Sqlite("database is locked".to_owned()), Fault::Busy),
        (SqliteError::Sqlite("database table is locked: x".to_owned()), Fault::Busy),
        (SqliteError::Sqlite("database or disk is full".to_owned()), Fault::Full),
        (SqliteError::Full, Fault::Full),
        (SqliteError::Sqlite("disk I/O error".to_owned()), Fault::Unavailable),
        (SqliteError::Platform("access denied".to_owned()), Fault::Unavailable),
    ] {
        assert_eq!(fault::store_error(error.clone()).fault, expected, "{error:?}");
    }
}

#[test]
fn an_instance_that_finds_the_schema_writes_nothing() {
    let platform = FakePlatform::new();
    ready(&platform);
    let before = platform.connection.total_changes();
    let store = ready(&platform);
    assert_eq!(platform.connection.total_changes(), before);
    platform.statements.borrow_mut().clear();
    now(store.probe()).unwrap();
    assert_eq!(platform.statements.borrow().len(), 1, "it is made ready once");
}

#[test]
fn a_schema_that_was_left_half_way_is_finished() {
    for done in 0..statements(SCHEMA).count() {
        let platform = FakePlatform::new();
        for statement in statements(SCHEMA).take(done) {
            run_statement(&*platform.database, statement, 1).unwrap();
        }
        assert_eq!(append(&ready(&platform), &[sample("t", "a", "1")], 0).len(), 1);
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
        let platform = FakePlatform::new();
        platform.connection.execute_batch(VERSION_1).unwrap();
        for (seq, id) in [(1, "a"), (2, "b")] {
            let content = sample("t", id, "1").content().to_vec();
            let row = (seq, seq * 10, content, id);
            let insert = "INSERT INTO events VALUES (?1, ?2, ?3, 't', ?4, 's', NULL, '1')";
            platform.connection.execute(insert, row).unwrap();
        }
        for statement in statements(SCHEMA).chain(statements(SCHEMA_FROM_1)).take(done) {
            run_statement(&*platform.database, statement, 1).unwrap();
        }
        assert_eq!(
            append(
                &ready(&platform),
                &[sample("t", "b", "1"), sample("t", "a", "2"), sample("u", "a", "1")],
                1
            ),
            [Outcome::Duplicate, Outcome::Conflict, accepted(3)],
            "cut off after {done}"
        );
        let totals = now(ready(&platform).totals(TOPICS)).unwrap();
        assert_eq!((totals.created_at, totals.rejected), (5, 8));
        let topic = &totals.topics[0].counters;
        assert_eq!((topic.unique_processed, topic.duplicate_dropped, topic.conflicts), (2, 5, 2));
        let stored =
            now(ready(&platform)
                .page(&Filter::default(), PageLimit { events_max: 9, bytes_max: 1000 }))
            .unwrap();
        assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), [10, 20, NOW]);
        let left =
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('topics', 'verdict', 'deliveries')";
        let count =
            |query: &str| platform.connection.query_row(query, [], |row| row.get::<_, i64>(0));
        assert_eq!(count(left).unwrap(), 0);
        assert_eq!(count("SELECT count(*) FROM events WHERE topic = 't'").unwrap(), 2);
    }
}

/// What version 3 had instead of the views and triggers of today.
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
    let way = || [SCHEMA, SCHEMA_FROM_3].into_iter().flat_map(statements);
    for done in 0..=way().count() {
        let platform = FakePlatform::new();
        ready(&platform);
        platform.connection.execute_batch(BACK_TO_VERSION_3).unwrap();
        platform.connection.execute(COMMIT, [sample("t", "a", "1").content()]).unwrap();
        for statement in way().take(done) {
            run_statement(&*platform.database, statement, 1).unwrap();
        }
        let events = [sample("t", "a", "1"), sample("t", "b", "1"), sample("t", "a", "2")];
        assert_eq!(
            append(&ready(&platform), &events, 1),
            [Outcome::Duplicate, accepted(2), Outcome::Conflict],
            "cut off after {done}"
        );
        assert_eq!(append(&ready(&platform), &events[..1], 0), [Outcome::Duplicate]);
        let measures = now(ready(&platform).measures(9)).unwrap();
        assert_eq!((measures.rejected, measures.counted["rejected/topic"]), (3, 3));
        let page = PageLimit { events_max: 9, bytes_max: 1000 };
        let stored = now(ready(&platform).page(&Filter::default(), page)).unwrap();
        assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), [10, NOW]);
        let left = "SELECT count(*) FROM sqlite_schema WHERE name IN ('incoming_commit', \
            'incoming_counted_commit', 'incoming_event', 'take_commit', 'take_counted_commit', \
            'take_event')";
        let left = platform.connection.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left, 0, "cut off after {done}");
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
    let way = || [SCHEMA, SCHEMA_FROM_2, SCHEMA_FROM_3].into_iter().flat_map(statements);
    for done in 0..=way().count() {
        let platform = FakePlatform::new();
        ready(&platform);
        append(&ready(&platform), &[sample("t", "a", "1")], 2);
        platform.connection.execute_batch(BACK_TO_VERSION_3).unwrap();
        platform.connection.execute_batch(BACK_TO_VERSION_2).unwrap();
        for statement in way().take(done) {
            run_statement(&*platform.database, statement, 1).unwrap();
        }
        ready(&platform);
        let outcomes =
            append(&ready(&platform), &[sample("t", "a", "1"), sample("t", "b", "1")], 1);
        assert_eq!(outcomes, [Outcome::Duplicate, accepted(2)]);
        let measures = now(ready(&platform).measures(9)).unwrap();
        assert_eq!((measures.rejected, measures.counted["rejected/topic"]), (3, 1));
        let left =
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('take_batch', 'incoming_batch')";
        let left = platform.connection.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left, 0, "cut off after {done}");
    }
}

#[test]
fn a_schema_of_another_version_is_left_alone() {
    let platform = FakePlatform::new();
    platform.connection.execute_batch("PRAGMA user_version = 5").unwrap();
    let error = now(store(&platform).probe()).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
    assert!(error.message.contains("version 5"), "{error}");
}
