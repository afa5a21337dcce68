//! Sekali's own format: JSON events in any of the shapes of [`super::shapes`].

use std::fmt;

use http::{HeaderMap, StatusCode, header};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::format::{BodyError, Entry, Format, Input};
use super::shapes::{self, Framing, Key};
use crate::event::{self, Event, FieldError};
use crate::http::accept;
use crate::http::problem::{InvalidEvent, Listed, Problem};
use crate::http::query::{Parameter, Query, Takes};
use crate::http::reply::Reply;
use crate::http::room::Room;
use crate::store::{Outcome, Seq};
use crate::text;

const RESULTS: Parameter = Parameter::new("results", Takes::OneOf(&["all", "none"]));
const ATOMIC: Parameter = Parameter::new("atomic", Takes::Switch);
const STRICT: Parameter = Parameter::new("strict", Takes::Switch);

/// The parameters of a publish.
pub(crate) const PARAMETERS: [Parameter; 3] = [RESULTS, ATOMIC, STRICT];

/// The format of a request: it takes all.
///
/// # Errors
///
/// 422 for a parameter that cannot be understood.
pub(super) fn candidate(
    query: &Query<'_>,
    _: &HeaderMap,
) -> Result<Option<Box<dyn Format>>, Problem> {
    let named = query.read(&RESULTS, |value| match value {
        "all" => Ok(Named::All),
        "none" => Ok(Named::None),
        _ => Err("must be all or none".to_owned()),
    })?;
    let named = named.unwrap_or(Named::Notable);
    let (strict, atomic) = (query.switch(&STRICT)?, query.switch(&ATOMIC)?);
    Ok(Some(Box::new(Native { named, strict, atomic })))
}

/// Which events the reply names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// Those that were not accepted, as many as a short reply holds.
    Notable,
    All,
    None,
}

struct Native {
    named: Named,
    /// A conflict makes the status 409.
    strict: bool,
    atomic: bool,
}

impl Format for Native {
    fn read(&self, input: &Input<'_>) -> Result<Vec<Entry>, BodyError> {
        let framing = framing(input.headers);
        let elements = shapes::split(input.body, framing, input.batch_events_max)?;
        let read = |element: shapes::Element<'_>| {
            element.map_err(|error| vec![error]).and_then(read_event)
        };
        Ok(elements.into_iter().map(read).collect())
    }

    fn is_atomic(&self) -> bool {
        self.atomic
    }

    fn reply(&self, entries: &[Entry], outcomes: Option<&[Outcome]>) -> Result<Reply, Problem> {
        let Some(outcomes) = outcomes else { return Err(self.refusal(entries)) };
        let body = self.settle(entries, outcomes)?;
        let status = match body.conflicts {
            1.. if self.strict => StatusCode::CONFLICT,
            _ => StatusCode::OK,
        };
        Ok(Reply::json(status, &body))
    }
}

/// The events of `lines`, each of which is one; empty ones are none.
pub(crate) fn read_lines(lines: &[u8]) -> Vec<Entry> {
    shapes::each_line(lines)
        .map(|element| element.map_err(|error| vec![error]).and_then(read_event))
        .collect()
}

/// What came of each entry, a line each; the first is that of the event at `index`.
///
/// # Errors
///
/// When the outcomes are not those of the entries.
pub(crate) fn tell_lines(
    entries: &[Entry],
    outcomes: &[Outcome],
    index: usize,
) -> Result<Vec<u8>, Problem> {
    /// About so long is a line, in bytes.
    const LINE_BYTES: usize = 128;
    let (_, told) = count(entries, outcomes)?;
    let mut lines = Vec::with_capacity(entries.len() * LINE_BYTES);
    for (place, (entry, told)) in entries.iter().zip(told).enumerate() {
        let result = EventResult::new(index + place, entry, told);
        text::push_json(&mut lines, &result)
            .map_err(|error| Problem::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn framing(headers: &HeaderMap) -> Framing {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media_type.is_some_and(accept::is_ndjson) { Framing::Lines } else { Framing::Unknown }
}

/// What came of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Status {
    Accepted,
    Duplicate,
    Conflict,
    Rejected,
}

/// One event of the reply's `results`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventResult<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl<'a> EventResult<'a> {
    /// What came of the entry at `index`.
    fn new(index: usize, entry: &'a Entry, (status, seq): (Status, Option<Seq>)) -> Self {
        let event = entry.as_ref().ok();
        let wrong = entry.as_ref().err().and_then(|errors| errors.first());
        EventResult {
            index,
            topic: event.map(|event| event.topic().as_str()),
            event_id: event.map(|event| event.event_id().as_str()),
            status,
            seq,
            field: wrong.map(|error| error.field),
            detail: wrong.map(ToString::to_string),
        }
    }
}

/// The reply to a publish.
#[derive(Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Published<'a> {
    received: usize,
    accepted: usize,
    duplicates: usize,
    conflicts: usize,
    rejected: usize,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<EventResult<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results_omitted: Option<usize>,
}

/// What came of each event, in the order of the body.
type Told = Vec<(Status, Option<Seq>)>;

/// What matters most to a client, first.
const BY_WEIGHT: [Status; 3] = [Status::Rejected, Status::Conflict, Status::Duplicate];

impl Native {
    /// Puts each event and its outcome together.
    fn settle<'a>(
        &self,
        entries: &'a [Entry],
        outcomes: &[Outcome],
    ) -> Result<Published<'a>, Problem> {
        let (mut reply, told) = count(entries, outcomes)?;
        let result = |(index, (entry, told))| EventResult::new(index, entry, told);
        match self.named {
            Named::None => {}
            Named::All => {
                let all = entries.iter().zip(told).enumerate();
                reply.results = Some(all.map(result).collect());
            }
            Named::Notable => {
                let (named, omitted) = notable(entries, &told, &reply);
                reply.results = Some(named);
                reply.results_omitted = (omitted > 0).then_some(omitted);
            }
        }
        Ok(reply)
    }

    fn refusal(&self, entries: &[Entry]) -> Problem {
        let wrong = || {
            let entries = entries.iter().enumerate();
            entries.filter_map(|(index, entry)| Some((index, entry.as_ref().err()?)))
        };
        let errors = wrong().flat_map(|(index, errors)| {
            errors.iter().map(move |error| InvalidEvent::new(index, error))
        });
        let kept = match self.atomic {
            true => "the request is atomic, so nothing was stored",
            false => "none was stored",
        };
        let listed = match self.named {
            Named::All => Listed::All,
            Named::Notable | Named::None => Listed::Fitting,
        };
        let (of, invalid) = (entries.len(), wrong().count());
        let detail = format!("Of {of} events {invalid} are not valid; {kept}.");
        Problem::invalid_events(detail, errors, listed)
    }
}

/// The reply without its list, and what came of each event.
fn count<'a>(entries: &[Entry], outcomes: &[Outcome]) -> Result<(Published<'a>, Told), Problem> {
    let mut reply = Published::default();
    let mut outcomes = outcomes.iter();
    let mut told = Vec::with_capacity(entries.len());
    for entry in entries {
        told.push(match entry {
            Err(_) => {
                reply.rejected += 1;
                (Status::Rejected, None)
            }
            Ok(_) => match outcomes.next() {
                Some(Outcome::Accepted { seq }) => {
                    reply.accepted += 1;
                    (Status::Accepted, Some(*seq))
                }
                Some(Outcome::Conflict) => {
                    reply.duplicates += 1;
                    reply.conflicts += 1;
                    (Status::Conflict, None)
                }
                Some(Outcome::Duplicate) => {
                    reply.duplicates += 1;
                    (Status::Duplicate, None)
                }
                None => return Err(Problem::internal("there are fewer outcomes than events")),
            },
        });
    }
    reply.received = reply.accepted + reply.duplicates;
    reply.message = format!(
        "Received {} events, accepted {}, rejected {} duplicates",
        reply.received, reply.accepted, reply.duplicates
    );
    Ok((reply, told))
}

/// The events that were not accepted, in the order of the body; when they are
/// too many for a short reply as many as it holds, the worst first. And how many
/// are left out.
fn notable<'a>(
    entries: &'a [Entry],
    told: &Told,
    reply: &Published<'a>,
) -> (Vec<EventResult<'a>>, usize) {
    let notable = || {
        let all = entries.iter().zip(told.iter().copied()).enumerate();
        all.filter(|(_, (_, (status, _)))| *status != Status::Accepted)
    };
    let result = |(index, (entry, told))| EventResult::new(index, entry, told);
    let count = notable().count();
    if count == 0 {
        return (Vec::new(), 0);
    }
    let mut room = Room::beside(reply);
    let whole: Vec<_> = notable().map(result).take_while(|one| room.takes(one)).collect();
    if whole.len() == count {
        return (whole, 0);
    }
    let mut room = Room::beside(reply);
    let of = |wanted: Status| notable().filter(move |(_, (_, (status, _)))| *status == wanted);
    let worst_first = BY_WEIGHT.into_iter().flat_map(of).map(result);
    let named: Vec<_> = worst_first.take_while(|one| room.takes(one)).collect();
    let omitted = count - named.len();
    (named, omitted)
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
        payload: Ok(fields.payload),
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
