//! CloudEvents 1.0 over HTTP: in binary mode, structured, and in batches.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>
//!
//! What is stored as payload is the CloudEvent itself in its JSON format, so that no
//! attribute is lost, and it can be given back as it came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::format::{BodyError, Entry, Format, Input};
use super::key::Key;
use super::mapping;
use super::record::{kind, required, string};
use super::reply::{Events, Wanted};
use super::shapes::{self, Element, Framing, Wrapper};
use crate::event::{self, Event, FieldError, Found, NAME_CHARS_MAX, Payload};
use crate::http::accept;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::text::hex;

/// The version of the specification.
const SPEC_VERSION: &str = "1.0";

/// What the headers of attributes begin with.
const PREFIX: &str = "ce-";

/// How CloudEvents are in a request.
enum Mode {
    /// One, its attributes in headers.
    Binary,
    /// One as JSON.
    Structured,
    /// An array of them.
    Batch,
}

impl Mode {
    /// What the headers say; `None` for something else than CloudEvents.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let media_type = accept::media_type(headers);
        Ok(Some(match media_type.as_str() {
            "application/cloudevents+json" => Mode::Structured,
            "application/cloudevents-batch+json" => Mode::Batch,
            other if other.starts_with("application/cloudevents") => {
                return Err(Problem::invalid_body(format!(
                    "CloudEvents are taken as JSON (application/cloudevents+json), not as {other}."
                )));
            }
            _ if ["ce-specversion", "ce-id"].iter().any(|name| headers.contains_key(*name)) => {
                Mode::Binary
            }
            _ => return Ok(None),
        }))
    }
}

/// The CloudEvents of a request; other requests are left to others.
///
/// # Errors
///
/// 413 for too many events, 422 for a parameter that cannot be understood or that a
/// CloudEvent answers itself, and for a body that has none.
pub(super) fn candidate<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Option<Box<dyn Format + 'a>>, Problem> {
    let Some(mode) = Mode::of(input.headers)? else { return Ok(None) };
    let wanted = Wanted::read(query)?;
    let topic = mapping::topic(query, input)?;
    for parameter in [mapping::SOURCE, mapping::EVENT_ID, mapping::TIMESTAMP, mapping::PAYLOAD] {
        if query.get(&parameter)?.is_some() {
            let detail = "does not go with CloudEvents, which have it themselves";
            return Err(Problem::invalid_parameter(parameter.name, detail));
        }
    }
    let topic = topic.as_deref();
    let max = input.batch_events_max;
    let entries = match mode {
        Mode::Binary => vec![binary(input).and_then(|json| read(&json, topic))],
        Mode::Structured | Mode::Batch => {
            let elements = elements(input.body, &mode, max);
            let elements = elements.map_err(|error| error.into_problem(max))?;
            let read = |element: Element<'_>| {
                element.map_err(|error| vec![error]).and_then(|json| read(json, topic))
            };
            elements.into_iter().map(read).collect()
        }
    };
    Ok(Some(Box::new(Events::new(wanted, input.trace_id, entries, Vec::new()))))
}

fn elements<'a>(
    body: &'a [u8],
    mode: &Mode,
    batch_events_max: usize,
) -> Result<Vec<Element<'a>>, BodyError> {
    let first = body.trim_ascii_start().first();
    let (expected, name) = match mode {
        Mode::Batch => (b'[', "A batch of CloudEvents is a JSON array."),
        Mode::Binary | Mode::Structured => (b'{', "A CloudEvent is a JSON object."),
    };
    if first != Some(&expected) {
        return Err(BodyError::invalid(name));
    }
    shapes::split(body, Framing::Unknown, Wrapper::None, batch_events_max)
}

/// The event of a CloudEvent in JSON.
fn read(json: &RawValue, topic: Option<&str>) -> Entry {
    let attributes = Attributes::read(json).map_err(|error| vec![error])?;
    let name = |raw: Option<&RawValue>, attribute: &str| {
        required(raw).map_err(|why| format!("{why} (the attribute {attribute})"))
    };
    let source = name(attributes.source, "source");
    let event_id = name(attributes.id, "id").and_then(|id| match &source {
        Ok(source) => identity(source, &id),
        // It is rejected for that.
        Err(_) => Ok(id),
    });
    let of_type = name(attributes.r#type, "type");
    Event::build(event::Fields {
        topic: of_type.map(|of_type| topic.map_or(of_type, str::to_owned)),
        event_id,
        source,
        timestamp: match attributes.time {
            Some(raw) if raw.get() != "null" => string(raw).map(Some),
            _ => Ok(None),
        },
        payload: match attributes.has_data && attributes.has_data_base64 {
            true => Err("has both data and data_base64".to_owned()),
            false => Payload::read(json.get()),
        },
    })
}

/// One name for a CloudEvent, of which source and id together are the identity: both
/// with a space between, which no source has, being a reference to a URI. If one has
/// all the same, or both are too long, a digest of them, in which there is no space.
fn identity(source: &str, id: &str) -> Found<String> {
    if id.is_empty() {
        return Err("must not be empty (the attribute id)".to_owned());
    }
    let joined = format!("{source} {id}");
    if !source.contains(' ') && joined.chars().count() <= NAME_CHARS_MAX {
        return Ok(joined);
    }
    let mut hash = Sha256::new();
    hash.update((source.len() as u64).to_le_bytes());
    hash.update(source);
    hash.update(id);
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// What Sekali reads of a CloudEvent. Of an attribute given twice the last counts.
#[derive(Default)]
struct Attributes<'a> {
    source: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    r#type: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    spec_version: Option<&'a RawValue>,
    has_data: bool,
    has_data_base64: bool,
}

impl<'a> Attributes<'a> {
    /// Those of a CloudEvent in JSON.
    fn read(json: &'a RawValue) -> Result<Self, FieldError> {
        let wrong = |why: String| FieldError::new("event", format!("is no CloudEvent: {why}"));
        if !json.get().starts_with('{') {
            return Err(wrong(format!("it is {}", kind(json))));
        }
        let attributes: Attributes<'a> =
            serde_json::from_str(json.get()).map_err(|error| wrong(error.to_string()))?;
        let version = required(attributes.spec_version)
            .map_err(|why| wrong(format!("its specversion {why}")))?;
        if version != SPEC_VERSION {
            return Err(wrong(format!("its specversion must be {SPEC_VERSION}, is {version:?}")));
        }
        Ok(attributes)
    }
}

impl<'de> Deserialize<'de> for Attributes<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AttributesVisitor;

        impl<'de> Visitor<'de> for AttributesVisitor {
            type Value = Attributes<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a CloudEvent")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut attributes = Attributes::default();
                while let Some(Key(key)) = map.next_key()? {
                    let attribute = match key.as_ref() {
                        "source" => &mut attributes.source,
                        "id" => &mut attributes.id,
                        "type" => &mut attributes.r#type,
                        "time" => &mut attributes.time,
                        "specversion" => &mut attributes.spec_version,
                        other => {
                            attributes.has_data |= other == "data";
                            attributes.has_data_base64 |= other == "data_base64";
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *attribute = Some(map.next_value()?);
                }
                Ok(attributes)
            }
        }

        deserializer.deserialize_map(AttributesVisitor)
    }
}

/// A CloudEvent whose attributes are in headers, as JSON.
#[derive(Serialize)]
struct Binary<'a> {
    #[serde(flatten)]
    attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(flatten)]
    data: Option<Data<'a>>,
}

/// The data of a CloudEvent in JSON.
#[derive(Serialize)]
enum Data<'a> {
    #[serde(rename = "data")]
    Json(&'a RawValue),
    #[serde(rename = "data")]
    Text(&'a str),
    #[serde(rename = "data_base64")]
    Bytes(String),
}

/// The CloudEvent of a request in binary mode.
fn binary(input: &Input<'_>) -> Result<Box<RawValue>, Vec<FieldError>> {
    let wrong = |field, why: String| Err(vec![FieldError::new(field, why)]);
    let mut attributes = BTreeMap::new();
    for (name, value) in input.headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if ["data", "data_base64", "datacontenttype"].contains(&attribute) {
            return wrong("event", format!("is no CloudEvent: {attribute} is no header {name}"));
        }
        let Some(value) = decoded(value.as_bytes()) else {
            return wrong("event", format!("is no CloudEvent: the header {name} is not UTF-8"));
        };
        if attributes.insert(attribute.to_owned(), value).is_some() {
            return wrong("event", format!("is no CloudEvent: two headers {name}"));
        }
    }
    let content_type = input.headers.get(http::header::CONTENT_TYPE);
    let datacontenttype = content_type.and_then(|value| value.to_str().ok());
    let data = match data(input) {
        Ok(data) => data,
        Err(why) => return wrong("payload", why),
    };
    serde_json::value::to_raw_value(&Binary { attributes, datacontenttype, data })
        .or_else(|error| wrong("event", format!("cannot be written as JSON: {error}")))
}

/// The body, as what its media type says: JSON, text, or bytes.
fn data<'a>(input: &Input<'a>) -> Found<Option<Data<'a>>> {
    if input.body.is_empty() {
        return Ok(None);
    }
    let media_type = accept::media_type(input.headers);
    let json = || serde_json::from_slice(input.body).map(Data::Json);
    let text = || std::str::from_utf8(input.body).map(Data::Text);
    let is_json = media_type.ends_with("/json") || media_type.ends_with("+json");
    let is_text = media_type.starts_with("text/") || media_type.ends_with("xml");
    let found = match (is_json, is_text) {
        (true, _) => Some(json().map_err(|error| format!("is not JSON: {error}"))?),
        (_, true) => text().ok(),
        _ if media_type.is_empty() => json().ok(),
        _ => None,
    };
    Ok(Some(found.unwrap_or_else(|| Data::Bytes(BASE64.encode(input.body)))))
}

/// The value of a header, in which what is not ASCII is percent-encoded, and which may
/// be a quoted string.
fn decoded(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = match quoted {
        Some(quoted) => {
            let mut chars = quoted.chars();
            let unescaped = std::iter::from_fn(|| match chars.next()? {
                '\\' => chars.next(),
                other => Some(other),
            });
            Cow::Owned(unescaped.collect())
        }
        None => Cow::Borrowed(value),
    };
    String::from_utf8(percent_decode_str(&value).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity_of(json: &str) -> Result<(String, String), Vec<FieldError>> {
        let event = read(serde_json::from_str(json).unwrap(), None)?;
        Ok((event.topic().as_str().to_owned(), event.event_id().as_str().to_owned()))
    }

    #[test]
    fn source_and_id_are_the_identity() {
        let id = |source: &str, id: &str| identity(source, id).unwrap();
        assert_eq!(id("/a", "1"), "/a 1");
        let long = "x".repeat(200);
        let mut ids = vec![
            id("/a", "1"),
            id("/a 1", "2"),
            id("/a", "1 2"),
            id(&long, &long),
            id(&long, &format!("{long}x")),
        ];
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5, "{ids:?}");
        assert!(ids.iter().all(|id| id.chars().count() <= NAME_CHARS_MAX));
        assert!(identity("/a", "").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, field) in [
            ("1", "event"),
            ("{}", "event"),
            (r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#, "event"),
            (r#"{"specversion":"1.0","source":"/a","type":"t"}"#, "event_id"),
            (r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#, "event_id"),
            (r#"{"specversion":"1.0","id":"1","type":"t"}"#, "source"),
            (r#"{"specversion":"1.0","id":"1","source":"/a"}"#, "topic"),
            (r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":"x"}"#, "timestamp"),
            (
                r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":1,"data_base64":""}"#,
                "payload",
            ),
        ] {
            let errors = identity_of(json).unwrap_err();
            assert_eq!((errors.len(), errors[0].field), (1, field), "{json}");
        }
        let good = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":null,"x":1}"#;
        assert_eq!(identity_of(good).unwrap(), ("t".to_owned(), "/a 1".to_owned()));
    }

    #[test]
    fn headers_are_decoded() {
        for (value, expected) in [
            ("a", Some("a")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            (r#""a \"b\" \\ %25""#, Some(r#"a "b" \ %"#)),
            ("50%", Some("50%")),
            ("%ff", None),
            ("%0d%0aX: 1", Some("\r\nX: 1")),
        ] {
            assert_eq!(decoded(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }
}
