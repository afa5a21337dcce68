//! An event as a line of an export.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::sums::Content;
use crate::wire::StoredEvent;

/// What a service takes of an event, and what it ignores: `seq` and `received_at`.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    topic: &'a str,
    event_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<&'a str>,
    source: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<&'a str>,
}

/// Adds the line of an event to `out`.
///
/// # Errors
///
/// If it cannot be written as JSON, which would be a defect.
pub(crate) fn write(event: &StoredEvent, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let StoredEvent { seq, topic, event_id, source, timestamp, received_at, payload, .. } = event;
    let begin = out.len();
    let (timestamp, received_at) = (timestamp.as_deref(), received_at.as_deref());
    let line = Line { seq: *seq, topic, event_id, timestamp, source, payload, received_at };
    serde_json::to_writer(&mut *out, &line)?;
    // Line ends within JSON are white space.
    for byte in &mut out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.push(b'\n');
    Ok(())
}

/// What the digest of an export is made of.
#[must_use]
pub(crate) fn content(event: &StoredEvent) -> Content<'_> {
    Content {
        event_id: &event.event_id,
        source: &event.source,
        timestamp: event.timestamp.as_deref(),
        payload: event.payload.get(),
    }
}

/// An event as it is read from a line. What a service ignores is left out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Given<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

impl Given<'_> {
    /// What the digest of an export is made of.
    #[must_use]
    pub(crate) fn content(&self) -> Content<'_> {
        Content {
            event_id: &self.event_id,
            source: &self.source,
            timestamp: self.timestamp.as_deref(),
            payload: self.payload.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_as_it_was() {
        let json = r#"{"seq":7,"topic":"t\n","event_id":"\u0065","timestamp":"2026-01-01",
            "source":"s","payload":{"n": 1.000000000000000000001,
            "x":null},"received_at":"2026-01-02T00:00:00.000Z","later":1}"#;
        let event: StoredEvent = serde_json::from_str(json).unwrap();
        let mut out = Vec::new();
        write(&event, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("1.000000000000000000001") && text.contains(r#""seq":7"#), "{text}");
        let given: Given<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!((&*given.topic, &*given.event_id), ("t\n", "e"));
        assert_eq!(given.timestamp.as_deref(), Some("2026-01-01"));
        let sent = serde_json::to_string(&given).unwrap();
        assert!(!sent.contains("seq") && !sent.contains("received_at"), "{sent}");
    }
}
