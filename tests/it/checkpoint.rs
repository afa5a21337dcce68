//! The write-ahead log (WAL): copied into the database by one instance at a time,
//! while nobody writes, and often enough that it stays small.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Failed;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::publish_stream;
use crate::support::{
    Auditor, Server, ServerOptions, TestResult, check, check_eq, concurrently, event,
    sqlite_server, test, unique_topic,
};

const PAGE_BYTES: u64 = 4096;

/// Every request gets an instance, and so a connection, of its own.
const ONE_REQUEST_EACH: [&str; 4] =
    ["--max-instance-reuse-count", "1", "--max-instance-concurrent-reuse-count", "1"];

/// A server with a checkpoint after so many pages, and a connection to its
/// database that is always there: the last that closes would copy the WAL too.
fn server(wal_pages_max: u32, flags: &[&str]) -> Result<(Server, Connection), Failed> {
    let pages = format!("wal_pages_max={wal_pages_max}");
    let server = ServerOptions::default().flags(flags).variable(&pages).start()?;
    server.client().publish(event(&unique_topic("first"), "1"))?.expect(200)?;
    let reader = server.database()?;
    check_eq(count(&reader, "SELECT count(*) FROM event_log")?, 1, "events")?;
    Ok((server, reader))
}

fn count(database: &Connection, query: &str) -> Result<i64, Failed> {
    Ok(database.query_row(query, [], |row| row.get(0))?)
}

fn integrity(database: &Connection) -> TestResult {
    let found: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    check_eq(found.as_str(), "ok", "integrity_check")
}

/// A number that grows by one when the WAL is begun anew: the first salt of its
/// header. (The sequence number beside it is one of the connection.)
fn salt(state: &TempDir) -> Result<u32, Failed> {
    let wal = fs::read(state.path().join("sqlite_db.db-wal"))?;
    let salt = wal.get(16..20).ok_or("the WAL has no header")?;
    Ok(u32::from_be_bytes(salt.try_into()?))
}

/// How often the WAL was begun anew since it had this salt.
fn times_anew(state: &TempDir, since: u32) -> Result<u32, Failed> {
    Ok(salt(state)?.wrapping_sub(since))
}

fn wal_pages(state: &TempDir) -> Result<u64, Failed> {
    Ok(fs::metadata(state.path().join("sqlite_db.db-wal"))?.len() / PAGE_BYTES)
}

/// Publishes single events, one after the other, until the WAL has been begun anew
/// so often; how many it took.
fn publish_until_anew(server: &Server, topic: &str, times: u32) -> Result<usize, Failed> {
    const EVENTS_MAX: usize = 3_000;
    let began = salt(&server.state)?;
    for number in 0..EVENTS_MAX {
        if times_anew(&server.state, began)? >= times {
            return Ok(number);
        }
        server.client().publish(event(topic, &number.to_string()))?.expect(200)?;
    }
    Err(format!("the WAL was not begun anew {times} times in {EVENTS_MAX} commits").into())
}

/// However much is committed: a connection's own checkpoint would be a passive one.
#[test(sqlite_server)]
fn no_connection_makes_checkpoints_by_itself() -> TestResult {
    const COMMITS: u64 = 400;
    let (server, _reader) = server(u32::MAX, &[])?;
    let client = server.client();
    let topic = unique_topic("never");
    let file = server.state.path().join("sqlite_db.db");
    let before = fs::read(&file)?;
    for number in 0..COMMITS {
        client.publish(event(&topic, &number.to_string()))?.expect(200)?;
    }
    check(wal_pages(&server.state)? > 1000, || "SQLite's own limit was not reached".into())?;
    check(fs::read(&file)? == before, || "something was copied into the database".into())?;
    check_eq(client.all_events(&topic)?.len() as u64, COMMITS, "events")
}

#[test(sqlite_server)]
fn the_wal_stays_small_with_instances_of_one_request() -> TestResult {
    let (server, reader) = server(40, &ONE_REQUEST_EACH)?;
    let topic = unique_topic("short");
    let events = publish_until_anew(&server, &topic, 10)?;
    check_eq(server.client().all_events(&topic)?.len(), events, "events")?;
    integrity(&reader)
}

/// Of commits that are not of events nobody else tells how many there were.
#[test(sqlite_server)]
fn acknowledgements_alone_bring_a_checkpoint_about() -> TestResult {
    const ACKNOWLEDGEMENTS_MAX: usize = 1_000;
    let (server, _reader) = server(40, &ONE_REQUEST_EACH)?;
    let client = server.client();
    let name = format!("/subscriptions/{}", unique_topic("acks"));
    let began = salt(&server.state)?;
    for _ in 0..ACKNOWLEDGEMENTS_MAX {
        client.send("PUT", &name, &[], b"")?;
        client.send("DELETE", &name, &[], b"")?.expect(200)?;
        if times_anew(&server.state, began)? > 2 {
            return Ok(());
        }
    }
    Err("the WAL was never begun anew".into())
}

/// A stream that goes on and on is one request, and nobody else is there.
#[test(sqlite_server)]
fn a_stream_brings_a_checkpoint_about() -> TestResult {
    const EVENTS_MAX: usize = 1_000;
    // The instance of the first publish would go on making checkpoints.
    let (server, _reader) = server(40, &ONE_REQUEST_EACH)?;
    let topic = unique_topic("stream");
    let (mut up, mut down) = publish_stream::open(&server.client())?;
    let began = salt(&server.state)?;
    for number in 0..EVENTS_MAX {
        if times_anew(&server.state, began)? > 2 {
            return up.end();
        }
        up.send(&publish_stream::line(&topic, number))?;
        check_eq(down.status()?.as_str(), "accepted", "outcome")?;
    }
    Err("the WAL was never begun anew".into())
}

/// Somebody reads for long: it costs room, but holds up nobody, and is made good
/// when the reader ends.
#[test(sqlite_server)]
fn a_long_reader_holds_up_no_publish() -> TestResult {
    const COMMITS: usize = 200;
    let (server, mut reader) = server(20, &[])?;
    let client = server.client();
    let topic = unique_topic("reader");
    let reading = reader.transaction()?;
    check(count(&reading, "SELECT count(*) FROM event_log")? > 0, || "no events".into())?;
    // The WAL is not begun anew any more, or once by a commit that came before.
    for number in 0..COMMITS {
        client.publish(event(&topic, &number.to_string()))?.expect(200)?;
    }
    check(wal_pages(&server.state)? > COMMITS as u64, || "the WAL was begun anew".into())?;
    drop(reading);
    publish_until_anew(&server, &unique_topic("afterwards"), 2)?;
    check_eq(client.all_events(&topic)?.len(), COMMITS, "events")
}

/// The WAL is kept near the place where it is begun anew, by clients and instances
/// that come and go, with readers in between.
#[test(sqlite_server)]
fn what_is_acknowledged_near_the_reset_is_stored() -> TestResult {
    const CLIENTS: usize = 12;
    const REQUESTS: usize = 60;
    let flags = [
        "--max-instance-reuse-count",
        "3",
        "--max-instance-concurrent-reuse-count",
        "2",
        "--idle-instance-timeout",
        "50ms",
    ];
    let (server, reader) = server(8, &flags)?;
    let topic = unique_topic("reset");
    let ended = AtomicBool::new(false);
    let auditors = std::thread::scope(|scope| {
        let polls = scope.spawn(|| -> TestResult {
            while !ended.load(Ordering::Relaxed) {
                server.client().get(&format!("/events?topic={topic}&limit=5"))?.expect(200)?;
            }
            Ok(())
        });
        let published = concurrently(CLIENTS, |number| {
            let client = server.client();
            let mut auditor = Auditor::default();
            for request in 0..REQUESTS {
                let ids: Vec<String> = (0..1 + request % 7)
                    .map(|place| format!("{number}-{request}-{place}"))
                    .collect();
                auditor.publish(&client, &topic, &ids)?;
            }
            Ok(auditor)
        });
        ended.store(true, Ordering::Relaxed);
        polls.join().map_err(|_| "the reader panicked")??;
        published
    })?;
    let auditor = Auditor::merged(auditors);
    auditor.audit(&server.client(), &topic)?;
    publish_until_anew(&server, &unique_topic("afterwards"), 3)?;
    auditor.audit(&server.client(), &topic)?;
    integrity(&reader)?;
    drop(reader);

    let state = server.kill()?;
    let server = ServerOptions::on(&Arc::clone(&state)).start()?;
    auditor.audit(&server.client(), &topic)?;
    integrity(&server.database()?)
}
