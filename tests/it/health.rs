//! GET /health and /healthz.

use std::sync::Arc;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::engine::engine;
use crate::support::{
    ServerOptions, Target, TestResult, any_server, check, check_eq, database, event, sqlite_server,
    test, unique_topic,
};

/// What `/health` says of a store: its status, if all that belongs to it is there.
fn store(health: &Value, name: &str) -> Result<String, Failed> {
    let store = &health["stores"][name];
    let is_whole = store["checked"].as_str().is_some_and(|what| !what.is_empty())
        && store["took_ms"].as_f64().is_some_and(|took| took >= 0.0);
    check(is_whole, || format!("{name} in {health:#}"))?;
    store["status"].as_str().map(str::to_owned).ok_or_else(|| format!("{health:#}").into())
}

#[test(any_server)]
fn names_both_stores(target: &Target) -> TestResult {
    let health = target.client().get("/health")?.expect(200)?.json()?;
    check_eq(store(&health, engine().name())?.as_str(), "ok", "the store of events")?;
    check_eq(store(&health, "key_value")?.as_str(), "ok", "key_value")?;
    let is_whole = health["status"] == "healthy"
        && health["reason"].is_null()
        && health["queue_size"].is_u64()
        && health["timestamp"].is_string();
    check(is_whole, || format!("{health:#}"))?;
    let healthz = target.client().get("/healthz")?.expect(200)?.json()?;
    check_eq(healthz, json!({"ok": true}), "healthz")
}

/// A database of a newer schema, and an application without a key-value store.
#[test(sqlite_server)]
fn tells_which_store_does_not_answer() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    database(&state)?.execute_batch("PRAGMA user_version = 99")?;
    for (options, sqlite, key_value, named) in [
        (ServerOptions::on(&state), "unavailable", "ok", "SQL"),
        (ServerOptions::default().without_key_value_store()?, "ok", "unavailable", "key-value"),
        (ServerOptions::on(&state).without_key_value_store()?, "unavailable", "unavailable", "SQL"),
    ] {
        let server = options.start()?;
        let reply = server.client().get("/health")?.expect(503)?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        let health = reply.json()?;
        check_eq(store(&health, "sqlite")?.as_str(), sqlite, "sqlite")?;
        check_eq(store(&health, "key_value")?.as_str(), key_value, "key_value")?;
        let reason = health["reason"].as_str().unwrap_or_default();
        check(health["status"] == "unhealthy" && reason.contains(named), || format!("{health:#}"))?;
    }
    Ok(())
}

#[test(sqlite_server)]
fn reports_a_missing_key_value_store_while_publish_works() -> TestResult {
    let topic = unique_topic("no-kv");
    let server = ServerOptions::default().without_key_value_store()?.start()?;
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
