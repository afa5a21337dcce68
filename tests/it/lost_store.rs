//! Files of the store that go, or become others, while the host runs: what is
//! acknowledged is in the files that are there, and the service heals by itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use libtest_mimic::Failed;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::support::{
    Client, Server, ServerOptions, Stream, TestResult, check, check_eq, concurrently, event,
    own_server, sqlite_server, test, unique_topic, wait_until,
};

const DATABASE: &str = "sqlite_db.db";
const KEY_VALUE_DATABASE: &str = "sqlite_key_value.db";

fn path(state: &TempDir, file: &str) -> PathBuf {
    state.path().join(file)
}

/// Removes a state directory of which the host may make a file at any time:
/// again for as long as one has been made meanwhile.
fn remove_directory(state: &TempDir) -> TestResult {
    wait_until("the directory is removed", || match fs::remove_dir_all(state.path()) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(None),
        removed => Ok(Some(removed?)),
    })
}

/// A server that has stored the event `before`, and a stream that has been read
/// from and so keeps an instance, and its connection, for good.
fn server_with_stream(topic: &str) -> Result<(Server, Stream), Failed> {
    let server = Server::start()?;
    let client = server.client();
    client.publish_one(topic, "before")?;
    let mut stream = Stream::open(&client, "/stats/stream")?;
    stream.event()?;
    Ok((server, stream))
}

/// Publishes an event again and again until it is taken, whatever comes before
/// that. As with any client that retries.
fn publish_until_taken(client: &Client, topic: &str, id: &str) -> TestResult {
    wait_until(&format!("{id} is taken"), || {
        let reply = client.publish(event(topic, id))?;
        let refused = reply.status == 503 && reply.header("retry-after").is_some();
        check(reply.status == 200 || refused, || format!("{reply:#?}"))?;
        Ok((reply.status == 200).then_some(()))
    })
}

/// Publishes by many clients at once, until each event is taken: the ids.
fn publish_many(server: &Server, topic: &str) -> Result<BTreeSet<String>, Failed> {
    const CLIENTS: usize = 8;
    const EVENTS: usize = 25;
    let ids = concurrently(CLIENTS, |number| {
        let client = server.client();
        let ids: Vec<_> = (0..EVENTS).map(|event| format!("{number}-{event}")).collect();
        ids.iter().try_for_each(|id| publish_until_taken(&client, topic, id))?;
        Ok(ids)
    })?;
    Ok(ids.into_iter().flatten().collect())
}

/// The ids in the file that is there, whatever the host has open.
fn stored(file: PathBuf, topic: &str) -> Result<BTreeSet<String>, Failed> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let integrity: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    check_eq(integrity.as_str(), "ok", "integrity_check")?;
    let mut statement = database.prepare("SELECT event_id FROM events WHERE topic = ?1")?;
    let ids = statement.query_map([topic], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn with(mut ids: BTreeSet<String>, more: &[&str]) -> BTreeSet<String> {
    ids.extend(more.iter().map(|id| (*id).to_owned()));
    ids
}

#[test(sqlite_server)]
fn a_deleted_state_directory_is_noticed_and_made_again() -> TestResult {
    let topic = unique_topic("deleted");
    let (server, _stream) = server_with_stream(&topic)?;
    remove_directory(&server.state)?;

    let taken = publish_many(&server, &topic)?;
    check_eq(stored(path(&server.state, DATABASE), &topic)?, taken.clone(), "in the new file")?;
    let client = server.client();
    check_eq(client.all_events(&topic)?.len(), taken.len(), "shown")?;
    // The key-value store is left alone for a while after a call that failed.
    wait_until("it is healthy", || Ok((client.get("/health")?.status == 200).then_some(())))?;
    // What is logged goes into a new file, too.
    client.publish("no event")?.expect(422)?;
    let log = fs::read_to_string(path(&server.state, "logs/sekali_stderr.txt"))?;
    check(log.contains("request refused"), || log)
}

/// With the same schema, and events of its own.
#[test(sqlite_server)]
fn a_replaced_database_is_noticed_and_left_whole() -> TestResult {
    let topic = unique_topic("replaced");
    let other = Arc::new(TempDir::new()?);
    let mut other_server = ServerOptions::on(&other).start()?;
    other_server.client().publish_one(&topic, "of the other")?;
    other_server.signal("TERM")?;
    other_server.wait()?;

    let (server, _stream) = server_with_stream(&topic)?;
    let file = path(&server.state, DATABASE);
    fs::rename(path(&other, DATABASE), &file)?;
    let taken = publish_many(&server, &topic)?;
    check_eq(stored(file.clone(), &topic)?, with(taken.clone(), &["of the other"]), "stored")?;
    let _state = server.kill()?;
    check_eq(stored(file, &topic)?, with(taken, &["of the other"]), "stored after a kill")
}

/// Its log stays behind, with what was committed last.
#[test(sqlite_server)]
fn a_database_that_is_moved_away_keeps_its_log() -> TestResult {
    let topic = unique_topic("moved");
    let (server, _stream) = server_with_stream(&topic)?;
    let moved = TempDir::new()?;
    fs::rename(path(&server.state, DATABASE), path(&moved, DATABASE))?;
    let taken = publish_many(&server, &topic)?;
    check_eq(stored(path(&server.state, DATABASE), &topic)?, taken, "in the new file")?;

    let mut logs = fs::read_dir(server.state.path())?
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<PathBuf, Failed>| {
            path.as_ref().map_or(true, |path| path.to_string_lossy().contains("-wal.of-"))
        })
        .collect::<Result<Vec<_>, Failed>>()?;
    check_eq(logs.len(), 1, "logs that were set aside")?;
    let log = logs.remove(0);
    check(server.log().contains(&*log.to_string_lossy()), || "the log is not named".into())?;
    fs::rename(log, path(&moved, &format!("{DATABASE}-wal")))?;
    check(stored(path(&moved, DATABASE), &topic)?.contains("before"), || {
        "what was acknowledged before is lost".into()
    })
}

/// The connections that have it open hold what was committed: it is copied into
/// the database before they are closed.
#[test(sqlite_server)]
fn a_deleted_log_loses_nothing() -> TestResult {
    let topic = unique_topic("no-log");
    let (server, _stream) = server_with_stream(&topic)?;
    let file = path(&server.state, DATABASE);
    fs::remove_file(path(&server.state, &format!("{DATABASE}-wal")))?;
    let taken = publish_many(&server, &topic)?;
    let _state = server.kill()?;
    check_eq(stored(file, &topic)?, with(taken, &["before"]), "stored after a kill")
}

#[test(sqlite_server)]
fn a_deleted_key_value_store_is_made_again() -> TestResult {
    let topic = unique_topic("no-kv");
    let server = Server::start()?;
    let client = server.client();
    client.publish_one(&topic, "1")?;
    client.get("/stats/history")?.expect(200)?;
    let file = path(&server.state, KEY_VALUE_DATABASE);
    fs::remove_file(&file)?;
    client.publish_one(&topic, "2")?;
    wait_until("it is healthy", || Ok((client.get("/health")?.status == 200).then_some(())))?;
    client.get("/stats/history")?.expect(200)?;
    check(file.exists(), || format!("{} is not there", file.display()))
}

/// Instances are started all the same; what they log is in a new file, or on
/// stderr where none can be made.
#[test(own_server)]
fn a_log_directory_that_goes_stops_nothing() -> TestResult {
    let flags = ["--max-instance-reuse-count", "1"];
    let server = ServerOptions::default().flags(&flags).start()?;
    let (client, logs) = (server.client(), path(&server.state, "logs"));
    client.publish("1")?.expect(422)?;
    fs::remove_dir_all(&logs)?;
    client.publish("2")?.expect(422)?;
    check(logs.join("sekali_stderr.txt").exists(), || "there is no new log".into())?;
    fs::remove_dir_all(&logs)?;
    fs::write(&logs, "in the way")?;
    client.publish("3")?.expect(422)?;
    wait_until("all three are on stderr", || {
        Ok((server.log().matches("request refused").count() == 3).then_some(()))
    })
}
