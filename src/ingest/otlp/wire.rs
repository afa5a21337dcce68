//! OTLP in protocol buffers. The numbers of fields are those of
//! `opentelemetry/proto/{common,resource,logs}/v1`.

use super::form::{Times, VALUE_DEPTH_MAX, too_deep};
use super::split::{Head, Split};
use crate::ingest::format::BodyError;
use crate::ingest::json_text::JsonText;
use crate::ingest::protobuf::{WireError, fields};

/// What is wrong with a record, a resource or a scope.
type Wrong = String;

/// The records of an `ExportLogsServiceRequest`.
///
/// # Errors
///
/// When it is no such message, or has more records than it may.
pub(super) fn split(body: &[u8], records_max: usize) -> Result<Split<'_>, BodyError> {
    let mut split = Split::new(records_max);
    for field in fields(body) {
        let field = field.map_err(refused)?;
        if field.number == 1 {
            resource_logs(field.bytes("resource_logs").map_err(refused)?, &mut split)?;
        }
    }
    Ok(split)
}

fn refused(error: WireError) -> BodyError {
    BodyError::invalid(format!("The body is not an ExportLogsServiceRequest: {error}."))
}

fn resource_logs<'a>(message: &'a [u8], split: &mut Split<'a>) -> Result<(), BodyError> {
    let head = head(message, "resource").map_err(refused)?;
    split.open_resource(head);
    for field in fields(message) {
        let field = field.map_err(refused)?;
        if field.number == 2 {
            scope_logs(field.bytes("scope_logs").map_err(refused)?, split)?;
        }
    }
    split.close_resource(head);
    Ok(())
}

fn scope_logs<'a>(message: &'a [u8], split: &mut Split<'a>) -> Result<(), BodyError> {
    let head = head(message, "scope").map_err(refused)?;
    split.open_scope(head);
    for field in fields(message) {
        let field = field.map_err(refused)?;
        if field.number == 2 {
            split.push(field.bytes("log_records").map_err(refused)?)?;
        }
    }
    split.close_scope(head);
    Ok(())
}

/// What `ResourceLogs` and `ScopeLogs` have beside their records.
fn head<'a>(message: &'a [u8], name: &'static str) -> Result<Head<'a>, WireError> {
    let mut head = Head::default();
    for field in fields(message) {
        let field = field?;
        match field.number {
            1 => head.message = Some(field.bytes(name)?),
            3 => head.schema_url = Some(field.bytes("schema_url")?),
            _ => {}
        }
    }
    Ok(head)
}

/// The schema of a resource or a scope.
///
/// # Errors
///
/// When it is not UTF-8.
pub(super) fn schema_url(piece: &[u8], text: &mut JsonText, key: &str) -> Result<(), Wrong> {
    let url = std::str::from_utf8(piece).map_err(|_| format!("{key} is not UTF-8"))?;
    if !url.is_empty() {
        text.key(key);
        text.string(url);
    }
    Ok(())
}

/// The members of a `LogRecord`, but for its times.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn record(message: &[u8], text: &mut JsonText) -> Result<Times, Wrong> {
    read_record(message, text).map_err(|error| error.to_string())
}

fn read_record(message: &[u8], text: &mut JsonText) -> Result<Times, Error> {
    let mut times = Times::default();
    for field in fields(message) {
        let field = field?;
        match field.number {
            1 => times.event = field.fixed64("time_unix_nano")?,
            11 => times.observed = field.fixed64("observed_time_unix_nano")?,
            2 => number(text, "severity_number", field.varint("severity_number")? as i32),
            3 => string(text, "severity_text", field.text("severity_text")?),
            5 => {
                text.key("body");
                value(field.bytes("body")?, text, 1)?;
            }
            7 => {
                let name = "dropped_attributes_count";
                number(text, name, field.varint(name)? as u32);
            }
            8 => number(text, "flags", field.fixed32("flags")?),
            9 => identifier(text, "trace_id", field.bytes("trace_id")?),
            10 => identifier(text, "span_id", field.bytes("span_id")?),
            12 => string(text, "event_name", field.text("event_name")?),
            _ => {}
        }
    }
    attributes(message, 6, text, "attributes")?;
    Ok(times)
}

/// The members of an event that tell its resource.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn resource(message: &[u8], text: &mut JsonText) -> Result<(), Wrong> {
    read_resource(message, text).map_err(|error| error.to_string())
}

fn read_resource(message: &[u8], text: &mut JsonText) -> Result<(), Error> {
    attributes(message, 1, text, "resource")?;
    for field in fields(message) {
        let field = field?;
        if field.number == 2 {
            let dropped = field.varint("dropped_attributes_count")? as u32;
            number(text, "resource_dropped_attributes_count", dropped);
        }
    }
    Ok(())
}

/// The members of an `InstrumentationScope`.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn scope(message: &[u8], text: &mut JsonText) -> Result<(), Wrong> {
    read_scope(message, text).map_err(|error| error.to_string())
}

fn read_scope(message: &[u8], text: &mut JsonText) -> Result<(), Error> {
    for field in fields(message) {
        let field = field?;
        match field.number {
            1 => string(text, "name", field.text("name")?),
            2 => string(text, "version", field.text("version")?),
            4 => {
                let name = "dropped_attributes_count";
                number(text, name, field.varint(name)? as u32);
            }
            _ => {}
        }
    }
    attributes(message, 3, text, "attributes")
}

/// Why a message is not what it should be.
#[derive(Debug)]
enum Error {
    Wire(WireError),
    TooDeep,
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Error::Wire(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Wire(error) => error.fmt(f),
            Error::TooDeep => f.write_str(&too_deep()),
        }
    }
}

/// A number; 0 is the same as none.
fn number<N: Default + PartialEq + std::fmt::Display>(text: &mut JsonText, key: &str, number: N) {
    if number != N::default() {
        text.key(key);
        text.word(number);
    }
}

/// A string; an empty one is the same as none.
fn string(text: &mut JsonText, key: &str, value: &str) {
    if !value.is_empty() {
        text.key(key);
        text.string(value);
    }
}

/// The id of a trace or a span.
fn identifier(text: &mut JsonText, key: &str, id: &[u8]) {
    if !id.is_empty() {
        text.key(key);
        text.hex(id);
    }
}

/// The `KeyValue`s that the fields `number` of a message are, as an object; without
/// any there is none.
fn attributes(message: &[u8], number: u32, text: &mut JsonText, key: &str) -> Result<(), Error> {
    let from = text.len();
    text.key(key);
    let at = text.len();
    text.bracket(b'{');
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            key_value(field.bytes("attributes")?, text, 1)?;
        }
    }
    text.close_unless_empty(from, at, b'}');
    Ok(())
}

fn key_value(message: &[u8], text: &mut JsonText, depth: usize) -> Result<(), Error> {
    let (mut key, mut held) = ("", None);
    for field in fields(message) {
        let field = field?;
        match field.number {
            1 => key = field.text("the key of an attribute")?,
            2 => held = Some(field.bytes("value")?),
            _ => {}
        }
    }
    text.key(key);
    value(held.unwrap_or_default(), text, depth)
}

/// An `AnyValue`, which is `depth` deep; of several kinds in it the last counts.
fn value(message: &[u8], text: &mut JsonText, depth: usize) -> Result<(), Error> {
    if depth > VALUE_DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    let mut held = None;
    for field in fields(message) {
        let field = field?;
        if (1..=7).contains(&field.number) {
            held = Some(field);
        }
    }
    let Some(held) = held else {
        text.word("null");
        return Ok(());
    };
    match held.number {
        1 => text.string(held.text("string_value")?),
        2 => text.word(held.varint("bool_value")? != 0),
        3 => text.word(held.varint("int_value")? as i64),
        4 => text.double(f64::from_bits(held.fixed64("double_value")?)),
        5 => {
            text.bracket(b'[');
            for field in fields(held.bytes("array_value")?) {
                let field = field?;
                if field.number == 1 {
                    text.separate();
                    value(field.bytes("values")?, text, depth + 1)?;
                }
            }
            text.bracket(b']');
        }
        6 => {
            text.bracket(b'{');
            for field in fields(held.bytes("kvlist_value")?) {
                let field = field?;
                if field.number == 1 {
                    key_value(field.bytes("values")?, text, depth + 1)?;
                }
            }
            text.bracket(b'}');
        }
        _ => text.base64(held.bytes("bytes_value")?),
    }
    Ok(())
}
