//! POST /v1/logs: logs of OpenTelemetry, with the replies that its clients know.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::support::{
    Client, Reply, Target, TestResult, any_server, check, check_eq, test, unique_topic,
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// What the exporter of the Python SDK (1.45) sends for one record: its body is `paid`,
/// with attributes of all kinds, a trace, a resource and a scope.
const SDK: &str = "\
CsYBCjAKGgoMc2VydmljZS5uYW1lEgoKCGNoZWNrb3V0ChIKBXJhdGlvEgkhmpmZmZmZuT8SkQEKEgoJc2hvcC5jYXJ0\
EgUxLjIuMBJ7CfJ1DUJwFnEYEAkaBElORk8qBgoEcGFpZDIHCgFuEgIYAzIQCgNzdW0SCSE0MzMzMzPTPzIOCgRsaXN0\
EgYqBAoCGAEyCwoDcmF3EgQ6AgD/RQEAAABKEFuO//eYA4ED0mm2M4E/xgxSCO7hm37DwbF0Wb/3DkJwFnEY";

/// The same in JSON.
fn sdk_json() -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "checkout"}},
            {"key": "ratio", "value": {"doubleValue": 0.1}},
        ]},
        "scopeLogs": [{
            "scope": {"name": "shop.cart", "version": "1.2.0"},
            "logRecords": [{
                "timeUnixNano": "1761213600678901234",
                "observedTimeUnixNano": "1761213600678999999",
                "severityNumber": "SEVERITY_NUMBER_INFO", "severityText": "INFO",
                "body": {"stringValue": "paid"},
                "attributes": [
                    {"key": "n", "value": {"intValue": "3"}},
                    {"key": "sum", "value": {"doubleValue": 0.30000000000000004}},
                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}},
                    {"key": "raw", "value": {"bytesValue": "AP8="}},
                ],
                "flags": 1, "traceId": "5B8EFFF798038103D269B633813FC60C",
                "spanId": "eee19b7ec3c1b174",
            }],
        }],
    }]})
}

fn export(client: &Client, topic: &str, form: &str, body: &[u8]) -> Result<Reply, Failed> {
    let path = format!("/v1/logs?topic={topic}");
    Ok(client.send("POST", &path, &[("content-type", form)], body)?)
}

/// A request of these records.
fn logs(records: &[Value]) -> Vec<u8> {
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes()
}

#[test(any_server)]
fn an_sdk_is_stored_once_in_either_form(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("otlp");
    let protobuf = BASE64_STANDARD.decode(SDK)?;
    for _ in 0..2 {
        let reply = export(&client, &topic, PROTOBUF, &protobuf)?.expect(200)?;
        check_eq((reply.media_type(), reply.text.as_str()), (PROTOBUF, ""), "reply")?;
    }
    let reply = export(&client, &topic, JSON, sdk_json().to_string().as_bytes())?.expect(200)?;
    check_eq((reply.media_type(), reply.text.as_str()), (JSON, "{}"), "reply")?;
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (3, 1), "received and stored")?;
    let events = client.all_events(&topic)?;
    check_eq(&events[0]["source"], &json!("checkout"), "source")?;
    check_eq(&events[0]["timestamp"], &json!("2025-10-23T10:00:00.678901234Z"), "timestamp")?;
    let expected = json!({
        "severity_number": 9, "severity_text": "INFO", "body": "paid",
        "attributes": {"n": 3, "sum": 0.30000000000000004, "list": [1], "raw": "AP8="},
        "flags": 1, "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
        "observed_timestamp": "2025-10-23T10:00:00.678999999Z",
        "resource": {"service.name": "checkout", "ratio": 0.1},
        "scope": {"name": "shop.cart", "version": "1.2.0"},
    });
    check_eq(&events[0]["payload"], &expected, "payload")
}

#[test(any_server)]
fn equal_records_of_one_request_are_all_kept(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("otlp-equal");
    let record = json!({"body": {"stringValue": "again"}});
    let body = logs(&[record.clone(), record.clone(), record]);
    for _ in 0..2 {
        export(&client, &topic, JSON, &body)?.expect(200)?;
    }
    check_eq(client.all_events(&topic)?.len(), 3, "events")
}

/// Each record repeats its resource, so these are several commits.
#[test(any_server)]
fn events_longer_than_their_request_are_stored_in_parts(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("otlp-parts");
    let records: Vec<Value> = (0..100).map(|n| json!({"body": {"intValue": n}})).collect();
    let long = json!([{"key": "long", "value": {"stringValue": "x".repeat(60_000)}}]);
    let body = json!({"resourceLogs": [{"resource": {"attributes": long},
        "scopeLogs": [{"logRecords": records}]}]});
    for _ in 0..2 {
        export(&client, &topic, JSON, body.to_string().as_bytes())?.expect(200)?;
    }
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (200, 100), "received and stored")
}

#[test(any_server)]
fn a_record_that_is_wrong_costs_no_other(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("otlp-partial");
    let wrong = json!({"severityNumber": "LOUD"});
    let body = logs(&[json!({"body": {"intValue": 1}}), wrong.clone()]);
    let reply = export(&client, &topic, JSON, &body)?.expect(200)?.json()?;
    check_eq(&reply["partialSuccess"]["rejectedLogRecords"], &json!("1"), "rejected")?;
    let message = reply["partialSuccess"]["errorMessage"].as_str().unwrap_or_default();
    check(message.contains("Record 1: payload cannot be made: severity_number"), || {
        message.into()
    })?;
    check_eq(client.all_events(&topic)?.len(), 1, "events")?;
    // Not UTF-8, in protocol buffers.
    let body = b"\x0a\x0a\x12\x08\x12\x00\x12\x04\x1a\x02\xff\xff";
    let reply = export(&client, &topic, PROTOBUF, body)?.expect(200)?;
    check(reply.text.contains("severity_text is not UTF-8"), || format!("{reply:#?}"))?;
    let reply = export(&client, &topic, JSON, &logs(&[wrong]))?.expect(400)?.json()?;
    check_eq(&reply["code"], &json!(3), "code")?;
    check_eq(client.all_events(&topic)?.len(), 2, "events")
}

#[test(any_server)]
fn refusals_are_a_status_in_the_form_of_the_request(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("otlp-refused");
    let many = logs(&vec![json!({}); 10_001]);
    let long = vec![b' '; (10 << 20) + 1];
    for (form, body, status, code) in [
        (JSON, &b"{"[..], 400, 3),
        (JSON, b"[]", 400, 3),
        (JSON, &many, 413, 8),
        (JSON, &long, 413, 8),
        ("text/plain", b"{}", 415, 3),
    ] {
        let reply = export(&client, &topic, form, body)?.expect(status)?;
        check_eq(reply.media_type(), JSON, "media type")?;
        check_eq(&reply.json()?["code"], &json!(code), "code")?;
    }
    let reply = export(&client, &topic, PROTOBUF, b"\x0a\x05")?.expect(400)?;
    check_eq(reply.media_type(), PROTOBUF, "media type")?;
    check(reply.text.starts_with("\u{8}\u{3}\u{12}"), || format!("{reply:#?}"))?;
    let coded = [("content-type", PROTOBUF), ("content-encoding", "br")];
    let reply = client.send("POST", "/v1/logs", &coded, b"")?.expect(415)?;
    check_eq(reply.media_type(), PROTOBUF, "media type")?;
    check_eq(client.counters(&topic)?.received, 0, "received")
}

#[test(any_server)]
fn only_logs_are_taken(target: &Target) -> TestResult {
    let client = target.client();
    for path in ["/v1/traces", "/v1/metrics"] {
        let reply = client.send("POST", path, &[("content-type", JSON)], b"{}")?.expect(404)?;
        let expected = json!({"code": 12, "message": "Of OTLP only logs are taken, at /v1/logs."});
        check_eq(reply.json()?, expected, path)?;
        let reply = client.send("POST", path, &[("content-type", PROTOBUF)], b"")?.expect(404)?;
        check_eq(reply.media_type(), PROTOBUF, path)?;
    }
    client.send("PUT", "/v1/logs", &[], b"")?.expect(405).map(drop)
}
