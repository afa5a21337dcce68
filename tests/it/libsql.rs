//! Events on a libSQL server, and its bad days: what clients are told, that nothing
//! acknowledged is lost, and that the service recovers by itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::Failed;

use crate::support::bad_days::{self, health_of};
use crate::support::libsql::{Libsql, TOKEN};
use crate::support::proxy::{Fate, Proxy, Way};
use crate::support::subscription::{Subscription, position};
use crate::support::{
    Auditor, Client, Counters, Reply, Rng, Server, ServerOptions, Stream, TestResult, check,
    check_eq, concurrently, event, own_server, stored_once, test, unique_topic, wait_until,
};

/// A server, and a service on it.
fn started() -> Result<(Libsql, Server), Failed> {
    let libsql = Libsql::start()?;
    let service = libsql.service(ServerOptions::default())?.start()?;
    Ok((libsql, service))
}

/// A reply that a shipper keeps its events for.
fn check_unavailable(reply: &Reply) -> TestResult {
    bad_days::check_unavailable(reply)?;
    check_eq(reply.json()?["code"].as_str(), Some("store_unavailable"), "the code")
}

/// What `/health` says of the store of events.
fn health(client: &Client) -> Result<(u16, String), Failed> {
    health_of(client, "sqlite")
}

fn publish_until_taken(client: &Client, topic: &str, id: &str) -> TestResult {
    bad_days::publish_until_taken(client, topic, id, check_unavailable)
}

#[test(own_server)]
fn all_is_told_as_it_is_of_a_file() -> TestResult {
    let (_libsql, service) = started()?;
    let (topic, client) = (unique_topic("libsql"), service.client());
    let subscription = Subscription::define(&client, &[&topic], "beginning")?;
    let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}&after=0"))?;
    let first = client.publish_one(&topic, "1")?;
    let again = client.publish(event(&topic, "1"))?.expect(200)?;
    check_eq((again.count("accepted")?, again.count("duplicates")?), (0, 1), "a repeat")?;
    let other = event(&topic, "1").replace(r#"{"of":"1"}"#, r#"{"of":"2"}"#);
    let conflict = client.publish(other)?.expect(200)?;
    check_eq(conflict.count("conflicts")?, 1, "other content")?;
    let ids = ["1", "2", "3"].map(str::to_owned);
    let batch = client.publish_ids(&topic, &ids)?.expect(200)?;
    check_eq(batch.accepted(&ids)?.join(" ").as_str(), "2 3", "accepted of a batch")?;

    check_eq(stored_once(&client, &topic)?.len(), 3, "stored")?;
    let expected =
        Counters { received: 6, unique_processed: 3, duplicate_dropped: 3, conflicts: 1 };
    check_eq(client.counters(&topic)?, expected, "counters")?;
    stream.check_next(&["1", "2", "3"], "what the stream gets")?;
    let path = format!("/events?topic={topic}&limit=1&after={first}");
    let page = client.get(&path)?.expect(200)?.json()?;
    check_eq(page["events"][0]["event_id"].as_str(), Some("2"), "the second page")?;
    let page = subscription.read("limit=2")?;
    check_eq(page.ids().collect::<Vec<_>>().join(" ").as_str(), "1 2", "a page to consume")?;
    check_eq(subscription.acknowledge(page.next)?, page.next, "acknowledged")?;
    check_eq(position(&subscription.show()?)?, page.next, "the position")?;
    check_eq(subscription.read("")?.ids().collect::<Vec<_>>(), vec!["3".to_owned()], "the rest")?;
    check_eq(health(&client)?, (200, "ok".to_owned()), "health")?;
    let file = service.state.path().join("sqlite_db.db");
    check(!file.exists(), || "there is a file all the same".to_owned())
}

#[test(own_server)]
fn all_outlives_the_server_and_the_host() -> TestResult {
    let (mut libsql, service) = started()?;
    let topic = unique_topic("restarted");
    let ids = ["1", "2"].map(str::to_owned);
    let mut auditor = Auditor::default();
    // The host may not know yet that its connections are gone. Nothing is under way then,
    // so what is not taken is not counted either.
    let mut publish = |service: &Server, ids: &[String]| {
        wait_until("the events are taken", || {
            let reply = service.client().publish_ids(&topic, ids)?;
            if reply.status != 200 {
                check_unavailable(&reply)?;
                return Ok(None);
            }
            auditor.record(ids, &reply).map(Some)
        })
    };
    publish(&service, &ids)?;
    // The server alone, the host alone, and both.
    libsql.restart()?;
    publish(&service, &ids)?;
    let state = service.kill()?;
    let service = libsql.service(ServerOptions::on(&state))?.start()?;
    publish(&service, &["2".to_owned(), "3".to_owned()])?;
    service.kill()?;
    libsql.restart()?;
    let service = libsql.service(ServerOptions::default())?.start()?;
    publish(&service, &["3".to_owned(), "4".to_owned()])?;
    auditor.audit(&service.client(), &topic)?;
    check_eq(service.client().counters(&topic)?.unique_processed, 4, "unique_processed")
}

#[test(own_server)]
fn a_server_that_was_away_is_found_again() -> TestResult {
    let (mut libsql, service) = started()?;
    let (topic, client) = (unique_topic("away"), service.client());
    client.publish_one(&topic, "before")?;
    libsql.stop()?;
    for id in ["away 1", "away 2"] {
        check_unavailable(&client.publish(event(&topic, id))?)?;
        check_unavailable(&client.get(&format!("/events?topic={topic}"))?)?;
        check_eq(health(&client)?, (503, "unavailable".to_owned()), "health")?;
    }
    libsql.restart()?;
    publish_until_taken(&client, &topic, "after")?;
    wait_until("all is well", || Ok((health(&client)? == (200, "ok".to_owned())).then_some(())))?;
    let stored: Vec<_> = stored_once(&client, &topic)?.into_iter().collect();
    check_eq(stored.join(" ").as_str(), "after before", "stored")
}

/// The connection is cut in the middle of the answer that says that a commit is done.
/// Whoever was in it is told that it is not known, and nobody that the first delivery of
/// an event was a duplicate.
#[test(own_server)]
fn an_answer_that_is_cut_off_is_no_answer_and_no_second_event() -> TestResult {
    const CUTS: usize = 5;
    const ROUNDS_MAX: usize = 50;
    const CLIENTS: usize = 6;
    /// What every commit of events begins with.
    const COMMIT: &[u8] = b"INSERT INTO incoming_";
    /// What an answer has when all is done, and committed.
    const DONE: &[u8] = b"\"step_end\"";
    #[derive(PartialEq)]
    enum Cut {
        Idle,
        Next,
        /// That on which the commit is.
        On(usize),
    }
    let libsql = Libsql::start()?;
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|one| one == part);
    let cut = Arc::new(Mutex::new(Cut::Idle));
    let watched = Arc::clone(&cut);
    let proxy = Proxy::before(&libsql.address, move |connection, way, bytes| {
        let mut cut = watched.lock().unwrap_or_else(PoisonError::into_inner);
        if way == Way::ToServer && *cut == Cut::Next && has(bytes, COMMIT) {
            *cut = Cut::On(connection);
        }
        if way == Way::ToClient && *cut == Cut::On(connection) && has(bytes, DONE) {
            *cut = Cut::Idle;
            return Fate::Cut(bytes.len() / 2);
        }
        Fate::Pass
    })?;
    let options = libsql.service_by(ServerOptions::default(), &proxy.address, TOKEN)?;
    let (topic, service) = (unique_topic("cut"), options.start()?);
    let client = service.client();
    client.publish_one(&topic, "first")?;
    let are_lost = AtomicUsize::new(0);
    let (mut cuts, mut number) = (0, 0);
    while cuts < CUTS {
        *cut.lock().map_err(|_| "poisoned")? = Cut::Next;
        let before = are_lost.load(Ordering::SeqCst);
        concurrently(CLIENTS, |client_number| {
            let id = format!("{number}-{client_number}");
            let first = client.publish(event(&topic, &id))?;
            if first.status == 200 {
                return check_eq(first.count("accepted")?, 1, "accepted at first");
            }
            check_unavailable(&first)?;
            are_lost.fetch_add(1, Ordering::SeqCst);
            let again = client.publish(event(&topic, &id))?.expect(200)?;
            check_eq(again.count("duplicates")?, 1, "duplicates when it is sent again")
        })?;
        // It may have been a commit of what was observed, without events.
        cuts += usize::from(are_lost.load(Ordering::SeqCst) > before);
        number += 1;
        check(number < ROUNDS_MAX, || format!("{cuts} answers were cut off"))?;
    }
    let (events, again) = (1 + (number * CLIENTS) as u64, are_lost.into_inner() as u64);
    check_eq(stored_once(&client, &topic)?.len() as u64, events, "stored")?;
    let expected = Counters {
        received: events + again,
        unique_processed: events,
        duplicate_dropped: again,
        conflicts: 0,
    };
    check_eq(client.counters(&topic)?, expected, "counters")
}

/// As when nothing was asked for a while.
#[test(own_server)]
fn nobody_sees_that_the_server_forgot_its_connections() -> TestResult {
    const TIMES: usize = 10;
    let (libsql, service) = started()?;
    let (topic, client) = (unique_topic("forgotten"), service.client());
    client.publish_one(&topic, "first")?;
    for number in 0..TIMES {
        let forgotten = libsql.forget_streams();
        check(forgotten > 0, || "there was nothing to forget".to_owned())?;
        client.publish_one(&topic, &number.to_string())?;
    }
    check_eq(stored_once(&client, &topic)?.len(), 1 + TIMES, "stored")?;
    check_eq(health(&client)?, (200, "ok".to_owned()), "health")
}

/// The log names what is wrong, and never the token.
#[test(own_server)]
fn a_wrong_token_is_told_to_the_operator() -> TestResult {
    let libsql = Libsql::start()?;
    let options = libsql.service_by(ServerOptions::default(), &libsql.address, "hunter2")?;
    let service = options.start()?;
    let client = service.client();
    check_unavailable(&client.publish(event(&unique_topic("token"), "1"))?)?;
    check_eq(health(&client)?, (503, "unavailable".to_owned()), "health")?;
    // A reply may be here before the line that tells of it.
    wait_until("the log tells it", || {
        Ok(service.log().contains("The JWT is invalid").then_some(()))
    })?;
    let log = service.log();
    check(!log.contains("hunter2"), || log.clone())
}

/// All clients publish the same events at once, each in an order of its own.
#[test(own_server)]
fn each_event_is_accepted_once_over_all_clients() -> TestResult {
    const CLIENTS: usize = 8;
    const EVENTS: usize = 200;
    const BATCH: usize = 10;
    let (_libsql, service) = started()?;
    let (topic, client) = (unique_topic("race"), service.client());
    let auditors = concurrently(CLIENTS, |number| {
        let mut rng = Rng(number as u64);
        let mut ids: Vec<String> = (0..EVENTS).map(|id| id.to_string()).collect();
        for left in (1..ids.len()).rev() {
            ids.swap(left, rng.below(left as u64 + 1) as usize);
        }
        let mut auditor = Auditor::default();
        for batch in ids.chunks(BATCH) {
            auditor.publish(&client, &topic, batch)?;
        }
        Ok(auditor)
    })?;
    Auditor::merged(auditors).audit(&client, &topic)?;
    let counters = client.counters(&topic)?;
    check_eq(counters.received, (CLIENTS * EVENTS) as u64, "received")?;
    check_eq(counters.unique_processed, EVENTS as u64, "unique_processed")
}
