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
pub(crate) use native::PARAMETERS;
#[cfg(test)]
pub(crate) use native::Published;

/// Takes a request, or leaves it to the formats after it.
type Candidate = fn(&Query<'_>, &HeaderMap) -> Result<Option<Box<dyn Format>>, Problem>;

/// All formats, in the order in which they are asked. Sekali's own takes all.
const FORMATS: &[Candidate] = &[native::candidate];

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
