//! Bad days of PostgreSQL: what clients are told, that nothing acknowledged is lost, and
//! that the service recovers by itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;
use temporary_postgres::Database;
use temporary_postgres::postgres::NoTls;

use crate::support::bad_days::{self, check_unavailable, health_of};
use crate::support::postgres::{at, database, on, own};
use crate::support::proxy::{Fate, Proxy, Way};
use crate::support::{
    Client, Server, ServerOptions, Stream, TestResult, check, check_eq, concurrently, event, join,
    own_server, stored_once, test, unique_topic, wait_until,
};

/// What `/health` says of the store of events.
fn health(client: &Client) -> Result<(u16, String), Failed> {
    health_of(client, "postgres")
}

/// A reply may be here before the line that tells of it.
fn wait_for_log(service: &Server, words: &str) -> TestResult {
    wait_until("the log tells it", || Ok(service.log().contains(words).then_some(())))
}

fn publish_until_taken(client: &Client, topic: &str, id: &str) -> TestResult {
    bad_days::publish_until_taken(client, topic, id, check_unavailable)
}

/// Killed (-9) and started again, three times, under load and with a stream open, which
/// goes on or ends, and misses nothing until then.
#[test(own_server)]
fn a_server_that_is_killed_costs_nothing() -> TestResult {
    const CLIENTS: usize = 6;
    const KILLS: usize = 3;
    let Some((server, database)) = own()? else { return Ok(()) };
    let service = on(&database).start()?;
    let (topic, client) = (unique_topic("killed"), service.client());
    client.publish(event(&topic, "first"))?.expect(200)?;
    let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}&after=0"))?;
    let is_over = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (client, topic, is_over) = (&client, &topic, &is_over);
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let id = format!("{number}-{}", ids.len());
                        publish_until_taken(client, topic, &id)?;
                        ids.push(id);
                    }
                    Ok(ids)
                })
            })
            .collect();
        let killed = (|| {
            for kill in 0..KILLS {
                let taken =
                    || client.counters(&topic).ok().map(|counters| counters.unique_processed);
                let before = wait_until("the counters are told", || Ok(taken()))?;
                wait_until("events are taken", || {
                    Ok(taken().filter(|taken| *taken > before + 20).map(drop))
                })?;
                server.kill()?;
                let reply = client.publish(event(&topic, &format!("while it is down {kill}")))?;
                check_unavailable(&reply)?;
                check_eq(health(&client)?, (503, "unavailable".to_owned()), "health")?;
                server.restart()?;
            }
            Ok::<_, Failed>(())
        })();
        is_over.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeSet::from(["first".to_owned()]);
        for client in clients {
            acknowledged.extend(join(client)?);
        }
        killed?;
        Ok::<_, Failed>(acknowledged)
    })?;
    wait_until("all is well", || Ok((health(&client)?.0 == 200).then_some(())))?;
    let stored = stored_once(&client, &topic)?;
    check(acknowledged.is_subset(&stored), || "an acknowledged event is missing".to_owned())?;
    let order: Vec<Value> = client.all_events(&topic)?;
    let mut order = order.iter().map(|event| event["event_id"].as_str().unwrap_or_default());
    let mut seen = 0;
    while seen < stored.len()
        && let Ok(Some(event)) = stream.event_if_any()
    {
        check_eq(Some(event.event_id()), order.next(), "the next event of the stream")?;
        seen += 1;
    }
    check(seen > 0, || "the stream had nothing".to_owned())
}

#[test(own_server)]
fn a_server_that_was_stopped_is_found_again() -> TestResult {
    let Some((server, database)) = own()? else { return Ok(()) };
    let service = on(&database).start()?;
    let (topic, client) = (unique_topic("stopped"), service.client());
    client.publish(event(&topic, "before"))?.expect(200)?;
    server.stop()?;
    check_unavailable(&client.publish(event(&topic, "down"))?)?;
    check_unavailable(&client.get(&format!("/events?topic={topic}"))?)?;
    server.restart()?;
    publish_until_taken(&client, &topic, "after")?;
    let stored = stored_once(&client, &topic)?;
    check(stored.contains("before") && stored.contains("after"), || format!("{stored:?}"))
}

/// The log names what is wrong, and never the password.
#[test(own_server)]
fn a_wrong_password_is_told_to_the_operator() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let url = database.url();
    let (user, rest) = url.split_once('@').ok_or("no user")?;
    let (user, _) = user.rsplit_once(':').ok_or("no password")?;
    let service = at(&format!("{user}:hunter2@{rest}"), &database.address()).start()?;
    let client = service.client();
    check_unavailable(&client.publish(event("t", "1"))?)?;
    check_eq(health(&client)?, (503, "unavailable".to_owned()), "health")?;
    wait_for_log(&service, "password authentication failed")?;
    let log = service.log();
    check(!log.contains("hunter2"), || log.clone())
}

#[test(own_server)]
fn a_host_that_is_not_allowed_is_told_to_the_operator() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let service = at(&database.url(), "db.example:5432").start()?;
    check_unavailable(&service.client().publish(event("t", "1"))?)?;
    wait_for_log(&service, "not permitted")
}

/// As of a standby.
#[test(own_server)]
fn a_database_that_is_read_only_is_no_place_for_events() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let (topic, service) = (unique_topic("read-only"), on(&database).start()?);
    service.client().publish(event(&topic, "before"))?.expect(200)?;
    let set = |to: &str| -> TestResult {
        let name = database.name();
        let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {to}");
        Ok(database.connect()?.batch_execute(&sql)?)
    };
    set("on")?;
    // Connections have the setting from when they were opened.
    let other = on(&database).start()?;
    check_unavailable(&other.client().publish(event(&topic, "refused"))?)?;
    check_eq(health(&other.client())?, (503, "unavailable".to_owned()), "health")?;
    let seen = other.client().all_events(&topic)?;
    check_eq(seen.len(), 1, "events that are read all the same")
}

/// More clients at once than there are connections (64): each is answered, none waits
/// for ever, and all is stored once.
#[test(own_server)]
fn more_clients_than_connections() -> TestResult {
    const CLIENTS: usize = 160;
    const EVENTS: usize = 5;
    let Some(database) = database()? else { return Ok(()) };
    let (topic, service) = (unique_topic("many"), on(&database).start()?);
    let client = service.client();
    concurrently(CLIENTS, |number| {
        for count in 0..EVENTS {
            publish_until_taken(&client, &topic, &format!("{number}-{count}"))?;
        }
        Ok(())
    })?;
    check_eq(stored_once(&client, &topic)?.len(), CLIENTS * EVENTS, "stored")
}

/// A service whose database is behind a proxy.
fn behind(proxy: &Proxy, database: &Database) -> ServerOptions {
    at(&database.url().replace(&database.address(), &proxy.address), &proxy.address)
}

/// 50 ms away.
#[test(own_server)]
fn a_database_that_is_far_away_is_as_good_as_any() -> TestResult {
    const CLIENTS: usize = 8;
    const EVENTS: usize = 10;
    let Some(database) = database()? else { return Ok(()) };
    let proxy = Proxy::before(&database.address(), |_, _, _| {
        std::thread::sleep(Duration::from_millis(25));
        Fate::Pass
    })?;
    let (topic, service) = (unique_topic("far"), behind(&proxy, &database).start()?);
    let client = service.client();
    client.publish(event(&topic, "first"))?.expect(200)?;
    let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}&after=0"))?;
    concurrently(CLIENTS, |number| {
        for count in 0..EVENTS {
            client.publish(event(&topic, &format!("{number}-{count}")))?.expect(200)?;
        }
        Ok(())
    })?;
    check_eq(health(&client)?, (200, "ok".to_owned()), "health")?;
    let mut seen = BTreeSet::new();
    for _ in 0..=CLIENTS * EVENTS {
        seen.insert(stream.event()?.event_id().to_owned());
    }
    check_eq(stored_once(&client, &topic)?, seen, "stored, and seen by the stream")
}

/// The connection is cut in the middle of the reply that says that a commit is done.
/// Whoever was in it is told that it is not known, and nobody that the first delivery of
/// an event was a duplicate.
#[test(own_server)]
fn a_reply_that_is_cut_off_is_no_answer_and_no_second_event() -> TestResult {
    const CUTS: usize = 5;
    const CLIENTS: usize = 6;
    /// What a reply has to a call that is done, and committed.
    const DONE: &[u8] = b"SELECT 1\0Z\0\0\0\x05I";
    let Some(database) = database()? else { return Ok(()) };
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|one| one == part);
    // The events of whose commits one is cut off, and the connection that it is on.
    let event_of_cut = Arc::new(Mutex::new((String::new(), None)));
    let watched = Arc::clone(&event_of_cut);
    let proxy = Proxy::before(&database.address(), move |connection, way, bytes| {
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, on) = &mut *watched;
        if way == Way::ToServer && on.is_none() && !id.is_empty() && has(bytes, id.as_bytes()) {
            *on = Some(connection);
        }
        if way == Way::ToClient && *on == Some(connection) && has(bytes, DONE) {
            *watched = (String::new(), None);
            return Fate::Cut(bytes.len() / 2);
        }
        Fate::Pass
    })?;
    let (topic, service) = (unique_topic("cut"), behind(&proxy, &database).start()?);
    let client = service.client();
    client.publish(event(&topic, "first"))?.expect(200)?;
    for cut in 0..CUTS {
        let id = format!("to be cut off {cut}");
        *event_of_cut.lock().map_err(|_| "poisoned")? = (id.clone(), None);
        let are_lost = AtomicUsize::new(0);
        concurrently(CLIENTS, |number| {
            let id = format!("{id} {number}");
            let first = client.publish(event(&topic, &id))?;
            if first.status == 200 {
                return check_eq(first.count("accepted")?, 1, "accepted at first");
            }
            check_unavailable(&first)?;
            are_lost.fetch_add(1, Ordering::SeqCst);
            let retried = client.publish(event(&topic, &id))?.expect(200)?;
            check_eq(retried.count("received")?, 1, "received when it is sent again")
        })?;
        check(are_lost.into_inner() > 0, || "no reply was cut off".to_owned())?;
    }
    check_eq(stored_once(&client, &topic)?.len(), 1 + CUTS * CLIENTS, "stored")
}

/// The server has fewer connections than the service would open.
#[test(own_server)]
fn a_database_that_is_out_of_connections_is_busy() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let (topic, client) = (unique_topic("crowded"), database.superuser_config());
    let mut superuser = client.connect(NoTls)?;
    let mut limit = |to: i32| -> TestResult {
        let name = database.name();
        let sql = format!("ALTER DATABASE {name} CONNECTION LIMIT {to}");
        Ok(superuser.batch_execute(&sql)?)
    };
    limit(0)?;
    let service = on(&database).start()?;
    let client = service.client();
    check_unavailable(&client.publish(event(&topic, "1"))?)?;
    check_eq(client.get("/health")?.status, 503, "health")?;
    wait_for_log(&service, "too many connections")?;
    limit(-1)?;
    publish_until_taken(&client, &topic, "1")?;
    check_eq(stored_once(&client, &topic)?.len(), 1, "stored")
}

/// As the server says it when a disk is full, in the middle of a commit.
#[test(own_server)]
fn a_full_disk_is_told_and_nothing_of_the_commit_is_left() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let (topic, service) = (unique_topic("full"), on(&database).start()?);
    let client = service.client();
    client.publish(event(&topic, "before"))?.expect(200)?;
    let mut owner = database.connect()?;
    owner.batch_execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; \
         END $$; \
         CREATE TRIGGER full_disk AFTER INSERT ON sekali.event_log \
           FOR EACH STATEMENT EXECUTE FUNCTION full_disk()",
    )?;
    let refused = client.publish(event(&topic, "refused"))?;
    check_unavailable(&refused)?;
    check_eq(refused.json()?["code"].as_str(), Some("store_full"), "the code")?;
    check_eq(stored_once(&client, &topic)?.len(), 1, "events that are read all the same")?;
    owner.batch_execute("DROP TRIGGER full_disk ON sekali.event_log")?;
    publish_until_taken(&client, &topic, "refused")?;
    check_eq(stored_once(&client, &topic)?.len(), 2, "stored")?;
    // An instance that was refused says so for some seconds, if another took it.
    wait_until("all is well", || Ok((health(&client)? == (200, "ok".to_owned())).then_some(())))
}

/// By the first who wants to publish, who is told to come again at worst. All can be read
/// meanwhile, and no event is taken for a new one.
#[test(own_server)]
fn a_store_of_version_1_is_taken_over() -> TestResult {
    const EVENTS: usize = 20_000;
    let Some(database) = database()? else { return Ok(()) };
    let topic = unique_topic("old");
    let mut owner = database.connect()?;
    owner.batch_execute(include_str!("../../src/store/postgres/schema.sql"))?;
    owner.batch_execute(&format!(
        "SELECT sekali.append_1(array_agg('{topic}'::text), array_agg(n::text), \
           array_agg('s'::text), decode(repeat('00', 16 * {EVENTS}), 'hex'), \
           array_agg(NULL::text), array_agg('1'::text), NULL, 10000, '{{}}', '{{}}') \
         FROM generate_series(1, {EVENTS}) n"
    ))?;
    let service = on(&database).start()?;
    let client = service.client();
    check_eq(client.counters(&topic)?.unique_processed, EVENTS as u64, "events that are read")?;
    publish_until_taken(&client, &topic, "new")?;
    let again = client.publish(event(&topic, "17"))?.expect(200)?;
    check_eq(again.count("accepted")?, 0, "events that were stored before")?;
    check_eq(client.all_events(&topic)?.len(), EVENTS + 1, "stored")?;
    let identities = "SELECT count(*) FROM sekali.identity";
    check_eq(owner.query_one(identities, &[])?.get(0), EVENTS as i64 + 1, "identities")
}
