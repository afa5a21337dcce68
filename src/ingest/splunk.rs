//! Splunk's HTTP event collector (HEC): events in JSON and lines of text, for clients
//! that know no other reply than Splunk's.
//!
//! A request whose events are not all valid is refused with the number of the first
//! that is not, as Splunk does it; the valid ones are stored all the same, which the
//! reply says.

use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;

use super::content::{ContentIds, numbered};
use super::format::{Entry, Format, Input};
use super::mapping::{self, Id, pointed};
use super::raw;
use super::record::{members, string, string_or_number};
use super::shapes::{self, Element, Framing, Wrapper};
use crate::event::{self, Event, FieldError, Found, Payload};
use crate::http::problem::{Code, Problem};
use crate::http::query::{Parameter, Query, Takes};
use crate::http::reply::Reply;
use crate::store::Outcome;
use crate::text;
use crate::time;

const HOST: Parameter = Parameter::new("host", Takes::Source);
const SOURCE: Parameter = Parameter::new("source", Takes::Source);
const SOURCETYPE: Parameter = Parameter::new("sourcetype", Takes::Topic);
const INDEX: Parameter = Parameter::new("index", Takes::Topic);
const TIME: Parameter = Parameter::new("time", Takes::Pattern(r"^[0-9]+(\.[0-9]*)?$"));

/// The parameters of a request.
pub(crate) const PARAMETERS: [Parameter; 7] =
    [mapping::TOPIC, mapping::EVENT_ID, HOST, SOURCE, SOURCETYPE, INDEX, TIME];

/// The fields of an event that are looked at.
const FIELDS: [&str; FIELDS_COUNT] = ["event", "time", "host", "source", "sourcetype", "index"];

const FIELDS_COUNT: usize = 6;

/// Topic and source of events that name none.
const NAMELESS: &str = "splunk";

/// What a request or an event is answered, in the words and numbers of Splunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Success,
    TokenRequired,
    InvalidToken,
    NoData,
    InvalidFormat,
    Internal,
    Busy,
    EventRequired,
    EventBlank,
    AckDisabled,
    Healthy,
}

impl Answer {
    fn parts(self) -> (StatusCode, u16, &'static str) {
        match self {
            Answer::Success => (StatusCode::OK, 0, "Success"),
            Answer::TokenRequired => (StatusCode::UNAUTHORIZED, 2, "Token is required"),
            Answer::InvalidToken => (StatusCode::UNAUTHORIZED, 4, "Invalid token"),
            Answer::NoData => (StatusCode::BAD_REQUEST, 5, "No data"),
            Answer::InvalidFormat => (StatusCode::BAD_REQUEST, 6, "Invalid data format"),
            Answer::Internal => (StatusCode::INTERNAL_SERVER_ERROR, 8, "Internal server error"),
            Answer::Busy => (StatusCode::SERVICE_UNAVAILABLE, 9, "Server is busy"),
            Answer::EventRequired => (StatusCode::BAD_REQUEST, 12, "Event field is required"),
            Answer::EventBlank => (StatusCode::BAD_REQUEST, 13, "Event field cannot be blank"),
            Answer::AckDisabled => (StatusCode::BAD_REQUEST, 14, "ACK is disabled"),
            Answer::Healthy => (StatusCode::OK, 17, "HEC is healthy"),
        }
    }

    fn json(self) -> AnswerJson<'static> {
        let (_, code, text) = self.parts();
        AnswerJson { text, code, invalid_event_number: None, stored: None, detail: None }
    }

    fn reply(self) -> Reply {
        Reply::json(self.parts().0, &self.json())
    }
}

/// A reply of the collector.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AnswerJson<'a> {
    text: &'a str,
    code: u16,
    /// The first event that is not valid, from 0.
    #[serde(rename = "invalid-event-number", skip_serializing_if = "Option::is_none")]
    invalid_event_number: Option<usize>,
    /// How many events of the request are on disk all the same. Splunk has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<usize>,
    /// A sentence for people. Splunk has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Where events have from what they do not say themselves.
struct Defaults {
    /// The topic of all.
    topic: Option<String>,
    host: Option<String>,
    source: Option<String>,
    sourcetype: Option<String>,
    index: Option<String>,
    /// As ISO 8601.
    time: Option<String>,
}

impl Defaults {
    fn read(query: &Query<'_>) -> Result<Self, Problem> {
        let topic = |parameter| mapping::topic_given(query, parameter);
        let source = |parameter| mapping::source_given(query, parameter);
        Ok(Defaults {
            topic: topic(&mapping::TOPIC)?,
            host: source(&HOST)?,
            source: source(&SOURCE)?,
            sourcetype: topic(&SOURCETYPE)?,
            index: topic(&INDEX)?,
            time: query.read(&TIME, |seconds| {
                time::from_epoch(seconds).map_err(|why| format!("must be a time: {why}"))
            })?,
        })
    }
}

/// What a body holds.
#[derive(Clone, Copy)]
enum Form {
    /// Objects in Splunk's form.
    Events,
    /// Lines, which say nothing but themselves.
    Lines,
}

/// Makes events of the records of one request.
struct Reader {
    form: Form,
    defaults: Defaults,
    id: Id,
    ids: ContentIds,
    /// The place of the next record in the request.
    index: usize,
    /// The first that is not valid: its place, and what it is answered.
    invalid: Option<(usize, Answer, String)>,
}

impl Reader {
    fn new(form: Form, query: &Query<'_>, input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Reader {
            form,
            defaults: Defaults::read(query)?,
            id: mapping::id_of_records(query, input.headers)?,
            ids: ContentIds::default(),
            index: 0,
            invalid: None,
        })
    }

    /// The event of the next record.
    fn next(&mut self, record: Element<'_>) -> Entry {
        let index = self.index;
        self.index += 1;
        let invalid = |error| (Answer::InvalidFormat, vec![error]);
        let event = record.map_err(invalid).and_then(|record| {
            let fields = match self.form {
                Form::Lines => [None; FIELDS_COUNT],
                Form::Events => {
                    let fields = members(record, &FIELDS).map_err(invalid)?;
                    check_event(fields[0])?;
                    fields
                }
            };
            self.build(index, record, fields).map_err(|wrong| (Answer::InvalidFormat, wrong))
        });
        event.map_err(|(answer, wrong)| {
            self.invalid.get_or_insert_with(|| {
                let detail = wrong.first().map(ToString::to_string).unwrap_or_default();
                (index, answer, detail)
            });
            wrong
        })
    }

    fn build(
        &mut self,
        index: usize,
        record: &RawValue,
        [_, time, host, source, sourcetype, index_name]: [Option<&RawValue>; FIELDS_COUNT],
    ) -> Entry {
        let defaults = &self.defaults;
        let topic = match &defaults.topic {
            Some(topic) => Ok(topic.clone()),
            None => first([(index_name, &defaults.index), (sourcetype, &defaults.sourcetype)]),
        };
        let source = first([(host, &defaults.host), (source, &defaults.source)]);
        let given = time.filter(|time| !matches!(time.get(), "null" | "\"\""));
        let timestamp = match given {
            Some(time) => string_or_number(time).and_then(|seconds| {
                time::from_epoch(&seconds).map_err(|why| format!("must be a time: {why}")).map(Some)
            }),
            None => Ok(defaults.time.clone()),
        };
        let payload = Payload::read(record.get());
        let event_id = match &self.id {
            Id::Pointer(pointer) => pointed(pointer, record).and_then(string_or_number),
            Id::Request(key) => Ok(numbered(key, index)),
            Id::Field | Id::Content { .. } => {
                // An event without them is rejected, whatever its id.
                let name = |name: &Found<String>| name.as_deref().unwrap_or_default().to_owned();
                let encoding = payload.as_ref().map(Payload::encoding).unwrap_or_default();
                // That of the record itself is part of it.
                let time = defaults.time.as_deref().filter(|_| given.is_none());
                Ok(self.ids.next(&name(&topic), &name(&source), time, encoding))
            }
        };
        Event::build(event::Fields { topic, event_id, source, timestamp, payload })
    }
}

/// The event itself, which has to be there and not to be blank.
fn check_event(event: Option<&RawValue>) -> Result<(), (Answer, Vec<FieldError>)> {
    let (answer, detail) = match event.map(RawValue::get) {
        None => (Answer::EventRequired, "is required"),
        Some("null" | "\"\"") => (Answer::EventBlank, "must not be blank"),
        Some(_) => return Ok(()),
    };
    Err((answer, vec![FieldError::new("event", detail)]))
}

/// The first name that there is, each of a record or else of the request.
fn first(names: [(Option<&RawValue>, &Option<String>); 2]) -> Found<String> {
    for (of_record, of_request) in names {
        match of_record.filter(|name| !matches!(name.get(), "null" | "\"\"")) {
            Some(name) => return string(name),
            None if of_request.is_some() => return Ok(of_request.clone().unwrap_or_default()),
            None => {}
        }
    }
    Ok(NAMELESS.to_owned())
}

/// The events of a request to `/services/collector/event`.
///
/// # Errors
///
/// 413 for too many events, 422 for a parameter that cannot be understood and for a
/// body that is not JSON.
pub(crate) fn open_events<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Box<dyn Format + 'a>, Problem> {
    let mut reader = Reader::new(Form::Events, query, input)?;
    if is_blank(input.body) {
        return Ok(Box::new(Collected::new(Vec::new(), reader)));
    }
    let max = input.batch_events_max;
    let elements = shapes::split(input.body, Framing::Unknown, Wrapper::Alone, max)
        .map_err(|error| error.into_problem(max))?;
    let entries = elements.into_iter().map(|element| reader.next(element)).collect();
    Ok(Box::new(Collected::new(entries, reader)))
}

/// The events of a request to `/services/collector/raw`: a line each.
///
/// # Errors
///
/// 413 for too many of them, 422 for a parameter that cannot be understood.
pub(crate) fn open_raw<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Box<dyn Format + 'a>, Problem> {
    let mut reader = Reader::new(Form::Lines, query, input)?;
    if is_blank(input.body) {
        return Ok(Box::new(Collected::new(Vec::new(), reader)));
    }
    let max = input.batch_events_max;
    let lines = raw::lines(input.body, max).map_err(|error| error.into_problem(max))?;
    let read = |line: raw::Record<'_>| {
        let json = line.into_json();
        reader.next(json.as_deref().map_err(FieldError::clone))
    };
    let entries = lines.into_iter().map(read).collect();
    Ok(Box::new(Collected::new(entries, reader)))
}

/// Whether a body holds nothing at all.
fn is_blank(body: &[u8]) -> bool {
    let body = body.strip_prefix(shapes::BYTE_ORDER_MARK).unwrap_or(body);
    body.trim_ascii().is_empty()
}

/// A request whose events were all read.
struct Collected {
    entries: Vec<Entry>,
    is_empty: bool,
    invalid: Option<(usize, Answer, String)>,
    /// How many are on disk.
    stored: usize,
}

impl Collected {
    fn new(entries: Vec<Entry>, reader: Reader) -> Self {
        let (is_empty, invalid) = (entries.is_empty(), reader.invalid);
        Collected { entries, is_empty, invalid, stored: 0 }
    }
}

impl Format for Collected {
    fn next(&mut self) -> Result<Vec<Entry>, Problem> {
        Ok(std::mem::take(&mut self.entries))
    }

    fn settle(&mut self, _: Vec<Entry>, outcomes: Option<Vec<Outcome>>) -> Result<(), Problem> {
        // Those that were there before are, too; with ids of the client's own perhaps
        // with other content, and then the first stays.
        self.stored += outcomes.map_or(0, |outcomes| outcomes.len());
        Ok(())
    }

    fn reply(self: Box<Self>) -> Result<Reply, Problem> {
        if self.is_empty {
            return Ok(Answer::NoData.reply());
        }
        let Some((number, answer, detail)) = self.invalid else {
            return Ok(Answer::Success.reply());
        };
        let json = AnswerJson {
            invalid_event_number: Some(number),
            stored: Some(self.stored),
            detail: Some(detail),
            ..answer.json()
        };
        Ok(Reply::json(answer.parts().0, &json))
    }
}

/// The reply to a question after acknowledgements: there are none, as a reply leaves
/// when its events are on disk.
pub(crate) fn no_acknowledgements() -> Reply {
    Answer::AckDisabled.reply()
}

/// The reply of a collector that takes events, or does not.
pub(crate) fn health(is_healthy: bool, retry_after_seconds: u32) -> Reply {
    match is_healthy {
        true => Answer::Healthy.reply(),
        false => Answer::Busy
            .reply()
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds)),
    }
}

/// Writes a refusal. What has no number in Splunk has that of its status.
pub(crate) fn refuse(_: &Parts, problem: Problem) -> Reply {
    let answer = match problem.code() {
        // That is not of the protocol.
        Code::NotFound | Code::MethodNotAllowed | Code::HostRefused => {
            return problem.into_reply();
        }
        Code::InvalidBody | Code::IncompleteBody | Code::InvalidEvents | Code::InvalidParameter => {
            Some(Answer::InvalidFormat)
        }
        Code::StoreBusy | Code::StoreFull | Code::StoreUnavailable | Code::Misconfigured => {
            Some(Answer::Busy)
        }
        Code::KeyRequired => Some(Answer::TokenRequired),
        Code::KeyUnknown | Code::KeyExpired => Some(Answer::InvalidToken),
        Code::Internal => Some(Answer::Internal),
        _ => None,
    };
    let status = answer.map_or(problem.status(), |answer| answer.parts().0);
    let json = match answer {
        Some(answer) => AnswerJson { detail: Some(problem.detail().to_owned()), ..answer.json() },
        None => {
            let (text, code) = (problem.detail(), status.as_u16());
            AnswerJson { text, code, ..Answer::Internal.json() }
        }
    };
    // Only a map with keys that are no strings is no JSON, and there is none.
    let body = text::to_json(&json).unwrap_or_default();
    problem.into_reply_as(status, "application/json", body)
}
