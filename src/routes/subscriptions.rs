//! `/subscriptions`: named subscriptions, whose positions the service keeps.
//!
//! A consumer reads the events after its position, does its work, and
//! acknowledges; only that moves the position. A consumer that dies between the
//! two reads the same events again: to a consumer, delivery is at least once.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::reading::{self, LIMIT, PAGE_BYTES_MAX, distinct_topics};
use crate::app::App;
use crate::config::Key;
use crate::event::Topic;
use crate::http::event_json::EventJson;
use crate::http::problem::{Code, Problem};
use crate::http::query::{Parameter, Takes};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::store::{Cursor, Definition, Filter, PageLimit, Start, StoredEvent, Subscription};
use crate::time;

/// Most subscriptions of one service.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1000;

/// Longest name, in characters.
pub(super) const NAME_CHARS_MAX: usize = 100;

/// Longest body, in bytes: a parser makes much more of a body than of the topics
/// that there may be, which are never as long.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// Longest time that a read waits for events, in seconds.
pub(super) const WAIT_SECONDS_MAX: u64 = 20;

const WAIT: Parameter =
    Parameter::new("wait", Takes::Integer { unit: " of seconds", min: 0, max: WAIT_SECONDS_MAX });

/// The parameters of a read.
pub(super) const PARAMETERS: [Parameter; 2] = [LIMIT, WAIT];

/// A subscription as it is shown.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct SubscriptionJson<'a> {
    name: &'a str,
    topics: Vec<&'a str>,
    cursor: String,
    lag: i64,
    created_at: String,
    acked_at: Option<String>,
}

impl<'a> SubscriptionJson<'a> {
    fn of(subscription: &'a Subscription) -> Self {
        SubscriptionJson {
            name: &subscription.name,
            topics: subscription.topics.iter().map(Topic::as_str).collect(),
            cursor: subscription.position.to_string(),
            lag: subscription.lag,
            created_at: time::rfc3339(subscription.created_at),
            acked_at: subscription.acked_at.map(time::rfc3339),
        }
    }
}

/// The reply of `GET /subscriptions`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ListJson<'a> {
    count: usize,
    subscriptions: Vec<SubscriptionJson<'a>>,
}

/// The reply of `GET /subscriptions/{name}/events`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PageJson<'a> {
    subscription: &'a str,
    count: usize,
    events: Vec<EventJson<'a>>,
    next: String,
    /// Events before it were pruned, and some may have been for this subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned_before: Option<String>,
}

/// The body of `PUT`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DefinitionJson {
    topics: Option<Vec<String>>,
    start: Option<String>,
}

/// The body of `POST …/ack`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct AcknowledgementJson {
    cursor: CursorJson,
}

/// The `next` of a page, or the `seq` of an event.
#[derive(Deserialize)]
#[serde(untagged, expecting = "cursor must be the next of a page or the seq of an event")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum CursorJson {
    Text(String),
    Seq(u64),
    /// Such as `4.0`, which is a whole number too.
    Whole(#[cfg_attr(test, schemars(with = "u64"))] f64),
}

impl CursorJson {
    /// The greatest number up to which an `f64` holds every whole one.
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

    fn cursor(&self) -> Option<Cursor> {
        match self {
            CursorJson::Text(text) => text.parse().ok(),
            CursorJson::Seq(seq) => seq.to_string().parse().ok(),
            CursorJson::Whole(seq) => {
                let is_seq = (0.0..=Self::WHOLE_MAX).contains(seq) && seq.fract() == 0.0;
                is_seq.then(|| (*seq as u64).to_string().parse().ok())?
            }
        }
    }
}

/// Answers `GET /subscriptions`.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(super) async fn list(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let found = app.ask(async |store| store.subscriptions().await).await?;
    let subscriptions = found.iter().map(SubscriptionJson::of).collect();
    Ok(Reply::json(StatusCode::OK, &ListJson { count: found.len(), subscriptions }))
}

/// Answers `GET /subscriptions/{name}`.
///
/// # Errors
///
/// 404, 422 and 503.
pub(super) async fn show(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = name_of(request)?;
    let found = app.ask(async |store| store.subscription(name).await).await?;
    check_topics(request, found.as_ref())?;
    shown(name, found.as_ref())
}

/// Checks that the topics of a subscription are the caller's business.
fn check_topics(request: &Request<'_>, found: Option<&Subscription>) -> Result<(), Problem> {
    let Some(found) = found else { return Ok(()) };
    request.caller.check_topics(found.topics.iter().map(Topic::as_str))
}

/// The same, of the subscription that is stored, for a caller who may not have all.
async fn check_stored_topics(app: &App, request: &Request<'_>, name: &str) -> Result<(), Problem> {
    if request.caller.key().is_none_or(Key::is_of_all_topics) {
        return Ok(());
    }
    let found = app.ask(async |store| store.subscription(name).await).await?;
    check_topics(request, found.as_ref())
}

/// Answers `PUT /subscriptions/{name}`: 201 for a new one.
///
/// # Errors
///
/// 409 when there are too many or the start lies ahead, 422 and 503.
pub(super) async fn define(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = name_of(request)?;
    let given = match request.body.trim_ascii().is_empty() {
        true => DefinitionJson::default(),
        false => read(request.body)?,
    };
    let topics = distinct_topics(given.topics.unwrap_or_default().into_iter())
        .map_err(|why| Problem::invalid_body(format!("The field topics: a topic {why}.")))?;
    request.caller.check_topics(topics.iter().map(Topic::as_str))?;
    check_stored_topics(app, request, name).await?;
    let start = start(given.start.as_deref())?;
    if let Start::At(cursor) = start
        && cursor > Cursor::START
        && app.ask(async |store| store.subscription(name).await).await?.is_none()
    {
        reading::head_from(app, cursor).await?;
    }
    let definition = Definition { name, topics: &topics, start };
    let defined = app
        .ask(async |store| store.define_subscription(definition, SUBSCRIPTIONS_MAX).await)
        .await?;
    match defined {
        Some(defined) => {
            let status = if defined.revision == 1 { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Reply::json(status, &SubscriptionJson::of(&defined)))
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
pub(super) async fn remove(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = name_of(request)?;
    check_stored_topics(app, request, name).await?;
    let found = app.ask(async |store| store.remove_subscription(name).await).await?;
    shown(name, found.as_ref())
}

/// Answers `POST /subscriptions/{name}/ack`.
///
/// # Errors
///
/// 404, 409 for a cursor ahead of all events, 422 and 503.
pub(super) async fn acknowledge(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = name_of(request)?;
    check_stored_topics(app, request, name).await?;
    let Some(position) = read::<AcknowledgementJson>(request.body)?.cursor.cursor() else {
        return Err(Problem::invalid_body("The field cursor must be the next of a page."));
    };
    let moved = app.ask(async |store| store.acknowledge(name, position).await).await?;
    match moved {
        Some(stayed) if stayed.position < position => {
            let newest = app.ask(async |store| store.head().await).await?;
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
pub(super) async fn events(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let name = name_of(request)?;
    let query = request.query();
    let limit = reading::limit(&query)?;
    let wait_seconds = query.integer(&WAIT)?.unwrap_or(0);
    let deadline = app.platform.monotonic() + Duration::from_secs(wait_seconds);
    check_stored_topics(app, request, name).await?;
    let (of, page) = loop {
        // Before the read: what comes after it is not on the page.
        let head = match wait_seconds {
            0 => Cursor::START,
            _ => poll(app).await?,
        };
        let (of, page) = next_page(app, name, limit).await?;
        if !page.is_empty() || app.platform.monotonic() >= deadline {
            break (of, page);
        }
        while poll(app).await? <= head && app.platform.monotonic() < deadline {
            app.tail.wait_for_poll().await;
        }
    };
    let pruned_before = reading::pruned_before(app, &of.topics, of.position, &page).await?;
    let body = PageJson {
        subscription: name,
        count: page.len(),
        events: page.iter().map(|event| app.show(event)).collect(),
        next: page.last().map_or(of.position, |last| Cursor::after(last.seq)).to_string(),
        pruned_before: pruned_before.map(|place| place.to_string()),
    };
    Ok(Reply::json(StatusCode::OK, &body))
}

/// A subscription, and the events after its position.
async fn next_page(
    app: &App,
    name: &str,
    limit: usize,
) -> Result<(Subscription, Vec<StoredEvent>), Problem> {
    let limit = PageLimit { events_max: limit, bytes_max: PAGE_BYTES_MAX };
    let read = app.ask(async |store| {
        let Some(subscription) = store.subscription(name).await? else { return Ok(None) };
        let Subscription { topics, position, .. } = subscription.clone();
        let filter = Filter { topics, from: Some(position), ..Filter::default() };
        Ok(Some((subscription, store.page(&filter, limit).await?)))
    });
    read.await?.ok_or_else(|| not_found(name))
}

async fn poll(app: &App) -> Result<Cursor, Problem> {
    app.tail.head().await.map_err(|error| app.unavailable(&error))
}

fn shown(name: &str, found: Option<&Subscription>) -> Result<Reply, Problem> {
    match found {
        Some(found) => Ok(Reply::json(StatusCode::OK, &SubscriptionJson::of(found))),
        None => Err(not_found(name)),
    }
}

fn not_found(name: &str) -> Problem {
    Problem::new(Code::SubscriptionNotFound, format!("There is no subscription {name}."))
}

/// The name in the path.
fn name_of<'a>(request: &Request<'a>) -> Result<&'a str, Problem> {
    let name = request.name;
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"._-".contains(&one);
    if starts_well && name.len() <= NAME_CHARS_MAX && name.bytes().all(is_plain) {
        return Ok(name);
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
    if body.len() > BODY_BYTES_MAX {
        let detail = format!("A body about a subscription has at most {BODY_BYTES_MAX} bytes.");
        return Err(Problem::new(Code::BodyTooLarge, detail));
    }
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
        None | Some("beginning") => Ok(Start::At(Cursor::START)),
        Some("end") => Ok(Start::End),
        Some(cursor) => cursor.parse().map(Start::At).map_err(|_| {
            Problem::invalid_body("The field start must be beginning, end or the next of a page.")
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::routes::reading::TOPICS_MAX;
    use crate::testing::TestService;

    fn publish(service: &TestService, topic: &str, id: usize) {
        service.publish(
            &json!({"topic": topic, "event_id": id.to_string(), "source": "s"}).to_string(),
        );
    }

    #[test]
    fn a_position_moves_forward_only_and_the_lag_is_exact() {
        let service = TestService::new();
        for id in 0..10 {
            publish(&service, ["a", "b", "c"][id % 3], id);
        }
        let put = |name: &str, body: &str| {
            service.request("PUT", &format!("/subscriptions/{name}"), body)
        };
        let ack = |name: &str, cursor: serde_json::Value| {
            let body = json!({ "cursor": cursor }).to_string();
            service.request("POST", &format!("/subscriptions/{name}/ack"), &body)
        };
        let (status, all) = put("all", "");
        assert_eq!((status.as_u16(), &all["lag"], &all["cursor"]), (201, &json!(10), &json!("0")));
        assert_eq!(put("all", "{}").0, 200);
        let (status, some) = put("some", r#"{"topics": ["a", "c", "a", "later"], "start": "4"}"#);
        assert_eq!((status.as_u16(), &some["lag"]), (201, &json!(4)), "{some}");
        assert_eq!(some["topics"], json!(["a", "c", "later"]));
        let (_, end) = put("end", r#"{"topics": ["a"], "start": "end"}"#);
        assert_eq!((&end["lag"], &end["cursor"]), (&json!(0), &json!("10")));

        let (_, page) = service.get("/subscriptions/some/events?limit=2");
        assert_eq!(page["events"][0]["seq"], 6);
        assert_eq!((&page["count"], &page["next"]), (&json!(2), &json!("7")));
        assert_eq!(ack("some", json!("7")).1["lag"], 2);
        assert_eq!(ack("some", json!(3)).1["cursor"], "7", "never back");
        assert_eq!(ack("some", json!("7")).1["lag"], 2);
        let (status, ahead) = ack("some", json!("11"));
        assert_eq!((status.as_u16(), &ahead["code"]), (409, &json!("cursor_ahead")));
        assert_eq!(ack("all", json!(6)).1["lag"], 4);

        publish(&service, "later", 1);
        let (_, list) = service.get("/subscriptions");
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

        assert_eq!(service.request("DELETE", "/subscriptions/some", "").1["cursor"], "7");
        for (method, path) in [
            ("DELETE", "/subscriptions/some"),
            ("GET", "/subscriptions/some"),
            ("GET", "/subscriptions/some/events"),
        ] {
            let (status, reply) = service.request(method, path, "");
            assert_eq!((status.as_u16(), &reply["code"]), (404, &json!("subscription_not_found")));
        }
        assert_eq!(ack("some", json!(1)).0, 404);
    }

    #[test]
    fn bodies_are_bounded() {
        let service = TestService::new();
        let define = |body: &str| service.request("PUT", "/subscriptions/a", body).0.as_u16();
        let topics: Vec<String> =
            (0..TOPICS_MAX).map(|one| format!("{}{one:02}", r"\ud83d\ude00".repeat(253))).collect();
        let body = format!(r#"{{"topics":["{}"]}}"#, topics.join("\",\""));
        assert_eq!(define(&body), 201, "the longest there can be");
        let body = format!(r#"{{"topics":["{}"]}}"#, "x".repeat(BODY_BYTES_MAX));
        assert_eq!(define(&body), 413);
        let ack = format!(r#"{{"cursor":[{}]}}"#, "1,".repeat(BODY_BYTES_MAX));
        let (status, reply) = service.request("POST", "/subscriptions/a/ack", &ack);
        assert_eq!((status.as_u16(), &reply["code"]), (413, &json!("body_too_large")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let service = TestService::new();
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
                service.request("PUT", &format!("/subscriptions/{name}"), &body.to_string());
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
            let (status, reply) = service.request("POST", "/subscriptions/n/ack", body);
            assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_body")), "{body}");
        }
        for query in ["limit=0", "limit=1001", "wait=21", "wait=x", "wait=1&wait=1"] {
            let (status, reply) = service.get(&format!("/subscriptions/n/events?{query}"));
            assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_parameter")));
        }
        assert_eq!(service.get("/subscriptions").1, json!({"count": 0, "subscriptions": []}));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let service = TestService::new();
        for number in 0..SUBSCRIPTIONS_MAX {
            assert_eq!(service.request("PUT", &format!("/subscriptions/{number}"), "").0, 201);
        }
        let (status, reply) = service.request("PUT", "/subscriptions/more", "");
        assert_eq!((status.as_u16(), &reply["code"]), (409, &json!("too_many_subscriptions")));
        assert_eq!(service.request("PUT", "/subscriptions/7", "").0, 200, "it is there");
    }

    #[test]
    fn a_read_may_wait() {
        let service = TestService::new();
        service.request("PUT", "/subscriptions/n", r#"{"topics": ["a"]}"#);
        let began = service.slept.get();
        assert_eq!(service.get("/subscriptions/n/events?wait=3").1["count"], 0);
        assert_eq!((service.slept.get() - began).as_secs(), 3);
        assert_eq!(service.get("/subscriptions/n/events").1["count"], 0);
        assert_eq!((service.slept.get() - began).as_secs(), 3);
    }
}
