//! What both forms of a request have in common.

use http::HeaderMap;

use crate::http::accept;

/// Most levels of values in values. Readers of protocol buffers stop at 100 messages,
/// of which each level takes three, and those of JSON at 128 levels, of which it takes
/// four.
pub(crate) const VALUE_DEPTH_MAX: usize = 30;

/// How a request is written, and its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Protobuf,
    Json,
}

impl Form {
    /// That of the content type, if it is one of them.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match accept::media_type(headers).as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Form::Protobuf),
            "application/json" => Some(Form::Json),
            _ => None,
        }
    }
}

/// When a record was, in nanoseconds since 1970; 0 when that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) event: u64,
    pub(super) observed: u64,
}

/// What is said of a value that is too deep.
pub(super) fn too_deep() -> String {
    format!("values are nested deeper than {VALUE_DEPTH_MAX} levels")
}
