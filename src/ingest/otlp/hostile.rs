//! Bodies that nobody means well with: no panic, and memory that is bounded.

use serde_json::json;

use super::tests::{JSON, PROTOBUF, drain, message, sdk, sdk_json};
use super::{RECORD_BYTES_MAX, RESOURCE_BYTES_MAX};
use crate::http::problem::Problem;
use crate::testing::TestService;

/// What the time of a test allows.
const BODIES: usize = 100_000;

/// Numbers that are the same each time.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Spoils a body in one of many ways.
fn spoil(rng: &mut Rng, body: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        if body.is_empty() {
            return;
        }
        let at = rng.below(body.len());
        match rng.below(7) {
            0 => body.truncate(at),
            1 => body[at] ^= 1 << rng.below(8),
            // Another wire type, if this is a key.
            2 => body[at] = body[at] & !7 | rng.below(8) as u8,
            3 => body[at] = rng.below(256) as u8,
            4 => {
                let piece = body[at..(at + rng.below(20)).min(body.len())].to_vec();
                let to = rng.below(body.len());
                body.splice(to..to, piece);
            }
            5 => {
                body.drain(at..(at + rng.below(20)).min(body.len()));
            }
            _ => {
                let odd =
                    [&b"\xff\xff\xff\xff\x7f"[..], b"null", b"[[[[", b"{\"", b"1e999", b"\\ud800"];
                body.splice(at..at, odd[rng.below(odd.len())].iter().copied());
            }
        }
    }
}

#[test]
fn no_body_is_too_odd() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let seeds = [(PROTOBUF, sdk()), (JSON, sdk_json().to_string().into_bytes())];
    let mut answered = 0;
    for (form, seed) in &seeds {
        for end in 0..seed.len() {
            drain(form, &seed[..end]).ok();
        }
    }
    for index in 0..BODIES {
        let (form, seed) = &seeds[index % seeds.len()];
        let mut body = match index % 10 {
            0 => (0..rng.below(200)).map(|_| rng.below(256) as u8).collect(),
            _ => seed.clone(),
        };
        spoil(&mut rng, &mut body);
        if let Ok(entries) = drain(form, &body) {
            answered += usize::from(entries > 0);
        }
    }
    // They are not so odd that none is read.
    assert!(answered > BODIES / 10, "{answered}");
}

/// About so long is each body, in bytes.
const BODY_BYTES: usize = 3 << 20;

/// The default of `spin.toml`.
const BATCH_EVENTS_MAX: usize = 10_000;

/// Peak of a request: twice its body, so many bytes for each record that it may have,
/// and five times the longest record: its text, which may be twice as long while it grows,
/// its payload, and the members of its objects while they are sorted.
const BODIES_MAX: usize = 2;
const EVENT_BYTES_MAX: usize = 700;
const RECORDS_MAX: usize = 5;

fn filled(piece: &[u8]) -> Vec<u8> {
    piece.repeat(BODY_BYTES / piece.len())
}

/// A request with one record.
fn record(record: &[u8]) -> Vec<u8> {
    message(1, &message(2, &message(2, record)))
}

fn record_json(record: &str) -> Vec<u8> {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#).into_bytes()
}

fn list(piece: &str) -> String {
    let all = format!("{piece},").repeat(BODY_BYTES / (piece.len() + 1));
    format!("[{}]", all.trim_end_matches(','))
}

fn text(piece: &str) -> String {
    format!("\"{}\"", piece.repeat(BODY_BYTES / piece.len()))
}

fn bodies() -> Vec<(&'static str, &'static str, u16, Vec<u8>)> {
    let attribute =
        json!({"key": "a", "value": {"stringValue": "x".repeat(RESOURCE_BYTES_MAX - 100)}});
    let repeated = json!({"resourceLogs": [{"resource": {"attributes": [attribute]},
        "scopeLogs": [{"logRecords": vec![json!({}); 2_000]}]}]});
    let of = |name: &str, value: String| record_json(&format!(r#"{{"{name}":{value}}}"#));
    let value = |kind: &str, value: String| of("body", format!(r#"{{"{kind}":{value}}}"#));
    let late = (0..29).fold(text("x"), |value, level| match level {
        0 => format!(r#"{{"stringValue":{value}}}"#),
        _ => format!(r#"{{"kvlistValue":{{"values":[{{"value":{value},"key":"k"}}]}}}}"#),
    });
    vec![
        ("a long string", PROTOBUF, 200, record(&message(5, &message(1, &filled(b"x"))))),
        ("what is escaped", PROTOBUF, 400, record(&message(5, &message(1, &filled(b"\x01"))))),
        ("long bytes", PROTOBUF, 200, record(&message(5, &message(7, &filled(b"x"))))),
        ("empty attributes", PROTOBUF, 400, record(&filled(&[0x32, 0]))),
        ("empty values", PROTOBUF, 200, record(&message(5, &message(5, &filled(&[0x0a, 0]))))),
        ("empty resources", PROTOBUF, 200, filled(&[0x0a, 0])),
        ("empty scopes", PROTOBUF, 200, message(1, &filled(&[0x12, 0]))),
        ("empty records", PROTOBUF, 413, message(1, &message(2, &filled(&[0x12, 0])))),
        (
            "a long resource",
            PROTOBUF,
            400,
            message(1, &[message(1, &filled(&[0x0a, 0])), message(2, &message(2, &[]))].concat()),
        ),
        ("unknown fields", PROTOBUF, 200, filled(&[0x78, 0])),
        ("a repeated resource", JSON, 200, repeated.to_string().into_bytes()),
        ("a long string in JSON", JSON, 200, value("stringValue", text("x"))),
        ("escapes", JSON, 200, value("stringValue", text(r"\u0001"))),
        ("bytes in JSON", JSON, 200, value("bytesValue", text("AAAA"))),
        ("attributes in JSON", JSON, 200, of("attributes", list("{}"))),
        (
            "values in JSON",
            JSON,
            200,
            value("arrayValue", format!(r#"{{"values":{}}}"#, list("{}"))),
        ),
        ("resources in JSON", JSON, 200, format!(r#"{{"resourceLogs":{}}}"#, list("{}")).into()),
        ("records in JSON", JSON, 413, record_json(list("{}").trim_matches(['[', ']']))),
        ("unknown fields in JSON", JSON, 200, of("x", list("{}"))),
        ("a late key", JSON, 200, of("body", late)),
        ("open arrays", JSON, 400, filled(b"[")),
    ]
}

#[test]
fn memory_is_bounded() {
    let mut over = Vec::new();
    for (name, form, status, body) in bodies() {
        let service = TestService::new();
        // What an instance allocates once is not of this request.
        service.publish("[]");
        let mut answered = 0;
        let measured = allocation_counter::measure(|| {
            let headers = [("content-type", form)];
            let reply = service.send_bytes("POST", "/v1/logs", &headers, &body);
            answered = reply.unwrap_or_else(Problem::into_reply).status.as_u16();
        });
        // In the form of OTLP 422 is 400.
        assert_eq!(if answered == 422 { 400 } else { answered }, status, "{name}");
        let peak = measured.bytes_max as usize;
        let may = BODIES_MAX * body.len()
            + EVENT_BYTES_MAX * BATCH_EVENTS_MAX
            + RECORDS_MAX * RECORD_BYTES_MAX;
        let shown = format!("{name}: {peak} bytes for a body of {}", body.len());
        println!("{shown}");
        if peak > may {
            over.push(shown);
        }
    }
    assert!(over.is_empty(), "too much memory:\n{}", over.join("\n"));
}
