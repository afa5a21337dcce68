use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::*;
use crate::event::Event;
use crate::http::reply::Body;
use crate::ingest::protobuf::{push_bytes, push_varint};

pub(super) const PROTOBUF: &str = "application/x-protobuf";
pub(super) const JSON: &str = "application/json";
const RECORDS_MAX: usize = 4;

/// What the exporter of the Python SDK (1.45) sends for three records, of which the last
/// is the first once more.
const SDK: &str = "\
CukECnIKGgoMc2VydmljZS5uYW1lEgoKCGNoZWNrb3V0Ch4KE3NlcnZpY2UuaW5zdGFuY2UuaWQSBwoFcG9kLTcKCgoEY3\
B1cxICGAQKEgoFcmF0aW8SCSEAAAAAAADgPwoUCgR0YWdzEgwqCgoDCgFhCgMKAWISyQMKHQoJc2hvcC5jYXJ0EgUxLjIu\
MBoJCgNsaWISAhABEqgBCfJ1DUJwFnEYEAkaBElORk8qEwoRY2FydCBvZiAiw6kiIHBhaWQyBwoBbhICGAMyDwoCcGkSCS\
EAAAAAAAAKQDIICgJvaxICEAEyEQoDYmlnEgoYgICAgICAgIBAMhIKBGxpc3QSCioICgIYAQoCGAIyCwoDcmF3EgQ6AgD/\
RQEAAABKEFuO//eYA4ED0mm2M4E/xgxSCO7hm37DwbF0Wb/3DkJwFnEYElIQEiovMi0KGwoBYRIWMhQKEgoBYhINKgsKAh\
gBCgMKAXgKAAoOCgF6EgkhmpmZmZmZuT9ZAUCWGXAWcRhiFGRldmljZS5hcHAubGlmZWN5Y2xlEqgBCfJ1DUJwFnEYEAka\
BElORk8qEwoRY2FydCBvZiAiw6kiIHBhaWQyBwoBbhICGAMyDwoCcGkSCSEAAAAAAAAKQDIICgJvaxICEAEyEQoDYmlnEg\
oYgICAgICAgIBAMhIKBGxpc3QSCioICgIYAQoCGAIyCwoDcmF3EgQ6AgD/RQEAAABKEFuO//eYA4ED0mm2M4E/xgxSCO7h\
m37DwbF0Wb/3DkJwFnEYGidodHRwczovL29wZW50ZWxlbWV0cnkuaW8vc2NoZW1hcy8xLjI3LjA=";

pub(super) fn sdk() -> Vec<u8> {
    STANDARD.decode(SDK).unwrap()
}

/// The same request as OTLP/JSON, its keys in another order and some of its names with
/// underscores.
pub(super) fn sdk_json() -> Value {
    let paid = json!({
        "timeUnixNano": "1761213600678901234", "severityNumber": 9, "severityText": "INFO",
        "body": {"stringValue": "cart of \"é\" paid"},
        "attributes": [
            {"key": "n", "value": {"intValue": "3"}},
            {"value": {"doubleValue": 3.25}, "key": "pi"},
            {"key": "ok", "value": {"boolValue": true}},
            {"key": "big", "value": {"intValue": 4_611_686_018_427_387_904_i64}},
            {"value": {"array_value": {"values": [{"intValue": 1}, {"int_value": "2"}]}}, "key": "list"},
            {"key": "raw", "value": {"bytesValue": "AP8="}},
        ],
        "flags": 1, "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174",
        "observedTimeUnixNano": 1_761_213_600_678_999_999_u64, "droppedAttributesCount": 0,
        "unknown": [{}],
    });
    let started = json!({
        "severity_number": "SEVERITY_NUMBER_ERROR2", "observed_time_unix_nano": "1761213600000000001",
        "event_name": "device.app.lifecycle", "traceId": "", "spanId": null, "attributes": [],
        "body": {"kvlistValue": {"values": [
            {"key": "a", "value": {"kvlistValue": {"values": [
                {"value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}, {}]}},
                 "key": "b"},
            ]}}},
            {"key": "z", "value": {"doubleValue": 0.1}},
        ]}},
    });
    let resource = json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": "checkout"}},
        {"key": "service.instance.id", "value": {"stringValue": "pod-7"}},
        {"key": "cpus", "value": {"intValue": "4"}},
        {"key": "ratio", "value": {"doubleValue": "0.5"}},
        {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}},
    ], "droppedAttributesCount": 0});
    let scope = json!({"name": "shop.cart", "version": "1.2.0",
        "attributes": [{"key": "lib", "value": {"boolValue": true}}]});
    json!({"resourceLogs": [{
        "scopeLogs": [{"logRecords": [paid, started, paid], "scope": scope}],
        "schemaUrl": "https://opentelemetry.io/schemas/1.27.0", "resource": resource,
    }]})
}

fn read<T>(
    content_type: &str,
    query: &str,
    body: &[u8],
    then: impl FnOnce(Box<dyn Format + '_>) -> T,
) -> Result<T, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    let input =
        Input { body, headers: &headers, name: "", trace_id: None, batch_events_max: RECORDS_MAX };
    open(&Query::parse(Some(query)), &input).map(then)
}

/// How many records a body has.
pub(super) fn drain(content_type: &str, body: &[u8]) -> Result<usize, Problem> {
    read(content_type, "", body, |mut format| {
        let mut count = 0;
        loop {
            match format.next().unwrap().len() {
                0 => return count,
                more => count += more,
            }
        }
    })
}

/// The events of a body; those that are not valid as what is wrong with them.
fn events(content_type: &str, query: &str, body: &[u8]) -> Vec<Result<Event, String>> {
    let told = |entry: Entry| entry.map_err(|errors| errors[0].to_string());
    let all = |mut format: Box<dyn Format + '_>| {
        let mut events = Vec::new();
        loop {
            match format.next().unwrap() {
                part if part.is_empty() => return events,
                part => events.extend(part.into_iter().map(told)),
            }
        }
    };
    read(content_type, query, body, all).unwrap()
}

/// The one event of a record, without resource and scope.
fn one(record: &[u8]) -> Result<Value, String> {
    let mut scope_logs = Vec::new();
    push_bytes(&mut scope_logs, 2, record);
    payload(PROTOBUF, &message(1, &message(2, &scope_logs)))
}

fn one_json(record: &str) -> Result<Value, String> {
    let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#);
    payload(JSON, body.as_bytes())
}

fn payload(content_type: &str, body: &[u8]) -> Result<Value, String> {
    let event = events(content_type, "", body).pop().unwrap()?;
    Ok(serde_json::from_str(event.payload()).unwrap())
}

/// A message with one field of bytes.
pub(super) fn message(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    push_bytes(&mut message, number, bytes);
    message
}

#[test]
fn a_record_of_an_sdk_is_an_event() {
    let events = events(PROTOBUF, "", &sdk());
    let events: Vec<Event> = events.into_iter().map(Result::unwrap).collect();
    let [paid, started, again] = &events[..] else { panic!("{} events", events.len()) };
    assert_eq!((paid.topic().as_str(), paid.source().as_str()), ("checkout", "pod-7"));
    assert_eq!(paid.timestamp(), Some("2025-10-23T10:00:00.678901234Z"));
    assert_eq!(started.timestamp(), Some("2025-10-23T10:00:00.000000001Z"));
    let resource = json!({"service.name": "checkout", "service.instance.id": "pod-7", "cpus": 4,
        "ratio": 0.5, "tags": ["a", "b"]});
    let scope = json!({"name": "shop.cart", "version": "1.2.0", "attributes": {"lib": true}});
    let schema = "https://opentelemetry.io/schemas/1.27.0";
    assert_eq!(
        serde_json::from_str::<Value>(paid.payload()).unwrap(),
        json!({
            "severity_number": 9, "severity_text": "INFO", "body": "cart of \"é\" paid",
            "attributes": {"n": 3, "pi": 3.25, "ok": true, "big": 4_611_686_018_427_387_904_i64,
                "list": [1, 2], "raw": "AP8="},
            "flags": 1, "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
            "observed_timestamp": "2025-10-23T10:00:00.678999999Z",
            "resource": resource, "resource_schema_url": schema, "scope": scope,
        })
    );
    assert_eq!(
        serde_json::from_str::<Value>(started.payload()).unwrap(),
        json!({
            "severity_number": 18, "body": {"a": {"b": [1, "x", null]}, "z": 0.1},
            "event_name": "device.app.lifecycle",
            "observed_timestamp": "2025-10-23T10:00:00.000000001Z",
            "resource": resource, "resource_schema_url": schema, "scope": scope,
        })
    );
    assert_eq!(again.event_id().as_str(), format!("{}#1", paid.event_id().as_str()));
}

#[test]
fn both_forms_are_the_same_events() {
    let [protobuf, json] =
        [events(PROTOBUF, "", &sdk()), events(JSON, "", sdk_json().to_string().as_bytes())];
    assert_eq!(protobuf.len(), json.len());
    for (one, other) in protobuf.into_iter().zip(json) {
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.event_id(), other.event_id(), "{} {}", one.payload(), other.payload());
        assert_eq!(one.content(), other.content());
        assert_eq!(one.timestamp(), other.timestamp());
    }
}

#[test]
fn names_come_from_the_query_or_the_resource() {
    let named = |query: &str, attributes: &[(&str, Value)]| {
        let attributes: Vec<Value> =
            attributes.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let body = json!({"resourceLogs": [{"resource": {"attributes": attributes},
            "scopeLogs": [{"logRecords": [{}]}]}]});
        let event = events(JSON, query, body.to_string().as_bytes()).pop().unwrap().unwrap();
        format!("{} {}", event.topic().as_str(), event.source().as_str())
    };
    let text = |text: &str| json!({"stringValue": text});
    assert_eq!(named("", &[]), "unknown_service otlp");
    assert_eq!(named("", &[("service.name", text("a"))]), "a a");
    assert_eq!(named("", &[("host.name", text("h")), ("service.name", text("a"))]), "a h");
    assert_eq!(named("topic=t", &[("service.name", text("a"))]), "t a");
    assert_eq!(named("topic=t&source=s", &[("service.name", text("a"))]), "t s");
    assert_eq!(named("", &[("service.name", json!({"intValue": 1}))]), "unknown_service otlp");
    assert_eq!(named("", &[("service.name", text("a")), ("service.name", text("b"))]), "b b");
    assert!(read(JSON, "topic=", b"{}", |_| ()).is_err());
}

#[test]
fn values_of_every_kind() {
    let double = |number: f64| [&[0x21][..], &number.to_le_bytes()].concat();
    let deep = |levels: usize| {
        let array = |value: Vec<u8>, _| message(5, &message(1, &value));
        (1..levels).fold(vec![0x18, 7], array)
    };
    let deep_json = |levels: usize| {
        let list = |value, _| format!(r#"{{"kvlistValue":{{"values":[{{"value":{value}}}]}}}}"#);
        (1..levels).fold(r#"{"intValue":7}"#.to_owned(), list)
    };
    for (wire, text, expected) in [
        (vec![], "{}", json!(null)),
        (vec![0x0a, 0], r#"{"stringValue":""}"#, json!("")),
        (vec![0x10, 0], r#"{"boolValue":false}"#, json!(false)),
        ([&[0x18][..], &[0xff; 9], &[1]].concat(), r#"{"intValue":"-1"}"#, json!(-1)),
        (double(-0.0), r#"{"doubleValue":-0.0}"#, json!(-0.0)),
        (double(2.0), r#"{"doubleValue":2}"#, json!(2.0)),
        (double(f64::NAN), r#"{"doubleValue":"NaN"}"#, json!("NaN")),
        (double(f64::NEG_INFINITY), r#"{"doubleValue":"-Infinity"}"#, json!("-Infinity")),
        (vec![0x2a, 0], r#"{"arrayValue":{}}"#, json!([])),
        (vec![0x32, 0], r#"{"kvlistValue":{"values":null}}"#, json!({})),
        (vec![0x3a, 2, 0xfb, 0xff], r#"{"bytesValue":"-_8"}"#, json!("+/8=")),
        // The last counts.
        (vec![0x10, 1, 0x18, 5], r#"{"boolValue":true,"intValue":5}"#, json!(5)),
        (vec![0x42, 0], r#"{"dateValue":1}"#, json!(null)),
    ] {
        let body = json!({"body": expected});
        assert_eq!(one(&message(5, &wire)), Ok(body.clone()), "{text}");
        assert_eq!(one_json(&format!(r#"{{"body":{text}}}"#)), Ok(body), "{text}");
    }
    let depth = VALUE_DEPTH_MAX;
    let told = "payload cannot be made: values are nested deeper than 30 levels";
    assert!(one(&message(5, &deep(depth))).is_ok());
    assert_eq!(one(&message(5, &deep(depth + 1))).unwrap_err(), told);
    let attribute = |value: String| format!(r#"{{"attributes":[{{"value":{value}}}]}}"#);
    assert!(one_json(&attribute(deep_json(depth))).is_ok());
    let error = one_json(&attribute(deep_json(depth + 1))).unwrap_err();
    assert!(error.starts_with(told), "{error}");
}

#[test]
fn a_record_that_is_wrong_says_why() {
    for (record, expected) in [
        (vec![0x1a, 1, 0xff], "severity_text is not UTF-8"),
        (message(6, &message(1, &[0xff])), "the key of an attribute is not UTF-8"),
        (message(5, &[0x0a, 1, 0xff]), "string_value is not UTF-8"),
        (vec![0x10], "a field goes on where its message ends"),
        (vec![0x12, 0], "severity_number has the wrong wire type"),
        (vec![0x28, 0], "body has the wrong wire type"),
    ] {
        let expected = format!("payload cannot be made: {expected}");
        assert_eq!(one(&record).unwrap_err(), expected);
    }
    for (record, expected) in [
        (r#"{"severityText":"\ud800"}"#, "unexpected end of hex escape"),
        (r#"{"attributes":[{"key":"\udc00"}]}"#, "lone"),
        (r#"{"severityText":5}"#, "invalid type: integer `5`, expected a string"),
        (r#"{"severityNumber":"SEVERITY_NUMBER_INFO5"}"#, "severity_number is none that there is"),
        (r#"{"timeUnixNano":"now"}"#, "time_unix_nano is not such a number"),
        (r#"{"timeUnixNano":-1}"#, "time_unix_nano is not such a number"),
        (r#"{"traceId":"xyz"}"#, "trace_id is not hexadecimal"),
        (r#"{"body":{"intValue":1.5}}"#, "int_value is not such a number"),
        (r#"{"body":{"intValue":"9223372036854775808"}}"#, "int_value is not such a number"),
        (r#"{"body":{"bytesValue":"!"}}"#, "bytes_value is not base64"),
        (r#"{"body":"text"}"#, "invalid type: string"),
        (r#"{"attributes":{}}"#, "expected an array of objects"),
        (r#"{"attributes":[{"key":"a","key":"b"}]}"#, "the key of an attribute is there twice"),
        ("5", "expected an object"),
        ("[]", "expected an object"),
    ] {
        let error = one_json(record).unwrap_err();
        assert!(error.starts_with("payload cannot be made: "), "{error}");
        assert!(error.contains(expected), "{record}: {error}");
    }
    assert_eq!(one_json("null"), Ok(json!({})));
}

#[test]
fn what_is_no_request_is_refused() {
    let refused = |content_type: &str, body: &[u8]| {
        let problem = read(content_type, "", body, |_| ()).unwrap_err();
        (problem.status().as_u16(), problem.detail().to_owned())
    };
    for body in [&b"\x0a"[..], b"\x0a\x02\x12", b"\x08\x00\x0b", b"\x0a\x02\x12\x05", b"{}"] {
        let (status, detail) = refused(PROTOBUF, body);
        assert_eq!(status, 422, "{body:x?}");
        assert!(detail.starts_with("The body is not an ExportLogsServiceRequest: "), "{detail}");
    }
    for body in [
        &b""[..],
        b"5",
        b"[]",
        b"{",
        b"{}x",
        br#"{"resourceLogs":{}}"#,
        b"\xff",
        br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":5}]}]}"#,
    ] {
        assert_eq!(refused(JSON, body).0, 422, "{body:x?}");
    }
    assert_eq!(refused("text/plain", b"{}").0, 415);
    let many = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [1, 2, 3, 4, 5]}]}]});
    assert_eq!(refused(JSON, many.to_string().as_bytes()).0, 413);
    let many = message(1, &message(2, &[0x12, 0].repeat(RECORDS_MAX + 1)));
    assert_eq!(refused(PROTOBUF, &many).0, 413);
    for (content_type, body) in [
        (PROTOBUF, &b""[..]),
        (PROTOBUF, b"\x0a\x00"),
        ("Application/JSON; charset=utf-8", b"{}"),
        (JSON, b"null"),
        (JSON, br#"{"resource_logs":[null,{"scopeLogs":[{"logRecords":null}]}]}"#),
    ] {
        assert!(events(content_type, "", body).is_empty());
    }
}

#[test]
fn each_record_has_its_own_resource_and_scope() {
    let scope_logs = |name: &str, records: usize| {
        [message(1, &message(1, name.as_bytes())), [0x12, 0].repeat(records)].concat()
    };
    let service = |name: &str| {
        let value = message(1, name.as_bytes());
        message(1, &[message(1, b"service.name"), message(2, &value)].concat())
    };
    // What stands before its records may also come after them, and some have none.
    let body = [
        message(1, &[message(2, &scope_logs("x", 1)), message(1, &service("a"))].concat()),
        message(1, &[message(1, &service("b")), message(2, &scope_logs("y", 0))].concat()),
        message(
            1,
            &[
                message(1, &service("c")),
                message(2, &scope_logs("y", 1)),
                message(2, &scope_logs("z", 0)),
                message(2, &scope_logs("w", 2)),
            ]
            .concat(),
        ),
    ]
    .concat();
    let named = events(PROTOBUF, "", &body).into_iter().map(|event| {
        let event = event.unwrap();
        let payload: Value = serde_json::from_str(event.payload()).unwrap();
        let scope = payload["scope"]["name"].as_str().unwrap();
        format!("{} {scope} {}", event.topic().as_str(), payload["resource"]["service.name"])
    });
    let expected = [r#"a x "a""#, r#"c y "c""#, r#"c w "c""#, r#"c w "c""#];
    assert_eq!(named.collect::<Vec<_>>(), expected);
}

#[test]
fn a_resource_that_cannot_be_read_costs_its_records() {
    let long = "x".repeat(RESOURCE_BYTES_MAX);
    let attribute = json!({"key": "a", "value": {"stringValue": long}});
    let body = json!({"resourceLogs": [
        {"resource": {"attributes": [attribute]}, "scopeLogs": [{"logRecords": [{}]}]},
        {"scopeLogs": [{"scope": {"name": 5}, "logRecords": [{}]}]},
        {"scopeLogs": [{"logRecords": [{}]}]},
    ]});
    let events = events(JSON, "", body.to_string().as_bytes());
    let told: Vec<&str> =
        events.iter().map(|event| event.as_ref().map_or_else(String::as_str, |_| "")).collect();
    assert_eq!(told[0], "payload has a resource that is longer than 65536 bytes as JSON");
    assert!(told[1].starts_with("payload has a scope that cannot be read: "), "{}", told[1]);
    assert_eq!(told[2], "");
}

#[test]
fn tells_what_was_not_stored() {
    let reply = |content_type: &str, wrong: usize| {
        read(content_type, "", b"", |_| ()).ok();
        let records = (0..4).map(|index| if index < wrong { json!(5) } else { json!({}) });
        let body = json!({"resourceLogs": [{"scopeLogs": [
            {"logRecords": records.collect::<Vec<_>>()}]}]});
        read(JSON, "", body.to_string().as_bytes(), |mut format| {
            let entries = format.next().unwrap();
            let valid = entries.iter().filter(|entry| entry.is_ok()).count();
            let outcomes = (valid > 0).then(|| vec![Outcome::Duplicate; valid]);
            format.settle(entries, outcomes).unwrap();
            assert!(format.next().unwrap().is_empty());
            format.reply()
        })
        .unwrap()
    };
    let whole = |reply: Reply| match reply.body {
        Body::Whole(body) => String::from_utf8(body).unwrap(),
        Body::Stream(_) => panic!("a stream"),
    };
    assert_eq!(whole(reply(JSON, 0).unwrap()), "{}");
    let body: Value = serde_json::from_str(&whole(reply(JSON, 2).unwrap())).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedLogRecords"], "2");
    let message = body["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(message.starts_with(
        "Of 4 log records 2 are not valid; the others are stored. Record 0: payload cannot be made: "
    ));
    let problem = reply(JSON, 4).err().unwrap();
    assert_eq!(problem.status().as_u16(), 422);
    assert!(problem.detail().contains("none was stored"));
}

#[test]
fn writes_protobuf_replies_and_refusals() {
    let whole = |reply: Reply| match reply.body {
        Body::Whole(body) => body,
        Body::Stream(_) => panic!("a stream"),
    };
    assert_eq!(whole(reply::stored(Form::Protobuf, None)), b"");
    let body = whole(reply::stored(Form::Protobuf, Some((300, "why"))));
    assert_eq!(body, [0x0a, 8, 0x08, 0xac, 0x02, 0x12, 3, b'w', b'h', b'y']);

    let refused = |content_type: &str, code: Code| {
        let head = http::Request::builder().header("content-type", content_type).body(());
        let problem = Problem::new(code, "Why.").retry_after(7);
        refuse(&head.unwrap().into_parts().0, problem)
    };
    let reply = refused(PROTOBUF, Code::StoreBusy);
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert_eq!(reply.headers["content-type"], PROTOBUF);
    let mut status = Vec::new();
    push_varint(&mut status, 1, 14);
    push_bytes(&mut status, 2, b"Why.");
    assert_eq!(whole(reply), status);
    let reply = refused("text/plain", Code::InvalidBody);
    assert_eq!(reply.status.as_u16(), 400);
    assert_eq!(whole(reply), br#"{"code":3,"message":"Why."}"#);
}
