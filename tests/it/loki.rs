//! POST /loki/api/v1/push: lines of clients of Loki, with the replies that they know.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::support::{
    Client, Reply, Target, TestResult, any_server, check, check_eq, test, unique_topic,
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A push of three lines of one stream in snappy, of which the last are equal.
const PUSH: &str = "\
wAFQCr0BCih7YXBwPSJ3ZWIiLCBob3N0BQzgLTEiLCBqb2I9ImEgXCJiXCIifRJeCgwIoPnnxwYQ8uvcwwISO0dFVCAvaW5kZX\
guaHRtbCAyMDAgmhQAYBoRCgV0cmFjZRIINWI4ZWZmZjcSFgoICKEFYDAAEgpQT1NUIC8gNTAwXhgACBi5YA==";

fn push(client: &Client, query: &str, form: &str, body: &[u8]) -> Result<Reply, Failed> {
    let path = format!("/loki/api/v1/push?{query}");
    Ok(client.send("POST", &path, &[("content-type", form)], body)?)
}

fn lines(values: &Value) -> Vec<u8> {
    json!({"streams": [{"stream": {"app": "web"}, "values": values}]}).to_string().into_bytes()
}

#[test(any_server)]
fn a_push_is_stored_once_in_either_form(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("loki");
    let query = format!("topic={topic}");
    let protobuf = BASE64_STANDARD.decode(PUSH)?;
    for _ in 0..2 {
        let reply = push(&client, &query, PROTOBUF, &protobuf)?.expect(204)?;
        check_eq(reply.text.as_str(), "", "reply")?;
        check_eq(reply.header("content-length"), None, "length")?;
    }
    let line = "GET /index.html 200 GET /index.html 200 GET /index.html 200";
    let body = json!({"streams": [{
        "stream": {"app": "web", "host": "web-1", "job": "a \"b\""},
        "values": [
            ["1761213600678901234", line, {"trace": "5b8efff7"}],
            ["1761213601000000000", "POST / 500"],
            ["1761213601000000000", "POST / 500"],
        ],
    }]});
    push(&client, &query, JSON, body.to_string().as_bytes())?.expect(204)?;
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (9, 3), "received and stored")?;
    let events = client.all_events(&topic)?;
    check_eq(&events[0]["source"], &json!("web-1"), "source")?;
    check_eq(&events[0]["timestamp"], &json!("2025-10-23T10:00:00.678901234Z"), "timestamp")?;
    let expected = json!({
        "line": line, "metadata": {"trace": "5b8efff7"},
        "labels": {"app": "web", "host": "web-1", "job": "a \"b\""},
    });
    check_eq(&events[0]["payload"], &expected, "payload")
}

#[test(any_server)]
fn the_topic_is_a_label(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("loki-label");
    let body = json!({"streams": [{"stream": {"app": "a", "ns": topic}, "values": [["1", "x"]]}]});
    push(&client, "topic_label=ns", JSON, body.to_string().as_bytes())?.expect(204)?;
    check_eq(client.all_events(&topic)?.len(), 1, "events")
}

#[test(any_server)]
fn a_line_that_is_wrong_costs_no_other(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("loki-partial");
    let query = format!("topic={topic}");
    let body = lines(&json!([["1", "a"], ["now", "b"], ["2", "c"]]));
    let reply = push(&client, &query, JSON, &body)?.expect(400)?;
    let expected = "Of 3 lines 1 are not valid; the other 2 are stored. \
                    Line 1: timestamp is no number of nanoseconds since 1970.\n";
    check_eq(reply.text.as_str(), expected, "reply")?;
    check_eq(client.all_events(&topic)?.len(), 2, "events")
}

#[test(any_server)]
fn refusals_are_a_sentence(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("loki-refused");
    let query = format!("topic={topic}");
    let many = lines(&json!(vec![["1", "a"]; 10_001]));
    let long = vec![b' '; (10 << 20) + 1];
    for (form, body, status) in [
        (JSON, &b"{"[..], 400),
        (PROTOBUF, b"{}", 400),
        // It says that it has more than it can.
        (PROTOBUF, b"\xff\xff\xff\x04\x00a", 400),
        (JSON, &many, 413),
        (JSON, &long, 413),
        ("text/plain", b"{}", 415),
    ] {
        let reply = push(&client, &query, form, body)?.expect(status)?;
        check_eq(reply.media_type(), "text/plain", "media type")?;
        check(reply.text.ends_with(".\n"), || format!("{reply:#?}"))?;
    }
    client.send("PUT", "/loki/api/v1/push", &[], b"")?.expect(405)?;
    check_eq(client.counters(&topic)?.received, 0, "received")
}
