//! Keys: who may do what, on every route.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    End, Reply, Rng, Server, ServerOptions, TestResult, check, check_eq, event, own_server,
    publisher, shown, test, unique_topic, wait_until,
};

/// Keys of the tests: their names, scopes, and what else their entries have.
const PUBLISHER: &str = "sekali_test-publisher-0123456789";
const READER: &str = "sekali_test-reader-0123456789";
const ADMIN: &str = "sekali_test-admin-0123456789";
const SHOP: &str = "sekali_test-shop-0123456789";
const EXPIRED: &str = "sekali_test-expired-0123456789";
const SLOW: &str = "sekali_test-slow-0123456789";
const WRONG: &str = "sekali_test-wrong-0123456789";

const SECRETS: [&str; 7] = [PUBLISHER, READER, ADMIN, SHOP, EXPIRED, SLOW, WRONG];

fn keys() -> String {
    let digest = |secret: &str| -> String {
        Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    json!([
        {"name": "publisher", "sha256": digest(PUBLISHER), "scopes": ["publish"]},
        {"name": "reader", "sha256": digest(READER), "scopes": ["read"]},
        {"name": "admin", "sha256": digest(ADMIN), "scopes": ["admin"]},
        {"name": "shop", "sha256": digest(SHOP), "scopes": ["publish", "read"],
         "topics": ["shop.*"]},
        {"name": "expired", "sha256": digest(EXPIRED), "scopes": ["admin"],
         "expires": "2026-01-01T00:00:00Z"},
        {"name": "slow", "sha256": digest(SLOW), "scopes": ["publish"],
         "events_per_second": 10, "bytes_per_second": 1_000_000},
    ])
    .to_string()
}

fn server() -> Result<Server, Failed> {
    ServerOptions::default().variable(&format!("api_keys={}", keys())).start()
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn send(server: &Server, key: &str, method: &str, path: &str, body: &str) -> Result<Reply, Failed> {
    let authorization = bearer(key);
    let headers = [("authorization", authorization.as_str())];
    Ok(server.client().send(method, path, &headers, body.as_bytes())?)
}

/// Whom an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Everybody,
    AnyKey,
    Publish,
    /// Those who read, also of some topics.
    Read,
    /// Those who read every topic.
    ReadAll,
    Admin,
}

/// Every operation, told once more: a route that nobody thought of here is missing.
const OPERATIONS: [(&str, &str, For); 63] = [
    ("POST", "/publish", For::Publish),
    ("HEAD", "/publish", For::Publish),
    ("POST", "/publish/stream", For::Publish),
    ("POST", "/publish/shop.a", For::Publish),
    ("HEAD", "/publish/shop.a", For::Publish),
    // Its signature is its key.
    ("POST", "/webhooks/shop.a", For::Everybody),
    ("POST", "/v1/logs", For::Publish),
    ("POST", "/v1/traces", For::Publish),
    ("POST", "/v1/metrics", For::Publish),
    ("POST", "/loki/api/v1/push", For::Publish),
    ("POST", "/_bulk", For::Publish),
    ("PUT", "/_bulk", For::Publish),
    ("POST", "/shop.a/_bulk", For::Publish),
    ("PUT", "/shop.a/_bulk", For::Publish),
    ("GET", "/_license", For::Publish),
    ("HEAD", "/_license", For::Publish),
    ("GET", "/_cluster/health", For::Publish),
    ("HEAD", "/_cluster/health", For::Publish),
    ("POST", "/services/collector", For::Publish),
    ("POST", "/services/collector/event", For::Publish),
    ("POST", "/services/collector/event/1.0", For::Publish),
    ("OPTIONS", "/services/collector/event/1.0", For::Publish),
    ("POST", "/services/collector/raw", For::Publish),
    ("POST", "/services/collector/raw/1.0", For::Publish),
    ("POST", "/services/collector/ack", For::Publish),
    ("GET", "/services/collector/health", For::Publish),
    ("HEAD", "/services/collector/health", For::Publish),
    ("GET", "/services/collector/health/1.0", For::Publish),
    ("HEAD", "/services/collector/health/1.0", For::Publish),
    ("GET", "/events?topic=shop.a", For::Read),
    ("HEAD", "/events?topic=shop.a", For::Read),
    ("GET", "/events", For::ReadAll),
    ("HEAD", "/events/stream?topic=shop.a", For::Read),
    ("GET", "/events/stream", For::ReadAll),
    ("GET", "/subscriptions", For::ReadAll),
    ("HEAD", "/subscriptions", For::ReadAll),
    ("GET", "/subscriptions/of-shop", For::Read),
    ("HEAD", "/subscriptions/of-shop", For::Read),
    ("GET", "/subscriptions/of-shop/events", For::Read),
    ("HEAD", "/subscriptions/of-shop/events", For::Read),
    ("GET", "/subscriptions/of-all/events", For::ReadAll),
    ("POST", "/subscriptions/of-shop/ack", For::Read),
    ("POST", "/subscriptions/of-all/ack", For::ReadAll),
    ("PUT", "/subscriptions/new", For::Admin),
    ("DELETE", "/subscriptions/none", For::Admin),
    ("POST", "/access_token", For::Read),
    ("POST", "/prune", For::Admin),
    ("GET", "/stats", For::ReadAll),
    ("HEAD", "/stats", For::ReadAll),
    ("HEAD", "/stats/stream", For::ReadAll),
    ("GET", "/stats/history", For::ReadAll),
    ("HEAD", "/stats/history", For::ReadAll),
    ("GET", "/metrics", For::ReadAll),
    ("HEAD", "/metrics", For::ReadAll),
    ("GET", "/health", For::AnyKey),
    ("HEAD", "/health", For::AnyKey),
    ("GET", "/healthz", For::Everybody),
    ("HEAD", "/healthz", For::Everybody),
    ("GET", "/assets/style.css", For::Everybody),
    ("GET", "/openapi.json", For::AnyKey),
    ("GET", "/docs", For::AnyKey),
    ("GET", "/", For::AnyKey),
    ("GET", "/nowhere", For::AnyKey),
];

/// The status by which a key is refused, if it is; `None` without a key.
fn refused(of: For, key: Option<&str>) -> Option<u16> {
    if of == For::Everybody {
        return None;
    }
    match key {
        None | Some(WRONG | EXPIRED) => Some(401),
        Some(ADMIN) => None,
        Some(_) if of == For::AnyKey => None,
        Some(PUBLISHER) => (of != For::Publish).then_some(403),
        Some(READER) => (![For::Read, For::ReadAll].contains(&of)).then_some(403),
        Some(_) => (![For::Publish, For::Read].contains(&of)).then_some(403),
    }
}

#[test(own_server)]
fn every_operation_is_for_those_that_it_is_for() -> TestResult {
    let server = server()?;
    let client = server.client();
    send(&server, ADMIN, "PUT", "/subscriptions/of-shop", r#"{"topics": ["shop.a"]}"#)?
        .expect(201)?;
    send(&server, ADMIN, "PUT", "/subscriptions/of-all", "")?.expect(201)?;
    for (method, path, of) in OPERATIONS {
        let keys = [None]
            .into_iter()
            .chain([WRONG, EXPIRED, PUBLISHER, READER, ADMIN, SHOP].into_iter().map(Some));
        for key in keys {
            let authorization = key.map(bearer).unwrap_or_default();
            let mut headers = vec![("authorization", authorization.as_str())];
            headers.retain(|_| key.is_some());
            let reply = client.send(method, path, &headers, b"")?;
            let what = || format!("{method} {path} for {of:?} with {key:?}: {reply:#?}");
            match refused(of, key) {
                Some(status) => {
                    check(reply.status == status, what)?;
                    let challenge = reply.header("www-authenticate");
                    check(status != 401 || challenge.is_some(), what)?;
                }
                None => check(![401, 403, 500].contains(&reply.status), what)?,
            }
        }
    }
    let log = server.log();
    for secret in SECRETS {
        check(!log.contains(secret), || format!("{secret} is in the log"))?;
    }
    Ok(())
}

/// No route of the description is missing above.
#[test(own_server)]
fn no_operation_is_missing_in_the_matrix() -> TestResult {
    let server = Server::start()?;
    let description = server.client().get("/openapi.json")?.expect(200)?.json()?;
    let paths = description["paths"].as_object().ok_or("no paths")?;
    for (template, item) in paths {
        for method in item.as_object().into_iter().flatten().map(|(method, _)| method) {
            if method == "parameters" {
                continue;
            }
            let is_it = |(of, path, _): &(&str, &str, For)| {
                let path = path.split('?').next().unwrap_or_default();
                let (steps, holes) = (path.split('/'), template.split('/'));
                let same = steps.clone().count() == holes.clone().count()
                    && steps.zip(holes).all(|(step, hole)| hole.starts_with('{') || step == hole);
                // What is told of GET is told of HEAD: they are one operation.
                same && (of.eq_ignore_ascii_case(method)
                    || [*of, method].concat() == "GEThead"
                    || [*of, method].concat() == "HEADget")
            };
            check(OPERATIONS.iter().any(is_it), || format!("{method} {template}"))?;
        }
    }
    Ok(())
}

#[test(own_server)]
fn whatever_stands_in_the_header_lets_nobody_in() -> TestResult {
    let server = server()?;
    let client = server.client();
    let mut rng = Rng(15);
    let topic = unique_topic("keys");
    for _ in 0..300 {
        let scheme =
            ["Bearer ", "Basic ", "Splunk ", "ApiKey ", "", "Bearer\t"][rng.below(6) as usize];
        let length = rng.below(80);
        let junk: String = (0..length).map(|_| (b' ' + rng.below(95) as u8) as char).collect();
        let value = format!("{scheme}{}", junk.trim());
        let name = ["authorization", "x-api-key"][rng.below(2) as usize];
        for (method, path) in [("POST", "/publish"), ("GET", "/events"), ("POST", "/_bulk")] {
            let body = event(&topic, "1");
            let reply = client.send(method, path, &[(name, value.trim())], body.as_bytes())?;
            check_eq(reply.status, 401, &format!("{name}: {value:?}"))?;
        }
    }
    let events = send(&server, ADMIN, "GET", "/events", "")?.expect(200)?;
    check_eq(events.count("count")?, 0, "events")
}

#[test(own_server)]
fn a_key_of_some_topics_publishes_to_them_alone() -> TestResult {
    let server = server()?;
    let both = format!("[{},{}]", event("shop.a", "1"), event("other", "1"));
    let reply = send(&server, SHOP, "POST", "/publish", &both)?.expect(200)?.json()?;
    check_eq((&reply["accepted"], &reply["rejected"]), (&json!(1), &json!(1)), "reply")?;
    check_eq(&reply["results"][0]["field"], &json!("topic"), "field")?;
    for (path, body) in [
        ("/publish", event("other", "2")),
        ("/publish/other", "[]".to_owned()),
        ("/publish?topic=other", r#"{"n":1}"#.to_owned()),
        (
            "/v1/logs?topic=other",
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#.to_owned(),
        ),
        (
            "/loki/api/v1/push?topic=other",
            r#"{"streams":[{"stream":{"app":"a"},"values":[["1","l"]]}]}"#.to_owned(),
        ),
        ("/services/collector?topic=other", r#"{"event":1}"#.to_owned()),
        ("/other/_bulk", "{\"create\":{\"_id\":\"1\"}}\n{}\n".to_owned()),
    ] {
        let authorization = bearer(SHOP);
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/json")];
        server.client().send("POST", path, &headers, body.as_bytes())?.expect(403)?;
    }
    for path in ["/events?topic=other", "/events/stream?topic=shop.a&topic=other"] {
        send(&server, SHOP, "GET", path, "")?.expect(403)?;
    }
    let events = send(&server, ADMIN, "GET", "/events", "")?.expect(200)?.json()?;
    check_eq(
        (&events["count"], &events["events"][0]["topic"]),
        (&json!(1), &json!("shop.a")),
        "events",
    )
}

#[test(own_server)]
fn what_came_by_each_key_is_counted() -> TestResult {
    let server = server()?;
    let body = format!("[{0},{0},{1},7]", event("t", "1"), event("t", "2"));
    send(&server, PUBLISHER, "POST", "/publish", &body)?.expect(200)?;
    wait_until("it is counted", || {
        let stats = send(&server, READER, "GET", "/stats", "")?.expect(200)?.json()?;
        let found = &stats["by_key"]["publisher"];
        let expected = json!({"received": 3, "unique_processed": 2, "duplicate_dropped": 1,
            "conflicts": 0, "rejected": 1});
        check(stats["by_key"].get("expired").is_some(), || format!("{stats:#}"))?;
        Ok((*found == expected).then_some(()))
    })?;
    let metrics = send(&server, READER, "GET", "/metrics", "")?.expect(200)?.text;
    let line = r#"sekali_key_events_total{key="publisher",outcome="duplicate"} 1"#;
    check(metrics.lines().any(|one| one == line), || metrics.clone())
}

#[test(own_server)]
fn a_key_that_published_too_much_is_told_when_to_come_again() -> TestResult {
    let server = server()?;
    let events: Vec<String> = (0..500).map(|id| event("t", &id.to_string())).collect();
    send(&server, SLOW, "POST", "/publish", &format!("[{}]", events.join(",")))?.expect(200)?;
    // Instances know nothing of each other, so the one that took it is to be met again.
    let reply = wait_until("that instance answers", || {
        let reply = send(&server, SLOW, "POST", "/publish", &event("t", "0"))?;
        Ok((reply.status == 429).then_some(reply))
    })?;
    check_eq(&reply.json()?["code"], &json!("rate_limited"), "code")?;
    let number = |name: &str| -> Result<u64, Failed> {
        Ok(reply.header(name).ok_or_else(|| format!("no {name}"))?.parse()?)
    };
    check(number("retry-after")? >= 10, || format!("{reply:#?}"))?;
    check_eq(
        (number("ratelimit-limit")?, number("ratelimit-remaining")?),
        (10, 0),
        "limit, remaining",
    )?;
    check_eq(number("ratelimit-reset")?, number("retry-after")?, "reset")?;
    // Another key is not held up.
    send(&server, PUBLISHER, "POST", "/publish", &event("t", "0"))?.expect(200).map(drop)
}

#[test(own_server)]
fn a_token_opens_streams() -> TestResult {
    let server = server()?;
    let client = server.client();
    let token = send(&server, READER, "POST", "/access_token", "")?.expect(200)?.json()?;
    let token = token["access_token"].as_str().ok_or("no token")?;
    client.open(&format!("/stats/stream?access_token={token}"), &[])?.0.expect(200)?;
    client.get(&format!("/events?access_token={token}"))?.expect(200)?;
    client.get(&format!("/events?access_token={token}0"))?.expect(401)?;
    let path = format!("/publish?access_token={token}");
    client.send("POST", &path, &[], event("t", "1").as_bytes())?.expect(401)?;
    check(!server.log().contains(token), || "the token is in the log".to_owned())?;
    // Who asks need not know whether there are keys.
    let open = Server::start()?;
    let token = open.client().send("POST", "/access_token", &[], b"")?.expect(200)?.json()?;
    let token = token["access_token"].as_str().ok_or("no token")?.to_owned();
    open.client().get(&format!("/events?access_token={token}"))?.expect(200).map(drop)
}

#[test(own_server)]
fn streams_end_with_their_key() -> TestResult {
    // The key has to be good until all are open, however long a start takes.
    for seconds in [4, 20, 100] {
        if streams_end(seconds)? {
            return Ok(());
        }
    }
    Err("no service was there before its key had ended".into())
}

/// Opens streams by a key that ends in so many seconds, and reads them to their ends; false
/// if it had ended before.
fn streams_end(seconds: u64) -> Result<bool, Failed> {
    let digest: String = Sha256::digest(SHOP).iter().map(|byte| format!("{byte:02x}")).collect();
    let end = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(seconds);
    let key = json!({"name": "ending", "sha256": digest, "scopes": ["publish", "read"],
        "expires": jiff::Timestamp::from_second(end.as_secs().try_into()?)?.to_string()});
    let server = ServerOptions::default().variable(&format!("api_keys={key}")).start()?;
    let client = server.client();
    let bearer = bearer(SHOP);
    let headers = [("authorization", bearer.as_str())];
    let mut streams = Vec::new();
    for path in ["/events/stream", "/stats/stream"] {
        let (head, body) = client.open(path, &headers)?;
        if head.status == 401 {
            return Ok(false);
        }
        streams.push((head.expect(200)?, body));
    }
    let line = format!("{}\n", event(&unique_topic("ending"), "1"));
    let request = format!(
        "POST /publish/stream HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         authorization: {bearer}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n",
        client.address(),
        line.len(),
    );
    // The request does not end, nor do the others.
    let outcomes = client.raw(request.as_bytes(), End::Wait)?;
    if outcomes.starts_with("HTTP/1.1 401") {
        return Ok(false);
    }
    let (accepted, ended) = (outcomes.find("accepted"), outcomes.find("key_expired"));
    check(accepted.is_some() && accepted < ended, || outcomes.clone())?;
    for (head, mut body) in streams {
        let mut text = String::new();
        body.read_to_string(&mut text)?;
        check(text.starts_with("retry: "), || format!("{head:#?} {text}"))?;
    }
    client.send("GET", "/events/stream", &headers, &[])?.expect(401)?;
    Ok(true)
}

#[test(own_server)]
fn pages_ask_for_the_key() -> TestResult {
    let server = server()?;
    let client = server.client();
    for path in ["/", "/docs"] {
        let html = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];
        let reply = client.send("GET", path, &html, b"")?.expect(401)?;
        check(reply.text.contains("<script"), || reply.text.clone())?;
        check_eq(reply.header("www-authenticate"), Some("Bearer realm=\"sekali\""), "challenge")?;
        check_eq(reply.header("cache-control"), Some("no-store"), "cache-control")?;
    }
    let access = |reply: Reply| -> Result<Value, Failed> { Ok(reply.json()?["access"].clone()) };
    let health = send(&server, READER, "GET", "/health", "")?.expect(200)?;
    check_eq(access(health)?, json!("keys"), "access")?;
    let open = Server::start()?.client().get("/health")?.expect(200)?;
    check_eq(access(open)?, json!("open"), "access")
}

#[test(own_server)]
fn keys_that_cannot_be_read_let_nobody_in() -> TestResult {
    let wrong = keys().replace("\"sha256\"", "\"key\"");
    let server = ServerOptions::default().variable(&format!("api_keys={wrong}")).start()?;
    let reply = server.client().publish(event("t", "1"))?.expect(503)?;
    check(reply.text.contains("api_keys") && reply.text.contains("number 1"), || reply.text.clone())
}

#[test(own_server)]
fn the_publisher_makes_keys_and_uses_them() -> TestResult {
    let args = ["key", "new", "--name", "load", "--scope", "publish", "--scope", "read"];
    let output = publisher("http://127.0.0.1:1", &args).output()?;
    check(output.status.success(), || shown(&output))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (key, entry) = text.trim_end().split_once('\n').ok_or("no two lines")?;
    check(!entry.contains(key), || text.clone())?;
    let server = ServerOptions::default().variable(&format!("api_keys={entry}")).start()?;
    let url = server.url.replacen("://", &format!("://:{key}@"), 1);
    let load = ["load", "--events", "500", "--audit", "--json"];
    let output = publisher(&url, &load).output()?;
    check(output.status.success(), || shown(&output))?;
    check(!shown(&output).contains(key), || "the key is in the report".to_owned())?;
    check(!server.log().contains(key), || "the key is in the log".to_owned())?;
    let output = publisher(&server.url, &load).output()?;
    check(!output.status.success() && shown(&output).contains("401"), || shown(&output))
}
