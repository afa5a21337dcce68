//! POST /publish: what an event and a batch may hold, and how much.

use serde_json::json;

use crate::support::{
    Server, Target, TestResult, any_server, check, check_eq, event, event_of_size, own_server,
    test, unique_topic,
};

/// Defaults of `spin.toml`.
const BODY_BYTES_MAX: usize = 10_485_760;

const BATCH_EVENTS_MAX: usize = 10_000;

/// Most characters of a name.
const NAME_CHARS_MAX: usize = 255;

/// Most levels of a payload.
const PAYLOAD_DEPTH_MAX: usize = 500;

#[test(any_server)]
fn limits_names_to_255_characters(target: &Target) -> TestResult {
    let client = target.client();
    for character in ["x", "é", "😀"] {
        for field in ["topic", "event_id", "source"] {
            let topic = unique_topic("names");
            let mut event = serde_json::json!({"topic": topic, "event_id": "1", "source": "s"});
            let prefix = if field == "topic" { topic } else { String::new() };
            let room = NAME_CHARS_MAX - prefix.len();
            event[field] = format!("{prefix}{}", character.repeat(room)).into();
            client.publish(event.to_string())?.expect(200)?;
            event[field] = format!("{prefix}{}", character.repeat(room + 1)).into();
            let reply = client.publish(event.to_string())?.expect(422)?.json()?;
            check(reply["errors"][0]["field"] == field, || format!("{reply:#}"))?;
        }
    }
    Ok(())
}

#[test(any_server)]
fn limits_a_body_to_10_mib(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("large");
    let reply = client.publish(event_of_size(&topic, "fits", BODY_BYTES_MAX))?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted")?;
    let reply = client.publish(event_of_size(&topic, "fits", BODY_BYTES_MAX))?.expect(200)?;
    check_eq(reply.count("conflicts")?, 0, "conflicts")?;
    for bytes in [BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX] {
        let reply = client.publish(event_of_size(&topic, "too large", bytes))?.expect(413)?;
        let detail = reply.json()?["detail"].to_string();
        check(detail.contains("body_bytes_max") && detail.contains("10485760"), || detail)?;
    }
    let page = client.get(&format!("/events?topic={topic}"))?.expect(200)?;
    let page = page.json()?;
    check(page["count"] == 1, || format!("{} events", page["count"]))?;
    let stored = page["events"][0]["payload"].as_str().unwrap_or_default().len();
    check(stored > BODY_BYTES_MAX - 1000, || format!("{stored} bytes came back"))
}

#[test(any_server)]
fn limits_a_batch_to_10_000_events(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("many");
    let batch = |events: usize| {
        let events: Vec<String> = (0..events).map(|id| event(&topic, &id.to_string())).collect();
        format!("[{}]", events.join(","))
    };
    let reply = client.publish(batch(BATCH_EVENTS_MAX + 1))?.expect(413)?.json()?;
    let detail = reply["detail"].to_string();
    check(detail.contains("batch_events_max") && detail.contains("10000"), || detail)?;
    check_eq(client.counters(&topic)?.received, 0, "received after 413")?;
    let reply = client.publish(batch(BATCH_EVENTS_MAX))?.expect(200)?;
    check_eq(reply.count("accepted")?, BATCH_EVENTS_MAX as u64, "accepted")?;
    let ndjson: String = (0..=BATCH_EVENTS_MAX).map(|id| event(&topic, &id.to_string())).collect();
    client.publish(ndjson)?.expect(413)?;
    let all = client.all_events(&topic)?;
    check_eq(all.len(), BATCH_EVENTS_MAX, "stored events")
}

#[test(any_server)]
fn limits_the_nesting_of_a_payload(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("deep");
    let nested = |levels: usize, id: usize| {
        let payload = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s","payload":{payload}}}"#)
    };
    client.publish(nested(PAYLOAD_DEPTH_MAX, 1))?.expect(200)?;
    let page = client.get(&format!("/events?topic={topic}"))?.expect(200)?;
    check(page.text.contains(&"[".repeat(PAYLOAD_DEPTH_MAX)), || {
        "the payload came back other".into()
    })?;
    for levels in [PAYLOAD_DEPTH_MAX + 1, 100_000, 4_000_000] {
        let reply = client.publish(nested(levels, 2))?.expect(422)?.json()?;
        check(reply["errors"][0]["field"] == "payload", || format!("{reply:#}"))?;
    }
    for piece in ["[", "{\"a\":", "[{\"\":"] {
        let body = piece.repeat(BODY_BYTES_MAX / piece.len());
        client.publish(&body)?.expect(422)?;
        let line = format!("{{}}\n{}", &body[..BODY_BYTES_MAX - 3]);
        client.publish(line)?.expect(422)?;
        let wrapped = format!("{{\"events\":{}", &body[..BODY_BYTES_MAX - 10]);
        client.publish(wrapped)?.expect(422)?;
    }
    client.publish(event(&topic, "still alive"))?.expect(200).map(drop)
}

#[test(any_server)]
fn refuses_what_is_not_utf8(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("utf8");
    let mut body = event(&topic, "1").into_bytes();
    let last = body.len() - 3;
    body[last] = 0xff;
    let reply = client.publish(&body)?.expect(422)?.json()?;
    check(reply["code"] == "invalid_body", || format!("{reply:#}"))?;
    client.publish([0u8, 159, 146, 150])?.expect(422)?;
    check_eq(client.counters(&topic)?.received, 0, "received")?;
    let line = |id| event(&topic, id).into_bytes();
    let lines = [line("1"), body, line("2")].join(&b'\n');
    let reply = client.publish(lines)?.expect(200)?;
    check_eq((reply.count("accepted")?, reply.count("rejected")?), (2, 1), "accepted, rejected")
}

/// One event too many ends the work, wherever it stands and whatever it is.
#[test(any_server)]
fn counts_the_events_of_every_shape(target: &Target) -> TestResult {
    let client = target.client();
    let numbers = "1 ".repeat(BODY_BYTES_MAX / 2 - 10);
    for body in [
        format!("{{}}\nx\n{numbers}"),
        format!("{{}} x\n{numbers}"),
        format!("{{}} {numbers}"),
        format!("{{}}{numbers}"),
        format!("{{\"events\":[1{}]}}", ",1".repeat(BODY_BYTES_MAX / 2 - 10)),
        format!("[1{}]", ",1".repeat(BODY_BYTES_MAX / 2 - 10)),
        format!("[{{}}{}", ",{}".repeat(BATCH_EVENTS_MAX)),
        format!("{{}}\n{}", "x\n".repeat(BATCH_EVENTS_MAX)),
        "{}".repeat(BATCH_EVENTS_MAX + 1),
    ] {
        let reply = client.publish(&body)?.expect(413)?.json()?;
        check(reply["code"] == "too_many_events", || format!("{body:.40}: {reply:#}"))?;
    }
    let body = format!("{{}}\n{}", "x\n".repeat(BATCH_EVENTS_MAX - 1));
    client.publish(body)?.expect(422).map(drop)
}

/// Parameters that give no topic leave it to the events, so an object without one holds
/// some.
#[test(any_server)]
fn takes_a_batch_in_an_object_whatever_parameters_say(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("wrapped");
    for (query, event_id) in
        [("?source=web", "1"), ("?payload=*&source=web", "2"), ("?event_id=content", "3")]
    {
        let event = json!({"topic": topic, "event_id": event_id, "source": "web"});
        let body = json!({"sent_by": "a batcher", "events": [event], "event_id": "none"});
        let path = format!("/publish{query}");
        let reply = client.send("POST", &path, &[], body.to_string().as_bytes())?.expect(200)?;
        check_eq((reply.count("accepted")?, reply.count("rejected")?), (1, 0), query)?;
    }
    // With a topic it is itself one, and stored as it is.
    let path = format!("/publish?topic={topic}");
    let record = json!({"n": 1, "events": [1, 2]}).to_string();
    let reply = client.send("POST", &path, &[], record.as_bytes())?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted of a record")?;
    let stored = client.get(&format!("/events?topic={topic}"))?.expect(200)?.json()?;
    check_eq(stored["events"].as_array().map_or(0, Vec::len), 4, "events")?;
    check_eq(stored["events"][3]["payload"].to_string(), record, "the record")
}

/// What a body costs the whole process, host and SQLite included.
#[cfg(target_os = "linux")]
#[test(own_server)]
fn memory_follows_the_body_and_not_what_is_in_it() -> TestResult {
    /// Peak beyond what an idle server takes, as a multiple of a body that is
    /// stored: SQLite takes a batch apart as JSON, and so holds it many times.
    const STORED_BODIES_MAX: f64 = 40.0;
    /// The same of one that is refused.
    const REFUSED_BODIES_MAX: f64 = 6.0;
    let event = |payload: String| {
        format!(r#"{{"topic":"memory","event_id":"1","source":"s","payload":{payload}}}"#)
    };
    let filled = |piece: &str| piece.repeat((BODY_BYTES_MAX - 100) / piece.len());
    let keys: String =
        (0..).map(|n| format!("\"{n:07x}\":1,")).take(BODY_BYTES_MAX / 12 - 100).collect();
    for (of, body, status) in [
        ("a string", event(format!("\"{}\"", filled("x"))), 200),
        ("quotes", event(format!("\"{}\"", filled("\\\""))), 200),
        ("keys", event(format!("{{{keys}\"\":1}}")), 200),
        ("empty objects", event(format!("[{}{{}}]", filled("{},"))), 200),
        ("values in a line", format!("{{}}\nx\n{}", filled("1 ")), 413),
        ("elements", format!("[{}1]", filled("1,")), 413),
        ("depth", filled("["), 422),
    ] {
        let server = Server::start()?;
        let client = server.client();
        client.get("/healthz")?.expect(200)?;
        let idle = server.peak_bytes()?;
        client.publish(&body)?.expect(status)?;
        let bodies = (server.peak_bytes()? - idle) as f64 / body.len() as f64;
        println!("{of}: {bodies:.1} times the body");
        let bodies_max = if status == 200 { STORED_BODIES_MAX } else { REFUSED_BODIES_MAX };
        check(bodies < bodies_max, || format!("{of}: {bodies:.1} times the body"))?;
    }
    Ok(())
}

/// As many bytes as a body may have, each line of which could go on to the end:
/// to parse all that follows for each line would take minutes.
#[test(any_server)]
fn rejects_lines_that_open_and_never_close(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("unclosed");
    let line = format!("{}\n", "[".repeat(1000));
    let body = format!("{}\n{}", event(&topic, "1"), line.repeat(BATCH_EVENTS_MAX - 1));
    let reply = client.publish(body)?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted")?;
    check_eq(reply.count("rejected")?, BATCH_EVENTS_MAX as u64 - 1, "rejected")
}
