//! Pushes of Loki's clients, in protocol buffers and in JSON: each line is an event,
//! which has the labels of its stream with it.

use std::borrow::Cow;
use std::vec;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::content::ContentIds;
use super::format::{Entry, Format, Input, part};
use super::json_text::JsonText;
use super::mapping;
use super::tally::Tally;
use crate::event::{Event, FieldError, Fields, Payload};
use crate::http::accept;
use crate::http::problem::{Code, Listed, Problem};
use crate::http::query::{Parameter, Query, Takes};
use crate::http::reply::{Body, Reply};
use crate::store::Outcome;
use crate::time;

mod entry;
mod json;
mod labels;
mod split;
#[cfg(test)]
mod tests;
mod wire;

use labels::Labels;
use split::Split;

const TOPIC_LABEL: Parameter = Parameter::new("topic_label", Takes::Topic);

/// The parameters of a push.
pub(crate) const PARAMETERS: [Parameter; 3] = [mapping::TOPIC, mapping::SOURCE, TOPIC_LABEL];

/// Longest line with its metadata as an event, in bytes of JSON: as long as a body may be
/// by default.
pub(crate) const LINE_BYTES_MAX: usize = 10 << 20;

/// Longest labels of a stream, in bytes. Each line repeats them, so without a limit one
/// body could fill a disk.
pub(crate) const LABELS_BYTES_MAX: usize = 64 << 10;

/// Labels that name the topic and the source, the first that is there.
const TOPIC_LABELS: [&str; 3] = ["service_name", "job", "app"];
const SOURCE_LABELS: [&str; 4] = ["host", "hostname", "instance", "pod"];

/// The topic and the source of lines whose labels name none.
const NAMELESS: &str = "loki";

/// How a push is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    /// That of the content type.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match accept::media_type(headers).as_str() {
            "application/x-protobuf" => Ok(Form::Protobuf),
            "application/json" => Ok(Form::Json),
            _ => Err(Problem::new(
                Code::UnsupportedMediaType,
                "A push is sent as application/x-protobuf in snappy or as application/json.",
            )),
        }
    }
}

/// The push in a body, which in protocol buffers is in snappy's block format.
///
/// # Errors
///
/// 413 for one that would be longer than it may, 415 for another content type, 422 for
/// one that is not in snappy.
pub(crate) fn decode<'a>(
    body: &'a [u8],
    headers: &HeaderMap,
    body_bytes_max: usize,
) -> Result<Cow<'a, [u8]>, Problem> {
    /// A copy of 64 bytes takes three, and nothing is shorter.
    const TIMES_MAX: usize = 22;
    if Form::of(headers)? == Form::Json {
        return Ok(Cow::Borrowed(body));
    }
    let refused = |why: &str| {
        Problem::invalid_body(format!("The body is not in the block format of snappy: {why}."))
    };
    let length = snap::raw::decompress_len(body).map_err(|why| refused(&why.to_string()))?;
    if length > body.len().saturating_mul(TIMES_MAX) {
        return Err(refused("it cannot have the length that it announces"));
    }
    if length > body_bytes_max {
        return Err(Problem::body_too_large(body_bytes_max));
    }
    let mut decoded = vec![0; length];
    let decompressed = snap::raw::Decoder::new().decompress(body, &mut decoded);
    decompressed.map_err(|why| refused(&why.to_string()))?;
    Ok(Cow::Owned(decoded))
}

/// Begins with a push.
///
/// # Errors
///
/// 413 for too many lines, 415 for another content type, 422 for a parameter or a body
/// that cannot be understood.
pub(crate) fn open<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Box<dyn Format + 'a>, Problem> {
    let form = Form::of(input.headers)?;
    let topic = mapping::topic_given(query, &mapping::TOPIC)?;
    let source = mapping::source_given(query, &mapping::SOURCE)?;
    let topic_label = mapping::topic_given(query, &TOPIC_LABEL)?;
    let split = match form {
        Form::Protobuf => wire::split(input.body, input.batch_events_max),
        Form::Json => json::split(input.body, input.batch_events_max),
    };
    let Split { streams, entries, .. } =
        split.map_err(|error| error.into_problem(input.batch_events_max))?;
    Ok(Box::new(Lines {
        form,
        topic,
        source,
        topic_label,
        streams,
        count: entries.len(),
        entries: entries.into_iter(),
        stream: None,
        text: JsonText::new(LINE_BYTES_MAX),
        ids: ContentIds::default(),
        tally: Tally::default(),
    }))
}

/// A push at work.
struct Lines<'a> {
    form: Form,
    /// As the request names them for all of its lines.
    topic: Option<String>,
    source: Option<String>,
    /// The label that names the topic.
    topic_label: Option<String>,
    streams: Vec<Option<&'a [u8]>>,
    entries: vec::IntoIter<(&'a [u8], usize)>,
    count: usize,
    /// That of the line that was read last, with its place.
    stream: Option<(usize, Result<Stream, String>)>,
    text: JsonText,
    ids: ContentIds,
    tally: Tally,
}

/// A stream as its lines have it.
struct Stream {
    /// The labels as an object.
    labels: String,
    topic: String,
    source: String,
}

impl Format for Lines<'_> {
    fn next(&mut self) -> Result<Vec<Entry>, Problem> {
        Ok(part(|| self.entries.next().map(|(piece, stream)| self.event(piece, stream))))
    }

    fn settle(
        &mut self,
        entries: Vec<Entry>,
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem> {
        self.tally.settle(&entries, outcomes)
    }

    /// Loki answers 400 when a line is not valid and keeps the others, and its clients
    /// send nothing again for that.
    fn reply(self: Box<Self>) -> Result<Reply, Problem> {
        let Tally { rejected, first, .. } = self.tally;
        let Some(first) = first else {
            let (headers, body) = (HeaderMap::new(), Body::Whole(Vec::new()));
            return Ok(Reply { status: StatusCode::NO_CONTENT, headers, body });
        };
        let of = self.count;
        let kept = match of - rejected {
            0 => "none was stored".to_owned(),
            stored => format!("the other {stored} are stored"),
        };
        let detail = format!(
            "Of {of} lines {rejected} are not valid; {kept}. Line {}: {}.",
            first.index, first.detail
        );
        Err(Problem::invalid_events(detail, [first], Listed::Fitting))
    }
}

impl Lines<'_> {
    fn event(&mut self, piece: &[u8], place: usize) -> Entry {
        let wrong = |field, why: String| vec![FieldError::new(field, why)];
        if self.stream.as_ref().is_none_or(|(read, _)| *read != place) {
            self.stream = Some((place, self.read_stream(self.streams[place])));
        }
        let stream = match &self.stream {
            Some((_, Ok(stream))) => stream,
            Some((_, Err(why))) => return Err(wrong("payload", format!("has labels that {why}"))),
            None => return Err(wrong("payload", "has no stream".to_owned())),
        };
        let text = &mut self.text;
        text.begin();
        text.bracket(b'{');
        let read = match self.form {
            Form::Protobuf => wire::entry(piece, text),
            Form::Json => json::entry(piece, text),
        };
        let entry = read.map_err(|why| wrong(why.field, why.detail))?;
        text.key("labels");
        text.raw(&stream.labels);
        text.bracket(b'}');
        let in_payload = |why| wrong("payload", why);
        let payload = Payload::read(&text.finish().map_err(in_payload)?).map_err(in_payload)?;
        let topic = self.topic.as_ref().unwrap_or(&stream.topic);
        let source = self.source.as_ref().unwrap_or(&stream.source);
        let timestamp = time::rfc3339_nanos(entry.at);
        let event_id = self.ids.next(topic, source, Some(&timestamp), payload.encoding());
        Event::build(Fields {
            topic: Ok(topic.clone()),
            event_id: Ok(event_id),
            source: Ok(source.clone()),
            timestamp: Ok(Some(timestamp)),
            payload: Ok(payload),
        })
    }

    fn read_stream(&self, labels: Option<&[u8]>) -> Result<Stream, String> {
        let too_long = || format!("are longer than {LABELS_BYTES_MAX} bytes");
        let labels = match labels {
            None => Labels::new(),
            Some(piece) if piece.len() > LABELS_BYTES_MAX => return Err(too_long()),
            Some(piece) => match self.form {
                Form::Protobuf => wire::labels(piece)?,
                Form::Json => json::labels(piece)?,
            },
        };
        let named = |name: &str| {
            let found = labels.iter().rev().find(|(label, _)| label == name);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let topic = self.topic_label.as_deref().into_iter().chain(TOPIC_LABELS).find_map(named);
        let source = SOURCE_LABELS.into_iter().find_map(named);
        let mut text = JsonText::new(LABELS_BYTES_MAX);
        text.bracket(b'{');
        for (name, value) in &labels {
            text.key(name);
            text.string(value);
        }
        text.bracket(b'}');
        Ok(Stream {
            labels: text.finish().map_err(|_| too_long())?,
            topic: topic.unwrap_or_else(|| NAMELESS.to_owned()),
            source: source.unwrap_or_else(|| NAMELESS.to_owned()),
        })
    }
}

/// Writes a refusal: a sentence, under a status that clients of Loki know. They send
/// again what was 429 or 5xx, and nothing else.
pub(crate) fn refuse(_: &Parts, problem: Problem) -> Reply {
    let mut sentence = problem.detail().to_owned();
    sentence.push('\n');
    let status = match problem.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    problem.into_reply_as(status, "text/plain; charset=utf-8", sentence.into_bytes())
}
