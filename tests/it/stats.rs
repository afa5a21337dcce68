//! GET /stats, with more topics than one reply holds, and GET /stats/history.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Edit, ServerOptions, Stream, TestResult, check, check_eq, event, join, key_value_database,
    make_snapshot_due, own_server, sqlite_server, test, unique_topic, wait_until,
};

/// A day of snapshots, read by some while others use the same store: to stream
/// its keys would hang the instance for ever.
#[test(sqlite_server)]
fn a_day_of_history_is_read_while_others_ask() -> TestResult {
    const MINUTES: i64 = 24 * 60 - 2;
    const REQUESTS: u32 = 50;
    let topic = unique_topic("history");
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    server.client().publish(event(&topic, "first"))?.expect(200)?;
    let now = wait_until("there is a snapshot", || {
        let history = server.client().get("/stats/history")?.expect(200)?.json()?;
        Ok(history[0]["minute"].as_str().map(str::to_owned))
    })?;
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

/// As many topics as the counters could not be told of in one reply, and what
/// each part of the service makes of them.
#[test(own_server)]
fn any_number_of_topics_is_told_page_by_page() -> TestResult {
    /// With names of the greatest length these are more than 128 MiB of rows,
    /// which is what one statement may return.
    const TOPICS: u64 = 120_000;
    const PAGE_MAX: u64 = 5_000;
    let server = ServerOptions::default().start()?;
    let client = server.client();
    client.publish(event("a first one", "1"))?.expect(200)?;
    client.publish(event("a first one", "1"))?.expect(200)?;
    let topics = Edit {
        sqlite: &format!(
            "WITH RECURSIVE numbers (n) AS \
               (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT {TOPICS}) \
             INSERT INTO topic_totals (topic, unique_processed, duplicate_dropped, conflicts) \
             SELECT printf('%07d', n) || replace(printf('%.248c', 'x'), 'x', '😀'), 2, 1, 1 \
             FROM numbers"
        ),
        postgres: &format!(
            "WITH topics AS (INSERT INTO sekali.topic (topic) \
               SELECT lpad(n::text, 7, '0') || repeat('😀', 248) \
               FROM generate_series(1, {TOPICS}) AS n RETURNING id) \
             INSERT INTO sekali.topic_counters SELECT id, 0, 2, 1, 1 FROM topics"
        ),
    };
    topics.apply(&server)?;

    let all = 3 * TOPICS + 2;
    let stats = client.get("/stats")?.expect(200)?.json()?;
    let totals = |stats: &Value| {
        ["received", "unique_processed", "duplicate_dropped", "conflicts", "topic_count"]
            .map(|name| stats[name].as_u64().unwrap_or_default())
    };
    let expected = [all, 2 * TOPICS + 1, TOPICS + 1, TOPICS, TOPICS + 1];
    check_eq(totals(&stats), expected, "totals")?;
    let names = |stats: &Value| {
        let names = stats["topics"].as_array().cloned().unwrap_or_default();
        names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>()
    };
    check_eq(names(&stats).len(), 1_000, "topics of the first page")?;
    let alone = client.get("/stats?topics_limit=0")?.expect(200)?.json()?;
    check_eq((totals(&alone), names(&alone).len()), (expected, 0), "totals alone")?;
    check(alone.get("topics_next").is_none(), || "a page that has no end".into())?;

    // The first pages, then those from a place on that is no topic.
    let mut told = Vec::new();
    let mut received = 0;
    let mut after = None::<String>;
    let far_on = format!("{:07}", TOPICS - 7_999);
    loop {
        let mut path = format!("/stats?topics_limit={PAGE_MAX}");
        if let Some(after) = &after {
            let encoded: String = after.bytes().map(|byte| format!("%{byte:02X}")).collect();
            path += &format!("&topics_after={encoded}");
        }
        let page = client.get(&path)?.expect(200)?.json()?;
        check_eq(totals(&page), expected, "totals of a page")?;
        let topics = names(&page);
        check(!topics.is_empty() && topics.len() as u64 <= PAGE_MAX, || {
            format!("{}", topics.len())
        })?;
        let by_topic = page["by_topic"].as_object().cloned().unwrap_or_default();
        check_eq(by_topic.len(), topics.len(), "by_topic")?;
        received += by_topic.values().filter_map(|one| one["received"].as_u64()).sum::<u64>();
        told.extend(topics);
        after = page["topics_next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
        check_eq(after.as_ref(), told.last(), "topics_next")?;
        if told.len() as u64 == 2 * PAGE_MAX {
            after = Some(far_on.clone());
        }
    }
    check_eq(told.len() as u64, 2 * PAGE_MAX + 8_001, "topics of these pages")?;
    check(told.is_sorted_by(|a, b| a < b), || "not in order, or told twice".into())?;
    check_eq(received, 3 * (2 * PAGE_MAX + 8_000) + 2, "received of these topics")?;
    for wrong in ["topics_limit=5001", "topics_limit=-1", "topics_after=", "topics_after=%00"] {
        client.get(&format!("/stats?{wrong}"))?.expect(422)?;
    }

    // The rest of the service copes.
    let metrics = client.get("/metrics")?.expect(200)?;
    check(metrics.text.matches("sekali_events_total{topic=").count() == 3_000, || {
        "series of topics".into()
    })?;
    check(metrics.text.contains("otel_metric_overflow"), || "no series of the others".into())?;
    let mut stream = Stream::open(&client, "/stats/stream")?;
    let frame = stream.event()?.data;
    check_eq(totals(&frame), expected, "totals of a frame")?;
    check_eq(frame["topics"].as_array().map(Vec::len), Some(100), "topics of a frame")?;
    drop(stream);
    let state = server.kill()?;
    let server = ServerOptions::on(&state).start()?;
    let client = server.client();
    make_snapshot_due(&server)?;
    wait_until("a snapshot of these counters is kept", || {
        client.publish(event("a first one", "1"))?.expect(200)?;
        let history = client.get("/stats/history")?.expect(200)?.json()?;
        let newest = history.as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        Ok((newest["received"].as_u64() > Some(all)).then_some(()))
    })
}
