//! GET /events/stream: where it begins, what it sends, and to how many.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use serde::Deserialize;

use crate::support::{
    Auditor, Block, Stream, Target, TestResult, any_server, check, check_eq, concurrently,
    end_cursor, event, event_stream_path, test, unique_topic,
};

/// Most topics that one reader names.
const TOPICS_MAX: usize = 32;

#[test(any_server)]
fn from_the_end_sends_later_events_only(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("end");
    let path = format!("/events/stream?after=end&topic={topic}");
    let first = client.publish_one(&topic, "1")?;
    let mut stream = Stream::open(&client, &path)?;
    let begin = stream.opening()?;
    check(begin.parse::<i64>()? >= first, || format!("it begins at {begin}, before {first}"))?;
    let before_any_event = stream.last_id.clone();
    drop(stream);
    client.publish_one(&topic, "2")?;
    let mut resumed = Stream::resume(&client, &path, &before_any_event, u64::MAX)?;
    check_eq(resumed.opening()?, begin, "the id that it resumes from")?;
    let mut fresh = Stream::open(&client, &path)?;
    fresh.opening()?;
    client.publish_one(&topic, "3")?;
    resumed.check_next(&["2", "3"], "what the resumed one gets")?;
    fresh.check_next(&["3"], "what the fresh one gets")?;
    // The end is that of now, not one that another stream saw a moment ago.
    for id in 4..30 {
        let newest = client.publish_one(&topic, &id.to_string())?;
        let begin = Stream::open(&client, &path)?.opening()?;
        check(begin.parse::<i64>()? >= newest, || format!("begins at {begin}, before {newest}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn sends_cloud_events_to_who_wants_them(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("cloud-events");
    client.publish_one(&topic, "1")?;
    let path = format!("/events/stream?topic={topic}&format=cloudevents");
    let mut stream = Stream::open(&client, &path)?;
    stream.opening()?;
    // One that is there, and one that comes, while others read the same as events.
    let mut other = Stream::open(&client, &format!("/events/stream?topic={topic}"))?;
    other.opening()?;
    client.publish_one(&topic, "2")?;
    other.check_next(&["1", "2"], "what another gets")?;
    for id in ["1", "2"] {
        let event = stream.event()?;
        check_eq(event.data["specversion"].as_str(), Some("1.0"), "specversion")?;
        check_eq(event.data["id"].as_str(), Some(format!("{topic} {id}").as_str()), "id")?;
        check_eq(event.data["sekalicursor"].as_str(), Some(event.id.as_str()), "cursor")?;
    }
    Ok(())
}

#[test(any_server)]
fn begins_at_a_cursor_or_at_the_beginning(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("cursor");
    for id in ["1", "2", "3"] {
        client.publish_one(&topic, id)?;
    }
    let page = client.get(&format!("/events?topic={topic}&limit=2"))?.expect(200)?.json()?;
    let next = page["next"].as_str().unwrap_or_default();
    for (after, begin, expected) in [
        (String::new(), "0", vec!["1", "2", "3"]),
        ("&after=0".to_owned(), "0", vec!["1", "2", "3"]),
        (format!("&after={next}"), next, vec!["3"]),
    ] {
        let mut stream = Stream::open(&client, &format!("/events/stream?topic={topic}{after}"))?;
        check_eq(stream.opening()?.as_str(), begin, &format!("begin with {after:?}"))?;
        stream.check_next(&expected, &format!("with {after:?}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn last_event_id_wins_over_after(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("last-id");
    let first = client.publish_one(&topic, "1")?.to_string();
    let second = client.publish_one(&topic, "2")?.to_string();
    let third = client.publish_one(&topic, "3")?.to_string();
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
        check_eq(stream.opening()?.as_str(), begin, &of)?;
        stream.check_next(&[expected], &of)?;
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
fn limits_the_topics_to_32(target: &Target) -> TestResult {
    let client = target.client();
    let topics: Vec<String> = (0..=TOPICS_MAX).map(|_| unique_topic("many")).collect();
    let (fit, one_more) = topics.split_at(TOPICS_MAX);
    // A topic that is named twice is one topic.
    let path = format!("{}&topic={}", event_stream_path(fit), fit[0]);
    let mut stream = Stream::open(&client, &path)?;
    stream.opening()?;
    let events: Vec<String> = topics.iter().map(|topic| event(topic, "1")).collect();
    client.publish(format!("[{}]", events.join(",")))?.expect(200)?;
    let received: Vec<String> = (0..TOPICS_MAX)
        .map(|_| Ok(stream.event()?.topic().to_owned()))
        .collect::<Result<_, Failed>>()?;
    check_eq(received, fit.to_vec(), "topics received")?;
    client.publish_one(&one_more[0], "2")?;
    client.publish_one(&fit[7], "2")?;
    check_eq(stream.event()?.topic(), fit[7].as_str(), "the topic of the next event")?;

    let reply = client.get(&event_stream_path(&topics))?.expect(422)?;
    check(reply.json()?["code"] == "invalid_parameter", || format!("{reply:#?}"))?;
    check(reply.text.contains("topic") && reply.text.contains("32"), || format!("{reply:#?}"))
}

#[test(any_server)]
fn includes_a_topic_that_is_created_later(target: &Target) -> TestResult {
    let client = target.client();
    let known = unique_topic("known");
    let later = unique_topic("later");
    client.publish_one(&known, "1")?;
    let mut alone = Stream::open(&client, &format!("/events/stream?topic={later}"))?;
    let both = format!("/events/stream?after=end&topic={later}&topic={known}");
    let mut both = Stream::open(&client, &both)?;
    alone.opening()?;
    both.opening()?;
    client.publish_one(&known, "2")?;
    client.publish_one(&later, "3")?;
    alone.check_next(&["3"], "of the later topic")?;
    both.check_next(&["2", "3"], "of both")
}

/// What is read of a row whose numbers may be too large to be read.
#[derive(Deserialize)]
struct Row {
    seq: i64,
}

/// Whatever an event holds: its data is the very row of the page, on one line,
/// and cannot be taken for another field or event.
#[test(any_server)]
fn data_is_the_row_of_the_page(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("as-given");
    let hostile = "line\\n\\ndata: x\\r\\n\\r\\nid: 9\\r: y\\u0085\\u2028";
    let payloads = [
        r#"{"a":123456789012345678901234567890.10,"b":1.0,"c":1E400,"d":-0}"#.to_owned(),
        "{\r\n  \"list\": [\r1,\n\n 2\t],\n\n\"data\":\r\n null }".to_owned(),
        format!(r#""{hostile}""#),
        format!(r#"{{"{hostile}":"\u0000😀{}שלום"}}"#, '\u{2028}'),
        "[]".to_owned(),
        format!("\"{}\"", "x".repeat(1 << 20)),
    ];
    let mut events: Vec<String> = Vec::new();
    for (number, payload) in payloads.iter().enumerate() {
        events.push(format!(
            r#"{{"topic":"{topic}\n\ndata: 1","event_id":"{number}{hostile}","source":"{hostile}","payload":{payload}}}"#
        ));
    }
    client.publish(format!("[{}]", events.join(",")))?.expect(200)?;
    let of_topic = format!("topic={topic}%0A%0Adata:%201");
    let rows = [("accept", "application/x-ndjson")];
    let rows = client.send("GET", &format!("/events?{of_topic}"), &rows, &[])?.expect(200)?;
    check_eq(rows.text.lines().count(), payloads.len(), "rows")?;
    let mut stream = Stream::open(&client, &format!("/events/stream?{of_topic}"))?;
    stream.opening()?;
    for row in rows.text.lines() {
        let parsed: Row = serde_json::from_str(row)?;
        let expected = Block {
            id: Some(parsed.seq.to_string()),
            data: Some(row.to_owned()),
            ..Block::default()
        };
        check_eq(stream.block()?, expected, "a block")?;
    }
    Ok(())
}

#[test(any_server)]
fn curl_shows_events_as_they_arrive(target: &Target) -> TestResult {
    curl(target, "1.1")
}

#[test(any_server)]
fn curl_shows_events_as_they_arrive_over_http_2(target: &Target) -> TestResult {
    curl(target, "2")
}

/// Another client than ours shows what comes while the stream is open.
fn curl(target: &Target, version: &str) -> TestResult {
    let client = target.client();
    let topic = unique_topic("curl");
    let url = format!("{}/events/stream?topic={topic}", target.url);
    let version_flag = if version == "2" { "--http2-prior-knowledge" } else { "--http1.1" };
    let flags = ["-N", "--silent", "--show-error", "--include", "--max-time", "120"];
    let mut command = Command::new("curl");
    command.args(flags).arg(version_flag).arg(url).stdin(Stdio::null()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("not tested over HTTP/{version}: there is no curl here");
        return Ok(());
    };
    let stdout = child.stdout.take().ok_or("no stdout");
    let result = stdout.map_err(Failed::from).and_then(|stdout| {
        let mut output = String::new();
        let mut stdout = BufReader::new(stdout);
        let mut read_until = |wanted: &str| {
            while !output.contains(wanted) {
                let read = stdout.read_line(&mut output)?;
                check(read > 0, || format!("curl ended, waiting for {wanted:?}, after {output}"))?;
            }
            Ok::<_, Failed>(output.clone())
        };
        let head = read_until("retry: 1000\n")?;
        check(head.starts_with(&format!("HTTP/{version} 200")), || head.clone())?;
        check(!head.to_ascii_lowercase().contains("content-length"), || head.clone())?;
        for id in ["1", "2"] {
            client.publish_one(&topic, id)?;
            read_until(&format!(r#""event_id":"{id}""#))?;
        }
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    result
}

#[test(any_server)]
fn serves_200_streams_at_once(target: &Target) -> TestResult {
    const STREAMS: usize = 200;
    const PUBLISHERS: usize = 8;
    const REQUESTS: usize = 20;
    let client = target.client();
    let topic = unique_topic("many-streams");
    let paths = [
        format!("/events/stream?topic={topic}"),
        format!("/events/stream?after={}", end_cursor(&client)?),
    ];
    let open = |number: usize| {
        let mut stream = Stream::open(&client, &paths[number % 2])?;
        stream.opening()?;
        Ok::<_, Failed>(stream)
    };
    let mut streams = (0..STREAMS).map(open).collect::<Result<Vec<Stream>, Failed>>()?;
    let publish = |round: &str| {
        let auditors = concurrently(PUBLISHERS, |publisher| {
            let mut auditor = Auditor::default();
            for request in 0..REQUESTS {
                auditor.publish(&client, &topic, &[format!("{round}-{publisher}-{request}")])?;
            }
            Ok(auditor)
        });
        Ok::<_, Failed>(Auditor::merged(auditors?))
    };
    let mut auditor = publish("open")?;
    auditor.audit(&client, &topic)?;
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
    auditor.merge(publish("closed")?);
    concurrently(PUBLISHERS, |_| {
        for number in 0..REQUESTS {
            client.get("/healthz")?.expect(200)?;
            open(number)?;
        }
        Ok(())
    })?;
    auditor.audit(&client, &topic)
}
