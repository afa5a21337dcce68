use std::fs;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Counters, Reply};
use crate::event_source::{Block, Event, Stream};
use crate::harness::{
    Outcome, Server, Spread, Start, Target, at_once, check, check_eq, event, join, unique_topic,
    until,
};
use crate::registry::{any_server, own_server, test};
use crate::tally::Tally;

/// Most topics that one reader names.
const TOPICS_MAX: usize = 32;

#[test(any_server)]
fn curl_shows_events_as_they_arrive(target: &Target) -> Outcome {
    curl(target, "1.1")
}

#[test(any_server)]
fn curl_shows_events_as_they_arrive_over_http_2(target: &Target) -> Outcome {
    curl(target, "2")
}

/// The path of a stream of these topics.
pub fn path_of(topics: &[String]) -> String {
    let topics: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    format!("/events/stream?{}", topics.join("&"))
}

/// A cursor behind every event that is there.
pub fn end(client: &Client) -> Result<String, Failed> {
    let mut stream = Stream::open(client, "/events/stream?after=end")?;
    stream.block()?.id.ok_or_else(|| "the stream does not begin with an id".into())
}

/// Publishes one event and returns its `seq`.
fn publish_one(client: &Client, topic: &str, id: &str) -> Result<i64, Failed> {
    let reply = client.publish_ids(topic, &[id.to_owned()])?.expect(200)?.json()?;
    let seq = reply["results"][0]["seq"].as_i64();
    seq.ok_or_else(|| format!("it was not accepted: {reply:#}").into())
}

/// The first block of a stream: where it begins, and nothing else.
pub fn opening(stream: &mut Stream) -> Result<String, Failed> {
    let block = stream.block()?;
    let id = block.id.clone().unwrap_or_default();
    let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let expected = Block { retry: Some("1000".into()), id: block.id.clone(), ..Block::default() };
    check(digits && block == expected, || format!("a stream begins with {block:?}"))?;
    Ok(id)
}

/// The next events of a stream are those with these ids.
fn check_next(stream: &mut Stream, ids: &[&str], of: &str) -> Outcome {
    for id in ids {
        check_eq(stream.event()?.event_id(), *id, of)?;
    }
    Ok(())
}

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

/// The headers of a reply that has no end.
fn check_head(reply: &Reply) -> Outcome {
    for (name, expected) in [
        ("content-type", Some("text/event-stream")),
        ("cache-control", Some("no-cache")),
        ("x-accel-buffering", Some("no")),
        ("content-length", None),
    ] {
        check_eq(reply.header(name), expected, &format!("{name} in {reply:#?}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn headers_forbid_caching_and_buffering(target: &Target) -> Outcome {
    let client = target.client();
    for path in ["/events/stream?after=end", "/stats/stream", "/events/stream/?after=end"] {
        check_head(&Stream::open(&client, path)?.head)?;
        check_head(&client.send("HEAD", path, &[], &[])?.expect(200)?)?;
    }
    Ok(())
}

/// HEAD is answered with no body, so that the connection is free for the next
/// request.
#[test(any_server)]
fn head_requests_end_at_once(target: &Target) -> Outcome {
    let client = target.client();
    for path in ["/events/stream", "/stats/stream"] {
        let host = client.address();
        let mut connection = BufReader::new(client.connect()?);
        write!(
            connection.get_mut(),
            "HEAD {path} HTTP/1.1\r\nhost: {host}\r\n\r\n\
             GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        let mut said = String::new();
        connection.read_to_string(&mut said)?;
        let (head, rest) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        let is_stream = head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream");
        check(is_stream && rest.starts_with("HTTP/1.1 200"), || format!("{path}: {said}"))?;
        check(rest.ends_with(r#"{"ok":true}"#), || format!("{path}: {said}"))?;
    }
    Ok(())
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

/// The bytes of the files of both stores, as far as they tell of writing.
fn store_bytes(server: &Server) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(server.state.path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What is shared in memory tells readers from each other, too.
        if path.is_file() && name.contains(".db") && !name.ends_with("-shm") {
            files.push((name, fs::read(&path)?));
        }
    }
    files.sort();
    check(files.iter().any(|(_, bytes)| !bytes.is_empty()), || "there are no files".into())?;
    Ok(files)
}

/// Subscribers that get nothing but the comment that says so, which comes after
/// some 150 looks at the store.
#[test(own_server)]
fn idle_streams_send_heartbeats_and_write_nothing() -> Outcome {
    let topic = unique_topic("idle");
    let server = Server::start()?;
    let client = server.client();
    publish_one(&client, &topic, "1")?;
    client.get("/stats")?.expect(200)?;
    until("what was seen of the commit is stored", || {
        let metrics = client.get("/metrics")?.expect(200)?;
        Ok(metrics.text.contains("sekali_commit_requests_count 1\n").then_some(()))
    })?;
    let database = rusqlite::Connection::open(server.state.path().join("sqlite_db.db"))?;
    let version = || {
        let version = database.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        version.map_err(Failed::from)
    };
    let paths = [
        "/events/stream?after=end".to_owned(),
        format!("/events/stream?after=end&topic={topic}&topic=other"),
        "/stats/stream".to_owned(),
    ];
    let mut streams = Vec::new();
    for path in &paths {
        let mut stream = Stream::open(&client, path)?;
        stream.block()?;
        if path == "/stats/stream" {
            stream.event()?;
        }
        streams.push(stream);
    }
    let before = (version()?, store_bytes(&server)?);
    for (stream, path) in streams.iter_mut().zip(&paths) {
        let expected = Block { comments: 1, ..Block::default() };
        check_eq(stream.block()?, expected, &format!("what comes of {path}"))?;
    }
    let after = (version()?, store_bytes(&server)?);
    check_eq(after.0, before.0, "data_version")?;
    check(after.1 == before.1, || {
        let sizes = |files: &[(String, Vec<u8>)]| -> Vec<(String, usize)> {
            files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect()
        };
        format!("the files changed: {:?}, {:?}", sizes(&before.1), sizes(&after.1))
    })?;
    // They were not only silent, but waiting.
    publish_one(&client, &topic, "2")?;
    check_next(&mut streams[0], &["2"], "of every topic")?;
    check_next(&mut streams[1], &["2"], "of one topic")?;
    check_eq(streams[2].event()?.data["received"].as_u64(), Some(2), "received")
}

/// A store that fails before the first byte is a problem like any other; one
/// that fails later leaves a reply that is not whole.
#[test(own_server)]
fn a_failing_store_breaks_them_off_and_refuses_new_ones() -> Outcome {
    let topic = unique_topic("failing");
    let state = Arc::new(TempDir::new()?);
    let file = state.path().join("sqlite_db.db");
    let server = Start::on(&state).start()?;
    let client = server.client();
    publish_one(&client, &topic, "1")?;
    let paths = ["/events/stream", "/stats/stream"];
    let mut open = Vec::new();
    for path in paths {
        let mut stream = BufReader::new(client.connect()?);
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.address())?;
        let mut said = String::new();
        while !said.contains(&topic) {
            check(stream.read_line(&mut said)? > 0, || format!("{path} ended: {said}"))?;
        }
        open.push((stream, said));
    }
    let database = rusqlite::Connection::open(&file)?;
    database.execute_batch(
        "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; \
         ALTER TABLE event_log RENAME TO event_log_gone; \
         ALTER TABLE topic_totals RENAME TO topic_totals_gone",
    )?;
    for (mut stream, mut said) in open {
        let ended = stream.read_to_string(&mut said);
        // A reset is as good an end as any that is not that of a whole reply.
        let is_reset = |error: &Error| error.kind() == ErrorKind::ConnectionReset;
        check(ended.as_ref().map_or_else(is_reset, |_| true), || {
            format!("it is not broken off, but: {ended:?}, {said}")
        })?;
        check(!said.ends_with("0\r\n\r\n"), || format!("it ended as if whole: {said}"))?;
    }
    until("the failure is logged", || {
        Ok((server.said().matches("a stream was broken off").count() == 2).then_some(()))
    })?;
    for path in paths {
        let reply = client.get(path)?.expect(503)?;
        check(reply.json()?["code"] == "store_unavailable", || format!("{reply:#?}"))?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        check(!reply.text.contains("event_log"), || format!("the cause is told: {reply:#?}"))?;
    }
    Ok(())
}

/// The counters of one frame, which balance or the test fails.
fn frame(event: &Event) -> Result<Counters, Failed> {
    check_eq(event.id.as_str(), "", "the id of a frame")?;
    let frame = &event.data;
    let all = Counters::of(frame);
    check(all.balance(), || format!("the counters do not balance: {frame:#}"))?;
    let topics = frame["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    for topic in topics {
        check(Counters::of(topic).balance(), || format!("{topic:#} does not balance"))?;
    }
    let received = |topic: &Value| topic["received"].as_u64();
    let most_first = topics.is_sorted_by(|one, next| received(one) >= received(next));
    let count = frame["topic_count"].as_u64().unwrap_or_default();
    let is_bounded = topics.len() as u64 == count.min(100);
    check(most_first && is_bounded && frame["rejected"].is_u64(), || format!("{frame:#}"))?;
    Ok(all)
}

/// Publishers go on until so many frames have come in between.
#[test(any_server)]
fn counters_balance_in_every_frame(target: &Target) -> Outcome {
    const PUBLISHERS: usize = 4;
    const FRAMES: usize = 6;
    let client = target.client();
    let topic = unique_topic("balance");
    let mut stream = Stream::open(&client, "/stats/stream")?;
    check_eq(stream.block()?.retry.as_deref(), Some("1000"), "retry at the beginning")?;
    // At once, although nothing changes meanwhile.
    let first = frame(&stream.event()?)?;
    let frames = AtomicUsize::new(0);
    let stored = AtomicU64::new(u64::MAX);
    let mut watch = || {
        let mut before = first;
        while before.received < stored.load(Ordering::Acquire) {
            let event = stream.event()?;
            let now = frame(&event)?;
            let rises = now.received >= before.received
                && now.unique_processed >= before.unique_processed
                && now.duplicate_dropped >= before.duplicate_dropped;
            check(rises, || format!("{before:?} fell to {:#}", event.data))?;
            before = now;
            frames.fetch_add(1, Ordering::Release);
        }
        Ok(())
    };
    let publish = |publisher: usize| {
        let mut spread = Spread(publisher as u64);
        let mut tally = Tally::default();
        while frames.load(Ordering::Acquire) < FRAMES {
            let ids: Vec<String> =
                (0..=spread.below(5)).map(|_| spread.below(5000).to_string()).collect();
            tally.publish(&client, &topic, &ids)?;
        }
        Ok(tally)
    };
    let published = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let watched: Outcome = watch();
            // The publishers wait for nothing more, however it ended.
            frames.store(FRAMES, Ordering::Release);
            watched
        });
        let published = at_once(PUBLISHERS, publish).and_then(|tallies| {
            let counted = client.get("/stats")?.expect(200)?.count("received")?;
            stored.store(counted, Ordering::Release);
            // The watcher may have seen them all already: let it look once more.
            client.publish(event(&topic, "one more"))?.expect(200)?;
            Ok(tallies)
        });
        if published.is_err() {
            stored.store(0, Ordering::Release);
        }
        join(watcher).and(published)
    })?;
    let mut tally = Tally::sum(published);
    tally.book_unheard("one more".to_owned());
    tally.audit(&client, &topic)
}

/// Of more than a hundred topics those with the most deliveries, as `/stats`
/// has them.
#[test(own_server)]
fn counters_equal_those_of_stats() -> Outcome {
    const TOPICS: usize = 130;
    let server = Server::start()?;
    let client = server.client();
    let mut stream = Stream::open(&client, "/stats/stream")?;
    let empty = stream.event()?;
    check_eq(frame(&empty)?.received, 0, "received of an empty store")?;
    check_eq(empty.data["topics"].as_array().map(Vec::len), Some(0), "its topics")?;
    let mut events = Vec::new();
    for topic in 0..TOPICS {
        // Each topic has one delivery more than the one before, and a conflict.
        for delivery in 0..=topic {
            events.push(event(&format!("topic {topic}"), &(delivery / 2).to_string()));
        }
        events.push(event(&format!("topic {topic}"), "0").replace(r#""of""#, r#""not of""#));
    }
    client.publish(events.join("\n"))?.expect(200)?;
    client.publish("[{},{}]")?.expect(422)?;
    let stats = client.get("/stats")?.expect(200)?.json()?;
    let now = loop {
        let event = stream.event()?;
        frame(&event)?;
        if event.data["rejected"] == 2 {
            break event.data;
        }
    };
    for field in ["received", "unique_processed", "duplicate_dropped", "conflicts", "rejected"] {
        check_eq(&now[field], &stats[field], field)?;
    }
    check_eq(now["topic_count"].as_u64(), Some(TOPICS as u64), "topic_count")?;
    let topics = now["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (place, topic) in topics.iter().enumerate() {
        let name = format!("topic {}", TOPICS - 1 - place);
        check(topic["topic"] == *name, || format!("at {place} is {topic:#}, not {name}"))?;
        check_eq(Counters::of(topic), Counters::of(&stats["by_topic"][&name]), &name)?;
    }
    check_eq(topics.len(), 100, "topics")
}
