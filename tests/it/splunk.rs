//! `/services/collector`: events for Splunk.

use serde_json::json;

use crate::support::{Reply, Target, TestResult, any_server, check, check_eq, test, unique_topic};

fn send(target: &Target, path: &str, body: &[u8]) -> Result<Reply, libtest_mimic::Failed> {
    let headers = [("authorization", "Splunk 00000000-0000-0000-0000-000000000000")];
    Ok(target.client().send("POST", &format!("/services/collector{path}"), &headers, body)?)
}

#[test(any_server)]
fn a_request_that_is_sent_again_stores_nothing_new(target: &Target) -> TestResult {
    let topic = unique_topic("splunk");
    let event = |id: usize| json!({"event": {"n": id}, "time": "1761213600.678", "host": "h", "index": topic});
    let events: String = (0..500).map(|id| event(id % 400).to_string()).collect();
    for path in ["", "/event", "/event/1.0"] {
        let reply = send(target, path, events.as_bytes())?.expect(200)?;
        check_eq(reply.text.as_str(), r#"{"text":"Success","code":0}"#, "reply")?;
    }
    let lines = "one line\n".repeat(3);
    for path in ["/raw", "/raw/1.0"] {
        let path = format!("{path}?index={topic}&channel=c");
        send(target, &path, lines.as_bytes())?.expect(200)?;
    }
    let stored = target.client().all_events(&topic)?;
    check_eq(stored.len(), 503, "events")?;
    check(stored[0]["source"] == "h" && stored[0]["payload"]["event"]["n"] == 0, || {
        format!("{:#}", stored[0])
    })
}

#[test(any_server)]
fn what_is_stored_of_a_refused_request_is_said(target: &Target) -> TestResult {
    let topic = unique_topic("splunk");
    let body = r#"{"event":1}{"time":1}{"event":""}{"event":2}"#;
    let path = format!("?topic={topic}");
    for _ in 0..2 {
        let reply = send(target, &path, body.as_bytes())?.expect(400)?.json()?;
        let found = (&reply["code"], &reply["invalid-event-number"], &reply["stored"]);
        check_eq(found, (&json!(12), &json!(1), &json!(2)), "reply")?;
    }
    check_eq(target.client().all_events(&topic)?.len(), 2, "events")?;
    for (path, body, status, code) in [
        ("", &b""[..], 400, 5),
        ("", b"\xff", 400, 6),
        ("", &b"{\"event\":1}".repeat(10_001), 413, 413),
        ("/raw", &b"x".repeat(10_485_761), 413, 413),
        ("/ack", b"{\"acks\":[1]}", 400, 14),
    ] {
        let reply = send(target, path, body)?.expect(status)?.json()?;
        check_eq(&reply["code"], &json!(code), path)?;
    }
    Ok(())
}

#[test(any_server)]
fn probes_are_answered(target: &Target) -> TestResult {
    let client = target.client();
    for path in ["/services/collector/health", "/services/collector/health/1.0"] {
        let reply = client.get(path)?.expect(200)?;
        check_eq(reply.text.as_str(), r#"{"text":"HEC is healthy","code":17}"#, path)?;
        client.send("HEAD", path, &[], &[])?.expect(200)?;
    }
    client.send("OPTIONS", "/services/collector/event/1.0", &[], &[])?.expect(200)?;
    client.get("/services/collector")?.expect(405).map(drop)
}
