use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};

use http::{HeaderValue, header};

use super::*;
use crate::ingest::protobuf::{push_bytes, push_varint};
use crate::testing::TestService;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const LINES_MAX: usize = 4;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A push of three lines of one stream in snappy, of which the last are equal.
const PUSH: &str = "\
wAFQCr0BCih7YXBwPSJ3ZWIiLCBob3N0BQzgLTEiLCBqb2I9ImEgXCJiXCIifRJeCgwIoPnnxwYQ8uvcwwISO0dFVCAvaW5kZX\
guaHRtbCAyMDAgmhQAYBoRCgV0cmFjZRIINWI4ZWZmZjcSFgoICKEFYDAAEgpQT1NUIC8gNTAwXhgACBi5YA==";

fn push() -> Vec<u8> {
    STANDARD.decode(PUSH).unwrap()
}

/// The same in JSON.
fn push_json() -> Value {
    let line = "GET /index.html 200 GET /index.html 200 GET /index.html 200";
    json!({"streams": [{
        "values": [
            ["1761213600678901234", line, {"trace": "5b8efff7"}],
            ["1761213601000000000", "POST / 500", {}],
            ["1761213601000000000", "POST / 500"],
        ],
        "stream": {"job": "a \"b\"", "app": "web", "host": "web-1"},
    }]})
}

fn headers(content_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    headers
}

fn read<T>(
    content_type: &str,
    query: &str,
    body: &[u8],
    then: impl FnOnce(Box<dyn Format + '_>) -> T,
) -> Result<T, Problem> {
    let headers = headers(content_type);
    let body = decode(body, &headers, BODY_BYTES_MAX)?;
    let input = Input {
        body: &body,
        headers: &headers,
        name: "",
        trace_id: None,
        batch_events_max: LINES_MAX,
    };
    open(&Query::parse(Some(query)), &input).map(then)
}

fn entries(mut format: Box<dyn Format + '_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        match format.next().unwrap() {
            part if part.is_empty() => return entries,
            part => entries.extend(part),
        }
    }
}

/// The events of a body; those that are not valid as what is wrong with them.
fn events(content_type: &str, query: &str, body: &[u8]) -> Vec<Result<Event, String>> {
    let told = |entry: Entry| entry.map_err(|errors| errors[0].to_string());
    read(content_type, query, body, entries).unwrap().into_iter().map(told).collect()
}

fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn message(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    push_bytes(&mut message, number, bytes);
    message
}

#[test]
fn a_line_is_an_event() {
    let events = events(PROTOBUF, "", &push());
    let events: Vec<Event> = events.into_iter().map(Result::unwrap).collect();
    assert_eq!((events[0].topic().as_str(), events[0].source().as_str()), ("a \"b\"", "web-1"));
    assert_eq!(events[0].timestamp(), Some("2025-10-23T10:00:00.678901234Z"));
    assert_eq!(
        serde_json::from_str::<Value>(events[0].payload()).unwrap(),
        json!({
            "line": "GET /index.html 200 GET /index.html 200 GET /index.html 200",
            "metadata": {"trace": "5b8efff7"},
            "labels": {"app": "web", "host": "web-1", "job": "a \"b\""},
        })
    );
    assert!(!events[1].payload().contains("metadata"));
    let id = events[1].event_id().as_str();
    assert_eq!(events[2].event_id().as_str(), format!("{id}#1"));
}

#[test]
fn both_forms_are_the_same_events() {
    let json = push_json().to_string();
    let [protobuf, json] = [events(PROTOBUF, "", &push()), events(JSON, "", json.as_bytes())];
    assert_eq!(protobuf.len(), json.len());
    for (one, other) in protobuf.into_iter().zip(json) {
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.event_id(), other.event_id(), "{} {}", one.payload(), other.payload());
        assert_eq!(one.content(), other.content());
    }
}

#[test]
fn names_come_from_the_query_or_the_labels() {
    let named = |query: &str, labels: Value| {
        let body = json!({"streams": [{"stream": labels, "values": [["1", ""]]}]});
        let event = events(JSON, query, body.to_string().as_bytes()).pop().unwrap().unwrap();
        format!("{} {}", event.topic().as_str(), event.source().as_str())
    };
    assert_eq!(named("", json!({})), "loki loki");
    assert_eq!(named("", json!(null)), "loki loki");
    assert_eq!(named("", json!({"app": "a", "job": "j", "pod": "p"})), "j p");
    assert_eq!(named("", json!({"app": "a", "job": "", "instance": "i", "host": "h"})), "a h");
    assert_eq!(named("topic_label=ns", json!({"ns": "n", "service_name": "s"})), "n loki");
    assert_eq!(named("topic_label=ns", json!({"service_name": "s"})), "s loki");
    assert_eq!(named("topic=t&source=u&topic_label=app", json!({"app": "a"})), "t u");
    assert!(read(JSON, "topic=", b"{}", |_| ()).is_err());
}

#[test]
fn a_line_that_is_wrong_says_why() {
    for (value, expected) in [
        (r#"["now","a"]"#, "timestamp is no number of nanoseconds since 1970"),
        (r#"["-1","a"]"#, "timestamp is no number of nanoseconds since 1970"),
        (r#"["1"]"#, "payload cannot be made: an entry is an array of a time and a line"),
        (r#"["1",5]"#, "payload cannot be made: invalid type"),
        (r#"["1","\ud800"]"#, "payload cannot be made: unexpected end of hex escape"),
        (r#"["1","a",{"b":1}]"#, "payload cannot be made: invalid type"),
        ("{}", "payload cannot be made: invalid type: map"),
        ("null", "payload cannot be made: invalid type: null"),
    ] {
        let body = format!(r#"{{"streams":[{{"values":[{value}]}}]}}"#);
        let error = events(JSON, "", body.as_bytes()).pop().unwrap().unwrap_err();
        assert!(error.starts_with(expected), "{value}: {error}");
    }
    let mut late = Vec::new();
    push_varint(&mut late, 1, u64::MAX);
    let mut nanos = Vec::new();
    push_varint(&mut nanos, 2, 1_000_000_000);
    for (entry, expected) in [
        (message(1, &late), "timestamp is no number of nanoseconds since 1970"),
        (message(1, &nanos), "timestamp is no number of nanoseconds since 1970"),
        (message(2, &[0xff]), "payload cannot be made: line is not UTF-8"),
        (vec![0x10, 0], "payload cannot be made: line has the wrong wire type"),
        (message(3, &message(1, &[0xff])), "payload cannot be made: the name of metadata"),
    ] {
        let body = snappy(&message(1, &message(2, &entry)));
        let error = events(PROTOBUF, "", &body).pop().unwrap().unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let labels = |labels: &str| {
        let stream = [message(1, labels.as_bytes()), message(2, &[])].concat();
        events(PROTOBUF, "", &snappy(&message(1, &stream))).pop().unwrap().unwrap_err()
    };
    assert_eq!(labels("{a}"), "payload has labels that have no = where one is expected");
    let long = format!("{{a=\"{}\"}}", "x".repeat(LABELS_BYTES_MAX));
    assert_eq!(labels(&long), "payload has labels that are longer than 65536 bytes");
}

#[test]
fn what_is_no_push_is_refused() {
    let refused = |content_type: &str, body: &[u8]| {
        let problem = read(content_type, "", body, |_| ()).unwrap_err();
        (problem.status().as_u16(), problem.detail().to_owned())
    };
    for body in
        [&b""[..], b"5", b"{", b"[]", br#"{"streams":{}}"#, br#"{"streams":[{"values":5}]}"#]
    {
        assert_eq!(refused(JSON, body).0, 422, "{body:x?}");
    }
    for body in [&b""[..], b"\xff\xff\xff\xff\xff\xff", b"\x05\x00a", &snappy(b"\x0a\x05")] {
        assert_eq!(refused(PROTOBUF, body).0, 422, "{body:x?}");
    }
    // A length that cannot be, and one that may not be.
    let (status, detail) = refused(PROTOBUF, b"\xff\xff\xff\x04\x00a");
    assert_eq!(status, 422);
    assert!(detail.contains("it cannot have the length that it announces"), "{detail}");
    assert_eq!(refused(PROTOBUF, &snappy(&vec![0; BODY_BYTES_MAX + 1])).0, 413);
    assert_eq!(refused("text/plain", b"{}").0, 415);
    let many = json!({"streams": [{"values": [1, 2, 3, 4, 5]}]});
    assert_eq!(refused(JSON, many.to_string().as_bytes()).0, 413);
    let many = message(1, &[0x12, 0].repeat(LINES_MAX + 1));
    assert_eq!(refused(PROTOBUF, &snappy(&many)).0, 413);
    for (content_type, body) in [
        (PROTOBUF, &b"\x00"[..]),
        (PROTOBUF, &snappy(b"\x0a\x00\x0a\x00")),
        (JSON, b"{}"),
        (JSON, br#"{"streams":[{"values":null},{}]}"#),
    ] {
        assert!(events(content_type, "", body).is_empty());
    }
}

#[test]
fn replies_as_loki_does() {
    let reply = |wrong: usize| {
        let values = (0..3).map(|index| if index < wrong { json!(5) } else { json!(["1", "a"]) });
        let body = json!({"streams": [{"values": values.collect::<Vec<_>>()}]}).to_string();
        let service = TestService::new();
        let headers = [("content-type", JSON)];
        match service.send("POST", "/loki/api/v1/push", &headers, &body) {
            Ok(reply) => (reply.status.as_u16(), String::new()),
            Err(problem) => {
                let head = http::Request::builder().body(()).unwrap().into_parts().0;
                let reply = refuse(&head, problem);
                let Body::Whole(body) = reply.body else { panic!("a stream") };
                (reply.status.as_u16(), String::from_utf8(body).unwrap())
            }
        }
    };
    assert_eq!(reply(0), (204, String::new()));
    let (status, text) = reply(1);
    assert_eq!(status, 400);
    let expected = "Of 3 lines 1 are not valid; the other 2 are stored. Line 0: payload";
    assert!(text.starts_with(expected), "{text}");
    let (status, text) = reply(3);
    assert_eq!(status, 400);
    assert!(text.starts_with("Of 3 lines 3 are not valid; none was stored. Line 0: "), "{text}");
}

/// Numbers that are the same each time.
fn below(seed: &mut u64, end: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed % end as u64) as usize
}

#[test]
fn no_body_is_too_odd() {
    const BODIES: usize = 50_000;
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let plain = snap::raw::Decoder::new().decompress_vec(&push()).unwrap();
    let seeds = [push_json().to_string().into_bytes(), push(), plain];
    for end in 0..seeds[1].len() {
        read(PROTOBUF, "", &seeds[1][..end], entries).ok();
        read(JSON, "", &seeds[0][..end], entries).ok();
    }
    let mut taken = 0;
    for index in 0..BODIES {
        let kind = index % seeds.len();
        let mut body = seeds[kind].clone();
        for _ in 0..=below(&mut seed, 3) {
            let at = below(&mut seed, body.len());
            match below(&mut seed, 4) {
                0 => body.truncate(at + 1),
                1 => body[at] ^= 1 << below(&mut seed, 8),
                2 => body[at] = body[at] & !7 | below(&mut seed, 8) as u8,
                _ => body[at] = below(&mut seed, 256) as u8,
            }
        }
        let body = if kind == 2 { snappy(&body) } else { body };
        let form = if kind == 0 { JSON } else { PROTOBUF };
        taken += usize::from(read(form, "", &body, entries).is_ok_and(|all| !all.is_empty()));
    }
    assert!(taken > BODIES / 10, "{taken}");
}

#[test]
fn memory_is_bounded() {
    const BODY_BYTES: usize = 3 << 20;
    let filled = |piece: &[u8]| piece.repeat(BODY_BYTES / piece.len());
    let list = |piece: &str| {
        let all = format!("{piece},").repeat(BODY_BYTES / (piece.len() + 1));
        format!("[{}]", all.trim_end_matches(','))
    };
    let entry = |entry: &[u8]| snappy(&message(1, &message(2, entry)));
    let labels = format!(r#"{{"a":"{}"}}"#, "x".repeat(LABELS_BYTES_MAX - 100));
    let values = format!("[{}]", vec![r#"["1",""]"#; 2_000].join(","));
    let bodies = [
        ("a long line", PROTOBUF, 204, entry(&message(2, &filled(b"x")))),
        ("what is escaped", PROTOBUF, 422, entry(&message(2, &filled(b"\x01")))),
        ("empty metadata", PROTOBUF, 204, entry(&filled(&[0x1a, 0]))),
        ("empty streams", PROTOBUF, 204, snappy(&filled(&[0x0a, 0]))),
        ("empty entries", PROTOBUF, 413, snappy(&message(1, &filled(&[0x12, 0])))),
        ("a length that cannot be", PROTOBUF, 422, b"\x80\x80\x80\x04\x00a".to_vec()),
        ("a length that may not be", PROTOBUF, 413, snappy(&filled(&[0; 3]).repeat(4))),
        (
            "repeated labels",
            JSON,
            204,
            format!(r#"{{"streams":[{{"stream":{labels},"values":{values}}}]}}"#).into_bytes(),
        ),
        ("streams", JSON, 204, format!(r#"{{"streams":{}}}"#, list("{}")).into_bytes()),
        (
            "values",
            JSON,
            413,
            format!(r#"{{"streams":[{{"values":{}}}]}}"#, list("1")).into_bytes(),
        ),
        (
            "labels",
            JSON,
            422,
            format!(r#"{{"streams":[{{"stream":{},"values":[["1",""]]}}]}}"#, list("1"))
                .into_bytes(),
        ),
    ];
    for (name, form, status, body) in bodies {
        let service = TestService::new();
        service.publish("[]");
        let mut answered = 0;
        let measured = allocation_counter::measure(|| {
            let headers = [("content-type", form)];
            let reply = service.send_bytes("POST", "/loki/api/v1/push", &headers, &body);
            answered = reply.unwrap_or_else(Problem::into_reply).status.as_u16();
        });
        assert_eq!(answered, status, "{name}");
        let peak = measured.bytes_max as usize;
        println!("{name}: {peak} bytes for a body of {}", body.len());
        // Twice the body, 700 bytes for each line, five times the longest line.
        let may = 2 * BODY_BYTES + 700 * 10_000 + 5 * LINE_BYTES_MAX;
        assert!(peak <= may, "{name}: {peak}");
        if name.starts_with("a length") {
            assert!(peak < body.len() + (1 << 20), "{name}: {peak}");
        }
    }
}
