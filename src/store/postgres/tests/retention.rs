//! Pruning beside commits and readers that are under way.

use super::*;

/// The next step over all events.
fn prune(store: &dyn Store, group: &TopicGroup, events_max: usize) -> i64 {
    let step = Prune { events_max, ..conformance::everything(group) };
    loop {
        match now(store.prune(step)) {
            Err(error) if error.is_busy() => {}
            pruned => return pruned.unwrap().unwrap().events,
        }
    }
}

/// Runs `work` in a thread with a store of its own, again and again until `is_over`.
fn again_until(
    url: &str,
    is_over: &Arc<AtomicBool>,
    mut work: impl FnMut(&PostgresStore) + Send + 'static,
) -> thread::JoinHandle<()> {
    let (url, is_over) = (url.to_owned(), Arc::clone(is_over));
    thread::spawn(move || {
        let store = store_at(url);
        while !is_over.load(Ordering::Relaxed) {
            work(&store);
        }
    })
}

fn integer(fixture: &PostgresFixture, sql: &str) -> i64 {
    fixture.client().query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn an_identity_is_never_accepted_twice_while_it_is_pruned() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 60;
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let url = fixture.database.url();
    let is_over = Arc::new(AtomicBool::new(false));
    conformance::claim_pruning(&*fixture.instance());
    let pruner = again_until(&url, &is_over, |store| {
        prune(store, &TopicGroup::default(), 7);
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let url = url.clone();
            thread::spawn(move || {
                let store = store_at(url);
                let mut accepted = 0;
                for round in 0..ROUNDS {
                    // Alone and in groups; each writer the same ones.
                    let size = if (round + writer) % 2 == 0 { 1 } else { 5 };
                    let events: Vec<Event> = (round..round + size)
                        .map(|id| sample(["t", "u"][id % 2], &id.to_string(), "1"))
                        .collect();
                    let outcomes = append(&store, &events).unwrap();
                    let is_new = |outcome: &&Outcome| matches!(outcome, Outcome::Accepted { .. });
                    assert!(!outcomes.contains(&Outcome::Conflict));
                    accepted += outcomes.iter().filter(is_new).count();
                }
                accepted
            })
        })
        .collect();
    let accepted: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    is_over.store(true, Ordering::Relaxed);
    pruner.join().unwrap();
    assert_eq!(accepted, ROUNDS + 4);
    let store = fixture.instance();
    let all = TopicGroup::default();
    while prune(&*store, &all, 1000) > 0 {}
    let totals = now(store.totals(TopicRange::NONE)).unwrap().all;
    assert_eq!((totals.unique_processed, totals.pruned), (accepted as i64, accepted as i64));
    let kept = now(store.kept(&all)).unwrap();
    assert_eq!(kept, Kept { before_oldest: Cursor::END, events: 0, bytes: 0 });
    assert_eq!(integer(&fixture, "SELECT count(*) FROM sekali.identity"), accepted as i64);
}

/// Forgotten and accepted anew, but never there twice, nor without its identity.
#[test]
fn an_identity_is_there_once_while_others_are_forgotten() {
    const ROUNDS: usize = 150;
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let url = fixture.database.url();
    let is_over = Arc::new(AtomicBool::new(false));
    conformance::claim_pruning(&*fixture.instance());
    let pruner = again_until(&url, &is_over, |store| {
        prune(store, &TopicGroup::default(), 3);
    });
    let forgets = |_| {
        again_until(&url, &is_over, |store| {
            now(store.forget(i64::MAX / 1_000_000, 4)).unwrap();
        })
    };
    let forgetters: Vec<_> = (0..2).map(forgets).collect();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let url = url.clone();
            thread::spawn(move || {
                let store = store_at(url);
                for round in 0..ROUNDS {
                    let size = if (round + writer) % 2 == 0 { 1 } else { 4 };
                    let events: Vec<Event> =
                        (0..size).map(|id| sample("t", &id.to_string(), "1")).collect();
                    match append(&store, &events) {
                        // They may wait for each other when they try once more.
                        Err(error) if error.is_busy() => {}
                        outcomes => drop(outcomes.unwrap()),
                    }
                }
            })
        })
        .collect();
    let watcher = fixture.instance();
    let twice = "SELECT count(*) FROM (SELECT FROM sekali.event_log \
        GROUP BY topic_id, event_id HAVING count(*) > 1) d";
    let without = "SELECT count(*) FROM sekali.event_log e WHERE NOT EXISTS \
        (SELECT FROM sekali.identity i WHERE i.topic_id = e.topic_id \
         AND i.event_id = e.event_id AND i.seq = e.seq)";
    let mut client = fixture.client();
    while !writers.iter().all(thread::JoinHandle::is_finished) {
        for sql in [twice, without] {
            assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0, "{sql}");
        }
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    is_over.store(true, Ordering::Relaxed);
    pruner.join().unwrap();
    forgetters.into_iter().for_each(|forgetter| forgetter.join().unwrap());
    let totals = now(watcher.totals(TopicRange::NONE)).unwrap().all;
    assert!(totals.unique_processed > 4, "some were accepted anew: {totals:?}");
}

#[test]
fn lags_are_exact_while_events_are_pruned_and_acknowledged() {
    const EVENTS: usize = 400;
    const NAMES: [&str; 4] = ["all", "t", "u", "changing"];
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let url = fixture.database.url();
    let define = |store: &PostgresStore, name: &str, topics: &[&str]| {
        let topics: Vec<Topic> = topics.iter().map(|topic| Topic::parse(*topic).unwrap()).collect();
        let start = Start::At(Cursor::START);
        now(store.define_subscription(Definition { name, topics: &topics, start }, 99)).unwrap();
    };
    let store = fixture.store();
    conformance::claim_pruning(&store);
    for (name, topics) in NAMES.iter().zip([&[][..], &["t"], &["u"], &["t", "u"]]) {
        define(&store, name, topics);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for pattern in ["t", "*"] {
        let group = TopicGroup {
            of: Some(crate::event::TopicPattern::new(pattern.to_owned())),
            but: Vec::new(),
        };
        others.push(again_until(&url, &is_over, move |store| {
            // Some are left, so that there are places between them.
            if now(store.kept(&group)).unwrap().events > 20 {
                prune(store, &group, 3);
            }
        }));
    }
    for name in NAMES {
        others.push(again_until(&url, &is_over, move |store| {
            let position = now(store.subscription(name)).unwrap().unwrap().position;
            let next = Cursor::from_number(position.number() + 5);
            now(store.acknowledge(name, next)).unwrap();
        }));
    }
    let mut turn = 0;
    others.push(again_until(&url, &is_over, move |store| {
        turn += 1;
        define(store, "changing", [&["t"][..], &[], &["u", "t"]][turn % 3]);
        define(store, &format!("new {}", turn % 20), &["t"]);
    }));
    for id in 0..EVENTS {
        let topic = ["t", "u", "v"][id % 3];
        let group = [sample(topic, &id.to_string(), "1"), sample("u", &format!("u{id}"), "1")];
        append(&store, &group[..1 + id % 2]).unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
    let pruned = now(store.totals(TopicRange::NONE)).unwrap().all.pruned;
    assert!(pruned > 100, "{pruned}");
    for one in now(store.subscriptions()).unwrap() {
        let filter = Filter { topics: one.topics, after: Some(one.position), ..Filter::default() };
        let limit = PageLimit { events_max: 10_000, bytes_max: usize::MAX };
        let left = now(store.page(&filter, limit)).unwrap().len();
        assert_eq!(one.lag, left as i64, "{}", one.name);
    }
}

/// What is not settled is not pruned, and the head does not go back.
#[test]
fn what_may_still_appear_is_not_passed_by() {
    let Some(fixture) = PostgresFixture::if_available() else { return };
    let store = fixture.instance();
    conformance::claim_pruning(&*store);
    let all = TopicGroup::default();
    append(&*store, &[sample("t", "first", "1")]).unwrap();
    let first = now(store.head()).unwrap();
    let mut client = fixture.client();
    let mut under_way = client.transaction().unwrap();
    under_way.batch_execute(&append_sql("t", "slow")).unwrap();
    append(&*store, &[sample("t", "fast", "1")]).unwrap();
    let step = Prune { events_max: 9, ..conformance::everything(&all) };
    let pruned = now(store.prune(step)).unwrap().unwrap();
    assert_eq!((pruned.events, now(store.head()).unwrap()), (1, first));
    assert!(pruned.up_to >= first && pruned.up_to < Cursor::from_number(first.number() + 1));
    assert_eq!(now(store.pruned_up_to(&[])), Ok(first));
    under_way.commit().unwrap();
    let after: Vec<String> =
        event_ids(&*store, first).into_iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(after, ["slow", "fast"]);
    let rest = Prune { after: pruned.up_to, ..step };
    assert_eq!(now(store.prune(rest)).unwrap().unwrap().events, 2);
    assert_eq!(event_ids(&*store, Cursor::START), []);
}
