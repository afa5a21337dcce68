//! How much memory a publish takes, whatever its body: a small multiple of the
//! body, and a little for each event, of which there are `batch_events_max` at
//! most.
//!
//! All is counted that the component allocates, from the body on to the reply.
//! SQLite's own memory is not: it is the host's.

use crate::http::problem::Problem;
use crate::testing::TestService;

/// Peak of a request: so many times its body, in which the body counts once, …
const BODIES_MAX: usize = 7;

/// … and so many bytes for each event that it may have.
const EVENT_BYTES_MAX: usize = 700;

/// … of which a bulk needs more, as its reply names each.
const BULK_EVENT_BYTES_MAX: usize = 1_000;

/// The default of `spin.toml`.
const BATCH_EVENTS_MAX: usize = 10_000;

/// About so long is each body, in bytes.
const BODY_BYTES: usize = 3 << 20;

/// As many of `piece` as make a body, with commas between.
fn listed(piece: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(BODY_BYTES + 100);
    for index in 0.. {
        if text.len() >= BODY_BYTES {
            break;
        }
        if index > 0 {
            text.push(',');
        }
        text.push_str(&piece(index));
    }
    text
}

fn filled(piece: &str) -> String {
    piece.repeat(BODY_BYTES / piece.len())
}

fn with_payload(payload: &str) -> String {
    format!(r#"{{"topic":"t","event_id":"e","source":"s","payload":{payload}}}"#)
}

fn event(index: usize) -> String {
    format!(r#"{{"topic":"t","event_id":"{index}","source":"s"}}"#)
}

/// Bodies of records that were not written for Sekali, and the media type of each.
fn records() -> Vec<(&'static str, &'static str, u16, &'static str, String)> {
    const MAPPED: &str = "?topic=t&event_id=/a&timestamp=/t&payload=*";
    let array = |pieces: String| format!("[{pieces}]");
    let lines = |piece: &str| format!("{piece}\n").repeat(BATCH_EVENTS_MAX);
    let long_lines = lines(&"x".repeat(BODY_BYTES / BATCH_EVENTS_MAX));
    let keys = listed(|index| format!(r#""{index:x}":1"#));
    let json = "application/json";
    let text = "text/plain";
    let form = "application/x-www-form-urlencoded";
    vec![
        ("a record", "?topic=t", 200, json, format!("[\"{}\"]", filled("x"))),
        ("a record of keys", "?topic=t", 200, json, format!("{{{keys}}}")),
        ("the other fields", MAPPED, 200, json, format!(r#"{{{keys},"a":1,"t":0}}"#)),
        ("many of them", MAPPED, 422, json, array(vec!["{}"; BATCH_EVENTS_MAX].join(","))),
        ("equal records", "?topic=t", 200, json, lines("{}")),
        (
            "other records",
            "?topic=t",
            200,
            json,
            array((0..BATCH_EVENTS_MAX).map(|n| n.to_string()).collect::<Vec<_>>().join(",")),
        ),
        ("too many", "?topic=t", 413, json, array(listed(|_| "1".into()))),
        ("long lines", "?topic=t", 200, text, long_lines),
        ("short lines", "?topic=t", 200, text, lines("x")),
        ("lines of nothing that is text", "?topic=t", 422, text, lines(&"\u{1}".repeat(300))),
        ("lines with much that is none", "?topic=t", 200, text, lines(&"\u{1}xxxx".repeat(60))),
        ("too many lines", "?topic=t", 413, text, filled("x\n")),
        ("one line", "?topic=t", 200, text, filled("x")),
        ("a form", "?topic=t", 200, form, format!("a={}", filled("%41"))),
        ("too many fields", "?topic=t", 422, form, filled("a&")),
    ]
}

/// Bodies of every shape, each with how it is asked and answered.
fn bodies() -> Vec<(&'static str, &'static str, u16, String)> {
    let key = |index: usize| format!(r#""{index:x}":1"#);
    let object = |pieces: String| format!("{{{pieces}}}");
    let array = |pieces: String| format!("[{pieces}]");
    let text = |piece: &str| format!("\"{}\"", filled(piece));
    let events = |count: usize, piece: &dyn Fn(usize) -> String| {
        (0..count).map(piece).collect::<Vec<_>>().join(",")
    };
    let nothing = |_: usize| "{}".to_owned();
    let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(400), "}".repeat(400));
    vec![
        // Payloads.
        ("a long string", "", 200, with_payload(&text("x"))),
        ("quotes", "", 200, with_payload(&text(r#"\""#))),
        ("backslashes", "", 200, with_payload(&text(r"\\"))),
        ("escapes", "", 200, with_payload(&text(r"\u0001"))),
        ("keys", "", 200, with_payload(&object(listed(key)))),
        ("one key again and again", "", 200, with_payload(&object(listed(|_| r#""":1"#.into())))),
        (
            "keys with escapes",
            "",
            200,
            with_payload(&object(listed(|i| format!(r#""\n{i}":"\t""#)))),
        ),
        ("one long key", "", 200, with_payload(&object(format!("{}:1", text("x"))))),
        ("one long key of escapes", "", 200, with_payload(&object(format!("{}:1", text(r"\n"))))),
        ("objects in an array", "", 200, with_payload(&array(listed(|_| r#"{"":{}}"#.into())))),
        (
            "keys of keys",
            "",
            200,
            with_payload(&object(listed(|i| format!(r#""{i:x}":{{"a":{{}}}}"#)))),
        ),
        ("numbers", "", 200, with_payload(&array(listed(|_| "1".into())))),
        ("empty strings", "", 200, with_payload(&array(listed(|_| "\"\"".into())))),
        ("empty arrays", "", 200, with_payload(&array(listed(|_| "[]".into())))),
        ("depth again and again", "", 200, with_payload(&array(listed(|_| deep.clone())))),
        ("objects as deep", "", 200, with_payload(&array(listed(|_| deep_object.clone())))),
        ("white space", "", 200, with_payload(&format!("[{}1]", filled(" \n")))),
        ("too deep", "", 422, with_payload(&filled("["))),
        // Other fields.
        ("a long topic", "", 422, format!(r#"{{"topic":{}}}"#, text("x"))),
        ("a long topic of escapes", "", 422, format!(r#"{{"topic":{}}}"#, text(r"\n"))),
        ("a long timestamp", "", 422, format!(r#"{{"timestamp":{}}}"#, text("1"))),
        ("unknown fields", "", 422, object(listed(key))),
        ("a long unknown field", "", 422, object(format!("{}:1", text(r"\n")))),
        // Too many elements, valid or not, in every shape.
        ("numbers for events", "", 413, array(listed(|_| "1".into()))),
        ("empty events", "", 413, array(listed(nothing))),
        ("wrapped", "", 413, format!(r#"{{"events":[{}]}}"#, listed(|_| "1".into()))),
        ("events one after another", "", 413, filled("{}")),
        ("lines", "", 413, filled("{}\n")),
        ("bad lines", "", 413, format!("{{}}\n{}", filled("x\n"))),
        ("values in one line", "", 413, format!("{{}}\nx\n{}", filled("1 "))),
        ("values in one bad line", "", 413, format!("{{}} x {}\n{}", filled("1 "), filled("1 "))),
        ("valid events", "", 413, array(listed(event))),
        // No shape at all.
        ("empty lines", "", 422, format!("{{}}\n{}", filled("\n"))),
        ("open arrays", "", 422, filled("[")),
        ("open objects", "", 422, filled(r#"{"a":"#)),
        ("open lines", "", 422, format!("{{}}\n{}", filled("["))),
        ("a string", "", 422, text("x")),
        // As many events as there may be.
        ("the smallest events", "", 200, array(events(BATCH_EVENTS_MAX, &event))),
        ("all of them named", "?results=all", 200, array(events(BATCH_EVENTS_MAX, &event))),
        ("as lines", "", 200, events(BATCH_EVENTS_MAX, &event).replace(",{", "\n{")),
        ("no valid one", "", 422, array(events(BATCH_EVENTS_MAX, &nothing))),
        ("each of them named", "?results=all", 422, array(events(BATCH_EVENTS_MAX, &nothing))),
        ("numbers", "", 422, array(events(BATCH_EVENTS_MAX, &|_| "1".to_owned()))),
    ]
}

/// What a request took, when that is too much.
fn too_much(
    (name, path, status, media_type, body): (&str, &str, u16, &str, &str),
    events: usize,
    event_bytes_max: usize,
) -> Option<String> {
    let service = TestService::new();
    // What an instance allocates once is not of this request.
    service.publish("[]");
    let mut answered = 0;
    let measured = allocation_counter::measure(|| {
        let headers = [("content-type", media_type)];
        let reply = service.send("POST", path, &headers, body).unwrap_or_else(Problem::into_reply);
        answered = reply.status.as_u16();
    });
    assert_eq!(answered, status, "{name}");
    let peak = measured.bytes_max as usize;
    let shown = format!(
        "{name}: {peak} bytes for a body of {}, {:.1} times as much",
        body.len(),
        peak as f64 / body.len() as f64
    );
    println!("{shown}");
    (peak > BODIES_MAX * body.len() + event_bytes_max * events).then_some(shown)
}

#[test]
fn memory_is_a_small_multiple_of_the_body() {
    let mut over = Vec::new();
    let events = bodies().into_iter();
    let events = events.map(|(name, query, status, body)| (name, query, status, "", body));
    for (name, query, status, media_type, body) in events.chain(records()) {
        let path = format!("/publish{query}");
        let events = if body.contains("payload") { 1 } else { BATCH_EVENTS_MAX };
        over.extend(too_much((name, &path, status, media_type, &body), events, EVENT_BYTES_MAX));
    }
    assert!(over.is_empty(), "too much memory:\n{}", over.join("\n"));
}

#[test]
fn so_it_is_in_the_protocols_of_others() {
    const BULK: &str = "/i/_bulk";
    const COLLECTOR: &str = "/services/collector";
    const RAW: &str = "/services/collector/raw";
    let many = |piece: &str| piece.repeat(BATCH_EVENTS_MAX);
    let long = format!("{{\"event\":\"{}\"}}", filled("x"));
    let document = |text: String| format!("{{\"index\":{{}}}}\n{{\"a\":\"{text}\"}}\n");
    let mut over = Vec::new();
    for (name, path, status, body, events, event_bytes_max) in [
        ("a long document", BULK, 200, document(filled("x")), 1, BULK_EVENT_BYTES_MAX),
        ("escapes in one", BULK, 200, document(filled(r"\u0001")), 1, BULK_EVENT_BYTES_MAX),
        (
            "the smallest documents",
            BULK,
            200,
            many("{\"index\":{}}\n{}\n"),
            BATCH_EVENTS_MAX,
            BULK_EVENT_BYTES_MAX,
        ),
        (
            "no valid document",
            BULK,
            200,
            many("{\"index\":{}}\nx\n"),
            BATCH_EVENTS_MAX,
            BULK_EVENT_BYTES_MAX,
        ),
        ("too many", BULK, 413, filled("{\"index\":{}}\n{}\n"), BATCH_EVENTS_MAX, EVENT_BYTES_MAX),
        ("a long event", COLLECTOR, 200, long, 1, EVENT_BYTES_MAX),
        (
            "the smallest events",
            COLLECTOR,
            200,
            many("{\"event\":1}"),
            BATCH_EVENTS_MAX,
            EVENT_BYTES_MAX,
        ),
        ("no valid event", COLLECTOR, 400, many("{}"), BATCH_EVENTS_MAX, EVENT_BYTES_MAX),
        ("too many events", COLLECTOR, 413, filled("{}"), BATCH_EVENTS_MAX, EVENT_BYTES_MAX),
        ("the shortest lines", RAW, 200, many("x\n"), BATCH_EVENTS_MAX, EVENT_BYTES_MAX),
        ("a long line", RAW, 200, filled("x"), 1, EVENT_BYTES_MAX),
        ("too many lines", RAW, 413, filled("x\n"), BATCH_EVENTS_MAX, EVENT_BYTES_MAX),
    ] {
        over.extend(too_much((name, path, status, "", &body), events, event_bytes_max));
    }
    assert!(over.is_empty(), "too much memory:\n{}", over.join("\n"));
}
