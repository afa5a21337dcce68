//! More clients than the store has room for at once, and instances that come and
//! go meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libtest_mimic::Failed;

use crate::support::{
    Client, Outcome, Reply, Spread, Start, Tally, Target, any_server, at_once, check, check_eq,
    event, own_server, test, unique_topic, watched,
};

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

#[test(any_server)]
fn no_client_sees_a_lock(target: &Target) -> Outcome {
    target.client().publish(event(&unique_topic("first"), "1"))?.expect(200)?;
    unaware(&target.url)
}

#[test(own_server)]
fn no_client_sees_the_store_being_created() -> Outcome {
    // However slow the machine: creating the store counts as waiting.
    let patient = ["--variable", "commit_wait_ms_max=60000"];
    Start::default().flags(&patient).serve(|server| unaware(&server.url))
}

/// A reply that is a 200 and says nothing of what went on inside.
fn plain(reply: Reply) -> Result<Reply, Failed> {
    let tells = reply.text.contains("locked") || reply.text.contains("busy");
    check(!tells, || format!("it speaks of a lock: {reply:#?}"))?;
    reply.expect(200)
}

/// 96 clients publish, 8 look: nobody gets anything but a 200.
fn unaware(url: &str) -> Outcome {
    const CLIENTS: usize = 96;
    const READERS: usize = 8;
    let topic = unique_topic("unaware");
    let reader = Client::new(url);
    let look = || {
        plain(reader.get("/stats")?)?.counters(&topic)?;
        let page = plain(reader.get(&format!("/events?topic={topic}&order=desc"))?)?.json()?;
        let rows = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let falls = rows.is_sorted_by(|a, b| a["seq"].as_i64() > b["seq"].as_i64());
        check(falls, || format!("seq does not fall: {page:#}"))
    };
    let publish = || {
        at_once(CLIENTS, |number| {
            let client = Client::new(url);
            let mut tally = Tally::default();
            for ids in mixed(number) {
                let reply = plain(client.publish_ids(&topic, &ids)?)?;
                tally.book(&ids, &reply)?;
            }
            Ok(tally)
        })
    };
    Tally::sum(watched(READERS, look, publish)?).audit(&reader, &topic)
}

/// The requests of one client: single events and small batches, a third of
/// whose ids others send too, some twice in a batch.
fn mixed(client: usize) -> Vec<Vec<String>> {
    const REQUESTS: usize = 20;
    let mut spread = Spread(client as u64);
    let mut request = |number: usize| {
        let size = if number.is_multiple_of(2) { 1 } else { 2 + spread.below(7) };
        let id = |place| match spread.below(3) {
            0 => format!("shared-{}", spread.below(200)),
            _ => format!("{client}-{number}-{place}"),
        };
        let mut ids: Vec<String> = (0..size).map(id).collect();
        if size > 4 {
            ids.push(ids[0].clone());
        }
        ids
    };
    (0..REQUESTS).map(&mut request).collect()
}

/// It ends when everybody has been answered often enough; until then everybody
/// goes on.
#[test(any_server)]
fn large_batches_starve_no_single_event(target: &Target) -> Outcome {
    const BATCH_CLIENTS: usize = 4;
    const CLIENTS: usize = BATCH_CLIENTS + 16;
    let topic = unique_topic("fair");
    let satisfied = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let tallies = at_once(CLIENTS, |number| {
        let (batch, replies_wanted) = if number < BATCH_CLIENTS { (1000, 3) } else { (1, 20) };
        let client = target.client();
        let mut tally = Tally::default();
        let mut replies = 0;
        while satisfied.load(Ordering::Relaxed) < CLIENTS && !failed.load(Ordering::Relaxed) {
            let ids: Vec<String> =
                (0..batch).map(|place| format!("{number}-{replies}-{place}")).collect();
            let published = tally.publish(&client, &topic, &ids);
            failed.fetch_or(published.is_err(), Ordering::Relaxed);
            published?;
            replies += 1;
            if replies == replies_wanted {
                satisfied.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(tally)
    })?;
    Tally::sum(tallies).audit(&target.client(), &topic)
}

/// Instances that take three requests in all, and go when they have nothing
/// to do for a moment.
#[test(own_server)]
fn short_lived_instances_lose_nothing() -> Outcome {
    const CLIENTS: usize = 24;
    const REQUESTS: usize = 30;
    let flags = [
        "--max-instance-reuse-count",
        "3",
        "--max-instance-concurrent-reuse-count",
        "4",
        "--idle-instance-timeout",
        "50ms",
    ];
    Start::default().flags(&flags).serve(|server| {
        let topic = unique_topic("short-lived");
        let tallies = at_once(CLIENTS, |number| {
            let client = server.client();
            let mut tally = Tally::default();
            for request in 0..REQUESTS {
                tally.publish(&client, &topic, &[format!("{number}-{request}")])?;
            }
            Ok(tally)
        })?;
        Tally::sum(tallies).audit(&server.client(), &topic)
    })
}
