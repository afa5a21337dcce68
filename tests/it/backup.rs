//! `publisher backup` against the real service, and a restore of what it made.

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Client, Counters, Server, ServerOptions, TestResult, check, check_eq, publisher, shown,
    sqlite_server, test, wait_until,
};

/// The topic of the events that the test itself publishes.
const TOPIC: &str = "marks";

/// Backs up a state directory; what it says of itself.
fn backup(state: &Path, to: &Path) -> Result<Value, Failed> {
    let [state, to] = [state, to].map(|path| path.display().to_string());
    // It asks no service.
    let args = ["backup", &to, "--state-dir", &state, "--json"];
    let output = publisher("http://127.0.0.1:1", &args).output()?;
    check(output.status.success(), || shown(&output))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", shown(&output)).into())
}

/// A service on a backup has what the backup says, all that was acknowledged before it,
/// and goes on.
fn restore(to: &Path, about: &Value, acknowledged: &[String]) -> TestResult {
    let server = ServerOptions::default().state_path(to.to_owned()).start()?;
    let client = server.client();
    let stats = client.get("/stats")?.expect(200)?.json()?;
    check_eq(&stats["unique_processed"], &about["events"], "events")?;
    check(Counters::of(&stats).balance(), || format!("{stats:#}"))?;
    let stored = client.all_events(TOPIC)?.len();
    check(stored >= acknowledged.len(), || format!("{stored} of {acknowledged:?}"))?;

    let again = client.publish_ids(TOPIC, acknowledged)?.expect(200)?;
    check_eq(again.count("duplicates")?, acknowledged.len() as u64, "duplicates")?;
    check_eq(again.count("conflicts")?, 0, "conflicts")?;
    let seq = client.publish_one(TOPIC, "after the restore")?;
    check(Some(seq) > about["last_seq"].as_i64(), || format!("seq {seq} in {about:#}"))?;
    let after = client.get("/stats")?.expect(200)?.json()?;
    let new = after["unique_processed"].as_u64().zip(stats["unique_processed"].as_u64());
    check(new.is_some_and(|(after, before)| after == before + 1), || format!("{after:#}"))?;
    check(Counters::of(&after).balance(), || format!("{after:#}"))?;
    wait_until("it is healthy", || Ok((client.get("/health")?.status == 200).then_some(())))
}

fn has_grown(client: &Client, to: u64) -> Result<Option<()>, Failed> {
    Ok((client.get("/stats")?.expect(200)?.count("received")? > to).then_some(()))
}

#[test(sqlite_server)]
fn a_backup_under_load_is_restored() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let place = TempDir::new()?;
    let load = ["load", "--json", "--events", "40000", "--batch", "10", "--topics", "5", "--audit"];
    let ledger = place.path().join("ledger").display().to_string();
    let mut load = publisher(&server.url, &[&load[..], &["--ledger", &ledger]].concat()).spawn()?;
    wait_until("the load is under way", || has_grown(&client, 500))?;
    let mut acknowledged = Vec::new();
    let mut backups = Vec::new();
    while load.try_wait()?.is_none() {
        let id = backups.len().to_string();
        client.publish_one(TOPIC, &id)?;
        acknowledged.push(id.clone());
        let to = place.path().join(&id);
        let about = backup(server.state.path(), &to)?;
        backups.push((to, about, acknowledged.clone()));
    }
    // Nothing that is asked of the load was harmed by it.
    let output = load.wait_with_output()?;
    check(output.status.success(), || shown(&output))?;
    drop(server);
    let last = backups.len().saturating_sub(1);
    check(!backups.is_empty(), || "the load was over before a backup was made".into())?;
    for (to, about, acknowledged) in backups
        .iter()
        .enumerate()
        .filter(|(index, _)| [0, last / 2, last].contains(index))
        .map(|(_, one)| one)
    {
        restore(to, about, acknowledged)?;
    }
    Ok(())
}

#[test(sqlite_server)]
fn a_backup_of_a_killed_and_of_a_stopped_service_is_restored() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let place = TempDir::new()?;
    let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    let server = ServerOptions::on(&state).start()?;
    server.client().publish_ids(TOPIC, &ids)?.expect(200)?;
    server.kill()?;
    check(state.path().join("sqlite_db.db-wal").exists(), || "there is no log".into())?;
    let (killed, stopped) = (place.path().join("killed"), place.path().join("stopped"));
    let of_killed = backup(state.path(), &killed)?;
    let mut server = ServerOptions::on(&state).start()?;
    server.client().publish_one(TOPIC, "one more")?;
    server.signal("TERM")?;
    server.wait()?;
    let of_stopped = backup(state.path(), &stopped)?;
    check_eq((&of_killed["events"], &of_stopped["events"]), (&300.into(), &301.into()), "events")?;
    restore(&killed, &of_killed, &ids)?;
    restore(&stopped, &of_stopped, &ids)
}
