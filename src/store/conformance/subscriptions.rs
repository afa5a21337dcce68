//! Named subscriptions.

use super::*;

fn define(store: &dyn Store, name: &str, names: &[&str], start: Start) -> Subscription {
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

pub(crate) fn a_position_is_kept_as_it_was_given<F: Fixture>() {
    let store = F::empty().instance();
    for id in 0..3 {
        publish(&*store, "t", id);
    }
    // A place in a gap, where there are gaps.
    let before = |cursor: Cursor| Cursor::from_number(cursor.number() - 1);
    let place = before(now(store.head()).unwrap());
    define(&*store, "s", &[], Start::At(Cursor::START));
    let moved = now(store.acknowledge("s", place)).unwrap().unwrap();
    assert_eq!((moved.position, moved.lag), (place, 1));
    assert_eq!(define(&*store, "t", &["t"], Start::At(place)).position, place);
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

pub(crate) fn a_subscription_remembers_its_times<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    publish(&*store, "a", 1);
    publish(&*store, "b", 2);
    let head = now(store.head()).unwrap();
    fixture.set_now(NOW + 1);
    let new = define(&*store, "s", &["b", "a"], Start::At(Cursor::START));
    assert_eq!((new.created_at, new.acked_at), (NOW + 1, None));
    assert_eq!(new.topics, topics(&["b", "a"]), "in their order");
    fixture.set_now(NOW + 2);
    now(store.acknowledge("s", Cursor::END)).unwrap();
    assert_eq!(now(store.subscription("s")).unwrap().unwrap().acked_at, None, "it stayed");
    now(store.acknowledge("s", head)).unwrap();
    fixture.set_now(NOW + 3);
    now(store.acknowledge("s", head)).unwrap();
    let again = define(&*store, "s", &["a"], Start::End);
    assert_eq!((again.created_at, again.acked_at), (NOW + 1, Some(NOW + 2)));
    publish(&*store, "a", 3);
    let removed = now(store.remove_subscription("s")).unwrap().unwrap();
    let found = (removed.position, removed.lag, removed.acked_at, removed.topics);
    assert_eq!(found, (head, 1, Some(NOW + 2), topics(&["a"])), "as it was");
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

pub(crate) fn instances_share_subscriptions<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    publish(&*store, "t", 1);
    let defined = define(&*store, "s", &["t"], Start::At(Cursor::START));
    let other = fixture.instance();
    assert_eq!(now(other.subscription("s")), Ok(Some(defined.clone())));
    now(other.acknowledge("s", now(other.head()).unwrap())).unwrap();
    assert_eq!(now(store.subscription("s")).unwrap().unwrap().lag, 0);
    assert!(now(fixture.instance().remove_subscription("s")).unwrap().is_some());
    assert_eq!(now(store.subscriptions()), Ok(Vec::new()));
}
