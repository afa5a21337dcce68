use std::fmt::Write as _;

use http::header;
use serde_json::{Value, json};

use crate::platform::fake;
use crate::testing::{TestService, json as body_of};

fn send(service: &TestService, path: &str, body: &str) -> (u16, Value) {
    let path = format!("/services/collector{path}");
    let reply = service.answer("POST", &path, &[], body.as_bytes());
    (reply.status.as_u16(), body_of(reply))
}

/// The stored events, less what is of their receipt.
fn stored(service: &TestService) -> Vec<Value> {
    let page = service.get("/events").1;
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            let time = event["timestamp"].as_str().unwrap();
            let time = if time.starts_with("2026-01-02") { "receipt" } else { time };
            json!([event["topic"], event["source"], time, event["payload"]])
        })
        .collect()
}

#[test]
fn events_are_stored_once_with_what_they_say_of_themselves() {
    let service = TestService::new();
    let body = concat!(
        r#"{"event":"a","time":"1761213600.678","host":"h","source":"s","sourcetype":"st","index":"i"}"#,
        r#"{"event":{"m":1},"time":1761213600,"source":"s","sourcetype":"st","index":""}"#,
        "\n",
        r#"{"event":"b","time":null,"host":null}"#,
        r#"{"event":"b","time":null,"host":null}"#,
    );
    for _ in 0..2 {
        assert_eq!(send(&service, "/event", body), (200, json!({"text": "Success", "code": 0})));
    }
    let blank = json!({"event": "b", "time": null, "host": null});
    let expected = [
        json!(["i", "h", "2025-10-23T10:00:00.678Z", {"event": "a", "time": "1761213600.678",
            "host": "h", "source": "s", "sourcetype": "st", "index": "i"}]),
        json!(["st", "s", "2025-10-23T10:00:00Z", {"event": {"m": 1}, "time": 1761213600,
            "source": "s", "sourcetype": "st", "index": ""}]),
        json!(["splunk", "splunk", "receipt", blank]),
        json!(["splunk", "splunk", "receipt", blank]),
    ];
    assert_eq!(stored(&service), expected);

    // The query has what they do not say; `topic` is that of all.
    let service = TestService::new();
    let query = "?host=qh&index=qi&time=1761213600.5&sourcetype=qs&source=q";
    for path in ["", "/event", "/event/1.0", "/event/1.0/"] {
        send(&service, &format!("{path}{query}"), r#"[{"event":"1"},{"event":"2","host":"h"}]"#);
        let topic = "?topic=t&index=qi";
        send(&service, &format!("{path}{topic}"), r#"{"event":"3","sourcetype":"st"}"#);
    }
    let expected = [
        json!(["qi", "qh", "2025-10-23T10:00:00.5Z", {"event": "1"}]),
        json!(["qi", "h", "2025-10-23T10:00:00.5Z", {"event": "2", "host": "h"}]),
        json!(["t", "splunk", "receipt", {"event": "3", "sourcetype": "st"}]),
    ];
    assert_eq!(stored(&service), expected);
}

#[test]
fn ids_are_by_content_unless_the_request_says_otherwise() {
    let service = TestService::new();
    let ids = |service: &TestService| -> Vec<String> {
        let page = service.get("/events").1;
        let events = page["events"].as_array().unwrap().iter();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    send(&service, "?event_id=/fields/id", r#"{"event":"a","fields":{"id":"x"}}"#);
    send(&service, "?event_id=/fields/id", r#"{"event":"b","fields":{"id":"x"}}"#);
    assert_eq!(ids(&service), ["x"], "the first stays");
    let headers = [("idempotency-key", "k")];
    service.answer("POST", "/services/collector", &headers, br#"{"event":1}{"event":2}"#);
    assert_eq!(ids(&service), ["x", "k", "k#1"]);
    // A time that the query has is no part of the record.
    for time in ["1", "2", "1"] {
        send(&service, &format!("?time={time}"), r#"{"event":"a"}"#);
    }
    assert_eq!(ids(&service).len(), 5);
}

#[test]
fn lines_are_stored_once() {
    let service = TestService::new();
    for path in ["/raw", "/raw/1.0"] {
        let path = format!("{path}?host=h&sourcetype=st&time=1761213600");
        let (status, reply) = send(&service, &path, "one\r\n\n{\"event\":\"\"}\none");
        assert_eq!((status, &reply["code"]), (200, &json!(0)));
    }
    let time = "2025-10-23T10:00:00Z";
    let expected = [
        json!(["st", "h", time, {"message": "one"}]),
        json!(["st", "h", time, {"event": ""}]),
        json!(["st", "h", time, {"message": "one"}]),
    ];
    assert_eq!(stored(&service), expected);
}

#[test]
fn what_is_not_valid_is_numbered_and_costs_no_other() {
    let good = r#"{"event":"x"}"#;
    for (bad, code, text) in [
        (r#"{"time":1}"#, 12, "Event field is required"),
        (r#"{"event":null}"#, 13, "Event field cannot be blank"),
        (r#"{"event":""}"#, 13, "Event field cannot be blank"),
        (r#"{"event":"x","time":"soon"}"#, 6, "Invalid data format"),
        (r#"{"event":"x","time":-1}"#, 6, "Invalid data format"),
        (r#"{"event":"x","host":5}"#, 6, "Invalid data format"),
        (r#"{"event":"x","index":["i"]}"#, 6, "Invalid data format"),
        (r#"{"event":"\ud800"}"#, 6, "Invalid data format"),
        ("[1]", 6, "Invalid data format"),
        ("7", 6, "Invalid data format"),
        ("{oops", 6, "Invalid data format"),
    ] {
        let service = TestService::new();
        let (status, reply) = send(&service, "", &format!("{good}\n{bad}\n{good}"));
        assert_eq!(status, 400, "{bad}");
        let found = (&reply["code"], &reply["text"], &reply["invalid-event-number"]);
        assert_eq!(found, (&json!(code), &json!(text), &json!(1)), "{bad}");
        assert_eq!(reply["stored"], 2, "{bad}: {reply}");
        assert!(!reply["detail"].as_str().unwrap().is_empty());
        assert_eq!(service.get("/stats").1["unique_processed"], 2, "{bad}");
    }
    let service = TestService::new();
    let (status, reply) = send(&service, "", r#"[{"time":1},{"event":""}]"#);
    let found = (status, &reply["code"], &reply["invalid-event-number"], &reply["stored"]);
    assert_eq!(found, (400, &json!(12), &json!(0), &json!(0)));
    assert_eq!(service.get("/stats").1["rejected"], 2);
}

#[test]
fn refusals_are_those_of_splunk() {
    let service = TestService::new();
    for (path, body, status, code) in [
        ("", "", 400, 5),
        ("/event", " \r\n", 400, 5),
        ("/event/1.0", "[]", 400, 5),
        ("/raw", "\n\n", 400, 5),
        ("", "event", 400, 6),
        ("", "{", 400, 6),
        ("", "[{\"event\":1}", 400, 6),
        ("?host=", r#"{"event":1}"#, 400, 6),
        ("?time=now", r#"{"event":1}"#, 400, 6),
        ("?event_id=none", r#"{"event":1}"#, 400, 6),
        ("/ack", "{}", 400, 14),
    ] {
        let (found, reply) = send(&service, path, body);
        assert_eq!((found, &reply["code"]), (status, &json!(code)), "{path} {body}: {reply}");
    }
    let many = r#"{"event":1}"#.repeat(10_001);
    for (path, body) in [("", many.as_str()), ("/raw", &"x\n".repeat(10_001))] {
        let (status, reply) = send(&service, path, body);
        assert_eq!((status, &reply["code"]), (413, &json!(413)), "{reply}");
    }
    assert_eq!(service.get("/stats").1["received"], 0);

    let service = TestService::new();
    service.faults.replace(vec![fake::unavailable(); 100_000]);
    let reply = service.answer("POST", "/services/collector", &[], br#"{"event":1}"#);
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers[header::RETRY_AFTER], "1");
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(body_of(reply)["code"], 9);
    let reply = service.answer("GET", "/services/collector/health/1.0", &[], b"");
    assert_eq!(
        (reply.status.as_u16(), reply.headers.contains_key(header::RETRY_AFTER)),
        (503, true)
    );
}

#[test]
fn probes_are_answered() {
    let service = TestService::new();
    let (status, health) = service.get("/services/collector/health");
    assert_eq!((status.as_u16(), health), (200, json!({"text": "HEC is healthy", "code": 17})));
    let probe = service.answer("OPTIONS", "/services/collector/event/1.0", &[], b"");
    assert_eq!(probe.status, 200);
}

/// Whatever is sent, the reply is one of the protocol.
#[test]
fn broken_bodies_are_refused() {
    let service = TestService::new();
    let whole =
        r#"{"event":{"a":[1,"é\u0000"]},"time":"1761213600.5","host":"h","fields":{"x":1}}"#;
    let mut bodies: Vec<Vec<u8>> =
        (0..whole.len()).map(|at| whole.as_bytes()[..at].to_vec()).collect();
    for (at, _) in whole.char_indices() {
        for other in [&b"\""[..], b"{", b"]", b"\xff", b"null", b"\0", b"\\ud800"] {
            let mut body = whole.as_bytes().to_vec();
            body.splice(at..=at, other.iter().copied());
            bodies.push(body);
        }
    }
    for value in ["null", "true", "-1", "1e400", "\"\"", "[]", "{}", "[[{}]]", "\"\\u0000\""] {
        let mut fields = String::new();
        for field in ["event", "time", "host", "source", "sourcetype", "index", "fields"] {
            bodies.push(format!("{{\"event\":1,\"{field}\":{value}}}").into_bytes());
            write!(fields, "{{\"{field}\":{value}}}").unwrap();
        }
        bodies.push(fields.into_bytes());
    }
    for body in &bodies {
        for path in ["/services/collector", "/services/collector/raw"] {
            let reply = service.answer("POST", path, &[], body);
            let (status, reply) = (reply.status.as_u16(), body_of(reply));
            let shown = || format!("{path} {}: {reply}", String::from_utf8_lossy(body));
            assert!([200, 400].contains(&status), "{}", shown());
            assert_eq!(status == 200, reply["code"] == 0, "{}", shown());
            assert!(reply["text"].is_string(), "{}", shown());
        }
    }
}
