use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, Counters, Reply};
use crate::harness::{
    Outcome, Server, Spread, Start, Target, at_once, check, check_eq, event, root, unique_topic,
    until, watched,
};
use crate::registry::{any_server, own_server, test};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names that end a label, a sample or a line where they are not escaped.
const ODD_TOPICS: [&str; 10] = [
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

type Labels = BTreeMap<String, String>;

/// What a scrape told: the samples by name and labels.
#[derive(Debug, PartialEq)]
struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    fn take(client: &Client) -> Result<Self, Failed> {
        let reply = client.get("/metrics")?.expect(200)?;
        check_eq(reply.header("content-type"), Some(TEXT), "content-type")?;
        Self::read(&reply.text)
    }

    /// Reads either format. Families are described before their samples, and
    /// stand together; no series comes twice.
    fn read(text: &str) -> Result<Self, Failed> {
        let mut scrape = Scrape { samples: BTreeMap::new(), kinds: BTreeMap::new() };
        let mut family = String::new();
        let mut described = String::new();
        let text = text.strip_suffix("# EOF\n").unwrap_or(text);
        let whole = text.strip_suffix('\n').ok_or("the last line has no end")?;
        // Not `lines()`, which takes a carriage return for part of the end.
        for line in whole.split('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                described = help.split(' ').next().unwrap_or_default().to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').ok_or_else(|| format!("odd: {line:?}"))?;
                check_eq(name, described.as_str(), "the family that was described")?;
                let known = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                check(known.is_none(), || format!("{name} comes twice"))?;
                family = name.to_owned();
            } else {
                let (name, labels, value) = sample(line)?;
                let suffix = name.strip_prefix(&family).unwrap_or("(another family)");
                let is_of_family =
                    ["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&suffix);
                check(is_of_family, || format!("{line:?} stands in the family {family}"))?;
                let known = scrape.samples.insert((name, labels), value);
                check(known.is_none(), || format!("{line:?} comes twice"))?;
            }
        }
        Ok(scrape)
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        let samples = self.samples.iter().filter(move |((other, _), _)| other == name);
        samples.map(|((_, labels), value)| (labels, *value))
    }

    /// Count and sum of a histogram, whose buckets are cumulative and end with
    /// the count.
    fn histogram(&self, name: &str) -> Result<(u64, f64), Failed> {
        check_eq(self.kinds.get(name).map(String::as_str), Some("histogram"), name)?;
        let mut buckets = Vec::new();
        for (labels, value) in self.of(&format!("{name}_bucket")) {
            let le = labels.get("le").map(String::as_str).unwrap_or_default();
            let bound: f64 = le.parse().map_err(|error| format!("le {le:?}: {error}"))?;
            buckets.push((bound, value));
        }
        buckets.sort_by(|one, next| one.0.total_cmp(&next.0));
        let rises = buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1);
        check(rises && buckets.len() > 2, || format!("{name}: {buckets:?}"))?;
        let count = self.get(&format!("{name}_count"), &[]).unwrap_or(-1.0);
        check_eq(buckets.last().copied(), Some((f64::INFINITY, count)), name)?;
        let sum = self.get(&format!("{name}_sum"), &[]).unwrap_or(-1.0);
        check(count >= 0.0 && sum >= 0.0, || format!("{name}: {count} observations of {sum}"))?;
        Ok((count as u64, sum))
    }
}

/// The name, the labels and the value of a sample.
fn sample(line: &str) -> Result<(String, Labels, f64), Failed> {
    let odd = |what: &str| Failed::from(format!("{what} in the sample {line:?}"));
    let end = line.find(['{', ' ']).ok_or_else(|| odd("no value"))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"").ok_or_else(|| odd("no label"))?;
            let (value, after) = unescaped(value).ok_or_else(|| odd("a label without an end"))?;
            let known = labels.insert(label.to_owned(), value);
            check(known.is_none(), || format!("{label} is given twice in {line:?}"))?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
    Ok((name.to_owned(), labels, value.ok_or_else(|| odd("no number"))?))
}

/// A label's value up to its closing quote, and what follows.
fn unescaped(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (place, '"') => return Some((value, &text[place + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            (_, other) => value.push(other),
        }
    }
}

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
fn events_by_topic_equal_those_of_stats() -> Outcome {
    let state = Arc::new(TempDir::new()?);
    let server = Start::on(&state).start()?;
    let client = server.client();
    check_eq(topics(&Scrape::take(&client)?)?, BTreeMap::new(), "topics of an empty store")?;
    at_once(ODD_TOPICS.len(), |number| {
        let mut spread = Spread(number as u64);
        for _ in 0..=10 + number {
            let events: Vec<Value> = (0..8)
                .map(|_| {
                    let (id, payload) = (spread.below(20).to_string(), spread.below(2));
                    let topic = ODD_TOPICS[number];
                    json!({"topic": topic, "event_id": id, "source": "it", "payload": payload})
                })
                .collect();
            client.publish(Value::from(events).to_string())?.expect(200)?;
        }
        Ok(())
    })?;
    let worker = json!({"topics": [ODD_TOPICS[1], ODD_TOPICS[5]]}).to_string();
    client.send("PUT", "/subscriptions/worker", &[], worker.as_bytes())?.expect(201)?;
    client.send("PUT", "/subscriptions/end", &[], br#"{"start":"end"}"#)?.expect(201)?;

    let told = topics(&Scrape::take(&client)?)?;
    let expected: BTreeSet<&str> = ODD_TOPICS.into_iter().collect();
    check_eq(told.keys().map(String::as_str).collect(), expected, "topics")?;
    check(told.values().all(|topic| topic.conflicts > 0), || format!("{told:?}"))?;
    check_eq(&told, &stats_by_topic(&client)?, "counters")?;
    server.kill()?;

    let server = Start::on(&state).start()?;
    let client = server.client();
    let scrape = Scrape::take(&client)?;
    check_eq(&topics(&scrape)?, &told, "counters after a restart")?;
    for (name, subscription) in [("worker", "worker"), ("end", "end")] {
        let shown = client.get(&format!("/subscriptions/{name}"))?.expect(200)?.json()?;
        let told = scrape.get("sekali_subscription_lag_events", &[("subscription", subscription)]);
        check_eq(told, shown["lag"].as_f64(), &format!("lag of {name}"))?;
    }
    let lag = scrape.get("sekali_subscription_lag_events", &[("subscription", "worker")]);
    check(lag > Some(0.0), || format!("lag of the worker: {lag:?}"))
}

#[test(own_server)]
fn rejected_events_are_counted_by_reason() -> Outcome {
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

    let told = |scrape: &Scrape| -> BTreeMap<String, f64> {
        let series = scrape.of("sekali_events_rejected_total");
        series.map(|(labels, count)| (labels.values().cloned().collect(), count)).collect()
    };
    let scrape = Scrape::take(&client)?;
    check_eq(&told(&scrape), &expected, "rejected by reason")?;
    let sum: f64 = expected.values().sum();
    let stats = client.get("/stats")?.expect(200)?.json()?;
    check_eq(stats["rejected"].as_f64(), Some(sum), "rejected in /stats")?;
    let state = server.kill()?;
    Start::on(&state).serve(|server| {
        check_eq(told(&Scrape::take(&server.client())?), expected.clone(), "after a restart")
    })
}

/// Every request that had to be stored is in the histograms once, a moment
/// after it was answered; and they hold together at every moment.
#[test(own_server)]
fn commit_histograms_add_up() -> Outcome {
    const CLIENTS: usize = 6;
    const REQUESTS: usize = 60;
    let server = Server::start()?;
    let client = server.client();
    let (events, requests) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let look = || {
        let scrape = Scrape::take(&client)?;
        let (commits, of_requests) = scrape.histogram("sekali_commit_requests")?;
        let (commits_again, of_events) = scrape.histogram("sekali_commit_events")?;
        let (waits, _) = scrape.histogram("sekali_commit_seconds")?;
        check_eq(commits, commits_again, "commits by requests, and by events")?;
        check_eq(waits as f64, of_requests, "requests that waited, and that were committed")?;
        Ok::<_, Failed>((of_requests as usize, of_events as usize))
    };
    watched(
        1,
        || look().map(drop),
        || {
            at_once(CLIENTS, |number| {
                let mut spread = Spread(number as u64);
                for request in 0..REQUESTS {
                    let size = if request % 3 == 0 { 1 + spread.below(150) as usize } else { 1 };
                    let lines: Vec<String> = (0..size)
                        .map(|place| event("commits", &format!("{number}-{request}-{place}")))
                        .collect();
                    // Some are rejected: alone, or beside others.
                    let wrong = ["", "\n{}"][spread.below(2) as usize];
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
    let mut told = (0, 0);
    let settled = until("all commits are told", || {
        told = look()?;
        Ok((told == expected).then_some(()))
    });
    settled.map_err(|_| format!("(requests, events): expected {expected:?}, got {told:?}"))?;
    let state = server.kill()?;
    Start::on(&state).serve(|server| {
        let scrape = Scrape::take(&server.client())?;
        let (_, of_requests) = scrape.histogram("sekali_commit_requests")?;
        check_eq(of_requests, expected.0 as f64, "requests after a restart")
    })
}

#[test(any_server)]
fn prometheus_text_and_openmetrics_have_the_same_series(target: &Target) -> Outcome {
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
    for accept in ["*/*", "text/plain", "text/html", "application/openmetrics-text;q=0, */*"] {
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
    ] {
        check_eq(text.kinds.get(family).map(String::as_str), text_kind, family)?;
        check_eq(open.kinds.get(family).map(String::as_str), open_kind, family)?;
    }
    Ok(())
}

/// A thousand topics have series of their own; what more there are is added up.
#[test(own_server)]
fn limits_series_to_1000_topics() -> Outcome {
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

/// What `/health` says of a store: its status, if all that belongs to it is there.
fn store(health: &Value, name: &str) -> Result<String, Failed> {
    let store = &health["stores"][name];
    let is_whole = store["checked"].as_str().is_some_and(|what| !what.is_empty())
        && store["took_ms"].as_f64().is_some_and(|took| took >= 0.0);
    check(is_whole, || format!("{name} in {health:#}"))?;
    store["status"].as_str().map(str::to_owned).ok_or_else(|| format!("{health:#}").into())
}

#[test(any_server)]
fn names_both_stores(target: &Target) -> Outcome {
    let health = target.client().get("/health")?.expect(200)?.json()?;
    check_eq(store(&health, "sqlite")?.as_str(), "ok", "sqlite")?;
    check_eq(store(&health, "key_value")?.as_str(), "ok", "key_value")?;
    let is_whole = health["status"] == "healthy"
        && health["reason"].is_null()
        && health["queue_size"].is_u64()
        && health["timestamp"].is_string();
    check(is_whole, || format!("{health:#}"))?;
    let healthz = target.client().get("/healthz")?.expect(200)?.json()?;
    check_eq(healthz, json!({"ok": true}), "healthz")
}

/// A database of a newer schema, and an application without a key-value store.
#[test(own_server)]
fn tells_which_store_does_not_answer() -> Outcome {
    let state = Arc::new(TempDir::new()?);
    let database = rusqlite::Connection::open(state.path().join("sqlite_db.db"))?;
    database.execute_batch("PRAGMA user_version = 99")?;
    drop(database);
    let manifest = state.path().join("spin.toml");
    let text = fs::read_to_string(root().join("spin.toml"))?;
    let source = root().join("target/wasm32-wasip2/release/sekali.wasm");
    let text = text
        .replace("key_value_stores = [\"default\"]", "")
        .replace("target/wasm32-wasip2/release/sekali.wasm", &source.display().to_string());
    fs::write(&manifest, text)?;
    let without = |start: Start| Start { manifest: Some(manifest.clone()), ..start };
    for (start, sqlite, key_value, named) in [
        (Start::on(&state), "unavailable", "ok", "SQL"),
        (without(Start::default()), "ok", "unavailable", "key-value"),
        (without(Start::on(&state)), "unavailable", "unavailable", "SQL"),
    ] {
        start.serve(|server| {
            let reply = server.client().get("/health")?.expect(503)?;
            check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
            let health = reply.json()?;
            check_eq(store(&health, "sqlite")?.as_str(), sqlite, "sqlite")?;
            check_eq(store(&health, "key_value")?.as_str(), key_value, "key_value")?;
            let reason = health["reason"].as_str().unwrap_or_default();
            check(health["status"] == "unhealthy" && reason.contains(named), || {
                format!("{health:#}")
            })
        })?;
    }
    Ok(())
}
