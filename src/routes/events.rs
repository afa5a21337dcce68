//! `GET /events`: reads stored events, a page at a time.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::commit;
use crate::config::Config;
use crate::http::event_json::{self as view, EventView, Shown};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply::{self, Feed, NDJSON, Reply};
use crate::platform::{Ports, StoreError};
use crate::store::sqlite::event_log::{self, Filter, StoredEvent};
use crate::time;

/// Most events on a page.
pub const PAGE_EVENTS_MAX: usize = 1000;

/// Events on a page when the client does not say.
pub const PAGE_EVENTS_DEFAULT: usize = 100;

/// Bytes of stored text after which a page ends early. A page holds one event
/// at least, so it can be longer by the largest event.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same for one part of a stream.
const PART_BYTES_MAX: usize = 256 * 1024;

#[derive(Serialize)]
struct Page<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    count: usize,
    events: Vec<EventView<'a>>,
    next: String,
}

/// Answers one read.
///
/// # Errors
///
/// 422 for a parameter that cannot be understood, 503 when the store does not answer.
pub async fn events(
    ports: &impl Ports,
    config: &Config,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let limit = query.read("limit", limit)?.unwrap_or(PAGE_EVENTS_DEFAULT);
    let after = query.read("after", cursor)?;
    let descending = query.read("order", order)?.unwrap_or(false);
    let since = query.read("since", moment)?;
    let until = query.read("until", moment)?;
    let wanted = Filter {
        topics: query.get("topic")?.map(str::to_owned).into_iter().collect(),
        source: query.get("source")?.map(str::to_owned),
        above: after.filter(|_| !descending),
        below: after.filter(|_| descending),
        descending,
    };
    let streams = reply::accepts(headers, reply::is_ndjson);
    let bytes_max = if streams { PART_BYTES_MAX } else { PAGE_BYTES_MAX };
    let (filter, page) = commit::ask(ports, config, async || {
        let mut filter = wanted.clone();
        if let Some(since) = since {
            let first = event_log::first_seq_since(ports, since).await?;
            filter.above = Some(filter.above.unwrap_or(0).max(first - 1));
        }
        if let Some(until) = until {
            let end = event_log::first_seq_since(ports, until).await?;
            filter.below = Some(filter.below.unwrap_or(i64::MAX).min(end));
        }
        let page = event_log::page(ports, &filter, limit, bytes_max).await?;
        Ok((filter, page))
    })
    .await?;

    if streams {
        let pages = Pages { filter, left: limit, ready: Some(page) };
        return Ok(varying(Reply::feed(NDJSON, Feed::Pages(pages))));
    }
    let next = page.last().map(|event| event.seq).or(after);
    // A newest-first page of an empty store has no place to go on from but the end.
    let next = next.unwrap_or(if descending { i64::MAX } else { 0 });
    let shown: Vec<Shown> = page.iter().map(Shown::of).collect();
    let body = Page {
        topic: filter.topics.first().map(String::as_str),
        count: page.len(),
        events: view::all(&shown)?,
        next: next.to_string(),
    };
    Ok(varying(Reply::json(StatusCode::OK, &body)))
}

/// A cache must not give lines to who wants a page.
fn varying(reply: Reply) -> Reply {
    reply.with_header(header::VARY, HeaderValue::from_static("accept"))
}

/// How many events a page is to hold.
///
/// # Errors
///
/// A phrase that says what it must be.
pub fn limit(value: &str) -> Result<usize, String> {
    match digits(value) {
        Some(limit @ 1..=PAGE_EVENTS_MAX) => Ok(limit),
        _ => Err(format!("must be a whole number from 1 to {PAGE_EVENTS_MAX}, is {value:?}")),
    }
}

/// A cursor is the `seq` of the event that it stands after.
///
/// # Errors
///
/// A phrase that says what it must be.
pub fn cursor(value: &str) -> Result<i64, String> {
    digits(value).ok_or_else(|| format!("must be the next of an earlier page, is {value:?}"))
}

/// A number of digits alone: no sign, no space.
pub fn digits<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// Whether the newest come first.
fn order(value: &str) -> Result<bool, String> {
    match value {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(format!("must be asc or desc, is {value:?}")),
    }
}

fn moment(value: &str) -> Result<time::UnixMillis, String> {
    time::parse(value)
        .map_err(|why| format!("must be an RFC 3339 date and time (a + is written %2B): {why}"))
}

/// The rows of one read as NDJSON, read part by part while they are sent.
pub struct Pages {
    filter: Filter,
    left: usize,
    ready: Option<Vec<StoredEvent>>,
}

impl Pages {
    /// The next part: whole lines; `None` after the last.
    ///
    /// # Errors
    ///
    /// What the store says. The stream is to be broken off then, so that the
    /// client sees that it is not whole.
    pub async fn next(
        &mut self,
        ports: &impl Ports,
        config: &Config,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = match self.ready.take() {
            Some(rows) => rows,
            None if self.left == 0 => return Ok(None),
            None => {
                commit::patiently(ports, config.commit_wait_max, async || {
                    event_log::page(ports, &self.filter, self.left, PART_BYTES_MAX).await
                })
                .await?
            }
        };
        let Some(last) = rows.last() else { return Ok(None) };
        self.left = self.left.saturating_sub(rows.len());
        if self.filter.descending {
            self.filter.below = Some(last.seq);
        } else {
            self.filter.above = Some(last.seq);
        }
        let mut lines = Vec::new();
        for event in &rows {
            view::write(event, &mut lines)?;
            lines.push(b'\n');
        }
        Ok(Some(lines))
    }
}
