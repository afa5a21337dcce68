//! What outlives the host.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{
    ServerOptions, TestResult, check, check_eq, event, own_server, sqlite_server, test,
    unique_topic, wait_until,
};

#[test(own_server)]
fn counters_and_identities_survive() -> TestResult {
    let topic = unique_topic("restart");
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(format!("[{0},{0},{1}]", event(&topic, "1"), event(&topic, "2")))?;
    server.client().publish("{}")?.expect(422)?;
    let before = server.client().get("/stats")?.expect(200)?.json()?;
    server.kill()?;
    let server = ServerOptions::on(&state).start()?;
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

#[test(sqlite_server)]
fn a_lost_key_value_store_costs_no_event() -> TestResult {
    let topic = unique_topic("lost-kv");
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(event(&topic, "1"))?.expect(200)?;
    let before = server.client().get("/stats")?.expect(200)?.json()?;
    // It is made after the reply.
    let file = state.path().join("sqlite_key_value.db");
    wait_until("the key-value store is there", || Ok(file.exists().then_some(())))?;
    server.kill()?;
    fs::remove_file(file)?;
    let server = ServerOptions::on(&state).start()?;
    let reply = server.client().publish(format!("{}{}", event(&topic, "1"), event(&topic, "2")))?;
    check_eq(reply.expect(200)?.count("accepted")?, 1, "accepted")?;
    let after = server.client().get("/stats")?.expect(200)?.json()?;
    check(before["started_at"] == after["started_at"], || format!("{before:#} {after:#}"))?;
    // A visit of the key-value store that the kill ended counts as slow for a while.
    let client = server.client();
    wait_until("it is healthy", || Ok((client.get("/health")?.status == 200).then_some(())))
}
