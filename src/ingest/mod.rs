//! Bytes → events, by format; each format writes its own reply.
//!
//! A new format is a file that implements [`Format`], declared here and named in
//! [`FORMATS`].

use crate::http::problem::Problem;
use crate::http::query::{Parameter, Query};

mod cloud_events;
mod content;
pub(crate) mod elasticsearch;
mod format;
mod json_message;
mod json_text;
mod key;
pub(crate) mod loki;
mod mapping;
mod native;
pub(crate) mod otlp;
pub(crate) mod pointer;
mod protobuf;
mod raw;
mod record;
mod reply;
mod shapes;
pub(crate) mod splunk;
mod tally;
mod warnings;
pub(crate) mod webhook;

pub(crate) use format::{Entry, Format, Input};
pub(crate) use mapping::topic_in_path;
pub(crate) use native::read_lines;
#[cfg(test)]
pub(crate) use reply::Published;
pub(crate) use reply::tell_lines;

/// The parameters of a publish.
pub(crate) const PARAMETERS: [Parameter; 8] = [
    reply::RESULTS,
    reply::ATOMIC,
    reply::STRICT,
    mapping::TOPIC,
    mapping::SOURCE,
    mapping::EVENT_ID,
    mapping::TIMESTAMP,
    mapping::PAYLOAD,
];

/// Those of one that has the topic in its path.
pub(crate) const PARAMETERS_OF_RECORDS: [Parameter; 7] = [
    reply::RESULTS,
    reply::ATOMIC,
    reply::STRICT,
    mapping::SOURCE,
    mapping::EVENT_ID,
    mapping::TIMESTAMP,
    mapping::PAYLOAD,
];

/// Takes a request, or leaves it to the formats after it.
type Candidate =
    for<'a> fn(&Query<'_>, &Input<'a>) -> Result<Option<Box<dyn Format + 'a>>, Problem>;

/// The formats of a publish, in the order in which they are asked. Sekali's own takes
/// all.
const FORMATS: &[Candidate] = &[cloud_events::candidate, native::candidate];

/// The reason by which a rejected event is counted: its first wrong field.
pub(crate) fn reason(entry: &Entry) -> Option<&'static str> {
    entry.as_ref().err().map(|wrong| wrong.first().map_or("event", |error| error.field))
}

/// The format of a publish, at work on its body.
///
/// # Errors
///
/// 413 for too many events, 422 for a parameter that the format cannot understand or a
/// body that it cannot read, 500 when no format takes the request.
pub(crate) fn open<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Box<dyn Format + 'a>, Problem> {
    for candidate in FORMATS {
        if let Some(format) = candidate(query, input)? {
            return Ok(format);
        }
    }
    Err(Problem::internal("no format takes the request"))
}
