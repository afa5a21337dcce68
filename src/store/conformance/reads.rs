//! Pages, cursors, and the end of the log.

use super::*;

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

pub(crate) fn nothing_appears_below_the_head<F: Fixture>() {
    let fixture = F::empty();
    let stores = [fixture.instance(), fixture.instance(), fixture.instance()];
    let reader = fixture.instance();
    now(reader.probe()).unwrap();
    for round in 0..20 {
        let deliveries: Vec<Deliveries> = (0..stores.len())
            .map(|writer| {
                let id = format!("{}{round}", ["a", "bb", "c"][(writer + round) % 3]);
                encode(&*stores[writer], &[event::sample("t", &id, "1")], Vec::new())
            })
            .collect();
        let groups: Vec<[&Deliveries; 1]> = deliveries.iter().map(|one| [one]).collect();
        let mut appends: Vec<_> = stores
            .iter()
            .zip(&groups)
            .map(|(store, group)| Some(store.append(group, None)))
            .collect();
        let mut read: Option<(Cursor, Vec<String>)> = None;
        while appends.iter().any(Option::is_some) {
            for append in &mut appends {
                if let Some(running) = append
                    && let Some(settled) = poll(running.as_mut())
                {
                    settled.unwrap();
                    *append = None;
                }
                let head = now(reader.head()).unwrap();
                if let Some((up_to, seen)) = read.take() {
                    let filter = Filter { up_to: Some(up_to), ..Filter::default() };
                    assert_eq!(ids(&*reader, &filter), seen, "up to {up_to}");
                }
                let filter = Filter { up_to: Some(head), ..Filter::default() };
                read = Some((head, ids(&*reader, &filter)));
            }
        }
    }
    assert_eq!(page(&*reader, &Filter::default()).len(), 60);
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

pub(crate) fn filters_hold_together<F: Fixture>() {
    let store = F::empty().instance();
    let mut cursors = vec![Cursor::START];
    for index in 0..12 {
        let (topic, source) = (["a", "b"][index % 2], ["s", "t", "u"][index % 3]);
        let events = [event_of(topic, &index.to_string(), source, None)];
        cursors.push(Cursor::after(seq_of(append(&*store, &events)[0])));
    }
    // Each bound binds, whichever others there are.
    for names in [&[][..], &["a"], &["b"], &["a", "b"], &["b", "none"]] {
        for source in [None, Some("s"), Some("u")] {
            for order in [Order::Ascending, Order::Descending] {
                for from in [None, Some(2), Some(6), Some(11)] {
                    for after in [None, Some(4), Some(8)] {
                        for up_to in [None, Some(5), Some(10)] {
                            let at = |place: Option<usize>| place.map(|place| cursors[place]);
                            let filter = Filter {
                                topics: topics(names),
                                source: source.map(str::to_owned),
                                order,
                                from: at(from),
                                after: at(after),
                                up_to: at(up_to),
                                ..Filter::default()
                            };
                            let mut expected: Vec<usize> = (0..12)
                                .filter(|index| {
                                    let place = index + 1;
                                    let goes_on = from.is_none_or(|from| match order {
                                        Order::Ascending => place > from,
                                        Order::Descending => place < from,
                                    });
                                    goes_on
                                        && after.is_none_or(|after| place > after)
                                        && up_to.is_none_or(|up_to| place <= up_to)
                                        && (names.is_empty()
                                            || names.contains(&["a", "b"][index % 2]))
                                        && source
                                            .is_none_or(|one| one == ["s", "t", "u"][index % 3])
                                })
                                .collect();
                            if order == Order::Descending {
                                expected.reverse();
                            }
                            let expected: Vec<String> =
                                expected.iter().map(ToString::to_string).collect();
                            assert_eq!(ids(&*store, &filter), expected, "{filter:?}");
                        }
                    }
                }
            }
        }
    }
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
        let place = Some(cursors[before]);
        let between = |since, until| now(store.received_between(since, until));
        assert_eq!(between(Some(moment), None), Ok((place, None)), "{moment}");
        assert_eq!(between(None, Some(moment)), Ok((None, place)), "{moment}");
    }
}

pub(crate) fn a_clock_that_was_far_ahead_is_not_followed<F: Fixture>() {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let fixture = F::empty();
    let store = fixture.instance();
    let clock = [0, 10, DAY, DAY + 10, 20, 30, 30, 2 * DAY, 40, 50].map(|since| NOW + since);
    for (id, time) in clock.into_iter().enumerate() {
        fixture.set_now(time);
        publish(&*store, "t", id);
    }
    let stored = page(&*store, &Filter::default());
    assert_eq!(stored.iter().map(|event| event.received_at).collect::<Vec<_>>(), clock);
    assert!(stored.is_sorted_by_key(|event| event.seq), "order comes from seq");
    assert_eq!(store.take_notices().len(), 2, "each time that it was set back");

    let moments = clock.iter().flat_map(|time| [time - 1, *time, time + 1]);
    let moments: Vec<_> = moments.map(Some).chain([None]).collect();
    for since in &moments {
        for until in &moments {
            for order in [Order::Ascending, Order::Descending] {
                let (after, up_to) = now(store.received_between(*since, *until)).unwrap();
                let filter = Filter {
                    order,
                    after,
                    up_to,
                    since: *since,
                    until: *until,
                    ..Filter::default()
                };
                let mut expected: Vec<String> = (0..clock.len())
                    .filter(|id| since.is_none_or(|since| clock[*id] >= since))
                    .filter(|id| until.is_none_or(|until| clock[*id] < until))
                    .map(|id| id.to_string())
                    .collect();
                if order == Order::Descending {
                    expected.reverse();
                }
                assert_eq!(ids(&*store, &filter), expected, "{filter:?}");
            }
        }
    }
}

pub(crate) fn a_far_future_changes_no_outcome<F: Fixture>() {
    let fixture = F::empty();
    let store = fixture.instance();
    fixture.set_now(NOW + 1_000_000);
    publish(&*store, "t", 1);
    fixture.set_now(NOW);
    assert_eq!(publish(&*store, "t", 1), Outcome::Duplicate);
    let increments = Increments::from([("a".to_owned(), 3)]);
    let deliveries = encode(&*store, &[event::sample("t", "1", "2")], vec!["topic"]);
    let outcomes = now(store.append(&[&deliveries], Some(&increments))).unwrap();
    assert_eq!(outcomes, [Outcome::Conflict]);
    assert!(matches!(publish(&*store, "t", 2), Outcome::Accepted { .. }));
    let measures = now(store.measures(1)).unwrap();
    assert_eq!((measures.rejected, measures.counted["a"]), (1, 3));
    assert_eq!(measures.topics[0].counters, counters(2, 2, 1));
    let events = page(&*store, &Filter::default());
    assert_eq!(events[1].received_at, NOW);
}
