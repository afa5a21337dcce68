//! Commits: identities, outcomes, and what is stored.

use super::*;

pub(crate) fn an_empty_store_is_empty<F: Fixture>() {
    let store = F::empty().instance();
    now(store.probe()).unwrap();
    assert_eq!(now(store.head()), Ok(Cursor::START));
    let all = now(store.received_between(Some(NOW), Some(NOW)));
    assert_eq!(all, Ok((Some(Cursor::START), Some(Cursor::START))));
    assert_eq!(page(&*store, &Filter::default()), []);
    let totals = now(store.totals(TOPICS)).unwrap();
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

pub(crate) fn identities_are_compared_exactly<F: Fixture>() {
    let store = F::empty().instance();
    let identities = [
        ("a", "bc"),
        ("ab", "c"),
        ("A", "bc"),
        ("a", "BC"),
        ("a", "bc "),
        (" a", "bc"),
        ("\u{e9}", "1"),
        ("e\u{301}", "1"),
        ("a", "01"),
        ("a", "1"),
        ("a", "1.0"),
    ];
    for (topic, id) in identities {
        seq_of(publish(&*store, topic, id));
    }
    let totals = now(store.totals(TOPICS)).unwrap();
    let names: Vec<&str> = totals.topics.iter().map(|one| one.topic.as_str()).collect();
    assert_eq!(names, [" a", "A", "a", "ab", "e\u{301}", "\u{e9}"], "in the order of their bytes");
    let only = Filter { topics: topics(&["a"]), ..Filter::default() };
    assert_eq!(ids(&*store, &only), ["bc", "BC", "bc ", "01", "1", "1.0"]);
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
    let totals = now(store.totals(TOPICS)).unwrap();
    let Counters { unique_processed, duplicate_dropped, conflicts, .. } = totals.topics[0].counters;
    assert_eq!((unique_processed, duplicate_dropped, conflicts), (2, 2, 1));
    assert_eq!(totals.rejected, 1);
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
    let totals = now(stores[1].totals(TOPICS)).unwrap();
    assert_eq!(totals.all, counters(30, 60, 0));
}

pub(crate) fn a_commit_is_seen_whole_or_not_at_all<F: Fixture>() {
    let fixture = F::empty();
    let (writer, reader) = (fixture.instance(), fixture.instance());
    now(reader.probe()).unwrap();
    let events = [event::sample("t", "a", "1"), event::sample("u", "b", "1")];
    let deliveries = encode(&*writer, &events, vec!["topic"]);
    let counts: Increments = [("n".to_owned(), 1)].into();
    let group = [&deliveries];
    let mut append = pin!(writer.append(&group, Some(&counts)));
    loop {
        let done = poll(append.as_mut()).is_some();
        let measures = now(reader.measures(9)).unwrap();
        let named = measures.topics.iter().map(|one| one.counters.unique_processed);
        let seen = (
            page(&*reader, &Filter::default()).len(),
            named.sum::<i64>(),
            measures.rejected,
            measures.counted.len(),
        );
        assert!(seen == (2, 2, 1, 2) || (!done && seen == (0, 0, 0, 0)), "{seen:?}");
        if done {
            break;
        }
    }
}

pub(crate) fn a_commit_that_nobody_waited_for_is_whole_or_not_there<F: Fixture>() {
    for polls in 0..8 {
        let fixture = F::empty();
        let store = fixture.instance();
        now(store.probe()).unwrap();
        let events = [event::sample("t", "a", "1"), event::sample("t", "b", "1")];
        let deliveries = encode(&*store, &events, vec!["topic"]);
        {
            let group = [&deliveries];
            let mut append = pin!(store.append(&group, None));
            for _ in 0..polls {
                if poll(append.as_mut()).is_some() {
                    break;
                }
            }
        }
        let totals = now(store.totals(TOPICS)).unwrap();
        let seen = (totals.all.unique_processed, totals.rejected);
        assert!(seen == (0, 0) || seen == (2, 1), "{seen:?} after {polls} polls");
        let again = now(store.append(&[&deliveries], None)).unwrap();
        let accepted = again.iter().filter(|one| matches!(one, Outcome::Accepted { .. })).count();
        assert_eq!(accepted, if seen.0 == 0 { 2 } else { 0 });
        assert_eq!(page(&*store, &Filter::default()).len(), 2);
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

pub(crate) fn a_timestamp_comes_back<F: Fixture>() {
    let store = F::empty().instance();
    append(&*store, &[event_of("t", "1", "s", Some("2025-10-23 10:00"))]);
    let stored = page(&*store, &Filter::default());
    assert_eq!(stored[0].timestamp.as_deref(), Some("2025-10-23 10:00"));
}
