//! What a request is called by: ids of requests, and traces.

use libtest_mimic::Failed;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    Client, End, Reply, Server, ServerOptions, Stream, Target, TestResult, any_server, check,
    check_eq, event, own_server, test, unique_topic, wait_until,
};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Longest id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

const ID: (&str, &str) = ("x-request-id", "b4e7c2a0-5a6b-4c39-8c7b-6a9b1f0f2d3e");

/// A reply of every kind to a request with these headers.
fn replies(client: &Client, headers: &[(&str, &str)]) -> Result<Vec<Reply>, Failed> {
    let topic = unique_topic("named");
    let good = event(&topic, "1");
    let mut replies = Vec::new();
    for (method, path, body, status) in [
        ("POST", "/publish", good.as_str(), 200),
        ("POST", "/publish", "oops", 422),
        ("POST", "/publish?results=all", "[{}]", 422),
        ("POST", "/publish/stream", &good, 200),
        ("HEAD", "/publish", "", 200),
        ("OPTIONS", "/publish", "", 405),
        ("GET", "/events?limit=1", "", 200),
        ("GET", "/events?limit=0", "", 422),
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/stats", "", 405),
        ("GET", "/metrics", "", 200),
        ("GET", "/", "", 200),
        ("GET", "/subscriptions/nobody", "", 404),
        ("HEAD", "/events/stream", "", 200),
        ("POST", "/_bulk", "oops", 400),
        ("POST", "/v1/logs", "oops", 415),
    ] {
        replies.push(client.send(method, path, headers, body.as_bytes())?.expect(status)?);
    }
    let ndjson = [headers, &[("accept", "application/x-ndjson")]].concat();
    replies.push(client.send("GET", "/events?limit=1", &ndjson, &[])?.expect(200)?);
    for path in ["/events/stream?after=end", "/stats/stream"] {
        replies.push(Stream::with_headers(client, path, headers, u64::MAX)?.head);
    }
    let tag = client.get("/assets/style.css")?.expect(200)?;
    let tag = tag.header("etag").ok_or("no etag")?;
    let headers = [headers, &[("if-none-match", tag)]].concat();
    replies.push(client.send("GET", "/assets/style.css", &headers, &[])?.expect(304)?);
    Ok(replies)
}

/// The id of a request, which a problem has as well.
fn id(reply: &Reply) -> Result<&str, Failed> {
    let id = reply.header("x-request-id").ok_or_else(|| format!("no id: {reply:#?}"))?;
    if reply.media_type() == "application/problem+json" && !reply.text.is_empty() {
        check_eq(&reply.json()?["request_id"], &id.into(), "request_id")?;
    }
    Ok(id)
}

/// Whether an id is one that was made.
fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|one| matches!(one, b'0'..=b'9' | b'a'..=b'f'))
}

#[test(any_server)]
fn every_reply_has_the_id_of_its_request(target: &Target) -> TestResult {
    let client = target.client();
    for reply in replies(&client, &[ID])? {
        check_eq(id(&reply)?, ID.1, "the id that was given")?;
        check_eq(reply.header("traceresponse"), None, "traceresponse")?;
    }
    let made = replies(&client, &[])?;
    let mut ids = made.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    check(ids.iter().all(|id| is_made(id)), || format!("{ids:#?}"))?;
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    check_eq(ids.len(), count, "ids that differ")
}

#[test(any_server)]
fn an_id_that_cannot_be_used_is_replaced(target: &Target) -> TestResult {
    let client = target.client();
    let longest = "i".repeat(REQUEST_ID_BYTES_MAX);
    let too_long = format!("{longest}i");
    let endless = "i".repeat(20_000);
    let given = |value: &str| -> Result<String, Failed> {
        let request = format!(
            "GET /nowhere HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{value}\r\n",
            client.address()
        );
        let reply = client.raw(request.as_bytes(), End::Wait)?;
        check(reply.starts_with("HTTP/1.1 404"), || reply.clone())?;
        let id = reply.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        Ok(id.ok_or_else(|| format!("no id: {reply}"))?.to_owned())
    };
    let header = |value: &str| format!("X-Request-ID: {value}\r\n");
    for value in ["1", "Root=1-67891233-abcdef012345678912345678;a,b", &longest] {
        check_eq(given(&header(value))?.as_str(), value, "an id")?;
    }
    for value in ["", "a b", "a\tb", "\"", "it's", "a\\", "<script>", "é", &too_long, &endless] {
        check(is_made(&given(&header(value))?), || format!("{value:?} was taken"))?;
    }
    check(is_made(&given(&[header("1"), header("1")].concat())?), || "two were taken".into())
}

/// What a reply says of the trace: its header, and its body.
fn traced(reply: &Reply) -> Result<(Option<&str>, Value), Failed> {
    Ok((reply.header("traceresponse"), reply.json()?["trace_id"].clone()))
}

#[test(any_server)]
fn a_trace_is_taken_up_and_handed_on(target: &Target) -> TestResult {
    let client = target.client();
    for reply in replies(&client, &[("traceparent", PARENT)])? {
        let response = reply.header("traceresponse").unwrap_or_default();
        let span = response.strip_prefix(&format!("00-{TRACE_ID}-"));
        let span = span.and_then(|rest| rest.strip_suffix("-01")).unwrap_or_default();
        check(span.len() == 16 && !PARENT.contains(span), || format!("{reply:#?}"))?;
        check(is_made(id(&reply)?), || format!("{reply:#?}"))?;
    }
    let topic = unique_topic("traced");
    let publish = |path: &str, headers: &[(&str, &str)], id: &str| {
        client.send("POST", path, headers, event(&topic, id).as_bytes())
    };
    let traceparent = ("traceparent", PARENT);
    for path in ["/publish", "/publish?results=all", "/publish?results=none", "/publish/other"] {
        let reply = publish(path, &[traceparent, ("tracestate", "a=b")], path)?.expect(200)?;
        check_eq(traced(&reply)?.1, TRACE_ID.into(), path)?;
    }
    // A trace is nothing of an event.
    let reply = publish("/publish", &[], "/publish")?.expect(200)?;
    check_eq(traced(&reply)?, (None, Value::Null), "without a trace")?;
    check_eq(reply.count("duplicates")?, 1, "the same event in another trace")?;
    let stored = client.get(&format!("/events?topic={topic}"))?.expect(200)?;
    check(!stored.text.contains(TRACE_ID), || format!("{stored:#?}"))
}

#[test(any_server)]
fn a_trace_that_cannot_be_understood_is_ignored(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("malformed");
    for (value, is_known) in [
        (PARENT.to_owned(), true),
        (PARENT.replacen("00", "cc", 1), true),
        (format!("{}-later", PARENT.replacen("00", "cc", 1)), true),
        (format!("{PARENT}-later"), false),
        (PARENT.replacen("00", "ff", 1), false),
        (PARENT.to_uppercase(), false),
        (PARENT.replace(TRACE_ID, &"0".repeat(32)), false),
        (PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
        (PARENT[1..].to_owned(), false),
        ("\"<>".to_owned(), false),
        ("é".to_owned(), false),
        ("0".repeat(20_000), false),
    ] {
        let headers = [("traceparent", value.as_str())];
        let body = event(&topic, "1");
        let reply = client.send("POST", "/publish", &headers, body.as_bytes())?.expect(200)?;
        let (header, field) = traced(&reply)?;
        check(header.is_some() == is_known && field.is_string() == is_known, || {
            format!("{reply:#?}")
        })?;
    }
    let twice = [("traceparent", PARENT), ("traceparent", PARENT)];
    let reply = client.send("GET", "/stats", &twice, &[])?.expect(200)?;
    check_eq(reply.header("traceresponse"), None, "of two")
}

/// The lines of the service, once there are so many about requests.
fn lines(server: &Server, count: usize) -> Result<Vec<Value>, Failed> {
    wait_until(&format!("there are {count} lines about requests"), || {
        let log = server.log();
        let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = parsed.filter(|line| !line["request_id"].is_null()).collect();
        Ok((lines.len() >= count).then_some(lines))
    })
}

#[test(own_server)]
fn lines_of_the_log_say_which_request_they_are_about() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let headers = [ID, ("traceparent", PARENT)];
    client.send("GET", "/nowhere", &headers, &[])?.expect(404)?;
    let made = client.publish("oops")?.expect(422)?;
    client.send("GET", "/stats/nowhere", &[("x-request-id", "<hidden>")], &[])?.expect(404)?;
    let too_long = format!("{}\n", "x".repeat(11_000_000));
    let stream = client.send("POST", "/publish/stream", &headers, too_long.as_bytes())?;
    let last: Value = serde_json::from_str(&stream.expect(200)?.text)?;
    check(last["code"] == "body_too_large" && last["request_id"] == ID.1, || format!("{last:#}"))?;
    let lines = lines(&server, 4)?;
    for line in [&lines[0], &lines[3]] {
        check(line["request_id"] == ID.1 && line["trace_id"] == TRACE_ID, || format!("{line:#}"))?;
    }
    check_eq(&lines[1]["request_id"], &id(&made)?.into(), "the id that was made")?;
    check(lines[1].get("trace_id").is_none(), || format!("{lines:#?}"))?;
    check(!server.log().contains("hidden"), || server.log())
}

#[test(own_server)]
fn pages_of_other_origins_may_read_them() -> TestResult {
    let server = ServerOptions::default().variable("cors_origins=*").start()?;
    let headers = [("origin", "https://app.example"), ("traceparent", PARENT)];
    let reply = server.client().send("GET", "/stats", &headers, &[])?.expect(200)?;
    let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
    for name in ["x-request-id", "traceresponse"] {
        check(reply.header(name).is_some(), || format!("{reply:#?}"))?;
        check(exposed.split(", ").any(|one| one == name), || exposed.to_owned())?;
    }
    let wanted = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "traceparent,tracestate,x-request-id"),
    ];
    let reply = server.client().send("OPTIONS", "/publish", &wanted, &[])?.expect(200)?;
    check_eq(reply.header("access-control-allow-headers"), Some(wanted[2].1), "allowed")
}

#[test(own_server)]
fn a_service_that_is_misconfigured_says_so_too() -> TestResult {
    let server = ServerOptions::default().variable("compat=perhaps").start()?;
    let reply = server.client().send("GET", "/stats", &[ID], &[])?.expect(503)?;
    check_eq(id(&reply)?, ID.1, "the id")?;
    check_eq(&lines(&server, 1)?[0]["request_id"], &ID.1.into(), "the line")
}

/// The names and the milliseconds of a reply's `Server-Timing`.
fn timing(reply: &Reply) -> Result<Vec<(&str, f64)>, Failed> {
    let parts = reply.header("server-timing").into_iter().flat_map(|value| value.split(", "));
    let part = |part: &'_ str| -> Option<f64> { part.parse().ok() };
    let read = parts.map(|one| {
        let (name, took) = one.split_once(";dur=").ok_or_else(|| format!("{reply:#?}"))?;
        Ok((name, part(took).ok_or_else(|| format!("{reply:#?}"))?))
    });
    read.collect()
}

#[test(own_server)]
fn replies_say_where_the_time_went_when_they_are_asked() -> TestResult {
    let options = ServerOptions::default().variable("server_timing=true");
    let server = options.variable("cors_origins=*").start()?;
    let client = server.client();
    let topic = unique_topic("timing");
    let page = [("origin", "https://app.example")];
    for path in ["/publish", "/publish/any"] {
        let reply = client.send("POST", path, &page, event(&topic, path).as_bytes())?;
        let reply = reply.expect(200)?;
        let parts = timing(&reply)?;
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        check_eq(names, vec!["body", "parse", "commit", "total"], path)?;
        let sum: f64 = parts[..3].iter().map(|(_, took)| took).sum();
        check(sum > 0.0 && sum <= parts[3].1 + 0.01, || format!("{reply:#?}"))?;
        // Else a browser shows it to nobody.
        check_eq(reply.header("timing-allow-origin"), Some("*"), "to whom it is shown")?;
    }
    for (reply, parts) in [
        (client.publish("oops")?.expect(422)?, vec!["body", "total"]),
        (client.get("/events?limit=1")?.expect(200)?, vec!["total"]),
        (client.get("/nowhere")?.expect(404)?, vec!["total"]),
        (client.send("HEAD", "/stats", &[], &[])?.expect(200)?, vec!["total"]),
        (Stream::open(&client, "/events/stream?after=end")?.head, vec!["total"]),
    ] {
        let named: Vec<&str> = timing(&reply)?.into_iter().map(|(name, _)| name).collect();
        check_eq(named, parts, &format!("{reply:#?}"))?;
        check_eq(reply.header("timing-allow-origin"), None, "to no page")?;
    }
    let server = ServerOptions::default().variable("cors_origins=*").start()?;
    for reply in replies(&server.client(), &page)? {
        check_eq(timing(&reply)?, vec![], "timing")?;
        check_eq(reply.header("timing-allow-origin"), None, "to whom")?;
    }
    Ok(())
}

/// The lines of access, once the last request is in the log: it is refused as no other.
fn access_lines(server: &Server) -> Result<Vec<Value>, Failed> {
    server.client().send("DELETE", "/stats", &[], &[])?;
    let read = || -> Vec<Value> {
        let log = server.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let is_last = |line: &Value| line["method"] == "DELETE" && line["level"] == "warn";
    wait_until("the last request is logged", || Ok(read().iter().any(is_last).then_some(())))?;
    let of_requests = |line: &Value| line["message"] == "request answered";
    Ok(read().into_iter().filter(of_requests).collect())
}

fn with_access_log(share: &str, level: &str) -> ServerOptions {
    let options = ServerOptions::default().variable(&format!("access_log={share}"));
    options.variable(&format!("log_level={level}"))
}

#[test(own_server)]
fn a_line_of_access_tells_of_one_request_and_no_secret() -> TestResult {
    const KEY: &str = "sekali_test-shop-0123456789";
    let digest: String = Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = json!({"name": "shop", "sha256": digest, "scopes": ["publish", "read"]});
    let options = with_access_log("1", "info").variable(&format!("api_keys={keys}"));
    let server = options.start()?;
    let client = server.client();
    let bearer = format!("Bearer {KEY}");
    let key = ("authorization", bearer.as_str());
    let topic = unique_topic("accessed");
    let body = format!("[{},{},7]", event(&topic, "1"), event(&topic, "2"));
    let headers = [key, ID, ("traceparent", PARENT)];
    client.send("POST", "/publish/app?source=s", &headers, body.as_bytes())?.expect(200)?;
    let token = client.send("POST", "/access_token", &[key], &[])?.expect(200)?.json()?;
    let token = token["access_token"].as_str().ok_or("no token")?;
    let path = format!("/events/stream?after=end&access_token={token}");
    Stream::open(&client, &path)?;
    client.get(&format!("/events?access_token={token}"))?.expect(200)?;
    client.get("/events?access_token=sekali_mistaken-for-a-token")?.expect(401)?;
    let wrong = [("x-api-key", "sekali_wrong-0123456789")];
    client.send("POST", "/publish", &wrong, body.as_bytes())?.expect(401)?;

    let lines = access_lines(&server)?;
    let seen: Vec<Value> = lines
        .iter()
        .map(|line| json!([line["method"], line["path"], line["route"], line["status"]]))
        .collect();
    let expected = [
        json!(["POST", "/publish/app", "/publish/{topic}", 200]),
        json!(["POST", "/access_token", "/access_token", 200]),
        json!(["GET", "/events/stream", "/events/stream", 200]),
        json!(["GET", "/events", "/events", 200]),
        json!(["GET", "/events", "/events", 401]),
        json!(["POST", "/publish", "/publish", 401]),
        json!(["DELETE", "/stats", "/stats", 401]),
    ];
    check(seen == expected, || format!("{lines:#?}"))?;
    let publish = &lines[0];
    for (field, value) in [
        ("level", json!("info")),
        ("bytes", json!(body.len())),
        ("events", json!(3)),
        ("key", json!("shop")),
        ("request_id", json!(ID.1)),
        ("trace_id", json!(TRACE_ID)),
        ("sample_rate", json!(1.0)),
    ] {
        check_eq(&publish[field], &value, field)?;
    }
    for line in &lines {
        let took = line["duration_ms"].as_f64().unwrap_or(-1.0);
        check((0.0..600_000.0).contains(&took), || format!("{line:#}"))?;
        check_eq(line["key"].is_string(), line["status"] == 200, "whether a key is named")?;
    }
    let log = server.log();
    for secret in [KEY, token, &digest, "sekali_mistaken", "sekali_wrong", "access_token="] {
        check(!log.contains(secret), || format!("{secret} is in {log}"))?;
    }
    Ok(())
}

/// Lines of access that requests of 20 traces have, 3 requests of each.
fn lines_of_traces(server: &Server) -> Result<Vec<usize>, Failed> {
    let client = server.client();
    let traces: Vec<String> = (1..=20_u64).map(|number| format!("{number:032x}")).collect();
    for trace in &traces {
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        for path in ["/stats", "/events?limit=1", "/nowhere"] {
            client.send("GET", path, &[("traceparent", parent.as_str())], &[])?;
        }
    }
    let lines = access_lines(server)?;
    let of = |trace: &String| lines.iter().filter(|line| line["trace_id"] == **trace).count();
    Ok(traces.iter().map(of).collect())
}

#[test(own_server)]
fn a_share_of_the_requests_has_lines_of_access() -> TestResult {
    check_eq(lines_of_traces(&with_access_log("1", "info").start()?)?, vec![3; 20], "all")?;
    let half = lines_of_traces(&with_access_log("0.5", "info").start()?)?;
    check(half.iter().all(|lines| [0, 3].contains(lines)), || format!("{half:?}"))?;
    let traces = half.iter().filter(|lines| **lines == 3).count();
    check((5..=15).contains(&traces), || format!("{half:?}"))?;
    // The ids are the same each time, and so are those that have lines.
    let again = lines_of_traces(&with_access_log("0.5", "info").start()?)?;
    check_eq(again, half, "the same half")?;
    let few = lines_of_traces(&with_access_log("0.000001", "info").start()?)?;
    check_eq(few, vec![0; 20], "of a millionth")
}

#[test(own_server)]
fn lines_of_access_are_of_the_level_info() -> TestResult {
    const LEFT_OUT: &str = "no lines of access are written";
    for (share, level, lines, is_told) in
        [("1", "warn", 0, true), ("off", "info", 0, false), ("1", "debug", 3, false)]
    {
        let server = with_access_log(share, level).start()?;
        for path in ["/stats", "/events"] {
            server.client().get(path)?.expect(200)?;
        }
        let of = format!("access_log={share} log_level={level}");
        let found = access_lines(&server)?;
        check_eq(found.len(), lines, &of)?;
        let is_sampled = |line: &Value| line["level"] == "info" && line["sample_rate"] == 1.0;
        check(found.iter().all(is_sampled), || format!("{of}: {found:#?}"))?;
        check_eq(server.log().contains(LEFT_OUT), is_told, &of)?;
    }
    Ok(())
}
