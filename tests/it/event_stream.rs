//! GET /events/stream: where it begins, what it sends, and to how many.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use serde::Deserialize;

use crate::support::{
    Block, Outcome, Stream, Tally, Target, any_server, at_once, check, check_eq, check_next, end,
    event, opening, path_of, publish_one, test, unique_topic,
};

/// Most topics that one reader names.
const TOPICS_MAX: usize = 32;

#[test(any_server)]
fn from_the_end_sends_later_events_only(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("end");
    let path = format!("/events/stream?after=end&topic={topic}");
    let first = publish_one(&client, &topic, "1")?;
    let mut stream = Stream::open(&client, &path)?;
    let begin = opening(&mut stream)?;
    check(begin.parse::<i64>()? >= first, || format!("it begins at {begin}, before {first}"))?;
    let before_any_event = stream.last_id.clone();
    drop(stream);
    publish_one(&client, &topic, "2")?;
    let mut resumed = Stream::resume(&client, &path, &before_any_event, u64::MAX)?;
    check_eq(opening(&mut resumed)?, begin, "the id that it resumes from")?;
    let mut fresh = Stream::open(&client, &path)?;
    opening(&mut fresh)?;
    publish_one(&client, &topic, "3")?;
    check_next(&mut resumed, &["2", "3"], "what the resumed one gets")?;
    check_next(&mut fresh, &["3"], "what the fresh one gets")?;
    // The end is that of now, not one that another stream saw a moment ago.
    for id in 4..30 {
        let newest = publish_one(&client, &topic, &id.to_string())?;
        let begin = opening(&mut Stream::open(&client, &path)?)?;
        check(begin.parse::<i64>()? >= newest, || format!("begins at {begin}, before {newest}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn begins_at_a_cursor_or_at_the_beginning(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("cursor");
    for id in ["1", "2", "3"] {
        publish_one(&client, &topic, id)?;
    }
    let page = client.get(&format!("/events?topic={topic}&limit=2"))?.expect(200)?.json()?;
    let next = page["next"].as_str().unwrap_or_default();
    for (after, begin, expected) in [
        (String::new(), "0", vec!["1", "2", "3"]),
        ("&after=0".to_owned(), "0", vec!["1", "2", "3"]),
        (format!("&after={next}"), next, vec!["3"]),
    ] {
        let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}{after}"))?;
        check_eq(opening(&mut stream)?.as_str(), begin, &format!("begin with {after:?}"))?;
        check_next(&mut stream, &expected, &format!("with {after:?}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn last_event_id_wins_over_after(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("last-id");
    let first = publish_one(&client, &topic, "1")?.to_string();
    let second = publish_one(&client, &topic, "2")?.to_string();
    let third = publish_one(&client, &topic, "3")?.to_string();
    for (after, last_id, begin, expected) in [
        ("end", first.as_str(), first.as_str(), "2"),
        (third.as_str(), first.as_str(), first.as_str(), "2"),
        ("0", second.as_str(), second.as_str(), "3"),
        (first.as_str(), "", first.as_str(), "2"),
        ("0", "0", "0", "1"),
    ] {
        let path = format!("/events/stream?topic={topic}&after={after}");
        let headers = [("last-event-id", last_id)];
        let mut stream = Stream::with_headers(&client, &path, &headers, u64::MAX)?;
        let of = format!("after={after}, Last-Event-ID {last_id:?}");
        check_eq(opening(&mut stream)?.as_str(), begin, &of)?;
        check_next(&mut stream, &[expected], &of)?;
    }
    let path = format!("/events/stream?topic={topic}");
    for wrong in ["x", "-1", "1.0", "99999999999999999999", "end", "\"1\""] {
        let reply = client.send("GET", &path, &[("last-event-id", wrong)], &[])?.expect(422)?;
        check(reply.json()?["code"] == "invalid_parameter", || format!("{reply:#?}"))?;
        check(reply.text.contains("Last-Event-ID"), || format!("it is not named: {reply:#?}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn limits_the_topics_to_32(target: &Target) -> Outcome {
    let client = target.client();
    let topics: Vec<String> = (0..=TOPICS_MAX).map(|_| unique_topic("many")).collect();
    let (fit, one_more) = topics.split_at(TOPICS_MAX);
    // A topic that is named twice is one topic.
    let path = format!("{}&topic={}", path_of(fit), fit[0]);
    let mut stream = Stream::open(&client, &path)?;
    opening(&mut stream)?;
    let events: Vec<String> = topics.iter().map(|topic| event(topic, "1")).collect();
    client.publish(format!("[{}]", events.join(",")))?.expect(200)?;
    let came: Vec<String> = (0..TOPICS_MAX)
        .map(|_| Ok(stream.event()?.topic().to_owned()))
        .collect::<Result<_, Failed>>()?;
    check_eq(came, fit.to_vec(), "topics that came")?;
    publish_one(&client, &one_more[0], "2")?;
    publish_one(&client, &fit[7], "2")?;
    check_eq(stream.event()?.topic(), fit[7].as_str(), "the topic of what came next")?;

    let reply = client.get(&path_of(&topics))?.expect(422)?;
    check(reply.json()?["code"] == "invalid_parameter", || format!("{reply:#?}"))?;
    check(reply.text.contains("topic") && reply.text.contains("32"), || format!("{reply:#?}"))
}

#[test(any_server)]
fn includes_a_topic_that_is_created_later(target: &Target) -> Outcome {
    let client = target.client();
    let known = unique_topic("known");
    let later = unique_topic("later");
    publish_one(&client, &known, "1")?;
    let mut alone = Stream::open(&client, &format!("/events/stream?topic={later}"))?;
    let both = format!("/events/stream?after=end&topic={later}&topic={known}");
    let mut both = Stream::open(&client, &both)?;
    opening(&mut alone)?;
    opening(&mut both)?;
    publish_one(&client, &known, "2")?;
    publish_one(&client, &later, "3")?;
    check_next(&mut alone, &["3"], "of the later topic")?;
    check_next(&mut both, &["2", "3"], "of both")
}

/// What a row tells whose numbers are too large to be read.
#[derive(Deserialize)]
struct Place {
    seq: i64,
}

/// Whatever an event holds: its data is the very row of the page, on one line,
/// and cannot be taken for another field or event.
#[test(any_server)]
fn data_is_the_row_of_the_page(target: &Target) -> Outcome {
    let client = target.client();
    let topic = unique_topic("as-given");
    let odd = "line\\n\\ndata: x\\r\\n\\r\\nid: 9\\r: y\\u0085\\u2028";
    let payloads = [
        r#"{"a":123456789012345678901234567890.10,"b":1.0,"c":1E400,"d":-0}"#.to_owned(),
        "{\r\n  \"list\": [\r1,\n\n 2\t],\n\n\"data\":\r\n null }".to_owned(),
        format!(r#""{odd}""#),
        format!(r#"{{"{odd}":"\u0000😀{}שלום"}}"#, '\u{2028}'),
        "[]".to_owned(),
        format!("\"{}\"", "x".repeat(1 << 20)),
    ];
    let mut events: Vec<String> = Vec::new();
    for (number, payload) in payloads.iter().enumerate() {
        events.push(format!(
            r#"{{"topic":"{topic}\n\ndata: 1","event_id":"{number}{odd}","source":"{odd}","payload":{payload}}}"#
        ));
    }
    client.publish(format!("[{}]", events.join(",")))?.expect(200)?;
    let of_topic = format!("topic={topic}%0A%0Adata:%201");
    let rows = [("accept", "application/x-ndjson")];
    let rows = client.send("GET", &format!("/events?{of_topic}"), &rows, &[])?.expect(200)?;
    check_eq(rows.text.lines().count(), payloads.len(), "rows")?;
    let mut stream = Stream::open(&client, &format!("/events/stream?{of_topic}"))?;
    opening(&mut stream)?;
    for row in rows.text.lines() {
        let place: Place = serde_json::from_str(row)?;
        let expected = Block {
            id: Some(place.seq.to_string()),
            data: Some(row.to_owned()),
            ..Block::default()
        };
        check_eq(stream.block()?, expected, "a block")?;
    }
    Ok(())
}

#[test(any_server)]
fn curl_shows_events_as_they_arrive(target: &Target) -> Outcome {
    curl(target, "1.1")
}

#[test(any_server)]
fn curl_shows_events_as_they_arrive_over_http_2(target: &Target) -> Outcome {
    curl(target, "2")
}

/// What another client than this one shows while the stream is open.
fn curl(target: &Target, version: &str) -> Outcome {
    let client = target.client();
    let topic = unique_topic("curl");
    let url = format!("{}/events/stream?topic={topic}", target.url);
    let version_flag = if version == "2" { "--http2-prior-knowledge" } else { "--http1.1" };
    let flags = ["-N", "--silent", "--show-error", "--include", "--max-time", "120"];
    let mut command = Command::new("curl");
    command.args(flags).arg(version_flag).arg(url).stdin(Stdio::null()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("streams::curl: no curl not tested");
        return Ok(());
    };
    let shown = child.stdout.take().ok_or("no stdout");
    let watched = shown.map_err(Failed::from).and_then(|shown| {
        let mut said = String::new();
        let mut shown = BufReader::new(shown);
        let mut show_until = |wanted: &str| {
            while !said.contains(wanted) {
                let read = shown.read_line(&mut said)?;
                check(read > 0, || format!("curl ended, waiting for {wanted:?}, after {said}"))?;
            }
            Ok::<_, Failed>(said.clone())
        };
        let head = show_until("retry: 1000\n")?;
        check(head.starts_with(&format!("HTTP/{version} 200")), || head.clone())?;
        check(!head.to_ascii_lowercase().contains("content-length"), || head.clone())?;
        for id in ["1", "2"] {
            publish_one(&client, &topic, id)?;
            show_until(&format!(r#""event_id":"{id}""#))?;
        }
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    watched
}

#[test(any_server)]
fn serves_200_streams_at_once(target: &Target) -> Outcome {
    const STREAMS: usize = 200;
    const PUBLISHERS: usize = 8;
    const REQUESTS: usize = 20;
    let client = target.client();
    let topic = unique_topic("crowd");
    let paths = [
        format!("/events/stream?topic={topic}"),
        format!("/events/stream?after={}", end(&client)?),
    ];
    let open = |number: usize| {
        let mut stream = Stream::open(&client, &paths[number % 2])?;
        opening(&mut stream)?;
        Ok::<_, Failed>(stream)
    };
    let mut streams = (0..STREAMS).map(open).collect::<Result<Vec<Stream>, Failed>>()?;
    let publish = |round: &str| {
        let tallies = at_once(PUBLISHERS, |publisher| {
            let mut tally = Tally::default();
            for request in 0..REQUESTS {
                tally.publish(&client, &topic, &[format!("{round}-{publisher}-{request}")])?;
            }
            Ok(tally)
        });
        Ok::<_, Failed>(Tally::sum(tallies?))
    };
    let mut tally = publish("open")?;
    tally.audit(&client, &topic)?;
    let stored = client.all_events(&topic)?;
    for stream in &mut streams {
        let mut place = 0;
        while place < stored.len() {
            let event = stream.event()?;
            if event.topic() == topic {
                check(event.data == stored[place], || {
                    format!("at {place} came {event:?}, stored is {:#}", stored[place])
                })?;
                place += 1;
            }
        }
    }
    drop(streams);

    // As many requests again as instances were held by streams.
    tally.add(publish("closed")?);
    at_once(PUBLISHERS, |_| {
        for number in 0..REQUESTS {
            client.get("/healthz")?.expect(200)?;
            open(number)?;
        }
        Ok(())
    })?;
    tally.audit(&client, &topic)
}
