//! Several replicas on one PostgreSQL: what a client of any of them is told is what a
//! client of every other is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libtest_mimic::Failed;
use temporary_postgres::Database;

use crate::support::postgres::{database, on};
use crate::support::subscription::Subscription;
use crate::support::{
    Rng, Server, Stream, TestResult, check, check_eq, concurrently, event, join, own_server,
    stored_once, test, unique_topic,
};

/// Two replicas, and their database.
fn replicas() -> Result<Option<(Database, [Server; 2])>, Failed> {
    let Some(database) = database()? else { return Ok(None) };
    let servers = [on(&database).start()?, on(&database).start()?];
    Ok(Some((database, servers)))
}

/// Every id is delivered to both, by many at once: 1,500 times in all, or, for a long
/// race, as often as the number of ids in `SEKALI_TEST_RACE_IDS` asks for.
#[test(own_server)]
fn an_event_is_accepted_by_one_of_them() -> TestResult {
    const CLIENTS: usize = 10;
    const IDS: usize = 150;
    let ids_asked_for = std::env::var("SEKALI_TEST_RACE_IDS").ok();
    let ids = ids_asked_for.map_or(Ok(IDS), |ids| ids.parse())?;
    let Some((_database, servers)) = replicas()? else { return Ok(()) };
    let topic = unique_topic("raced");
    let accepted = AtomicUsize::new(0);
    concurrently(CLIENTS, |number| {
        let client = servers[number % 2].client();
        let mut rng = Rng(number as u64 + 1);
        let mut ids: Vec<usize> = (0..ids).collect();
        while !ids.is_empty() {
            let id = ids.swap_remove(rng.below(ids.len() as u64) as usize);
            let reply = client.publish(event(&topic, &id.to_string()))?.expect(200)?;
            accepted.fetch_add(reply.count("accepted")? as usize, Ordering::Relaxed);
        }
        Ok(())
    })?;
    check_eq(accepted.into_inner(), ids, "accepted by any")?;
    for server in &servers {
        let client = server.client();
        check_eq(stored_once(&client, &topic)?.len(), ids, "stored")?;
        let counters = client.counters(&topic)?;
        check_eq(counters.received, (CLIENTS * ids) as u64, "received")?;
        check(counters.balance(), || "the counters do not balance".to_owned())?;
    }
    Ok(())
}

/// Streams from both show the same events in the same order while both are written to.
#[test(own_server)]
fn readers_of_both_see_one_order() -> TestResult {
    const EVENTS: usize = 300;
    let Some((_database, servers)) = replicas()? else { return Ok(()) };
    let topic = unique_topic("order");
    let path = format!("/events/stream?topic={topic}&after=0");
    let mut streams = Vec::new();
    for server in &servers {
        streams.push(Stream::open(&server.client(), &path)?);
    }
    let next = AtomicUsize::new(0);
    concurrently(6, |number| {
        let client = servers[number % 2].client();
        loop {
            let id = next.fetch_add(1, Ordering::Relaxed);
            if id >= EVENTS {
                return Ok(());
            }
            client.publish(event(&topic, &id.to_string()))?.expect(200)?;
        }
    })?;
    let mut seen = Vec::new();
    for stream in &mut streams {
        let mut ids = Vec::new();
        while ids.len() < EVENTS {
            ids.push(stream.event()?.event_id().to_owned());
        }
        seen.push(ids);
    }
    check(seen[0] == seen[1], || "the streams differ".to_owned())?;
    check_eq(seen[0].iter().collect::<BTreeSet<_>>().len(), EVENTS, "different events")
}

#[test(own_server)]
fn a_position_moves_forward_on_all() -> TestResult {
    let Some((_database, servers)) = replicas()? else { return Ok(()) };
    let topic = unique_topic("position");
    let [one, two] = [servers[0].client(), servers[1].client()];
    let subscription = Subscription::define(&one, &[&topic], "beginning")?;
    let mut seqs = Vec::new();
    for id in 0..4 {
        let client = if id % 2 == 0 { &one } else { &two };
        seqs.push(client.publish_one(&topic, &id.to_string())?);
    }
    check_eq(subscription.acknowledge(seqs[2])?, seqs[2], "the position")?;
    let at_two = Subscription { client: two.clone(), name: subscription.name.clone() };
    for (seq, expected) in [(seqs[0], seqs[2]), (seqs[3], seqs[3]), (seqs[1], seqs[3])] {
        check_eq(at_two.acknowledge(seq)?, expected, "the position")?;
    }
    check_eq(subscription.show()?["lag"].as_i64(), Some(0), "the lag")
}

/// One of two is killed under load. Its clients go to the other, deliver what was not
/// answered again, and nothing acknowledged is missing.
#[test(own_server)]
fn one_is_killed_and_the_other_goes_on() -> TestResult {
    const CLIENTS: usize = 8;
    const BEFORE: usize = 200;
    const AFTER: usize = 200;
    let Some((_database, servers)) = replicas()? else { return Ok(()) };
    let topic = unique_topic("killed");
    let [killed, left] = servers;
    let (doomed, other) = (killed.client(), left.client());
    let is_killed = AtomicBool::new(false);
    let published = AtomicUsize::new(0);
    let ids = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (doomed, other, topic) = (&doomed, &other, &topic);
                let (is_killed, published) = (&is_killed, &published);
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for count in 0.. {
                        let id = format!("{number}-{count}");
                        let mut client = if number % 2 == 0 { doomed } else { other };
                        loop {
                            match client.publish_ids(topic, std::slice::from_ref(&id)) {
                                Ok(reply) => {
                                    reply.expect(200)?;
                                    break;
                                }
                                Err(_) if is_killed.load(Ordering::Relaxed) => client = other,
                                Err(error) => return Err(error.into()),
                            }
                        }
                        acknowledged.push(id);
                        if published.fetch_add(1, Ordering::Relaxed) >= BEFORE + AFTER {
                            break;
                        }
                    }
                    Ok(acknowledged)
                })
            })
            .collect();
        while published.load(Ordering::Relaxed) < BEFORE {
            std::thread::yield_now();
        }
        is_killed.store(true, Ordering::Relaxed);
        killed.kill()?;
        let mut ids = BTreeSet::new();
        for client in clients {
            ids.extend(join(client)?);
        }
        Ok::<_, Failed>(ids)
    })?;
    let stored = stored_once(&left.client(), &topic)?;
    check(ids.is_subset(&stored), || format!("{} acknowledged, {} stored", ids.len(), stored.len()))
}
