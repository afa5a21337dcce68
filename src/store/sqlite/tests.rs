use std::rc::Rc;

use super::setup::{SCHEMA, run_statement, statements};
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

pub(super) fn store(platform: &Rc<FakePlatform>) -> SqliteStore {
    SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
}

/// The store of one more instance, made ready.
pub(super) fn ready(platform: &Rc<FakePlatform>) -> SqliteStore {
    let store = store(platform);
    now(store.probe()).unwrap();
    store
}

pub(super) fn append(store: &SqliteStore, events: &[Event], rejected: usize) -> Vec<Outcome> {
    let events: Vec<&Event> = events.iter().collect();
    let encoded = store.encode(&events).unwrap();
    let rejected =
        [("topic".to_owned(), rejected as i64)].into_iter().filter(|(_, count)| *count > 0);
    let rejected = rejected.collect();
    let deliveries =
        Deliveries { encoded, events: events.len(), rejected, ..Deliveries::default() };
    now(store.append(&[&deliveries], None)).unwrap()
}

pub(super) fn accepted(seq: i64) -> Outcome {
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
        let ran = platform.statements.take();
        texts.extend(ran.into_iter().filter(|statement| !statement.starts_with("PRAGMA")));
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
fn a_connection_keeps_more_pages_from_its_first_large_group_on() {
    let platform = FakePlatform::new();
    let store = ready(&platform);
    let asks_for_room = |ids: std::ops::Range<usize>| {
        let events: Vec<Event> = ids.map(|id| sample("t", &id.to_string(), "1")).collect();
        platform.statements.borrow_mut().clear();
        append(&store, &events, 0);
        platform.statements.take().iter().any(|statement| statement.contains("cache_size"))
    };
    assert!(!asks_for_room(0..LARGE_GROUP_EVENTS_MIN - 1));
    assert!(asks_for_room(1_000..1_000 + LARGE_GROUP_EVENTS_MIN));
    assert!(!asks_for_room(2_000..3_000), "once is enough");
    platform.faults.replace(vec![unavailable()]);
    assert!(now(store.head()).is_err());
    assert!(asks_for_room(3_000..4_000), "the next connection has to be asked, too");
    let kept = "SELECT cache_size FROM pragma_cache_size";
    let kept: i64 = platform.connection.query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, -16 * 1_024);
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
fn a_schema_of_another_version_is_left_alone() {
    let platform = FakePlatform::new();
    platform.connection.execute_batch("PRAGMA user_version = 6").unwrap();
    let error = now(store(&platform).probe()).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
    assert!(error.message.contains("version 6"), "{error}");
}
