//! Retention: what is over a limit goes, identities stay, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::crash_load::CrashLoad;
use crate::support::{
    Client, Edit, ServerOptions, TestResult, check, check_eq, join, own_server, publisher, shown,
    sqlite_server, test, unique_topic, wait_until,
};

/// Kills in the middle of pruning.
const KILLS: usize = 6;

/// A kill comes after this many acknowledged requests at most, in each life.
const REQUESTS_UNTIL_KILL_MAX: u64 = 100;

fn numbers(ids: std::ops::Range<u64>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect()
}

fn prune(client: &Client) -> Result<Value, Failed> {
    client.send("POST", "/prune", &[], b"")?.expect(200)?.json()
}

#[test(own_server)]
fn what_is_pruned_is_still_a_duplicate_after_a_restart() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let options = || ServerOptions::on(&state).variable("retention_events_max=100");
    let topic = unique_topic("retention");
    let server = options().start()?;
    let client = server.client();
    client.publish_ids(&topic, &numbers(0..1_000))?.expect(200)?;
    // By the way, after the reply to the first publish.
    let is_pruned = |client: &Client| {
        let pruned = client.get("/stats")?.expect(200)?.count("pruned")?;
        Ok((pruned == 900).then_some(()))
    };
    wait_until("it is pruned", || is_pruned(&client))?;
    let page = client.get(&format!("/events?topic={topic}&limit=1"))?.expect(200)?.json()?;
    check_eq(page["events"][0]["event_id"].as_str(), Some("900"), "the oldest that is left")?;
    let told = page["pruned_before"].as_str().ok_or("it is not told")?.to_owned();
    check(page["next"].as_str() > Some(&*told), || format!("{page:#}"))?;

    let killed = server.kill()?;
    let server = options().start()?;
    let client = server.client();
    let again = client.publish_ids(&topic, &numbers(0..1_001))?.expect(200)?;
    check_eq((again.count("accepted")?, again.count("duplicates")?), (1, 1_000), "counts")?;
    check_eq(again.count("conflicts")?, 0, "conflicts")?;
    drop(killed);
    Ok(())
}

#[test(own_server)]
fn a_service_to_which_nobody_publishes_is_pruned_on_demand() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let topic = unique_topic("retention");
    let server = ServerOptions::on(&state).start()?;
    server.client().publish_ids(&topic, &numbers(0..700))?.expect(200)?;
    check_eq(prune(&server.client())?["pruned"].as_u64(), Some(0), "without limits")?;
    server.kill()?;
    let server = ServerOptions::on(&state)
        .variable(&format!("retention_bytes_max={topic}=1, 1000000"))
        .start()?;
    let client = server.client();
    let done = prune(&client)?;
    check_eq(
        (done["pruned"].as_u64(), done["complete"].as_bool()),
        (Some(700), Some(true)),
        "all",
    )?;
    check_eq(client.all_events(&topic)?.len(), 0, "left")?;
    // The place and the time of the newest event outlive it.
    let seq = client.publish_one(&topic, "next")?;
    check(seq > 700, || format!("seq {seq}"))?;
    check_eq(client.all_events(&topic)?.len(), 1, "stored")
}

/// An instance that was killed while it pruned holds others off for a moment.
fn forget_claim(server: &crate::support::Server) -> TestResult {
    Edit {
        sqlite: "DELETE FROM counters WHERE name LIKE 'mark/retention/%'",
        postgres: "DELETE FROM sekali.marks WHERE name LIKE 'retention/%'",
    }
    .apply(server)
}

#[test(own_server)]
fn kills_during_pruning_lose_nothing_and_let_nothing_in_twice() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let topic = unique_topic("retention");
    let mut load = CrashLoad::new(&topic, None, 5);
    let options = || ServerOptions::on(&state).variable("retention_events_max=50");
    for _ in 0..KILLS {
        let server = options().start()?;
        let client = server.client();
        client.get("/health")?;
        forget_claim(&server)?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pruner = scope.spawn(|| {
                // Until it is killed in the middle of one.
                while !is_over.load(Ordering::Acquire) {
                    client.send("POST", "/prune", &[], b"").ok();
                }
                Ok(())
            });
            let run = load.run_until_killed(server, REQUESTS_UNTIL_KILL_MAX);
            is_over.store(true, Ordering::Release);
            join(pruner)?;
            run
        })?;
    }
    let server = options().start()?;
    forget_claim(&server)?;
    let client = server.client();
    let pruned = client.get("/stats")?.expect(200)?.count("pruned")?;
    check(pruned > 0, || "nothing was pruned while it was published".into())?;
    load.audit_pruned(&server)?;
    // A publish may have had it done.
    wait_until("it is pruned", || {
        let pruned = client.send("POST", "/prune", &[], b"")?.status == 200;
        Ok((pruned && client.all_events(&topic)?.len() == 50).then_some(()))
    })?;
    let counters = client.get("/stats")?.expect(200)?.json()?;
    let of_topic = &counters["by_topic"][&topic];
    let (unique, pruned_by_then) =
        (of_topic["unique_processed"].as_u64(), of_topic["pruned"].as_u64());
    check_eq(unique, pruned_by_then.map(|pruned| pruned + 50), "unique_processed")?;
    wait_until("it is healthy", || Ok((client.get("/health")?.status == 200).then_some(())))
}

/// The audit allows for as many events as were pruned; the same load once more is all
/// duplicates.
#[test(own_server)]
fn a_load_that_is_pruned_meanwhile_balances_twice() -> TestResult {
    let server = ServerOptions::default().variable("retention_events_max=500").start()?;
    let ledger = TempDir::new()?;
    let place = ledger.path().join("ledger").display().to_string();
    let load = ["load", "--events", "20000", "--batch", "50", "--topics", "3", "--seed", "7"];
    let audited = [&load[..], &["--audit", "--ledger", &place]].concat();
    let mut running = publisher(&server.url, &audited).spawn()?;
    let client = server.client();
    while running.try_wait()?.is_none() {
        client.send("POST", "/prune", &[], b"")?;
    }
    let output = running.wait_with_output()?;
    check(output.status.success(), || shown(&output))?;
    wait_until("all is pruned", || {
        client.send("POST", "/prune", &[], b"")?;
        let stats = client.get("/stats")?.expect(200)?;
        let left = stats.count("unique_processed")? - stats.count("pruned")?;
        Ok((left == 500).then_some(()))
    })?;
    let output = publisher(&server.url, &load).output()?;
    check(output.status.success(), || shown(&output))
}

/// Contents are copied while the store is read, and what was acknowledged by the version
/// before is a duplicate.
#[test(sqlite_server)]
fn a_store_of_the_version_before_is_taken_over_with_kills() -> TestResult {
    /// More than one publish takes over, on whatever machine.
    const EVENTS: u64 = 400_000;
    let state = Arc::new(TempDir::new()?);
    let topic = unique_topic("old");
    let old = crate::support::database(&state)?;
    let schema = include_str!("../../src/store/sqlite/take_over/schema_4.sql").replace("?1", "5");
    old.execute_batch(&format!("PRAGMA journal_mode = WAL; {schema} PRAGMA user_version = 4;"))?;
    old.execute_batch(&format!(
        "INSERT INTO topic_totals VALUES (1, '{topic}', {EVENTS}, 0, 0);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {EVENTS})
         INSERT INTO event_log SELECT i, 1, 9, randomblob(16), i, 's', NULL, '1' FROM n"
    ))?;
    drop(old);
    let mut lives = 0;
    loop {
        let server = ServerOptions::on(&state).variable("commit_wait_ms_max=1").start()?;
        let client = server.client();
        let page = client.get(&format!("/events?topic={topic}&limit=1&order=desc"))?.expect(200)?;
        check_eq(page.json()?["events"][0]["event_id"].as_str(), Some("400000"), "the newest")?;
        let reply = client.publish_ids(&topic, &numbers(1..2))?;
        lives += 1;
        server.kill()?;
        if reply.status == 503 && lives < 4 {
            continue;
        }
        let server = ServerOptions::on(&state).start()?;
        let client = server.client();
        wait_until("it is taken over", || {
            let reply = client.publish_ids(&topic, &numbers(1..2))?;
            Ok((reply.status == 200).then_some(()))
        })?;
        // Random contents: conflicts, which are duplicates.
        let again = client.publish_ids(&topic, &numbers(1..9_000))?.expect(200)?;
        check_eq((again.count("duplicates")?, again.count("accepted")?), (8_999, 0), "counts")?;
        check_eq(client.publish_one(&topic, "new")?, EVENTS as i64 + 1, "the next seq")?;
        break;
    }
    check(lives > 1, || "it was over before it could be killed".into())
}
