//! A search in stored events: what it looks for, and how far one page of it looks.
//!
//! Events are compared here and not by the engines: so both find the same, and what
//! a page reads is bounded, however seldom something matches. It reads in parts, each
//! a statement of its own, so between two of them the store is free and other
//! requests of the instance have their turn.

use serde::Serialize;
use serde_json::value::RawValue;

use super::reading::{PAGE_BYTES_MAX, PART_BYTES_MAX};
use crate::app::App;
use crate::event::{Payload, unescaped};
use crate::http::problem::Problem;
use crate::http::query::{Parameter, Query, Takes};
use crate::ingest::pointer::Pointer;
use crate::platform::scheduling::{YIELDS_BETWEEN_PARTS, yields};
use crate::store::{Cursor, Filter, PageLimit, Seq, StoredEvent};
use crate::time;

/// Most events that a page of a search looks at.
pub(crate) const SEARCH_EVENTS_MAX: usize = 20_000;

/// Bytes of stored text after which a page of a search looks no further. The event
/// that reaches them is looked at, so it can be more by the largest.
pub(crate) const SEARCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most events that a search reads in one statement.
const PART_EVENTS_MAX: usize = 500;

/// Most characters of a text to look for.
pub(crate) const CONTAINS_CHARS_MAX: usize = 256;

/// Most values to look for. Each has its own way through each payload.
pub(crate) const MATCHES_MAX: usize = 8;

/// Most characters of one of them, pointer included.
pub(crate) const MATCH_CHARS_MAX: usize = 1024;

/// A text that is in the payload or in the event id.
pub(super) const CONTAINS: Parameter =
    Parameter::new("contains", Takes::Text { chars_max: CONTAINS_CHARS_MAX });

/// A JSON pointer, and the value that it leads to.
pub(super) const MATCH: Parameter = Parameter::new(
    "match",
    Takes::Patterns {
        max: MATCHES_MAX,
        pattern: "^(/([^/~:]|~[012])*)*:",
        chars_max: MATCH_CHARS_MAX,
    },
);

/// How far a page of a search looked.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Searched {
    /// Events that the page looked at, those of it included.
    events: usize,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    /// Whether nothing is left to look at.
    pub(super) complete: bool,
}

/// What came of one page of a search.
pub(super) struct Found {
    pub(super) events: Vec<StoredEvent>,
    pub(super) searched: Searched,
    /// After the last event that was looked at.
    pub(super) next: Option<Cursor>,
}

/// What a search looks for: an event has all of it.
#[derive(Default)]
pub(super) struct Wanted {
    /// Without upper case, as far as ASCII knows it.
    contains: Option<String>,
    matches: Vec<Match>,
    /// By the store it would be looked for until a page is full.
    source: Option<String>,
}

/// A value at a place of the payload.
#[derive(Debug)]
struct Match {
    pointer: Pointer,
    /// As JSON text.
    value: String,
    /// Equal for equal values.
    encoding: Vec<u8>,
}

impl Wanted {
    /// What the parameters ask for; `None` when they ask for no search.
    ///
    /// # Errors
    ///
    /// 422 when one of them cannot be understood.
    pub(super) fn read(query: &Query<'_>) -> Result<Option<Self>, Problem> {
        let contains = query.read(&CONTAINS, contains)?;
        let given = query.all(&MATCH)?;
        if given.len() > MATCHES_MAX {
            let why = format!("must not be given more than {MATCHES_MAX} times");
            return Err(Problem::invalid_parameter(MATCH.name, why));
        }
        let matches: Result<Vec<Match>, String> = given.into_iter().map(Match::parse).collect();
        let matches = matches.map_err(|why| Problem::invalid_parameter(MATCH.name, why))?;
        let is_search = contains.is_some() || !matches.is_empty();
        Ok(is_search.then_some(Wanted { contains, matches, source: None }))
    }

    /// The same, of this source alone.
    pub(super) fn of_source(self, source: Option<String>) -> Self {
        Wanted { source, ..self }
    }

    /// Whether the event is one of those; `text` is room to work in.
    fn is_met_by(&self, event: &StoredEvent, text: &mut String) -> bool {
        self.source.as_ref().is_none_or(|source| *source == event.source)
            && self.contains.as_ref().is_none_or(|wanted| {
                has(&event.payload, wanted, text) || has_as_it_is(&event.event_id, wanted, text)
            })
            && self.is_matched_by(&event.payload)
    }

    fn is_matched_by(&self, payload: &str) -> bool {
        if self.matches.is_empty() {
            return true;
        }
        // One that is damaged has nothing at any place.
        let Ok(payload) = serde_json::from_str::<&RawValue>(payload) else { return false };
        self.matches.iter().all(|one| one.is_met_by(payload))
    }
}

/// Whether the text of a payload, its escapes undone, has this in it.
fn has(payload: &str, wanted: &str, text: &mut String) -> bool {
    if !payload.contains('\\') {
        return has_as_it_is(payload, wanted, text);
    }
    text.clear();
    unescaped(payload, text);
    text.make_ascii_lowercase();
    text.contains(wanted)
}

fn has_as_it_is(whole: &str, wanted: &str, text: &mut String) -> bool {
    text.clear();
    text.push_str(whole);
    text.make_ascii_lowercase();
    text.contains(wanted)
}

impl Match {
    /// Reads a pointer and a value. The first `:` divides them; one in a name of the
    /// pointer is written `~2`.
    fn parse(given: &str) -> Result<Self, String> {
        let chars = given.chars().count();
        if chars > MATCH_CHARS_MAX {
            return Err(format!("must be at most {MATCH_CHARS_MAX} characters long, is {chars}"));
        }
        let Some((pointer, value)) = given.split_once(':') else {
            return Err(format!(
                "must be a JSON pointer, : and a value, such as /level:error, is {given:?}"
            ));
        };
        // No ~2 is part of another escape: of ~02 it is the 0 that the ~ belongs to.
        let pointer = Pointer::parse(&pointer.replace("~2", ":"))?;
        let as_json = serde_json::from_str::<&RawValue>(value).ok();
        let as_json = as_json.and_then(|value| {
            let encoding = Payload::read(value.get()).ok()?.encoding().to_vec();
            Some((value.get().to_owned(), encoding))
        });
        let (value, encoding) = match as_json {
            Some(read) => read,
            None => {
                // Writing a string to memory cannot fail, and it has no lone surrogate.
                let value = serde_json::to_string(value).unwrap_or_default();
                let encoding = Payload::read(&value)?.encoding().to_vec();
                (value, encoding)
            }
        };
        Ok(Match { pointer, value, encoding })
    }

    fn is_met_by(&self, payload: &RawValue) -> bool {
        let Some(found) = self.pointer.find(payload) else { return false };
        if kind(found.get()) != kind(&self.value) {
            return false;
        }
        // The same text is the same value, and most that differ do so early.
        found.get() == self.value
            || Payload::read(found.get()).is_ok_and(|found| found.encoding() == self.encoding)
    }
}

/// What tells a JSON text of one kind from those of others: how it begins, a number
/// with a `0`.
fn kind(json: &str) -> Option<u8> {
    json.bytes().next().map(|first| if first.is_ascii_digit() { b'0' } else { first })
}

fn contains(given: &str) -> Result<String, String> {
    match given.chars().count() {
        1..=CONTAINS_CHARS_MAX => Ok(given.to_ascii_lowercase()),
        0 => Err("must not be empty".to_owned()),
        chars => Err(format!("must be at most {CONTAINS_CHARS_MAX} characters long, is {chars}")),
    }
}

/// Looks for events of `filter`, until so many were found, the page is full, or it has
/// looked far enough.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(super) async fn page(
    app: &App,
    mut filter: Filter,
    wanted: &Wanted,
    limit: usize,
) -> Result<Found, Problem> {
    let mut events = Vec::new();
    let mut searched = Searched::default();
    let (mut looked_at_bytes, mut found_bytes) = (0, 0);
    let mut text = String::new();
    let mut last = None;
    'parts: while searched.events < SEARCH_EVENTS_MAX && looked_at_bytes < SEARCH_BYTES_MAX {
        let part = PageLimit {
            events_max: PART_EVENTS_MAX.min(SEARCH_EVENTS_MAX - searched.events),
            bytes_max: PART_BYTES_MAX.min(SEARCH_BYTES_MAX - looked_at_bytes),
        };
        let rows = app.ask(async |store| store.page(&filter, part).await).await?;
        if rows.is_empty() {
            searched.complete = true;
            break;
        }
        // SQLite answers at once: without this the instance would do nothing else until the
        // page is there, and its publishers wait for it.
        yields(&*app.platform, YIELDS_BETWEEN_PARTS).await;
        for row in rows {
            searched.events += 1;
            let bytes = row.event_id.len() + row.source.len() + row.payload.len();
            looked_at_bytes += bytes;
            filter.from = Some(Cursor::after(row.seq));
            last = Some((row.seq, row.received_at));
            if wanted.is_met_by(&row, &mut text) {
                found_bytes += bytes;
                events.push(row);
                if events.len() == limit || found_bytes >= PAGE_BYTES_MAX {
                    break 'parts;
                }
            }
        }
    }
    if let Some((seq, received_at)) = last {
        searched.seq = Some(seq);
        searched.received_at = Some(time::rfc3339(received_at));
    }
    Ok(Found { events, searched, next: filter.from })
}

#[cfg(test)]
mod tests;
