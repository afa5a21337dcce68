//! GET /stats/history.

use std::sync::Arc;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Outcome, Start, check, event, own_server, test, unique_topic};

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
