//! The shapes of a body whose records are not written for Sekali: those of
//! [`super::shapes`], lines of text, and a form.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::format::BodyError;
use super::shapes::{self, Element, Framing, Wrapper};
use crate::event::FieldError;
use crate::http::{accept, query};

/// Most fields of a form. Each costs far more memory than the two bytes that it can be
/// sent in.
const FORM_FIELDS_MAX: usize = 1_000;

/// Which part of a text may be something else: bytes that are not UTF-8, and control
/// characters. With more it is in another encoding, or no text, of which nothing would be
/// left that can be read; and each such byte takes up to six in JSON.
const NO_TEXT_PART_MAX: usize = 4;

/// One record of a body.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A JSON value, or why there is none.
    Json(Element<'a>),
    /// A line of text, `{"message": …}`.
    Line(&'a [u8]),
    /// The fields of a form.
    Form(Box<RawValue>),
}

impl<'a> Record<'a> {
    /// The record as JSON. Bytes of a line that are not UTF-8 become U+FFFD: a line in
    /// another encoding is worth more than none.
    pub(super) fn into_json(self) -> Result<Cow<'a, RawValue>, FieldError> {
        #[derive(Serialize)]
        struct Line<'l> {
            message: &'l str,
        }
        match self {
            Record::Json(element) => element.map(Cow::Borrowed),
            Record::Line(line) => {
                let line = Line { message: &String::from_utf8_lossy(line) };
                let json = to_raw_value(&line).map_err(|error| {
                    FieldError::new("event", format!("cannot be written as JSON: {error}"))
                })?;
                Ok(Cow::Owned(json))
            }
            Record::Form(json) => Ok(Cow::Owned(json)),
        }
    }
}

/// Splits a body into its records, `batch_events_max` at most. Which objects of JSON hold
/// some is said by the `wrapper`.
///
/// JSON is JSON whatever its media type, as shippers send it as text and curl as a
/// form. Text that is not JSON throughout is taken line by line, so that no line is
/// lost: one that is a JSON object is a record as it is.
///
/// # Errors
///
/// When the body is none of the shapes, or has more records than allowed.
pub(super) fn split<'a>(
    body: &'a [u8],
    headers: &HeaderMap,
    wrapper: Wrapper,
    batch_events_max: usize,
) -> Result<Vec<Record<'a>>, BodyError> {
    let media_type = accept::media_type(headers);
    let looks_like_json = matches!(first(body), Some(b'{' | b'['));
    if media_type.starts_with("text/") {
        let wrapper = looks_like_json.then_some(wrapper);
        return text(body, wrapper, batch_events_max);
    }
    if media_type == "application/x-www-form-urlencoded" && !looks_like_json {
        return form(body);
    }
    let elements = shapes::split(body, Framing::of(headers), wrapper, batch_events_max)
        .map_err(|error| with_hint(error, looks_like_json))?;
    Ok(elements.into_iter().map(Record::Json).collect())
}

/// The first byte that is no white space.
fn first(body: &[u8]) -> Option<u8> {
    let body = body.strip_prefix(shapes::BYTE_ORDER_MARK).unwrap_or(body);
    body.trim_ascii_start().first().copied()
}

/// Says how text is sent to who sent something that is not JSON.
fn with_hint(error: BodyError, looks_like_json: bool) -> BodyError {
    match error {
        BodyError::Invalid(detail) if !looks_like_json => {
            BodyError::Invalid(format!("{detail} Lines of text are sent as text/plain."))
        }
        other => other,
    }
}

/// The records of a text, which may be JSON if there is a `wrapper`.
fn text(
    body: &[u8],
    wrapper: Option<Wrapper>,
    batch_events_max: usize,
) -> Result<Vec<Record<'_>>, BodyError> {
    if let Some(wrapper) = wrapper {
        match shapes::split(body, Framing::Unknown, wrapper, batch_events_max) {
            Ok(elements) if elements.iter().all(Result::is_ok) => {
                return Ok(elements.into_iter().map(Record::Json).collect());
            }
            Err(BodyError::TooManyEvents) => return Err(BodyError::TooManyEvents),
            Ok(_) | Err(BodyError::Invalid(_)) => {}
        }
    }
    lines(body, batch_events_max)
}

/// Each line of a text that is not empty.
///
/// # Errors
///
/// When there is none, or there are more than allowed.
pub(super) fn lines(body: &[u8], batch_events_max: usize) -> Result<Vec<Record<'_>>, BodyError> {
    let body = body.strip_prefix(shapes::BYTE_ORDER_MARK).unwrap_or(body);
    if no_text_bytes(body) > body.len() / NO_TEXT_PART_MAX {
        return Err(BodyError::invalid("The body is no text in UTF-8."));
    }
    let mut records = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if records.len() == batch_events_max {
            return Err(BodyError::TooManyEvents);
        }
        records.push(match object(line) {
            Some(object) => Record::Json(Ok(object)),
            None => Record::Line(line),
        });
    }
    match records.is_empty() {
        true => Err(BodyError::invalid("The body is empty; send a line or more.")),
        false => Ok(records),
    }
}

/// How many bytes are no text.
fn no_text_bytes(body: &[u8]) -> usize {
    let is_control = |byte: &u8| byte.is_ascii_control() && !b"\t\n\r\x1b".contains(byte);
    let control = body.iter().filter(|byte| is_control(byte)).count();
    control + body.utf8_chunks().map(|chunk| chunk.invalid().len()).sum::<usize>()
}

/// A line that is a JSON object.
fn object(line: &[u8]) -> Option<&RawValue> {
    let line = std::str::from_utf8(line.trim_ascii()).ok().filter(|line| line.starts_with('{'))?;
    serde_json::from_str(line).ok()
}

/// The fields of a form as one object; one that is there more than once has an array
/// of values.
fn form(body: &[u8]) -> Result<Vec<Record<'_>>, BodyError> {
    /// A field's value, or all of them.
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Value {
        One(String),
        All(Vec<String>),
    }
    let not_text = || BodyError::invalid("The form is not UTF-8.");
    let text = std::str::from_utf8(body.trim_ascii()).map_err(|_| not_text())?;
    let decoded = |part: &str| query::decode(part).map(Cow::into_owned).ok_or_else(not_text);
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for (index, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if index == FORM_FIELDS_MAX {
            let detail = format!("The form has more than {FORM_FIELDS_MAX} fields.");
            return Err(BodyError::invalid(detail));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        let value = match fields.remove(&name) {
            None => Value::One(value),
            Some(Value::One(before)) => Value::All(vec![before, value]),
            Some(Value::All(mut before)) => {
                before.push(value);
                Value::All(before)
            }
        };
        fields.insert(name, value);
    }
    if fields.is_empty() {
        return Err(BodyError::invalid("The form has no field."));
    }
    let json = to_raw_value(&fields)
        .map_err(|error| BodyError::invalid(format!("The form cannot be read: {error}.")))?;
    Ok(vec![Record::Form(json)])
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    fn split_as(media_type: &'static str, body: &[u8]) -> Result<Vec<String>, BodyError> {
        split_in(Wrapper::Alone, media_type, body)
    }

    fn split_in(
        wrapper: Wrapper,
        media_type: &'static str,
        body: &[u8],
    ) -> Result<Vec<String>, BodyError> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        let records = split(body, &headers, wrapper, 4)?;
        let json = |record: Record<'_>| match record.into_json() {
            Ok(json) => json.get().to_owned(),
            Err(_) => "wrong".to_owned(),
        };
        Ok(records.into_iter().map(json).collect())
    }

    fn assert_split(media_type: &'static str, body: &str, expected: &[&str]) {
        assert_eq!(split_as(media_type, body.as_bytes()).unwrap(), expected, "{media_type} {body}");
    }

    #[test]
    fn json_is_json_whatever_its_type() {
        for media_type in
            ["application/json", "text/plain", "application/x-www-form-urlencoded", "a/b", ""]
        {
            for (body, expected) in [
                ("{\"a\":1}", &["{\"a\":1}"][..]),
                (" [1,\"x\"]", &["1", "\"x\""]),
                ("{}{}", &["{}", "{}"]),
                ("{\"a\":1}\n{}\n", &["{\"a\":1}", "{}"]),
                (r#"{"logs":[{},2]}"#, &["{}", "2"]),
                (r#"{"events":[{}]}"#, &["{}"]),
                (
                    r#"{"records":[{"value":{"a":1}},{"key":1,"value":2},{"b":1}]}"#,
                    &[r#"{"a":1}"#, "2", r#"{"b":1}"#],
                ),
                // Nothing is dropped of what is no wrapper.
                (r#"{"events":[{}],"n":1}"#, &[r#"{"events":[{}],"n":1}"#]),
                (r#"{"n":1,"logs":[]}"#, &[r#"{"n":1,"logs":[]}"#]),
                (r#"{"logs":1}"#, &[r#"{"logs":1}"#]),
                (r#"{"alerts":[1,2]}"#, &[r#"{"alerts":[1,2]}"#]),
            ] {
                assert_split(media_type, body, expected);
            }
        }
    }

    #[test]
    fn an_object_that_cannot_be_a_record_holds_them() {
        let with_both = r#"{"topic":"t","event_id":"e","events":[{}]}"#;
        let with_topic = r#"{"topic":"t","events":[{}]}"#;
        for (has_id, body, expected) in [
            (true, r#"{"events":[{}],"n":1}"#, "{}"),
            (false, r#"{"n":1,"event_id":"e","events":[{}]}"#, "{}"),
            (true, with_topic, "{}"),
            (false, with_topic, with_topic),
            (true, with_both, with_both),
            (false, with_both, with_both),
            (true, r#"{"logs":[{}]}"#, "{}"),
            (true, r#"{"records":[{"value":2}]}"#, "2"),
            (true, r#"{"logs":[{}],"n":1}"#, r#"{"logs":[{}],"n":1}"#),
        ] {
            for media_type in ["application/json", "text/plain"] {
                let wrapper = Wrapper::EventsOrAlone { has_id };
                let records = split_in(wrapper, media_type, body.as_bytes());
                assert_eq!(records.unwrap(), [expected], "{media_type} {has_id} {body}");
            }
        }
    }

    #[test]
    fn text_is_taken_line_by_line() {
        for (body, expected) in [
            ("a\n\n \nb\r\n", &[r#"{"message":"a"}"#, r#"{"message":"b"}"#][..]),
            ("[2025] a\n{b", &[r#"{"message":"[2025] a"}"#, r#"{"message":"{b"}"#]),
            (
                "{\"a\":1}\nb\n{} {}",
                &[r#"{"a":1}"#, r#"{"message":"b"}"#, r#"{"message":"{} {}"}"#],
            ),
            ("\u{feff}  a \"b\"\u{0}c", &[r#"{"message":"  a \"b\"\u0000c"}"#]),
        ] {
            assert_split("text/plain; charset=utf-8", body, expected);
        }
        let lossy = split_as("text/plain", b"caf\xe9 ouvert").unwrap();
        assert_eq!(lossy, ["{\"message\":\"caf\u{fffd} ouvert\"}"]);
        for no_text in [&b"\xff\xfea\0b\0\n\0"[..], b"\xcf\xf0\xe8\xe2\xe5\xf2"] {
            assert!(split_as("text/plain", no_text).is_err());
        }
        assert_eq!(split_as("text/plain", b"1\n2\n3\n4\n5"), Err(BodyError::TooManyEvents));
        assert!(split_as("text/plain", b" \n").is_err());
        let error = split_as("application/json", b"a").unwrap_err();
        assert!(matches!(error, BodyError::Invalid(detail) if detail.contains("text/plain")));
    }

    #[test]
    fn a_form_is_an_object() {
        for (body, expected) in [
            ("a=1&b=%C3%A9+x&c", r#"{"a":"1","b":"é x","c":""}"#),
            ("a=1&&a=2&a=%7B", r#"{"a":["1","2","{"]}"#),
        ] {
            assert_split("Application/X-WWW-form-urlencoded", body, &[expected]);
        }
        let many = "a&".repeat(FORM_FIELDS_MAX + 1);
        for wrong in [&b""[..], b"&", b"a=%ff", b"\xff", many.as_bytes()] {
            assert!(split_as("application/x-www-form-urlencoded", wrong).is_err());
        }
    }
}
