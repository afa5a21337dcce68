//! GET /events with `contains` and `match`: what is found is what a filter over all
//! events finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::support::{
    Client, Rng, Target, TestResult, any_server, check, check_eq, join, test, unique_topic,
};

/// Characters that are written in several ways, or mean something to somebody.
const CHARS: [char; 14] =
    ['a', 'B', 'b', 'é', 'É', '"', '\\', '\n', '\0', '😀', '/', '~', ':', ' '];

const NUMBERS: [&str; 7] =
    ["1", "1.0", "-0", "12345678901234567890.10", "12345678901234567890.1", "1E30", "42"];

/// A payload: how it is published, and what of it a search sees.
#[derive(Default)]
struct Payload {
    json: String,
    /// Its compact text, with no escape.
    plain: String,
    /// The numbers, words and strings in it by their pointers, strings after a `"`.
    places: BTreeMap<String, String>,
}

impl Payload {
    fn random(rng: &mut Rng) -> Self {
        let mut payload = Payload::default();
        payload.value(rng, String::new());
        payload
    }

    fn value(&mut self, rng: &mut Rng, pointer: String) {
        self.space(rng);
        let is_shallow = pointer.matches('/').count() < 3;
        match rng.below(if is_shallow { 7 } else { 4 }) {
            0 => {
                let number = NUMBERS[rng.below(NUMBERS.len() as u64) as usize];
                self.both(number);
                self.places.insert(pointer, number.to_owned());
            }
            1 => {
                let word = ["true", "false", "null"][rng.below(3) as usize];
                self.both(word);
                self.places.insert(pointer, word.to_owned());
            }
            2 | 3 => {
                let text = string(rng, 6);
                self.string(rng, &text);
                self.places.insert(pointer, format!("\"{text}"));
            }
            4 => {
                self.both("[");
                for index in 0..rng.below(4) {
                    if index > 0 {
                        self.both(",");
                    }
                    self.value(rng, format!("{pointer}/{index}"));
                }
                self.both("]");
            }
            _ => {
                self.both("{");
                for index in 0..rng.below(4) {
                    if index > 0 {
                        self.both(",");
                    }
                    let name = format!("{}{index}", string(rng, 2));
                    self.string(rng, &name);
                    self.space(rng);
                    self.both(":");
                    let step = name.replace('~', "~0").replace('/', "~1").replace(':', "~2");
                    self.value(rng, format!("{pointer}/{step}"));
                }
                self.both("}");
            }
        }
        self.space(rng);
    }

    fn both(&mut self, text: &str) {
        self.json.push_str(text);
        self.plain.push_str(text);
    }

    fn space(&mut self, rng: &mut Rng) {
        self.json.push_str(["", "", " ", "\n\t"][rng.below(4) as usize]);
    }

    fn string(&mut self, rng: &mut Rng, text: &str) {
        self.json.push_str(&quoted(rng, text));
        self.plain.push('"');
        self.plain.push_str(text);
        self.plain.push('"');
    }
}

fn string(rng: &mut Rng, chars_max: u64) -> String {
    let chars = rng.below(chars_max + 1);
    (0..chars).map(|_| CHARS[rng.below(CHARS.len() as u64) as usize]).collect()
}

/// A JSON string, each character in one of the ways that there are for it.
fn quoted(rng: &mut Rng, text: &str) -> String {
    let mut json = String::from("\"");
    for one in text.chars() {
        let must = one < ' ' || one == '"' || one == '\\';
        match (one, rng.below(3)) {
            ('"' | '\\' | '/', 0) => json.extend(['\\', one]),
            ('\n', 0) => json.push_str("\\n"),
            (_, 1) if !must => json.push(one),
            _ => {
                for unit in one.encode_utf16(&mut [0; 2]) {
                    write!(json, "\\u{unit:04x}").ok();
                }
            }
        }
    }
    json.push('"');
    json
}

/// What is looked for.
enum Needle {
    Contains(String),
    Match { pointer: String, value: String },
}

impl Needle {
    /// One that some of the payloads have, mostly.
    fn random(rng: &mut Rng, payloads: &BTreeMap<String, Payload>) -> Self {
        let payload = payloads.values().nth(rng.below(payloads.len() as u64) as usize);
        let Some(payload) = payload.filter(|payload| !payload.places.is_empty()) else {
            return Needle::Contains(CHARS[rng.below(CHARS.len() as u64) as usize].to_string());
        };
        if rng.below(2) == 0 {
            let chars: Vec<char> = payload.plain.chars().collect();
            let begin = rng.below(chars.len() as u64) as usize;
            let end = (begin + 1 + rng.below(4) as usize).min(chars.len());
            let text: String = chars[begin..end].iter().collect();
            return Needle::Contains(if rng.below(2) == 0 {
                text.to_ascii_uppercase()
            } else {
                text
            });
        }
        let place = rng.below(payload.places.len() as u64) as usize;
        let place = payload.places.iter().nth(place);
        let (pointer, value) = place.map(|(a, b)| (a.clone(), b.clone())).unwrap_or_default();
        Needle::Match { pointer, value }
    }

    fn query(&self, rng: &mut Rng) -> String {
        match self {
            Needle::Contains(text) => format!("contains={}", encoded(text)),
            Needle::Match { pointer, value } => {
                let json = match value.strip_prefix('"') {
                    // What is no JSON is a string.
                    Some(text)
                        if serde_json::from_str::<Value>(text).is_err() && rng.below(2) == 0 =>
                    {
                        text.to_owned()
                    }
                    Some(text) => quoted(rng, text),
                    None => value.clone(),
                };
                format!("match={}", encoded(&format!("{pointer}:{json}")))
            }
        }
    }

    fn is_in(&self, id: &str, payload: &Payload) -> bool {
        match self {
            Needle::Contains(text) => [id, &payload.plain]
                .iter()
                .any(|whole| whole.to_ascii_lowercase().contains(&text.to_ascii_lowercase())),
            Needle::Match { pointer, value } => payload.places.get(pointer) == Some(value),
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").ok();
        encoded
    })
}

fn publish(client: &Client, topic: &str, payloads: &BTreeMap<String, Payload>) -> TestResult {
    let events = payloads.iter().map(|(id, payload)| {
        format!(
            r#"{{"topic":"{topic}","event_id":"{id}","source":"s","payload":{}}}"#,
            payload.json
        )
    });
    let events: Vec<String> = events.collect();
    for some in events.chunks(20) {
        let reply = client.publish(some.join("\n"))?.expect(200)?;
        check_eq(reply.count("accepted")?, some.len() as u64, "accepted")?;
    }
    Ok(())
}

/// All that a search finds, as seq and event id, and how many events it looked at.
fn search(client: &Client, query: &str) -> Result<(Vec<(i64, String)>, u64), Failed> {
    let (mut found, mut looked_at, mut after) = (Vec::new(), 0, String::new());
    loop {
        let page = client.get(&format!("/events?{query}{after}"))?.expect(200)?.json()?;
        let rows = page["events"].as_array().cloned().unwrap_or_default();
        found.extend(
            rows.iter().filter_map(|row| {
                Some((row["seq"].as_i64()?, row["event_id"].as_str()?.to_owned()))
            }),
        );
        looked_at += page["searched"]["events"].as_u64().ok_or("no searched.events")?;
        if page["searched"]["complete"] == true {
            return Ok((found, looked_at));
        }
        after = format!("&after={}", page["next"].as_str().unwrap_or_default());
    }
}

fn newest(client: &Client) -> Result<i64, Failed> {
    let page = client.get("/events?order=desc&limit=1")?.expect(200)?.json()?;
    Ok(page["events"][0]["seq"].as_i64().unwrap_or_default())
}

#[test(any_server)]
fn finds_what_a_filter_over_all_events_finds(target: &Target) -> TestResult {
    const EVENTS: usize = 240;
    const NEEDLES: usize = 60;
    let client = target.client();
    let topic = unique_topic("search");
    let mut rng = Rng(15);
    let mut make = |prefix: &str| -> BTreeMap<String, Payload> {
        (0..EVENTS).map(|id| (format!("{prefix}-{id}"), Payload::random(&mut rng))).collect()
    };
    let (before, meanwhile) = (make("before"), make("meanwhile"));
    publish(&client, &topic, &before)?;
    let mut rng = Rng(8);
    let needles: Vec<Needle> = (0..NEEDLES).map(|_| Needle::random(&mut rng, &before)).collect();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(&client, &topic, &meanwhile));
        let searching = (|| {
            for (index, needle) in needles.iter().enumerate() {
                let there = newest(&client)?;
                let order = ["", "&order=asc", "&order=desc"][index % 3];
                let limit = [1 + rng.below(5), 100][index % 2];
                let query =
                    format!("topic={topic}&limit={limit}{order}&{}", needle.query(&mut rng));
                let (found, looked_at) = search(&client, &query)?;
                let seqs = found.iter().map(|(seq, _)| *seq);
                let is_in_order = match order {
                    "&order=asc" => seqs.is_sorted_by(|a, b| a < b),
                    _ => seqs.is_sorted_by(|a, b| a > b),
                };
                check(is_in_order, || format!("{query}: {found:?}"))?;
                let ids: BTreeSet<&str> = found.iter().map(|(_, id)| id.as_str()).collect();
                check(looked_at >= EVENTS as u64, || format!("{query} looked at {looked_at}"))?;
                for event in client.all_events(&topic)? {
                    let id = event["event_id"].as_str().unwrap_or_default();
                    let payload = before.get(id).or_else(|| meanwhile.get(id));
                    let is_meant = payload.is_some_and(|payload| needle.is_in(id, payload));
                    let is_newer = event["seq"].as_i64().unwrap_or_default() > there;
                    // What came after the question may have been found or not.
                    let is_right = ids.contains(id) == is_meant || is_newer && is_meant;
                    check(is_right, || format!("{query}, which is so: {is_meant}: {event}"))?;
                }
            }
            Ok::<_, Failed>(())
        })();
        join(publishing).and(searching)
    })
}

#[test(any_server)]
fn goes_with_all_other_parameters(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("search-with");
    let event = |id: u64, level: &str| {
        json!({"topic": topic, "event_id": id.to_string(), "source": format!("s{}", id % 2),
            "payload": {"level": level, "message": format!("Line {id}")}})
        .to_string()
    };
    for id in 0..8 {
        client.publish(event(id, ["error", "info"][(id / 4) as usize]))?.expect(200)?;
    }
    let all = client.all_events(&topic)?;
    let received = |id: usize| all[id]["received_at"].as_str().unwrap_or_default().to_owned();
    for (query, ids) in [
        ("contains=LINE".to_owned(), "76543210"),
        ("contains=line&order=asc&limit=3".to_owned(), "01234567"),
        ("contains=line&source=s1".to_owned(), "7531"),
        ("match=/level:error&source=s0".to_owned(), "20"),
        ("match=/level:error&contains=line+2".to_owned(), "2"),
        ("match=/level:error&match=/level:info".to_owned(), ""),
        ("match=/level:error&match=/message:Line+3&limit=1".to_owned(), "3"),
        (format!("contains=line&until={}", received(0)), ""),
        (format!("contains=line+0&since={}", received(0)), "0"),
    ] {
        let (found, _) = search(&client, &format!("topic={topic}&{query}"))?;
        let found: String = found.into_iter().map(|(_, id)| id).collect();
        check_eq(found.as_str(), ids, &query)?;
    }
    // What comes after a search that is complete is found from its `next` on.
    let path = format!("/events?topic={topic}&match=/level:late&order=asc");
    let page = client.get(&path)?.expect(200)?.json()?;
    check_eq(&page["searched"]["complete"], &json!(true), "complete")?;
    client.publish(event(8, "late"))?.expect(200)?;
    let next = page["next"].as_str().unwrap_or_default();
    let page = client.get(&format!("{path}&after={next}"))?.expect(200)?.json()?;
    check_eq(&page["events"][0]["event_id"], &json!("8"), "what came since")
}

#[test(any_server)]
fn is_not_for_lines_and_names_what_is_wrong(target: &Target) -> TestResult {
    let client = target.client();
    for (query, name) in
        [("contains=", "contains"), ("match=level", "match"), ("match=level:error", "match")]
    {
        let reply = client.get(&format!("/events?{query}"))?.expect(422)?.json()?;
        check_eq(&reply["code"], &json!("invalid_parameter"), query)?;
        let detail = reply["detail"].as_str().unwrap_or_default();
        check(detail.contains(name), || format!("{query}: {detail}"))?;
    }
    let lines = [("accept", "application/x-ndjson")];
    client.send("GET", "/events?contains=a", &lines, &[])?.expect(422)?;
    Ok(())
}
