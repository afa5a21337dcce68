//! What a format of ingestion is: a way from the bytes of a request to events,
//! and back from their outcomes to the reply that its clients know.

use http::HeaderMap;

use crate::event::{Event, FieldError};
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::store::Outcome;

/// One event of a request, or every field of it that is wrong.
pub(crate) type Entry = Result<Event, Vec<FieldError>>;

/// Why a body has no events at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is none of the shapes that the format knows, as this sentence says.
    Invalid(String),
    /// It has more events than allowed.
    TooManyEvents,
}

impl BodyError {
    /// A body that is none of the shapes.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        BodyError::Invalid(detail.into())
    }
}

/// A request's body and what says how to read it.
pub(crate) struct Input<'a> {
    /// Whole and decoded.
    pub(crate) body: &'a [u8],
    /// The request's headers.
    pub(crate) headers: &'a HeaderMap,
    /// Most events in one request.
    pub(crate) batch_events_max: usize,
}

/// A format, with the parameters of one request. A body without events, too many
/// of them, and a store that does not answer are told as problems, whichever the
/// format.
pub(crate) trait Format {
    /// The events of a body, in its order. Events that are not valid cost no
    /// other.
    ///
    /// # Errors
    ///
    /// When there are no events in it, or too many.
    fn read(&self, input: &Input<'_>) -> Result<Vec<Entry>, BodyError>;

    /// Whether one event that is not valid keeps all others from being stored.
    fn is_atomic(&self) -> bool {
        false
    }

    /// The reply. `outcomes` are those of the valid entries in their order;
    /// `None` when nothing was stored, since no entry is valid, or not each one
    /// of an atomic request.
    ///
    /// # Errors
    ///
    /// A request of which nothing was stored.
    fn reply(&self, entries: &[Entry], outcomes: Option<&[Outcome]>) -> Result<Reply, Problem>;
}
