//! Topic, event id, source and event: invalid values cannot be built.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::time;

pub mod payload;

/// Longest topic, event id or source, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 255;

/// Length in bytes of a content digest: SHA-256, cut in half. Two contents of
/// one identity are told apart but for a chance of 2⁻¹²⁸.
pub const CONTENT_DIGEST_BYTES: usize = 16;

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

/// An event that can be stored.
#[derive(Clone, Debug)]
pub struct Event {
    /// First half of the identity.
    pub topic: Topic,
    /// Second half of the identity.
    pub event_id: EventId,
    /// Who says so.
    pub source: Source,
    /// ISO 8601 as it was given; `None`: the time of receipt stands in.
    pub timestamp: Option<String>,
    /// JSON text as it was given, less white space between tokens.
    pub payload: String,
    /// Digest of source and payload: what a repeated delivery is compared by.
    pub content: [u8; CONTENT_DIGEST_BYTES],
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
        FieldError { field, detail: detail.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.detail)
    }
}

impl Event {
    /// Reads the text of one JSON value as an event.
    ///
    /// # Errors
    ///
    /// Every field that is wrong.
    pub fn parse(json: &RawValue) -> Result<Self, Vec<FieldError>> {
        let fields = Fields::read(json).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let topic = name_field("topic", fields.topic, Topic::parse, &mut errors);
        let event_id = name_field("event_id", fields.event_id, EventId::parse, &mut errors);
        let source = name_field("source", fields.source, Source::parse, &mut errors);
        let timestamp = timestamp_field(fields.timestamp)
            .map_err(|detail| errors.push(FieldError::new("timestamp", detail)))
            .unwrap_or_default();
        let payload = payload::read(fields.payload.map_or("{}", RawValue::get))
            .map_err(|error| errors.push(FieldError::new("payload", error.to_string())));
        match (topic, event_id, source, payload) {
            (Some(topic), Some(event_id), Some(source), Ok(payload)) if errors.is_empty() => {
                let content = digest(&source, &payload.encoding);
                Ok(Event { topic, event_id, source, timestamp, payload: payload.text, content })
            }
            _ => Err(errors),
        }
    }
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

fn name_field<T>(
    field: &'static str,
    raw: Option<&RawValue>,
    parse: impl FnOnce(String) -> Result<T, String>,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    raw.ok_or_else(|| "is required".to_owned())
        .and_then(string)
        .and_then(parse)
        .map_err(|detail| errors.push(FieldError::new(field, detail)))
        .ok()
}

fn timestamp_field(raw: Option<&RawValue>) -> Result<Option<String>, String> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text = string(raw)?;
    time::parse(&text).map_err(|why| format!("must be an ISO 8601 date and time: {why}"))?;
    Ok(Some(text))
}

/// The characters of a JSON string.
fn string(raw: &RawValue) -> Result<String, String> {
    let kind = match raw.get().as_bytes().first() {
        Some(b'"') => {
            return serde_json::from_str(raw.get())
                .map_err(|_| "holds a lone surrogate".to_owned());
        }
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    Err(format!("must be a string, is {kind}"))
}

/// The fields of an event before any is looked at. Of a field given twice the
/// last counts, as in the JSON parsers of Python, JavaScript and Go.
#[derive(Default)]
struct Fields<'a> {
    topic: Option<&'a RawValue>,
    event_id: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn read(json: &'a RawValue) -> Result<Self, FieldError> {
        if !json.get().starts_with('{') {
            return Err(FieldError::new("event", "must be a JSON object"));
        }
        serde_json::from_str(json.get())
            .map_err(|error| FieldError::new("event", format!("cannot be read: {error}")))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key()? {
                    let field = match key.as_ref() {
                        "topic" => &mut fields.topic,
                        "event_id" => &mut fields.event_id,
                        "source" => &mut fields.source,
                        "timestamp" => &mut fields.timestamp,
                        "payload" => &mut fields.payload,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A key, borrowed from the input unless it holds an escape.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Event, Vec<FieldError>> {
        Event::parse(serde_json::from_str(json).unwrap())
    }

    fn fields(json: &str) -> Vec<&'static str> {
        parse(json).unwrap_err().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn takes_a_whole_event_as_given() {
        let event = parse(
            r#"{"topic":" t ","event_id":"\u0065","source":"s","timestamp":"2025-10-23 10:00",
                "payload":{"a": 1.0},"extra":[1]}"#,
        )
        .unwrap();
        assert_eq!(event.topic.as_str(), " t ");
        assert_eq!(event.event_id.as_str(), "e");
        assert_eq!(event.timestamp.as_deref(), Some("2025-10-23 10:00"));
        assert_eq!(event.payload, r#"{"a":1.0}"#);
    }

    #[test]
    fn names_every_wrong_field() {
        assert_eq!(fields("{}"), ["topic", "event_id", "source"]);
        assert_eq!(fields("7"), ["event"]);
        assert_eq!(
            fields(
                r#"{"topic":"","event_id":null,"source":"\u0000","timestamp":5,"payload":"\udc00"}"#
            ),
            ["topic", "event_id", "source", "timestamp", "payload"]
        );
        let long = "é".repeat(NAME_CHARS_MAX + 1);
        assert_eq!(
            fields(&format!(r#"{{"topic":"t","event_id":"{long}","source":"s"}}"#)),
            ["event_id"]
        );
        let longest = "é".repeat(NAME_CHARS_MAX);
        assert!(parse(&format!(r#"{{"topic":"t","event_id":"{longest}","source":"s"}}"#)).is_ok());
    }

    #[test]
    fn content_is_source_and_payload() {
        let content = |rest: &str| {
            parse(&format!(r#"{{"topic":"t","event_id":"e",{rest}}}"#)).unwrap().content
        };
        let plain = content(r#""source":"s""#);
        assert_eq!(plain, content(r#""source":"s","payload":{},"timestamp":"2025-10-23""#));
        assert_ne!(plain, content(r#""source":"t""#));
        assert_ne!(plain, content(r#""source":"s","payload":null"#));
        assert_eq!(
            content(r#""source":"s","payload":{"a":1,"b":2}"#),
            content(r#""payload":{"b": 2, "a": 1},"source":"s""#)
        );
    }

    #[test]
    fn of_a_field_given_twice_the_last_counts() {
        let event = parse(r#"{"topic":5,"topic":"t","event_id":"e","source":"s"}"#).unwrap();
        assert_eq!(event.topic.as_str(), "t");
    }
}
