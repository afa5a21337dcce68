//! A stored event as clients see it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::{Seq, StoredEvent};
use crate::time;

/// An event in a reply.
///
/// A row whose payload cannot be shown, since the store was damaged or edited by
/// hand, comes out all the same, with its identity and marked: it must not stop
/// readers from what comes after it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventJson<'a> {
    seq: Seq,
    topic: &'a str,
    event_id: &'a str,
    timestamp: Cow<'a, str>,
    source: &'a str,
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    payload: Option<&'a RawValue>,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// What a client is told of a payload that cannot be shown.
const UNREADABLE: &str = "the stored payload is not JSON";

impl<'a> EventJson<'a> {
    /// The view of `event`.
    pub(crate) fn of(event: &'a StoredEvent) -> Self {
        let received_at = time::rfc3339(event.received_at);
        let payload = serde_json::from_str(&event.payload);
        EventJson {
            seq: event.seq,
            topic: &event.topic,
            event_id: &event.event_id,
            timestamp: match &event.timestamp {
                Some(given) => Cow::Borrowed(given),
                None => Cow::Owned(received_at.clone()),
            },
            source: &event.source,
            error: payload.is_err().then_some(UNREADABLE),
            payload: payload.ok(),
            received_at,
        }
    }

    /// Whether the payload cannot be shown.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.error.is_some()
    }

    /// Adds it to `text`: JSON on one line, with no line end.
    pub(crate) fn write(&self, text: &mut Vec<u8>) {
        // Strings, numbers and checked JSON: writing them to memory cannot fail.
        serde_json::to_writer(text, self).ok();
    }
}
