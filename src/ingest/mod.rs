//! Bytes → events, by format; each format writes its own reply.
//!
//! A new format is a file that implements [`Format`], declared here and named in
//! [`FORMATS`].

use http::HeaderMap;

use crate::http::problem::Problem;
use crate::http::query::Query;

mod format;
mod native;
mod shapes;

pub(crate) use format::{BodyError, Entry, Format, Input};
#[cfg(test)]
pub(crate) use native::Published;
pub(crate) use native::{PARAMETERS, read_lines, tell_lines};

/// Takes a request, or leaves it to the formats after it.
type Candidate = fn(&Query<'_>, &HeaderMap) -> Result<Option<Box<dyn Format>>, Problem>;

/// All formats, in the order in which they are asked. Sekali's own takes all.
const FORMATS: &[Candidate] = &[native::candidate];

/// The reason by which a rejected event is counted: its first wrong field.
pub(crate) fn reason(entry: &Entry) -> Option<&'static str> {
    entry.as_ref().err().map(|wrong| wrong.first().map_or("event", |error| error.field))
}

/// The format of a request.
///
/// # Errors
///
/// 422 for a parameter that the format cannot understand, 500 when no format
/// takes the request.
pub(crate) fn choose(query: &Query<'_>, headers: &HeaderMap) -> Result<Box<dyn Format>, Problem> {
    for candidate in FORMATS {
        if let Some(format) = candidate(query, headers)? {
            return Ok(format);
        }
    }
    Err(Problem::internal("no format takes the request"))
}
