//! Bodies and replies that are compressed.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use libtest_mimic::Failed;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;
use tempfile::TempDir;

use crate::publish_stream::{line, open_in};
use crate::support::{
    Client, End, Reply, Stream, Target, TestResult, any_server, batch, check, check_eq, event,
    event_of_size, publisher, shown, test, unique_topic,
};

/// The default of `spin.toml`.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

type Encode = fn(&[u8]) -> Vec<u8>;

/// Each way to compress, by the name that is sent with it.
const CODINGS: [(&str, Encode); 5] = [
    ("gzip", gzip),
    ("X-GZIP", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("identity, zstd", zstd),
];

fn publish(client: &Client, coding: &str, body: &[u8]) -> Result<Reply, Failed> {
    Ok(client.send("POST", "/publish", &[("content-encoding", coding)], body)?)
}

#[test(any_server)]
fn each_coding_stores_once(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("codings");
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    let body = batch(&topic, &ids);
    for (number, (coding, encode)) in CODINGS.iter().enumerate() {
        let reply = publish(&client, coding, &encode(body.as_bytes()))?.expect(200)?;
        let accepted = if number == 0 { 200 } else { 0 };
        check_eq(reply.count("accepted")?, accepted, coding)?;
        check_eq(reply.count("duplicates")?, 200 - accepted, coding)?;
    }
    check_eq(client.publish(&body)?.expect(200)?.count("duplicates")?, 200, "as it is")?;
    let stored = client.all_events(&topic)?;
    check_eq(stored.len(), 200, "stored")?;
    check_eq(&stored[7]["payload"], &json!({"of": "7"}), "payload")
}

/// The longest body that there may be, and one byte more.
#[test(any_server)]
fn the_limit_is_that_of_the_decoded_body(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("longest");
    let longest = event_of_size(&topic, "1", BODY_BYTES_MAX);
    for (coding, encode) in CODINGS {
        publish(&client, coding, &encode(longest.as_bytes()))?.expect(200)?;
        let reply = publish(&client, coding, &encode(format!("{longest} ").as_bytes()))?;
        let problem = reply.expect(413)?.json()?;
        check_eq(&problem["code"], &json!("body_too_large"), coding)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        check(detail.contains("when it is decoded"), || detail.to_owned())?;
        // Ten times as much, in few bytes.
        let bomb = encode(&vec![b' '; 10 * BODY_BYTES_MAX]);
        publish(&client, coding, &bomb)?.expect(413)?;
    }
    // Bytes that do not get fewer count as they are.
    let reply = publish(&client, "gzip", &vec![0; BODY_BYTES_MAX + 1])?.expect(413)?;
    check(!reply.text.contains("decoded"), || reply.text)?;
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (5, 1), "stored")
}

#[test(any_server)]
fn what_is_not_in_its_coding_is_refused(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("corrupt");
    let body = event(&topic, "1");
    for (coding, encode) in CODINGS {
        let encoded = encode(body.as_bytes());
        let name = coding.trim_start_matches("identity, ").trim_start_matches("X-");
        let begin = format!("The body is not {}: ", name.to_lowercase());
        for bad in [
            &encoded[..encoded.len() - 1],
            &[&encoded, &b"{}"[..]].concat(),
            &[&[encoded[0] ^ 0x55], &encoded[1..]].concat(),
            body.as_bytes(),
        ] {
            let problem = publish(&client, coding, bad)?.expect(422)?.json()?;
            check_eq(&problem["code"], &json!("invalid_body"), coding)?;
            let detail = problem["detail"].as_str().unwrap_or_default();
            check(detail.starts_with(&begin), || detail.to_owned())?;
        }
        // Nothing at all is an empty body.
        let problem = publish(&client, coding, b"")?.expect(422)?.json()?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        check(!detail.starts_with(&begin), || detail.to_owned())?;
    }
    // The rest of the body did not come: it may the next time.
    let encoded = gzip(body.as_bytes());
    let head = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        client.address(),
        encoded.len() + 1
    );
    let reply = client.raw(&[head.as_bytes(), &encoded].concat(), End::HangUp)?;
    check(!reply.starts_with("HTTP/1.1 200") && !reply.starts_with("HTTP/1.1 422"), || reply)?;
    check_eq(client.counters(&topic)?.received, 0, "received")
}

#[test(any_server)]
fn one_coding_at_most_and_a_known_one(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("chained");
    let body = gzip(&gzip(event(&topic, "1").as_bytes()));
    for codings in [&["gzip, gzip"][..], &["gzip", "gzip"], &["zstd,br"], &["br"], &["compress"]] {
        let headers: Vec<_> = codings.iter().map(|one| ("content-encoding", *one)).collect();
        let reply = client.send("POST", "/publish", &headers, &body)?.expect(415)?;
        let accepted = reply.header("accept-encoding");
        check_eq(accepted, Some("gzip, deflate, zstd"), "accept-encoding")?;
    }
    for coding in ["zstd", "br"] {
        let headers = [("content-encoding", coding)];
        let reply = client.send("POST", "/publish/stream", &headers, b"x")?.expect(415)?;
        check_eq(reply.header("accept-encoding"), Some("gzip, deflate"), "accept-encoding")?;
    }
    check_eq(client.counters(&topic)?.received, 0, "received")
}

#[test(any_server)]
fn subscriptions_take_compressed_bodies(target: &Target) -> TestResult {
    let client = target.client();
    let name = unique_topic("coded");
    client.publish_one(&name, "1")?;
    let path = format!("/subscriptions/{name}");
    for (coding, encode) in CODINGS {
        let headers = [("content-encoding", coding)];
        let body = json!({"topics": [name], "start": "beginning"}).to_string();
        let reply = client.send("PUT", &path, &headers, &encode(body.as_bytes()))?;
        check(matches!(reply.status, 200 | 201), || format!("{reply:#?}"))?;
        let body = encode(br#"{"cursor": "1"}"#);
        client.send("POST", &format!("{path}/ack"), &headers, &body)?.expect(200)?;
        client.send("PUT", &path, &headers, b"{}")?.expect(422)?;
    }
    client.send("DELETE", &path, &[], &[])?.expect(200).map(drop)
}

/// Each outcome is read before the next event is sent.
#[test(any_server)]
fn a_stream_is_decoded_as_it_comes(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("coded-stream");
    let (mut up, mut down) = open_in(&client, "gzip")?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for (id, expected) in [(1, "accepted"), (2, "accepted"), (1, "duplicate")] {
        encoder.write_all(line(&topic, id).as_bytes())?;
        encoder.flush()?;
        let part = std::mem::take(encoder.get_mut());
        // Also when it comes in two parts.
        let (before, after) = part.split_at(part.len() / 2);
        up.send_bytes(before)?;
        up.send_bytes(after)?;
        check_eq(down.status()?.as_str(), expected, "a line")?;
    }
    up.send_bytes(&encoder.finish()?)?;
    // Another member.
    up.send_bytes(&gzip(line(&topic, 3).repeat(2_500).as_bytes()))?;
    up.end()?;
    check_eq(down.status()?.as_str(), "accepted", "in another member")?;
    for _ in 1..2_500 {
        check_eq(down.status()?.as_str(), "duplicate", "in another member")?;
    }
    check(down.next()?.is_none(), || "more outcomes than events".into())?;
    check_eq(client.counters(&topic)?.unique_processed, 3, "stored")
}

/// What came before is stored and told.
#[test(any_server)]
fn a_stream_that_is_corrupt_ends_with_the_reason(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("corrupt-stream");
    for (id, rest) in [&b"\xff\xff\xff\xff"[..], b""].iter().enumerate() {
        let (mut up, mut down) = open_in(&client, "deflate")?;
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(line(&topic, id).as_bytes())?;
        encoder.flush()?;
        up.send_bytes(encoder.get_ref())?;
        check_eq(down.status()?.as_str(), "accepted", "before")?;
        if !rest.is_empty() {
            up.send_bytes(rest)?;
        }
        up.end()?;
        let problem = down.next()?.ok_or("no last line")?;
        check_eq(&problem["code"], &json!("invalid_body"), "code")?;
        check(down.next()?.is_none(), || "something after the last line".into())?;
    }
    check_eq(client.counters(&topic)?.unique_processed, 2, "stored")
}

#[test(any_server)]
fn the_publisher_sends_gzip(target: &Target) -> TestResult {
    let directory = TempDir::new()?;
    let ledger = directory.path().join("run").display().to_string();
    let arguments = ["load", "--gzip", "--events", "500", "--audit", "--ledger", &ledger];
    let output = publisher(&target.url, &arguments).output()?;
    let told = shown(&output);
    check(output.status.success() && !told.contains("415"), || told)
}

const HTML: (&str, &str) = ("accept", "text/html");

const LINES: (&str, &str) = ("accept", "application/x-ndjson");

/// A reply and the bytes of its body, as they come.
fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> Result<(Reply, Vec<u8>), Failed> {
    let (head, mut body) = client.open(path, headers)?;
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    Ok((head.expect(200)?, bytes))
}

fn gunzip(bytes: &[u8]) -> Result<String, Failed> {
    let mut text = String::new();
    MultiGzDecoder::new(bytes).read_to_string(&mut text)?;
    Ok(text)
}

fn depends_on_coding(reply: &Reply) -> bool {
    let names = reply.header("vary").unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| name.eq_ignore_ascii_case("accept-encoding")).count() == 1
}

/// Whatever is long and not a stream of events, to GET and to HEAD.
#[test(any_server)]
fn long_replies_are_compressed_for_who_likes_it(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("replies");
    let ids: Vec<String> = (0..40).map(|id| id.to_string()).collect();
    client.publish_ids(&topic, &ids)?.expect(200)?;
    let more: Vec<String> = (0..20).map(|id| event(&format!("{topic}-{id}"), "1")).collect();
    client.publish(more.join("\n"))?.expect(200)?;
    let subscription = format!("/subscriptions/{topic}");
    let definition = json!({"topics": [topic], "start": "beginning"}).to_string();
    client.send("PUT", &subscription, &[], definition.as_bytes())?;

    let events = format!("/events?topic={topic}");
    let of_subscription = format!("{subscription}/events");
    for (path, header, is_the_same) in [
        ("/", Some(HTML), true),
        ("/", None, true),
        ("/docs", None, true),
        ("/openapi.json", None, true),
        ("/assets/style.css", None, true),
        ("/assets/dashboard.js", None, true),
        (&events, None, true),
        (&events, Some(LINES), true),
        (&of_subscription, None, true),
        ("/stats", None, false),
        ("/stats/history", None, false),
        ("/metrics", None, false),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let (as_it_is, text) = get(&client, path, &headers)?;
        check(as_it_is.header("content-encoding").is_none(), || format!("{as_it_is:#?}"))?;
        let headers = [&headers[..], &[("accept-encoding", "br, gzip;q=0.5")]].concat();
        let (reply, encoded) = get(&client, path, &headers)?;
        for reply in [&as_it_is, &reply] {
            check(depends_on_coding(reply), || format!("{path}: {reply:#?}"))?;
        }
        if path == "/stats/history" && text.len() < 1_024 {
            // There is none of earlier minutes yet.
            continue;
        }
        check(text.len() >= 1_024, || format!("{path} is short"))?;
        check_eq(reply.header("content-encoding"), Some("gzip"), path)?;
        check(encoded.len() < text.len(), || format!("{path}: {}", encoded.len()))?;
        let decoded = gunzip(&encoded)?;
        if is_the_same {
            check(decoded.as_bytes() == text, || format!("{path}: {decoded}"))?;
        }
        let head = client.send("HEAD", path, &headers, &[])?.expect(200)?;
        for name in ["content-encoding", "content-type", "etag", "vary"] {
            check_eq(head.header(name), reply.header(name), path)?;
        }
        if is_the_same {
            let name = "content-length";
            check_eq(head.header(name), reply.header(name), path)?;
        }
        for other in ["identity", "gzip;q=0", "gzip;q=0.5, identity", "br"] {
            let headers = [&headers[..headers.len() - 1], &[("accept-encoding", other)]].concat();
            let (reply, _) = get(&client, path, &headers)?;
            check(reply.header("content-encoding").is_none(), || format!("{path}: {other}"))?;
        }
    }
    client.send("DELETE", &subscription, &[], &[])?.expect(200).map(drop)
}

#[test(any_server)]
fn other_replies_come_as_they_are(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("plain");
    let gzip = ("accept-encoding", "gzip");
    for path in ["/events/stream?after=end", "/stats/stream"] {
        let head = Stream::with_headers(&client, path, &[gzip], u64::MAX)?.head;
        check(head.header("content-encoding").is_none(), || format!("{head:#?}"))?;
        check(!depends_on_coding(&head), || format!("{head:#?}"))?;
    }
    let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
    let body = batch(&topic, &ids);
    let lines: String = ids.iter().map(|id| line(&topic, id)).collect();
    let nothing = format!("/events?topic={topic}-of-nobody");
    for (method, path, body, status) in [
        ("POST", "/publish?results=all", body.as_str(), 200),
        ("POST", "/publish/stream", &lines, 200),
        ("POST", "/publish", "oops", 422),
        ("GET", &nothing, "", 200),
        ("GET", "/events?limit=0", "", 422),
        ("GET", "/nowhere", "", 404),
    ] {
        let reply = client.send(method, path, &[gzip], body.as_bytes())?.expect(status)?;
        check(reply.header("content-encoding").is_none(), || format!("{reply:#?}"))?;
    }
    Ok(())
}

/// Whoever has it compressed need not load it again, and neither need others.
#[test(any_server)]
fn compressed_pages_are_revalidated(target: &Target) -> TestResult {
    let client = target.client();
    for path in ["/docs", "/openapi.json", "/assets/dashboard.js"] {
        let gzip = ("accept-encoding", "gzip");
        let (as_it_is, _) = get(&client, path, &[])?;
        let (compressed, _) = get(&client, path, &[gzip])?;
        let strong = as_it_is.header("etag").unwrap_or_default();
        let weak = compressed.header("etag").unwrap_or_default();
        check_eq(weak, format!("W/{strong}").as_str(), path)?;
        for known in [strong, weak] {
            let reply = client.send("GET", path, &[("if-none-match", known)], &[])?.expect(304)?;
            check_eq(reply.header("etag"), Some(strong), path)?;
            check(depends_on_coding(&reply), || format!("{reply:#?}"))?;
            let headers = [("if-none-match", known), gzip];
            let reply = client.send("GET", path, &headers, &[])?.expect(304)?;
            check_eq(reply.header("etag"), Some(weak), path)?;
            check(depends_on_coding(&reply), || format!("{reply:#?}"))?;
            check(reply.header("content-encoding").is_none(), || format!("{reply:#?}"))?;
        }
    }
    Ok(())
}
