//! The engine on a real server, as other programs meet it: with commits that are under
//! way for as long as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use temporary_postgres::Database;
use temporary_postgres::postgres::Client;

use super::*;
use crate::event::{self, sample};
use crate::platform::fake::postgres::database;
use crate::platform::fake::{FakePlatform, NOW, now};
use crate::platform::postgres::Value;
use crate::store::conformance::{self, Fixture};
use crate::store::model::{Fault, Start};

mod retention;
mod setup;
mod take_over;

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_FROM_1: &str = include_str!("schema_from_1.sql");

conformance::conformance!(PostgresFixture);

struct PostgresFixture {
    database: Rc<Database>,
    platform: Rc<FakePlatform>,
}

/// The way to a database that is there for as long as anybody has it.
struct Held {
    platform: Rc<FakePlatform>,
    _database: Rc<Database>,
}

#[async_trait(?Send)]
impl Postgres for Held {
    async fn open(&self, address: &str) -> Result<Rc<dyn PostgresConnection>, PostgresError> {
        self.platform.open(address).await
    }
}

impl Fixture for PostgresFixture {
    fn empty() -> Self {
        let fixture = PostgresFixture {
            database: Rc::new(database().expect("PostgreSQL is available")),
            platform: FakePlatform::new(),
        };
        fixture.sql(&[
            SCHEMA,
            SCHEMA_FROM_1,
            &format!("UPDATE sekali.service SET created_at = {NOW}"),
        ]);
        fixture
    }

    fn instance(&self) -> Rc<dyn Store> {
        Rc::new(self.store().with_own_time())
    }

    fn set_now(&self, now: UnixMillis) {
        self.platform.now.set(now);
    }

    fn is_available() -> bool {
        temporary_postgres::is_available_or_skip().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl PostgresFixture {
    /// The same, where PostgreSQL is installed.
    fn if_available() -> Option<Self> {
        Self::is_available().then(Self::empty)
    }

    fn store(&self) -> PostgresStore {
        let way = Held { platform: self.platform.clone(), _database: Rc::clone(&self.database) };
        store_by(Rc::new(way), &self.platform, self.database.url())
    }

    fn client(&self) -> Client {
        self.database.connect().unwrap()
    }

    fn sql(&self, statements: &[&str]) {
        let mut client = self.client();
        statements.iter().for_each(|statement| client.batch_execute(statement).unwrap());
    }
}

fn store_by(postgres: Rc<dyn Postgres>, platform: &Rc<FakePlatform>, url: String) -> PostgresStore {
    PostgresStore::new(postgres, platform.clone(), platform.clone(), url)
}

/// An instance of another process, such as another replica.
fn store_at(url: String) -> PostgresStore {
    let platform = FakePlatform::new();
    store_by(platform.clone(), &platform, url)
}

/// A commit of one event, as SQL, which a client can leave under way.
fn append_sql(topic: &str, event_id: &str) -> String {
    format!(
        "SELECT sekali.append_2(ARRAY['{topic}'], ARRAY['{event_id}'], ARRAY['s'], \
         decode(repeat('00', 16), 'hex'), ARRAY[NULL]::text[], ARRAY['1'], NULL, 10000, \
         '{{}}', '{{}}')"
    )
}

fn deliveries(store: &dyn Store, events: &[Event]) -> Deliveries {
    let encoded = store.encode(&events.iter().collect::<Vec<_>>()).unwrap();
    Deliveries { encoded, events: events.len(), ..Deliveries::default() }
}

fn append(store: &dyn Store, events: &[Event]) -> Result<Vec<Outcome>, StoreError> {
    now(store.append(&[&deliveries(store, events)], None))
}

fn event_ids(store: &dyn Store, after: Cursor) -> Vec<(Cursor, String)> {
    let filter = Filter { after: Some(after), ..Filter::default() };
    let limit = PageLimit { events_max: 1000, bytes_max: 1_000_000 };
    let page = now(store.page(&filter, limit)).unwrap();
    page.into_iter().map(|event| (Cursor::after(event.seq), event.event_id)).collect()
}

#[test]
fn a_reader_stops_before_what_is_under_way() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    append(&*store, &[sample("t", "first", "1")]).unwrap();
    let (mut one, mut reader) = (fixture.client(), fixture.client());
    let mut under_way = one.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "slow")).unwrap();
    append(&*store, &[sample("t", "fast", "1")]).unwrap();

    // Whoever reads on from the newest that can be seen never sees the slow one.
    let newest = "SELECT max(seq) FROM sekali.event_log";
    let naive: i64 = reader.query_one(newest, &[]).unwrap().get(0);
    let head = now(store.head()).unwrap();
    assert!(head < Cursor::from_number(naive), "{head} {naive}");
    let before = event_ids(&*store, Cursor::START);
    assert_eq!(before.len(), 1, "{before:?}");
    let end = Definition { name: "end", topics: &[], start: Start::End };
    let subscription = now(store.define_subscription(end, 9)).unwrap().unwrap();
    assert_eq!(subscription.position, head, "the slow one is yet to come");
    let ahead = now(store.acknowledge("end", Cursor::from_number(naive))).unwrap().unwrap();
    assert_eq!(ahead.position, head);

    under_way.commit().unwrap();
    let after: Vec<String> =
        event_ids(&*store, before[0].0).into_iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(after, ["slow", "fast"]);
    let missed = format!("SELECT event_id FROM sekali.event_log WHERE seq > {naive}");
    assert!(reader.query(&missed, &[]).unwrap().is_empty(), "the naive reader has missed it");
    let subscription = now(store.subscription("end")).unwrap().unwrap();
    assert_eq!(subscription.lag, 2);
}

#[test]
fn a_commit_that_comes_to_nothing_holds_nobody_up() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    append(&*store, &[sample("t", "first", "1")]).unwrap();
    let mut client = fixture.client();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "never")).unwrap();
    append(&*store, &[sample("t", "stored", "1")]).unwrap();
    under_way.rollback().unwrap();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "never either")).unwrap();
    under_way.rollback().unwrap();
    let read = event_ids(&*store, Cursor::START);
    assert_eq!(read.len(), 2);
    // A place that came to nothing may be given out anew after a crash.
    assert_eq!(now(store.head()).unwrap(), read[1].0);
}

#[test]
fn commits_of_one_topic_do_not_wait_for_each_other() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    append(&*store, &[sample("t", "first", "1")]).unwrap();
    let mut client = fixture.client();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "slow")).unwrap();
    // These would fail for the other's locks, after some seconds. The first is a repeat in
    // a slot that has counted nothing of its topic yet.
    assert_eq!(append(&*store, &[sample("t", "first", "2")]), Ok(vec![Outcome::Conflict]));
    append(&*store, &[sample("t", "a", "1"), sample("t", "b", "1"), sample("u", "c", "1")])
        .unwrap();
    let counted = Increments::from([("n".to_owned(), 2)]);
    now(store.append(&[&deliveries(&*store, &[])], Some(&counted))).unwrap();
    under_way.commit().unwrap();
    let totals = now(store.totals(TopicRange { after: "", topics_max: 9 })).unwrap();
    assert_eq!((totals.all.unique_processed, totals.topics.len()), (5, 2));
    assert_eq!((totals.all.duplicate_dropped, totals.all.conflicts), (1, 1));
    assert_eq!(totals.topics[0].counters.unique_processed, 4, "a sum over slots");
}

#[test]
fn an_identity_that_is_under_way_is_waited_for() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let mut received = 0;
    for commits in [true, false] {
        let event_id = format!("commits {commits}");
        let mut one = fixture.client();
        let mut under_way = one.transaction().unwrap();
        under_way.batch_execute(&append_sql("t", &event_id)).unwrap();
        let mut two = fixture.client();
        let statement = append_sql("t", &event_id);
        let other = thread::spawn(move || two.batch_execute(&statement).unwrap());
        let mut watcher = fixture.client();
        wait_for_a_waiter(&mut watcher);
        if commits { under_way.commit() } else { under_way.rollback() }.unwrap();
        other.join().unwrap();
        let stored = "SELECT count(*) FROM sekali.event_log WHERE event_id = $1";
        assert_eq!(watcher.query_one(stored, &[&event_id]).unwrap().get::<_, i64>(0), 1);
        let store = fixture.instance();
        let totals = now(store.totals(TopicRange::NONE)).unwrap();
        // A duplicate of the one that was committed, or the only delivery.
        received += if commits { 2 } else { 1 };
        assert_eq!(totals.all.received(), received);
    }
}

/// Whoever has the first of two identities may go on to the second while another wants
/// both, in whatever order they were delivered.
#[test]
fn identities_are_taken_in_one_order() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    append(&*fixture.instance(), &[sample("t", "first", "1")]).unwrap();
    let mut client = fixture.client();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "a")).unwrap();
    let url = fixture.database.url();
    let other = thread::spawn(move || {
        let store = store_at(url);
        append(&store, &[sample("t", "b", "1"), sample("t", "a", "1")])
    });
    wait_for_a_waiter(&mut fixture.client());
    under_way.batch_execute(&append_sql("t", "b")).unwrap();
    under_way.commit().unwrap();
    let repeats = |outcome: &Outcome| !matches!(outcome, Outcome::Accepted { .. });
    assert!(other.join().unwrap().unwrap().iter().all(repeats));
}

/// Returns when a statement waits for another one in this database.
fn wait_for_a_waiter(client: &mut Client) {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while client.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 0 {
        thread::yield_now();
    }
}

#[test]
fn groups_of_the_same_events_never_stop_each_other() {
    const ROUNDS: usize = 20;
    const EVENTS: usize = 40;
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let url = fixture.database.url();
    let write = |backwards: bool| {
        let url = url.clone();
        thread::spawn(move || {
            let store = store_at(url);
            for round in 0..ROUNDS {
                let mut events: Vec<Event> = (0..EVENTS)
                    .map(|id| {
                        let topic = format!("t{}", id % 7 + round);
                        sample(&topic, &format!("{round}-{id}"), "1")
                    })
                    .collect();
                if backwards {
                    events.reverse();
                }
                append(&store, &events).unwrap();
            }
        })
    };
    let writers: Vec<_> = [false, true, false, true].map(write).into();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let totals = now(fixture.instance().totals(TopicRange::NONE)).unwrap();
    let unique = (ROUNDS * EVENTS) as i64;
    assert_eq!((totals.all.unique_processed, totals.all.received()), (unique, 4 * unique));
}

/// Instances of several replicas write, and readers follow, each from its cursor.
#[test]
fn readers_that_go_on_miss_nothing_and_see_nothing_twice() {
    const WRITERS: usize = 6;
    const COMMITS: usize = 60;
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let url = fixture.database.url();
    let store = move || store_at(url.clone());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            thread::spawn(move || {
                let store = store();
                for commit in 0..COMMITS {
                    // Some alone, some in groups, some that others store as well.
                    let mut events = vec![sample("t", &format!("{writer}-{commit}"), "1")];
                    if commit % 3 == 0 {
                        events.push(sample("u", &format!("shared-{commit}"), "1"));
                        events.push(sample("t", &format!("{writer}-{commit}-b"), "1"));
                    }
                    append(&store, &events).unwrap();
                }
            })
        })
        .collect();
    let expected = WRITERS * COMMITS + (WRITERS + 1) * COMMITS.div_ceil(3);
    let is_written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            let is_written = Arc::clone(&is_written);
            thread::spawn(move || {
                let store = store();
                let (mut seen, mut cursor) = (Vec::new(), Cursor::START);
                loop {
                    let is_last = is_written.load(Ordering::Relaxed);
                    for (place, event_id) in event_ids(&store, cursor) {
                        assert!(cursor < place);
                        cursor = place;
                        seen.push(event_id);
                    }
                    if is_last {
                        return seen;
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    is_written.store(true, Ordering::Relaxed);
    let stored: Vec<String> =
        event_ids(&store(), Cursor::START).into_iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(stored.len(), expected);
    for reader in readers {
        assert!(reader.join().unwrap() == stored, "in the same order, whole");
    }
}

#[test]
fn a_health_check_stores_nothing() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    now(store.try_commit()).unwrap();
    assert_eq!(event_ids(&*store, Cursor::START), []);
    let name = fixture.database.name();
    fixture.sql(&[&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")]);
    let error = now(fixture.store().try_commit()).unwrap_err();
    assert_eq!(error.fault, Fault::Unavailable);
}

#[test]
fn a_connection_that_broke_is_replaced() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.store();
    append(&store, &[sample("t", "a", "1")]).unwrap();
    let broken = PostgresError::Platform("connection closed".to_owned());
    fixture.platform.postgres.faults.borrow_mut().push_back(broken.clone());
    let error = append(&store, &[sample("t", "b", "1")]).unwrap_err();
    assert_eq!(error.fault, Fault::Indeterminate, "it may be stored: {error}");
    append(&store, &[sample("t", "b", "1")]).unwrap();
    assert_eq!(fixture.platform.postgres.opened.get(), 2);

    // A server that is gone is told as such.
    fixture.platform.postgres.faults.borrow_mut().push_back(broken.clone());
    fixture.platform.postgres.open_faults.borrow_mut().push_back(broken);
    let fault = || append(&store, &[sample("t", "c", "1")]).unwrap_err().fault;
    assert_eq!([fault(), fault()], [Fault::Indeterminate, Fault::Unavailable]);
    append(&store, &[sample("t", "c", "1")]).unwrap();
}

#[test]
fn an_instance_that_rests_gives_its_connection_back() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.store();
    assert!(!store.wants_to_linger(), "it has asked nothing");
    append(&store, &[sample("t", "a", "1")]).unwrap();
    append(&store, &[sample("t", "b", "1")]).unwrap();
    let opened = || fixture.platform.postgres.opened.get();
    assert_eq!((store.wants_to_linger(), opened()), (true, 1));
    now(store.linger());
    assert!(!store.wants_to_linger());
    store.rest();
    append(&store, &[sample("t", "c", "1")]).unwrap();
    assert_eq!(opened(), 2);
}

#[test]
fn nobody_waits_for_ever_for_a_connection() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    fixture.platform.postgres.is_full.set(true);
    let store = fixture.store();
    let error = append(&store, &[sample("t", "a", "1")]).unwrap_err();
    assert_eq!(error.fault, Fault::Busy, "{error}");
    fixture.platform.postgres.is_full.set(false);
    append(&store, &[sample("t", "a", "1")]).unwrap();
}

/// Places are found though `received_at` decreases for a moment, as it does when
/// commits are under way at the same time.
#[test]
fn times_out_of_order_are_found() {
    const EVENTS: i64 = 12;
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    for id in 0..EVENTS {
        append(&*store, &[sample("t", &id.to_string(), "1")]).unwrap();
    }
    let mut client = fixture.client();
    for late in 2..=EVENTS {
        // Every thousand milliseconds one, but one of them as early as those before.
        let times: Vec<i64> =
            (1..=EVENTS).map(|seq| if seq == late { 1_500 } else { seq * 1_000 }).collect();
        let set = "UPDATE sekali.event_log SET received_at = ($1::bigint[])[seq]";
        client.execute(set, &[&times]).unwrap();
        for moment in times.iter().flat_map(|time| [*time, time + 1]) {
            let (after, up_to) = now(store.received_between(Some(moment), Some(moment))).unwrap();
            let first = times.iter().position(|time| *time >= moment).unwrap_or(times.len());
            assert_eq!(after, Some(Cursor::from_number(first as i64)), "{moment} {times:?}");
            let filter = Filter { up_to, until: Some(moment), ..Filter::default() };
            let limit = PageLimit { events_max: 99, bytes_max: 10_000 };
            let before = now(store.page(&filter, limit)).unwrap().len();
            let expected = times.iter().filter(|time| **time < moment).count();
            assert_eq!(before, expected, "{moment} {times:?}");
        }
    }
}

#[test]
fn an_event_of_any_name_is_kept() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    // The longest names that there may be still fit an index.
    let long = "\u{10ffff}".repeat(event::NAME_CHARS_MAX);
    let events = [sample(&long, &long, "1"), sample(&long, "2", "1")];
    append(&*store, &events).unwrap();
    assert_eq!(append(&*store, &events), Ok(vec![Outcome::Duplicate; 2]));
    assert_eq!(event_ids(&*store, Cursor::START)[0].1, long);
}
