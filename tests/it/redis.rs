//! The history of the counters in Redis, and bad days of Redis: nothing but the history
//! suffers.

use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use redis::Commands;
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;

use crate::support::redis::{Redis, configured, is_available_or_skip};
use crate::support::{
    Client, Server, ServerOptions, TestResult, check, check_eq, concurrently, event,
    make_snapshot_due, sqlite_server, stored_once, test, unique_topic, wait_until,
};

/// Pause between two looks at what takes seconds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A service that has its key-value store at `url`.
fn start(options: ServerOptions, url: &str) -> Result<(Server, TempDir), Failed> {
    let (options, directory) = configured(options, &[("default", url)])?;
    Ok((options.start()?, directory))
}

/// A service, and its Redis, which has a snapshot.
fn with_a_snapshot(topic: &str) -> Result<(Redis, Server, TempDir), Failed> {
    let redis = Redis::start()?;
    let (server, directory) = start(ServerOptions::default(), &redis.url(0))?;
    server.client().publish(event(topic, "first"))?.expect(200)?;
    wait_until("there is a snapshot", || Ok((minutes(&server.client())? > 0).then_some(())))?;
    Ok((redis, server, directory))
}

fn minutes(client: &Client) -> Result<usize, Failed> {
    let history = client.get("/stats/history")?.expect(200)?.json()?;
    Ok(history.as_array().map_or(0, Vec::len))
}

/// What health says of the key-value store; that of events is well.
fn health(client: &Client) -> Result<String, Failed> {
    let health = client.get("/health")?;
    let stores = &health.json()?["stores"];
    check_eq(stores["sqlite"]["status"].as_str(), Some("ok"), "the store of events")?;
    let status = stores["key_value"]["status"].as_str().unwrap_or_default().to_owned();
    check_eq(health.status, if status == "ok" { 200 } else { 503 }, "health")?;
    Ok(status)
}

/// Whether an instance is visiting the key-value store, as it told the others.
fn is_visited(database: &Connection) -> Result<bool, Failed> {
    let began = "SELECT value FROM counters WHERE name = 'mark/key_value/began_at'";
    // There is none before the first visit.
    let began: Option<i64> = database.query_row(began, [], |row| row.get(0)).optional()?;
    Ok(began.is_some_and(|began| began > 0))
}

/// Publishes until health says that the key-value store is `unavailable`: the events, and
/// those of them that were taken from beginning to end while an instance visited it.
fn publish_until_it_is_told(server: &Server, topic: &str) -> Result<(usize, usize), Failed> {
    make_snapshot_due(server)?;
    let (client, database) = (server.client(), server.database()?);
    let (mut events, mut beside) = (0, 0);
    wait_until("health tells it", || {
        events += 1;
        let is_beside = is_visited(&database)?;
        client.publish(event(topic, &format!("{events}")))?.expect(200)?;
        beside += usize::from(is_beside && is_visited(&database)?);
        client.get("/stats")?.expect(200)?;
        let status = health(&client)?;
        check(status == "ok" || status == "unavailable", || format!("it is {status}"))?;
        Ok((status != "ok").then_some(()))
    })?;
    Ok((events, beside))
}

fn wait_until_well(server: &Server, topic: &str) -> TestResult {
    let client = server.client();
    let mut id = 0;
    wait_until("health and history are well", || {
        thread::sleep(LOOK_AGAIN);
        id += 1;
        client.publish(event(topic, &format!("later-{id}")))?.expect(200)?;
        let is_well = health(&client)? == "ok" && client.get("/stats/history")?.status == 200;
        Ok(is_well.then_some(()))
    })
}

#[test(sqlite_server)]
fn the_history_outlives_the_host_and_is_in_redis_alone() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let topic = unique_topic("restarted");
    let (redis, server, _directory) = with_a_snapshot(&topic)?;
    let client = server.client();
    let before = client.get("/stats/history")?.expect(200)?.json()?;
    let started_at = client.get("/stats")?.json()?["started_at"].clone();
    check(!server.state.path().join("sqlite_key_value.db").exists(), || "a file".to_owned())?;
    let state = server.kill()?;
    let mut keys: Vec<String> = redis.connect()?.keys("*")?;
    keys.sort();
    check_eq(keys.join(" ").as_str(), "snapshots started_at", "keys")?;

    let (server, _directory) = start(ServerOptions::on(&state), &redis.url(0))?;
    let client = server.client();
    check_eq(client.get("/stats/history")?.expect(200)?.json()?, before, "the history")?;
    check_eq(&client.get("/stats")?.json()?["started_at"], &started_at, "the first start")?;
    check_eq(health(&client)?.as_str(), "ok", "health")
}

/// It answers nobody, and refuses nothing either: a call would not come back. It is given
/// up, by whoever waits for it.
#[test(sqlite_server)]
fn nobody_waits_for_a_redis_that_is_stopped() -> TestResult {
    const CLIENTS: usize = 4;
    const PUBLISHES_MIN: usize = 5;
    if !is_available_or_skip()? {
        return Ok(());
    }
    let topic = unique_topic("stopped");
    let (redis, server, _directory) = with_a_snapshot(&topic)?;
    redis.signal("STOP")?;
    let published = concurrently(CLIENTS, |number| {
        publish_until_it_is_told(&server, &format!("{topic}-{number}"))
    })?;
    check(published.iter().all(|(_, beside)| *beside >= PUBLISHES_MIN), || {
        format!("events, and those beside a visit: {published:?}")
    })?;
    server.client().get("/stats/history")?.expect(503)?;
    wait_until("the log tells it", || {
        Ok(server.log().contains("key-value store: no answer within 2000 ms").then_some(()))
    })?;
    redis.signal("CONT")?;
    wait_until_well(&server, &topic)?;
    for (number, (events, _)) in published.iter().enumerate() {
        let stored = stored_once(&server.client(), &format!("{topic}-{number}"))?;
        check_eq(stored.len(), *events, "stored")?;
    }
    Ok(())
}

/// A host that has noticed tries to connect again after a second or two, and then every one
/// or two minutes, as Spin does; one that is started anew is the faster way.
#[test(sqlite_server)]
fn a_redis_that_is_killed_costs_no_more_than_the_history() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let topic = unique_topic("killed");
    let (mut redis, server, _directory) = with_a_snapshot(&topic)?;
    redis.kill()?;
    let (events, _) = publish_until_it_is_told(&server, &topic)?;
    server.client().get("/stats/history")?.expect(503)?;
    let state = server.kill()?;
    redis.restart()?;
    let (server, _directory) = start(ServerOptions::on(&state), &redis.url(0))?;
    let client = server.client();
    check_eq(stored_once(&client, &topic)?.len(), events + 1, "stored")?;
    wait_until_well(&server, &topic)?;
    check(minutes(&client)? > 0, || "the history is lost".to_owned())
}

#[test(sqlite_server)]
fn a_redis_that_is_restarted_is_not_missed() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let topic = unique_topic("restart");
    let (mut redis, server, _directory) = with_a_snapshot(&topic)?;
    redis.kill()?;
    redis.restart()?;
    make_snapshot_due(&server)?;
    let client = server.client();
    client.publish(event(&topic, "second"))?.expect(200)?;
    check_eq(minutes(&client)?, 1, "minutes")?;
    check_eq(health(&client)?.as_str(), "ok", "health")
}

#[test(sqlite_server)]
fn a_wrong_password_is_told_to_the_operator() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let topic = unique_topic("password");
    let redis = Redis::start()?;
    let wrong = redis.url(0).replace(redis.password(), "hunter2");
    let (server, _directory) = start(ServerOptions::default(), &wrong)?;
    server.client().publish(event(&topic, "first"))?.expect(200)?;
    publish_until_it_is_told(&server, &topic)?;
    server.client().get("/stats/history")?.expect(503)?;
    let told = format!("cannot connect to Redis at {}: ", redis.address());
    wait_until("the log tells it", || Ok(server.log().contains(&told).then_some(())))?;
    let log = server.log();
    check(!log.contains("hunter2"), || log)
}
