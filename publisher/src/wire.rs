//! Events as they are sent and the service's replies, as its public contract
//! has them.
//!
//! Of replies only fields this program acts on are named; unknown ones are
//! ignored, as the contract lets a service add to its replies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An event in the body of `POST /publish`.
#[derive(Debug, Serialize)]
pub struct Event<'a, Payload> {
    /// First half of its identity.
    pub topic: &'a str,
    /// Second half of its identity.
    pub event_id: &'a str,
    /// Who says so.
    pub source: &'a str,
    /// What is compared, with the source, when it is delivered again.
    pub payload: Payload,
}

/// The reply to `POST /publish` with status 200.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PublishReply {
    /// Valid events in the request: accepted and duplicates.
    pub received: u64,
    /// Events stored by this request.
    pub accepted: u64,
    /// Events not stored because their identity is; conflicts included.
    pub duplicates: u64,
    /// Duplicates whose content differs from the stored one.
    #[serde(default)]
    pub conflicts: u64,
    /// Events that were not valid; not part of `received`.
    #[serde(default)]
    pub rejected: u64,
    /// Events by their index in the body: all of them where that was asked for,
    /// otherwise those that were not accepted, as many as a short reply holds.
    /// How many there are of each kind is told by the counts alone.
    #[serde(default)]
    pub results: Vec<EventResult>,
    /// How many the results leave out of those that were not accepted.
    #[serde(default)]
    pub results_omitted: u64,
}

impl PublishReply {
    /// Conflicts and rejected events that are not among the results.
    #[must_use]
    pub fn problems_unlisted(&self) -> u64 {
        let is_problem =
            |result: &&EventResult| matches!(result.status, Outcome::Conflict | Outcome::Rejected);
        let listed = self.results.iter().filter(is_problem).count() as u64;
        (self.conflicts + self.rejected).saturating_sub(listed)
    }
}

/// The outcome of one event of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventResult {
    /// Its index in the body, from 0.
    pub index: usize,
    /// What became of it.
    pub status: Outcome,
    /// The field at fault, of a rejected event.
    #[serde(default)]
    pub field: Option<String>,
    /// Why it was rejected.
    #[serde(default, alias = "reason", alias = "error", alias = "message")]
    pub detail: Option<String>,
}

/// What became of one delivered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Stored now.
    Accepted,
    /// Stored before, with the same content.
    Duplicate,
    /// Stored before, with other content.
    Conflict,
    /// Not a valid event.
    Rejected,
}

/// Counters of one topic, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Valid events delivered.
    pub received: u64,
    /// Events stored.
    pub unique_processed: u64,
    /// Deliveries that stored nothing.
    pub duplicate_dropped: u64,
    /// Deliveries with other content than the stored.
    #[serde(default)]
    pub conflicts: u64,
    /// Events stored whose contents were removed by retention.
    #[serde(default)]
    pub pruned: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.unique_processed += other.unique_processed;
        self.duplicate_dropped += other.duplicate_dropped;
        self.conflicts += other.conflicts;
        self.pruned += other.pruned;
    }
}

/// The reply to `GET /stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Stats {
    /// Counters of all topics.
    #[serde(flatten)]
    pub total: Counters,
    /// Invalid events delivered.
    #[serde(default)]
    pub rejected: u64,
    /// Counters of each topic: of all of them, or of a page.
    #[serde(default)]
    pub by_topic: BTreeMap<String, Counters>,
    /// The last topic of the page, if others come after it.
    #[serde(default)]
    pub topics_next: Option<String>,
    /// Whether it was put together of pages between which something was counted,
    /// so that the topics together need not be the totals.
    #[serde(skip)]
    pub is_mixed: bool,
    /// When the store was first started; survives restarts, so it names the store.
    #[serde(default)]
    pub started_at: Option<String>,
}

/// The reply to `GET /events`.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// The events, in order.
    pub events: Vec<StoredEvent>,
    /// The cursor of the following page.
    #[serde(default)]
    pub next: Option<String>,
}

/// An event as it is stored.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredEvent {
    /// Its position in the order of commits.
    pub seq: u64,
    /// First half of its identity.
    pub topic: String,
    /// Second half of its identity.
    pub event_id: String,
    /// Who says so.
    pub source: String,
    /// When it happened, as it was given, or when it was received.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// When it was received.
    #[serde(default)]
    pub received_at: Option<String>,
    /// What it says, as JSON; null if there is an error.
    pub payload: Box<serde_json::value::RawValue>,
    /// Why what is stored of it cannot be shown.
    #[serde(default)]
    pub error: Option<String>,
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// What kind of problem, in words.
    #[serde(default)]
    pub title: Option<String>,
    /// What is wrong with this request.
    #[serde(default)]
    pub detail: Option<String>,
    /// The stable code of the problem.
    #[serde(default)]
    pub code: Option<String>,
    /// Of invalid events: which, and why. It may end early.
    #[serde(default)]
    pub errors: Vec<EventError>,
    /// Errors that are not listed.
    #[serde(default)]
    pub results_omitted: u64,
}

/// One invalid event of a refused request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventError {
    /// Its index in the body, from 0.
    #[serde(default)]
    pub index: usize,
    /// The field at fault.
    #[serde(default)]
    pub field: Option<String>,
    /// Why.
    #[serde(default)]
    pub detail: Option<String>,
}

impl Problem {
    /// Reads a problem out of an error's body; a body of another kind (from a
    /// proxy, say) becomes its detail, cut short.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| Self {
            detail: Some(excerpt(body)).filter(|text| !text.is_empty()),
            ..Self::default()
        })
    }
}

impl Problem {
    /// The same with a note behind its detail, if there is a note.
    #[must_use]
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        if !note.is_empty() {
            let detail = self.detail.take().or_else(|| self.title.clone());
            self.detail = Some(detail.unwrap_or_else(|| NO_DETAIL.to_owned()) + note);
        }
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.as_ref().or(self.title.as_ref()) {
            Some(text) => f.write_str(text)?,
            None => f.write_str(NO_DETAIL)?,
        }
        self.code.as_ref().map_or(Ok(()), |code| write!(f, " (code {code})"))
    }
}

/// What stands for the detail of a problem without one.
const NO_DETAIL: &str = "no detail given";
/// Characters of a foreign body that go into an error message.
const EXCERPT_CHARS_MAX: usize = 200;

/// The beginning of a body, fit for one line of an error message.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    flat.chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_the_contract_are_read() {
        let stats: Stats = serde_json::from_str(
            r#"{"received": 150, "unique_processed": 120, "duplicate_dropped": 30, "conflicts": 1,
                "rejected": 4, "topics": ["a"], "by_topic": {"a": {"received": 90,
                "unique_processed": 70, "duplicate_dropped": 20, "conflicts": 1}},
                "queue_depth": 0, "started_at": "x", "uptime_seconds": 3600.5, "version": "0.1.0"}"#,
        )
        .unwrap();
        assert_eq!(stats.total.received, 150);
        assert_eq!(stats.by_topic["a"].unique_processed, 70);
        assert_eq!(stats.started_at.as_deref(), Some("x"));
    }

    #[test]
    fn problems_that_are_not_listed_follow_from_the_counts() {
        let reply: PublishReply = serde_json::from_str(
            r#"{"received": 9, "accepted": 2, "duplicates": 7, "conflicts": 4, "rejected": 3,
                "results": [{"index": 8, "status": "rejected", "field": "topic"},
                            {"index": 1, "status": "conflict"}, {"index": 2, "status": "duplicate"}],
                "results_omitted": 7}"#,
        )
        .unwrap();
        assert_eq!(reply.problems_unlisted(), 5);
    }

    #[test]
    fn a_foreign_error_body_becomes_the_detail() {
        let problem = Problem::read(b"<html>\n <b>Bad   gateway</b></html>");
        assert_eq!(problem.to_string(), "<html> <b>Bad gateway</b></html>");
    }
}
