//! What every engine must pass, written against the trait alone.
//!
//! An engine implements [`Fixture`] in its tests and calls [`conformance!`]; each
//! function here becomes a test of that engine. Nothing here assumes that `seq`
//! has no gaps.

use std::rc::Rc;

use super::{
    Counters, Cursor, Definition, Deliveries, Fault, Filter, Increments, Order, Outcome, PageLimit,
    REJECTED_PREFIX, Seq, Start, Store, StoredEvent, TopicCounters,
};
use crate::event::{self, Event, Topic};
use crate::platform::fake::{NOW, all, now};
use crate::time::UnixMillis;

/// An engine under test: data that is empty at first, and a clock.
pub(crate) trait Fixture {
    /// Empty data.
    fn empty() -> Self;
    /// One more instance of the store over the same data.
    fn instance(&self) -> Rc<dyn Store>;
    /// Turns the clock, which stands at [`NOW`] in the beginning.
    fn set_now(&self, now: UnixMillis);
}

/// Makes the tests of an engine from its fixture.
macro_rules! conformance {
    ($fixture:ty: $($name:ident)*) => {
        $(#[test]
        fn $name() {
            crate::store::conformance::$name::<$fixture>();
        })*
    };
    ($fixture:ty) => {
        crate::store::conformance::conformance! {
            $fixture:
            an_empty_store_is_empty
            each_identity_is_stored_once
            a_group_is_one_commit_with_outcomes_in_order
            a_repeated_delivery_is_idempotent
            instances_share_identities_and_order
            a_reader_that_goes_on_misses_nothing
            pages_hold_what_the_filter_says
            pages_are_bounded
            text_comes_back_as_it_was_given
            time_of_receipt_is_found
            counters_balance
            rejections_and_increments_are_added_up
            the_busiest_topics_are_summed_up
            topics_beyond_the_limit_are_one_series
            a_position_moves_forward_only
            the_lag_is_exact
            a_subscription_is_redefined_and_removed
            subscriptions_are_bounded
        }
    };
}
pub(crate) use conformance;

const ALL: PageLimit = PageLimit { events_max: 1000, bytes_max: 1_000_000 };

fn encode(store: &dyn Store, events: &[Event], rejected: Vec<&'static str>) -> Deliveries {
    store.encode(&events.iter().collect::<Vec<_>>(), rejected).unwrap()
}

fn append(store: &dyn Store, events: &[Event]) -> Vec<Outcome> {
    now(store.append(&[&encode(store, events, Vec::new())], None)).unwrap()
}

fn publish(store: &dyn Store, topic: &str, event_id: impl ToString) -> Outcome {
    append(store, &[event::sample(topic, &event_id.to_string(), "1")])[0]
}

fn page(store: &dyn Store, filter: &Filter) -> Vec<StoredEvent> {
    now(store.page(filter, ALL)).unwrap()
}

fn ids(store: &dyn Store, filter: &Filter) -> Vec<String> {
    page(store, filter).into_iter().map(|event| event.event_id).collect()
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| Topic::parse(*name).unwrap()).collect()
}

fn seq_of(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Accepted { seq } => seq,
        other => panic!("{other:?}"),
    }
}

fn counters(unique_processed: i64, duplicate_dropped: i64, conflicts: i64) -> Counters {
    Counters { unique_processed, duplicate_dropped, conflicts }
}

pub(crate) fn an_empty_store_is_empty<F: Fixture>() {
    let store = F::empty().instance();
    now(store.probe()).unwrap();
    assert_eq!(now(store.head()), Ok(Cursor::START));
    assert_eq!(now(store.end_before(NOW)), Ok(Cursor::START));
    assert_eq!(page(&*store, &Filter::default()), []);
    let totals = now(store.totals()).unwrap();
    assert_eq!((totals.topics.len(), totals.rejected, totals.created_at), (0, 0, NOW));
    assert_eq!(append(&*store, &[]), []);
    assert_eq!(now(store.subscriptions()), Ok(Vec::new()));
}

pub(crate) fn each_identity_is_stored_once<F: Fixture>() {
    let store = F::empty().instance();
    let outcomes = append(
        &*store,
        &[
            event::sample("t", "a", "1"),
            event::sample("t", "b", "1"),
            event::sample("t", "a", "1"),
            event::sample("t", "a", "2"),
            event::sample("u", "a", "1"),
        ],
    );
    let seqs = [outcomes[0], outcomes[1], outcomes[4]].map(seq_of);
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert_eq!(outcomes[2..4], [Outcome::Duplicate, Outcome::Conflict]);
    assert_eq!(append(&*store, &[event::sample("t", "a", "2")]), [Outcome::Conflict]);
    let next = seq_of(publish(&*store, "t", "c"));
    assert!(next > seqs[2]);
    let stored = page(&*store, &Filter::default());
    let places: Vec<Seq> = stored.iter().map(|event| event.seq).collect();
    assert_eq!(places, [seqs[0], seqs[1], seqs[2], next], "under the seq that was told");
    assert_eq!(stored[0].payload, "1", "the first content stays");
    assert_eq!(now(store.head()), Ok(Cursor::after(next)));
}

pub(crate) fn a_group_is_one_commit_with_outcomes_in_order<F: Fixture>() {
    let store = F::empty().instance();
    let groups = [
        encode(&*store, &[event::sample("t", "a", "1"), event::sample("t", "b", "1")], vec![]),
        encode(&*store, &[], vec!["topic"]),
        encode(&*store, &[event::sample("t", "b", "1"), event::sample("t", "a", "2")], vec![]),
    ];
    let group: Vec<&Deliveries> = groups.iter().collect();
    let outcomes = now(store.append(&group, None)).unwrap();
    assert!(seq_of(outcomes[0]) < seq_of(outcomes[1]));
    assert_eq!(outcomes[2..], [Outcome::Duplicate, Outcome::Conflict]);
    assert_eq!(now(store.totals()).unwrap().rejected, 1);
}

pub(crate) fn a_repeated_delivery_is_idempotent<F: Fixture>() {
    let fixture = F::empty();
    let deliveries = encode(
        &*fixture.instance(),
        &[event::sample("t", "a", "1"), event::sample("t", "b", r#"{"x":[1.0]}"#)],
        Vec::new(),
    );
    let first = fixture.instance();
    let accepted = now(first.append(&[&deliveries], None)).unwrap();
    let before = page(&*first, &Filter::default());
    for _ in 0..3 {
        // What an instance does that was not told how its commit ended.
        let again = fixture.instance();
        let outcomes = now(again.append(&[&deliveries], None)).unwrap();
        assert_eq!(outcomes, [Outcome::Duplicate; 2]);
        assert_eq!(page(&*again, &Filter::default()), before);
    }
    assert_eq!(
        accepted.into_iter().map(seq_of).collect::<Vec<_>>(),
        [before[0].seq, before[1].seq]
    );
    // The order of the stored fields does not matter to a content.
    let same = event::sample("t", "b", r#"{ "x" : [ 1.0 ] }"#);
    assert_eq!(append(&*first, &[same]), [Outcome::Duplicate]);
}

pub(crate) fn instances_share_identities_and_order<F: Fixture>() {
    let fixture = F::empty();
    let stores = [fixture.instance(), fixture.instance(), fixture.instance()];
    // Each of thirty events is delivered to all three instances, in other orders.
    let deliver = async |instance: usize| {
        let store = &*stores[instance];
        let mut accepted = Vec::new();
        for step in 0..30 {
            let id = (step * 7 + instance * 11) % 30;
            let deliveries = encode(store, &[event::sample("t", &id.to_string(), "1")], Vec::new());
            let outcome = loop {
                match store.append(&[&deliveries], None).await {
                    Ok(outcomes) => break outcomes[0],
                    Err(error) => assert_eq!(error.fault, Fault::Busy, "{error}"),
                }
            };
            match outcome {
                Outcome::Accepted { seq } => accepted.push(seq),
                other => assert_eq!(other, Outcome::Duplicate),
            }
        }
        accepted
    };
    let accepted = all((0..3).map(deliver).collect());
    for seqs in &accepted {
        assert!(seqs.is_sorted_by(|a, b| a < b), "later commits have higher places");
    }
    let mut all: Vec<Seq> = accepted.into_iter().flatten().collect();
    all.sort();
    let stored = page(&*stores[0], &Filter::default());
    assert_eq!(stored.iter().map(|event| event.seq).collect::<Vec<_>>(), all);
    assert_eq!(all.len(), 30);
    let totals = now(stores[1].totals()).unwrap();
    assert_eq!(totals.all(), counters(30, 60, 0));
}

pub(crate) fn a_reader_that_goes_on_misses_nothing<F: Fixture>() {
    let fixture = F::empty();
    let (writer, reader) = (fixture.instance(), fixture.instance());
    let mut cursor = Cursor::START;
    let mut seen = Vec::new();
    for round in 0..20 {
        for id in 0..round % 4 {
            publish(&*writer, ["a", "b"][id % 2], format!("{round:02}-{id}"));
        }
        let limit = PageLimit { events_max: 2, bytes_max: 1_000_000 };
        let filter = Filter { from: Some(cursor), ..Filter::default() };
        for event in now(reader.page(&filter, limit)).unwrap() {
            assert!(Cursor::after(event.seq) > cursor);
            cursor = Cursor::after(event.seq);
            seen.push(event.event_id);
        }
    }
    seen.extend(ids(&*reader, &Filter { from: Some(cursor), ..Filter::default() }));
    assert_eq!(seen, ids(&*writer, &Filter::default()));
    assert_eq!(seen.len(), 5 * (1 + 2 + 3));
}

pub(crate) fn pages_hold_what_the_filter_says<F: Fixture>() {
    let store = F::empty().instance();
    let mut cursors = vec![Cursor::START];
    for index in 0..20 {
        let topic = ["even", "odd"][index % 2];
        cursors.push(Cursor::after(seq_of(publish(&*store, topic, index))));
    }
    let numbers = |filter: Filter| {
        ids(&*store, &filter).iter().map(|id| id.parse().unwrap()).collect::<Vec<usize>>()
    };
    let every = Filter::default;
    let descending = || Filter { order: Order::Descending, ..Filter::default() };
    assert_eq!(numbers(every()), (0..20).collect::<Vec<_>>());
    assert_eq!(numbers(descending()), (0..20).rev().collect::<Vec<_>>());
    assert_eq!(numbers(Filter { from: Some(cursors[18]), ..every() }), [18, 19]);
    assert_eq!(numbers(Filter { from: Some(cursors[20]), ..every() }), [0; 0]);
    // A page in the other direction goes on before the event of its cursor.
    assert_eq!(numbers(Filter { from: Some(cursors[3]), ..descending() }), [1, 0]);
    assert_eq!(numbers(Filter { from: Some(Cursor::END), ..descending() }).len(), 20);
    assert_eq!(numbers(Filter { after: Some(cursors[17]), ..descending() }), [19, 18, 17]);
    assert_eq!(numbers(Filter { up_to: Some(cursors[2]), ..every() }), [0, 1]);
    let between = Filter { after: Some(cursors[4]), up_to: Some(cursors[7]), ..every() };
    assert_eq!(numbers(between.clone()), [4, 5, 6]);
    assert_eq!(numbers(Filter { from: Some(cursors[5]), ..between.clone() }), [5, 6]);
    let order = Order::Descending;
    assert_eq!(numbers(Filter { order, from: Some(cursors[6]), ..between }), [4]);
    let odd = Filter { topics: topics(&["odd"]), ..every() };
    assert_eq!(numbers(Filter { up_to: Some(cursors[6]), ..odd.clone() }), [1, 3, 5]);
    assert_eq!(numbers(Filter { order, from: Some(cursors[6]), ..odd }), [3, 1]);
    let both = topics(&["odd", "none", "even"]);
    assert_eq!(numbers(Filter { topics: both, from: Some(cursors[17]), ..every() }), [17, 18, 19]);
    assert_eq!(numbers(Filter { topics: topics(&["none"]), ..every() }), [0; 0]);
    assert_eq!(numbers(Filter { source: Some("x".to_owned()), ..every() }), [0; 0]);
    assert_eq!(numbers(Filter { source: Some("s".to_owned()), ..every() }).len(), 20);
}

pub(crate) fn pages_are_bounded<F: Fixture>() {
    let store = F::empty().instance();
    for id in 10..30 {
        append(&*store, &[event::sample(["a", "b"][id % 2], &id.to_string(), "\"12345678\"")]);
    }
    let count = |names: &[&str], events_max, bytes_max| {
        let filter = Filter { topics: topics(names), ..Filter::default() };
        now(store.page(&filter, PageLimit { events_max, bytes_max })).unwrap().len()
    };
    for (names, many) in [(&[][..], 20), (&["a"], 10), (&["a", "b"], 20)] {
        assert_eq!(count(names, 3, 1000), 3);
        assert_eq!(count(names, 1000, 1_000_000), many);
        // Each has two bytes of id, one of source and ten of payload. A page ends
        // once they reach the limit, and is never empty.
        assert_eq!(count(names, 9, 30), 3);
        assert_eq!(count(names, 9, 1), 1);
    }
}

pub(crate) fn text_comes_back_as_it_was_given<F: Fixture>() {
    let store = F::empty().instance();
    for (index, payload) in [
        r#"{"n":1.2300e+400,"m":-0,"big":123456789012345678901234567890}"#,
        r#""\u0000 \" \\ \/ 😀 \ud83d\ude00 ''; DROP TABLE events; --""#,
        r#"{"a":1,"a":2}"#,
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("'; -- {index} \u{202e}");
        append(&*store, &[event::sample(&topic, "😀", payload)]);
        let stored = page(&*store, &Filter { topics: topics(&[&topic]), ..Filter::default() });
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].payload, payload);
        assert_eq!(stored[0].topic, topic);
        assert_eq!((stored[0].event_id.as_str(), stored[0].source.as_str()), ("😀", "s"));
        assert_eq!(stored[0].timestamp, None);
    }
}

pub(crate) fn time_of_receipt_is_found<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    let mut cursors = vec![Cursor::START];
    for (id, received_at) in [10, 20, 20, 15, 30].into_iter().enumerate() {
        fixture.set_now(received_at);
        cursors.push(Cursor::after(seq_of(publish(&*store, "t", id))));
    }
    let times: Vec<UnixMillis> =
        page(&*store, &Filter::default()).iter().map(|event| event.received_at).collect();
    assert_eq!(times, [10, 20, 20, 20, 30], "a clock that is set back stands still");
    for (moment, before) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 4), (30, 4), (31, 5)] {
        assert_eq!(now(store.end_before(moment)), Ok(cursors[before]), "{moment}");
    }
}

pub(crate) fn counters_balance<F: Fixture>() {
    let store = F::empty().instance();
    for (topic, id, payload) in [
        ("u", "a", "1"),
        ("t", "a", "1"),
        ("t", "a", "1"),
        ("t", "a", "2"),
        ("t", "b", "1"),
        ("u", "a", "1"),
    ] {
        append(&*store, &[event::sample(topic, id, payload)]);
    }
    let totals = now(store.totals()).unwrap();
    let topic = |topic: &str, counters| TopicCounters { topic: topic.to_owned(), counters };
    let expected = [topic("t", counters(2, 2, 1)), topic("u", counters(1, 1, 0))];
    assert_eq!(totals.topics, expected, "in the order of their names");
    assert_eq!(totals.all(), counters(3, 3, 1));
    assert_eq!(totals.all().received(), 6);
}

pub(crate) fn rejections_and_increments_are_added_up<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    let rejected = encode(&*store, &[event::sample("t", "a", "1")], vec!["topic", "payload"]);
    let increments = |pairs: &[(&str, i64)]| -> Increments {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let seen = increments(&[("commits", 2), ("other", 5)]);
    now(store.append(&[&rejected], Some(&seen))).unwrap();
    now(store.append(&[], Some(&increments(&[("commits", 3)])))).unwrap();
    let other = fixture.instance();
    now(other.append(&[&encode(&*other, &[], vec!["topic"])], None)).unwrap();
    let measures = now(store.measures(9)).unwrap();
    assert_eq!(measures.rejected, 3);
    let by = |reason: &str| format!("{REJECTED_PREFIX}{reason}");
    let expected =
        increments(&[("commits", 5), ("other", 5), (&by("payload"), 1), (&by("topic"), 2)]);
    assert_eq!(measures.counted, expected);
    assert_eq!(measures.created_at, NOW);
    assert!(measures.store_bytes > 0);
    assert_eq!(now(store.totals()).unwrap().rejected, 3);
}

pub(crate) fn the_busiest_topics_are_summed_up<F: Fixture>() {
    let store = F::empty().instance();
    for (topic, id) in [("a", 1), ("b", 1), ("b", 1), ("b", 2), ("c", 1), ("c", 1)] {
        publish(&*store, topic, id);
    }
    let summary = now(store.summary(2)).unwrap();
    assert_eq!((summary.all, summary.topic_count), (counters(4, 2, 0), 3));
    let names: Vec<&str> = summary.topics.iter().map(|one| one.topic.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(summary.topics[0].counters, counters(2, 1, 0));
}

pub(crate) fn topics_beyond_the_limit_are_one_series<F: Fixture>() {
    let store = F::empty().instance();
    for topic in ["z", "y", "x", "w", "w"] {
        publish(&*store, topic, 1);
    }
    let named = |topics_max: usize| {
        let measures = now(store.measures(topics_max)).unwrap();
        let names: Vec<String> = measures.topics.into_iter().map(|one| one.topic).collect();
        (names.concat(), measures.other_topics)
    };
    assert_eq!(named(4), ("zyxw".to_owned(), None), "in the order in which they came");
    assert_eq!(named(2), ("zy".to_owned(), Some(counters(2, 1, 0))));
}

fn define(store: &dyn Store, name: &str, names: &[&str], start: Start) -> super::Subscription {
    let topics = topics(names);
    let definition = Definition { name, topics: &topics, start };
    now(store.define_subscription(definition, 100)).unwrap().unwrap()
}

pub(crate) fn a_position_moves_forward_only<F: Fixture>() {
    let store = F::empty().instance();
    let cursors: Vec<Cursor> =
        (0..5).map(|id| Cursor::after(seq_of(publish(&*store, "t", id)))).collect();
    define(&*store, "s", &[], Start::At(cursors[1]));
    let ack = |position| now(store.acknowledge("s", position)).unwrap().unwrap().position;
    assert_eq!(ack(cursors[2]), cursors[2]);
    assert_eq!(ack(cursors[0]), cursors[2], "never back");
    assert_eq!(ack(Cursor::END), cursors[2], "never ahead");
    assert_eq!(ack(cursors[4]), cursors[4]);
    let found = now(store.subscription("s")).unwrap().unwrap();
    assert_eq!((found.position, found.acked_at), (cursors[4], Some(NOW)));
    assert_eq!(now(store.acknowledge("none", cursors[0])), Ok(None));
}

pub(crate) fn the_lag_is_exact<F: Fixture>() {
    let store = F::empty().instance();
    let mut cursors = vec![Cursor::START];
    for id in 0..10 {
        cursors.push(Cursor::after(seq_of(publish(&*store, ["a", "b", "c"][id % 3], id))));
    }
    let lag = |name: &str| now(store.subscription(name)).unwrap().unwrap().lag;
    assert_eq!(define(&*store, "all", &[], Start::At(Cursor::START)).lag, 10);
    assert_eq!(define(&*store, "some", &["a", "c", "later"], Start::At(cursors[4])).lag, 4);
    let end = define(&*store, "end", &["a"], Start::End);
    assert_eq!((end.lag, end.position), (0, cursors[10]));
    now(store.acknowledge("some", cursors[7])).unwrap();
    now(store.acknowledge("all", cursors[6])).unwrap();
    assert_eq!((lag("some"), lag("all")), (2, 4));
    publish(&*store, "later", 1);
    publish(&*store, "a", 0);
    assert_eq!((lag("some"), lag("all"), lag("end")), (3, 5, 0));
    for _ in 0..2 {
        now(store.acknowledge("some", now(store.head()).unwrap())).unwrap();
        assert_eq!(lag("some"), 0);
    }
}

pub(crate) fn a_subscription_is_redefined_and_removed<F: Fixture>() {
    let store = F::empty().instance();
    let cursors: Vec<Cursor> = ["a", "b", "a", "b"]
        .iter()
        .enumerate()
        .map(|(id, topic)| Cursor::after(seq_of(publish(&*store, topic, id))))
        .collect();
    let first = define(&*store, "s", &["a"], Start::At(cursors[0]));
    assert_eq!((first.revision, first.lag), (1, 1));
    let second = define(&*store, "s", &["b"], Start::End);
    assert_eq!((second.revision, second.lag, second.position), (2, 2, cursors[0]));
    assert_eq!(second.topics, topics(&["b"]));
    assert_eq!(define(&*store, "s", &[], Start::End).lag, 3);
    define(&*store, "r", &[], Start::End);
    let list = now(store.subscriptions()).unwrap();
    assert_eq!(list.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["r", "s"]);
    let removed = now(store.remove_subscription("s")).unwrap();
    assert_eq!(removed.map(|one| one.revision), Some(3), "as it was");
    assert_eq!(now(store.remove_subscription("s")), Ok(None));
    assert_eq!(now(store.subscription("s")), Ok(None));
}

pub(crate) fn subscriptions_are_bounded<F: Fixture>() {
    let store = F::empty().instance();
    let define = |name: &str| {
        let definition = Definition { name, topics: &[], start: Start::End };
        now(store.define_subscription(definition, 2)).unwrap().is_some()
    };
    assert!(define("a") && define("b"));
    assert!(!define("c"));
    assert!(define("a"), "it is there");
    now(store.remove_subscription("b")).unwrap();
    assert!(define("c"));
}
