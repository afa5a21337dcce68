//! Where the fields of an event come from, when its record is not written for
//! Sekali: the parameters of a publish, and how they are followed.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use super::content::{ContentIds, numbered};
use super::format::{Entry, Input};
use super::pointer::Pointer;
use super::record::{Fields, others, required, string, string_or_number};
use super::shapes::{Element, Wrapper};
use super::warnings::Warnings;
use crate::event::{self, Event, FieldError, Found, NAME_CHARS_MAX, Payload, Source, Topic};
use crate::http::problem::Problem;
use crate::http::query::{Parameter, Query, Takes};
use crate::time;

pub(super) const TOPIC: Parameter = Parameter::new("topic", Takes::Topic);
pub(super) const SOURCE: Parameter = Parameter::new("source", Takes::Source);
pub(super) const EVENT_ID: Parameter = Parameter::new(
    "event_id",
    Takes::Pattern(r"^(content|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+|(/([^/~]|~[01])*)*)$"),
);
pub(super) const TIMESTAMP: Parameter =
    Parameter::new("timestamp", Takes::Pattern(r"^(/([^/~]|~[01])*)*$"));
pub(super) const PAYLOAD: Parameter =
    Parameter::new("payload", Takes::Pattern(r"^(\*|(/([^/~]|~[01])*)*)$"));

/// The name of a request, by the IETF's draft of that header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The source of records whose client says nothing of itself.
const NAMELESS_CLIENT: &str = "http";

/// Where a topic or a source comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// The record's field of that name.
    Field,
    /// It is this one.
    Given(String),
}

/// Where an id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Field,
    Pointer(Pointer),
    /// The name of the whole request, and the place of the record in it.
    Request(String),
    /// The content of the record. `by_default`: nobody asked for it.
    Content {
        by_default: bool,
    },
}

/// Where a time comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Time {
    Field,
    Pointer(Pointer),
    /// It is the time of receipt.
    None,
}

/// What the payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Field,
    Pointer(Pointer),
    /// All fields that are not used for anything else.
    Others,
    /// The record as it is.
    Whole,
}

/// Where the fields of the events of one request come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    topic: Name,
    source: Name,
    event_id: Id,
    timestamp: Time,
    payload: Content,
}

impl Mapping {
    /// Each from the field of its name.
    pub(super) const NATIVE: Mapping = Mapping {
        topic: Name::Field,
        source: Name::Field,
        event_id: Id::Field,
        timestamp: Time::Field,
        payload: Content::Field,
    };

    /// What the request says of it. With a topic that is given, a record is taken as it
    /// is, and what is not said has a default; without one it has its own fields.
    ///
    /// # Errors
    ///
    /// 422 for a parameter that cannot be understood.
    pub(super) fn read(query: &Query<'_>, input: &Input<'_>) -> Result<Self, Problem> {
        let topic = topic(query, input)?;
        let is_raw = topic.is_some();
        let source = match source_given(query, &SOURCE)?.map(Name::Given) {
            None if is_raw => {
                let client = client(input.headers);
                Name::Given(client.unwrap_or_else(|| NAMELESS_CLIENT.to_owned()))
            }
            given => given.unwrap_or(Name::Field),
        };
        let event_id = match query.get(&EVENT_ID)? {
            None if !is_raw => Id::Field,
            _ => id_of_records(query, input.headers)?,
        };
        let timestamp = query.read(&TIMESTAMP, |value| Pointer::parse(value).map(Time::Pointer))?;
        let payload = query.read(&PAYLOAD, |value| match value {
            "*" => Ok(Content::Others),
            _ => Pointer::parse(value).map(Content::Pointer).map_err(|why| format!("{why}, or *")),
        })?;
        Ok(Mapping {
            topic: topic.map_or(Name::Field, Name::Given),
            source,
            event_id,
            timestamp: timestamp.unwrap_or(if is_raw { Time::None } else { Time::Field }),
            payload: payload.unwrap_or(if is_raw { Content::Whole } else { Content::Field }),
        })
    }

    /// Which objects hold records and are none. With a topic that is given any object may
    /// be a record.
    pub(super) fn wrapper(&self) -> Wrapper {
        match self.topic {
            Name::Field if *self == Mapping::NATIVE => Wrapper::Events,
            Name::Field => Wrapper::EventsOrAlone { has_id: self.event_id == Id::Field },
            Name::Given(_) => Wrapper::Alone,
        }
    }

    /// Whether a field of the record's own is looked for by its name.
    fn needs_fields(&self) -> bool {
        self.topic == Name::Field
            || self.source == Name::Field
            || self.event_id == Id::Field
            || self.timestamp == Time::Field
            || self.payload == Content::Field
    }

    /// The names of the members that are used for something else than the payload.
    fn used(&self) -> Vec<&str> {
        let named = [
            (self.topic == Name::Field).then_some("topic"),
            (self.source == Name::Field).then_some("source"),
            match &self.event_id {
                Id::Field => Some("event_id"),
                Id::Pointer(pointer) => pointer.first(),
                Id::Request(_) | Id::Content { .. } => None,
            },
            match &self.timestamp {
                Time::Field => Some("timestamp"),
                Time::Pointer(pointer) => pointer.first(),
                Time::None => None,
            },
        ];
        named.into_iter().flatten().collect()
    }
}

/// The topic that a parameter gives.
///
/// # Errors
///
/// 422 when it is none.
pub(super) fn topic_given(
    query: &Query<'_>,
    parameter: &Parameter,
) -> Result<Option<String>, Problem> {
    query.read(parameter, |topic| Topic::parse(topic).map(Topic::into_string))
}

/// The source that a parameter gives.
///
/// # Errors
///
/// 422 when it is none.
pub(super) fn source_given(
    query: &Query<'_>,
    parameter: &Parameter,
) -> Result<Option<String>, Problem> {
    query.read(parameter, |source| Source::parse(source).map(Source::into_string))
}

/// The topic that the path or a parameter gives.
///
/// # Errors
///
/// 422 when it is none, or both do.
pub(super) fn topic(query: &Query<'_>, input: &Input<'_>) -> Result<Option<String>, Problem> {
    let given = topic_given(query, &TOPIC)?;
    match topic_in_path(input.name)? {
        Some(_) if given.is_some() => {
            Err(Problem::invalid_parameter(TOPIC.name, "is given in the path as well"))
        }
        Some(topic) => Ok(Some(topic)),
        None => Ok(given),
    }
}

/// The topic that a path names, as it stands there, if it names one.
///
/// # Errors
///
/// 422 for what is none.
pub(crate) fn topic_in_path(name: &str) -> Result<Option<String>, Problem> {
    if name.is_empty() {
        return Ok(None);
    }
    let bytes: Vec<u8> = percent_decode_str(name).collect();
    let topic = String::from_utf8(bytes).map_err(|_| "must be UTF-8".to_owned());
    let topic = topic
        .and_then(Topic::parse)
        .map_err(|why| Problem::invalid_parameter(TOPIC.name, format!("in the path {why}")))?;
    Ok(Some(topic.into_string()))
}

/// The product that a client names in `user-agent`, without its version, which may
/// change between two attempts, if it names one.
pub(super) fn client(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let product = agent.unwrap_or_default().split(['/', ' ']).next().unwrap_or_default();
    (!product.is_empty()).then(|| product.chars().take(NAME_CHARS_MAX).collect())
}

/// Where the ids of records come from that may have none of their own.
///
/// # Errors
///
/// 422 for a parameter or a header that cannot be understood.
pub(super) fn id_of_records(query: &Query<'_>, headers: &HeaderMap) -> Result<Id, Problem> {
    match query.get(&EVENT_ID)? {
        Some(value) => id(value, headers),
        None => Ok(match named_by(&IDEMPOTENCY_KEY, headers)? {
            Some(key) => Id::Request(key),
            None => Id::Content { by_default: true },
        }),
    }
}

fn id(value: &str, headers: &HeaderMap) -> Result<Id, Problem> {
    let wrong = |detail: &str| Err(Problem::invalid_parameter(EVENT_ID.name, detail));
    if let Some(name) = value.strip_prefix("header:") {
        let Ok(name) = HeaderName::try_from(name) else {
            return wrong("must name a header, such as header:webhook-id");
        };
        return match named_by(&name, headers)? {
            Some(key) => Ok(Id::Request(key)),
            None => wrong(&format!("needs the header {name}, which the request does not have")),
        };
    }
    match value {
        "content" => Ok(Id::Content { by_default: false }),
        "none" => wrong(
            "must not be none: without an identity an event that is sent again cannot be known",
        ),
        _ => match Pointer::parse(value) {
            Ok(pointer) => Ok(Id::Pointer(pointer)),
            Err(_) => wrong(&format!(
                "must be content, header:NAME or a JSON pointer such as /event/id, is {value:?}"
            )),
        },
    }
}

/// What a header calls the request. A string of RFC 9651, as that of an idempotency key
/// is, is what stands between its quotes.
fn named_by(name: &HeaderName, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong = |detail: &str| {
        Err(Problem::invalid_parameter(EVENT_ID.name, format!("by the header {name} {detail}")))
    };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return wrong("is given more than once");
    }
    let Ok(value) = std::str::from_utf8(value.as_bytes()) else { return wrong("must be UTF-8") };
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    match unquoted.unwrap_or(value) {
        "" => wrong("must not be empty"),
        key => Ok(Some(key.to_owned())),
    }
}

/// Makes events of the records of one request.
pub(super) struct Mapper {
    mapping: Mapping,
    ids: ContentIds,
    warnings: Warnings,
    /// The place of the next record in the request.
    index: usize,
}

impl Mapper {
    /// For a request with this mapping.
    pub(super) fn new(mapping: Mapping) -> Self {
        Mapper { mapping, ids: ContentIds::default(), warnings: Warnings::default(), index: 0 }
    }

    /// The event of the next record.
    pub(super) fn next(&mut self, record: Element<'_>) -> Entry {
        let index = self.index;
        self.index += 1;
        let record = record.map_err(|error| vec![error])?;
        let fields = match self.mapping.needs_fields() {
            true => Fields::read(record).map_err(|error| vec![error])?,
            false => Fields::default(),
        };
        let topic = match &self.mapping.topic {
            Name::Field => required(fields.topic),
            Name::Given(topic) => Ok(topic.clone()),
        };
        let source = match &self.mapping.source {
            Name::Field => required(fields.source),
            Name::Given(source) => Ok(source.clone()),
        };
        let timestamp = match &self.mapping.timestamp {
            Time::Field => match fields.timestamp {
                Some(raw) if raw.get() != "null" => string(raw).map(Some),
                _ => Ok(None),
            },
            Time::Pointer(pointer) => pointed(pointer, record).and_then(moment).map(Some),
            Time::None => Ok(None),
        };
        let payload = match &self.mapping.payload {
            Content::Field => Payload::read(fields.payload.map_or("{}", RawValue::get)),
            Content::Pointer(pointer) => {
                pointed(pointer, record).and_then(|raw| Payload::read(raw.get()))
            }
            Content::Others => {
                let others = others(record, &self.mapping.used()).map_err(|error| vec![error])?;
                Payload::read(&others)
            }
            Content::Whole => Payload::read(record.get()),
        };
        let event_id = match &self.mapping.event_id {
            Id::Field => required(fields.event_id),
            Id::Pointer(pointer) => pointed(pointer, record).and_then(string_or_number),
            Id::Request(key) => Ok(numbered(key, index)),
            Id::Content { by_default } => {
                if *by_default && index == 0 {
                    self.warnings.look_for_event_id(record);
                }
                let whole = match (&self.mapping.payload, &payload) {
                    (Content::Whole, Ok(payload)) => Cow::Borrowed(payload.encoding()),
                    _ => match Payload::read(record.get()) {
                        Ok(record) => Cow::Owned(record.encoding().to_vec()),
                        Err(detail) => return Err(vec![FieldError::new("event", detail)]),
                    },
                };
                // An event without them is rejected, whatever its id.
                let name = |name: &Found<String>| name.as_deref().unwrap_or_default().to_owned();
                Ok(self.ids.next(&name(&topic), &name(&source), None, &whole))
            }
        };
        let event = Event::build(event::Fields { topic, event_id, source, timestamp, payload })?;
        if self.mapping.payload == Content::Field
            && let Some(other) = fields.other
        {
            self.warnings.left_out(&other);
        }
        Ok(event)
    }

    /// What the client is told of the events that were stored.
    pub(super) fn warnings(self) -> Vec<String> {
        self.warnings.sentences()
    }
}

/// What a pointer leads to in a record.
pub(super) fn pointed<'a>(pointer: &Pointer, record: &'a RawValue) -> Found<&'a RawValue> {
    pointer.find(record).ok_or_else(|| format!("is required: the record has nothing at {pointer}"))
}

/// ISO 8601 as it is, and of a number since 1970.
pub(super) fn moment(raw: &RawValue) -> Found<String> {
    let text = string_or_number(raw)?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    match is_number && text.len() > 8 || !raw.get().starts_with('"') {
        true => time::from_epoch(&text).map_err(|why| format!("must be a date and time: {why}")),
        false => Ok(text),
    }
}
