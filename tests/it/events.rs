//! GET /events: pages, rows, and readers that poll.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Failed;

use crate::support::subscription::Page;
use crate::support::{
    Rng, Target, TestResult, any_server, batch, check, check_eq, concurrently, event,
    event_of_size, join, test, unique_topic,
};

#[test(any_server)]
fn continues_a_page_of_large_payloads_on_the_next(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("pages");
    for id in 0..12 {
        client.publish(event_of_size(&topic, &id.to_string(), 1 << 20))?.expect(200)?;
    }
    let first = client.get(&format!("/events?topic={topic}&limit=1000"))?.expect(200)?.json()?;
    let count = first["count"].as_u64().unwrap_or_default();
    check((1..12).contains(&count), || format!("{count} large events on one page"))?;
    let all = client.all_events(&topic)?;
    let ids: Vec<&str> = all.iter().filter_map(|event| event["event_id"].as_str()).collect();
    let expected: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    check_eq(ids, expected.iter().map(String::as_str).collect(), "ids")
}

#[test(any_server)]
fn ndjson_has_every_row(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("stream");
    for batch in 0..3 {
        let events: Vec<String> = (0..100)
            .map(|id| event_of_size(&topic, &format!("{:03}", batch * 100 + id), 5_000))
            .collect();
        client.publish(events.join("\n"))?.expect(200)?;
    }
    let accept = [("accept", "application/x-ndjson")];
    let reply = client.send("GET", &format!("/events?topic={topic}&limit=299"), &accept, &[])?;
    let reply = reply.expect(200)?;
    let mut ids = Vec::new();
    for line in reply.text.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        ids.push(row["event_id"].as_str().unwrap_or_default().to_owned());
    }
    let expected: Vec<String> = (0..299).map(|id| format!("{id:03}")).collect();
    check_eq(ids, expected, "ids of the stream")
}

/// A subscriber polls with `next` while eight clients publish.
#[test(any_server)]
fn polling_with_next_misses_and_repeats_nothing(target: &Target) -> TestResult {
    const WRITERS: u64 = 8;
    const EACH: u64 = 100;
    let client = target.client();
    let topic = unique_topic("follow");
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            let mut after = "0".to_owned();
            loop {
                let is_last_poll = done.load(Ordering::Acquire);
                let path = format!("/events?topic={topic}&limit=7&after={after}");
                let page = client.get(&path)?.expect(200)?.json()?;
                after = page["next"].as_str().unwrap_or_default().to_owned();
                let rows = page["events"].as_array().cloned().unwrap_or_default();
                if rows.is_empty() && is_last_poll {
                    return Ok::<_, Failed>(seen);
                }
                seen.extend(rows.iter().filter_map(|row| {
                    Some((row["seq"].as_i64()?, row["event_id"].as_str()?.to_owned()))
                }));
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, topic) = (client.clone(), &topic);
                scope.spawn(move || {
                    for id in 0..EACH {
                        client.publish(event(topic, &format!("{writer}-{id}")))?.expect(200)?;
                    }
                    Ok::<_, Failed>(())
                })
            })
            .collect();
        let written: Result<Vec<()>, Failed> = writers.into_iter().map(join).collect();
        done.store(true, Ordering::Release);
        let seen = join(reader);
        written.and(seen)
    })?;
    check(seen.is_sorted_by(|a, b| a.0 < b.0), || "seq does not rise".into())?;
    let ids: BTreeSet<&str> = seen.iter().map(|(_, id)| id.as_str()).collect();
    check_eq(seen.len() as u64, WRITERS * EACH, "events seen")?;
    check_eq(ids.len() as u64, WRITERS * EACH, "different events seen")
}

/// A reader of one topic, and one of all of them, go through what is there and
/// what comes meanwhile.
#[test(any_server)]
fn twenty_thousand_events_page_by_page(target: &Target) -> TestResult {
    const EVENTS: usize = 10_000;
    const PUBLISHERS: usize = 4;
    let client = target.client();
    let topic = unique_topic("paging");
    let page = client.get("/events?order=desc&limit=1")?.expect(200)?.json()?;
    let begin = page["events"][0]["seq"].as_i64().unwrap_or_default();
    let ids: Vec<String> = (0..EVENTS).map(|id| format!("before-{id}")).collect();
    client.publish(batch(&topic, &ids))?.expect(200)?;
    let all_published = AtomicBool::new(false);
    let read = |query: &str| {
        let mut events = Vec::new();
        let mut after = begin;
        let mut full_pages = 0;
        loop {
            let is_last_poll = all_published.load(Ordering::Acquire);
            let path = format!("/events?{query}limit=1000&after={after}");
            let page = Page::of(&client.get(&path)?.expect(200)?.json()?)?;
            check(page.is_after(after), || format!("{path}: {:?}", page.events.first()))?;
            if page.events.is_empty() && is_last_poll {
                check(full_pages >= EVENTS / 1000, || format!("{full_pages} full pages"))?;
                return Ok::<_, Failed>(events);
            }
            full_pages += usize::from(page.events.len() == 1000);
            after = page.next;
            events.extend(page.events.into_iter().filter(|event| event["topic"] == *topic));
        }
    };
    let published: Mutex<BTreeSet<String>> = Mutex::new(ids.into_iter().collect());
    let of_topic = format!("topic={topic}&");
    let reads = std::thread::scope(|scope| {
        let read = &read;
        let readers = [of_topic.as_str(), ""].map(|query| scope.spawn(move || read(query)));
        let publishing = concurrently(PUBLISHERS, |publisher| {
            let mut rng = Rng(publisher as u64);
            let ids: Vec<String> =
                (0..EVENTS / PUBLISHERS).map(|id| format!("{publisher}-{id}")).collect();
            let mut rest = ids.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + rng.below(60) as usize).min(rest.len()));
                client.publish_ids(&topic, now)?.expect(200)?;
                rest = later;
            }
            published.lock().map_err(|_| "a client panicked")?.extend(ids);
            Ok(())
        });
        all_published.store(true, Ordering::Release);
        let reads: Result<Vec<_>, Failed> = readers.into_iter().map(join).collect();
        publishing.and(reads)
    })?;
    let published = published.into_inner().map_err(|_| "a client panicked")?;
    check_eq(published.len(), 2 * EVENTS, "events published")?;
    for events in reads {
        let ids = events.iter().filter_map(|event| event["event_id"].as_str());
        let different: BTreeSet<String> = ids.map(str::to_owned).collect();
        check_eq(events.len(), 2 * EVENTS, "events read")?;
        check(different == published, || {
            let missing: Vec<_> = published.difference(&different).take(10).collect();
            format!("{} different events; missing are {missing:?}…", different.len())
        })?;
    }
    Ok(())
}
