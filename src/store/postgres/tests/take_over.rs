//! Stores of version 1, as they were made by the version before.

use super::*;

/// A database of version 1, and an instance of this version.
struct Old {
    database: Database,
    store: PostgresStore,
}

impl Old {
    fn if_available() -> Option<Self> {
        let database = database()?;
        database.connect().unwrap().batch_execute(SCHEMA).unwrap();
        let store = store_at(database.url());
        Some(Old { database, store })
    }

    /// Has an instance of the version before publish.
    fn append_1(&self, events: &[Event]) -> Result<Vec<Outcome>, StoreError> {
        let deliveries = deliveries(&self.store, events);
        let statement = append::append(&[&deliveries], None, None).unwrap();
        let sql = "SELECT outcomes, began_anew, slot \
            FROM sekali.append_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let rows = now(self.store.run(Statement { sql, ..statement }))?;
        Ok(append::appended(rows, &[&deliveries]).unwrap().outcomes)
    }

    fn integer(&self, sql: &str) -> i64 {
        self.database.connect().unwrap().query_one(sql, &[]).unwrap().get(0)
    }

    /// How long the events are that there are.
    fn bytes(&self) -> i64 {
        self.integer(
            "SELECT sum(octet_length(event_id) + octet_length(source) + octet_length(payload) \
             + coalesce(octet_length(timestamp), 0))::bigint FROM sekali.event_log",
        )
    }

    /// Every event has its identity, once, and is counted with its length.
    fn check_whole(&self, events: usize) {
        let whole = "SELECT count(*) FROM sekali.event_log e JOIN sekali.identity i \
            USING (topic_id, event_id, seq) WHERE i.day = (e.received_at / 86400000)::int";
        assert_eq!(self.integer(whole), events as i64);
        assert_eq!(self.integer("SELECT count(*) FROM sekali.identity"), events as i64);
        assert_eq!(self.integer("SELECT version::bigint FROM sekali.service"), 2);
        let kept = now(self.store.kept(&TopicGroup::default())).unwrap();
        assert_eq!((kept.events, kept.bytes), (events as i64, self.bytes()));
    }
}

fn events(count: usize) -> Vec<Event> {
    (0..count).map(|id| sample(["t", "u", "v"][id % 3], &id.to_string(), "1")).collect()
}

/// Tries until the store is no longer busy.
fn append_in_the_end(store: &PostgresStore, events: &[Event]) -> Vec<Outcome> {
    loop {
        match append(store, events) {
            Err(error) if error.is_busy() => {}
            outcomes => return outcomes.unwrap(),
        }
    }
}

#[test]
fn a_store_of_version_1_is_taken_over() {
    let Some(old) = Old::if_available() else { return };
    let events = events(30);
    old.append_1(&events).unwrap();
    old.append_1(&events[..1]).unwrap();
    let topics = [Topic::parse("t").unwrap()];
    let definition = Definition { name: "s", topics: &topics, start: Start::At(Cursor::START) };
    now(old.store.define_subscription(definition, 9)).unwrap();
    let third = event_ids(&old.store, Cursor::START)[6].0;
    now(old.store.acknowledge("s", third)).unwrap();
    assert_eq!(old.integer("SELECT version::bigint FROM sekali.service"), 1);

    // All can be read from the first statement on, but none be published.
    let totals = now(old.store.totals(TopicRange::NONE)).unwrap();
    assert_eq!((totals.all.unique_processed, totals.all.duplicate_dropped), (30, 1));
    assert_eq!(old.integer("SELECT version::bigint FROM sekali.service"), 1);
    assert_eq!(event_ids(&old.store, Cursor::START).len(), 30);
    let refused = old.append_1(&events[..1]).unwrap_err();
    assert!(refused.message.contains("version 1 wants to publish"), "{refused}");
    assert_eq!(now(old.store.try_commit()).unwrap_err().fault, Fault::Busy);
    let all = TopicGroup::default();
    conformance::claim_pruning(&old.store);
    let step = Prune { events_max: 9, ..conformance::everything(&all) };
    assert_eq!(now(old.store.prune(step)).unwrap_err().fault, Fault::Busy);
    assert_eq!(now(old.store.forget(i64::MAX, 9)).unwrap_err().fault, Fault::Busy);

    let busy = append(&old.store, &events[..1]).unwrap_err();
    assert_eq!(busy.fault, Fault::Busy, "{busy}");
    assert!(busy.message.contains("taken over from version 1"), "{busy}");
    assert_eq!(append_in_the_end(&old.store, &events), vec![Outcome::Duplicate; 30]);
    assert_eq!(append(&old.store, &[sample("t", "0", "2")]), Ok(vec![Outcome::Conflict]));
    old.check_whole(30);
    now(old.store.try_commit()).unwrap();
    assert_eq!(now(old.store.subscription("s")).unwrap().unwrap().lag, 7);
    assert_eq!(now(old.store.prune(step)).unwrap().unwrap().events, 9);
    assert_eq!(now(old.store.subscription("s")).unwrap().unwrap().lag, 7);
    append(&old.store, &[sample("t", "new", "1"), sample("t", "0", "1")]).unwrap();
    assert!(old.append_1(&[sample("t", "newer", "1")]).is_err());
}

/// Whatever becomes of who is at it, and however many are.
#[test]
fn a_take_over_goes_on_where_it_was_left() {
    const EVENTS: usize = 500;
    let Some(old) = Old::if_available() else { return };
    let events = events(EVENTS);
    old.append_1(&events).unwrap();
    now(old.store.totals(TopicRange::NONE)).unwrap();
    let mut superuser =
        old.database.superuser_config().connect(temporary_postgres::postgres::NoTls).unwrap();
    let identities = "SELECT count(*) FROM sekali.identity";
    for round in 0..3 {
        let mut client = old.database.connect().unwrap();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        client.batch_execute("SELECT sekali.take_over_2(50)").unwrap();
        client.batch_execute("BEGIN; SELECT sekali.take_over_2(50)").unwrap();
        // Nobody waits for whoever is at it.
        let mut other = old.database.connect().unwrap();
        let row = other.query_one("SELECT * FROM sekali.take_over_2(50)", &[]).unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (50 * (round + 1), 500_i64, true));
        superuser
            .execute("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p", &[&vec![pid]])
            .unwrap();
        assert!(client.batch_execute("COMMIT").is_err());
        assert_eq!(old.integer(identities), 50 * (round + 1));
    }
    let url = old.database.url();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (url, events) = (url.clone(), events.clone());
            thread::spawn(move || {
                let store = store_at(url);
                if number % 2 == 0 {
                    return append_in_the_end(&store, &events);
                }
                let step = || Statement {
                    sql: "SELECT taken FROM sekali.take_over_2(7)",
                    parameters: Vec::new(),
                };
                while now(store.run(step())).unwrap() != [[Value::Null]] {}
                append(&store, &events).unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), vec![Outcome::Duplicate; EVENTS]);
    }
    old.check_whole(EVENTS);
}

/// An instance that has nothing else to do goes on to the end.
#[test]
fn an_instance_that_lingers_takes_over_to_the_end() {
    let Some(old) = Old::if_available() else { return };
    old.append_1(&events(30)).unwrap();
    now(old.store.totals(TopicRange::NONE)).unwrap();
    let mut client = old.database.connect().unwrap();
    let mut at_it = client.transaction().unwrap();
    at_it.batch_execute("SELECT sekali.take_over_2(10)").unwrap();
    // It would wait for one whose identity is being taken over.
    let busy = append(&old.store, &[sample("t", "new", "1")]).unwrap_err();
    assert!(busy.message.ends_with("version 1: 0 of 30 events"), "{busy}");
    at_it.commit().unwrap();
    now(old.store.linger());
    old.check_whole(30);
}

/// What the version before was about to store is stored before, or not at all.
#[test]
fn commits_under_way_are_taken_over_as_well() {
    let Some(old) = Old::if_available() else { return };
    old.append_1(&events(3)).unwrap();
    let append_1 = append_sql("t", "slow").replace("append_2", "append_1");
    let mut client = old.database.connect().unwrap();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_1).unwrap();
    let url = old.database.url();
    let taking_over = thread::spawn(move || {
        let store = store_at(url);
        now(store.totals(TopicRange::NONE)).unwrap();
    });
    wait_for_a_waiter(&mut old.database.connect().unwrap());
    let mut late = old.database.connect().unwrap();
    let append_1 = append_1.replace("slow", "late");
    let late = thread::spawn(move || late.batch_execute(&append_1));
    let waiting = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while old.integer(waiting) < 2 {
        thread::yield_now();
    }
    under_way.commit().unwrap();
    taking_over.join().unwrap();
    let error = late.join().unwrap().unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "SK002");
    let slow = append_in_the_end(&old.store, &[sample("t", "slow", "1")]);
    assert_eq!(slow, [Outcome::Conflict], "with the content of the statement");
    old.check_whole(4);
}

/// Whoever may create nothing has the owner run what leads to version 2.
#[test]
fn the_owner_alone_may_begin_a_take_over() {
    let Some(database) = database() else { return };
    let user: String =
        database.connect().unwrap().query_one("SELECT current_user::text", &[]).unwrap().get(0);
    let mut superuser =
        database.superuser_config().connect(temporary_postgres::postgres::NoTls).unwrap();
    let grants = include_str!("../grants.sql").replace("sekali_service", &user);
    let name = database.name();
    superuser.batch_execute(&format!("ALTER DATABASE {name} OWNER TO CURRENT_USER")).unwrap();
    superuser.batch_execute(SCHEMA).unwrap();
    superuser.batch_execute(&grants).unwrap();
    let old = Old { store: store_at(database.url()), database };
    old.append_1(&events(30)).unwrap();
    for _ in 0..2 {
        let store = store_at(old.database.url());
        let error = append(&store, &events(1)).unwrap_err();
        assert_eq!(error.fault, Fault::Unavailable);
        assert!(error.message.contains("schema_from_1.sql and grants.sql"), "{error}");
    }
    // The version before goes on meanwhile.
    old.append_1(&events(31)).unwrap();
    superuser.batch_execute(SCHEMA_FROM_1).unwrap();
    superuser.batch_execute(&grants).unwrap();
    assert_eq!(append_in_the_end(&old.store, &events(31)), vec![Outcome::Duplicate; 31]);
    old.check_whole(31);
}
