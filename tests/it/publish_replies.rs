//! POST /publish: how long a reply gets, and what it names then.
//!
//! Stock shippers keep 4,096 bytes of a reply, its head included, and take a
//! longer one for a failure, which they retry for ever.

use serde_json::{Value, json};

use crate::support::{
    Client, End, Target, TestResult, any_server, check, check_eq, test, unique_topic,
};

/// What a shipper keeps of a reply.
const SHIPPER_BYTES_MAX: usize = 4_096;

/// What the body of a reply stays below.
const BODY_BYTES: usize = 3_500;

/// Most characters of a name.
const NAME_CHARS_MAX: usize = 255;

/// Publishes as a shipper does. The reply is a short one, or the test fails.
fn publish(client: &Client, query: &str, body: &str, status: u16) -> Result<Value, Failed> {
    let request = format!(
        "POST /publish{query} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        client.address(),
        body.len(),
    );
    let reply = client.raw(request.as_bytes(), End::Wait)?;
    check(reply.starts_with(&format!("HTTP/1.1 {status} ")), || format!("{status}: {reply}"))?;
    let (_, body) = reply.split_once("\r\n\r\n").ok_or("no body")?;
    check(body.len() < BODY_BYTES, || format!("{} bytes of body: {reply}", body.len()))?;
    check(reply.len() < SHIPPER_BYTES_MAX, || format!("{} bytes: {reply}", reply.len()))?;
    Ok(serde_json::from_str(body)?)
}

type Failed = libtest_mimic::Failed;

fn event_of(topic: &str, id: &str, payload: u32) -> Value {
    json!({"topic": topic, "event_id": id, "source": "s", "payload": payload})
}

/// The elements of a list, and how many the reply says are not in it.
fn listed(reply: &Value, list: &str) -> (Vec<Value>, usize) {
    let omitted = reply["results_omitted"].as_u64().unwrap_or_default() as usize;
    (reply[list].as_array().cloned().unwrap_or_default(), omitted)
}

fn statuses(results: &[Value]) -> Vec<&str> {
    results.iter().filter_map(|result| result["status"].as_str()).collect()
}

fn indexes(results: &[Value]) -> Vec<u64> {
    results.iter().filter_map(|result| result["index"].as_u64()).collect()
}

#[test(any_server)]
fn a_retried_batch_is_answered_shortly(target: &Target) -> TestResult {
    let client = target.client();
    for events in [1, 20, 200, 5_000] {
        let topic = unique_topic("retried");
        let batch: Vec<Value> =
            (0..events).map(|id| event_of(&topic, &format!("event-{id}"), 1)).collect();
        let body = json!(batch).to_string();
        let reply = publish(&client, "", &body, 200)?;
        check_eq(listed(&reply, "results"), (Vec::new(), 0), "what is named of a first delivery")?;
        check(reply.get("results_omitted").is_none(), || format!("{reply:#}"))?;
        let reply = publish(&client, "", &body, 200)?;
        check_eq(&reply["duplicates"], &json!(events), "duplicates")?;
        let (results, omitted) = listed(&reply, "results");
        check_eq(results.len() + omitted, events, "named and not named")?;
        check((omitted > 0) == (events >= 200), || format!("{omitted} omitted"))?;
        check(results.len() >= events.min(20), || format!("{} named", results.len()))?;
        let none = publish(&client, "?results=none", &body, 200)?;
        check(none.get("results").is_none() && none.get("results_omitted").is_none(), || {
            format!("{none:#}")
        })?;
        let reply = client.send("POST", "/publish?results=all", &[], body.as_bytes())?;
        let all = reply.expect(200)?.json()?;
        check_eq(listed(&all, "results").0.len(), events, "named by results=all")?;
        check(all.get("results_omitted").is_none(), || "all, and some omitted".into())?;
    }
    Ok(())
}

#[test(any_server)]
fn what_is_worst_is_named_first(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("worst-first");
    let first: Vec<Value> =
        (0..300).map(|id| event_of(&topic, &format!("event-{id}"), 1)).collect();
    publish(&client, "", &json!(first).to_string(), 200)?;
    let mut again = first;
    again[250] = event_of(&topic, "event-250", 2);
    again[150] = event_of(&topic, "event-150", 2);
    again[270] = json!({"topic": topic, "event_id": "event-270"});
    again[290] = json!(7);
    let body = json!(again).to_string();
    for (query, status) in [("", 200), ("?strict=true", 409)] {
        let reply = publish(&client, query, &body, status)?;
        let counts = ["received", "duplicates", "conflicts", "rejected"].map(|name| &reply[name]);
        check_eq(counts, [&json!(298), &json!(298), &json!(2), &json!(2)], "counts")?;
        let (results, omitted) = listed(&reply, "results");
        check_eq(results.len() + omitted, 300, "named and not named")?;
        check_eq(
            &statuses(&results)[..5],
            &["rejected", "rejected", "conflict", "conflict", "duplicate"],
            "first",
        )?;
        check_eq(&indexes(&results)[..7], &[270, 290, 150, 250, 0, 1, 2], "their places")?;
    }
    let reply = publish(&client, "?atomic=true", &body, 422)?;
    let (errors, omitted) = listed(&reply, "errors");
    check_eq((indexes(&errors), omitted), (vec![270, 290], 0), "errors of an atomic request")?;
    // A list that is whole is in the order of the body.
    let reply = publish(&client, "", &json!(again[265..275]).to_string(), 200)?;
    let (results, omitted) = listed(&reply, "results");
    check_eq((indexes(&results), omitted), ((0..10).collect(), 0), "a whole list")
}

#[test(any_server)]
fn what_is_wrong_with_many_events_is_told_shortly(target: &Target) -> TestResult {
    let client = target.client();
    let empty = vec![json!({}); 10_000];
    for query in ["", "?atomic=true", "?results=none"] {
        for (events, errors_of_each) in [(&empty[..1], 3), (&empty[..40], 3), (&empty[..], 3)] {
            let reply = publish(&client, query, &json!(events).to_string(), 422)?;
            let (errors, omitted) = listed(&reply, "errors");
            check_eq(errors.len() + omitted, errors_of_each * events.len(), "errors")?;
            check(indexes(&errors).is_sorted() && errors.len() >= 3, || format!("{reply:#}"))?;
        }
    }
    let lines = "x\n".repeat(10_000);
    let request = format!("{{\n{lines}");
    publish(&client, "", &request, 422)?;
    let all = json!(empty).to_string();
    let reply = client.send("POST", "/publish?results=all", &[], all.as_bytes())?;
    let reply = reply.expect(422)?.json()?;
    check_eq(
        listed(&reply, "errors"),
        (reply["errors"].as_array().cloned().unwrap_or_default(), 0),
        "all",
    )?;
    check_eq(listed(&reply, "errors").0.len(), 30_000, "errors of results=all")
}

/// Names of the greatest length, of characters that take the most bytes in JSON.
#[test(any_server)]
fn long_names_make_no_long_reply(target: &Target) -> TestResult {
    let client = target.client();
    for character in ["x", "😀", "\u{1}", "\u{9b}", "\u{202e}", "\"", "\u{e0041}"] {
        let name = |number: usize| {
            let number = format!("{}-{number}", unique_topic("n"));
            format!("{number}{}", character.repeat(NAME_CHARS_MAX - number.chars().count()))
        };
        let batch: Vec<Value> = (0..30).map(|one| event_of(&name(one), &name(one), 1)).collect();
        let body = json!(batch).to_string();
        publish(&client, "", &body, 200)?;
        let reply = publish(&client, "", &body, 200)?;
        let (results, omitted) = listed(&reply, "results");
        check_eq(results.len() + omitted, 30, "named and not named")?;
        for result in &results {
            let sent = &batch[result["index"].as_u64().unwrap_or_default() as usize];
            check(
                result["topic"] == sent["topic"] && result["event_id"] == sent["event_id"],
                || format!("another name: {result:#}"),
            )?;
        }
    }
    Ok(())
}

/// What was sent and is told back: in a path, a method, a parameter, a header.
#[test(any_server)]
fn what_is_told_back_is_shortened(target: &Target) -> TestResult {
    let client = target.client();
    let (long, parameter) = ("y".repeat(60_000), "z".repeat(60_000));
    let host = client.address();
    for (line, header, status) in [
        (format!("GET /{long}"), String::new(), 404),
        (format!("{} /publish", "M".repeat(60_000)), String::new(), 405),
        (format!("POST /publish?atomic={parameter}"), String::new(), 422),
        (format!("GET /events?limit={parameter}"), String::new(), 422),
        (format!("GET /events?after={parameter}"), String::new(), 422),
        (format!("GET /events?since={parameter}"), String::new(), 422),
        (format!("GET /events?order={parameter}"), String::new(), 422),
        (format!("GET /events/stream?after={parameter}"), String::new(), 422),
        (format!("GET /subscriptions/{long}"), String::new(), 422),
        ("POST /publish".to_owned(), format!("content-encoding: {parameter}\r\n"), 415),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{header}content-length: 0\r\n\r\n"
        );
        let reply = client.raw(request.as_bytes(), End::Wait)?;
        let of = &line[..30.min(line.len())];
        check(reply.starts_with(&format!("HTTP/1.1 {status} ")), || format!("{of}: {reply}"))?;
        check(reply.len() < SHIPPER_BYTES_MAX, || format!("{of}: {} bytes", reply.len()))?;
    }
    Ok(())
}
