//! What the routes that read events have in common.

use http::HeaderName;

use crate::app::App;
use crate::event::Topic;
use crate::http::cloud_event_json;
use crate::http::problem::Problem;
use crate::http::query::{Parameter, Query, Takes};
use crate::store::{Cursor, StoredEvent};

/// Most events on a page.
pub(crate) const PAGE_EVENTS_MAX: usize = 1000;

/// Events on a page when the client does not say.
pub(crate) const PAGE_EVENTS_DEFAULT: usize = 100;

/// Bytes of stored text after which a page ends early. A page holds one event
/// at least, so it can be longer by the largest event.
pub(crate) const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of stored text after which a part of a stream ends early.
pub(crate) const PART_BYTES_MAX: usize = 256 * 1024;

/// Most topics that one reader names. Each is a look-up of its own.
pub(crate) const TOPICS_MAX: usize = 32;

/// How many events a page is to hold.
pub(crate) const LIMIT: Parameter =
    Parameter::new("limit", Takes::Integer { unit: "", min: 1, max: PAGE_EVENTS_MAX as u64 });

/// How each event is told, if not as Sekali does.
pub(crate) const FORMAT: Parameter = Parameter::new("format", Takes::OneOf(&["cloudevents"]));

/// The value of [`LIMIT`], or its default.
///
/// # Errors
///
/// 422 when it is none.
pub(crate) fn limit(query: &Query<'_>) -> Result<usize, Problem> {
    let given = query.integer(&LIMIT)?.and_then(|limit| usize::try_from(limit).ok());
    Ok(given.unwrap_or(PAGE_EVENTS_DEFAULT))
}

/// The topics of a parameter that takes one or several, each once.
///
/// # Errors
///
/// 422 when one of them could not be published, or there are too many.
pub(crate) fn topics(query: &Query<'_>, parameter: &Parameter) -> Result<Vec<Topic>, Problem> {
    let given = match parameter.takes {
        Takes::Topics { .. } => query.all(parameter)?,
        _ => query.get(parameter)?.into_iter().collect(),
    };
    distinct_topics(given.into_iter())
        .map_err(|why| Problem::invalid_parameter(parameter.name, why))
}

/// Adds an event to `text`, on one line.
pub(crate) fn write(app: &App, event: &StoredEvent, as_cloud_event: bool, text: &mut Vec<u8>) {
    // Also when it is told otherwise, what is damaged is noticed here.
    let shown = app.show(event);
    match as_cloud_event {
        true => cloud_event_json::write(text, event),
        false => shown.write(text),
    }
}

/// The place after the newest event, for a reader that goes on after `cursor`.
///
/// It is asked of the store itself, never of [`Tail`](crate::store::Tail): a
/// cursor that another instance gave away a moment ago is of a commit that every
/// later statement sees, and an earlier poll does not.
///
/// # Errors
///
/// 409 when the cursor lies ahead of it. It is of another store then, and a reader
/// that stood there would skip what is yet to come. 503 when the store does not
/// answer.
pub(crate) async fn head_from(app: &App, cursor: Cursor) -> Result<Cursor, Problem> {
    let head = app.ask(async |store| store.head().await).await?;
    if cursor > head {
        return Err(Problem::cursor_ahead(cursor, head));
    }
    Ok(head)
}

/// What a reply tells of events that were pruned, beside its body.
pub(crate) const PRUNED_BEFORE: HeaderName = HeaderName::from_static("sekali-pruned-before");

/// The place before which events of `topics` (all, if there are none) were pruned, if a
/// reader misses any: one that began after `from` and got this `page` of what came next,
/// or went back from its end.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(crate) async fn pruned_before(
    app: &App,
    topics: &[Topic],
    from: Cursor,
    page: &[StoredEvent],
) -> Result<Option<Cursor>, Problem> {
    let last = page.last().map(|event| Cursor::after(event.seq));
    if last.is_some_and(|last| last.follows(from, page.len())) {
        return Ok(None);
    }
    let pruned = app.ask(async |store| store.pruned_up_to(topics).await).await?;
    Ok(Some(pruned).filter(|pruned| *pruned > from))
}

/// Topics, each once.
///
/// # Errors
///
/// A phrase that says what is wrong with one of them, or that there are more
/// than [`TOPICS_MAX`].
pub(crate) fn distinct_topics(
    given: impl Iterator<Item: Into<String>>,
) -> Result<Vec<Topic>, String> {
    let mut topics: Vec<Topic> = Vec::new();
    for topic in given {
        let topic = Topic::parse(topic)?;
        if topics.contains(&topic) {
            continue;
        }
        if topics.len() == TOPICS_MAX {
            return Err(format!("must not be more than {TOPICS_MAX} different ones"));
        }
        topics.push(topic);
    }
    Ok(topics)
}
