//! OTLP logs over HTTP, in protocol buffers and in JSON: each log record is an event,
//! which has its resource and its scope with it. One request is the same events in
//! either form.

use std::vec;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::content::ContentIds;
use super::format::{Entry, Format, Input, part};
use super::json_text::JsonText;
use super::key::Key;
use super::mapping;
use super::tally::Tally;
use crate::event::{Event, FieldError, Fields, Payload};
use crate::http::problem::{Code, Listed, Problem};
use crate::http::query::{Parameter, Query};
use crate::http::reply::Reply;
use crate::store::Outcome;
use crate::time;

mod form;
#[cfg(test)]
mod hostile;
mod json;
mod json_value;
mod reply;
mod split;
#[cfg(test)]
mod tests;
mod wire;

#[cfg(test)]
pub(crate) use form::VALUE_DEPTH_MAX;
pub(crate) use reply::refuse;
#[cfg(test)]
pub(crate) use reply::{ResponseJson, StatusJson};

use form::{Form, Times};
use split::{Head, Slot, Split};

/// The parameters of a request.
pub(crate) const PARAMETERS: [Parameter; 2] = [mapping::TOPIC, mapping::SOURCE];

/// Longest record as an event, in bytes of JSON: as long as a body may be by default. A
/// record is shorter than its event, up to a sixth.
pub(crate) const RECORD_BYTES_MAX: usize = 10 << 20;

/// Longest resource, and longest scope, in bytes of JSON. Each record repeats them, so
/// without a limit one body could fill a disk.
pub(crate) const RESOURCE_BYTES_MAX: usize = 64 << 10;

/// The topic of records without a service, as the specification names it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Begins with a request.
///
/// # Errors
///
/// 413 for too many records, 415 for another content type, 422 for a parameter or a
/// body that cannot be understood.
pub(crate) fn open<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Box<dyn Format + 'a>, Problem> {
    let form = Form::of(input.headers).ok_or_else(|| {
        Problem::new(
            Code::UnsupportedMediaType,
            "Logs are sent as application/x-protobuf or as application/json.",
        )
    })?;
    let topic = mapping::topic_given(query, &mapping::TOPIC)?;
    let source = mapping::source_given(query, &mapping::SOURCE)?;
    let split = match form {
        Form::Protobuf => wire::split(input.body, input.batch_events_max),
        Form::Json => json::split(input.body, input.batch_events_max),
    };
    let Split { resources, scopes, records, .. } =
        split.map_err(|error| error.into_problem(input.batch_events_max))?;
    Ok(Box::new(Logs {
        reader: Reader { form, text: JsonText::new(RECORD_BYTES_MAX) },
        topic,
        source,
        resources,
        scopes,
        count: records.len(),
        records: records.into_iter(),
        resource: None,
        scope: None,
        ids: ContentIds::default(),
        tally: Tally::default(),
    }))
}

/// A request at work.
struct Logs<'a> {
    reader: Reader,
    /// As the request names them for all of its records.
    topic: Option<String>,
    source: Option<String>,
    resources: Vec<Head<'a>>,
    scopes: Vec<Head<'a>>,
    records: vec::IntoIter<Slot<'a>>,
    count: usize,
    /// Those of the record that was read last, each with its place.
    resource: Option<(usize, Result<Resource, String>)>,
    scope: Option<(usize, Result<String, String>)>,
    ids: ContentIds,
    tally: Tally,
}

/// A resource as its records have it.
struct Resource {
    /// Members of their payloads.
    members: String,
    topic: String,
    source: String,
}

impl Format for Logs<'_> {
    fn next(&mut self) -> Result<Vec<Entry>, Problem> {
        Ok(part(|| self.records.next().map(|slot| self.event(slot))))
    }

    fn settle(
        &mut self,
        entries: Vec<Entry>,
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem> {
        self.tally.settle(&entries, outcomes)
    }

    fn reply(self: Box<Self>) -> Result<Reply, Problem> {
        let Tally { rejected, first, .. } = self.tally;
        let Some(first) = first else { return Ok(reply::stored(self.reader.form, None)) };
        let (of, index, why) = (self.count, first.index, &first.detail);
        let told = |kept| {
            format!("Of {of} log records {rejected} are not valid; {kept}. Record {index}: {why}.")
        };
        if rejected == of {
            let detail = told("none was stored");
            return Err(Problem::invalid_events(detail, [first], Listed::Fitting));
        }
        let message = told("the others are stored");
        Ok(reply::stored(self.reader.form, Some((rejected, &message))))
    }
}

impl Logs<'_> {
    fn event(&mut self, slot: Slot<'_>) -> Entry {
        let wrong = |why: String| vec![FieldError::new("payload", why)];
        if self.resource.as_ref().is_none_or(|(place, _)| *place != slot.resource) {
            let resource = self.reader.resource(&self.resources[slot.resource]);
            self.resource = Some((slot.resource, resource));
        }
        if self.scope.as_ref().is_none_or(|(place, _)| *place != slot.scope) {
            let scope = self.reader.scope(&self.scopes[slot.scope]);
            self.scope = Some((slot.scope, scope));
        }
        let (Some((_, resource)), Some((_, scope))) = (&self.resource, &self.scope) else {
            return Err(wrong("has no resource".to_owned()));
        };
        let resource =
            resource.as_ref().map_err(|why| wrong(format!("has a resource that {why}")))?;
        let scope = scope.as_ref().map_err(|why| wrong(format!("has a scope that {why}")))?;
        let (text, times) =
            self.reader.record(slot.record, [&resource.members, scope]).map_err(wrong)?;
        let payload = Payload::read(&text).map_err(wrong)?;
        let topic = self.topic.as_ref().unwrap_or(&resource.topic);
        let source = self.source.as_ref().unwrap_or(&resource.source);
        let moment = [times.event, times.observed].into_iter().find(|nanos| *nanos > 0);
        let timestamp = moment.map(time::rfc3339_nanos);
        let event_id = self.ids.next(topic, source, timestamp.as_deref(), payload.encoding());
        Event::build(Fields {
            topic: Ok(topic.clone()),
            event_id: Ok(event_id),
            source: Ok(source.clone()),
            timestamp: Ok(timestamp),
            payload: Ok(payload),
        })
    }
}

/// Reads the pieces of a request in its form.
struct Reader {
    form: Form,
    text: JsonText,
}

impl Reader {
    /// The payload of a record, with the members of what stands before it.
    fn record(&mut self, piece: &[u8], heads: [&String; 2]) -> Result<(String, Times), String> {
        let text = &mut self.text;
        text.begin();
        text.bracket(b'{');
        let times = match self.form {
            Form::Protobuf => wire::record(piece, text),
            Form::Json => json::record(piece, text),
        };
        let times = times.map_err(|why| format!("cannot be made: {why}"))?;
        if times.observed > 0 {
            text.key("observed_timestamp");
            text.string(&time::rfc3339_nanos(times.observed));
        }
        for members in heads.into_iter().filter(|members| !members.is_empty()) {
            text.separate();
            text.raw(members);
        }
        text.bracket(b'}');
        Ok((text.finish()?, times))
    }

    fn resource(&self, head: &Head<'_>) -> Result<Resource, String> {
        let mut text = JsonText::new(RESOURCE_BYTES_MAX);
        if let Some(message) = head.message {
            match self.form {
                Form::Protobuf => wire::resource(message, &mut text),
                Form::Json => json::resource(message, &mut text),
            }
            .map_err(|why| format!("cannot be read: {why}"))?;
        }
        self.schema_url(head, &mut text, "resource_schema_url")?;
        let members = text.finish()?;
        let names = Names::read(&members);
        Ok(Resource {
            topic: names.service.clone().unwrap_or_else(|| UNKNOWN_SERVICE.to_owned()),
            source: [names.instance, names.host, names.service]
                .into_iter()
                .flatten()
                .next()
                .unwrap_or_else(|| "otlp".to_owned()),
            members,
        })
    }

    fn scope(&self, head: &Head<'_>) -> Result<String, String> {
        let mut text = JsonText::new(RESOURCE_BYTES_MAX);
        if let Some(message) = head.message {
            text.key("scope");
            let at = text.len();
            text.bracket(b'{');
            match self.form {
                Form::Protobuf => wire::scope(message, &mut text),
                Form::Json => json::scope(message, &mut text),
            }
            .map_err(|why| format!("cannot be read: {why}"))?;
            text.close_unless_empty(0, at, b'}');
        }
        self.schema_url(head, &mut text, "scope_schema_url")?;
        text.finish()
    }

    fn schema_url(&self, head: &Head<'_>, text: &mut JsonText, key: &str) -> Result<(), String> {
        let Some(piece) = head.schema_url else { return Ok(()) };
        match self.form {
            Form::Protobuf => wire::schema_url(piece, text, key),
            Form::Json => json::schema_url(piece, text, key),
        }
        .map_err(|why| format!("cannot be read: {why}"))
    }
}

/// What a resource is called.
#[derive(Default)]
struct Names {
    service: Option<String>,
    instance: Option<String>,
    host: Option<String>,
}

impl Names {
    /// The names among the `members` that tell a resource.
    fn read(members: &str) -> Self {
        let object = format!("{{{members}}}");
        let mut names = Names::default();
        let mut resource = serde_json::Deserializer::from_str(&object);
        if let Ok(Some(resource)) = resource.deserialize_map(Member("resource")) {
            let mut attributes = serde_json::Deserializer::from_str(resource.get());
            // It was written as an object.
            attributes.deserialize_map(&mut names).ok();
        }
        names
    }
}

impl<'de> Visitor<'de> for &mut Names {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            let name = match key.as_ref() {
                "service.name" => &mut self.service,
                "service.instance.id" => &mut self.instance,
                "host.name" => &mut self.host,
                _ => continue,
            };
            let given: Option<String> = serde_json::from_str(value.get()).ok();
            *name = given.filter(|given| !given.is_empty());
        }
        Ok(())
    }
}

/// The member of this name.
struct Member(&'static str);

impl<'de> Visitor<'de> for Member {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value()?;
            if key == self.0 {
                found = Some(value);
            }
        }
        Ok(found)
    }
}
