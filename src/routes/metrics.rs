//! `GET /metrics`: what Prometheus and its kind watch.
//!
//! Every number comes from the store, where all instances add up what they saw;
//! nothing is of the one instance that happens to answer. See `counts.rs`.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::commit;
use crate::commit::observed::{HISTOGRAMS, Histogram, REJECTED};
use crate::config::Config;
use crate::http::exposition::{Exposition, Format, Kind};
use crate::http::problem::Problem;
use crate::http::reply::{self, Reply};
use crate::platform::Ports;
use crate::store::sqlite::event_log::subscriptions::{self, Subscription};
use crate::store::sqlite::event_log::{self, Measures, TopicTotals};

/// Most topics with series of their own: the first that were published. All
/// others together are the series without a topic.
const TOPICS_MAX: usize = 1000;

/// Marks the series of what is over a limit of cardinality, as OpenTelemetry
/// does.
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Answers `GET /metrics`.
///
/// # Errors
///
/// 503 when the SQL store does not answer.
pub async fn metrics(
    ports: &impl Ports,
    config: &Config,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let (measures, subscriptions) = commit::ask(ports, config, async || {
        let measures = event_log::measures(ports, TOPICS_MAX).await?;
        Ok((measures, subscriptions::list(ports).await?))
    })
    .await?;
    let wants_open_metrics =
        reply::accepts(headers, |range| reply::is_media_type(range, OPEN_METRICS));
    let (format, content_type) = if wants_open_metrics {
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
        events(&mut text, totals, ("topic", &totals.topic));
    }
    if let Some(totals) = &measures.other_topics {
        events(&mut text, totals, OVERFLOW);
    }

    text.family(
        "sekali_events_rejected",
        Kind::Counter,
        "Deliveries that were no valid events, by the first field that was wrong.",
    );
    let mut unexplained = measures.rejected;
    for (name, count) in &measures.counts {
        if let Some(reason) = name.strip_prefix(REJECTED) {
            text.sample(&[("reason", reason)], *count);
            unexplained -= count;
        }
    }
    // Those that were counted before reasons were kept.
    if unexplained > 0 {
        text.sample(&[("reason", "unknown")], unexplained);
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

    text.family("sekali_store_size_bytes", Kind::Gauge, "Size of the database.");
    text.sample(&[], measures.store_bytes);
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

fn events(text: &mut Exposition, totals: &TopicTotals, of: (&str, &str)) {
    let identical = totals.duplicate_dropped - totals.conflicts;
    for (outcome, count) in [
        ("accepted", totals.unique_processed),
        ("duplicate", identical),
        ("conflict", totals.conflicts),
    ] {
        text.sample(&[of, ("outcome", outcome)], count);
    }
}

fn histogram(text: &mut Exposition, histogram: &Histogram, measures: &Measures) {
    let count = |name: String| measures.counts.get(&name).copied().unwrap_or(0);
    let shown = |value: i64| value as f64 / histogram.per_unit as f64;
    text.family(&format!("sekali_{}", histogram.name), Kind::Histogram, histogram.help);
    let mut up_to = 0;
    for bound in histogram.bounds {
        up_to += count(histogram.bucket(Some(bound)));
        text.bucket(shown(*bound), up_to);
    }
    up_to += count(histogram.bucket(None));
    text.bucket(f64::INFINITY, up_to);
    text.sum_and_count(shown(count(histogram.sum())), up_to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{Desk, config, now};

    fn scrape(desk: &Desk, accept: Option<&'static str>) -> (String, String) {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        let reply = now(metrics(desk, &config(), &headers)).unwrap();
        let content_type = reply.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (content_type, crate::platform::fake::json(reply).as_str().unwrap().to_owned())
    }

    #[test]
    fn tells_what_the_store_holds() {
        let desk = Desk::new();
        for (topic, id, payload) in [("a", 1, 1), ("a", 1, 1), ("a", 1, 2), ("b \\\"\n", 1, 1)] {
            let event = serde_json::json!(
                {"topic": topic, "event_id": id.to_string(), "source": "s", "payload": payload});
            desk.publish(&event.to_string());
        }
        desk.publish(r#"[{"topic": ""}, {"topic": "a"}, 5]"#);
        desk.request("PUT", "/subscriptions/worker", r#"{"topics": ["a"]}"#);
        // What was seen of commits rides along with a later one.
        desk.slept.set(desk.slept.get() + std::time::Duration::from_secs(2));
        desk.publish(r#"{"topic": "a", "event_id": "2", "source": "s"}"#);
        let (content_type, text) = scrape(&desk, None);
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
            "# TYPE sekali_build_info gauge",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        let (content_type, open) =
            scrape(&desk, Some("text/plain;q=0.5, application/openmetrics-text;version=1.0.0"));
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(open.contains("# TYPE sekali_events counter\n"), "{open}");
        assert!(open.contains("# TYPE sekali_build info\n"), "{open}");
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn topics_over_the_limit_are_one_series() {
        let desk = Desk::new();
        let topic =
            |topic: usize| format!(r#"{{"topic":"{topic:04}","event_id":"1","source":"s"}}"#);
        let batch: Vec<String> = (0..TOPICS_MAX).map(topic).collect();
        desk.publish(&format!("[{}]", batch.join(",")));
        assert!(!scrape(&desk, None).1.contains("overflow"));
        for one in [9998, 9999, 9999] {
            desk.publish(&topic(one));
        }
        let (_, text) = scrape(&desk, None);
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
        let desk = Desk::new();
        desk.publish("[5]");
        desk.connection.execute("UPDATE service SET rejected = rejected + 7", ()).unwrap();
        let (_, text) = scrape(&desk, None);
        assert!(text.contains("sekali_events_rejected_total{reason=\"unknown\"} 7\n"), "{text}");
    }
}
