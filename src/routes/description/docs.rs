//! The tables of the docs.

use std::collections::BTreeMap;

use super::limits::{check_sentence, thousands};
use super::problems::codes;
use super::{Drifts, variable, variables};
use crate::commit::{GROUP_EVENTS_MAX, WAITING_BYTES_MAX, WAITING_EVENTS_MAX};
use crate::event::{NAME_CHARS_MAX, PAYLOAD_DEPTH_MAX};
use crate::history::HISTORY_MINUTES_MAX;
use crate::http::coding::{COMPRESSED_BYTES_MIN, GZIP_MEMBERS_MAX, ZSTD_WINDOW_BYTES_MAX};
use crate::http::request::DISCARD_BYTES_MAX;
use crate::http::room::PUBLISH_REPLY_BYTES_MAX;
use crate::http::sse::SILENCE_SECONDS_MAX;
use crate::http::trace::REQUEST_ID_BYTES_MAX;
use crate::ingest::{loki, otlp, webhook};
use crate::routes::publish_stream::{
    STREAM_AHEAD_BYTES_MAX, STREAM_COMMIT_EVENTS_MAX, STREAM_SILENCE_SECONDS_MAX,
};
use crate::routes::reading::{PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX, TOPICS_MAX};
use crate::routes::{OPERATIONS, find, metrics, search, stats, stats_stream, subscriptions};
use crate::testing::TestService;
use crate::time::TIMESTAMP_BYTES_MAX;

pub(super) const HTTP: &str = include_str!("../../../docs/http.md");
pub(super) const OPERATING: &str = include_str!("../../../docs/operating.md");

/// The rows of the first table under a heading, without its head.
fn table<'t>(text: &'t str, heading: &str) -> Vec<Vec<&'t str>> {
    let lines = text.lines().skip_while(|line| *line != heading);
    let table =
        lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &'t str| row.trim_matches('|').split('|').map(str::trim).collect();
    table.skip(2).map(cells).collect()
}

/// What stands in a cell as code.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A table of names and values is that of the code.
fn check_values(
    place: &str,
    said: Vec<Vec<&str>>,
    known: &BTreeMap<&str, String>,
    drifts: &mut Drifts,
) {
    let named = |row: &Vec<&str>| code(row[0]).next().unwrap_or_default().to_owned();
    drifts.names(place, said.iter().map(named), known.keys().copied());
    for row in said {
        let name = named(&row);
        if let Some(value) = known.get(name.as_str()) {
            drifts.same(format!("{place}, {name}"), row[1], value);
        }
    }
}

pub(super) fn check_limits(http: &str, drifts: &mut Drifts) {
    let known = BTreeMap::from([
        ("body_bytes_max", variable("body_bytes_max")),
        ("batch_events_max", variable("batch_events_max")),
        ("publish_reply_bytes_max", PUBLISH_REPLY_BYTES_MAX.to_string()),
        ("name_chars_max", NAME_CHARS_MAX.to_string()),
        ("payload_depth_max", PAYLOAD_DEPTH_MAX.to_string()),
        ("timestamp_bytes_max", TIMESTAMP_BYTES_MAX.to_string()),
        ("page_events_max", PAGE_EVENTS_MAX.to_string()),
        ("page_events_default", PAGE_EVENTS_DEFAULT.to_string()),
        ("page_bytes_max", PAGE_BYTES_MAX.to_string()),
        ("search_events_max", search::SEARCH_EVENTS_MAX.to_string()),
        ("search_bytes_max", search::SEARCH_BYTES_MAX.to_string()),
        ("contains_chars_max", search::CONTAINS_CHARS_MAX.to_string()),
        ("matches_max", search::MATCHES_MAX.to_string()),
        ("match_chars_max", search::MATCH_CHARS_MAX.to_string()),
        ("otlp_value_depth_max", otlp::VALUE_DEPTH_MAX.to_string()),
        ("otlp_record_bytes_max", otlp::RECORD_BYTES_MAX.to_string()),
        ("otlp_resource_bytes_max", otlp::RESOURCE_BYTES_MAX.to_string()),
        ("loki_line_bytes_max", loki::LINE_BYTES_MAX.to_string()),
        ("loki_labels_bytes_max", loki::LABELS_BYTES_MAX.to_string()),
        ("webhook_tolerance_seconds", variable("webhook_tolerance_seconds")),
        ("webhook_signatures_max", webhook::SIGNATURES_MAX.to_string()),
        ("topics_max", TOPICS_MAX.to_string()),
        ("subscriptions_max", subscriptions::SUBSCRIPTIONS_MAX.to_string()),
        ("subscription_name_chars_max", subscriptions::NAME_CHARS_MAX.to_string()),
        ("subscription_body_bytes_max", subscriptions::BODY_BYTES_MAX.to_string()),
        ("wait_seconds_max", subscriptions::WAIT_SECONDS_MAX.to_string()),
        ("waiting_events_max", WAITING_EVENTS_MAX.to_string()),
        ("waiting_bytes_max", WAITING_BYTES_MAX.to_string()),
        ("stream_commit_events_max", STREAM_COMMIT_EVENTS_MAX.to_string()),
        ("stream_ahead_bytes_max", STREAM_AHEAD_BYTES_MAX.to_string()),
        ("stream_silence_seconds_max", STREAM_SILENCE_SECONDS_MAX.to_string()),
        ("group_events_max", GROUP_EVENTS_MAX.to_string()),
        ("stats_topics_max", stats::TOPICS_MAX.to_string()),
        ("stats_topics_default", stats::TOPICS_DEFAULT.to_string()),
        ("stats_stream_topics_max", stats_stream::TOPICS_MAX.to_string()),
        ("metrics_topics_max", metrics::TOPICS_MAX.to_string()),
        ("history_minutes_max", HISTORY_MINUTES_MAX.to_string()),
        ("gzip_members_max", GZIP_MEMBERS_MAX.to_string()),
        ("zstd_window_bytes_max", ZSTD_WINDOW_BYTES_MAX.to_string()),
        ("request_id_bytes_max", REQUEST_ID_BYTES_MAX.to_string()),
        ("discard_bytes_max", DISCARD_BYTES_MAX.to_string()),
    ]);
    check_values("limits in http.md", table(http, "## Limits"), &known, drifts);
    for words in [
        format!("string of 1 to {NAME_CHARS_MAX} characters"),
        format!("events on the page: 1 to {PAGE_EVENTS_MAX}, by default {PAGE_EVENTS_DEFAULT}"),
        format!("only these; up to {TOPICS_MAX}, each as a parameter of its own"),
        format!("A comment line every {SILENCE_SECONDS_MAX} s"),
        format!("The name has 1 to {} letters", subscriptions::NAME_CHARS_MAX),
        format!("`topics` are up to {TOPICS_MAX}"),
        format!("`wait` are the seconds, 0 to {}", subscriptions::WAIT_SECONDS_MAX),
        format!(
            "by default {} and at most {}",
            thousands(stats::TOPICS_DEFAULT),
            thousands(stats::TOPICS_MAX)
        ),
        format!("A reply of {} bytes and more", thousands(COMPRESSED_BYTES_MIN)),
        format!("of the {} topics with the most deliveries", stats_stream::TOPICS_MAX),
        format!("The first {} topics have series", thousands(metrics::TOPICS_MAX)),
        format!("there are {} already", thousands(subscriptions::SUBSCRIPTIONS_MAX)),
    ] {
        check_sentence("http.md", http, &words, drifts);
    }
}

pub(super) fn check_routes(http: &str, drifts: &mut Drifts) {
    let known = OPERATIONS.iter().map(|operation| operation.path);
    let known = known.map(|path| format!("{} {path}", find(path).unwrap().allowed()));
    let said = table(http, "## Routes");
    let said = said.iter().map(|row| format!("{} {}", row[0], row[1].trim_matches('`')));
    drifts.names("routes in http.md", said, known);
}

pub(super) fn check_errors(http: &str, drifts: &mut Drifts) {
    let known = codes();
    let known = known.iter().map(|(code, (status, _))| format!("{status} {code}"));
    let said = table(http, "## Errors");
    let said = said.iter().flat_map(|row| code(row[1]).map(|code| format!("{} {code}", row[0])));
    drifts.names("errors in http.md", said, known);
}

pub(super) fn check_metrics(http: &str, drifts: &mut Drifts) {
    let (_, text) = TestService::new().get("/metrics");
    let families = text.as_str().unwrap_or_default().lines();
    let families = families.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let said = table(http, "## `GET /metrics`");
    let said = said.iter().flat_map(|row| code(row[0])).filter_map(|name| name.split('{').next());
    drifts.names("metrics in http.md", said, families);
}

pub(super) fn check_variables(operating: &str, drifts: &mut Drifts) {
    let known = variables();
    let known = known.iter().map(|(name, default)| (name.as_str(), default.clone())).collect();
    check_values("variables in operating.md", table(operating, "## Configuration"), &known, drifts);
}

#[test]
fn the_tables_of_the_docs_are_those_of_the_code() {
    let mut drifts = Drifts::default();
    for check in [check_limits, check_routes, check_errors, check_metrics] {
        check(HTTP, &mut drifts);
    }
    check_variables(OPERATING, &mut drifts);
    drifts.assert_none();
}
