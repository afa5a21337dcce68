//! Structured lines on stderr, where Spin collects them: one JSON object each.
//!
//! One line for each refused request (`warn`), one for each fault of a store
//! or of ours (`error`); nothing per accepted event at the default level.

use std::io::Write;

use serde::Serialize;

use crate::time::{self, UnixMillis};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed that should not have.
    Error,
    /// A request was refused.
    Warn,
    /// Something happened that happens seldom.
    Info,
    /// Every request.
    Debug,
}

/// Longest text of a line that came from outside, in characters.
const FIELD_CHARS_MAX: usize = 500;

/// One line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// What happened, the same words each time.
    pub message: &'static str,
    /// The request's method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// The request's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// The reply's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The problem's stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What the client was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// What the client was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'a str>,
}

impl Line<'_> {
    /// A line of which only the message is known.
    pub fn new(message: &'static str) -> Self {
        Line {
            message,
            method: None,
            path: None,
            status: None,
            code: None,
            detail: None,
            cause: None,
        }
    }
}

/// Writes `line`, unless `least` says that `level` matters too little.
pub fn write(least: Option<Level>, level: Level, now: UnixMillis, mut line: Line<'_>) {
    #[derive(Serialize)]
    struct Written<'a> {
        time: String,
        level: Level,
        #[serde(flatten)]
        line: Line<'a>,
    }
    if least.is_none_or(|least| level > least) {
        return;
    }
    for field in [&mut line.path, &mut line.detail, &mut line.cause] {
        *field = field.map(shorten);
    }
    let written = Written { time: time::rfc3339(now), level, line };
    if let Ok(mut text) = serde_json::to_vec(&written) {
        text.push(b'\n');
        // One write for each line, so that lines of many instances do not mix.
        // When stderr is gone there is nowhere left to report that.
        std::io::stderr().write_all(&text).ok();
    }
}

fn shorten(text: &str) -> &str {
    text.char_indices().nth(FIELD_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}
