//! `GET /metrics`: what Prometheus and its kind watch.
//!
//! Every number comes from the store, where all instances add up what they saw;
//! nothing is of the one instance that happens to answer. See `commit/observed.rs`.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};

use crate::app::App;
use crate::commit::by_key;
use crate::commit::observed::{HISTOGRAMS, Histogram, UNREADABLE_EVENTS, UNREADABLE_VALUES};
use crate::http::accept::{self, Offer};
use crate::http::exposition::{Exposition, Format, Kind};
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::ingest::webhook;
use crate::store::{Counters, Measures, REJECTED_PREFIX, Subscription};

/// Most topics with series of their own: the first that were published. All
/// others together are the series without a topic.
pub(super) const TOPICS_MAX: usize = 1000;

/// Marks the series of what is over a limit of cardinality, as OpenTelemetry
/// does.
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

const OPEN_METRICS: Offer = Offer::new(&["application/openmetrics-text"], "version=1.0.0");
const TEXT: Offer = Offer::new(&["text/plain"], "version=0.0.4");

/// Answers `GET /metrics`.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(super) async fn metrics(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let (measures, subscriptions) = app
        .ask(async |store| {
            let measures = store.measures(TOPICS_MAX).await?;
            Ok((measures, store.subscriptions().await?))
        })
        .await?;
    let (format, content_type) = if accept::prefers(request.headers(), &OPEN_METRICS, &TEXT) {
        (Format::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (Format::Text, "text/plain; version=0.0.4; charset=utf-8")
    };
    let text = write(&measures, &subscriptions, format);
    Ok(Reply::whole(StatusCode::OK, content_type, text.into_bytes())
        .with_header(header::VARY, HeaderValue::from_static("accept")))
}

fn write(measures: &Measures, subscriptions: &[Subscription], format: Format) -> String {
    let mut text = Exposition::new(format);

    text.family(
        "sekali_events",
        Kind::Counter,
        "Deliveries of valid events, by what came of them; they add up to those received.",
    );
    for totals in &measures.topics {
        events(&mut text, &totals.counters, ("topic", &totals.topic));
    }
    if let Some(totals) = &measures.other_topics {
        events(&mut text, totals, OVERFLOW);
    }

    text.family(
        "sekali_events_pruned",
        Kind::Counter,
        "Events whose contents were removed, since they were over a limit of retention.",
    );
    for totals in &measures.topics {
        text.sample(&[("topic", &totals.topic)], totals.counters.pruned);
    }
    if let Some(totals) = &measures.other_topics {
        text.sample(&[OVERFLOW], totals.pruned);
    }

    text.family(
        "sekali_events_rejected",
        Kind::Counter,
        "Deliveries that were no valid events, by the first field that was wrong.",
    );
    let mut unexplained = measures.rejected;
    for (name, count) in &measures.counted {
        if let Some(reason) = name.strip_prefix(REJECTED_PREFIX) {
            text.sample(&[("reason", reason)], *count);
            unexplained -= count;
        }
    }
    // Those that were counted before reasons were kept.
    if unexplained > 0 {
        text.sample(&[("reason", "unknown")], unexplained);
    }

    let by_key = by_key::of(&measures.counted);
    if !by_key.is_empty() {
        text.family(
            "sekali_key_events",
            Kind::Counter,
            "Deliveries by the name of the key that they came by; less the last second of \
             instances that were killed.",
        );
    }
    for (key, counts) in by_key {
        for (outcome, count) in [
            ("accepted", counts.unique_processed),
            ("duplicate", counts.duplicate_dropped - counts.conflicts),
            ("conflict", counts.conflicts),
            ("rejected", counts.rejected),
        ] {
            text.sample(&[("key", key), ("outcome", outcome)], count);
        }
    }

    text.family(
        "sekali_webhooks_refused",
        Kind::Counter,
        "Webhooks that were not signed as they should be, by what was wrong.",
    );
    for reason in webhook::Reason::ALL {
        let count = measures.counted.get(&reason.counter()).copied().unwrap_or(0);
        text.sample(&[("reason", reason.as_str())], count);
    }

    for one in HISTOGRAMS {
        histogram(&mut text, one, measures);
    }

    text.family(
        "sekali_subscription_lag_events",
        Kind::Gauge,
        "Events after the position of a named subscription.",
    );
    for subscription in subscriptions {
        text.sample(&[("subscription", &subscription.name)], subscription.lag);
    }

    text.family(
        "sekali_unreadable_events",
        Kind::Counter,
        "Stored events that could not be shown whole, once for each instance that met them.",
    );
    text.sample(&[], measures.counted.get(UNREADABLE_EVENTS).copied().unwrap_or(0));

    text.family(
        "sekali_unreadable_key_value_values",
        Kind::Counter,
        "Values in the key-value store that could not be read, and were replaced.",
    );
    text.sample(&[], measures.counted.get(UNREADABLE_VALUES).copied().unwrap_or(0));

    text.family("sekali_store_size_bytes", Kind::Gauge, "Size of the database.");
    text.sample(&[], measures.store_bytes);
    text.family(
        "sekali_content_bytes",
        Kind::Gauge,
        "Ids, sources, timestamps and payloads of events that are not pruned.",
    );
    text.sample(&[], measures.content_bytes);
    text.family(
        "sekali_store_created_timestamp_seconds",
        Kind::Gauge,
        "When the database was created.",
    );
    text.sample(&[], measures.created_at as f64 / 1000.0);
    text.family("sekali_build", Kind::Info, "The version that answers.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.finish()
}

fn events(text: &mut Exposition, counters: &Counters, of: (&str, &str)) {
    let identical = counters.duplicate_dropped - counters.conflicts;
    for (outcome, count) in [
        ("accepted", counters.unique_processed),
        ("duplicate", identical),
        ("conflict", counters.conflicts),
    ] {
        text.sample(&[of, ("outcome", outcome)], count);
    }
}

fn histogram(text: &mut Exposition, histogram: &Histogram, measures: &Measures) {
    let count = |name: String| measures.counted.get(&name).copied().unwrap_or(0);
    let shown = |value: i64| value as f64 / histogram.per_unit as f64;
    text.family(&format!("sekali_{}", histogram.name), Kind::Histogram, histogram.help);
    let mut up_to = 0;
    for bound in histogram.bounds {
        up_to += count(histogram.bucket_name(Some(bound)));
        text.bucket(shown(*bound), up_to);
    }
    up_to += count(histogram.bucket_name(None));
    text.bucket(f64::INFINITY, up_to);
    text.sum_and_count(shown(count(histogram.sum_name())), up_to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, TestService};

    fn scrape(service: &TestService, accept: Option<&str>) -> (String, String) {
        let accept: Vec<_> = accept.into_iter().map(|accept| ("accept", accept)).collect();
        let reply = service.send("GET", "/metrics", &accept, "").unwrap();
        let content_type = reply.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (content_type, testing::json(reply).as_str().unwrap().to_owned())
    }

    #[test]
    fn tells_what_the_store_holds() {
        let service = TestService::new();
        for (topic, id, payload) in [("a", 1, 1), ("a", 1, 1), ("a", 1, 2), ("b \\\"\n", 1, 1)] {
            let event = serde_json::json!(
                {"topic": topic, "event_id": id.to_string(), "source": "s", "payload": payload});
            service.publish(&event.to_string());
        }
        service.publish(r#"[{"topic": ""}, {"topic": "a"}, 5]"#);
        service.request("PUT", "/subscriptions/worker", r#"{"topics": ["a"]}"#);
        // What was seen of commits rides along with a later one.
        service.advance(std::time::Duration::from_secs(2));
        service.publish(r#"{"topic": "a", "event_id": "2", "source": "s"}"#);
        let (content_type, text) = scrape(&service, None);
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        for line in [
            "# TYPE sekali_events_total counter",
            r#"sekali_events_total{topic="a",outcome="accepted"} 2"#,
            r#"sekali_events_total{topic="a",outcome="duplicate"} 1"#,
            r#"sekali_events_total{topic="a",outcome="conflict"} 1"#,
            r#"sekali_events_total{topic="b \\\"\n",outcome="accepted"} 1"#,
            r#"sekali_events_rejected_total{reason="event"} 1"#,
            r#"sekali_events_rejected_total{reason="event_id"} 1"#,
            r#"sekali_events_rejected_total{reason="topic"} 1"#,
            r#"sekali_commit_seconds_bucket{le="0.00025"} 5"#,
            r#"sekali_commit_seconds_bucket{le="+Inf"} 5"#,
            "sekali_commit_seconds_count 5",
            r#"sekali_commit_events_bucket{le="1.0"} 5"#,
            "sekali_commit_requests_sum 5.0",
            r#"sekali_subscription_lag_events{subscription="worker"} 2"#,
            "# TYPE sekali_content_bytes gauge",
            "# TYPE sekali_build_info gauge",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        let (content_type, open) =
            scrape(&service, Some("text/plain;q=0.5, application/openmetrics-text;version=1.0.0"));
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(open.contains("# TYPE sekali_events counter\n"), "{open}");
        assert!(open.contains("# TYPE sekali_build info\n"), "{open}");
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn topics_over_the_limit_are_one_series() {
        let service = TestService::new();
        let topic =
            |topic: usize| format!(r#"{{"topic":"{topic:04}","event_id":"1","source":"s"}}"#);
        let batch: Vec<String> = (0..TOPICS_MAX).map(topic).collect();
        service.publish(&format!("[{}]", batch.join(",")));
        assert!(!scrape(&service, None).1.contains("overflow"));
        for one in [9998, 9999, 9999] {
            service.publish(&topic(one));
        }
        let (_, text) = scrape(&service, None);
        let series = |of: &str| text.matches(of).count();
        assert_eq!(series("sekali_events_total{topic="), 3 * TOPICS_MAX);
        for line in [
            r#"sekali_events_total{otel_metric_overflow="true",outcome="accepted"} 2"#,
            r#"sekali_events_total{otel_metric_overflow="true",outcome="duplicate"} 1"#,
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn what_was_rejected_before_reasons_were_kept_is_told() {
        let service = TestService::new();
        service.publish("[5]");
        service.connection.execute("UPDATE service SET rejected = rejected + 7", ()).unwrap();
        let (_, text) = scrape(&service, None);
        assert!(text.contains("sekali_events_rejected_total{reason=\"unknown\"} 7\n"), "{text}");
    }
}
