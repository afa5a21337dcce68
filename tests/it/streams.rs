//! What both streams, /events/stream and /stats/stream, have in common.

use std::fs;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};

use libtest_mimic::Failed;

use crate::support::{
    Block, Edit, Reply, Server, Stream, Target, TestResult, any_server, check, check_eq,
    own_server, sqlite_server, test, unique_topic, wait_until,
};

/// The headers of a reply that has no end.
fn check_head(reply: &Reply) -> TestResult {
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
fn headers_forbid_caching_and_buffering(target: &Target) -> TestResult {
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
fn head_requests_end_at_once(target: &Target) -> TestResult {
    let client = target.client();
    for path in ["/events/stream", "/stats/stream"] {
        let host = client.address();
        let mut connection = BufReader::new(client.connect()?);
        write!(
            connection.get_mut(),
            "HEAD {path} HTTP/1.1\r\nhost: {host}\r\n\r\n\
             GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        let mut reply = String::new();
        connection.read_to_string(&mut reply)?;
        let (head, rest) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let is_stream = head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream");
        check(is_stream && rest.starts_with("HTTP/1.1 200"), || format!("{path}: {reply}"))?;
        check(rest.ends_with(r#"{"ok":true}"#), || format!("{path}: {reply}"))?;
    }
    Ok(())
}

/// The files of both stores whose bytes show that something was written.
fn store_bytes(server: &Server) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(server.state.path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The shared memory changes with readers, too.
        if path.is_file() && name.contains(".db") && !name.ends_with("-shm") {
            files.push((name, fs::read(&path)?));
        }
    }
    files.sort();
    check(files.iter().any(|(_, bytes)| !bytes.is_empty()), || "there are no files".into())?;
    Ok(files)
}

/// Subscribers that get nothing but the heartbeat, a comment, which comes after
/// the store was polled some 150 times.
#[test(sqlite_server)]
fn idle_streams_send_heartbeats_and_write_nothing() -> TestResult {
    let topic = unique_topic("idle");
    let server = Server::start()?;
    let client = server.client();
    client.publish_one(&topic, "1")?;
    client.get("/stats")?.expect(200)?;
    wait_until("the metrics of the commit are stored", || {
        let metrics = client.get("/metrics")?.expect(200)?;
        Ok(metrics.text.contains("sekali_commit_requests_count 1\n").then_some(()))
    })?;
    let database = server.database()?;
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
    client.publish_one(&topic, "2")?;
    streams[0].check_next(&["2"], "of every topic")?;
    streams[1].check_next(&["2"], "of one topic")?;
    check_eq(streams[2].event()?.data["received"].as_u64(), Some(2), "received")
}

/// A store that fails before the first byte is a problem like any other; one
/// that fails later leaves a reply that is not whole.
#[test(own_server)]
fn a_failing_store_breaks_them_off_and_refuses_new_ones() -> TestResult {
    let topic = unique_topic("failing");
    let server = Server::start()?;
    let client = server.client();
    client.publish_one(&topic, "1")?;
    let paths = ["/events/stream", "/stats/stream"];
    let mut open = Vec::new();
    for path in paths {
        let mut stream = BufReader::new(client.connect()?);
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.address())?;
        let mut reply = String::new();
        while !reply.contains(&topic) {
            check(stream.read_line(&mut reply)? > 0, || format!("{path} ended: {reply}"))?;
        }
        open.push((stream, reply));
    }
    let gone = Edit {
        sqlite: "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; \
            ALTER TABLE event_log RENAME TO event_log_gone; \
            ALTER TABLE topic_totals RENAME TO topic_totals_gone",
        postgres: "ALTER TABLE sekali.event_log RENAME TO event_log_gone; \
            ALTER VIEW sekali.totals_2 RENAME TO totals_gone",
    };
    gone.apply(&server)?;
    for (mut stream, mut reply) in open {
        let ended = stream.read_to_string(&mut reply);
        // A reset is as good an end as any that is not that of a whole reply.
        let is_reset = |error: &Error| error.kind() == ErrorKind::ConnectionReset;
        check(ended.as_ref().map_or_else(is_reset, |_| true), || {
            format!("it is not broken off, but: {ended:?}, {reply}")
        })?;
        check(!reply.ends_with("0\r\n\r\n"), || format!("it ended as if whole: {reply}"))?;
    }
    wait_until("the failure is logged", || {
        Ok((server.log().matches("a stream was broken off").count() == 2).then_some(()))
    })?;
    for path in paths {
        let reply = client.get(path)?.expect(503)?;
        check(reply.json()?["code"] == "store_unavailable", || format!("{reply:#?}"))?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        check(!reply.text.contains("event_log"), || format!("it shows the cause: {reply:#?}"))?;
    }
    Ok(())
}
