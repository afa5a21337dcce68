use super::*;
use crate::testing::TestService;
use serde_json::json;

/// Whether a payload is found by `contains`.
fn contained(payload: &str, wanted: &str) -> bool {
    has(payload, &contains(wanted).unwrap(), &mut String::new())
}

fn matched(payload: &str, wanted: &str) -> bool {
    let matches = vec![Match::parse(wanted).unwrap()];
    Wanted { matches, ..Wanted::default() }.is_matched_by(payload)
}

#[test]
fn text_is_found_however_it_was_written() {
    for (payload, wanted) in [
        (r#"{"m":"caf\u00e9"}"#, "café"),
        (r#"{"m":"café"}"#, "café"),
        (r#"{"m":"say \"hi\""}"#, "say \"hi\""),
        (r#"{"m":"C:\\temp"}"#, r"c:\temp"),
        (r#"{"m":"a\nb"}"#, "a\nb"),
        (r#"{"m":"a\u0000b"}"#, "a\0b"),
        (r#"{"m":"\ud83d\ude00"}"#, "😀"),
        (r#"{"m":"\uD83D\uDE00\/x"}"#, "😀/X"),
        (r#"{"m":"\u0041b"}"#, "aB"),
        (r#"{"\u0041":1}"#, r#""a":1"#),
        (r#"{"n":12345678901234567890.10}"#, "12345678901234567890.10"),
        (r#"[true,null]"#, "TRUE,Null"),
    ] {
        assert!(contained(payload, wanted), "{wanted} in {payload}");
    }
    for (payload, wanted) in [
        (r#"{"m":"a\\nb"}"#, "a\nb"),
        (r#"{"m":"\\u0041"}"#, "a\""),
        (r#"{"m":"É"}"#, "é"),
        (r#"{"m":"caf\u00e9"}"#, r"\u00e9"),
        (r#"{"m":"say \"hi\""}"#, r#"\"hi"#),
        (r#"{"m":"ab"}"#, "ba"),
    ] {
        assert!(!contained(payload, wanted), "{wanted} in {payload}");
    }
}

/// Rows that somebody changed by hand.
#[test]
fn what_is_damaged_is_text_all_the_same() {
    for damaged in ["\\", "\\é", "\\u", "\\u12", "\\ud800", "\\ud800\\u0041", "a\\ué", "\\u00é9"]
    {
        let mut text = String::new();
        unescaped(damaged, &mut text);
        assert!(contained(damaged, &text), "{damaged}");
        assert!(!matched(damaged, ":1"), "{damaged}");
    }
}

#[test]
fn values_are_those_at_their_place() {
    let payload = r#"{"level":"error","code":42,"text":"42","pi":3.140,"deep":{"a/b":[0,{"m~n":null}],
        "x:y":true,"~2":"tilde","s":"\u00e9\ud83d\ude00"},"object":{"b":1,"a":[1,2]},"":"empty","twice":1,"twice":2}"#;
    for wanted in [
        "/level:error",
        "/level:\"error\"",
        "/code:42",
        "/code: 42 ",
        "/text:\"42\"",
        "/pi:3.140",
        "/deep/a~1b/0:0",
        "/deep/a~1b/1/m~0n:null",
        "/deep/x~2y:true",
        "/deep/~02:tilde",
        "/deep/s:é😀",
        "/deep/s:\"\\u00e9😀\"",
        "/object:{\"a\":[1,2],\"b\":1}",
        "/:empty",
        "/twice:2",
    ] {
        assert!(matched(payload, wanted), "{wanted}");
    }
    for wanted in [
        "/level:Error",
        "/level:erro",
        "/code:\"42\"",
        "/code:42.0",
        "/text:42",
        "/pi:3.14",
        "/deep/a~1b/00:0",
        "/deep/a~1b/2:null",
        "/object:{\"a\":[2,1],\"b\":1}",
        "/twice:1",
        "/none:null",
        "/level/x:error",
    ] {
        assert!(!matched(payload, wanted), "{wanted}");
    }
    assert!(matched(r#""a:b""#, ":a:b"));
    assert!(matched("-1", ":-1"));
    assert!(matched(r#"{"a":""}"#, "/a:"));
    // No JSON that an event could hold: a string.
    assert!(matched(r#"{"a":"\"\\ud800\""}"#, r#"/a:"\ud800""#));
}

#[test]
fn what_cannot_be_looked_for_is_refused_by_name() {
    let service = TestService::new();
    let long = "x".repeat(CONTAINS_CHARS_MAX + 1);
    let long_match = format!("/a:{}", "x".repeat(MATCH_CHARS_MAX));
    let many = "&match=/a:1".repeat(MATCHES_MAX + 1);
    for (query, name) in [
        ("contains=", "contains"),
        (&format!("contains={long}"), "contains"),
        ("contains=a&contains=b", "contains"),
        ("contains=%FF", "contains"),
        ("match=", "match"),
        ("match=/a", "match"),
        ("match=a:1", "match"),
        ("match=/~3:1", "match"),
        (&format!("match={long_match}"), "match"),
        (&many[1..], "match"),
        ("match=/a:%FF", "match"),
    ] {
        let (status, reply) = service.get(&format!("/events?{query}"));
        assert_eq!(
            (status.as_u16(), &reply["code"]),
            (422, &json!("invalid_parameter")),
            "{query}"
        );
        assert!(reply["detail"].as_str().unwrap().contains(name), "{query}: {reply}");
    }
    for query in [
        &format!("contains={}", "%C3%A9".repeat(CONTAINS_CHARS_MAX)),
        &many[12..],
        "contains=%00",
        "match=:",
    ] {
        assert_eq!(service.get(&format!("/events?{query}")).0, 200, "{query}");
    }
    for (query, name) in [("contains=a", "contains"), ("match=/a:1", "match")] {
        let accept = [("accept", "application/x-ndjson")];
        let refused = service.send("GET", &format!("/events?{query}"), &accept, "");
        let reply = crate::testing::json(refused.err().unwrap().into_reply());
        assert!(reply["detail"].as_str().unwrap().contains(name), "{reply}");
    }
}

/// Everything that a search finds, page by page, and how many pages that were.
fn search(service: &TestService, query: &str) -> (Vec<i64>, usize) {
    let (mut seqs, mut after) = (Vec::new(), String::new());
    for pages in 1.. {
        let (status, page) = service.get(&format!("/events?{query}{after}"));
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap();
        assert_eq!(page["count"], events.len());
        seqs.extend(events.iter().map(|event| event["seq"].as_i64().unwrap()));
        after = format!("&after={}", page["next"].as_str().unwrap());
        if page["searched"]["complete"] == true {
            return (seqs, pages);
        }
        assert_eq!(page["searched"]["seq"].to_string(), page["next"].as_str().unwrap());
    }
    unreachable!()
}

#[test]
fn a_page_looks_so_far_and_no_further() {
    let service = TestService::new();
    for begin in (0..=SEARCH_EVENTS_MAX).step_by(5_000) {
        let events = (begin..(begin + 5_000).min(SEARCH_EVENTS_MAX + 1)).map(|id| {
            json!({"topic": "t", "event_id": format!("id{id}"), "source": "s",
                "payload": {"rare": id == 0}})
        });
        let (status, reply) = service.publish(&serde_json::Value::from_iter(events).to_string());
        assert_eq!(status, 200, "{reply}");
    }
    let (_, page) = service.get("/events?match=/rare:true");
    assert_eq!(page["searched"]["events"], SEARCH_EVENTS_MAX);
    assert_eq!(page["searched"]["complete"], false);
    assert_eq!((&page["count"], &page["next"]), (&json!(0), &json!("2")));
    assert_eq!(page["searched"]["seq"], 2);
    let (_, page) = service.get("/events?match=/rare:true&after=2");
    assert_eq!((&page["count"], &page["searched"]["events"]), (&json!(1), &json!(1)));
    assert_eq!(search(&service, "match=/rare:true&order=desc"), (vec![1], 2));
    assert_eq!(search(&service, "match=/rare:true&order=asc"), (vec![1], 2));
    // No page goes on after it is full.
    let (_, page) = service.get("/events?contains=ID&order=asc&limit=3");
    assert_eq!((&page["count"], &page["searched"]["events"]), (&json!(3), &json!(3)));
    assert_eq!(page["next"], "3");
    // A source that hardly any event has is no longer way than another.
    let (_, page) = service.get("/events?contains=id&source=other");
    assert_eq!((&page["count"], &page["searched"]["events"]), (&json!(0), &json!(20_000)));
}

#[test]
fn large_events_end_a_page_early() {
    let service = TestService::new();
    let events = SEARCH_BYTES_MAX / (1 << 20) + 1;
    for id in 0..events {
        let payload = "x".repeat(1 << 20);
        let event =
            json!({"topic": "t", "event_id": id.to_string(), "source": "s", "payload": payload});
        assert_eq!(service.publish(&event.to_string()).0, 200);
    }
    let (_, page) = service.get("/events?contains=y");
    assert_eq!(
        (&page["searched"]["events"], &page["searched"]["complete"]),
        (&json!(events - 1), &json!(false))
    );
    let (_, page) = service.get("/events?contains=X");
    assert_eq!(page["count"], PAGE_BYTES_MAX / (1 << 20), "a page is no larger than others");
    let all: Vec<i64> = (1..=events as i64).rev().collect();
    assert_eq!(search(&service, "contains=X").0, all);
}

#[test]
fn a_page_of_cloud_events_leads_on_until_it_is_complete() {
    let service = TestService::new();
    let events = (0..3).map(|id| json!({"topic": "t", "event_id": id.to_string(), "source": "s"}));
    service.publish(&serde_json::Value::from_iter(events).to_string());
    let link = |query: &str| {
        let reply = service.send("GET", &format!("/events?format=cloudevents&{query}"), &[], "");
        reply.unwrap().headers.get("link").map(|link| link.to_str().unwrap().to_owned())
    };
    let next = "<?format=cloudevents&match=:{}&limit=2&after=2>; rel=\"next\"";
    assert_eq!(link("match=:{}&limit=2").as_deref(), Some(next));
    assert_eq!(link("match=:{}&limit=2&after=2"), None);
}
