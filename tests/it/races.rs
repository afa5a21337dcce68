use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};

use crate::client::Client;
use crate::harness::{Outcome, Spread, Target, anywhere, check, check_eq, event, unique_topic};

const CLIENTS: u64 = 32;
const IDS: u64 = 1000;

pub fn trials() -> Vec<Trial> {
    vec![
        anywhere("races::each_id_is_accepted_once_over_all_replies", same_ids),
        anywhere("races::a_reader_that_follows_misses_nothing_and_sees_nothing_twice", follow),
    ]
}

/// 32 clients publish the same 1,000 ids at once, each in an order and in
/// batches of its own, while the counters are watched.
fn same_ids(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("race");
    let done = AtomicBool::new(false);
    let (accepted, looks) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                client.counters(&topic)?;
                looks += 1;
            }
            Ok::<u32, Failed>(looks)
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|seed| {
                let (client, topic) = (client.clone(), &topic);
                scope.spawn(move || publish_all(&client, topic, seed))
            })
            .collect();
        let accepted: Vec<_> = clients.into_iter().map(join).collect();
        done.store(true, Ordering::Relaxed);
        (accepted, join(watcher))
    });
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for ids in accepted {
        for id in ids? {
            *times.entry(id).or_default() += 1;
        }
    }
    check(looks? > 0, || "nobody looked at the counters meanwhile".into())?;
    check_eq(times.len() as u64, IDS, "ids accepted")?;
    check(times.values().all(|times| *times == 1), || {
        format!("accepted more than once: {times:?}")
    })?;
    let counters = client.counters(&topic)?;
    check_eq(counters.received, CLIENTS * IDS, "received")?;
    check_eq(counters.unique_processed, IDS, "unique_processed")?;
    check_eq(counters.conflicts, 0, "conflicts")?;
    check_eq(client.all_events(&topic)?.len() as u64, IDS, "stored")
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failed>>) -> Result<T, Failed> {
    thread.join().unwrap_or_else(|_| Err("a client panicked".into()))
}

/// The ids that were accepted from this client.
fn publish_all(client: &Client, topic: &str, seed: u64) -> Result<Vec<u64>, Failed> {
    let mut spread = Spread(seed);
    let mut ids: Vec<u64> = (0..IDS).collect();
    for left in (1..ids.len()).rev() {
        ids.swap(left, spread.below(left as u64 + 1) as usize);
    }
    let mut accepted = Vec::new();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let batch = (1 + spread.below(40) as usize).min(rest.len());
        let (now, later) = rest.split_at(batch);
        rest = later;
        let events: Vec<String> = now.iter().map(|id| event(topic, &id.to_string())).collect();
        let body = format!("[{}]", events.join(","));
        let reply = loop {
            let reply = client.send("POST", "/publish?results=all", &[], body.as_bytes())?;
            if reply.status != 503 {
                break reply.expect(200)?.json()?;
            }
        };
        let results = reply["results"].as_array().cloned().unwrap_or_default();
        check_eq(results.len(), batch, "results")?;
        for (id, result) in now.iter().zip(results) {
            let id_text = id.to_string();
            check(result["event_id"] == *id_text, || format!("{id}: {result}"))?;
            match result["status"].as_str() {
                Some("accepted") => accepted.push(*id),
                Some("duplicate") => {}
                _ => return Err(format!("{id}: {result}").into()),
            }
        }
    }
    Ok(accepted)
}

/// A subscriber polls with `next` while eight clients publish.
fn follow(target: &Target) -> Outcome {
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
                let last_look = done.load(Ordering::Acquire);
                let path = format!("/events?topic={topic}&limit=7&after={after}");
                let page = client.get(&path)?.expect(200)?.json()?;
                after = page["next"].as_str().unwrap_or_default().to_owned();
                let rows = page["events"].as_array().cloned().unwrap_or_default();
                if rows.is_empty() && last_look {
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
    let ids: std::collections::BTreeSet<&str> = seen.iter().map(|(_, id)| id.as_str()).collect();
    check_eq(seen.len() as u64, WRITERS * EACH, "events seen")?;
    check_eq(ids.len() as u64, WRITERS * EACH, "different events seen")
}
