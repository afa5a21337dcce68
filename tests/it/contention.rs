//! More clients than the store has room for at once, and instances that come and
//! go meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libtest_mimic::Failed;

use crate::support::{
    Auditor, Client, Reply, Rng, ServerOptions, Target, TestResult, any_server, check, check_eq,
    concurrently, event, own_server, test, unique_topic, while_polling,
};

const IDS: u64 = 1000;

/// 32 clients publish the same 1,000 ids at once, each in an order and in
/// batches of its own, while the counters are polled.
#[test(any_server)]
fn each_id_is_accepted_once_over_all_replies(target: &Target) -> TestResult {
    const CLIENTS: usize = 32;
    let client = target.client();
    let topic = unique_topic("race");
    let poll = || client.counters(&topic).map(drop);
    let publish = || concurrently(CLIENTS, |number| publish_all(&client, &topic, number as u64));
    let auditor = Auditor::merged(while_polling(1, poll, publish)?);
    auditor.audit(&client, &topic)?;
    check_eq(client.counters(&topic)?.unique_processed, IDS, "unique_processed")
}

/// Publishes every id; where the store is busy, again.
fn publish_all(client: &Client, topic: &str, seed: u64) -> Result<Auditor, Failed> {
    let mut rng = Rng(seed);
    let mut ids: Vec<String> = (0..IDS).map(|id| id.to_string()).collect();
    for left in (1..ids.len()).rev() {
        ids.swap(left, rng.below(left as u64 + 1) as usize);
    }
    let mut auditor = Auditor::default();
    let mut rest = ids.as_slice();
    while !rest.is_empty() {
        let batch = (1 + rng.below(40) as usize).min(rest.len());
        let (now, later) = rest.split_at(batch);
        rest = later;
        let reply = loop {
            let reply = client.publish_ids(topic, now)?;
            if reply.status != 503 {
                break reply.expect(200)?;
            }
        };
        auditor.record(now, &reply)?;
    }
    Ok(auditor)
}

#[test(any_server)]
fn no_client_sees_a_lock(target: &Target) -> TestResult {
    target.client().publish(event(&unique_topic("first"), "1"))?.expect(200)?;
    publish_and_read(&target.url)
}

#[test(own_server)]
fn no_client_sees_the_store_being_created() -> TestResult {
    // However slow the machine: creating the store counts as waiting.
    let server = ServerOptions::default().variable("commit_wait_ms_max=60000").start()?;
    publish_and_read(&server.url)
}

/// A reply that is a 200 and does not show what went on inside.
fn expect_plain(reply: Reply) -> Result<Reply, Failed> {
    let shows = reply.text.contains("locked") || reply.text.contains("busy");
    check(!shows, || format!("it speaks of a lock: {reply:#?}"))?;
    reply.expect(200)
}

/// 96 clients publish, 8 poll: nobody gets anything but a 200.
fn publish_and_read(url: &str) -> TestResult {
    const CLIENTS: usize = 96;
    const READERS: usize = 8;
    let topic = unique_topic("contention");
    let reader = Client::new(url);
    let poll = || {
        expect_plain(reader.get("/stats")?)?.counters(&topic)?;
        let page =
            expect_plain(reader.get(&format!("/events?topic={topic}&order=desc"))?)?.json()?;
        let rows = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let falls = rows.is_sorted_by(|a, b| a["seq"].as_i64() > b["seq"].as_i64());
        check(falls, || format!("seq does not fall: {page:#}"))
    };
    let publish = || {
        concurrently(CLIENTS, |number| {
            let client = Client::new(url);
            let mut auditor = Auditor::default();
            for ids in mixed_requests(number) {
                let reply = expect_plain(client.publish_ids(&topic, &ids)?)?;
                auditor.record(&ids, &reply)?;
            }
            Ok(auditor)
        })
    };
    Auditor::merged(while_polling(READERS, poll, publish)?).audit(&reader, &topic)
}

/// The requests of one client: single events and small batches, a third of
/// whose ids others send too, some twice in a batch.
fn mixed_requests(client: usize) -> Vec<Vec<String>> {
    const REQUESTS: usize = 20;
    let mut rng = Rng(client as u64);
    let mut request = |number: usize| {
        let size = if number.is_multiple_of(2) { 1 } else { 2 + rng.below(7) };
        let id = |place| match rng.below(3) {
            0 => format!("shared-{}", rng.below(200)),
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
fn large_batches_starve_no_single_event(target: &Target) -> TestResult {
    const BATCH_CLIENTS: usize = 4;
    const CLIENTS: usize = BATCH_CLIENTS + 16;
    let topic = unique_topic("fair");
    let satisfied = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let auditors = concurrently(CLIENTS, |number| {
        let (batch, replies_wanted) = if number < BATCH_CLIENTS { (1000, 3) } else { (1, 20) };
        let client = target.client();
        let mut auditor = Auditor::default();
        let mut replies = 0;
        while satisfied.load(Ordering::Relaxed) < CLIENTS && !failed.load(Ordering::Relaxed) {
            let ids: Vec<String> =
                (0..batch).map(|place| format!("{number}-{replies}-{place}")).collect();
            let published = auditor.publish(&client, &topic, &ids);
            failed.fetch_or(published.is_err(), Ordering::Relaxed);
            published?;
            replies += 1;
            if replies == replies_wanted {
                satisfied.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(auditor)
    })?;
    Auditor::merged(auditors).audit(&target.client(), &topic)
}

/// Instances that take three requests in all, and end when they are idle for a
/// moment.
#[test(own_server)]
fn short_lived_instances_lose_nothing() -> TestResult {
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
    let server = ServerOptions::default().flags(&flags).start()?;
    let topic = unique_topic("short-lived");
    let auditors = concurrently(CLIENTS, |number| {
        let client = server.client();
        let mut auditor = Auditor::default();
        for request in 0..REQUESTS {
            auditor.publish(&client, &topic, &[format!("{number}-{request}")])?;
        }
        Ok(auditor)
    })?;
    Auditor::merged(auditors).audit(&server.client(), &topic)
}
