//! GET /health is 200 only when a publish would succeed.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Client, ServerOptions, TestResult, batch, check, check_eq, event, sqlite_server, test,
    unique_topic, wait_until,
};

fn sqlite(client: &Client, status: u16) -> Result<Value, Failed> {
    let health = client.get("/health")?.expect(status)?.json()?;
    if status == 503 {
        check_no_publishing(&health)?;
    }
    Ok(health["stores"]["sqlite"]["status"].clone())
}

fn check_no_publishing(health: &Value) -> TestResult {
    let reason = health["reason"].as_str().unwrap_or_default();
    check(reason.contains("publishing does not work"), || format!("{health:#}"))
}

#[test(sqlite_server)]
fn a_write_lock_shows_and_passes() -> TestResult {
    let server = ServerOptions::default().variable("commit_wait_ms_max=100").start()?;
    let client = server.client();
    client.publish(event(&unique_topic("lock"), "1"))?.expect(200)?;
    check_eq(sqlite(&client, 200)?, "ok".into(), "before")?;
    let database = server.database()?;
    database.execute_batch("BEGIN IMMEDIATE")?;
    check_eq(sqlite(&client, 503)?, "busy".into(), "while it is locked")?;
    client.publish(event(&unique_topic("lock"), "2"))?.expect(503)?;
    database.execute_batch("ROLLBACK")?;
    wait_until("health is well", || Ok((client.get("/health")?.status == 200).then_some(())))?;
    client.publish(event(&unique_topic("lock"), "2"))?.expect(200)?;
    client.get("/healthz")?.expect(200).map(drop)
}

/// Every page of the database but the first is overwritten.
#[test(sqlite_server)]
fn a_damaged_file_shows() -> TestResult {
    const PAGE: u64 = 4096;
    let topic = unique_topic("corrupt");
    let state = Arc::new(TempDir::new()?);
    let mut server = ServerOptions::on(&state).start()?;
    let ids: Vec<String> = (0..500).map(|id| id.to_string()).collect();
    server.client().publish(batch(&topic, &ids))?.expect(200)?;
    server.signal("TERM")?;
    server.wait()?;
    let path = state.path().join("sqlite_db.db");
    let bytes = fs::metadata(&path)?.len();
    let mut file = OpenOptions::new().write(true).open(&path)?;
    file.seek(SeekFrom::Start(PAGE))?;
    file.write_all(&vec![0xa5; usize::try_from(bytes - PAGE)?])?;
    drop(file);
    let server = ServerOptions::on(&state).flags(&["--quick-check", "never"]).start()?;
    sqlite(&server.client(), 503)?;
    server.client().publish(event(&topic, "new"))?.expect(503)?;
    server.client().get("/healthz")?.expect(503).map(drop)
}

/// No file of the host may grow beyond a limit, as when the disk is full.
#[test(sqlite_server)]
fn no_room_shows() -> TestResult {
    let topic = unique_topic("full");
    // In blocks of 512 bytes.
    let wrapper = "trap '' XFSZ; ulimit -f 2000; exec \"$@\"".to_owned();
    let server = ServerOptions::default().wrapper(wrapper).start()?;
    let client = server.client();
    check_eq(sqlite(&client, 200)?, "ok".into(), "before")?;
    let mut id = 0;
    wait_until("a publish is refused", || {
        let ids: Vec<String> = (0..200).map(|number| format!("{id}-{number}")).collect();
        id += 1;
        let status = client.publish(batch(&topic, &ids))?.status;
        check(matches!(status, 200 | 503), || format!("status {status}"))?;
        Ok((status == 503).then_some(()))
    })?;
    // A small one may find room where a large one did not.
    wait_until("health tells", || {
        id += 1;
        client.publish(event(&topic, &id.to_string()))?;
        let health = client.get("/health")?;
        Ok((health.status == 503).then_some(health))
    })
    .and_then(|health| check_no_publishing(&health.json()?))
}
