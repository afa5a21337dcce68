//! `GET /events`: reads stored events, a page at a time.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::reading::{self, FORMAT, LIMIT, PAGE_BYTES_MAX, PART_BYTES_MAX};
use crate::app::App;
use crate::event::{Source, Topic};
use crate::http::accept::{self, CLOUD_EVENTS, JSON, LINES, NDJSON};
use crate::http::event_json::EventJson;
use crate::http::problem::Problem;
use crate::http::query::{self, Parameter, Takes};
use crate::http::reply::{Parts, Reply};
use crate::http::request::Request;
use crate::store::{Cursor, Filter, Order, PageLimit, StoreError, StoredEvent};

const TOPIC: Parameter = Parameter::new("topic", Takes::Topic);
const SOURCE: Parameter = Parameter::new("source", Takes::Source);
const AFTER: Parameter = Parameter::new("after", Takes::Cursor);
const ORDER: Parameter = Parameter::new("order", Takes::OneOf(&["asc", "desc"]));
const SINCE: Parameter = Parameter::new("since", Takes::Moment);
const UNTIL: Parameter = Parameter::new("until", Takes::Moment);

pub(super) const PARAMETERS: [Parameter; 8] =
    [TOPIC, SOURCE, LIMIT, AFTER, ORDER, SINCE, UNTIL, FORMAT];

/// The media type of an array of CloudEvents.
const CLOUD_EVENTS_BATCH: &str = "application/cloudevents-batch+json";

/// The reply that holds a whole page.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PageJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    count: usize,
    events: Vec<EventJson<'a>>,
    next: String,
}

/// Answers one read.
///
/// # Errors
///
/// 409 for a cursor ahead of every event, 422 for a parameter that cannot be
/// understood, 503 when the store does not answer.
pub(super) async fn list(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let query = request.query();
    let limit = reading::limit(&query)?;
    let from = query.read(&AFTER, query::cursor)?;
    let order = match query.choice(&ORDER)? {
        Some("desc") => Order::Descending,
        _ => Order::Ascending,
    };
    let since = query.moment(&SINCE)?;
    let until = query.moment(&UNTIL)?;
    let wanted = Filter {
        topics: reading::topics(&query, &TOPIC)?,
        source: query.read(&SOURCE, |source| Source::parse(source))?.map(Source::into_string),
        order,
        from,
        after: None,
        up_to: None,
        since,
        until,
    };
    request.caller.check_topics(wanted.topics.iter().map(Topic::as_str))?;
    let streams = accept::prefers(request.headers(), &LINES, &JSON);
    let as_cloud_events = query.choice(&FORMAT)?.is_some()
        || !streams && accept::prefers(request.headers(), &CLOUD_EVENTS, &JSON);
    let bytes_max = if streams { PART_BYTES_MAX } else { PAGE_BYTES_MAX };
    let (filter, page) = app
        .ask(async |store| {
            let mut filter = wanted.clone();
            if since.is_some() || until.is_some() {
                (filter.after, filter.up_to) = store.received_between(since, until).await?;
            }
            let page = store.page(&filter, PageLimit { events_max: limit, bytes_max }).await?;
            Ok((filter, page))
        })
        .await?;
    if let Some(cursor) = from
        && (page.is_empty() || order == Order::Descending)
    {
        // After an event of the page it is not ahead.
        reading::head_from(app, cursor).await?;
    }

    if streams {
        let app = Rc::clone(app);
        let lines = Lines { app, filter, left: limit, ready: Some(page), as_cloud_events };
        return Ok(varying(Reply::stream(NDJSON, lines.into_stream())));
    }
    let next = page.last().map(|event| Cursor::after(event.seq)).or(from);
    // Where nothing was found there is nothing before it either.
    let next = next.unwrap_or(Cursor::START);
    if as_cloud_events {
        return Ok(varying(batch(app, request, &page, next)));
    }
    let body = PageJson {
        topic: filter.topics.first().map(Topic::as_str),
        count: page.len(),
        events: page.iter().map(|event| app.show(event)).collect(),
        next: next.to_string(),
    };
    Ok(varying(Reply::json(StatusCode::OK, &body)))
}

/// A page as CloudEvents, and in the header `link` where to go on.
fn batch(app: &App, request: &Request<'_>, page: &[StoredEvent], next: Cursor) -> Reply {
    let mut body = vec![b'['];
    for (index, event) in page.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        reading::write(app, event, true, &mut body);
    }
    body.push(b']');
    let reply = Reply::whole(StatusCode::OK, CLOUD_EVENTS_BATCH, body);
    let pairs = request.head.uri.query().unwrap_or_default().split('&');
    let others = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    let query: String = others.map(|pair| format!("{pair}&")).collect();
    let link = format!("<?{}after={next}>; rel=\"next\"", query.replace(['<', '>'], ""));
    match HeaderValue::from_str(&link) {
        Ok(link) => reply.with_header(header::LINK, link),
        // A query is always a header's value.
        Err(_) => reply,
    }
}

/// A cache must not give lines to who wants a page.
fn varying(reply: Reply) -> Reply {
    reply.with_header(header::VARY, HeaderValue::from_static("accept"))
}

/// The rows of one read as NDJSON, read part by part while they are sent.
struct Lines {
    app: Rc<App>,
    filter: Filter,
    left: usize,
    ready: Option<Vec<StoredEvent>>,
    as_cloud_events: bool,
}

impl Parts for Lines {
    /// Whole lines.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = match self.ready.take() {
            Some(rows) => rows,
            None if self.left == 0 => return Ok(None),
            None => {
                let limit = PageLimit { events_max: self.left, bytes_max: PART_BYTES_MAX };
                let filter = &self.filter;
                self.app.store.ask(async |store| store.page(filter, limit).await).await?
            }
        };
        let Some(last) = rows.last() else { return Ok(None) };
        self.left = self.left.saturating_sub(rows.len());
        self.filter.from = Some(Cursor::after(last.seq));
        let mut lines = Vec::new();
        for event in &rows {
            reading::write(&self.app, event, self.as_cloud_events, &mut lines);
            lines.push(b'\n');
        }
        Ok(Some(lines))
    }
}
