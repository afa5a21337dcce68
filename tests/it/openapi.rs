//! GET /openapi.json: the description of the API, and the service as it is described.

use std::collections::BTreeSet;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::support::openapi::{
    DOCUMENT_FILE, Description, EVENT_STREAM, PROBLEM, at, check_reply, check_type, validate,
};
use crate::support::{
    Client, Reply, Stream, Target, TestResult, any_server, check, check_eq, event, no_server, read,
    test, unique_topic,
};

/// Every operation of the document does what it is for.
#[test(any_server)]
fn every_operation_answers(target: &Target) -> TestResult {
    let description = Description::get()?;
    let client = target.client();
    let topic = unique_topic("described");
    client.publish(event(&topic, "1"))?.expect(200)?;
    let mut failures = Vec::new();
    for path in description.paths() {
        for method in description.methods(path) {
            if let Err(failed) = check_answer(&client, &method, path, &topic) {
                failures.push(format!("{method} {path}: {}", failed.message().unwrap_or("failed")));
            }
        }
    }
    client.send("DELETE", &format!("/subscriptions/{topic}"), &[], &[])?;
    check(failures.is_empty(), || failures.join("\n\n"))
}

fn check_answer(client: &Client, method: &str, path: &str, topic: &str) -> TestResult {
    if path == "/services/collector/ack" {
        // It is there to say that there is nothing of it.
        return client.send(method, path, &[], &[])?.expect(400).map(drop);
    }
    if path.starts_with("/webhooks/") {
        // What a service without secrets can say; tests of that route have some.
        return client.send(method, &format!("/webhooks/{topic}"), &[], &[])?.expect(404).map(drop);
    }
    let concrete = path.replace("{name}", topic).replace("{index}", topic);
    if path.contains("{name}") && method != "PUT" {
        client.send("PUT", &format!("/subscriptions/{topic}"), &[], &[])?;
    }
    let body = match (method, path) {
        ("POST", "/publish") => event(topic, "2"),
        (_, path) if path.ends_with("/_bulk") => {
            format!("{{\"create\":{{\"_index\":\"{topic}\"}}}}\n{{}}\n")
        }
        ("POST", path) if path.starts_with("/services/") => json!({"event": 1}).to_string(),
        ("POST", _) => json!({"cursor": "0"}).to_string(),
        _ => String::new(),
    };
    let reply = if method == "GET" && path.ends_with("/stream") {
        begin(client, &concrete)?
    } else {
        client.send(method, &concrete, &[("content-type", "application/json")], body.as_bytes())?
    };
    check((200..300).contains(&reply.status), || format!("{reply:#?}"))
}

/// What a stream begins with, up to the first frame with data.
fn begin(client: &Client, path: &str) -> Result<Reply, Failed> {
    let mut stream = Stream::open(client, path)?;
    let mut text = String::new();
    loop {
        let block = stream.block()?;
        let is_last = block.data.is_some();
        for (name, value) in [("retry", block.retry), ("id", block.id), ("data", block.data)] {
            text.extend(value.map(|value| format!("{name}: {value}\n")));
        }
        text.push('\n');
        if is_last {
            break;
        }
    }
    check(text.starts_with("retry: 1000\n"), || format!("{path} begins with {text:?}"))?;
    let reply = Reply { text, ..stream.head };
    check_reply("GET", path, &reply)?;
    Ok(reply)
}

/// The index of the routes and the document name the same; so do the document
/// and what the service says it allows.
#[test(any_server)]
fn every_route_and_method_is_described(target: &Target) -> TestResult {
    let description = Description::get()?;
    let client = target.client();
    let index = client.get("/")?.expect(200)?.text;
    let routes: Vec<(&str, &str)> = index.lines().filter_map(route).collect();
    check(routes.len() > 10, || format!("the index names {routes:?}"))?;
    for (method, path) in routes {
        let is_described = description.methods(path).contains(method);
        check(is_described, || format!("{method} {path} of the index is not described"))?;
    }
    let words: BTreeSet<&str> = index.split_whitespace().collect();
    for path in description.paths() {
        check(words.contains(path), || format!("{path} is not in the index:\n{index}"))?;
        let concrete = path.replace("{name}", "some");
        let reply = client.send("PATCH", &concrete, &[], &[])?.expect(405)?;
        let allow = reply.header("allow").unwrap_or_default();
        let allowed: BTreeSet<String> = allow.split(", ").map(str::to_owned).collect();
        check_eq(allowed, description.methods(path), &format!("what {path} allows"))?;
    }
    Ok(())
}

/// The method and the path of a line of the index, if it names a route.
fn route(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let is_route = path.starts_with('/') && method.chars().all(|one| one.is_ascii_uppercase());
    is_route.then_some((method, path))
}

#[test(any_server)]
fn the_document_is_served_unchanged(target: &Target) -> TestResult {
    let reply = target.client().get("/openapi.json")?.expect(200)?;
    check(reply.text == read(DOCUMENT_FILE)?, || format!("what is served is not {DOCUMENT_FILE}"))?;
    let document = reply.json()?;
    check_eq(&document["info"]["version"], &json!(env!("CARGO_PKG_VERSION")), "info.version")
}

/// Every example of the document is what its schema says.
#[test(no_server)]
fn every_example_is_valid() -> TestResult {
    let description = Description::get()?;
    let mut found = 0;
    let mut places = vec![String::new()];
    while let Some(place) = places.pop() {
        let value = description.value(&place);
        let mut values: Vec<&Value> = value.get("example").into_iter().collect();
        let named = value.get("examples").and_then(Value::as_object).into_iter().flatten();
        values.extend(named.map(|(_, example)| &example["value"]));
        if !values.is_empty() && value.get("schema").is_some() {
            let (schema, _) = description.schema(&at(&place, "schema"))?;
            for example in values {
                found += 1;
                validate(&schema, example).map_err(|why| format!("{place}: {why}"))?;
                let code = &example["code"];
                if code.is_string() {
                    check_type(example).map_err(|why| format!("{place}: {why}"))?;
                }
            }
        }
        match value {
            Value::Object(fields) => places.extend(fields.keys().map(|key| at(&place, key))),
            Value::Array(items) => {
                places.extend((0..items.len()).map(|index| format!("{place}/{index}")));
            }
            _ => {}
        }
    }
    check(found > 40, || format!("only {found} examples"))
}

/// All strings of a JSON value that stand under `key`.
fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    _ => strings(value, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        _ => {}
    }
}

#[test(any_server)]
fn references_resolve_and_servers_are_local(target: &Target) -> TestResult {
    let reply = target.client().get("/openapi.json")?.expect(200)?;
    check_eq(reply.media_type(), "application/json", "content-type")?;
    let document = reply.json()?;
    let version = document["openapi"].as_str().unwrap_or_default();
    check(version.starts_with("3."), || format!("version {version:?}"))?;
    let mut references = Vec::new();
    strings(&document, "$ref", &mut references);
    check(!references.is_empty(), || "there are no references".into())?;
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or("elsewhere");
        check(document.pointer(pointer).is_some(), || format!("{reference} leads nowhere"))?;
    }
    // Tools would send requests there.
    let servers = document["servers"].as_array().cloned().unwrap_or_default();
    let local = servers.iter().all(|server| server["url"].as_str().is_some_and(|url| url == "/"));
    check(local, || format!("{servers:?}"))
}

/// A reply as it should be, changed in one thing at a time.
#[test(no_server)]
fn detects_a_reply_that_is_not_as_described() -> TestResult {
    let reply = |status: u16, media_type: &str, body: &Value| {
        let text = body.to_string();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            header("content-type", media_type),
            header("content-length", &text.len().to_string()),
            header("x-request-id", "1"),
        ];
        Reply { request: String::new(), status, headers, text }
    };
    let json = "application/json";
    let good = json!({"received": 1, "accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": 0,
        "message": "Received 1 events, accepted 1, rejected 0 duplicates",
        "results": [{"index": 0, "topic": "t", "event_id": "e", "status": "accepted", "seq": 1}]});
    let with = |within: &str, name: &str, value: Value| {
        let mut changed = good.clone();
        if let Some(object) = changed.pointer_mut(within) {
            object[name] = value;
        }
        reply(200, json, &changed)
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().map(|fields| fields.remove(name));
        reply(200, json, &changed)
    };
    let problem = |status: u16, code: &str| {
        let kind = format!("urn:sekali:problem:{code}");
        reply(
            status,
            PROBLEM,
            &json!({"type": kind, "title": "t", "status": status, "detail": "d",
            "code": code}),
        )
    };
    let and = |mut reply: Reply, name: &str, value: &str| {
        reply.headers.push((name.to_owned(), value.to_owned()));
        reply
    };

    let busy = || problem(503, "store_busy");
    let mut mistaken = and(busy(), "retry-after", "1");
    mistaken.text = mistaken.text.replace("problem:store_busy", "problem:store_full");
    let without_header = |name: &str| {
        let mut reply = reply(200, json, &good);
        reply.headers.retain(|(known, _)| known != name);
        reply
    };
    let chunked = without_header("content-length");
    let bodiless = Reply { text: String::new(), ..reply(200, json, &good) };
    for (method, path, reply, is_good) in [
        ("POST", "/publish", reply(200, json, &good), true),
        ("POST", "/publish/?strict=true", reply(409, json, &good), true),
        ("POST", "/publish", without("results"), true),
        ("POST", "/publish", without("message"), false),
        ("POST", "/publish", with("", "more", json!(1)), false),
        ("POST", "/publish", with("/results/0", "seq", json!(0)), false),
        ("POST", "/publish", with("/results/0", "status", json!("duplicate")), false),
        ("POST", "/publish", with("/results/0", "more", json!(1)), false),
        ("POST", "/publish", reply(201, json, &good), false),
        ("POST", "/publish", reply(200, "text/plain", &good), false),
        ("POST", "/publish", chunked, false),
        ("POST", "/publish", without_header("x-request-id"), false),
        ("POST", "/publish", and(without_header("x-request-id"), "x-request-id", "a b"), false),
        ("POST", "/publish", bodiless.clone(), false),
        ("GET", "/stats", reply(200, json, &good), false),
        ("HEAD", "/stats", bodiless, true),
        ("HEAD", "/stats", reply(200, json, &good), false),
        ("GET", "/stats", and(busy(), "retry-after", "1"), true),
        ("GET", "/stats", and(busy(), "retry-after", "soon"), false),
        ("GET", "/stats", busy(), false),
        ("GET", "/stats", mistaken, false),
        ("GET", "/stats", and(problem(503, "internal"), "retry-after", "1"), false),
        ("GET", "/nowhere", problem(404, "not_found"), true),
        ("GET", "/nowhere", problem(404, "subscription_not_found"), false),
        ("GET", "/nowhere", reply(200, json, &good), false),
        ("GET", "/stats/", problem(404, "not_found"), false),
        ("GET", "/subscriptions/some", problem(404, "subscription_not_found"), true),
        ("GET", "/subscriptions/some", problem(404, "not_found"), false),
        ("PUT", "/stats", and(problem(405, "method_not_allowed"), "allow", "GET, HEAD"), true),
        ("PUT", "/stats", and(problem(405, "method_not_allowed"), "allow", "GET"), false),
        ("PUT", "/stats", problem(405, "method_not_allowed"), false),
    ] {
        let outcome = check_reply(method, path, &reply);
        check(outcome.is_ok() == is_good, || {
            let why = outcome.err().and_then(|failed| failed.message().map(str::to_owned));
            format!("{method} {path} with {reply:#?}: {why:?}")
        })?;
    }

    let frames = "retry: 1000\nid: 0\n\n:\n\nid: 1\ndata: {\"seq\":1,\"topic\":\"t\",\
        \"event_id\":\"e\",\"timestamp\":\"2025-10-23\",\"source\":\"s\",\"payload\":null,\
        \"received_at\":\"2026-01-02T03:04:05.678Z\"}\n\nid: 2\ndata: {";
    for (from, to, is_good) in [
        ("null", "{}", true),
        ("null", "1E400", true),
        ("null", "{},\"more\":1", false),
        ("678Z", "678", false),
        ("id: 1\n", "", false),
        ("id: 1\n", "event: other\nid: 1\n", false),
        ("\"s\"", "s", false),
    ] {
        let mut stream = reply(200, EVENT_STREAM, &Value::Null);
        stream.headers.retain(|(name, _)| name != "content-length");
        let stream = and(and(stream, "cache-control", "no-cache"), "x-accel-buffering", "no");
        let stream = Reply { text: frames.replace(from, to), ..stream };
        let outcome = check_reply("GET", "/events/stream?topic=t", &stream);
        check(outcome.is_ok() == is_good, || format!("{from:?} as {to:?}: {outcome:?}"))?;
    }
    Ok(())
}
