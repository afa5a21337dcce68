//! What a format of ingestion is: a way from the bytes of a request to events,
//! and back from their outcomes to the reply that its clients know.

use http::HeaderMap;

use crate::event::{Event, FieldError};
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::store::Outcome;

/// One event of a request, or every field of it that is wrong.
pub(crate) type Entry = Result<Event, Vec<FieldError>>;

/// Events of so many bytes are made and committed at a time, or one that is longer, by
/// formats that give them in parts.
const PART_BYTES: usize = 1 << 20;

/// The next part of the events of a body, each of which `next` makes.
pub(super) fn part(mut next: impl FnMut() -> Option<Entry>) -> Vec<Entry> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while bytes < PART_BYTES
        && let Some(entry) = next()
    {
        bytes += entry.as_ref().map_or(0, |event| event.payload().len());
        entries.push(entry);
    }
    entries
}

/// Why a body has no events at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is none of the shapes that the format knows, as this sentence says.
    Invalid(String),
    /// It has more events than allowed.
    TooManyEvents,
}

impl BodyError {
    /// A body that is none of the shapes.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        BodyError::Invalid(detail.into())
    }

    /// The same as clients see it.
    pub(super) fn into_problem(self, batch_events_max: usize) -> Problem {
        match self {
            BodyError::Invalid(detail) => Problem::invalid_body(detail),
            BodyError::TooManyEvents => Problem::too_many_events(batch_events_max),
        }
    }
}

/// A request's body and what says how to read it.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Whole and decoded.
    pub(crate) body: &'a [u8],
    /// The request's headers.
    pub(crate) headers: &'a HeaderMap,
    /// What its path names, as it stands there; empty when it names nothing.
    pub(crate) name: &'a str,
    /// The id of the trace that it is part of.
    pub(crate) trace_id: Option<&'a str>,
    /// Most events in one request.
    pub(crate) batch_events_max: usize,
}

/// A format at work on one request. A body without events, too many of them, and a
/// store that does not answer are told as problems, whichever the format.
pub(crate) trait Format {
    /// The next events of the body, in its order; none when there are no more.
    ///
    /// They are committed before more are asked for, so a format whose events can be
    /// much longer than the body that they are in gives them in parts. Events that are
    /// not valid cost no other.
    ///
    /// # Errors
    ///
    /// When there are none, or too many. That is known before the first are given:
    /// nothing was stored.
    fn next(&mut self) -> Result<Vec<Entry>, Problem>;

    /// Whether one event that is not valid keeps all others from being stored. All
    /// are given at once then.
    fn is_atomic(&self) -> bool {
        false
    }

    /// What came of the events that were given last. `outcomes` are those of the valid
    /// entries in their order; `None` when nothing was stored, since no entry is valid,
    /// or not each one of an atomic request.
    ///
    /// # Errors
    ///
    /// When the outcomes are not those of the entries.
    fn settle(
        &mut self,
        entries: Vec<Entry>,
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem>;

    /// The reply, when all events are settled.
    ///
    /// # Errors
    ///
    /// A request of which nothing was stored.
    fn reply(self: Box<Self>) -> Result<Reply, Problem>;
}
