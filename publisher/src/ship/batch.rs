//! Lines → events → bounded request bodies.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::lines::Line;
use crate::wire::Event;

/// Events in a request unless told otherwise.
pub(crate) const BATCH_EVENTS_DEFAULT: usize = 1_000;
/// Bytes of a request's body unless told otherwise; far below the 10 MiB that
/// services commonly take.
pub(crate) const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Nothing here may depend on the file's name or on time: a service compares
/// the payloads of an event that is delivered again.
#[derive(Serialize)]
struct Payload<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u64>,
    message: Cow<'a, str>,
}

/// Writes the event of a line.
///
/// # Errors
///
/// If it cannot be written as JSON, which would be a defect.
pub(crate) fn event(
    topic: &str,
    source: &str,
    id: &str,
    line: &Line,
) -> serde_json::Result<Shipped> {
    let message = String::from_utf8_lossy(&line.text);
    let invalid_utf8 = matches!(message, Cow::Owned(_));
    let payload = Payload { line: line.number, part: line.part, message };
    let json = serde_json::to_vec(&Event { topic, event_id: id, source, payload })?;
    Ok(Shipped { json, line: line.number, part: line.part, invalid_utf8 })
}

/// An event that is to be sent.
pub(crate) trait Sendable {
    /// The event's bytes.
    fn json(&self) -> &[u8];

    /// Where it comes from, for messages.
    fn position(&self) -> String;

    /// Its bytes in a body.
    fn len_bytes(&self) -> usize {
        self.json().len() + 1
    }
}

/// One event on its way, of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// The event's bytes.
    pub json: Vec<u8>,
    /// The number of its line.
    pub line: u64,
    /// Which part of the line it is.
    pub part: Option<u64>,
    /// Whether bytes were replaced to make its text valid UTF-8.
    pub invalid_utf8: bool,
}

impl Sendable for Shipped {
    fn json(&self) -> &[u8] {
        &self.json
    }

    fn position(&self) -> String {
        match self.part {
            Some(part) => format!("line {}, part {part}", self.line),
            None => format!("line {}", self.line),
        }
    }
}

/// How much goes into one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Events; at least one.
    pub batch_events_max: usize,
    /// Bytes of the body. A single event may be longer.
    pub batch_bytes_max: usize,
}

impl Limits {
    /// What to send from now on, after a body of `events` was too large.
    pub(crate) fn learn_too_large(&mut self, events: &[impl Sendable]) {
        self.batch_events_max = self.batch_events_max.min(events.len().div_ceil(2)).max(1);
        self.batch_bytes_max = self.batch_bytes_max.min(body_bytes(events) / 2).max(1);
    }

    /// How many of `events` go into the next request: as many as fit, at least
    /// one if there is one.
    #[must_use]
    pub(crate) fn fitting(&self, events: &[impl Sendable]) -> usize {
        let mut bytes = 2;
        let mut count = 0;
        for event in events.iter().take(self.batch_events_max) {
            bytes += event.len_bytes();
            if count > 0 && bytes > self.batch_bytes_max {
                break;
            }
            count += 1;
        }
        count
    }

    /// Whether `events` events of `bytes` bytes are enough for a request.
    #[must_use]
    pub(crate) fn are_reached(&self, events: usize, bytes: usize) -> bool {
        events >= self.batch_events_max || bytes >= self.batch_bytes_max
    }
}

/// The length of [`body`].
fn body_bytes(events: &[impl Sendable]) -> usize {
    events.iter().map(Sendable::len_bytes).sum::<usize>() + 1
}

/// The body of a request: an array.
#[must_use]
pub(crate) fn body(events: &[impl Sendable]) -> Bytes {
    let mut body = Vec::with_capacity(body_bytes(events));
    body.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.json());
    }
    body.push(b']');
    body.into()
}

/// What goes over a stream: a line each.
#[must_use]
pub(crate) fn lines(events: &[Shipped]) -> Bytes {
    let mut lines = Vec::with_capacity(body_bytes(events));
    for event in events {
        lines.extend_from_slice(&event.json);
        lines.push(b'\n');
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(lengths: &[usize]) -> Vec<Shipped> {
        let make = |length: &usize| Shipped {
            json: vec![b'1'; *length],
            line: 1,
            part: None,
            invalid_utf8: false,
        };
        lengths.iter().map(make).collect()
    }

    #[test]
    fn bodies_keep_to_their_limits() {
        let limits = Limits { batch_events_max: 3, batch_bytes_max: 30 };
        for (lengths, expected) in [
            (&[][..], 0),
            (&[5], 1),
            (&[500], 1),
            (&[5, 500], 1),
            (&[500, 5], 1),
            (&[5, 5, 5, 5], 3),
            (&[10, 10, 10], 2),
        ] {
            let events = events(lengths);
            let fitting = limits.fitting(&events);
            assert_eq!(fitting, expected, "{lengths:?}");
            let length = body(&events[..fitting]).len();
            assert!(fitting <= 1 || length <= limits.batch_bytes_max, "{lengths:?}: {length}");
        }
    }

    #[test]
    fn too_large_ends_at_single_events() {
        let events = events(&[10; 9]);
        let mut limits = Limits { batch_events_max: 1_000, batch_bytes_max: 1 << 20 };
        let mut count = 9;
        while count > 1 {
            limits.learn_too_large(&events[..count]);
            let next = limits.fitting(&events);
            assert!(next < count, "{next} of {count}");
            count = next;
        }
        limits.learn_too_large(&events[..1]);
        assert_eq!(limits.fitting(&events), 1);
    }

    #[test]
    fn an_event_is_its_line_and_nothing_of_its_file() {
        let line = Line {
            number: 7,
            part: None,
            continued: false,
            text: b"a \"b\" \0 \xff".to_vec(),
            end_bytes: 9,
        };
        let shipped = event("t", "s", "id", &line).unwrap();
        assert_eq!(
            String::from_utf8(shipped.json.clone()).unwrap(),
            r#"{"topic":"t","event_id":"id","source":"s","payload":{"line":7,"message":"a \"b\" \u0000 "#
                .to_owned()
                + "\u{fffd}\"}}"
        );
        assert!(shipped.invalid_utf8);
    }
}
