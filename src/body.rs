//! The shapes of a request body, told apart by content: one event object, an
//! array of events, `{"events": […]}`, or NDJSON (objects one after another,
//! with a line end, white space or nothing between them).
//!
//! The media type is no help: shippers send `text/plain`, curl sends
//! `application/x-www-form-urlencoded`.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::FieldError;
use crate::problem::Problem;

/// One element of a body: the text of a JSON value, or why it is none.
pub type Element<'a> = Result<&'a RawValue, FieldError>;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Splits a body into its elements, `batch_events_max` at most.
///
/// In NDJSON an element that is not JSON ends with its line, and the lines
/// after it are read: one bad line does not cost a shipper the whole batch.
///
/// # Errors
///
/// A [`Problem`] when the body is none of the shapes (422) or has more
/// elements than allowed (413).
pub fn split(body: &[u8], batch_events_max: usize) -> Result<Vec<Element<'_>>, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::invalid_body(format!(
            "The body is not UTF-8 (at byte {}), so it is not JSON.",
            error.valid_up_to()
        ))
    })?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_matches(JSON_WHITE_SPACE);
    match text.as_bytes().first() {
        None => {
            Err(Problem::invalid_body("The body is empty; send an event or an array of events."))
        }
        Some(b'[') => array(text, batch_events_max),
        Some(b'{') => objects(text, batch_events_max),
        Some(_) => Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Problem::invalid_body(
                "The body is neither an event object nor an array of events nor {\"events\": […]}.",
            ),
            Err(error) => not_json(&error),
        }),
    }
}

const JSON_WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::invalid_body(format!("The body is not JSON: {error}."))
}

fn array(text: &str, batch_events_max: usize) -> Result<Vec<Element<'_>>, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer
        .deserialize_seq(Elements { batch_events_max })
        .and_then(|elements| deserializer.end().map(|()| elements))
        .map_err(|error| not_json(&error))?;
    if found.len() > batch_events_max {
        return Err(Problem::too_many_events(batch_events_max));
    }
    Ok(found.into_iter().map(Ok).collect())
}

/// A body that begins with an object.
fn objects(text: &str, batch_events_max: usize) -> Result<Vec<Element<'_>>, Problem> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(only))
            if text[values.byte_offset()..].trim_matches(JSON_WHITE_SPACE).is_empty() =>
        {
            match wrapped(only) {
                Some(events) if events.get().starts_with('[') => {
                    array(events.get(), batch_events_max)
                }
                Some(_) => Err(Problem::invalid_body("The field events must be an array.")),
                None => Ok(vec![Ok(only)]),
            }
        }
        Some(Err(error)) if !text.contains('\n') => Err(not_json(&error)),
        _ => lines(text, batch_events_max),
    }
}

/// Objects one after another, and what else stands between them.
fn lines(text: &str, batch_events_max: usize) -> Result<Vec<Element<'_>>, Problem> {
    let mut elements = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if elements.len() == batch_events_max {
            return Err(Problem::too_many_events(batch_events_max));
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let read = match values.next() {
            Some(Ok(value)) => {
                elements.push(Ok(value));
                values.byte_offset()
            }
            Some(Err(error)) => {
                elements.push(Err(FieldError::new("event", format!("is not JSON: {error}"))));
                rest.find('\n').map_or(rest.len(), |line_end| line_end + 1)
            }
            None => rest.len(),
        };
        rest = rest[read..].trim_start_matches(JSON_WHITE_SPACE);
    }
    Ok(elements)
}

/// The value of `events`, when the object is a wrapper and not itself an event.
fn wrapped(object: &RawValue) -> Option<&RawValue> {
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Wrapper).ok().flatten()
}

struct Wrapper;

impl<'de> Visitor<'de> for Wrapper {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut events, mut is_event) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "events" => events = Some(map.next_value()?),
                other => {
                    is_event |= matches!(other, "topic" | "event_id" | "source");
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(events.filter(|_| !is_event))
    }
}

/// Collects one element more than allowed and skips the rest unkept, so that
/// memory stays within the limit and the syntax is checked all the same.
struct Elements {
    batch_events_max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.batch_events_max {
            match seq.next_element()? {
                Some(element) => elements.push(element),
                None => return Ok(elements),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Vec<String> {
        split(body.as_bytes(), 3)
            .unwrap()
            .into_iter()
            .map(|element| element.map_or_else(|_| "bad".to_owned(), |raw| raw.get().to_owned()))
            .collect()
    }

    #[test]
    fn tells_the_shapes_apart() {
        for (body, expected) in [
            (r#"{"topic":"t"}"#, vec![r#"{"topic":"t"}"#]),
            ("\u{feff} {\n} \r\n", vec!["{\n}"]),
            ("[]", vec![]),
            ("[{},5]", vec!["{}", "5"]),
            (r#"{"events":[{}],"n":1}"#, vec!["{}"]),
            (r#"{"events":[]}"#, vec![]),
            (r#"{"topic":"t","events":[]}"#, vec![r#"{"topic":"t","events":[]}"#]),
            ("{}{}", vec!["{}", "{}"]),
            ("{}\n\n\r\n{} {}\n", vec!["{}", "{}", "{}"]),
            ("{}\n{oops\n{}", vec!["{}", "bad", "{}"]),
            ("{oops\n{}", vec!["bad", "{}"]),
            ("{} 5", vec!["{}", "5"]),
        ] {
            assert_eq!(texts(body), expected, "{body}");
        }
    }

    #[test]
    fn refuses_other_bodies() {
        for body in [
            "",
            " \n",
            "5",
            "\"{}\"",
            "null",
            "topic=t",
            "[{}",
            "[{}]x",
            "{",
            "{}}[",
            r#"{"events":1}"#,
        ] {
            let split = split(body.as_bytes(), 3);
            if body == "{}}[" {
                // An object with more after it is NDJSON, and what follows is not an event.
                assert!(split.is_ok_and(|elements| elements[1].is_err()));
            } else {
                assert_eq!(split.unwrap_err().status().as_u16(), 422, "{body}");
            }
        }
        assert_eq!(split(b"\xff", 3).unwrap_err().status().as_u16(), 422);
    }

    #[test]
    fn counts_elements() {
        for body in ["[1,2,3,4]", "{}{}{}{}", r#"{"events":[1,2,3,4]}"#] {
            assert_eq!(split(body.as_bytes(), 3).unwrap_err().status().as_u16(), 413, "{body}");
        }
        assert_eq!(split(b"[1,2,3,4,}", 3).unwrap_err().status().as_u16(), 422);
    }
}
