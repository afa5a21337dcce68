//! `_bulk` of Elasticsearch, for clients that know no other protocol: each document is
//! an event, whose topic is its index, and whose id is its `_id` or made of its content.
//!
//! An event is never changed. So `create` and `index` are the same here: a document that
//! is there already is left as it is, and another one under its id is a conflict.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::value::RawValue;

use self::actions::{Action, Verb, actions};
use self::reply::{BulkJson, CauseJson, ItemJson, ResultJson};
use super::content::ContentIds;
use super::format::{Entry, Format, Input};
use super::mapping::{self, moment};
use super::pointer::Pointer;
use super::record::{members, string, string_or_number};
use crate::event::{self, Event, FieldError, Found, Payload, Source};
use crate::http::problem::{Problem, TOLD_BACK_BYTES_MAX};
use crate::http::query::{Parameter, Query};
use crate::http::reply::Reply;
use crate::store::Outcome;
use crate::text::{self, shortened};
use crate::time;

mod actions;
mod reply;

#[cfg(test)]
pub(crate) use reply::{BulkJson as BulkReply, RefusalJson, ResultJson as BulkResult};
pub(crate) use reply::{health, info, license, prefers_json, refuse, speaks_json};

/// The parameters of a bulk that are looked at. Clients send many others.
pub(crate) const PARAMETERS: [Parameter; 1] = [mapping::SOURCE];

/// The fields of a document that are looked at. Those of others may be written either
/// way: `{"host": {"name": …}}`, or `{"host.name": …}`.
const FIELDS: [&str; 6] =
    ["@timestamp", "host", "agent", "host.name", "host.hostname", "agent.name"];

/// The source of documents of which nothing is known.
const NAMELESS: &str = "elasticsearch";

/// The documents of a bulk.
///
/// `took` tells how long it has taken until now, in milliseconds.
///
/// # Errors
///
/// 413 for too many of them, 422 for a path or a parameter that cannot be understood and
/// for a line that is no action, whichever it is: nothing is stored then.
pub(crate) fn open<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
    took: impl Fn() -> u64 + 'a,
) -> Result<Box<dyn Format + 'a>, Problem> {
    let mut reader = Reader {
        index: mapping::topic_in_path(input.name)?,
        source: query.read(&mapping::SOURCE, |source| Source::parse(source))?,
        client: mapping::client(input.headers).unwrap_or_else(|| NAMELESS.to_owned()),
        ids: ContentIds::default(),
        items: Vec::new(),
    };
    let mut entries = Vec::new();
    for action in actions(input.body) {
        let action = action.map_err(Problem::invalid_body)?;
        if entries.len() == input.batch_events_max {
            return Err(Problem::too_many_events(input.batch_events_max));
        }
        entries.push(reader.next(action));
    }
    if entries.is_empty() {
        return Err(Problem::invalid_body("The request has no action."));
    }
    let content_type = reply::content_type(input.headers);
    let (took, items) = (Box::new(took), reader.items);
    let (settled, outcomes) = (Vec::new(), Vec::new());
    Ok(Box::new(Bulk { entries, items, settled, outcomes, took, content_type }))
}

/// What is known of an action before it is answered.
struct Item {
    verb: Verb,
    /// Why it makes no event.
    refused: Option<Box<Refused>>,
}

struct Refused {
    index: String,
    id: Option<String>,
    kind: &'static str,
    reason: String,
}

/// Makes events of the documents of one request.
struct Reader {
    /// That of documents that name none.
    index: Option<String>,
    /// That of all documents.
    source: Option<Source>,
    /// The source of documents that name none.
    client: String,
    ids: ContentIds,
    items: Vec<Item>,
}

impl Reader {
    /// The event of the next action.
    fn next(&mut self, action: Action<'_>) -> Entry {
        let index = match action.index {
            Some(index) => string(index),
            None => self.index.clone().ok_or_else(|| "is required: index is missing".to_owned()),
        };
        let id = action.id.map(string_or_number);
        let told = |name: Option<&Found<String>>| {
            let name = name.and_then(|name| name.as_ref().ok());
            name.map(|name| shortened(name, TOLD_BACK_BYTES_MAX).into_owned())
        };
        let (told_index, told_id) = (told(Some(&index)), told(id.as_ref()));
        let entry = self.event(&action, index, id);
        let refused = entry.as_ref().err().map(|wrong| {
            let of_field = wrong.first().map_or("event", |error| error.field);
            let reasons: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            Box::new(Refused {
                index: told_index.unwrap_or_default(),
                id: told_id,
                kind: kind(action.verb, of_field),
                reason: reasons.join("; "),
            })
        });
        self.items.push(Item { verb: action.verb, refused });
        entry
    }

    fn event(
        &mut self,
        action: &Action<'_>,
        topic: Found<String>,
        id: Option<Found<String>>,
    ) -> Entry {
        if matches!(action.verb, Verb::Update | Verb::Delete) {
            let why = format!(
                "cannot be taken: there is no {} here, as events are never changed",
                action.verb.as_str()
            );
            return Err(vec![FieldError::new("event", why)]);
        }
        let (document, fields) = read(action.document).map_err(|error| vec![error])?;
        let timestamp = fields[0].and_then(|raw| moment(raw).ok());
        // One that cannot be read is still in the payload.
        let timestamp = timestamp.filter(|text| time::parse(text).is_ok());
        let source = match &self.source {
            Some(source) => source.as_str().to_owned(),
            None => source(&fields).unwrap_or_else(|| self.client.clone()),
        };
        let payload = Payload::read(document.get());
        let event_id = id.unwrap_or_else(|| {
            // An event without them is rejected, whatever its id.
            let topic = topic.as_deref().unwrap_or_default();
            let encoding = payload.as_ref().map(Payload::encoding).unwrap_or_default();
            Ok(self.ids.next(topic, &source, None, encoding))
        });
        let (source, timestamp) = (Ok(source), Ok(timestamp));
        Event::build(event::Fields { topic, event_id, source, timestamp, payload })
    }
}

/// A document, and those of its fields that are looked at.
type Document<'a> = (&'a RawValue, [Option<&'a RawValue>; FIELDS.len()]);

fn read(line: &[u8]) -> Result<Document<'_>, FieldError> {
    let line = std::str::from_utf8(line).map_err(|_| FieldError::new("event", "is not UTF-8"))?;
    let document: &RawValue = serde_json::from_str(line)
        .map_err(|error| FieldError::new("event", format!("is not JSON: {error}")))?;
    Ok((document, members(document, &FIELDS)?))
}

/// The machine or the agent that a document names.
fn source(fields: &[Option<&RawValue>; FIELDS.len()]) -> Option<String> {
    let [_, host, agent, host_name, host_hostname, agent_name] = *fields;
    let within =
        |holder: Option<_>, name| holder.and_then(|holder| Pointer::member(name).find(holder));
    let named = [
        within(host, "name").or(host_name),
        within(host, "hostname").or(host_hostname),
        host,
        within(agent, "name").or(agent_name),
    ];
    named.into_iter().flatten().filter_map(|name| string(name).ok()).find(|name| {
        // What cannot be one is still in the payload.
        Source::parse(name.as_str()).is_ok()
    })
}

/// What Elasticsearch calls it.
fn kind(verb: Verb, of_field: &str) -> &'static str {
    match (verb, of_field) {
        (Verb::Update | Verb::Delete, _) => "action_request_validation_exception",
        (_, "topic") => "invalid_index_name_exception",
        (_, "event" | "payload") => "document_parsing_exception",
        _ => "illegal_argument_exception",
    }
}

/// A bulk whose documents were all read.
struct Bulk<'a> {
    /// Until they are given.
    entries: Vec<Entry>,
    items: Vec<Item>,
    settled: Vec<Entry>,
    /// Those of the valid entries.
    outcomes: Vec<Outcome>,
    took: Box<dyn Fn() -> u64 + 'a>,
    content_type: &'static str,
}

impl Format for Bulk<'_> {
    fn next(&mut self) -> Result<Vec<Entry>, Problem> {
        Ok(std::mem::take(&mut self.entries))
    }

    fn settle(
        &mut self,
        entries: Vec<Entry>,
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem> {
        (self.settled, self.outcomes) = (entries, outcomes.unwrap_or_default());
        Ok(())
    }

    fn reply(self: Box<Self>) -> Result<Reply, Problem> {
        let mut outcomes = self.outcomes.iter();
        let mut errors = false;
        let mut items = Vec::with_capacity(self.items.len());
        for (item, entry) in self.items.iter().zip(&self.settled) {
            let result = match (entry, &item.refused) {
                (Ok(event), _) => {
                    let (index, id) = (event.topic().as_str(), event.event_id().as_str());
                    match outcomes.next() {
                        Some(Outcome::Accepted { seq }) => ResultJson::created(index, id, *seq),
                        Some(Outcome::Duplicate) => ResultJson::noop(index, id),
                        Some(Outcome::Conflict) => ResultJson::conflict(index, id),
                        None => {
                            return Err(Problem::internal("there are fewer outcomes than events"));
                        }
                    }
                }
                (Err(_), Some(refused)) => ResultJson::refused(
                    &refused.index,
                    refused.id.as_deref(),
                    CauseJson { r#type: refused.kind, reason: Cow::Borrowed(&refused.reason) },
                ),
                (Err(_), None) => return Err(Problem::internal("a refusal has no reason")),
            };
            errors |= result.is_error();
            items.push(ItemJson { verb: item.verb, result });
        }
        let json = BulkJson { took: (self.took)(), errors, items };
        let body = text::to_json(&json).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(reply::reply(StatusCode::OK, self.content_type, body))
    }
}
