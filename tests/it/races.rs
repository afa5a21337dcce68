use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Failed;

use crate::client::Client;
use crate::harness::{
    Outcome, Spread, Target, at_once, check, check_eq, event, join, unique_topic, watched,
};
use crate::registry::{any_server, test};
use crate::tally::Tally;

const CLIENTS: usize = 32;
const IDS: u64 = 1000;

/// 32 clients publish the same 1,000 ids at once, each in an order and in
/// batches of its own, while the counters are watched.
#[test(any_server)]
fn each_id_is_accepted_once_over_all_replies(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("race");
    let look = || client.counters(&topic).map(drop);
    let publish = || at_once(CLIENTS, |number| publish_all(&client, &topic, number as u64));
    let tally = Tally::sum(watched(1, look, publish)?);
    tally.audit(&client, &topic)?;
    check_eq(client.counters(&topic)?.unique_processed, IDS, "unique_processed")
}

/// Publishes every id; where the store is busy, again.
fn publish_all(client: &Client, topic: &str, seed: u64) -> Result<Tally, Failed> {
    let mut spread = Spread(seed);
    let mut ids: Vec<String> = (0..IDS).map(|id| id.to_string()).collect();
    for left in (1..ids.len()).rev() {
        ids.swap(left, spread.below(left as u64 + 1) as usize);
    }
    let mut tally = Tally::default();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let batch = (1 + spread.below(40) as usize).min(rest.len());
        let (now, later) = rest.split_at(batch);
        rest = later;
        let reply = loop {
            let reply = client.publish_ids(topic, now)?;
            if reply.status != 503 {
                break reply.expect(200)?;
            }
        };
        tally.book(now, &reply)?;
    }
    Ok(tally)
}

/// A subscriber polls with `next` while eight clients publish.
#[test(any_server)]
fn polling_with_next_misses_and_repeats_nothing(target: &Target) -> Outcome {
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
