//! The database: created by many at once, durable, of a newer schema, and where it
//! cannot be written.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{
    Edit, Server, ServerOptions, Stream, TestResult, check, check_eq, concurrently, database,
    event, own_server, sqlite_server, test, unique_topic, wait_until,
};

/// Two hosts, instances that serve one request each, 32 requests at once, and
/// no database yet.
#[test(own_server)]
fn instances_of_two_hosts_create_the_schema_at_once() -> TestResult {
    const CLIENTS: usize = 32;
    let topic = unique_topic("first");
    let state = Arc::new(TempDir::new()?);
    let flags = ["--max-instance-reuse-count", "1", "--max-instance-concurrent-reuse-count", "1"];
    let options = ServerOptions::on(&state).flags(&flags);
    let servers = [options.start()?, options.start()?];
    let accepted = concurrently(CLIENTS, |number| {
        let own = event(&topic, &number.to_string());
        let body = format!("[{},{own}]", event(&topic, "same"));
        servers[number % 2].client().publish(body)?.expect(200)?.count("accepted")
    })?;
    check_eq(accepted.iter().sum(), CLIENTS as u64 + 1, "accepted")?;
    let counters = servers[0].client().counters(&topic)?;
    check_eq(counters.received, 2 * CLIENTS as u64, "received")?;
    check_eq(servers[1].client().all_events(&topic)?.len(), CLIENTS + 1, "stored")
}

/// Whether this machine lets a test have a mount of its own.
fn may_mount() -> bool {
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A host that sees `state` only as `mount` prepared it.
fn mounted(state: &Arc<TempDir>, mount: &str) -> ServerOptions {
    let script =
        format!("unshare --map-root-user --mount sh -c '{mount} && exec \"$@\"' sh \"$@\"");
    ServerOptions::on(state).wrapper(format!("exec {script}"))
}

#[test(sqlite_server)]
fn a_read_only_directory_is_503_and_loses_nothing() -> TestResult {
    if !may_mount() {
        println!("not tested with a read-only directory: mounts are not allowed here");
        return Ok(());
    }
    let topic = unique_topic("read-only");
    let state = Arc::new(TempDir::new()?);
    let dir = state.path().display();
    let remount = format!("mount --bind {dir} {dir} && mount -o remount,ro,bind {dir}");

    // Nothing there yet, then a store with events in it.
    for stored in [0, 1] {
        if stored > 0 {
            let server = ServerOptions::on(&state).start()?;
            server.client().publish(event(&topic, "1"))?.expect(200)?;
            server.signal("TERM")?;
        }
        let server = match mounted(&state, &remount).start() {
            Ok(server) => server,
            // A clear start error is as good: the log directory cannot be written.
            Err(failed) => {
                let message = failed.message().unwrap_or_default().to_owned();
                check(message.contains("ead-only") || message.contains("ead only"), || message)?;
                continue;
            }
        };
        let reply = server.client().publish(event(&topic, "2"))?.expect(503)?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        check(!reply.text.contains(&state.path().display().to_string()), || format!("{reply:#?}"))?;
        server.client().get("/health")?.expect(503)?;
    }
    let server = ServerOptions::on(&state).start()?;
    let reply = server.client().publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted once it can be written")
}

#[test(sqlite_server)]
fn a_full_directory_is_503_until_there_is_room() -> TestResult {
    if !may_mount() {
        println!("not tested with a full directory: mounts are not allowed here");
        return Ok(());
    }
    let topic = unique_topic("full");
    let state = Arc::new(TempDir::new()?);
    let dir = state.path().display();
    let server = mounted(&state, &format!("mount -t tmpfs -o size=4m tmpfs {dir}")).start()?;
    let client = server.client();
    // The mount is the host's alone; its files are seen through its process.
    let inside = Path::new("/proc").join(server.child.id().to_string()).join("root");
    let ballast = inside.join(state.path().strip_prefix("/")?).join("ballast");
    client.publish(event(&topic, "before"))?.expect(200)?;
    fs::write(&ballast, vec![0; 2 << 20])?;

    let payload = "x".repeat(100_000);
    let large = |id: u32| {
        format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s","payload":"{payload}"}}"#)
    };
    let mut acknowledged = 0;
    let refused = loop {
        let reply = client.publish(large(acknowledged))?;
        if reply.status != 200 {
            break reply;
        }
        acknowledged += 1;
        check(acknowledged < 1000, || "the directory does not fill up".into())?;
    };
    check(refused.status == 503 && refused.header("retry-after").is_some(), || {
        format!("{refused:#?}")
    })?;
    let counters = client.counters(&topic)?;
    check_eq(counters.unique_processed, u64::from(acknowledged) + 1, "stored while full")?;

    fs::remove_file(&ballast)?;
    let reply = client.publish(large(acknowledged))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted once there is room")?;
    let stored = client.all_events(&topic)?.len();
    check_eq(stored, acknowledged as usize + 2, "stored in the end")
}

#[test(sqlite_server)]
fn a_database_of_a_newer_schema_is_left_alone() -> TestResult {
    let topic = unique_topic("newer");
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    server.kill()?;
    database(&state)?.execute_batch("PRAGMA user_version = 99")?;
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(event(&topic, "2"))?.expect(503)?;
    server.client().get("/health")?.expect(503)?;
    wait_until("the log names the version", || Ok(server.log().contains("99").then_some(())))?;
    server.kill()?;
    let count: i64 =
        database(&state)?.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    check_eq(count, 1, "events")
}

/// What makes an acknowledgement durable, as the file itself shows.
#[test(sqlite_server)]
fn an_acknowledged_event_is_committed_in_wal_mode() -> TestResult {
    let topic = unique_topic("durability");
    let server = Server::start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    let database = server.database()?;
    let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    check_eq(mode.as_str(), "wal", "journal_mode")?;
    let stored: (String, i64) = database.query_row(
        "SELECT e.event_id, t.unique_processed FROM events e JOIN topic_totals t USING (topic)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    check_eq(stored, ("1".to_owned(), 1), "what another reader sees after the reply")
}

/// A row that was damaged, or edited by hand: every reader gets it, marked, and
/// goes on.
#[test(own_server)]
fn a_damaged_row_stops_no_reader() -> TestResult {
    let topic = unique_topic("damaged");
    let server = Server::start()?;
    let client = server.client();
    client.publish_ids(&topic, &["1", "2", "3"].map(str::to_owned))?.expect(200)?;
    let damage = |events: &str| format!("UPDATE {events} SET payload = '{{x' WHERE event_id = '2'");
    Edit { sqlite: &damage("event_log"), postgres: &damage("sekali.event_log") }.apply(&server)?;

    let page = client.get(&format!("/events?topic={topic}"))?.expect(200)?.json()?;
    let damaged = &page["events"][1];
    check(damaged["payload"].is_null() && damaged["error"].is_string(), || page.to_string())?;
    check_eq(&damaged["event_id"], &"2".into(), "identity")?;
    check(page["events"][2].get("error").is_none(), || page.to_string())?;

    let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}"))?;
    stream.opening()?;
    stream.check_next(&["1", "2", "3"], &topic)?;

    let subscription = format!("/subscriptions/{}", unique_topic("damaged"));
    client.send("PUT", &subscription, &[], b"")?.expect(201)?;
    let read = client.get(&format!("{subscription}/events"))?.expect(200)?.json()?;
    check_eq(&read["events"][1], damaged, "what a subscription gets")?;

    let line = format!("the payload of seq {} is not JSON", damaged["seq"]);
    wait_until("the log names the row", || Ok(server.log().contains(&line).then_some(())))
}
