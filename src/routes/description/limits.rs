//! Numbers that are constants of the code, or defaults of variables.

use std::fmt::Display;

use serde_json::{Value, json};

use super::{Description, Drifts, variable};
use crate::config::KEYS_MAX;
use crate::event::{NAME_CHARS_MAX, PAYLOAD_DEPTH_MAX};
use crate::history::HISTORY_MINUTES_MAX;
use crate::http::coding::COMPRESSED_BYTES_MIN;
use crate::http::room::PUBLISH_REPLY_BYTES_MAX;
use crate::http::sse::{RECONNECT_MS, SILENCE_SECONDS_MAX};
use crate::http::trace::REQUEST_ID_BYTES_MAX;
use crate::ingest::webhook;
use crate::routes::reading::{PAGE_EVENTS_MAX, TOPICS_MAX};
use crate::routes::{publish_stream, search, stats, stats_stream, subscriptions};
use crate::store::Cursor;
use crate::time::TIMESTAMP_BYTES_MAX;

/// Keywords that set a limit.
const KEYWORDS: [&str; 5] =
    ["maxItems", "maxLength", "maxProperties", "maximum", "exclusiveMaximum"];

/// The highest status that HTTP has.
const STATUS_MAX: u16 = 599;

/// Every limit of the description, but those of parameters, which are held
/// against the route table.
fn limits() -> Vec<(&'static str, Value)> {
    vec![
        ("/components/schemas/Name/maxLength", json!(NAME_CHARS_MAX)),
        (
            "/components/schemas/EventToPublish/properties/timestamp/maxLength",
            json!(TIMESTAMP_BYTES_MAX),
        ),
        ("/components/schemas/Event/properties/timestamp/maxLength", json!(TIMESTAMP_BYTES_MAX)),
        ("/components/schemas/Page/properties/events/maxItems", json!(PAGE_EVENTS_MAX)),
        ("/components/schemas/SubscriptionPage/properties/events/maxItems", json!(PAGE_EVENTS_MAX)),
        (
            "/paths/~1events/get/responses/200/x-content/application~1x-ndjson/schema/maxItems",
            json!(PAGE_EVENTS_MAX),
        ),
        (
            "/paths/~1events/get/responses/200/x-content/application~1cloudevents-batch+json\
             /schema/maxItems",
            json!(PAGE_EVENTS_MAX),
        ),
        (
            "/paths/~1stats~1history/get/responses/200/content/application~1json/schema/maxItems",
            json!(HISTORY_MINUTES_MAX),
        ),
        (
            "/components/schemas/LiveStats/allOf/1/properties/topics/maxItems",
            json!(stats_stream::TOPICS_MAX),
        ),
        ("/components/schemas/Stats/allOf/1/properties/topics/maxItems", json!(stats::TOPICS_MAX)),
        ("/components/schemas/Stats/allOf/1/properties/by_key/maxProperties", json!(KEYS_MAX)),
        (
            "/components/schemas/Stats/allOf/1/properties/by_topic/maxProperties",
            json!(stats::TOPICS_MAX),
        ),
        ("/components/schemas/SubscriptionToPut/properties/topics/maxItems", json!(TOPICS_MAX)),
        ("/components/schemas/Subscription/properties/topics/maxItems", json!(TOPICS_MAX)),
        (
            "/components/schemas/Subscriptions/properties/subscriptions/maxItems",
            json!(subscriptions::SUBSCRIPTIONS_MAX),
        ),
        (
            "/components/schemas/Acknowledgement/properties/cursor/anyOf/1/maximum",
            json!(Cursor::END.number()),
        ),
        ("/components/schemas/RequestId/maxLength", json!(REQUEST_ID_BYTES_MAX)),
        ("/components/schemas/Problem/properties/status/maximum", json!(STATUS_MAX)),
        ("/components/schemas/StatsFrame/properties/retry/const", json!(RECONNECT_MS)),
        (
            "/components/schemas/SubscriptionName/pattern",
            json!(format!(
                "^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$",
                subscriptions::NAME_CHARS_MAX - 1
            )),
        ),
    ]
}

/// Limits in sentences: where, and the words that have to be there.
fn sentences() -> Vec<(&'static str, String)> {
    let (events, bytes) = (variable("batch_events_max"), variable("body_bytes_max"));
    let subscriptions = thousands(subscriptions::SUBSCRIPTIONS_MAX);
    let silence = format!("nothing else for {SILENCE_SECONDS_MAX} seconds");
    vec![
        (
            "/components/headers/ContentEncoding/description",
            format!("{} bytes and more", thousands(COMPRESSED_BYTES_MIN)),
        ),
        ("/components/schemas/Name/description", format!("1 to {NAME_CHARS_MAX} characters")),
        (
            "/components/schemas/EventToPublish/properties/payload/description",
            format!("at most {PAYLOAD_DEPTH_MAX} levels"),
        ),
        (
            "/paths/~1publish/post/description",
            format!("`batch_events_max` events ({} unless", thousands(&events)),
        ),
        (
            "/paths/~1publish/post/description",
            format!("`body_bytes_max` bytes ({})", thousands(&bytes)),
        ),
        (
            "/paths/~1publish/post/description",
            format!("at most {} bytes", thousands(PUBLISH_REPLY_BYTES_MAX)),
        ),
        (
            "/paths/~1webhooks~1{topic}/post/description",
            format!("may be {} seconds off", variable("webhook_tolerance_seconds")),
        ),
        (
            "/paths/~1webhooks~1{topic}/post/description",
            format!("up to {} signatures", webhook::SIGNATURES_MAX),
        ),
        (
            "/paths/~1publish~1stream/post/description",
            format!("up to {} events", thousands(publish_stream::STREAM_COMMIT_EVENTS_MAX)),
        ),
        (
            "/paths/~1publish~1stream/post/description",
            format!("at most {} bytes ahead", thousands(publish_stream::STREAM_AHEAD_BYTES_MAX)),
        ),
        (
            "/paths/~1publish~1stream/post/description",
            format!("`body_bytes_max` bytes ({})", thousands(&bytes)),
        ),
        (
            "/paths/~1publish~1stream/post/description",
            format!("nothing for {} seconds", publish_stream::STREAM_SILENCE_SECONDS_MAX),
        ),
        (
            "/paths/~1events/get/description",
            format!("no more than {} events", thousands(search::SEARCH_EVENTS_MAX)),
        ),
        (
            "/paths/~1events/get/description",
            format!("until {} bytes of them", thousands(search::SEARCH_BYTES_MAX)),
        ),
        (
            "/paths/~1events/parameters/3/description",
            format!("Up to {}, each as a parameter", search::MATCHES_MAX),
        ),
        (
            "/paths/~1events~1stream/parameters/0/description",
            format!("1 to {TOPICS_MAX} different ones"),
        ),
        ("/paths/~1events~1stream/get/description", format!("retry: {RECONNECT_MS}\n")),
        ("/paths/~1events~1stream/get/description", silence.clone()),
        ("/paths/~1stats~1stream/get/description", silence),
        (
            "/paths/~1stats~1stream/get/description",
            format!("at most every {} ms", stats_stream::POLL_INTERVAL_MS),
        ),
        (
            "/paths/~1stats~1history/get/description",
            format!("for {} hours", HISTORY_MINUTES_MAX / 60),
        ),
        ("/paths/~1subscriptions/get/description", format!("{subscriptions} at most")),
        (
            "/paths/~1subscriptions~1{name}/put/responses/409/description",
            format!("{subscriptions} subscriptions already"),
        ),
    ]
}

/// A number as a sentence has it: `10,000`.
pub(super) fn thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// Every limit is that of the code, and there is no other.
pub(super) fn check_limits(description: &Description, drifts: &mut Drifts) {
    let limits = limits();
    for (place, code) in &limits {
        drifts.same(place, description.at(place), code);
    }
    for (place, said) in sentences() {
        check_sentence(place, description.at(place).as_str().unwrap_or_default(), &said, drifts);
    }
    for (place, _) in description.values() {
        let is_limit = KEYWORDS.iter().any(|keyword| place.ends_with(&format!("/{keyword}")));
        let is_known = limits.iter().any(|(known, _)| *known == place);
        if is_limit && !is_known && !place.contains("/parameters/") {
            drifts.add(place, "a limit that no constant is held against");
        }
    }
}

/// The words are somewhere in a text.
pub(super) fn check_sentence(place: &str, text: &str, words: &str, drifts: &mut Drifts) {
    if !text.contains(words) {
        drifts.add(place, format_args!("does not say {words:?}, as the code has it"));
    }
}

#[test]
fn every_limit_is_described() {
    let mut drifts = Drifts::default();
    check_limits(&Description::read(), &mut drifts);
    drifts.assert_none();
}
