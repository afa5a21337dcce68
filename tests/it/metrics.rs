//! GET /metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::prometheus::{Labels, OPEN_METRICS, Scrape, TEXT};
use crate::support::{
    Client, Counters, Reply, Rng, Server, ServerOptions, Target, TestResult, any_server, check,
    check_eq, concurrently, event, own_server, test, unique_topic, wait_until, while_polling,
};

/// Names that end a label, a sample or a line where they are not escaped.
const TOPICS_TO_ESCAPE: [&str; 10] = [
    "plain",
    "a \"quoted\" name",
    "back\\slash",
    "ends with \\",
    "\\n is no line end",
    "two\nlines\r\n",
    "tab\tand\rreturn",
    "😀 שלום",
    r#"",outcome="accepted"} 99"#,
    "{braces=\"x\"} # HELP",
];

/// The topics of a scrape, with the counters that their series come to.
fn topics(scrape: &Scrape) -> Result<BTreeMap<String, Counters>, Failed> {
    let mut topics = BTreeMap::new();
    for (labels, _) in scrape.of("sekali_events_total") {
        let topic = labels.get("topic").ok_or_else(|| format!("no topic in {labels:?}"))?;
        let count = |outcome| {
            let labels = [("topic", topic.as_str()), ("outcome", outcome)];
            scrape.get("sekali_events_total", &labels).map(|count| count as u64)
        };
        let counts = (count("accepted"), count("duplicate"), count("conflict"));
        let (Some(accepted), Some(duplicate), Some(conflict)) = counts else {
            return Err(format!("{topic:?} has {counts:?}").into());
        };
        let counters = Counters {
            received: accepted + duplicate + conflict,
            unique_processed: accepted,
            duplicate_dropped: duplicate + conflict,
            conflicts: conflict,
        };
        topics.insert(topic.clone(), counters);
    }
    Ok(topics)
}

fn stats_by_topic(client: &Client) -> Result<BTreeMap<String, Counters>, Failed> {
    let stats = client.get("/stats")?.expect(200)?.json()?;
    let by_topic = stats["by_topic"].as_object().ok_or("no by_topic")?;
    Ok(by_topic.iter().map(|(topic, json)| (topic.clone(), Counters::of(json))).collect())
}

/// Events of every outcome in topics of every name, before a kill and after it.
#[test(own_server)]
fn events_by_topic_equal_those_of_stats() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let server = ServerOptions::on(&state).start()?;
    let client = server.client();
    check_eq(topics(&Scrape::take(&client)?)?, BTreeMap::new(), "topics of an empty store")?;
    concurrently(TOPICS_TO_ESCAPE.len(), |number| {
        let mut rng = Rng(number as u64);
        for _ in 0..=10 + number {
            let events: Vec<Value> = (0..8)
                .map(|_| {
                    let (id, payload) = (rng.below(20).to_string(), rng.below(2));
                    let topic = TOPICS_TO_ESCAPE[number];
                    json!({"topic": topic, "event_id": id, "source": "it", "payload": payload})
                })
                .collect();
            client.publish(Value::from(events).to_string())?.expect(200)?;
        }
        Ok(())
    })?;
    let definition = json!({"topics": [TOPICS_TO_ESCAPE[1], TOPICS_TO_ESCAPE[5]]}).to_string();
    client.send("PUT", "/subscriptions/named", &[], definition.as_bytes())?.expect(201)?;
    client.send("PUT", "/subscriptions/end", &[], br#"{"start":"end"}"#)?.expect(201)?;

    let scraped = topics(&Scrape::take(&client)?)?;
    let expected: BTreeSet<&str> = TOPICS_TO_ESCAPE.into_iter().collect();
    check_eq(scraped.keys().map(String::as_str).collect(), expected, "topics")?;
    check(scraped.values().all(|topic| topic.conflicts > 0), || format!("{scraped:?}"))?;
    check_eq(&scraped, &stats_by_topic(&client)?, "counters")?;
    server.kill()?;

    let server = ServerOptions::on(&state).start()?;
    let client = server.client();
    let scrape = Scrape::take(&client)?;
    check_eq(&topics(&scrape)?, &scraped, "counters after a restart")?;
    for name in ["named", "end"] {
        let shown = client.get(&format!("/subscriptions/{name}"))?.expect(200)?.json()?;
        let lag = scrape.get("sekali_subscription_lag_events", &[("subscription", name)]);
        check_eq(lag, shown["lag"].as_f64(), &format!("lag of {name}"))?;
    }
    let lag = scrape.get("sekali_subscription_lag_events", &[("subscription", "named")]);
    check(lag > Some(0.0), || format!("lag of some topics: {lag:?}"))
}

#[test(own_server)]
fn rejected_events_are_counted_by_reason() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let deep = format!("{}{}", "[".repeat(501), "]".repeat(501));
    let wrong = [
        (r#"{"event_id":"1","source":"s"}"#.to_owned(), "topic"),
        (r#"{"topic":"","event_id":"1","source":""}"#.to_owned(), "topic"),
        (r#"{"topic":"t","source":"s"}"#.to_owned(), "event_id"),
        (r#"{"topic":"t","event_id":1,"source":"s"}"#.to_owned(), "event_id"),
        (r#"{"topic":"t","event_id":"1"}"#.to_owned(), "source"),
        (r#"{"topic":"t","event_id":"1","source":"s","timestamp":"soon"}"#.to_owned(), "timestamp"),
        (r#"{"topic":"t","event_id":"1","source":"s","payload":"\ud800"}"#.to_owned(), "payload"),
        (format!(r#"{{"topic":"t","event_id":"1","source":"s","payload":{deep}}}"#), "payload"),
        ("5".to_owned(), "event"),
        ("[]".to_owned(), "event"),
    ];
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    let mut count = |reason: &str| *expected.entry(reason.to_owned()).or_default() += 1.0;
    for (event, reason) in &wrong {
        client.publish(format!("[{event}]"))?.expect(422)?;
        count(reason);
    }
    let all: Vec<&str> = wrong.iter().map(|(event, _)| event.as_str()).collect();
    let mixed = format!("[{},{}]", all.join(","), event("t", "good"));
    let reply = client.publish(&mixed)?.expect(200)?;
    check_eq(reply.count("rejected")?, wrong.len() as u64, "rejected of a mixed batch")?;
    let atomic = client.send("POST", "/publish?atomic=true", &[], mixed.as_bytes())?;
    atomic.expect(422)?;
    for (_, reason) in &wrong {
        (0..2).for_each(|_| count(reason));
    }
    // What is no batch of events at all has none that could be counted.
    client.publish("oops")?.expect(422)?;
    client.publish("[]")?.expect(200)?;

    let rejected = |scrape: &Scrape| -> BTreeMap<String, f64> {
        let series = scrape.of("sekali_events_rejected_total");
        series.map(|(labels, count)| (labels.values().cloned().collect(), count)).collect()
    };
    let scrape = Scrape::take(&client)?;
    check_eq(&rejected(&scrape), &expected, "rejected by reason")?;
    let sum: f64 = expected.values().sum();
    let stats = client.get("/stats")?.expect(200)?.json()?;
    check_eq(stats["rejected"].as_f64(), Some(sum), "rejected in /stats")?;
    let state = server.kill()?;
    let server = ServerOptions::on(&state).start()?;
    check_eq(rejected(&Scrape::take(&server.client())?), expected.clone(), "after a restart")
}

/// Every request that had to be stored is in the histograms once, a moment
/// after it was answered; and they agree with each other at every moment.
#[test(own_server)]
fn commit_histograms_add_up() -> TestResult {
    const CLIENTS: usize = 6;
    const REQUESTS: usize = 60;
    let server = Server::start()?;
    let client = server.client();
    let (events, requests) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let poll = || {
        let scrape = Scrape::take(&client)?;
        let (commits, of_requests) = scrape.histogram("sekali_commit_requests")?;
        let (commits_again, of_events) = scrape.histogram("sekali_commit_events")?;
        let (waits, _) = scrape.histogram("sekali_commit_seconds")?;
        check_eq(commits, commits_again, "commits by requests, and by events")?;
        check_eq(waits as f64, of_requests, "requests that waited, and that were committed")?;
        Ok::<_, Failed>((of_requests as usize, of_events as usize))
    };
    while_polling(
        1,
        || poll().map(drop),
        || {
            concurrently(CLIENTS, |number| {
                let mut rng = Rng(number as u64);
                for request in 0..REQUESTS {
                    let size = if request % 3 == 0 { 1 + rng.below(150) as usize } else { 1 };
                    let lines: Vec<String> = (0..size)
                        .map(|place| event("commits", &format!("{number}-{request}-{place}")))
                        .collect();
                    // Some are rejected: alone, or beside others.
                    let wrong = ["", "\n{}"][rng.below(2) as usize];
                    client.publish(format!("{}{wrong}", lines.join("\n")))?.expect(200)?;
                    if request % 10 == 0 {
                        client.publish("[{}]")?.expect(422)?;
                        requests.fetch_add(1, Ordering::Relaxed);
                    }
                    events.fetch_add(size, Ordering::Relaxed);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        },
    )?;
    let expected = (requests.into_inner(), events.into_inner());
    let mut observed = (0, 0);
    let settled = wait_until("all commits are in the histograms", || {
        observed = poll()?;
        Ok((observed == expected).then_some(()))
    });
    settled.map_err(|_| format!("(requests, events): expected {expected:?}, got {observed:?}"))?;
    let state = server.kill()?;
    let server = ServerOptions::on(&state).start()?;
    let scrape = Scrape::take(&server.client())?;
    let (_, of_requests) = scrape.histogram("sekali_commit_requests")?;
    check_eq(of_requests, expected.0 as f64, "requests after a restart")
}

#[test(any_server)]
fn prometheus_text_and_openmetrics_have_the_same_series(target: &Target) -> TestResult {
    let client = target.client();
    client.publish(event(&unique_topic("formats"), "1"))?.expect(200)?;
    let ask = |accept: &str| -> Result<Reply, Failed> {
        client.send("GET", "/metrics", &[("accept", accept)], &[])?.expect(200)
    };
    // As Prometheus 3 asks, and simpler.
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for accept in
        [prometheus, "application/openmetrics-text", "text/html, Application/OpenMetrics-Text"]
    {
        let reply = ask(accept)?;
        check_eq(reply.header("content-type"), Some(OPEN_METRICS), accept)?;
        let ends = reply.text.ends_with("\n# EOF\n") && reply.text.matches("# EOF").count() == 1;
        check(ends, || format!("the end of {reply:#?}"))?;
    }
    for accept in [
        "*/*",
        "text/plain",
        "text/html",
        "application/openmetrics-text;q=0, */*",
        "text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.1",
    ] {
        let reply = ask(accept)?;
        check_eq(reply.header("content-type"), Some(TEXT), accept)?;
        check(!reply.text.contains("# EOF"), || format!("the end of {reply:#?}"))?;
    }
    let text = Scrape::take(&client)?;
    let open = Scrape::read(&ask(prometheus)?.text)?;
    // Subscriptions come and go meanwhile.
    let series = |scrape: &Scrape| -> BTreeSet<(String, Labels)> {
        let lasting = scrape.samples.keys().filter(|(name, _)| !name.contains("subscription"));
        lasting.cloned().collect()
    };
    let missing: Vec<_> = series(&text).difference(&series(&open)).cloned().collect();
    check(missing.is_empty(), || format!("not in OpenMetrics: {missing:?}"))?;
    for (family, text_kind, open_kind) in [
        ("sekali_events", None, Some("counter")),
        ("sekali_events_total", Some("counter"), None),
        ("sekali_events_rejected_total", Some("counter"), None),
        ("sekali_build", None, Some("info")),
        ("sekali_store_size_bytes", Some("gauge"), Some("gauge")),
        ("sekali_content_bytes", Some("gauge"), Some("gauge")),
    ] {
        check_eq(text.kinds.get(family).map(String::as_str), text_kind, family)?;
        check_eq(open.kinds.get(family).map(String::as_str), open_kind, family)?;
    }
    Ok(())
}

/// A thousand topics have series of their own; what more there are is added up.
#[test(own_server)]
fn limits_series_to_1000_topics() -> TestResult {
    const TOPICS: usize = 1000;
    const MORE: usize = 40;
    let server = Server::start()?;
    let client = server.client();
    let publish = |topics: std::ops::Range<usize>| {
        let lines: Vec<String> =
            topics.map(|topic| event(&format!("topic-{topic}"), "1")).collect();
        client.publish(lines.join("\n"))?.expect(200)
    };
    publish(0..TOPICS)?;
    check_eq(topics(&Scrape::take(&client)?)?.len(), TOPICS, "topics that fit")?;
    // One delivery more, and not of a topic that has its series already.
    publish(TOPICS - 10..TOPICS + MORE)?;
    let scrape = Scrape::take(&client)?;
    let series = scrape.of("sekali_events_total");
    let (own, other): (Vec<_>, Vec<_>) =
        series.partition(|(labels, _)| labels.contains_key("topic"));
    check_eq(own.len(), 3 * TOPICS, "series with a topic")?;
    check_eq(other.len(), 3, "series without a topic")?;
    check_eq(own.iter().map(|(_, count)| count).sum(), (TOPICS + 10) as f64, "of topics")?;
    check_eq(other.iter().map(|(_, count)| count).sum(), MORE as f64, "of all others")
}
