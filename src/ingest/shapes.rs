//! The shapes of a JSON body, told apart by content: one object, an array, one
//! within an object ([`Wrapper`]), or NDJSON (objects one after another, with a line
//! end, white space or nothing between them).
//!
//! The media type is no help: shippers send `text/plain`, curl sends
//! `application/x-www-form-urlencoded`.

use std::fmt;

use http::HeaderMap;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::format::BodyError;
use super::key::Key;
use super::pointer::Pointer;
use crate::event::FieldError;
use crate::http::accept;

/// One element of a body: the text of a JSON value, or why it is none.
pub(super) type Element<'a> = Result<&'a RawValue, FieldError>;

/// What the media type says of how a body is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing that can be relied on.
    Unknown,
    /// Lines, each a value by itself.
    Lines,
}

impl Framing {
    /// What the headers of a request say.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match accept::is_ndjson(&accept::media_type(headers)) {
            true => Framing::Lines,
            false => Framing::Unknown,
        }
    }
}

/// Which objects are no element, but hold an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// `{"events": […]}`, with whatever beside it, unless it is itself an event.
    Events,
    /// `{"events": […]}`, `{"logs": […]}` and `{"records": […]}`, with nothing beside
    /// it. Of a record of Kafka's REST proxy, `{"value": …}`, the value is the element.
    Alone,
    /// Both: of records that have their own topic an object without one is none.
    /// `has_id`: they have their own id, too.
    EventsOrAlone { has_id: bool },
    /// There is none.
    None,
}

/// U+FEFF, in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Splits a body into its elements, `batch_events_max` at most.
///
/// Values may span lines. From the first that is not JSON on, each line stands
/// for itself: one bad line does not cost a shipper the whole batch, and no
/// text is looked at more than three times. Without [`Framing::Lines`] the first
/// value has to be an object.
///
/// # Errors
///
/// When the body is none of the shapes, or has more elements than allowed: what
/// comes after them is not looked at.
pub(super) fn split(
    body: &[u8],
    framing: Framing,
    wrapper: Wrapper,
    batch_events_max: usize,
) -> Result<Vec<Element<'_>>, BodyError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(_) if framing == Framing::Lines || begins_with_a_line(body) => {
            return lines(body, Elements::new(batch_events_max));
        }
        Err(error) => {
            return Err(BodyError::invalid(format!(
                "The body is not UTF-8 (at byte {}), so it is not JSON.",
                error.valid_up_to()
            )));
        }
    };
    let text = text.trim_matches(JSON_WHITE_SPACE);
    match text.as_bytes().first() {
        None => Err(BodyError::invalid("The body is empty; send an event or an array of events.")),
        Some(b'[') => array(text, batch_events_max),
        Some(b'{') => objects(text, framing, wrapper, batch_events_max),
        Some(_) if framing == Framing::Lines => {
            lines(text.as_bytes(), Elements::new(batch_events_max))
        }
        Some(_) => Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => BodyError::invalid(
                "The body is neither an event object nor an array of events nor {\"events\": […]}.",
            ),
            Err(error) => not_json(&error),
        }),
    }
}

const JSON_WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn not_json(error: &serde_json::Error) -> BodyError {
    BodyError::invalid(format!("The body is not JSON: {error}."))
}

/// Whether the first line is a JSON object by itself.
fn begins_with_a_line(body: &[u8]) -> bool {
    let first = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = std::str::from_utf8(first).unwrap_or_default();
    first.starts_with('{') && serde_json::from_str::<IgnoredAny>(first).is_ok()
}

/// The elements that were found, valid or not, as many as there may be.
struct Elements<'a> {
    found: Vec<Element<'a>>,
    batch_events_max: usize,
    /// There was one more.
    are_too_many: bool,
}

impl<'a> Elements<'a> {
    fn new(batch_events_max: usize) -> Self {
        Elements { found: Vec::new(), batch_events_max, are_too_many: false }
    }

    /// Takes another.
    ///
    /// # Errors
    ///
    /// When there may be no more: whoever reads the body stops here.
    fn push(&mut self, element: Element<'a>) -> Result<(), BodyError> {
        self.are_too_many = self.found.len() == self.batch_events_max;
        if self.are_too_many {
            return Err(BodyError::TooManyEvents);
        }
        self.found.push(element);
        Ok(())
    }
}

fn array(text: &str, batch_events_max: usize) -> Result<Vec<Element<'_>>, BodyError> {
    let mut elements = Elements::new(batch_events_max);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_seq(ArrayVisitor(&mut elements));
    let read = read.and_then(|()| deserializer.end());
    if elements.are_too_many {
        return Err(BodyError::TooManyEvents);
    }
    read.map(|()| elements.found).map_err(|error| not_json(&error))
}

/// A body that begins with an object.
fn objects(
    text: &str,
    framing: Framing,
    wrapper: Wrapper,
    batch_events_max: usize,
) -> Result<Vec<Element<'_>>, BodyError> {
    let mut elements = Elements::new(batch_events_max);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    loop {
        let read = values.byte_offset();
        match values.next() {
            None => break,
            Some(Ok(value)) => elements.push(Ok(value))?,
            Some(Err(error)) if elements.found.is_empty() && framing == Framing::Unknown => {
                return Err(not_json(&error));
            }
            Some(Err(_)) => return lines(&text.as_bytes()[read..], elements),
        }
    }
    let elements = elements.found;
    let [Ok(only)] = elements.as_slice() else { return Ok(elements) };
    let held = match wrapper {
        Wrapper::Events => Held::in_events(only, true),
        Wrapper::Alone => Held::alone(only),
        Wrapper::EventsOrAlone { has_id } => {
            Held::in_events(only, has_id).or_else(|| Held::alone(only))
        }
        Wrapper::None => None,
    };
    let Some(held) = held else { return Ok(elements) };
    if !held.is_array() {
        return Err(BodyError::invalid("The field events must be an array."));
    }
    let mut elements = array(held.elements.get(), batch_events_max)?;
    if held.name == Some("records") {
        let value = Pointer::member("value");
        for element in elements.iter_mut().flatten() {
            *element = value.find(element).unwrap_or(element);
        }
    }
    Ok(elements)
}

/// Lines, each of which is one value; empty ones are none.
pub(super) fn each_line(lines: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let lines = lines.split(|byte| *byte == b'\n').enumerate().map(|(number, line)| match number {
        0 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        _ => line,
    });
    lines.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).map(|line| {
        let line =
            std::str::from_utf8(line).map_err(|_| FieldError::new("event", "is not UTF-8"))?;
        serde_json::from_str(line)
            .map_err(|error| FieldError::new("event", format!("is not JSON: {error}")))
    })
}

/// Lines of objects, each line by itself, after the `elements` before them.
/// What is no JSON ends with its line.
fn lines<'a>(text: &'a [u8], mut elements: Elements<'a>) -> Result<Vec<Element<'a>>, BodyError> {
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        let Ok(line) = std::str::from_utf8(line) else {
            elements.push(Err(FieldError::new("event", "is not UTF-8")))?;
            continue;
        };
        // After an error there is no next value.
        for value in serde_json::Deserializer::from_str(line).into_iter::<&RawValue>() {
            elements.push(
                value.map_err(|error| FieldError::new("event", format!("is not JSON: {error}"))),
            )?;
        }
    }
    Ok(elements.found)
}

/// What a wrapper holds.
struct Held<'a> {
    /// Its only name, if it has only one.
    name: Option<&'static str>,
    elements: &'a RawValue,
}

impl<'a> Held<'a> {
    /// The names of those that stand alone.
    const NAMES: [&'static str; 3] = ["events", "logs", "records"];

    /// The value of `events`, when the object is a wrapper and not itself an event,
    /// which has a topic and, if they have any, an id.
    fn in_events(object: &'a RawValue, has_id: bool) -> Option<Self> {
        let visitor = InEvents { has_id };
        let elements = serde_json::Deserializer::from_str(object.get()).deserialize_map(visitor);
        elements.ok().flatten().map(|elements| Held { name: None, elements })
    }

    /// The array that is the value of the only member.
    fn alone(object: &'a RawValue) -> Option<Self> {
        let held = serde_json::Deserializer::from_str(object.get()).deserialize_map(Alone);
        held.ok().flatten().filter(Held::is_array)
    }

    fn is_array(&self) -> bool {
        self.elements.get().starts_with('[')
    }
}

struct InEvents {
    /// An event has an id.
    has_id: bool,
}

impl<'de> Visitor<'de> for InEvents {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut events, mut has_topic, mut has_event_id) = (None, false, false);
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "events" => {
                    events = Some(map.next_value()?);
                    continue;
                }
                "topic" => has_topic = true,
                "event_id" => has_event_id = true,
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        let is_event = has_topic && (has_event_id || !self.has_id);
        Ok(events.filter(|_| !is_event))
    }
}

struct Alone;

impl<'de> Visitor<'de> for Alone {
    type Value = Option<Held<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some(Key(key)) = map.next_key()? else { return Ok(None) };
        let Some(name) = Held::NAMES.into_iter().find(|name| *name == key) else {
            // The rest does not matter, and has to be gone through.
            map.next_value::<IgnoredAny>()?;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let elements = map.next_value()?;
        let mut is_alone = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_alone = false;
        }
        Ok(is_alone.then_some(Held { name: Some(name), elements }))
    }
}

/// Takes the elements of an array, up to the first that is one too many.
struct ArrayVisitor<'e, 'a>(&'e mut Elements<'a>);

impl<'a> Visitor<'a> for ArrayVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            self.0.push(Ok(element)).map_err(|_| A::Error::custom("too many events"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &[u8], framing: Framing) -> Vec<String> {
        split(body, framing, Wrapper::Events, 4)
            .unwrap()
            .into_iter()
            .map(|element| element.map_or_else(|_| "bad".to_owned(), |raw| raw.get().to_owned()))
            .collect()
    }

    #[test]
    fn tells_the_shapes_apart() {
        let event = r#"{"topic":"t","event_id":"e","events":[]}"#;
        for (body, expected) in [
            (r#"{"topic":"t"}"#, vec![r#"{"topic":"t"}"#]),
            ("\u{feff} {\n} \r\n", vec!["{\n}"]),
            ("[]", vec![]),
            ("[{},5]", vec!["{}", "5"]),
            (r#"{"events":[{}],"n":1}"#, vec!["{}"]),
            (r#"{"events":[{}],"source":"s"}"#, vec!["{}"]),
            (r#"{"events":[]}"#, vec![]),
            (event, vec![event]),
            ("{}{}", vec!["{}", "{}"]),
            ("{}\n\n\r\n{} {}\n", vec!["{}", "{}", "{}"]),
            ("{\n}\n{\n}", vec!["{\n}", "{\n}"]),
            ("{} 5", vec!["{}", "5"]),
        ] {
            assert_eq!(texts(body.as_bytes(), Framing::Unknown), expected, "{body}");
            assert_eq!(texts(body.as_bytes(), Framing::Lines), expected, "{body}");
        }
    }

    #[test]
    fn a_bad_line_costs_that_line() {
        for (body, expected) in [
            (&b"{}\n{oops\n{}"[..], vec!["{}", "bad", "{}"]),
            (b"{}\n{\"a\":\n{}", vec!["{}", "bad", "{}"]),
            (b"{}\n[\n[\n{}", vec!["{}", "bad", "bad", "{}"]),
            (b"{}}[", vec!["{}", "bad"]),
            (b"{}\n\xff\n{}", vec!["{}", "bad", "{}"]),
        ] {
            assert_eq!(
                texts(body, Framing::Unknown),
                expected,
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        for body in [&b"{oops\n{}"[..], b"\xff\n{}", b"oops\n{}"] {
            assert_eq!(texts(body, Framing::Lines), ["bad", "{}"]);
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
            "{oops\n{}",
            "{\"payload\":[\n{}\n]",
            r#"{"events":1}"#,
            "{\"events\":[\n{},\n{",
        ] {
            let error = split(body.as_bytes(), Framing::Unknown, Wrapper::Events, 3).unwrap_err();
            assert!(matches!(error, BodyError::Invalid(_)), "{body}");
        }
        for body in [&b"\xff"[..], b"[\xff]", b"{\"a\":\"\xff\"}\n"] {
            let error = split(body, Framing::Unknown, Wrapper::Events, 3).unwrap_err();
            assert!(matches!(error, BodyError::Invalid(_)));
        }
    }

    #[test]
    fn counts_elements() {
        for body in [
            "[1,2,3,4]",
            "{}{}{}{}",
            r#"{"events":[1,2,3,4]}"#,
            "{}\nx\nx\nx",
            "{}\n1 2 3 x",
            "{}}\n1 2 3",
            "{} 1 2 3\n",
            // What comes after them is not looked at.
            "[1,2,3,4,}",
            "{}{}{}{}{oops",
        ] {
            for framing in [Framing::Unknown, Framing::Lines] {
                let error = split(body.as_bytes(), framing, Wrapper::Events, 3).unwrap_err();
                assert_eq!(error, BodyError::TooManyEvents, "{body}");
            }
        }
        for body in ["[1,2,3]", "{}{}{}", r#"{"events":[1,2,3]}"#, "{}\nx\nx", "{}\n1 x\n\n"] {
            assert_eq!(
                split(body.as_bytes(), Framing::Unknown, Wrapper::Events, 3).unwrap().len(),
                3,
                "{body}"
            );
        }
    }
}
