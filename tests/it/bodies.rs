use std::io::{Read, Write};

use crate::client::End;
use crate::harness::{Outcome, Target, check, check_eq, event, unique_topic};
use crate::registry::{any_server, test};

/// Defaults of `spin.toml`.
const BODY_BYTES_MAX: usize = 10_485_760;
const BATCH_EVENTS_MAX: usize = 10_000;

/// Most characters of a name.
const NAME_CHARS_MAX: usize = 255;

/// Most levels of a payload.
const PAYLOAD_DEPTH_MAX: usize = 500;

#[test(any_server)]
fn limits_names_to_255_characters(target: &Target) -> Outcome {
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

/// An event whose JSON text has exactly `bytes` bytes.
fn event_of(topic: &str, event_id: &str, bytes: usize) -> String {
    let empty =
        format!(r#"{{"topic":"{topic}","event_id":"{event_id}","source":"s","payload":""}}"#);
    empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
}

#[test(any_server)]
fn limits_a_body_to_10_mib(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("large");
    let reply = client.publish(event_of(&topic, "fits", BODY_BYTES_MAX))?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted")?;
    let reply = client.publish(event_of(&topic, "fits", BODY_BYTES_MAX))?.expect(200)?;
    check_eq(reply.count("conflicts")?, 0, "conflicts")?;
    for bytes in [BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX] {
        let reply = client.publish(event_of(&topic, "too large", bytes))?.expect(413)?;
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
fn limits_a_batch_to_10_000_events(target: &Target) -> Outcome {
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
fn limits_the_nesting_of_a_payload(target: &Target) -> Outcome {
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
    for body in ["[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
        client.publish(body)?.expect(422)?;
    }
    client.publish(event(&topic, "still alive"))?.expect(200).map(drop)
}

#[test(any_server)]
fn takes_chunks_without_a_length(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("chunked");
    let event = event(&topic, "1");
    let (first, second) = event.split_at(20);
    let request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        client.address(),
        first.len(),
        second.len()
    );
    let reply = client.raw(request.as_bytes(), End::Wait)?;
    check(reply.starts_with("HTTP/1.1 200") && reply.contains(r#""accepted":1"#), || reply)?;
    // Over the limit without saying so first.
    let chunk = "x".repeat(1 << 20);
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        client.address()
    );
    for _ in 0..11 {
        request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\n\r\n");
    let reply = client.raw(request.as_bytes(), End::Wait)?;
    check(reply.starts_with("HTTP/1.1 413"), || reply)?;
    check_eq(client.counters(&topic)?.received, 1, "received")
}

#[test(any_server)]
fn stores_nothing_of_a_truncated_body(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("cut-off");
    let lines = format!("{}\n{}\n", event(&topic, "1"), event(&topic, "2"));
    // Whole lines, but not all that was announced: nothing tells that the last is the last.
    let with_length = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{lines}",
        client.address(),
        lines.len() + 50
    );
    let in_chunks = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{lines}\r\n",
        client.address(),
        lines.len()
    );
    for request in [with_length, in_chunks] {
        let reply = client.raw(request.as_bytes(), End::HangUp)?;
        check(!reply.starts_with("HTTP/1.1 200"), || format!("acknowledged: {reply}"))?;
        check_eq(client.counters(&topic)?.received, 0, "received")?;
    }
    client.publish(&lines)?.expect(200)?;
    check_eq(client.counters(&topic)?.unique_processed, 2, "stored after the retry")
}

#[test(any_server)]
fn refuses_what_is_not_utf8(target: &Target) -> Outcome {
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

/// As many bytes as a body may have, each line of which could go on to the end:
/// to look at all that follows for each line would take minutes.
#[test(any_server)]
fn rejects_lines_that_open_and_never_close(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("unclosed");
    let line = format!("{}\n", "[".repeat(1000));
    let body = format!("{}\n{}", event(&topic, "1"), line.repeat(BATCH_EVENTS_MAX - 1));
    let reply = client.publish(body)?.expect(200)?;
    check_eq(reply.count("accepted")?, 1, "accepted")?;
    check_eq(reply.count("rejected")?, BATCH_EVENTS_MAX as u64 - 1, "rejected")
}

/// A client that sends all before it listens must get its answer.
#[test(any_server)]
fn reads_a_large_body_that_it_refuses(target: &Target) -> Outcome {
    let client = target.client();
    let body = vec![b'x'; 8 << 20];
    let reply = client.send("POST", "/publish", &[("content-encoding", "br")], &body)?;
    reply.expect(415)?;
    client.send("POST", "/nowhere", &[], &body)?.expect(404)?;
    client.send("POST", "/stats", &[], &body)?.expect(405).map(drop)
}

#[test(any_server)]
fn answers_head_over_http_2(target: &Target) -> Outcome {
    let curl = |path: &str| {
        let url = format!("{}{path}", target.url);
        let flags = ["--http2-prior-knowledge", "--silent", "--show-error", "--head"];
        std::process::Command::new("curl").args(flags).arg(url).output()
    };
    if curl("/").is_err() {
        println!("bodies::head_over_http_2: no curl not tested");
        return Ok(());
    }
    for (path, status) in [("/", 200), ("/stats", 200), ("/events", 200), ("/nowhere", 404)] {
        let output = curl(path)?;
        let said = crate::harness::shown(&output);
        let head = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_expected = head.starts_with(&format!("HTTP/2 {status}"));
        check(output.status.success() && is_expected, || said)?;
        check(head.contains("content-length: "), || head.clone())?;
    }
    Ok(())
}

#[test(any_server)]
fn continues_a_page_of_large_payloads_on_the_next(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("pages");
    for id in 0..12 {
        client.publish(event_of(&topic, &id.to_string(), 1 << 20))?.expect(200)?;
    }
    let first = client.get(&format!("/events?topic={topic}&limit=1000"))?.expect(200)?.json()?;
    let count = first["count"].as_u64().unwrap_or_default();
    check((1..12).contains(&count), || format!("{count} large events on one page"))?;
    let all = client.all_events(&topic)?;
    let ids: Vec<&str> = all.iter().filter_map(|event| event["event_id"].as_str()).collect();
    let expected: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    check_eq(ids, expected.iter().map(String::as_str).collect(), "ids")
}

#[test(any_server)]
fn ndjson_has_every_row(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("stream");
    for batch in 0..3 {
        let events: Vec<String> = (0..100)
            .map(|id| event_of(&topic, &format!("{:03}", batch * 100 + id), 5_000))
            .collect();
        client.publish(events.join("\n"))?.expect(200)?;
    }
    let accept = [("accept", "application/x-ndjson")];
    let reply = client.send("GET", &format!("/events?topic={topic}&limit=299"), &accept, &[])?;
    let reply = reply.expect(200)?;
    let mut ids = Vec::new();
    for line in reply.text.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        ids.push(row["event_id"].as_str().unwrap_or_default().to_owned());
    }
    let expected: Vec<String> = (0..299).map(|id| format!("{id:03}")).collect();
    check_eq(ids, expected, "ids of the stream")
}

/// The body is all there, the connection stays open, and nothing more comes:
/// the reply must not wait for it.
#[test(any_server)]
fn replies_before_the_end_of_a_keep_alive_body(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("keep-alive");
    let mut stream = client.connect()?;
    for id in 0..3 {
        let body = event(&topic, &id.to_string());
        write!(
            stream,
            "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            client.address(),
            body.len()
        )?;
        let mut reply = String::new();
        let mut buffer = [0; 4096];
        while !reply.ends_with('}') {
            let read = stream.read(&mut buffer)?;
            check(read > 0, || format!("closed after {reply}"))?;
            reply.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        check(reply.starts_with("HTTP/1.1 200"), || reply)?;
    }
    check_eq(client.counters(&topic)?.unique_processed, 3, "stored")
}
