//! A key-value store that is locked or damaged: nothing but the history suffers.

use libtest_mimic::Failed;
use rusqlite::Connection;

use crate::support::{
    Server, TestResult, check, check_eq, concurrently, event, key_value_database,
    make_snapshot_due, sqlite_server, test, unique_topic, wait_until,
};

fn minutes(server: &Server) -> Result<usize, Failed> {
    let history = server.client().get("/stats/history")?.expect(200)?.json()?;
    Ok(history.as_array().map_or(0, Vec::len))
}

/// A service with a snapshot, whose file another process holds.
fn locked() -> Result<(Server, Connection), Failed> {
    let server = Server::start()?;
    server.client().publish(event(&unique_topic("first"), "1"))?.expect(200)?;
    wait_until("there is a snapshot", || Ok((minutes(&server)? > 0).then_some(())))?;
    let store = key_value_database(&server.state)?;
    store.execute_batch("BEGIN EXCLUSIVE")?;
    Ok((server, store))
}

/// Whether an instance is visiting the key-value store, as it told the others.
fn is_visited(database: &Connection) -> Result<bool, Failed> {
    let began = "SELECT value FROM counters WHERE name = 'mark/key_value/began_at'";
    let began: i64 = database.query_row(began, [], |row| row.get(0))?;
    Ok(began > 0)
}

/// Every reply comes while an instance waits for the lock, before the platform gives
/// up, and every client gets several meanwhile: a publish that waited as well would be
/// the only one of its client, and the last.
#[test(sqlite_server)]
fn no_publish_waits_for_a_locked_store() -> TestResult {
    const CLIENTS: usize = 8;
    const PUBLISHES_MIN: usize = 5;
    let topic = unique_topic("locked");
    let (server, store) = locked()?;
    make_snapshot_due(&server)?;
    // Until an instance has run into the lock and others say so.
    let clients = concurrently(CLIENTS, |number| {
        let client = server.client();
        let database = server.database()?;
        let (mut id, mut beside) = (0, 0);
        let status = wait_until("health tells of the lock", || {
            id += 1;
            let is_beside = is_visited(&database)?;
            client.publish(event(&topic, &format!("{number}-{id}")))?.expect(200)?;
            beside += usize::from(is_beside && is_visited(&database)?);
            client.get("/stats")?.expect(200)?;
            let health = client.get("/health")?;
            let status = health.json()?["stores"]["key_value"]["status"].clone();
            Ok((status != "ok").then_some(status))
        })?;
        Ok((beside, status))
    })?;
    check(
        clients.iter().all(|(beside, status)| *beside >= PUBLISHES_MIN && status == "busy"),
        || format!("publishes beside the visit, and what ended them: {clients:?}"),
    )?;
    // Nobody asks it now.
    server.client().get("/stats/history")?.expect(503)?;
    check(!store.is_autocommit(), || "the lock is not held".into())?;
    store.execute_batch("ROLLBACK")?;

    let mut id = 0;
    wait_until("health and history are well", || {
        id += 1;
        server.client().publish(event(&topic, &format!("later-{id}")))?.expect(200)?;
        let health = server.client().get("/health")?.status;
        Ok((health == 200 && server.client().get("/stats/history")?.status == 200).then_some(()))
    })
}

#[test(sqlite_server)]
fn a_damaged_value_is_replaced_and_counted() -> TestResult {
    let topic = unique_topic("damaged");
    let server = Server::start()?;
    let client = server.client();
    client.publish(event(&topic, "1"))?.expect(200)?;
    wait_until("there is a snapshot", || Ok((minutes(&server)? > 0).then_some(())))?;
    let damage = "UPDATE spin_key_value SET value = x'ff00fe'";
    let damaged = key_value_database(&server.state)?.execute(damage, [])?;
    check(damaged >= 2, || format!("{damaged} values"))?;

    check_eq(minutes(&server)?, 0, "what can be read")?;
    client.get("/health")?.expect(200)?;
    let mut id = 0;
    wait_until("it is replaced", || {
        // Whichever instance answers, it finds that a snapshot is due.
        make_snapshot_due(&server)?;
        id += 1;
        client.publish(event(&topic, &format!("later-{id}")))?.expect(200)?;
        Ok((minutes(&server)? > 0).then_some(()))
    })?;
    wait_until("it is counted", || {
        let metrics = client.get("/metrics")?.expect(200)?.text;
        let count = metrics.lines().find_map(|line| {
            line.strip_prefix("sekali_unreadable_key_value_values_total ")?.parse().ok()
        });
        // The snapshots, and the time of first start.
        Ok(count.filter(|count: &f64| *count >= 2.0).map(drop))
    })?;
    wait_until("it is logged", || {
        Ok(server.log().contains("a value in the key-value store was damaged").then_some(()))
    })
}
