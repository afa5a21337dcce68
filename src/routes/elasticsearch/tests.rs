use http::header;
use serde_json::{Value, json};

use crate::http::reply::{Body, Reply};
use crate::platform::fake;
use crate::testing::{TestService, json as body_of};

fn send(service: &TestService, path: &str, body: &str) -> (u16, Value) {
    let reply = service.answer("POST", path, &[], body.as_bytes());
    assert_eq!(reply.headers["x-elastic-product"], "Elasticsearch");
    (reply.status.as_u16(), body_of(reply))
}

fn text(reply: Reply) -> String {
    match reply.body {
        Body::Whole(body) => String::from_utf8(body).unwrap(),
        Body::Stream(_) => panic!("a stream"),
    }
}

/// Status and outcome or type of error of each item.
fn told(reply: &Value) -> Vec<(u64, String)> {
    let items = reply["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let result = item.as_object().unwrap().values().next().unwrap();
            let outcome = result["result"].as_str().or(result["error"]["type"].as_str());
            (result["status"].as_u64().unwrap(), outcome.unwrap().to_owned())
        })
        .collect()
}

#[test]
fn the_reply_is_that_of_elasticsearch() {
    let service = TestService::new();
    let body = "{\"create\":{\"_index\":\"i\",\"_id\":\"1\"}}\n{\"m\":1}\n";
    let first = service.answer("POST", "/_bulk", &[], body.as_bytes());
    assert_eq!(first.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(
        text(first),
        r#"{"took":0,"errors":false,"items":[{"create":{"_index":"i","_id":"1","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":1,"_primary_term":1,"status":201}}]}"#
    );
    let accept = "application/vnd.elasticsearch+json; compatible-with=8";
    let again = service.answer("PUT", "/_bulk", &[("accept", accept)], body.as_bytes());
    assert_eq!(
        again.headers[header::CONTENT_TYPE],
        "application/vnd.elasticsearch+json;compatible-with=8"
    );
    assert_eq!(
        text(again),
        r#"{"took":0,"errors":false,"items":[{"create":{"_index":"i","_id":"1","_version":1,"result":"noop","_shards":{"total":0,"successful":0,"failed":0},"_primary_term":1,"status":200}}]}"#
    );
    let other = body.replace("\"m\":1", "\"m\":2").replace("create", "index");
    assert_eq!(
        text(service.answer("POST", "/_bulk", &[], other.as_bytes())),
        r#"{"took":0,"errors":true,"items":[{"index":{"_index":"i","_id":"1","status":409,"error":{"type":"version_conflict_engine_exception","reason":"[1]: version conflict, document already exists with other content (current version [1])"}}}]}"#
    );
}

#[test]
fn documents_become_events() {
    let service = TestService::new();
    let agent = [("user-agent", "Fluent-Bit/3.1")];
    for (document, source, time) in [
        (r#"{"host":{"name":"n","hostname":"h"},"agent":{"name":"a"}}"#, "n", None),
        (r#"{"host":{"hostname":"h"},"agent":{"name":"a"}}"#, "h", None),
        (r#"{"host.name":"n","agent":{"name":"a"}}"#, "n", None),
        (r#"{"host":"web","agent":{"name":"a"}}"#, "web", None),
        (r#"{"agent":{"name":"a"},"host":{"name":["n"]}}"#, "a", None),
        (r#"{"agent.name":"a","host":{"name":""}}"#, "a", None),
        (r#"{"host":{"name":"\u0000"}}"#, "Fluent-Bit", None),
        (
            r#"{"@timestamp":"2025-10-23T10:00:00.5+02:00"}"#,
            "Fluent-Bit",
            Some("2025-10-23T10:00:00.5+02:00"),
        ),
        (r#"{"@timestamp":1761213600678}"#, "Fluent-Bit", Some("2025-10-23T10:00:00.678Z")),
        (r#"{"@timestamp":"1761213600678"}"#, "Fluent-Bit", Some("2025-10-23T10:00:00.678Z")),
        (r#"{"@timestamp":"soon"}"#, "Fluent-Bit", None),
        (r#"{"@timestamp":{}}"#, "Fluent-Bit", None),
        ("{}", "Fluent-Bit", None),
    ] {
        let body = format!("{{\"index\":{{}}}}\n{document}\n");
        let reply = service.answer("POST", "/a%C3%A9/_bulk", &agent, body.as_bytes());
        assert_eq!(told(&body_of(reply)), [(201, "created".to_owned())], "{document}");
        let page = service.get("/events?order=desc&limit=1").1;
        let event = &page["events"][0];
        assert_eq!((&event["topic"], &event["source"]), (&json!("aé"), &json!(source)));
        assert_eq!(event["payload"], serde_json::from_str::<Value>(document).unwrap());
        let expected = time.unwrap_or("2026-01-02T03:04:05.678Z");
        assert_eq!(event["timestamp"], expected, "{document}");
    }
    let own = "{\"create\":{\"_index\":\"own\",\"_id\":7}}\n{\"host\":\"h\"}\n";
    send(&service, "/_bulk?source=given&refresh=true", own);
    let event = &service.get("/events?topic=own").1["events"][0];
    assert_eq!((&event["event_id"], &event["source"]), (&json!("7"), &json!("given")));
}

#[test]
fn ids_by_content_know_a_request_that_is_sent_again() {
    let service = TestService::new();
    let body = "{\"create\":{\"_index\":\"i\"}}\n{\"m\":1}\n".repeat(3);
    let (_, first) = send(&service, "/_bulk", &body);
    assert_eq!(told(&first), vec![(201, "created".to_owned()); 3]);
    let (_, again) = send(&service, "/_bulk", &body);
    assert_eq!(told(&again), vec![(200, "noop".to_owned()); 3]);
    let ids = |reply: &Value| -> Vec<Value> {
        let items = reply["items"].as_array().unwrap().iter();
        items.map(|item| item["create"]["_id"].clone()).collect()
    };
    assert_eq!(ids(&first), ids(&again));
}

#[test]
fn what_cannot_be_stored_costs_no_other() {
    let service = TestService::new();
    let long = "x".repeat(10_000);
    let body = format!(
        "{{\"create\":{{\"_index\":\"i\",\"_id\":\"1\"}}}}\n{{}}\n\
         {{\"create\":{{\"_index\":\"i\",\"_id\":\"2\"}}}}\n{{oops\n\
         {{\"index\":{{\"_index\":\"i\"}}}}\n7\n\
         {{\"update\":{{\"_index\":\"i\",\"_id\":\"1\"}}}}\n{{\"doc\":{{}}}}\n\
         {{\"delete\":{{\"_index\":\"i\",\"_id\":\"1\"}}}}\n\
         {{\"index\":{{}}}}\n{{}}\n\
         {{\"index\":{{\"_index\":\"{long}\"}}}}\n{{}}\n\
         {{\"index\":{{\"_index\":\"i\",\"_id\":\"\"}}}}\n{{}}\n\
         {{\"index\":{{\"_index\":\"i\",\"_id\":[]}}}}\n{{}}\n\
         {{\"index\":{{\"_index\":\"i\"}}}}\n{{\"a\":\"\\ud800\"}}\n"
    );
    let (status, reply) = send(&service, "/_bulk", &body);
    assert_eq!((status, &reply["errors"]), (200, &json!(true)));
    let expected = [
        (201, "created"),
        (400, "document_parsing_exception"),
        (400, "document_parsing_exception"),
        (400, "action_request_validation_exception"),
        (400, "action_request_validation_exception"),
        (400, "invalid_index_name_exception"),
        (400, "invalid_index_name_exception"),
        (400, "illegal_argument_exception"),
        (400, "illegal_argument_exception"),
        (400, "document_parsing_exception"),
    ];
    assert_eq!(told(&reply), expected.map(|(status, kind)| (status, kind.to_owned())));
    assert_eq!(reply["items"][1]["create"]["_id"], "2");
    assert!(reply["items"][6]["index"]["_index"].as_str().unwrap().len() < 300);
    let stats = service.get("/stats").1;
    assert_eq!((&stats["unique_processed"], &stats["rejected"]), (&json!(1), &json!(9)));
}

#[test]
fn refusals_are_those_of_elasticsearch() {
    let service = TestService::new();
    let good = "{\"create\":{\"_index\":\"i\"}}\n{}\n";
    for (path, body, status, kind, reason) in [
        ("/_bulk", "", 400, "illegal_argument_exception", "no action"),
        ("/_bulk", "\n", 400, "illegal_argument_exception", "no action"),
        ("/_bulk", "{}\n", 400, "illegal_argument_exception", "line [1]"),
        ("/_bulk", &format!("{good}oops\n{{}}\n"), 400, "illegal_argument_exception", "line [3]"),
        ("/_bulk?source=", good, 400, "illegal_argument_exception", "source"),
        ("/%FF/_bulk", good, 400, "illegal_argument_exception", "UTF-8"),
        ("/_bulk", &good.repeat(10_001), 413, "content_too_long_exception", "10000"),
    ] {
        let (found, reply) = send(&service, path, body);
        let error = &reply["error"];
        assert_eq!((found, &reply["status"]), (status, &json!(status)), "{path} {reply}");
        assert_eq!((&error["type"], &error["root_cause"][0]["type"]), (&json!(kind), &json!(kind)));
        assert!(error["reason"].as_str().unwrap().contains(reason), "{reply}");
    }
    assert_eq!(service.get("/stats").1["received"], 0);
    service.faults.replace(vec![fake::unavailable(); 100_000]);
    let reply = service.answer("POST", "/_bulk", &[], good.as_bytes());
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers[header::RETRY_AFTER], "1");
    assert_eq!(body_of(reply)["error"]["type"], "unavailable_shards_exception");
    let health = service.answer("GET", "/_cluster/health", &[], b"");
    assert_eq!(health.headers[header::RETRY_AFTER], "1");
    assert_eq!((health.status.as_u16(), &body_of(health)["status"]), (503, &json!("red")));
}

#[test]
fn its_clients_are_told_what_they_look_for_and_others_what_they_were() {
    let service = TestService::new();
    let json_type = ("content-type", "application/json");
    for (headers, expected) in [
        (&[("accept", "application/json")][..], "application/json"),
        (
            &[("accept", "application/vnd.elasticsearch+json; compatible-with=9")],
            "application/vnd.elasticsearch+json;compatible-with=9",
        ),
        (&[json_type], "application/json"),
        (&[("accept", "*/*"), json_type], "application/json"),
        (&[], "text/plain; charset=utf-8"),
        (&[("accept", "*/*")], "text/plain; charset=utf-8"),
        (&[("accept", "application/json, text/plain, */*")], "text/plain; charset=utf-8"),
        (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], "text/html; charset=utf-8"),
        (&[("accept", "text/html"), json_type], "text/html; charset=utf-8"),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = service.answer(method, "/", headers, b"");
            assert_eq!(reply.status, 200);
            assert_eq!(reply.headers[header::CONTENT_TYPE], expected, "{headers:?}");
            let is_elastic = reply.headers.contains_key("x-elastic-product");
            assert_eq!(is_elastic, expected.contains("json"), "{headers:?}");
        }
    }
    let info = body_of(service.answer("GET", "/", &[json_type], b""));
    assert_eq!(
        (&info["version"]["number"], &info["tagline"]),
        (&json!("8.17.0"), &json!("You Know, for Search"))
    );
    let license = body_of(service.answer("GET", "/_license", &[], b""));
    assert_eq!(
        (&license["license"]["status"], &license["license"]["type"]),
        (&json!("active"), &json!("basic"))
    );
    let health = service.answer("GET", "/_cluster/health", &[], b"");
    assert_eq!((health.status.as_u16(), &body_of(health)["status"]), (200, &json!("green")));
}

/// Whatever is sent, the reply is one of the protocol, and has an item for each action.
#[test]
fn broken_bodies_are_refused() {
    let service = TestService::new();
    let whole = "{\"create\":{\"_index\":\"i\",\"_id\":\"é\"}}\n{\"a\":[1,{\"b\":\"\\u0000\"}]}\n";
    let mut bodies: Vec<Vec<u8>> =
        (0..whole.len()).map(|at| whole.as_bytes()[..at].to_vec()).collect();
    for (at, _) in whole.char_indices() {
        for other in [&b"\""[..], b"{", b"]", b"\n", b"\xff", b"null", b"\0", b"\\ud800"] {
            let mut body = whole.as_bytes().to_vec();
            body.splice(at..=at, other.iter().copied());
            bodies.push(body);
        }
    }
    for value in ["null", "true", "-1", "1e400", "\"\"", "[]", "{}", "[[{}]]", "\"\\u0000\""] {
        for field in ["_index", "_id", "routing"] {
            bodies.push(format!("{{\"index\":{{\"{field}\":{value}}}}}\n{{}}\n").into_bytes());
        }
        for field in ["@timestamp", "host", "agent", "host.name"] {
            bodies.push(format!("{{\"index\":{{}}}}\n{{\"{field}\":{value}}}\n").into_bytes());
        }
        bodies.push(format!("{{\"index\":{value}}}\n{{}}\n").into_bytes());
    }
    for body in &bodies {
        let reply = service.answer("POST", "/i/_bulk", &[], body);
        let (status, reply) = (reply.status.as_u16(), body_of(reply));
        let shown = || format!("{}: {reply}", String::from_utf8_lossy(body));
        match status {
            200 => assert!(!reply["items"].as_array().unwrap().is_empty(), "{}", shown()),
            400 => assert!(reply["error"]["reason"].is_string(), "{}", shown()),
            _ => panic!("{status} {}", shown()),
        }
    }
}
