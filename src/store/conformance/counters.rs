//! Counters.

use super::*;

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
    let totals = now(store.totals(TOPICS)).unwrap();
    let topic = |topic: &str, counters| TopicCounters { topic: topic.to_owned(), counters };
    let expected = [topic("t", counters(2, 2, 1)), topic("u", counters(1, 1, 0))];
    assert_eq!(totals.topics, expected, "in the order of their names");
    assert_eq!(totals.all, counters(3, 3, 1));
    assert_eq!(totals.all.received(), 6);
}

pub(crate) fn topics_come_in_pages<F: Fixture>() {
    let store = F::empty().instance();
    // In the order of their bytes, whichever came first.
    for topic in ["b", "é", "a", "B", "aa"] {
        publish(&*store, topic, 1);
    }
    let page = |after: &str, topics_max: usize| {
        let totals = now(store.totals(TopicRange { after, topics_max })).unwrap();
        assert_eq!((totals.all, totals.topic_count), (counters(5, 0, 0), 5), "after {after}");
        let names: Vec<String> = totals.topics.into_iter().map(|one| one.topic).collect();
        (names.join(" "), totals.has_more)
    };
    assert_eq!(page("", 2), ("B a".to_owned(), true));
    assert_eq!(page("a", 2), ("aa b".to_owned(), true));
    assert_eq!(page("b", 2), ("é".to_owned(), false));
    assert_eq!(page("", 5), ("B a aa b é".to_owned(), false));
    assert_eq!(page("é", 5), (String::new(), false));
    assert_eq!(page("ab", 1), ("b".to_owned(), true), "after a topic that there is not");
    assert_eq!(page("", 0), (String::new(), true));
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
    assert_eq!(now(store.totals(TOPICS)).unwrap().rejected, 3);
}

pub(crate) fn a_summary_counts_rejections<F: Fixture>() {
    let store = F::empty().instance();
    now(store.append(&[&encode(&*store, &[], vec!["topic", "event"])], None)).unwrap();
    assert_eq!(now(store.summary(9)).unwrap().rejected, 2);
}

pub(crate) fn the_busiest_topics_are_summed_up<F: Fixture>() {
    let store = F::empty().instance();
    for (topic, id) in [("a", 1), ("b", 1), ("b", 1), ("b", 2), ("c", 1), ("c", 1)] {
        publish(&*store, topic, id);
    }
    let none = now(store.summary(0)).unwrap();
    let summary = now(store.summary(2)).unwrap();
    assert_eq!((none.topics.len(), none.all), (0, summary.all));
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

pub(crate) fn marks_are_kept_and_a_claim_is_held_by_one<F: Fixture>() {
    let fixture = F::empty();
    let (one, other) = (fixture.instance(), fixture.instance());
    assert_eq!(now(one.marks()).unwrap().at("a"), 0);
    now(one.set_marks(&[("a", 7), ("b", NOW)])).unwrap();
    now(one.set_marks(&[("a", 5)])).unwrap();
    let marks = now(other.marks()).unwrap();
    assert_eq!((marks.at("a"), marks.at("b"), marks.at("c")), (5, NOW, 0));
    assert!(now(one.measures(1)).unwrap().counted.is_empty(), "they are no counters");

    let claim = |store: &dyn Store, at| {
        let claim = Claim { mark: "claim", now: at, for_ms: 1000 };
        let claimed = now(store.claim(claim)).unwrap();
        assert!(claimed.is_none_or(|claimed| claimed.until == at + 1000));
        claimed.is_some()
    };
    assert!(claim(&*one, NOW));
    assert!(!claim(&*one, NOW), "also not by the same");
    assert!(!claim(&*other, NOW + 999));
    assert!(claim(&*other, NOW + 1000));
    assert_eq!(now(one.marks()).unwrap().at("claim"), NOW + 2000);
    // Whoever asks may have read his clock a while ago, or have one that is behind.
    assert!(!claim(&*one, NOW + 999), "it ends more than a second later");
    assert!(!claim(&*one, NOW));
    assert!(claim(&*one, NOW - 1), "that of a clock that was ahead holds nobody off");
    let at = |name: &str| now(one.marks()).unwrap().at(name);
    let until = |until| Claimed { mark: "claim", until };
    now(other.release(until(NOW + 1000), &[("a", 6)])).unwrap();
    assert_eq!((at("claim"), at("a")), (NOW + 999, 5), "it is another's");
    now(one.release(until(NOW + 999), &[("a", 6), ("c", 7)])).unwrap();
    assert_eq!((at("claim"), at("a"), at("c")), (0, 6, 7));
    assert!(claim(&*other, NOW));
    now(one.release(until(NOW + 1000), &[])).unwrap();
    assert_eq!(at("claim"), 0);
}
