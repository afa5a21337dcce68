//! Sekali's own format: JSON events in any of the shapes of [`super::shapes`].

use std::fmt;

use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::format::{Entry, Format, Input};
use super::reply::{Events, Wanted};
use super::shapes::{self, Framing, Key};
use crate::event::{self, Event, FieldError, Payload};
use crate::http::accept;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// The events of a request: it takes all.
///
/// # Errors
///
/// 413 for too many events, 422 for a parameter that cannot be understood and for a
/// body that is none of the shapes.
pub(super) fn candidate<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Option<Box<dyn Format + 'a>>, Problem> {
    let wanted = Wanted::read(query)?;
    let max = input.batch_events_max;
    let elements = shapes::split(input.body, framing(input.headers), max)
        .map_err(|error| error.into_problem(max))?;
    let read =
        |element: shapes::Element<'_>| element.map_err(|error| vec![error]).and_then(read_event);
    let entries = elements.into_iter().map(read).collect();
    Ok(Some(Box::new(Events::new(wanted, entries))))
}

/// The events of `lines`, each of which is one; empty ones are none.
pub(crate) fn read_lines(lines: &[u8]) -> Vec<Entry> {
    shapes::each_line(lines)
        .map(|element| element.map_err(|error| vec![error]).and_then(read_event))
        .collect()
}

fn framing(headers: &HeaderMap) -> Framing {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media_type.is_some_and(accept::is_ndjson) { Framing::Lines } else { Framing::Unknown }
}

/// Reads the text of one JSON value as an event.
fn read_event(json: &RawValue) -> Entry {
    let fields = Fields::read(json).map_err(|error| vec![error])?;
    Event::build(event::Fields {
        topic: required(fields.topic),
        event_id: required(fields.event_id),
        source: required(fields.source),
        timestamp: match fields.timestamp {
            Some(raw) if raw.get() != "null" => string(raw).map(Some),
            _ => Ok(None),
        },
        payload: Payload::read(fields.payload.map_or("{}", RawValue::get)),
    })
}

fn required(raw: Option<&RawValue>) -> event::Found<String> {
    raw.ok_or_else(|| "is required".to_owned()).and_then(string)
}

/// The characters of a JSON string.
fn string(raw: &RawValue) -> event::Found<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Entry {
        read_event(serde_json::from_str(json).unwrap())
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
        assert_eq!(event.topic().as_str(), " t ");
        assert_eq!(event.event_id().as_str(), "e");
        assert_eq!(event.timestamp(), Some("2025-10-23 10:00"));
        assert_eq!(event.payload(), r#"{"a":1.0}"#);
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
    }

    #[test]
    fn of_a_field_given_twice_the_last_counts() {
        let event = parse(r#"{"topic":5,"topic":"t","event_id":"e","source":"s"}"#).unwrap();
        assert_eq!(event.topic().as_str(), "t");
    }
}
