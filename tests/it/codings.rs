//! Bodies that are compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use libtest_mimic::Failed;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;
use tempfile::TempDir;

use crate::publish_stream::{line, open_in};
use crate::support::{
    Client, End, Reply, Target, TestResult, any_server, batch, check, check_eq, event,
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
