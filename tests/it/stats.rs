//! GET /stats/history.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    ServerOptions, TestResult, check, event, join, key_value_database, own_server, test,
    unique_topic,
};

/// A day of snapshots, read by some while others use the same store: to stream
/// its keys would hang the instance for ever.
#[test(own_server)]
fn a_day_of_history_is_read_while_others_ask() -> TestResult {
    const MINUTES: i64 = 24 * 60 - 2;
    const REQUESTS: u32 = 50;
    let topic = unique_topic("history");
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(event(&topic, "first"))?.expect(200)?;
    let now = server.client().get("/stats/history")?.expect(200)?.json()?;
    let now = now[0]["minute"].as_str().ok_or("no snapshot")?.to_owned();
    server.kill()?;

    let store = key_value_database(&state)?;
    let mut snapshots = Vec::new();
    for back in (0..=MINUTES).rev() {
        let minute: String = store.query_row(
            "SELECT strftime('%Y-%m-%dT%H:%MZ', ?1, ?2)",
            rusqlite::params![now, format!("-{back} minutes")],
            |row| row.get(0),
        )?;
        snapshots.push(json!(
            {"minute": minute, "received": 0, "unique_processed": 0, "duplicate_dropped": 0}
        ));
    }
    put(&store, "snapshots", &json!(snapshots))?;
    drop(store);

    let server = ServerOptions::on(&state).start()?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = ["/stats/history", "/stats", "/stats/history", "/healthz"]
            .into_iter()
            .map(|path| {
                let client = server.client();
                scope.spawn(move || {
                    (0..REQUESTS).try_for_each(|_| client.get(path)?.expect(200).map(drop))
                })
            })
            .collect();
        for id in 0..REQUESTS {
            server.client().publish(event(&topic, &id.to_string()))?.expect(200)?;
        }
        readers.into_iter().try_for_each(join)
    })?;
    let history = server.client().get("/stats/history")?.expect(200)?.json()?;
    let snapshots = history.as_array().map_or(0, Vec::len) as i64;
    check(snapshots > MINUTES, || format!("{snapshots} snapshots: {history:#}"))
}

fn put(store: &rusqlite::Connection, key: &str, value: &Value) -> TestResult {
    let value = value.to_string().into_bytes();
    store.execute(
        "INSERT OR REPLACE INTO spin_key_value (store, key, value) VALUES ('default', ?1, ?2)",
        rusqlite::params![key, value],
    )?;
    Ok(())
}
