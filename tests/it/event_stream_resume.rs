//! GET /events/stream: subscribers that lose their connection, or the host, and resume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::crash_load::CrashLoad;
use crate::support::{
    Auditor, Client, Event, Rng, ServerOptions, Stream, Target, TestResult, any_server, check,
    check_eq, concurrently, end_cursor, event, event_stream_path, join, own_server, test,
    unique_topic, wait_until,
};

/// The id of the event after which a subscriber has all of a topic.
const LAST: &str = "last";

/// A subscriber of some topics.
struct Subscriber<'a> {
    client: Client,
    path: String,
    /// Those whose events it keeps. Others come only where the path names none.
    topics: &'a [String],
    /// It drops each connection after so many bytes at most, or after more where
    /// an event is larger than that.
    bytes_max: u64,
    seed: u64,
}

impl Subscriber<'_> {
    /// Drops and resumes until the last event of each topic has come.
    /// `may_be_lost` says whether a connection may be lost otherwise.
    fn follow(&self, may_be_lost: impl Fn() -> TestResult) -> Result<Received, Failed> {
        let mut rng = Rng(self.seed);
        let mut received = Received::default();
        let mut last_id = String::new();
        let mut last_seq = 0;
        let mut ended = 0;
        let mut bytes_max = self.bytes_max;
        loop {
            let bytes = 1 + rng.below(bytes_max);
            let mut stream = wait_until("the stream is open", || {
                match Stream::resume(&self.client, &self.path, &last_id, bytes) {
                    Ok(stream) => Ok(Some(stream)),
                    Err(failed) => may_be_lost().map_err(|_| failed).map(|()| None),
                }
            })?;
            while let Some(event) = stream.event_if_any()? {
                let seq = event.data["seq"].as_i64().unwrap_or_default();
                check(event.id == seq.to_string() && seq > last_seq, || {
                    format!("after {last_seq} came {event:?} on {}", self.path)
                })?;
                last_seq = seq;
                let is_kept = self.topics.iter().any(|topic| topic == event.topic());
                check(is_kept || !self.path.contains("topic="), || {
                    format!("nobody asked for {event:?} on {}", self.path)
                })?;
                if is_kept {
                    ended += usize::from(event.event_id() == LAST);
                    received.events.push(event);
                }
                if ended == self.topics.len() {
                    return Ok(received);
                }
            }
            if let Some(why) = stream.broken {
                may_be_lost().map_err(|_| why)?;
            }
            received.cut_inside += usize::from(stream.cut_inside);
            if stream.last_id.is_empty() || stream.last_id == last_id {
                bytes_max = bytes_max.saturating_mul(2);
            } else {
                bytes_max = self.bytes_max;
                last_id = stream.last_id;
            }
        }
    }
}

/// What a subscriber received.
#[derive(Default)]
struct Received {
    events: Vec<Event>,
    /// Connections that were dropped in the middle of a block.
    cut_inside: usize,
}

impl Received {
    /// Each event of the pages came once, in their order and with their content.
    fn check(&self, pages: &[Value]) -> TestResult {
        let events = &self.events;
        let differs = events.iter().zip(pages).position(|(event, row)| event.data != *row);
        check(differs.is_none() && events.len() == pages.len(), || {
            let place = differs.unwrap_or(events.len().min(pages.len()));
            let (event, row) = (events.get(place), pages.get(place));
            format!(
                "{} events of {} were received; at {place} {event:?}, stored is {row:?}",
                events.len(),
                pages.len()
            )
        })
    }
}

/// The events of these topics as pages have them, in the order of `seq`.
fn pages(client: &Client, topics: &[String]) -> Result<Vec<Value>, Failed> {
    let mut events = Vec::new();
    for topic in topics {
        events.extend(client.all_events(topic)?);
    }
    events.sort_by_key(|event| event["seq"].as_i64());
    Ok(events)
}

#[test(any_server)]
fn a_subscriber_that_reconnects_gets_each_event_once(target: &Target) -> TestResult {
    const PUBLISHERS: u64 = 4;
    const EVENTS: u64 = 10_000;
    let client = target.client();
    let topics = [unique_topic("a"), unique_topic("b"), unique_topic("c")];
    let from_the_end = format!("/events/stream?after={}", end_cursor(&client)?);
    let subscriber = |path: String, topics, seed| Subscriber {
        client: target.client(),
        path,
        topics,
        bytes_max: 60_000,
        seed,
    };
    let subscribers = [
        subscriber(from_the_end.clone(), &topics[..], 1),
        subscriber(from_the_end, &topics[..], 2),
        subscriber(event_stream_path(&topics[..1]), &topics[..1], 3),
        subscriber(event_stream_path(&topics[1..2]), &topics[1..2], 4),
        subscriber(event_stream_path(&topics[2..]), &topics[2..], 5),
        subscriber(event_stream_path(&topics[..]), &topics[..], 6),
        subscriber(event_stream_path(&topics[..]), &topics[..], 7),
        subscriber(format!("{}&topic=nobody's", event_stream_path(&topics[..])), &topics[..], 8),
    ];
    let never = || Err("nothing is killed here".into());
    let received = std::thread::scope(|scope| {
        let following: Vec<_> = subscribers
            .iter()
            .map(|subscriber| scope.spawn(move || subscriber.follow(never)))
            .collect();
        let published = concurrently(PUBLISHERS as usize, |number| {
            publish_mixed(&client, &topics, number as u64, EVENTS / PUBLISHERS)
        });
        let mut auditors: [Auditor; 3] = Default::default();
        for published in published? {
            auditors
                .iter_mut()
                .zip(published)
                .for_each(|(auditor, published)| auditor.merge(published));
        }
        for (auditor, topic) in auditors.iter_mut().zip(&topics) {
            auditor.publish(&client, topic, &[LAST.to_owned()])?;
        }
        let received: Vec<Received> =
            following.into_iter().map(join).collect::<Result<_, Failed>>()?;
        for (auditor, topic) in auditors.iter().zip(&topics) {
            auditor.audit(&client, topic)?;
        }
        Ok::<_, Failed>(received)
    })?;

    let stored = pages(&client, &topics)?;
    check_eq(stored.len() as u64, EVENTS + topics.len() as u64, "events stored")?;
    for (subscriber, received) in subscribers.iter().zip(&received) {
        let is_kept =
            |event: &&Value| subscriber.topics.iter().any(|topic| event["topic"] == **topic);
        let expected: Vec<Value> = stored.iter().filter(is_kept).cloned().collect();
        received.check(&expected).map_err(|failed| {
            format!("{}: {}", subscriber.path, failed.message().unwrap_or_default())
        })?;
        check(received.cut_inside > 0, || "no connection was dropped inside a block".into())?;
    }
    Ok(())
}

/// Publishes so many events, one by one and in batches, with some that were
/// sent before among them; an auditor for each topic.
fn publish_mixed(
    client: &Client,
    topics: &[String; 3],
    publisher: u64,
    events: u64,
) -> Result<[Auditor; 3], Failed> {
    let mut rng = Rng(publisher);
    let mut auditors: [Auditor; 3] = Default::default();
    let mut sent: [Vec<String>; 3] = Default::default();
    let mut next = 0;
    while next < events {
        let place = rng.below(3) as usize;
        let size = if rng.below(2) == 0 { 1 } else { 2 + rng.below(60) };
        let new = next..(next + size).min(events);
        next = new.end;
        let mut ids: Vec<String> = new.map(|id| format!("{publisher}-{id}")).collect();
        if rng.below(4) == 0 {
            ids.push(ids[0].clone());
            let known = &sent[place];
            let repeated = (0..rng.below(10))
                .filter_map(|_| known.get(rng.below(known.len().max(1) as u64) as usize).cloned());
            ids.extend(repeated.collect::<Vec<_>>());
        }
        auditors[place].publish(client, &topics[place], &ids)?;
        sent[place].extend(ids);
    }
    Ok(auditors)
}

/// The host is killed in the middle of a load, again and again, and comes back
/// at the same address; subscribers resume where they were.
#[test(own_server)]
fn a_subscriber_that_outlives_the_host_gets_each_event_once() -> TestResult {
    const KILLS: usize = 5;
    const REQUESTS_UNTIL_KILL_MAX: u64 = 100;
    let topic = unique_topic("outlive");
    let topics = std::slice::from_ref(&topic);
    let state = Arc::new(TempDir::new()?);
    let first = ServerOptions::on(&state).start()?;
    let again = ServerOptions::on(&state).listen(first.client().address());
    let subscriber = |path: &str, bytes_max, seed| Subscriber {
        client: first.client(),
        path: path.to_owned(),
        topics,
        bytes_max,
        seed,
    };
    let subscribers = [
        subscriber("/events/stream", u64::MAX, 1),
        subscriber(&event_stream_path(topics), u64::MAX, 2),
        subscriber("/events/stream", 50_000, 3),
        subscriber(&event_stream_path(topics), 50_000, 4),
    ];
    // Once this test has failed, nobody is to wait for what does not come.
    let given_up = AtomicBool::new(false);
    let may_be_lost =
        || check(!given_up.load(Ordering::Acquire), || "the test was given up".into());
    let mut load = CrashLoad::new(&topic, None, 5);
    std::thread::scope(|scope| {
        let following: Vec<_> = subscribers
            .iter()
            .map(|subscriber| scope.spawn(move || subscriber.follow(may_be_lost)))
            .collect();
        let lived = (0..KILLS).try_fold(first, |server, _| {
            load.run_until_killed(server, REQUESTS_UNTIL_KILL_MAX)?;
            again.start()
        });
        let lived = lived.and_then(|server| {
            load.audit(&server)?;
            server.client().publish(event(&topic, LAST))?.expect(200)?;
            Ok(server)
        });
        given_up.store(lived.is_err(), Ordering::Release);
        let received = following.into_iter().map(join).collect::<Result<Vec<Received>, Failed>>();
        let server = lived?;
        let stored = pages(&server.client(), topics)?;
        for received in received? {
            received.check(&stored)?;
        }
        Ok(())
    })
}
