//! Topic, event id, source and event: invalid values cannot be built.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::text::shortened;
use crate::time;

mod pattern;
mod payload;

pub use pattern::{TopicGroup, TopicPattern};
pub use payload::{PAYLOAD_DEPTH_MAX, Payload, unescaped};

/// Longest topic, event id or source, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 255;

/// Length in bytes of a content digest: SHA-256, cut in half. Two contents of
/// one identity are told apart but for a chance of 2⁻¹²⁸.
pub const CONTENT_DIGEST_BYTES: usize = 16;

/// Longest phrase that says what is wrong with a field, in bytes of JSON.
const DETAIL_BYTES_MAX: usize = 300;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// Takes a string of 1 to [`NAME_CHARS_MAX`] characters, as given.
            ///
            /// # Errors
            ///
            /// A phrase that says what is wrong with it.
            pub fn parse(given: impl Into<String>) -> Result<Self, String> {
                let given = given.into();
                check_name(&given)?;
                Ok(Self(given))
            }

            /// The characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }
    };
}

name! {
    /// What an event is about, and the space in which its id is unique.
    Topic
}
name! {
    /// The name of one event within its topic.
    EventId
}
name! {
    /// Who says so.
    Source
}

fn check_name(given: &str) -> Result<(), String> {
    if given.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if given.contains('\0') {
        return Err("must not contain the NUL character".to_owned());
    }
    let chars = given.chars().count();
    if chars > NAME_CHARS_MAX {
        return Err(format!("must have at most {NAME_CHARS_MAX} characters, has {chars}"));
    }
    Ok(())
}

/// What a format found for one field: its text, or a phrase that says why there
/// is none, such as `is required`.
pub type Found<T> = Result<T, String>;

/// The fields of an event as a format found them, before any is looked at.
#[derive(Debug)]
pub struct Fields {
    /// First half of the identity.
    pub topic: Found<String>,
    /// Second half of the identity.
    pub event_id: Found<String>,
    /// Who says so.
    pub source: Found<String>,
    /// ISO 8601; `None`: the time of receipt stands in.
    pub timestamp: Found<Option<String>>,
    /// What it says.
    pub payload: Found<Payload>,
}

/// An event that can be stored: there is no way to one but [`Event::build`].
#[derive(Clone, Debug)]
pub struct Event {
    topic: Topic,
    event_id: EventId,
    source: Source,
    timestamp: Option<String>,
    payload: String,
    content: [u8; CONTENT_DIGEST_BYTES],
}

/// What is wrong with one field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, or `event` for the whole.
    pub field: &'static str,
    /// A phrase that follows the field's name.
    pub detail: String,
}

impl FieldError {
    /// `field` is wrong as `detail` says.
    pub fn new(field: &'static str, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Cow::Owned(shorter) = shortened(&detail, DETAIL_BYTES_MAX) {
            detail = shorter;
        }
        FieldError { field, detail }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.detail)
    }
}

impl Event {
    /// Checks the fields and makes an event of them.
    ///
    /// # Errors
    ///
    /// Every field that is wrong.
    pub fn build(fields: Fields) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let topic = checked("topic", fields.topic.and_then(Topic::parse), &mut errors);
        let event_id = checked("event_id", fields.event_id.and_then(EventId::parse), &mut errors);
        let source = checked("source", fields.source.and_then(Source::parse), &mut errors);
        let timestamp =
            checked("timestamp", fields.timestamp.and_then(check_timestamp), &mut errors);
        let payload = checked("payload", fields.payload, &mut errors);
        match (topic, event_id, source, timestamp, payload) {
            (Some(topic), Some(event_id), Some(source), Some(timestamp), Some(payload)) => {
                let content = digest(&source, &payload.encoding);
                Ok(Event { topic, event_id, source, timestamp, payload: payload.text, content })
            }
            _ => Err(errors),
        }
    }

    /// First half of the identity.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Second half of the identity.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// Who says so.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// ISO 8601 as it was given; `None`: the time of receipt stands in.
    pub fn timestamp(&self) -> Option<&str> {
        self.timestamp.as_deref()
    }

    /// JSON text as it was given, less white space between tokens.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Digest of source and payload: what a repeated delivery is compared by.
    pub fn content(&self) -> &[u8; CONTENT_DIGEST_BYTES] {
        &self.content
    }
}

/// The value of a field; what is wrong with it goes to `errors`.
fn checked<T>(field: &'static str, found: Found<T>, errors: &mut Vec<FieldError>) -> Option<T> {
    found.map_err(|detail| errors.push(FieldError::new(field, detail))).ok()
}

fn check_timestamp(given: Option<String>) -> Result<Option<String>, String> {
    if let Some(text) = &given {
        time::parse(text).map_err(|why| format!("must be an ISO 8601 date and time: {why}"))?;
    }
    Ok(given)
}

fn digest(source: &Source, payload: &[u8]) -> [u8; CONTENT_DIGEST_BYTES] {
    let mut hash = Sha256::new();
    hash.update((source.as_str().len() as u64).to_le_bytes());
    hash.update(source.as_str());
    hash.update(payload);
    let full = hash.finalize();
    let mut half = [0; CONTENT_DIGEST_BYTES];
    half.copy_from_slice(&full[..CONTENT_DIGEST_BYTES]);
    half
}

/// An event of source `s`, for tests.
#[cfg(test)]
pub(crate) fn sample(topic: &str, event_id: &str, payload: &str) -> Event {
    Event::build(Fields {
        topic: Ok(topic.to_owned()),
        event_id: Ok(event_id.to_owned()),
        source: Ok("s".to_owned()),
        timestamp: Ok(None),
        payload: Payload::read(payload),
    })
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(payload: &str) -> Fields {
        Fields {
            topic: Ok(" t ".to_owned()),
            event_id: Ok("e".to_owned()),
            source: Ok("s".to_owned()),
            timestamp: Ok(Some("2025-10-23 10:00".to_owned())),
            payload: Payload::read(payload),
        }
    }

    #[test]
    fn keeps_what_it_is_given() {
        let event = Event::build(fields(r#"{"a": 1.0}"#)).unwrap();
        assert_eq!(event.topic().as_str(), " t ");
        assert_eq!(event.event_id().as_str(), "e");
        assert_eq!(event.source().as_str(), "s");
        assert_eq!(event.timestamp(), Some("2025-10-23 10:00"));
        assert_eq!(event.payload(), r#"{"a":1.0}"#);
    }

    #[test]
    fn names_every_wrong_field() {
        let wrong = Fields {
            topic: Ok(String::new()),
            event_id: Err("is required".to_owned()),
            source: Ok("\0".to_owned()),
            timestamp: Ok(Some("yesterday".to_owned())),
            payload: Payload::read(r#""\udc00""#),
        };
        let errors = Event::build(wrong).unwrap_err();
        let named: Vec<&str> = errors.iter().map(|error| error.field).collect();
        assert_eq!(named, ["topic", "event_id", "source", "timestamp", "payload"]);
        assert_eq!(errors[1].to_string(), "event_id is required");
    }

    #[test]
    fn names_are_limited_in_characters() {
        let named = |chars: usize| {
            let event_id = Ok("é".repeat(chars));
            Event::build(Fields { event_id, ..fields("1") })
        };
        assert!(named(NAME_CHARS_MAX).is_ok());
        assert_eq!(named(NAME_CHARS_MAX + 1).unwrap_err()[0].field, "event_id");
    }

    #[test]
    fn content_is_source_and_payload() {
        let content = |source: &str, payload: &str| {
            let given = Fields {
                topic: Ok("t".to_owned()),
                event_id: Ok("e".to_owned()),
                source: Ok(source.to_owned()),
                timestamp: Ok(None),
                payload: Payload::read(payload),
            };
            *Event::build(given).unwrap().content()
        };
        assert_ne!(content("s", "{}"), content("t", "{}"));
        assert_ne!(content("s", "{}"), content("s", "null"));
        assert_eq!(content("s", r#"{"a":1,"b":2}"#), content("s", r#"{"b": 2, "a": 1}"#));
    }
}
