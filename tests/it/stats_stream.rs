//! GET /stats/stream.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::support::{
    Auditor, Counters, Event, Rng, Server, Stream, Target, TestResult, any_server, check, check_eq,
    concurrently, event, join, own_server, test, unique_topic,
};

/// The counters of one frame, which balance or the test fails.
fn frame(event: &Event) -> Result<Counters, Failed> {
    check_eq(event.id.as_str(), "", "the id of a frame")?;
    let frame = &event.data;
    let all = Counters::of(frame);
    check(all.balance(), || format!("the counters do not balance: {frame:#}"))?;
    let topics = frame["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    for topic in topics {
        check(Counters::of(topic).balance(), || format!("{topic:#} does not balance"))?;
    }
    let received = |topic: &Value| topic["received"].as_u64();
    let most_first = topics.is_sorted_by(|one, next| received(one) >= received(next));
    let count = frame["topic_count"].as_u64().unwrap_or_default();
    let is_bounded = topics.len() as u64 == count.min(100);
    check(most_first && is_bounded && frame["rejected"].is_u64(), || format!("{frame:#}"))?;
    Ok(all)
}

/// Publishers go on until so many frames have come in between.
#[test(any_server)]
fn counters_balance_in_every_frame(target: &Target) -> TestResult {
    const PUBLISHERS: usize = 4;
    const FRAMES: usize = 6;
    let client = target.client();
    let topic = unique_topic("balance");
    let mut stream = Stream::open(&client, "/stats/stream")?;
    check_eq(stream.block()?.retry.as_deref(), Some("1000"), "retry at the beginning")?;
    // At once, although nothing changes meanwhile.
    let first = frame(&stream.event()?)?;
    let frames = AtomicUsize::new(0);
    let stored = AtomicU64::new(u64::MAX);
    let mut watch = || {
        let mut before = first;
        while before.received < stored.load(Ordering::Acquire) {
            let event = stream.event()?;
            let now = frame(&event)?;
            let rises = now.received >= before.received
                && now.unique_processed >= before.unique_processed
                && now.duplicate_dropped >= before.duplicate_dropped;
            check(rises, || format!("{before:?} fell to {:#}", event.data))?;
            before = now;
            frames.fetch_add(1, Ordering::Release);
        }
        Ok(())
    };
    let publish = |publisher: usize| {
        let mut rng = Rng(publisher as u64);
        let mut auditor = Auditor::default();
        while frames.load(Ordering::Acquire) < FRAMES {
            let ids: Vec<String> =
                (0..=rng.below(5)).map(|_| rng.below(5000).to_string()).collect();
            auditor.publish(&client, &topic, &ids)?;
        }
        Ok(auditor)
    };
    let published = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let result: TestResult = watch();
            // The publishers wait for nothing more, however it ended.
            frames.store(FRAMES, Ordering::Release);
            result
        });
        let published = concurrently(PUBLISHERS, publish).and_then(|auditors| {
            let counted = client.get("/stats")?.expect(200)?.count("received")?;
            stored.store(counted, Ordering::Release);
            // The watcher may have seen them all already: let it see one more.
            client.publish(event(&topic, "one more"))?.expect(200)?;
            Ok(auditors)
        });
        if published.is_err() {
            stored.store(0, Ordering::Release);
        }
        join(watcher).and(published)
    })?;
    let mut auditor = Auditor::merged(published);
    auditor.record_accepted("one more".to_owned());
    auditor.audit(&client, &topic)
}

/// Of more than a hundred topics those with the most deliveries, as `/stats`
/// has them.
#[test(own_server)]
fn counters_equal_those_of_stats() -> TestResult {
    const TOPICS: usize = 130;
    let server = Server::start()?;
    let client = server.client();
    let mut stream = Stream::open(&client, "/stats/stream")?;
    let empty = stream.event()?;
    check_eq(frame(&empty)?.received, 0, "received of an empty store")?;
    check_eq(empty.data["topics"].as_array().map(Vec::len), Some(0), "its topics")?;
    let mut events = Vec::new();
    for topic in 0..TOPICS {
        // Each topic has one delivery more than the one before, and a conflict.
        for delivery in 0..=topic {
            events.push(event(&format!("topic {topic}"), &(delivery / 2).to_string()));
        }
        events.push(event(&format!("topic {topic}"), "0").replace(r#""of""#, r#""not of""#));
    }
    client.publish(events.join("\n"))?.expect(200)?;
    client.publish("[{},{}]")?.expect(422)?;
    let stats = client.get("/stats")?.expect(200)?.json()?;
    let now = loop {
        let event = stream.event()?;
        frame(&event)?;
        if event.data["rejected"] == 2 {
            break event.data;
        }
    };
    for field in ["received", "unique_processed", "duplicate_dropped", "conflicts", "rejected"] {
        check_eq(&now[field], &stats[field], field)?;
    }
    check_eq(now["topic_count"].as_u64(), Some(TOPICS as u64), "topic_count")?;
    let topics = now["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (place, topic) in topics.iter().enumerate() {
        let name = format!("topic {}", TOPICS - 1 - place);
        check(topic["topic"] == *name, || format!("at {place} is {topic:#}, not {name}"))?;
        check_eq(Counters::of(topic), Counters::of(&stats["by_topic"][&name]), &name)?;
    }
    check_eq(topics.len(), 100, "topics")
}
