//! OTLP in JSON: what protocol buffers are in JSON, with ids in hexadecimal. Names
//! are taken with underscores as well, and numbers as strings, since clients send
//! both.

use serde::de::{Error, MapAccess};

use super::form::Times;
use super::json_value::{Value, attributes, identifier, integer, number, severity, string};
use super::split::{Head, Split};
use crate::ingest::format::BodyError;
use crate::ingest::json_message::{Each, Message, Pieces, piece, read, skip, text as text_of};
use crate::ingest::json_text::JsonText;
use crate::ingest::key::Key;

/// What is wrong with a record, a resource or a scope.
type Wrong = String;

/// The records of an `ExportLogsServiceRequest`.
///
/// # Errors
///
/// When it is no such message, or has more records than it may.
pub(super) fn split(body: &[u8], records_max: usize) -> Result<Split<'_>, BodyError> {
    let mut request = Request { split: Split::new(records_max) };
    let read = read(body, &mut request);
    if request.split.are_too_many {
        return Err(BodyError::TooManyEvents);
    }
    let refused =
        |why| BodyError::invalid(format!("The body is not an ExportLogsServiceRequest: {why}."));
    read.map(|()| request.split).map_err(refused)
}

/// The schema of a resource or a scope.
///
/// # Errors
///
/// When it is no string.
pub(super) fn schema_url(piece: &[u8], text: &mut JsonText, key: &str) -> Result<(), Wrong> {
    let url: Option<Key<'_>> =
        serde_json::from_str(text_of(piece)?).map_err(|error| format!("{key}: {error}"))?;
    if let Some(Key(url)) = url.filter(|Key(url)| !url.is_empty()) {
        text.key(key);
        text.string(&url);
    }
    Ok(())
}

/// The members of a `LogRecord`, but for its times.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn record(piece: &[u8], text: &mut JsonText) -> Result<Times, Wrong> {
    let mut record = Record { text, times: Times::default() };
    read(piece, &mut record)?;
    Ok(record.times)
}

/// The members of an event that tell its resource.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn resource(piece: &[u8], text: &mut JsonText) -> Result<(), Wrong> {
    read(piece, &mut Resource { text })
}

/// The members of an `InstrumentationScope`.
///
/// # Errors
///
/// A phrase, when it is no such message.
pub(super) fn scope(piece: &[u8], text: &mut JsonText) -> Result<(), Wrong> {
    read(piece, &mut Scope { text })
}

struct Request<'a> {
    split: Split<'a>,
}

impl<'de> Message<'de> for Request<'de> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "resourceLogs" | "resource_logs" => {
                let mut each = ResourceLogs { split: &mut self.split, head: Head::default() };
                map.next_value_seed(Each(&mut each))
            }
            _ => skip(map),
        }
    }
}

struct ResourceLogs<'s, 'a> {
    split: &'s mut Split<'a>,
    head: Head<'a>,
}

impl<'de> Message<'de> for ResourceLogs<'_, 'de> {
    fn begin(&mut self) -> Result<(), Wrong> {
        self.head = Head::default();
        self.split.open_resource(self.head);
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "resource" => self.head.message = piece(map)?,
            "schemaUrl" | "schema_url" => self.head.schema_url = piece(map)?,
            "scopeLogs" | "scope_logs" => {
                let mut each = ScopeLogs { split: self.split, head: Head::default() };
                map.next_value_seed(Each(&mut each))?;
            }
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(&mut self) {
        self.split.close_resource(self.head);
    }
}

struct ScopeLogs<'s, 'a> {
    split: &'s mut Split<'a>,
    head: Head<'a>,
}

impl<'de> Message<'de> for ScopeLogs<'_, 'de> {
    fn begin(&mut self) -> Result<(), Wrong> {
        self.head = Head::default();
        self.split.open_scope(self.head);
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "scope" => self.head.message = piece(map)?,
            "schemaUrl" | "schema_url" => self.head.schema_url = piece(map)?,
            "logRecords" | "log_records" => {
                map.next_value_seed(Pieces("log records", |record| self.split.push(record)))?
            }
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(&mut self) {
        self.split.close_scope(self.head);
    }
}

struct Record<'t> {
    text: &'t mut JsonText,
    times: Times,
}

impl<'de> Message<'de> for Record<'_> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let text = &mut *self.text;
        match name {
            "timeUnixNano" | "time_unix_nano" => {
                self.times.event = integer(map, "time_unix_nano")?;
            }
            "observedTimeUnixNano" | "observed_time_unix_nano" => {
                self.times.observed = integer(map, "observed_time_unix_nano")?;
            }
            "severityNumber" | "severity_number" => {
                number(text, "severity_number", severity(map)?);
            }
            "severityText" | "severity_text" => string(text, "severity_text", map)?,
            "eventName" | "event_name" => string(text, "event_name", map)?,
            "traceId" | "trace_id" => identifier(text, "trace_id", map)?,
            "spanId" | "span_id" => identifier(text, "span_id", map)?,
            "flags" => number(text, "flags", integer::<u32, A>(map, "flags")?),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                let name = "dropped_attributes_count";
                number(text, name, integer::<u32, A>(map, name)?);
            }
            "attributes" => attributes(text, "attributes", map)?,
            "body" => {
                if let Some(body) = piece(map)? {
                    text.key("body");
                    read(body, &mut Value::new(text, 1)).map_err(A::Error::custom)?;
                }
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct Resource<'t> {
    text: &'t mut JsonText,
}

impl<'de> Message<'de> for Resource<'_> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "attributes" => attributes(self.text, "resource", map),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                let dropped: u32 = integer(map, "dropped_attributes_count")?;
                number(self.text, "resource_dropped_attributes_count", dropped);
                Ok(())
            }
            _ => skip(map),
        }
    }
}

struct Scope<'t> {
    text: &'t mut JsonText,
}

impl<'de> Message<'de> for Scope<'_> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "name" => string(self.text, "name", map),
            "version" => string(self.text, "version", map),
            "attributes" => attributes(self.text, "attributes", map),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                let name = "dropped_attributes_count";
                number(self.text, name, integer::<u32, A>(map, name)?);
                Ok(())
            }
            _ => skip(map),
        }
    }
}
