//! What clients are told on the bad days of a store, and what they do then.

use libtest_mimic::Failed;

use super::{Client, Reply, TestResult, check, check_eq, event, wait_until};

/// A reply that a shipper keeps its events for.
pub fn check_unavailable(reply: &Reply) -> TestResult {
    check_eq(reply.status, 503, "the status")?;
    check(reply.header("retry-after").is_some(), || format!("no Retry-After: {reply:#?}"))
}

/// Publishes one event until it is taken. Whatever else it is told passes `check_refused`.
pub fn publish_until_taken(
    client: &Client,
    topic: &str,
    id: &str,
    check_refused: impl Fn(&Reply) -> TestResult,
) -> TestResult {
    wait_until("the event is taken", || {
        let reply = client.publish(event(topic, id))?;
        if reply.status != 200 {
            check_refused(&reply)?;
            return Ok(None);
        }
        Ok(Some(()))
    })
}

/// What `/health` says: its status, and that of the store of events, by its name there.
pub fn health_of(client: &Client, store: &str) -> Result<(u16, String), Failed> {
    let reply = client.get("/health")?;
    let status = reply.json()?["stores"][store]["status"].as_str().map(str::to_owned);
    Ok((reply.status, status.ok_or_else(|| format!("{reply:#?}"))?))
}
