//! `GET /events`: reads stored events, a page at a time.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::reading::{self, FORMAT, LIMIT, PAGE_BYTES_MAX, PART_BYTES_MAX, PRUNED_BEFORE};
use super::search::{self, CONTAINS, MATCH, Searched, Wanted};
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

pub(super) const PARAMETERS: [Parameter; 10] =
    [TOPIC, SOURCE, CONTAINS, MATCH, LIMIT, AFTER, ORDER, SINCE, UNTIL, FORMAT];

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
    /// Events before it were pruned, and some may have been of this read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned_before: Option<String>,
    /// Only of a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    searched: Option<Searched>,
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
    let wanted = Wanted::read(&query)?;
    let order = match query.choice(&ORDER)? {
        Some("asc") => Order::Ascending,
        Some(_) => Order::Descending,
        // Who looks for something mostly means what was a moment ago.
        None if wanted.is_some() => Order::Descending,
        None => Order::Ascending,
    };
    let since = query.moment(&SINCE)?;
    let until = query.moment(&UNTIL)?;
    let mut filter = Filter {
        topics: reading::topics(&query, &TOPIC)?,
        source: query.read(&SOURCE, |source| Source::parse(source))?.map(Source::into_string),
        order,
        from,
        after: None,
        up_to: None,
        since,
        until,
    };
    request.caller.check_topics(filter.topics.iter().map(Topic::as_str))?;
    let streams = accept::prefers(request.headers(), &LINES, &JSON);
    let as_cloud_events = query.choice(&FORMAT)?.is_some()
        || !streams && accept::prefers(request.headers(), &CLOUD_EVENTS, &JSON);
    if let Some(wanted) = wanted {
        if streams {
            let why = "is for pages, so no Accept: application/x-ndjson goes with it";
            let name = if query.get(&CONTAINS)?.is_some() { CONTAINS.name } else { MATCH.name };
            return Err(Problem::invalid_parameter(name, why));
        }
        let wanted = wanted.of_source(filter.source.take());
        within_times(app, &mut filter).await?;
        let (topics, after) = (filter.topics.clone(), filter.after);
        let found = search::page(app, filter, &wanted, limit).await?;
        if let Some(cursor) = from
            && (found.next == from || order == Order::Descending)
        {
            reading::head_from(app, cursor).await?;
        }
        let reached = match order {
            Order::Ascending => from.max(after),
            Order::Descending if found.searched.complete => after,
            Order::Descending => found.next,
        };
        let reached = reached.unwrap_or(Cursor::START);
        let pruned_before = reading::pruned_before(app, &topics, reached, &[]).await?;
        let page = Page { topics, events: found.events, next: found.next, pruned_before };
        return Ok(page.reply(app, request, as_cloud_events, Some(found.searched)));
    }
    let bytes_max = if streams { PART_BYTES_MAX } else { PAGE_BYTES_MAX };
    within_times(app, &mut filter).await?;
    let limits = PageLimit { events_max: limit, bytes_max };
    let page = app.ask(async |store| store.page(&filter, limits).await).await?;
    if let Some(cursor) = from
        && (page.is_empty() || order == Order::Descending)
    {
        // After an event of the page it is not ahead.
        reading::head_from(app, cursor).await?;
    }

    let reached = match order {
        Order::Ascending => from.max(filter.after).unwrap_or(Cursor::START),
        // Up to where the page goes back.
        Order::Descending if page.len() == limit => {
            page.last().map_or(Cursor::START, |event| Cursor::before(event.seq))
        }
        Order::Descending => filter.after.unwrap_or(Cursor::START),
    };
    let of_page = if order == Order::Ascending { &page[..] } else { &[] };
    let pruned_before = reading::pruned_before(app, &filter.topics, reached, of_page).await?;
    if streams {
        let app = Rc::clone(app);
        let lines = Lines { app, filter, left: limit, ready: Some(page), as_cloud_events };
        return Ok(telling(pruned_before, varying(Reply::stream(NDJSON, lines.into_stream()))));
    }
    let next = page.last().map(|event| Cursor::after(event.seq)).or(from);
    let page = Page { topics: filter.topics, events: page, next, pruned_before };
    Ok(page.reply(app, request, as_cloud_events, None))
}

/// Has the places between which the times of the filter are.
async fn within_times(app: &App, filter: &mut Filter) -> Result<(), Problem> {
    let (since, until) = (filter.since, filter.until);
    if since.is_some() || until.is_some() {
        (filter.after, filter.up_to) =
            app.ask(async |store| store.received_between(since, until).await).await?;
    }
    Ok(())
}

/// A page that was read.
struct Page {
    topics: Vec<Topic>,
    events: Vec<StoredEvent>,
    next: Option<Cursor>,
    pruned_before: Option<Cursor>,
}

impl Page {
    fn reply(
        &self,
        app: &App,
        request: &Request<'_>,
        as_cloud_events: bool,
        searched: Option<Searched>,
    ) -> Reply {
        // Where nothing was found there is nothing before it either.
        let next = self.next.unwrap_or(Cursor::START);
        if as_cloud_events {
            let is_complete = searched.is_some_and(|searched| searched.complete);
            let reply = batch(app, request, &self.events, (!is_complete).then_some(next));
            return telling(self.pruned_before, varying(reply));
        }
        let body = PageJson {
            topic: self.topics.first().map(Topic::as_str),
            count: self.events.len(),
            events: self.events.iter().map(|event| app.show(event)).collect(),
            next: next.to_string(),
            pruned_before: self.pruned_before.map(|place| place.to_string()),
            searched,
        };
        telling(self.pruned_before, varying(Reply::json(StatusCode::OK, &body)))
    }
}

/// A page as CloudEvents, and in the header `link` where to go on, if anywhere.
fn batch(app: &App, request: &Request<'_>, page: &[StoredEvent], next: Option<Cursor>) -> Reply {
    let mut body = vec![b'['];
    for (index, event) in page.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        reading::write(app, event, true, &mut body);
    }
    body.push(b']');
    let reply = Reply::whole(StatusCode::OK, CLOUD_EVENTS_BATCH, body);
    let Some(next) = next else { return reply };
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

/// Tells in the head of a reply what was pruned, if anything was.
fn telling(pruned_before: Option<Cursor>, reply: Reply) -> Reply {
    match pruned_before {
        Some(place) => reply.with_header(PRUNED_BEFORE, HeaderValue::from(place.number())),
        None => reply,
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
