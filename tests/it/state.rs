use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Outcome, Start, check, check_eq, event, root, unique_topic};
use crate::registry::{own_server, test};

#[test(own_server)]
fn counters_and_identities_survive() -> Outcome {
    let topic = unique_topic("restart");
    let state = Arc::new(TempDir::new()?);
    let server = Start::on(&state).start()?;
    server.client().publish(format!("[{0},{0},{1}]", event(&topic, "1"), event(&topic, "2")))?;
    server.client().publish("{}")?.expect(422)?;
    let before = server.client().get("/stats")?.expect(200)?.json()?;
    server.kill()?;
    let server = Start::on(&state).start()?;
    let client = server.client();
    let after = client.get("/stats")?.expect(200)?.json()?;
    for field in
        ["received", "unique_processed", "duplicate_dropped", "rejected", "started_at", "by_topic"]
    {
        check(before[field] == after[field], || format!("{field}: {before:#} became {after:#}"))?;
    }
    check(before["rejected"] == 1, || format!("{before:#}"))?;
    check(after["uptime_seconds"].as_f64() >= before["uptime_seconds"].as_f64(), || {
        format!("{after:#}")
    })?;
    let reply = client.publish(event(&topic, "1"))?.expect(200)?;
    check_eq(reply.count("duplicates")?, 1, "duplicates after the restart")
}

/// Two hosts, instances that serve one request each, 32 requests at once, and
/// no database yet.
#[test(own_server)]
fn instances_of_two_hosts_create_the_schema_at_once() -> Outcome {
    const CLIENTS: usize = 32;
    let topic = unique_topic("first");
    let state = Arc::new(TempDir::new()?);
    let flags = ["--max-instance-reuse-count", "1", "--max-instance-concurrent-reuse-count", "1"];
    let servers =
        [Start::on(&state).flags(&flags).start()?, Start::on(&state).flags(&flags).start()?];
    let accepted = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let (client, topic) = (servers[index % 2].client(), &topic);
                scope.spawn(move || {
                    let body =
                        format!("[{},{}]", event(topic, "same"), event(topic, &format!("{index}")));
                    client.publish(body)?.expect(200)?.count("accepted")
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into())))
            .sum::<Result<u64, Failed>>()
    });
    let explain = |failed| servers[1].explain(servers[0].explain(failed));
    check_eq(accepted.map_err(explain)?, CLIENTS as u64 + 1, "accepted")?;
    let counters = servers[0].client().counters(&topic).map_err(explain)?;
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
fn mounted(state: &Arc<TempDir>, mount: &str) -> Start {
    let script =
        format!("unshare --map-root-user --mount sh -c '{mount} && exec \"$@\"' sh \"$@\"");
    Start { wrapper: Some(format!("exec {script}")), ..Start::on(state) }
}

#[test(own_server)]
fn a_read_only_directory_is_503_and_loses_nothing() -> Outcome {
    if !may_mount() {
        println!("state::a_read_only_directory: no mount of one's own not tested");
        return Ok(());
    }
    let topic = unique_topic("read-only");
    let state = Arc::new(TempDir::new()?);
    let dir = state.path().display();
    let remount = format!("mount --bind {dir} {dir} && mount -o remount,ro,bind {dir}");

    // Nothing there yet, then a store with events in it.
    for stored in [0, 1] {
        if stored > 0 {
            let server = Start::on(&state).start()?;
            server.client().publish(event(&topic, "1"))?.expect(200)?;
            server.signal("TERM")?;
        }
        let server = match mounted(&state, &remount).start() {
            Ok(server) => server,
            // A clear start error is as good: the log directory cannot be written.
            Err(failed) => {
                let said = failed.message().unwrap_or_default().to_owned();
                check(said.contains("ead-only") || said.contains("ead only"), || said)?;
                continue;
            }
        };
        let reply = server.client().publish(event(&topic, "2"))?.expect(503)?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        check(!reply.text.contains(&state.path().display().to_string()), || format!("{reply:#?}"))?;
        server.client().get("/health")?.expect(503)?;
    }
    let server = Start::on(&state).start()?;
    let reply = server.client().publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted once it can be written")
}

#[test(own_server)]
fn a_full_directory_is_503_until_there_is_room() -> Outcome {
    if !may_mount() {
        println!("state::a_full_directory: no mount of one's own not tested");
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
    let reply = client.publish(large(acknowledged)).map_err(|failed| server.explain(failed))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted once there is room")?;
    let stored = client.all_events(&topic)?.len();
    check_eq(stored, acknowledged as usize + 2, "stored in the end")
}

#[test(own_server)]
fn a_state_directory_that_cannot_be_made_is_a_start_error() -> Outcome {
    let state = Arc::new(TempDir::new()?);
    let file = state.path().join("file");
    fs::write(&file, "in the way")?;
    let start = Start { state_path: Some(file.join("below")), ..Start::on(&state) };
    let (mut command, _state) = start.command()?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(!output.status.success(), || format!("it started: {said}"))?;
    check(said.contains("below"), || format!("the directory is not named: {said}"))
}

#[test(own_server)]
fn a_database_of_a_newer_schema_is_left_alone() -> Outcome {
    let topic = unique_topic("newer");
    let state = Arc::new(TempDir::new()?);
    let server = Start::on(&state).start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    server.kill()?;
    let database = rusqlite::Connection::open(state.path().join("sqlite_db.db"))?;
    database.execute_batch("PRAGMA user_version = 99")?;
    drop(database);
    let server = Start::on(&state).start()?;
    server.client().publish(event(&topic, "2"))?.expect(503)?;
    server.client().get("/health")?.expect(503)?;
    check(server.said().contains("99"), || server.said())?;
    server.kill()?;
    let database = rusqlite::Connection::open(state.path().join("sqlite_db.db"))?;
    let count: i64 = database.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    check_eq(count, 1, "events")
}

#[test(own_server)]
fn a_lost_key_value_store_costs_no_event() -> Outcome {
    let topic = unique_topic("lost-kv");
    let state = Arc::new(TempDir::new()?);
    let server = Start::on(&state).start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    let before = server.client().get("/stats")?.expect(200)?.json()?;
    server.kill()?;
    fs::remove_file(state.path().join("sqlite_key_value.db"))?;
    let server = Start::on(&state).start()?;
    let reply = server.client().publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted")?;
    let after = server.client().get("/stats")?.expect(200)?.json()?;
    check(before["started_at"] == after["started_at"], || format!("{before:#} {after:#}"))?;
    server.client().get("/health")?.expect(200).map(drop)
}

#[test(own_server)]
fn reports_a_missing_key_value_store_while_publish_works() -> Outcome {
    let topic = unique_topic("no-kv");
    let state = Arc::new(TempDir::new()?);
    let manifest = state.path().join("spin.toml");
    let text = fs::read_to_string(root().join("spin.toml"))?;
    let source = root().join("target/wasm32-wasip2/release/sekali.wasm");
    let text = text
        .replace("key_value_stores = [\"default\"]", "")
        .replace("target/wasm32-wasip2/release/sekali.wasm", &source.display().to_string());
    fs::write(&manifest, text)?;
    let server = Start { manifest: Some(manifest), ..Start::on(&state) }.start()?;
    let client = server.client();
    let reply = client.publish(event(&topic, "1"))?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted")?;
    for path in ["/health", "/healthz"] {
        let health = client.get(path)?.expect(503)?.json()?;
        let reason = health["reason"].as_str().unwrap_or_default();
        check(reason.contains("key-value"), || format!("{health:#}"))?;
    }
    let stats = client.get("/stats")?.expect(200)?.json()?;
    check(stats["received"] == 1 && stats["started_at"] != Value::Null, || format!("{stats:#}"))?;
    client.get("/stats/history")?.expect(503).map(drop)
}

/// A day of snapshots, read by some while others use the same store: to stream
/// its keys would hang the instance for ever.
#[test(own_server)]
fn a_day_of_history_is_read_while_others_ask() -> Outcome {
    const MINUTES: i64 = 24 * 60 - 2;
    let topic = unique_topic("history");
    let state = Arc::new(TempDir::new()?);
    let server = Start::on(&state).start()?;
    server.client().publish(event(&topic, "first"))?.expect(200)?;
    let now = server.client().get("/stats/history")?.expect(200)?.json()?;
    let now = now[0]["minute"].as_str().ok_or("no snapshot")?.to_owned();
    server.kill()?;

    let store = rusqlite::Connection::open(state.path().join("sqlite_key_value.db"))?;
    let mut snapshots = Vec::new();
    for back in (0..=MINUTES).rev() {
        let minute: String = store.query_row(
            "SELECT strftime('%Y-%m-%dT%H:%MZ', ?1, ?2)",
            rusqlite::params![now, format!("-{back} minutes")],
            |row| row.get(0),
        )?;
        snapshots.push(serde_json::json!(
            {"minute": minute, "received": 0, "unique_processed": 0, "duplicate_dropped": 0}
        ));
    }
    put(&store, "snapshots", &serde_json::json!(snapshots))?;
    drop(store);

    let server = Start::on(&state).start()?;
    std::thread::scope(|scope| {
        let askers: Vec<_> = ["/stats/history", "/stats", "/stats/history", "/healthz"]
            .into_iter()
            .map(|path| {
                let client = server.client();
                scope.spawn(move || {
                    (0..50).try_for_each(|_| client.get(path)?.expect(200).map(drop))
                })
            })
            .collect();
        for id in 0..50 {
            server.client().publish(event(&topic, &id.to_string()))?.expect(200)?;
        }
        askers
            .into_iter()
            .try_for_each(|asker| asker.join().unwrap_or_else(|_| Err("a client panicked".into())))
    })
    .map_err(|failed: Failed| server.explain(failed))?;
    let history = server.client().get("/stats/history")?.expect(200)?.json()?;
    let snapshots = history.as_array().map_or(0, Vec::len) as i64;
    check(snapshots > MINUTES, || format!("{snapshots} snapshots: {history:#}"))
}

fn put(store: &rusqlite::Connection, key: &str, value: &Value) -> Outcome {
    let value = value.to_string().into_bytes();
    store.execute(
        "INSERT OR REPLACE INTO spin_key_value (store, key, value) VALUES ('default', ?1, ?2)",
        rusqlite::params![key, value],
    )?;
    Ok(())
}

/// What makes an acknowledgement durable, as the file itself tells.
#[test(own_server)]
fn an_acknowledged_event_is_committed_in_wal_mode() -> Outcome {
    let topic = unique_topic("durability");
    let server = Start::default().start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    let database = rusqlite::Connection::open(server.state.path().join("sqlite_db.db"))?;
    let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    check_eq(mode.as_str(), "wal", "journal_mode")?;
    let stored: (String, i64) = database.query_row(
        "SELECT e.event_id, t.unique_processed FROM events e JOIN topic_totals t USING (topic)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    check_eq(stored, ("1".to_owned(), 1), "what another reader sees after the reply")
}
