//! `/subscriptions`: named readers, whose positions the service keeps.
//!
//! A worker reads the events after its position, does its work, and
//! acknowledges; only that moves the position. A worker that dies between the
//! two reads the same events again: to a worker, delivery is at least once.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::commit;
use crate::config::Config;
use crate::http::event_json::{self as view, EventView, Shown};
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::reply::Reply;
use crate::platform::Ports;
use crate::routes::event_stream::distinct_topics;
use crate::routes::events::{self, PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT};
use crate::store::sqlite::event_log::subscriptions::{self, Start, Subscription};
use crate::store::sqlite::event_log::{self, Filter, StoredEvent};
use crate::store::tail;
use crate::time;

/// Most subscriptions of one service.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Longest time that a read waits for events, in seconds.
const WAIT_SECONDS_MAX: u64 = 20;

/// A subscription as it is shown.
#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    topics: &'a [String],
    cursor: String,
    lag: i64,
    created_at: String,
    acked_at: Option<String>,
}

impl<'a> View<'a> {
    fn of(subscription: &'a Subscription) -> Self {
        View {
            name: &subscription.name,
            topics: &subscription.topics,
            cursor: subscription.position.to_string(),
            lag: subscription.lag,
            created_at: time::rfc3339(subscription.created_at),
            acked_at: subscription.acked_at.map(time::rfc3339),
        }
    }
}

/// The body of `PUT`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    topics: Option<Vec<String>>,
    start: Option<String>,
}

/// The body of `POST …/ack`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    cursor: Cursor,
}

/// The `next` of a page, or the `seq` of an event.
#[derive(Deserialize)]
#[serde(untagged, expecting = "cursor must be the next of a page or the seq of an event")]
enum Cursor {
    Text(String),
    Seq(u64),
    /// Such as `4.0`, which is a whole number too.
    Whole(f64),
}

impl Cursor {
    /// The greatest number up to which an `f64` holds every whole one.
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

    fn seq(&self) -> Option<i64> {
        match self {
            Cursor::Text(text) => events::digits(text),
            Cursor::Seq(seq) => i64::try_from(*seq).ok(),
            Cursor::Whole(seq) => {
                let is_seq = (0.0..=Self::WHOLE_MAX).contains(seq) && seq.fract() == 0.0;
                is_seq.then_some(*seq as i64)
            }
        }
    }
}

/// Answers `GET /subscriptions`.
///
/// # Errors
///
/// 503 when the store does not answer.
pub async fn list(ports: &impl Ports, config: &Config) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct List<'a> {
        count: usize,
        subscriptions: Vec<View<'a>>,
    }
    let found = commit::ask(ports, config, async || subscriptions::list(ports).await).await?;
    let subscriptions: Vec<View> = found.iter().map(View::of).collect();
    Ok(Reply::json(StatusCode::OK, &List { count: found.len(), subscriptions }))
}

/// Answers `GET /subscriptions/{name}`.
///
/// # Errors
///
/// 404, 422 and 503.
pub async fn show(ports: &impl Ports, config: &Config, name: &str) -> Result<Reply, Problem> {
    check_name(name)?;
    let found = commit::ask(ports, config, async || subscriptions::find(ports, name).await).await?;
    shown(name, found.as_ref())
}

/// Answers `PUT /subscriptions/{name}`: 201 for a new one.
///
/// # Errors
///
/// 409 when there are too many or the start lies ahead, 422 and 503.
pub async fn define(
    ports: &impl Ports,
    config: &Config,
    name: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    check_name(name)?;
    let definition: Definition =
        if body.trim_ascii().is_empty() { Definition::default() } else { read(body)? };
    let topics = distinct_topics(definition.topics.unwrap_or_default().into_iter())
        .map_err(|why| Problem::invalid_body(format!("The field topics: a topic {why}.")))?;
    let start = start(definition.start.as_deref())?;
    if let Start::After(seq @ 1..) = start
        && commit::ask(ports, config, async || subscriptions::find(ports, name).await)
            .await?
            .is_none()
    {
        let newest = commit::ask(ports, config, async || event_log::head(ports).await).await?;
        if seq > newest {
            return Err(Problem::cursor_ahead(seq, newest));
        }
    }
    let defined = commit::ask(ports, config, async || {
        let now = ports.now();
        subscriptions::define(ports, now, name, &topics, start, SUBSCRIPTIONS_MAX).await
    });
    match defined.await? {
        Some(defined) => {
            let status = if defined.revision == 1 { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Reply::json(status, &View::of(&defined)))
        }
        None => Err(Problem::new(
            Code::TooManySubscriptions,
            format!("There are {SUBSCRIPTIONS_MAX} subscriptions already; delete one."),
        )),
    }
}

/// Answers `DELETE /subscriptions/{name}` with the subscription as it was.
///
/// # Errors
///
/// 404, 422 and 503.
pub async fn remove(ports: &impl Ports, config: &Config, name: &str) -> Result<Reply, Problem> {
    check_name(name)?;
    let found =
        commit::ask(ports, config, async || subscriptions::remove(ports, name).await).await?;
    shown(name, found.as_ref())
}

/// Answers `POST /subscriptions/{name}/ack`.
///
/// # Errors
///
/// 404, 409 for a cursor ahead of all events, 422 and 503.
pub async fn acknowledge(
    ports: &impl Ports,
    config: &Config,
    name: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    check_name(name)?;
    let Some(position) = read::<Acknowledgement>(body)?.cursor.seq() else {
        return Err(Problem::invalid_body("The field cursor must be the next of a page."));
    };
    let moved = commit::ask(ports, config, async || {
        subscriptions::acknowledge(ports, ports.now(), name, position).await
    });
    match moved.await? {
        Some(stayed) if stayed.position < position => {
            let newest = commit::ask(ports, config, async || event_log::head(ports).await).await?;
            Err(Problem::cursor_ahead(position, newest))
        }
        moved => shown(name, moved.as_ref()),
    }
}

/// Answers `GET /subscriptions/{name}/events`: the events after its position.
///
/// # Errors
///
/// 404, 422 and 503.
pub async fn events(
    ports: &impl Ports,
    config: &Config,
    name: &str,
    query: &Query<'_>,
) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Page<'a> {
        subscription: &'a str,
        count: usize,
        events: Vec<EventView<'a>>,
        next: String,
    }
    check_name(name)?;
    let limit = query.read("limit", events::limit)?.unwrap_or(PAGE_EVENTS_DEFAULT);
    let wait_seconds = query.read("wait", wait)?.unwrap_or(0);
    let deadline = ports.monotonic() + std::time::Duration::from_secs(wait_seconds);
    let (position, page) = loop {
        // Before the read: what comes after it is not on the page.
        let head = if wait_seconds == 0 { 0 } else { look(ports, config).await? };
        let (position, page) = next_page(ports, config, name, limit).await?;
        if !page.is_empty() || ports.monotonic() >= deadline {
            break (position, page);
        }
        while look(ports, config).await? <= head && ports.monotonic() < deadline {
            tail::pause(ports).await;
        }
    };
    let shown: Vec<Shown> = page.iter().map(Shown::of).collect();
    let body = Page {
        subscription: name,
        count: page.len(),
        events: view::all(&shown)?,
        next: page.last().map_or(position, |last| last.seq).to_string(),
    };
    Ok(Reply::json(StatusCode::OK, &body))
}

/// The position of a subscription, and the events after it.
async fn next_page(
    ports: &impl Ports,
    config: &Config,
    name: &str,
    limit: usize,
) -> Result<(i64, Vec<StoredEvent>), Problem> {
    let read = commit::ask(ports, config, async || {
        let Some(Subscription { topics, position, .. }) = subscriptions::find(ports, name).await?
        else {
            return Ok(None);
        };
        let filter = Filter { topics, above: Some(position), ..Filter::default() };
        let page = event_log::page(ports, &filter, limit, PAGE_BYTES_MAX).await?;
        Ok(Some((position, page)))
    });
    read.await?.ok_or_else(|| not_found(name))
}

async fn look(ports: &impl Ports, config: &Config) -> Result<i64, Problem> {
    let head = tail::head(ports, config).await;
    head.map_err(|error| Problem::store(&error, config.retry_after_seconds))
}

fn shown(name: &str, found: Option<&Subscription>) -> Result<Reply, Problem> {
    match found {
        Some(found) => Ok(Reply::json(StatusCode::OK, &View::of(found))),
        None => Err(not_found(name)),
    }
}

fn not_found(name: &str) -> Problem {
    Problem::new(Code::SubscriptionNotFound, format!("There is no subscription {name}."))
}

fn check_name(name: &str) -> Result<(), Problem> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"._-".contains(&one);
    if starts_well && name.len() <= NAME_CHARS_MAX && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Problem::invalid_parameter(
        "name",
        format!(
            "must have 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes and underscores, \
             and begin with a letter or a digit"
        ),
    ))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // serde takes an array for an object whose names are left out.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid_body("The body is an array, where an object was expected."));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "not what was expected" } else { "not JSON" };
        Problem::invalid_body(format!("The body is {what}: {error}."))
    })
}

fn start(given: Option<&str>) -> Result<Start, Problem> {
    match given {
        None | Some("beginning") => Ok(Start::After(0)),
        Some("end") => Ok(Start::End),
        Some(cursor) => events::digits(cursor).map(Start::After).ok_or_else(|| {
            Problem::invalid_body("The field start must be beginning, end or the next of a page.")
        }),
    }
}

fn wait(value: &str) -> Result<u64, String> {
    match events::digits(value) {
        Some(seconds @ 0..=WAIT_SECONDS_MAX) => Ok(seconds),
        _ => Err(format!(
            "must be a whole number of seconds from 0 to {WAIT_SECONDS_MAX}, is {value:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::fake::Desk;
    use crate::routes::event_stream::TOPICS_MAX;

    fn publish(desk: &Desk, topic: &str, id: usize) {
        desk.publish(
            &json!({"topic": topic, "event_id": id.to_string(), "source": "s"}).to_string(),
        );
    }

    #[test]
    fn a_position_moves_forward_only_and_the_lag_is_exact() {
        let desk = Desk::new();
        for id in 0..10 {
            publish(&desk, ["a", "b", "c"][id % 3], id);
        }
        let put =
            |name: &str, body: &str| desk.request("PUT", &format!("/subscriptions/{name}"), body);
        let ack = |name: &str, cursor: serde_json::Value| {
            let body = json!({ "cursor": cursor }).to_string();
            desk.request("POST", &format!("/subscriptions/{name}/ack"), &body)
        };
        let (status, all) = put("all", "");
        assert_eq!((status.as_u16(), &all["lag"], &all["cursor"]), (201, &json!(10), &json!("0")));
        assert_eq!(put("all", "{}").0, 200);
        let (status, some) = put("some", r#"{"topics": ["a", "c", "a", "later"], "start": "4"}"#);
        assert_eq!((status.as_u16(), &some["lag"]), (201, &json!(4)), "{some}");
        assert_eq!(some["topics"], json!(["a", "c", "later"]));
        let (_, end) = put("end", r#"{"topics": ["a"], "start": "end"}"#);
        assert_eq!((&end["lag"], &end["cursor"]), (&json!(0), &json!("10")));

        let (_, page) = desk.get("/subscriptions/some/events?limit=2");
        assert_eq!(page["events"][0]["seq"], 6);
        assert_eq!((&page["count"], &page["next"]), (&json!(2), &json!("7")));
        assert_eq!(ack("some", json!("7")).1["lag"], 2);
        assert_eq!(ack("some", json!(3)).1["cursor"], "7", "never back");
        assert_eq!(ack("some", json!("7")).1["lag"], 2);
        let (status, ahead) = ack("some", json!("11"));
        assert_eq!((status.as_u16(), &ahead["code"]), (409, &json!("cursor_ahead")));
        assert_eq!(ack("all", json!(6)).1["lag"], 4);

        publish(&desk, "later", 1);
        let (_, list) = desk.get("/subscriptions");
        let lags: Vec<_> = list["subscriptions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["name"].as_str().unwrap(), one["lag"].as_i64().unwrap()))
            .collect();
        assert_eq!(lags, [("all", 5), ("end", 0), ("some", 3)]);

        let (status, changed) = put("some", r#"{"topics": ["b"], "start": "end"}"#);
        assert_eq!(
            (status.as_u16(), &changed["cursor"], &changed["lag"]),
            (200, &json!("7"), &json!(1))
        );
        assert_eq!(put("some", "{}").1["lag"], 4);

        assert_eq!(desk.request("DELETE", "/subscriptions/some", "").1["cursor"], "7");
        for (method, path) in [
            ("DELETE", "/subscriptions/some"),
            ("GET", "/subscriptions/some"),
            ("GET", "/subscriptions/some/events"),
        ] {
            let (status, reply) = desk.request(method, path, "");
            assert_eq!((status.as_u16(), &reply["code"]), (404, &json!("subscription_not_found")));
        }
        assert_eq!(ack("some", json!(1)).0, 404);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let desk = Desk::new();
        let too_many: Vec<String> = (0..=TOPICS_MAX).map(|topic| topic.to_string()).collect();
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for (name, body, named) in [
            ("n", json!({"topic": ["a"]}), "topic"),
            ("n", json!({"topics": [""]}), "topic"),
            ("n", json!({"topics": "a"}), "sequence"),
            ("n", json!([["a"], "end"]), "object"),
            ("n", json!({"topics": too_many}), "32 different"),
            ("n", json!({"start": "middle"}), "start"),
            ("n", json!({"start": "-1"}), "start"),
            ("n", json!([1, 2, 3]), "body"),
            ("-n", json!({}), "name"),
            ("n%20m", json!({}), "name"),
            (&long, json!({}), "name"),
        ] {
            let (status, reply) =
                desk.request("PUT", &format!("/subscriptions/{name}"), &body.to_string());
            assert_eq!(status, 422, "{body}");
            assert!(reply["detail"].as_str().unwrap().contains(named), "{reply}");
        }
        for body in [
            "",
            "{}",
            "{",
            r#"{"cursor": -1}"#,
            r#"{"cursor": 1.5}"#,
            r#"{"cursor": ""}"#,
            r#"{"cursor": "1", "more": 1}"#,
            r#"{"cursor": "99999999999999999999"}"#,
        ] {
            let (status, reply) = desk.request("POST", "/subscriptions/n/ack", body);
            assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_body")), "{body}");
        }
        for query in ["limit=0", "limit=1001", "wait=21", "wait=x", "wait=1&wait=1"] {
            let (status, reply) = desk.get(&format!("/subscriptions/n/events?{query}"));
            assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_parameter")));
        }
        assert_eq!(desk.get("/subscriptions").1, json!({"count": 0, "subscriptions": []}));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let desk = Desk::new();
        for number in 0..SUBSCRIPTIONS_MAX {
            assert_eq!(desk.request("PUT", &format!("/subscriptions/{number}"), "").0, 201);
        }
        let (status, reply) = desk.request("PUT", "/subscriptions/more", "");
        assert_eq!((status.as_u16(), &reply["code"]), (409, &json!("too_many_subscriptions")));
        assert_eq!(desk.request("PUT", "/subscriptions/7", "").0, 200, "it is there");
    }

    #[test]
    fn a_read_may_wait() {
        let desk = Desk::new();
        desk.request("PUT", "/subscriptions/n", r#"{"topics": ["a"]}"#);
        let began = desk.slept.get();
        assert_eq!(desk.get("/subscriptions/n/events?wait=3").1["count"], 0);
        assert_eq!((desk.slept.get() - began).as_secs(), 3);
        assert_eq!(desk.get("/subscriptions/n/events").1["count"], 0);
        assert_eq!((desk.slept.get() - began).as_secs(), 3);
    }
}
