//! What the replies of a test said, held against what is stored.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::Failed;

use super::{Client, Reply, TestResult, check, check_eq};

/// Records what replies said, and holds it against what is stored.
#[derive(Default)]
pub struct Auditor {
    /// Events that were acknowledged, with how often they were accepted.
    acknowledged: BTreeMap<String, u32>,
    /// Deliveries in replies with status 200.
    counted: u64,
    /// Deliveries that got no reply, which may have been counted or not.
    maybe_counted: u64,
}

impl Auditor {
    /// Publishes events with these ids, which must be answered 200.
    pub fn publish(&mut self, client: &Client, topic: &str, ids: &[String]) -> TestResult {
        self.record(ids, &client.publish_ids(topic, ids)?.expect(200)?)
    }

    /// Records a reply that acknowledges these ids.
    pub fn record(&mut self, ids: &[String], reply: &Reply) -> TestResult {
        for id in ids {
            self.acknowledged.entry(id.clone()).or_default();
        }
        for id in reply.accepted(ids)? {
            *self.acknowledged.entry(id).or_default() += 1;
        }
        self.counted += ids.len() as u64;
        Ok(())
    }

    /// Records deliveries that got no reply.
    pub fn record_unanswered(&mut self, deliveries: u64) {
        self.maybe_counted += deliveries;
    }

    /// Records the delivery of an event that nobody recorded a reply to and that
    /// is known to have been accepted.
    pub fn record_accepted(&mut self, id: String) {
        *self.acknowledged.entry(id).or_default() += 1;
        self.counted += 1;
    }

    /// Adds what another client recorded.
    pub fn merge(&mut self, other: Auditor) {
        for (id, times) in other.acknowledged {
            *self.acknowledged.entry(id).or_default() += times;
        }
        self.counted += other.counted;
        self.maybe_counted += other.maybe_counted;
    }

    /// What several clients recorded.
    pub fn merged(auditors: Vec<Auditor>) -> Auditor {
        let mut merged = Auditor::default();
        auditors.into_iter().for_each(|auditor| merged.merge(auditor));
        merged
    }

    /// The same of a service that prunes: what can be read was acknowledged, and all that
    /// was is a duplicate when it is delivered again.
    pub fn audit_pruned(&self, client: &Client, topic: &str) -> TestResult {
        /// Events that are delivered again in one request.
        const AGAIN: usize = 5_000;
        let twice: Vec<_> =
            self.acknowledged.iter().filter(|(_, accepted)| **accepted > 1).collect();
        check(twice.is_empty(), || format!("accepted more than once: {twice:?}"))?;
        let acknowledged: Vec<String> = self.acknowledged.keys().cloned().collect();
        let stored = stored_once(client, topic)?;
        let unexpected: Vec<_> =
            stored.iter().filter(|id| !self.acknowledged.contains_key(*id)).collect();
        check(unexpected.is_empty(), || format!("stored and not acknowledged: {unexpected:?}"))?;
        let counters = client.counters(topic)?;
        check_eq(counters.unique_processed, acknowledged.len() as u64, "unique_processed")?;
        self.check_received(counters.received)?;
        for ids in acknowledged.chunks(AGAIN) {
            let again = client.publish_ids(topic, ids)?.expect(200)?;
            let counts = (again.count("duplicates")?, again.count("conflicts")?);
            check_eq(counts, (ids.len() as u64, 0), "duplicates and conflicts")?;
        }
        Ok(())
    }

    /// Every acknowledged event is stored once, nothing else is stored, and the
    /// counters are those of the replies: exactly, if each delivery got one.
    pub fn audit(&self, client: &Client, topic: &str) -> TestResult {
        let every_reply_came = self.maybe_counted == 0;
        let times = if every_reply_came { 1..=1 } else { 0..=1 };
        let wrong: Vec<_> =
            self.acknowledged.iter().filter(|(_, accepted)| !times.contains(*accepted)).collect();
        check(wrong.is_empty(), || format!("accepted not once, but: {wrong:?}"))?;

        let stored = stored_once(client, topic)?;
        let acknowledged: BTreeSet<String> = self.acknowledged.keys().cloned().collect();
        let missing: Vec<_> = acknowledged.difference(&stored).collect();
        check(missing.is_empty(), || format!("acknowledged and missing: {missing:?}"))?;
        let unexpected: Vec<_> = stored.difference(&acknowledged).collect();
        check(unexpected.is_empty(), || format!("stored and not acknowledged: {unexpected:?}"))?;

        let counters = client.counters(topic)?;
        check_eq(counters.unique_processed, stored.len() as u64, "unique_processed")?;
        check_eq(counters.conflicts, 0, "conflicts")?;
        self.check_received(counters.received)
    }

    /// Each delivery that got a reply was counted, and no others but those that got none.
    fn check_received(&self, received: u64) -> TestResult {
        let possible = self.counted..=self.counted + self.maybe_counted;
        check(possible.contains(&received), || {
            format!("received {received} is not within {possible:?}")
        })
    }
}

/// The ids that are stored: each once and with its own content, or the test fails.
pub fn stored_once(client: &Client, topic: &str) -> Result<BTreeSet<String>, Failed> {
    let mut ids = BTreeSet::new();
    for event in client.all_events(topic)? {
        let id = event["event_id"].as_str().unwrap_or_default();
        check(event["payload"]["of"] == *id, || format!("other content: {event}"))?;
        check(ids.insert(id.to_owned()), || format!("stored twice: {event}"))?;
    }
    Ok(ids)
}
