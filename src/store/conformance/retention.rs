//! Pruning: contents go, identities stay, and readers go on.

use super::*;
use crate::event::TopicPattern;
use crate::store::{Kept, Prune, Pruned, TopicGroup};
use crate::time::DAY_MS;

/// The claim of whoever prunes here.
const CLAIM: Claim<'_> = Claim { mark: "pruning", now: NOW, for_ms: 1_000 };

/// Makes [`CLAIM`].
pub(crate) fn claim_pruning(store: &dyn Store) -> Claimed<'static> {
    now(store.claim(CLAIM)).unwrap().unwrap()
}

/// Everything, but for what a test says otherwise. Whoever prunes has [`CLAIM`].
pub(crate) fn everything(group: &TopicGroup) -> Prune<'_> {
    Prune {
        claimed: CLAIM.into(),
        group,
        after: Cursor::START,
        up_to: Cursor::END,
        received_before: None,
        events_max: 1000,
        bytes_enough: None,
    }
}

fn group(of: Option<&str>, but: &[&str]) -> TopicGroup {
    let pattern = |text: &str| TopicPattern::new(text.to_owned());
    TopicGroup { of: of.map(pattern), but: but.iter().map(|text| pattern(text)).collect() }
}

/// Prunes in one step, which has to do.
fn prune(store: &dyn Store, prune: Prune<'_>) -> i64 {
    now(store.prune(prune)).unwrap().unwrap().events
}

fn counters_of(store: &dyn Store, topic: &str) -> Counters {
    let totals = now(store.totals(TOPICS)).unwrap();
    totals.topics.iter().find(|one| one.topic == topic).unwrap().counters
}

fn lag(store: &dyn Store, name: &str) -> i64 {
    now(store.subscription(name)).unwrap().unwrap().lag
}

pub(crate) fn a_pruned_event_is_still_a_duplicate<F: Fixture>() {
    let store = F::empty().instance();
    claim_pruning(&*store);
    let seqs: Vec<Seq> = (0..5).map(|id| seq_of(publish(&*store, "t", id))).collect();
    let all = group(None, &[]);
    assert_eq!(now(store.pruned_up_to(&[])), Ok(Cursor::START));
    let step = Prune { up_to: Cursor::after(seqs[2]), ..everything(&all) };
    let pruned = now(store.prune(step)).unwrap().unwrap();
    // An id of one character, a source of one, and a payload of one.
    let bytes = 3 * page(&*store, &Filter::default())[0].source.len() as i64 + 3 + 3;
    assert_eq!(pruned, Pruned { events: 3, bytes, up_to: Cursor::after(seqs[2]) });
    assert_eq!(prune(&*store, step), 0, "once");
    assert_eq!(ids(&*store, &Filter::default()), ["3", "4"]);
    assert_eq!(now(store.pruned_up_to(&[])), Ok(Cursor::after(seqs[2])));
    assert_eq!(now(store.pruned_up_to(&topics(&["t"]))), Ok(Cursor::after(seqs[2])));
    assert_eq!(now(store.pruned_up_to(&topics(&["u"]))), Ok(Cursor::START));

    for id in 0..5 {
        assert_eq!(publish(&*store, "t", id), Outcome::Duplicate, "{id}");
    }
    let other = append(&*store, &[event::sample("t", "0", "2"), event::sample("u", "0", "1")]);
    assert_eq!(other[0], Outcome::Conflict);
    assert!(seq_of(other[1]) > seqs[4]);
    let expected = Counters { pruned: 3, ..counters(5, 6, 1) };
    assert_eq!(counters_of(&*store, "t"), expected);
    let summary = now(store.summary(1)).unwrap();
    assert_eq!((summary.all.pruned, summary.topics[0].counters), (3, expected));
    let measures = now(store.measures(0)).unwrap();
    assert_eq!(measures.other_topics.unwrap().pruned, 3);
    assert_eq!(now(store.totals(TopicRange::NONE)).unwrap().all.pruned, 3);
}

pub(crate) fn all_events_can_be_pruned<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    claim_pruning(&*store);
    fixture.set_now(NOW + 5);
    let seqs: Vec<Seq> = (0..3).map(|id| seq_of(publish(&*store, "t", id))).collect();
    let head = now(store.head()).unwrap();
    let all = group(None, &[]);
    assert_eq!(prune(&*store, everything(&all)), 3);
    assert_eq!(prune(&*store, everything(&all)), 0);
    assert_eq!(page(&*store, &Filter::default()), []);
    assert_eq!(
        now(store.kept(&all)).unwrap(),
        Kept { before_oldest: Cursor::END, ..Kept::default() }
    );
    assert_eq!(now(store.head()), Ok(head));
    assert_eq!(now(store.pruned_up_to(&[])), Ok(head));
    let between = now(store.received_between(Some(NOW), None)).unwrap();
    assert!(between.0 <= Some(head), "{between:?}");
    assert_eq!(publish(&*fixture.instance(), "t", 2), Outcome::Duplicate);
    // The clock was set back a little: times do not go back.
    fixture.set_now(NOW);
    let next = seq_of(publish(&*store, "u", 0));
    assert!(next > seqs[2], "a place is never used again");
    let stored = page(&*store, &Filter::default());
    assert_eq!((stored.len(), stored[0].seq, stored[0].received_at), (1, next, NOW + 5));
    assert_eq!(now(store.kept(&all)).unwrap().events, 1);
    let newest = Filter { order: Order::Descending, ..Filter::default() };
    assert_eq!(now(store.page(&newest, PageLimit { events_max: 1, ..ALL })).unwrap().len(), 1);
    let first = now(store.page(&Filter::default(), PageLimit { events_max: 1, ..ALL })).unwrap();
    assert_eq!(first.len(), 1, "what was pruned takes no room on a page");
}

pub(crate) fn pruning_keeps_to_what_it_was_asked_for<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    claim_pruning(&*store);
    // Characters that mean something to one engine or the other.
    let names = ["a.x", "a.y", "A.x", "b", "[b]", "b?", "a%", "a_", "a\\", "a*"];
    let mut seqs = Vec::new();
    for (round, name) in (0..3).flat_map(|round| names.map(|name| (round, name))) {
        fixture.set_now(NOW + round);
        seqs.push(seq_of(publish(&*store, name, round)));
    }
    let left = |of: Option<&str>, but: &[&str]| now(store.kept(&group(of, but))).unwrap().events;
    assert_eq!(left(None, &[]), 30);
    for (pattern, expected) in [
        ("a.*", 6),
        ("a*", 18),
        ("b", 3),
        ("b*", 6),
        ("[b]", 3),
        ("b?", 3),
        ("a%", 3),
        ("a_", 3),
        ("a\\", 3),
        ("*", 30),
        ("*.x", 6),
        ("c", 0),
    ] {
        assert_eq!(left(Some(pattern), &[]), expected, "{pattern}");
        assert_eq!(left(None, &[pattern]), 30 - expected, "but {pattern}");
    }
    assert_eq!(left(Some("a*"), &["a.*", "a%"]), 9);
    let of_a = group(Some("a.*"), &["a.y"]);
    let kept = now(store.kept(&of_a)).unwrap();
    assert_eq!(kept.events, 3);
    assert!(kept.before_oldest < Cursor::after(seqs[0]));
    let of_y = now(store.kept(&group(Some("a.y"), &[]))).unwrap();
    assert!((Cursor::after(seqs[0])..Cursor::after(seqs[1])).contains(&of_y.before_oldest));

    // The oldest, so many at most.
    let step = Prune { events_max: 2, ..everything(&of_a) };
    let pruned = now(store.prune(step)).unwrap().unwrap();
    assert_eq!(pruned.events, 2);
    assert!(pruned.up_to >= Cursor::after(seqs[10]) && pruned.up_to < Cursor::after(seqs[20]));
    assert_eq!((left(Some("a.x"), &[]), left(Some("a.y"), &[])), (1, 3));
    // Going on from there finds the rest, and nothing twice.
    assert_eq!(prune(&*store, Prune { after: pruned.up_to, ..step }), 1);
    assert_eq!(left(Some("a.x"), &[]), 0);
    // Between places.
    let of_b = group(Some("b"), &[]);
    let between = Prune {
        after: Cursor::after(seqs[3]),
        up_to: Cursor::after(seqs[13]),
        ..everything(&of_b)
    };
    assert_eq!((prune(&*store, between), left(Some("b"), &[])), (1, 2));
    // By time.
    let before = Prune { received_before: Some(NOW + 2), ..everything(&of_b) };
    assert_eq!((prune(&*store, before), left(Some("b"), &[])), (1, 1));
    // By bytes: with two events there are enough.
    let of_c = group(Some("a%"), &[]);
    let bytes = now(store.kept(&of_c)).unwrap().bytes / 3;
    let enough = Prune { bytes_enough: Some(bytes + 1), ..everything(&of_c) };
    let pruned = now(store.prune(enough)).unwrap().unwrap();
    assert_eq!((pruned.events, pruned.bytes), (2, 2 * bytes));
    assert_eq!(now(store.kept(&of_c)).unwrap().bytes, bytes);
    let all = now(store.kept(&group(None, &[]))).unwrap().bytes;
    assert!(all > bytes && now(store.measures(1)).unwrap().content_bytes == all);
    assert_eq!(counters_of(&*store, "a%").pruned, 2);
    assert_eq!(left(None, &[]), 30 - 3 - 2 - 2);
}

pub(crate) fn pruning_in_steps_comes_to_an_end<F: Fixture>() {
    let store = F::empty().instance();
    claim_pruning(&*store);
    // Those of one topic are far between.
    let events: Vec<Event> = (0..3000)
        .map(|id| event::sample(if id % 500 == 7 { "rare" } else { "t" }, &id.to_string(), "1"))
        .collect();
    for part in events.chunks(500) {
        append(&*store, part);
    }
    let head = now(store.head()).unwrap();
    for (name, expected) in [("rare", 6), ("t", 2994)] {
        let of = group(Some(name), &[]);
        let mut after = now(store.kept(&of)).unwrap().before_oldest;
        let (mut pruned, mut steps) = (0, 0);
        while after < head {
            let step = Prune { after, up_to: head, events_max: 100, ..everything(&of) };
            let done = now(store.prune(step)).unwrap().unwrap();
            assert!(done.up_to > after && done.up_to <= head, "{done:?}");
            assert!(done.events <= 100);
            (after, pruned, steps) = (done.up_to, pruned + done.events, steps + 1);
            assert!(steps < 100, "no end");
        }
        assert_eq!(pruned, expected, "{name}");
    }
    assert_eq!(page(&*store, &Filter::default()), []);
}

pub(crate) fn pruning_ends_with_its_claim<F: Fixture>() {
    let fixture = F::empty();
    let (one, other) = (fixture.instance(), fixture.instance());
    append(&*one, &["0", "1", "2"].map(|id| event::sample("t", id, "1")));
    let all = group(None, &[]);
    let one_of = |claimed| Prune { claimed, events_max: 1, ..everything(&all) };
    let nobodys = Claimed::from(CLAIM);
    assert_eq!(now(one.prune(one_of(nobodys))), Ok(None), "nobody has made it");
    let first = claim_pruning(&*one);
    assert_eq!(prune(&*one, one_of(first)), 1);
    let next = Claim { now: NOW + CLAIM.for_ms, ..CLAIM };
    let second = now(other.claim(next)).unwrap().unwrap();
    assert_eq!(now(one.prune(one_of(first))), Ok(None), "it is another's");
    assert_eq!(ids(&*one, &Filter::default()), ["1", "2"]);
    assert_eq!(prune(&*other, one_of(second)), 1);
    let of_another_name = Claimed { mark: "other", ..second };
    assert_eq!(now(other.prune(one_of(of_another_name))), Ok(None));
    now(other.release(second, &[])).unwrap();
    assert_eq!(now(other.prune(one_of(second))), Ok(None), "it was given back");
    assert_eq!((ids(&*one, &Filter::default()).len(), counters_of(&*one, "t").pruned), (1, 2));
}

pub(crate) fn a_lag_counts_what_is_left<F: Fixture>() {
    let store = F::empty().instance();
    claim_pruning(&*store);
    let both = ["t", "u"];
    let seqs: Vec<Seq> = (0..10).map(|id| seq_of(publish(&*store, both[id % 2], id))).collect();
    let define = |name, of: &[&str], start| {
        let topics = topics(of);
        let definition = Definition { name, topics: &topics, start };
        now(store.define_subscription(definition, 100)).unwrap().unwrap()
    };
    let at = |index: usize| Start::At(Cursor::after(seqs[index]));
    let first = Start::At(Cursor::START);
    for (name, of, start) in [
        ("all", &[][..], first),
        ("all 3", &[], at(3)),
        ("all end", &[], Start::End),
        ("t", &["t"], first),
        ("t 3", &["t"], at(3)),
        ("both 8", &["t", "u"], at(8)),
    ] {
        define(name, of, start);
    }
    let lags = |expected: [i64; 6]| {
        let names = ["all", "all 3", "all end", "t", "t 3", "both 8"];
        assert_eq!(names.map(|name| lag(&*store, name)), expected);
    };
    lags([10, 6, 0, 5, 3, 1]);
    // t 0 and 2 go, and u 1.
    let all = group(None, &[]);
    prune(&*store, Prune { up_to: Cursor::after(seqs[2]), ..everything(&all) });
    lags([7, 6, 0, 3, 3, 1]);
    // t 4 and 6 go: there is a hole.
    let of_t = group(Some("t"), &[]);
    prune(&*store, Prune { up_to: Cursor::after(seqs[6]), ..everything(&of_t) });
    lags([5, 4, 0, 1, 1, 1]);

    // Over the hole, and to a place that was pruned.
    let acknowledge = |name, index: usize| {
        now(store.acknowledge(name, Cursor::after(seqs[index]))).unwrap().unwrap().lag
    };
    assert_eq!(acknowledge("all", 1), 5, "nothing is left up to there");
    assert_eq!(acknowledge("all", 5), 3);
    assert_eq!(acknowledge("all 3", 4), 4);
    assert_eq!(acknowledge("all 3", 9), 0);
    assert_eq!(acknowledge("t", 6), 1);
    assert_eq!(acknowledge("t 3", 8), 0);

    // Those that are defined now count the same.
    for (name, of, start, expected) in [
        ("new", &[][..], first, 5),
        ("new 1", &[], at(1), 5),
        ("new 3", &[], at(3), 4),
        ("new 4", &[], at(4), 4),
        ("new 9", &[], at(9), 0),
        ("new end", &[], Start::End, 0),
        ("new t", &["t"], first, 1),
        ("new t 7", &["t"], at(7), 1),
        ("new u 3", &["u"], at(3), 3),
        ("new both", &["t", "u"], first, 5),
    ] {
        assert_eq!(define(name, of, start).lag, expected, "{name}");
    }
    assert_eq!(define("t 3", &["u", "t"], first).lag, 1, "u 9, after t 8");
    seq_of(publish(&*store, "u", "next"));
    assert_eq!(["all", "all end", "new t", "t 3"].map(|name| lag(&*store, name)), [4, 1, 1, 2]);

    // All of it.
    prune(&*store, everything(&all));
    for one in now(store.subscriptions()).unwrap() {
        assert_eq!(one.lag, 0, "{}", one.name);
    }
    assert_eq!(define("last", &[], first).lag, 0);
    assert_eq!(define("last t", &["t"], first).lag, 0);
    seq_of(publish(&*store, "t", "after"));
    assert_eq!(["last", "last t", "all"].map(|name| lag(&*store, name)), [1, 1, 1]);
}

pub(crate) fn times_are_found_among_what_is_left<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    claim_pruning(&*store);
    for id in 0..40 {
        fixture.set_now(NOW + id * 10);
        publish(&*store, if id % 4 == 0 { "kept" } else { "t" }, id);
    }
    let of_t = group(Some("t"), &[]);
    prune(&*store, Prune { received_before: Some(NOW + 300), ..everything(&of_t) });
    prune(&*store, Prune { received_before: Some(NOW + 50), ..everything(&group(None, &[])) });
    let left: Vec<i64> = (0..40).filter(|id| *id >= 30 || *id >= 5 && id % 4 == 0).collect();
    assert_eq!(
        ids(&*store, &Filter::default()),
        left.iter().map(i64::to_string).collect::<Vec<_>>()
    );
    for moment in (-10..420).step_by(5) {
        let moment = NOW + moment;
        let (after, up_to) = now(store.received_between(Some(moment), Some(moment))).unwrap();
        let since = Filter { after, since: Some(moment), ..Filter::default() };
        let until = Filter { up_to, until: Some(moment), ..Filter::default() };
        let expected = |is_wanted: &dyn Fn(i64) -> bool| -> Vec<String> {
            left.iter().filter(|id| is_wanted(**id)).map(i64::to_string).collect()
        };
        assert_eq!(ids(&*store, &since), expected(&|id| NOW + id * 10 >= moment));
        assert_eq!(ids(&*store, &until), expected(&|id| NOW + id * 10 < moment));
    }
}

pub(crate) fn identities_are_forgotten_when_they_may_be<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    claim_pruning(&*store);
    for id in 0..10 {
        fixture.set_now(NOW + id * DAY_MS);
        publish(&*store, if id % 2 == 0 { "t" } else { "u" }, id);
    }
    let all = group(None, &[]);
    prune(&*store, Prune { received_before: Some(NOW + 6 * DAY_MS), ..everything(&all) });
    // Those of the days 0 to 3, of 6 that were pruned, in looks of 3.
    let before = NOW + 4 * DAY_MS;
    let (mut forgotten, mut looked_at, mut looks) = (0, 0, 0);
    loop {
        // Whichever instance looks.
        let look = now(fixture.instance().forget(before, 3)).unwrap();
        assert!(look.looked_at <= 3 && look.forgotten <= look.looked_at);
        (forgotten, looked_at) = (forgotten + look.forgotten, looked_at + look.looked_at);
        looks += 1;
        assert!(looks < 10, "no end");
        if look.was_last {
            break;
        }
    }
    assert_eq!((forgotten, looked_at), (4, 10));
    let pruned = |topic| counters_of(&*store, topic).pruned;
    assert_eq!((pruned("t"), pruned("u")), (3, 3));
    for id in 0..10 {
        let outcome = publish(&*store, if id % 2 == 0 { "t" } else { "u" }, id);
        match outcome {
            Outcome::Accepted { .. } if id < 4 => {}
            Outcome::Duplicate if id >= 4 => {}
            other => panic!("{id}: {other:?}"),
        }
    }
    // The next look begins with the first, and forgets nothing that is not pruned.
    let look = now(store.forget(NOW + 100 * DAY_MS, 1000)).unwrap();
    assert_eq!((look.looked_at, look.forgotten, look.was_last), (10, 2, true));
}
