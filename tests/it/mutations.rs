//! Bodies that are nearly right, in every format: never a 5xx, never a reply that is not
//! as described, and all that was stored can be read.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{Client, Server, TestResult, check, concurrently, own_server, test};

/// How many bodies are sent, unless the environment says another number.
const BODIES: usize = 6_000;

/// The variable that says how many.
const BODIES_VARIABLE: &str = "SEKALI_TEST_MUTATIONS";

/// Connections that send at once.
const CLIENTS: usize = 4;

/// Most memory that the host may have had at any time, in bytes: its instances, and what
/// SQLite and the connections take.
const HOST_BYTES_MAX: u64 = 400 << 20;

/// A request as a client would send it.
struct Request {
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
}

const fn request(
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
) -> Request {
    Request { method: "POST", path, headers, body }
}

/// One of each format.
fn requests() -> Vec<Request> {
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const LINES: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
    const TEXT: &[(&str, &str)] = &[("content-type", "text/plain")];
    const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    const GZIP: &[(&str, &str)] = &[("content-encoding", "gzip")];
    const DEFLATE: &[(&str, &str)] = &[("content-encoding", "deflate")];
    const ZSTD: &[(&str, &str)] = &[("content-encoding", "zstd")];
    const CLOUD_EVENT: &[(&str, &str)] = &[("content-type", "application/cloudevents+json")];
    const CLOUD_EVENTS: &[(&str, &str)] = &[("content-type", "application/cloudevents-batch+json")];
    const BINARY: &[(&str, &str)] = &[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/a%20b"),
        ("ce-type", "mutated"),
        ("content-type", "application/json"),
    ];
    const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
    let event = r#"{"topic":"mutated","event_id":"1","source":"s","timestamp":"2025-10-23T10:00:00Z","payload":{"a":[1.50,"\u00e9\ud83d\ude00",null,true],"b":{"c":""}}}"#;
    let array = format!("[{event},{}]", event.replace("\"1\"", "\"2\""));
    let lines = format!("{event}\n{}\n", event.replace("\"1\"", "\"3\""));
    let cloud_event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"mutated","time":"2025-10-23T10:00:00Z","data":{"a":1}}"#;
    let record = r#"{"id":"1","time":1761213600.25,"msg":"started","meta":{"n":[1,2]}}"#;
    vec![
        request("/publish", JSON, event.into()),
        request("/publish?results=all", JSON, array.clone().into()),
        request("/publish", JSON, format!("{{\"events\":{array}}}").into()),
        request("/publish", LINES, lines.clone().into()),
        request("/publish?payload=*", JSON, event.into()),
        request("/publish/mutated", JSON, record.into()),
        request(
            "/publish?topic=mutated&event_id=/id&timestamp=/time&payload=/meta/n/0",
            JSON,
            record.into(),
        ),
        request("/publish/mutated", JSON, format!("{{\"logs\":[{record}]}}").into()),
        request(
            "/publish/mutated",
            JSON,
            format!("{{\"records\":[{{\"value\":{record}}}]}}").into(),
        ),
        request("/publish/mutated", TEXT, format!("a line\n{record}\n[x] another\n").into()),
        request("/publish/mutated", FORM, b"a=1&b=%C3%A9&c=x+y&a=2".into()),
        request("/publish", CLOUD_EVENT, cloud_event.into()),
        request("/publish", CLOUD_EVENTS, format!("[{cloud_event}]").into()),
        request("/publish", BINARY, br#"{"a":1}"#.into()),
        request("/v1/logs", JSON, OTLP_JSON.into()),
        request("/v1/logs?topic=mutated", PROTOBUF, otlp_protobuf()),
        request("/loki/api/v1/push", JSON, LOKI_JSON.into()),
        request("/loki/api/v1/push?topic=mutated", PROTOBUF, loki_protobuf()),
        request("/mutated/_bulk", LINES, BULK.into()),
        request("/services/collector/event", JSON, format!("{COLLECTED}{COLLECTED}").into()),
        request("/services/collector/raw?sourcetype=mutated", TEXT, b"a line\nanother\n".into()),
        request("/publish", GZIP, gzip(array.as_bytes())),
        request("/publish", DEFLATE, zlib(lines.as_bytes())),
        request("/publish", ZSTD, zstd(lines.as_bytes())),
    ]
}

/// A log record of OTLP with all kinds of values.
const OTLP_JSON: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"mutated"}}]},"scopeLogs":[{"scope":{"name":"s"},"logRecords":[{"timeUnixNano":"1761213600678901234","severityNumber":"SEVERITY_NUMBER_INFO","body":{"stringValue":"started"},"traceId":"5b8efff798038103d269b633813fc60c","attributes":[{"key":"a","value":{"intValue":"1"}},{"key":"b","value":{"arrayValue":{"values":[{"doubleValue":1.5},{"boolValue":true},{"bytesValue":"AA=="},{"kvlistValue":{"values":[{"key":"c","value":{}}]}}]}}}]},{}]}]}]}"#;

/// One in protocol buffers: a resource, a scope, and two records.
fn otlp_protobuf() -> Vec<u8> {
    let string = |value: &str| field(1, value.as_bytes());
    let attribute = |key: &str, value: &[u8]| [string(key), field(2, value)].concat();
    let resource = field(1, &attribute("service.name", &string("mutated")));
    let time = [&[1 << 3 | 1][..], &1_761_213_600_678_901_234_u64.to_le_bytes()].concat();
    let array = field(5, &field(1, &[4 << 3, 0x7f]));
    let record = [
        time,
        vec![2 << 3, 9],
        field(3, b"INFO"),
        field(5, &string("started")),
        field(6, &attribute("a", &array)),
        field(9, &[0x5b; 16]),
    ];
    let logs = [field(1, &string("s")), field(2, &record.concat()), field(2, &[])].concat();
    field(1, &[field(1, &resource), field(2, &logs)].concat())
}

/// A push of Loki with labels, a line, and one that has metadata.
const LOKI_JSON: &str = r#"{"streams":[{"stream":{"app":"mutated","host":"h"},"values":[["1761213600678901234","started"],["1761213600678901235","a \"line\"",{"trace":"1"}]]}]}"#;

/// The same in protocol buffers, in snappy.
fn loki_protobuf() -> Vec<u8> {
    let time = [&[1 << 3][..], &[0xa0, 0xf9, 0xe7, 0xc7, 0x06]].concat();
    let metadata = [field(1, b"trace"), field(2, b"1")].concat();
    let lines = [
        field(2, &[field(1, &time), field(2, b"started")].concat()),
        field(2, &[field(1, &time), field(2, b"a line"), field(3, &metadata)].concat()),
    ];
    let labels = field(1, br#"{app="mutated", host="h\"1\""}"#);
    let push = field(1, &[labels, lines.concat()].concat());
    snap::raw::Encoder::new().compress_vec(&push).unwrap_or_default()
}

/// Documents for Elasticsearch.
const BULK: &str = r#"{"create":{"_id":"1"}}
{"@timestamp":"2025-10-23T10:00:00Z","message":"started","host":{"name":"h"}}
{"index":{"_index":"mutated"}}
{"message":"stopped"}
{"delete":{"_id":"2"}}
"#;

/// An event for Splunk.
const COLLECTED: &str = r#"{"time":1761213600.678,"host":"h","sourcetype":"mutated","event":{"a":"b"},"fields":{"c":[1]}}"#;

/// A field of bytes, or a message, that is shorter than 128 bytes or than 16 KiB.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let low = (length & 0x7f) as u8;
    let length = if length < 0x80 { vec![low] } else { vec![low | 0x80, (length >> 7) as u8] };
    [&[number << 3 | 2][..], &length, content].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A page whose events stay text: JSON has numbers that no type of Rust has.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    next: String,
}

/// Numbers that are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or_default()
    }
}

/// What parsers stumble over.
const PIECES: [&[u8]; 22] = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\r\n",
    b",",
    b":",
    b"null",
    b"-0",
    b"1e999",
    b"99999999999999999999999999",
    b"\xef\xbb\xbf",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x1f\x8b\x08",
];

/// Changes a body in one to four places.
fn mutate(body: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(body.len() + 1);
        let end = (at + numbers.below(32)).min(body.len());
        match numbers.below(9) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..end)),
            2 => {
                let piece = body[at..end].to_vec();
                body.splice(at..at, piece);
            }
            3 => {
                let piece = PIECES[numbers.below(PIECES.len())];
                body.splice(at..at, piece.iter().copied());
            }
            4 => {
                let from = numbers.below(other.len());
                let piece = other[from..].iter().take(numbers.below(64)).copied();
                body.splice(at..end, piece.collect::<Vec<_>>());
            }
            5 => {
                let piece = PIECES[numbers.below(PIECES.len())].repeat(1 + numbers.below(300));
                body.splice(at..at, piece);
            }
            _ => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
}

fn send_mutations(client: &Client, seed: u64, count: usize) -> TestResult {
    let mut numbers = Numbers(seed);
    let requests = requests();
    for _ in 0..count {
        let request = &requests[numbers.below(requests.len())];
        let other = &requests[numbers.below(requests.len())];
        let mut body = request.body.clone();
        mutate(&mut body, &other.body, &mut numbers);
        // Now and then as what it is not.
        let as_what = if numbers.below(10) == 0 { other } else { request };
        let reply = client.send(as_what.method, as_what.path, as_what.headers, &body)?;
        check(reply.status < 500, || {
            format!("{reply:#?} to {:?}", String::from_utf8_lossy(&body))
        })?;
    }
    Ok(())
}

#[test(own_server)]
fn are_never_answered_5xx_and_leave_nothing_unreadable() -> TestResult {
    let count = match std::env::var(BODIES_VARIABLE) {
        Ok(count) => count.parse()?,
        Err(_) => BODIES,
    };
    let server = Server::start()?;
    let client = server.client();
    // What nobody has changed is taken.
    for request in requests() {
        let reply = client.send(request.method, request.path, request.headers, &request.body)?;
        check(matches!(reply.status, 200 | 204), || format!("{reply:#?}"))?;
    }
    concurrently(CLIENTS, |number| {
        send_mutations(&server.client(), number as u64, count / CLIENTS)
    })?;
    let mut next = "0".to_owned();
    let mut read = 0;
    loop {
        let path = format!("/events?limit=1000&after={next}");
        let page = client.get(&path)?.expect(200)?;
        let page: Page<'_> = serde_json::from_str(&page.text)?;
        if page.events.is_empty() {
            break;
        }
        client.get(&format!("{path}&format=cloudevents"))?.expect(200)?;
        read += page.events.len() as u64;
        next = page.next;
    }
    let stored = client.get("/stats")?.expect(200)?.count("unique_processed")?;
    check(read == stored, || format!("{read} events were read, {stored} stored"))?;
    let peak = server.peak_bytes()?;
    println!("{count} bodies, {stored} events stored, the host had {} MiB at most", peak >> 20);
    check(peak < HOST_BYTES_MAX, || format!("the host had {peak} bytes"))
}
