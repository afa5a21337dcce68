//! Clients that are slow or silent, and many: what they hold comes to an end, and
//! they lock nobody out. Limits are set low here; what is asserted is counts and
//! ends, never how long something took.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use libtest_mimic::Failed;

use crate::support::{
    Client, End, Server, ServerOptions, Stream, TestResult, check, check_eq, event, own_server,
    test, unique_topic, wait_until,
};

/// Each limit of time, and none of them long.
const SHORT: [&str; 8] = [
    "--head-timeout",
    "1s",
    "--body-timeout",
    "1s",
    "--idle-connection-timeout",
    "1s",
    "--reply-timeout",
    "1s",
];

fn server(flags: &[&str]) -> Result<Server, Failed> {
    ServerOptions::default().flags(flags).start()
}

/// So many connections, each of which has sent these bytes.
fn connections(client: &Client, count: usize, bytes: &[u8]) -> Result<Vec<TcpStream>, Failed> {
    let connect = || {
        let mut connection = client.connect()?;
        connection.write_all(bytes)?;
        Ok(connection)
    };
    (0..count).map(|_| connect()).collect()
}

/// What comes until the server closes, in good order or by a reset.
fn read_to_end(mut connection: TcpStream) -> Result<Vec<u8>, Failed> {
    let mut read = Vec::new();
    match connection.read_to_end(&mut read) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            Err(format!("it is not closed: {error}").into())
        }
        _ => Ok(read),
    }
}

fn read_text(connection: TcpStream) -> Result<String, Failed> {
    Ok(String::from_utf8_lossy(&read_to_end(connection)?).into_owned())
}

/// Whether the server has not closed it.
fn is_open(connection: &TcpStream) -> Result<bool, Failed> {
    connection.set_nonblocking(true)?;
    let mut byte = [0];
    Ok(matches!(connection.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock))
}

/// A publish on a connection of its own.
fn check_publish(server: &Server, topic: &str, id: &str) -> TestResult {
    server.client().publish_one(topic, id).map(drop)
}

/// A request of which the body does not come to its end.
fn half_a_request(client: &Client, topic: &str) -> String {
    let body = event(topic, "half");
    let half = &body[..body.len() / 2];
    format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{half}",
        client.address(),
        body.len()
    )
}

#[test(own_server)]
fn half_sent_bodies_do_not_stay() -> TestResult {
    let topic = unique_topic("half-bodies");
    let server = server(&SHORT)?;
    let client = server.client();
    let chunked = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[ \r\n",
        client.address()
    );
    let refused = half_a_request(&client, &topic).replace("/publish", "/nowhere");
    let mut open = connections(&client, 300, half_a_request(&client, &topic).as_bytes())?;
    open.extend(connections(&client, 10, chunked.as_bytes())?);
    let answered = connections(&client, 10, refused.as_bytes())?;
    check_publish(&server, &topic, "1")?;
    for connection in open {
        let reply = read_text(connection)?;
        let (head, _) = reply.split_once("\r\n").unwrap_or_default();
        check(head.starts_with("HTTP/1.1 408 "), || format!("{reply:?}"))?;
        check(reply.contains("connection: close"), || format!("{reply:?}"))?;
    }
    // What is refused by its head alone is answered at once, and closed then.
    for connection in answered {
        let reply = read_text(connection)?;
        check(reply.starts_with("HTTP/1.1 404 "), || format!("{reply:?}"))?;
    }
    check_eq(client.all_events(&topic)?.len(), 1, "stored")
}

#[test(own_server)]
fn half_sent_heads_do_not_stay() -> TestResult {
    let topic = unique_topic("half-heads");
    let server = server(&SHORT)?;
    let client = server.client();
    let heads = connections(&client, 500, b"POST /publish HTTP/1.1\r\nhost: it\r\nx-")?;
    let silent = connections(&client, 50, b"")?;
    // Half a preface of HTTP/2, which is no request of HTTP/1 either.
    let prefaces = connections(&client, 10, b"PRI * HT")?;
    check_publish(&server, &topic, "1")?;
    for connection in heads {
        let reply = read_text(connection)?;
        check(reply.starts_with("HTTP/1.1 408 "), || format!("{reply:?}"))?;
    }
    for connection in silent {
        check_eq(read_text(connection)?.as_str(), "", "what a silent client is told")?;
    }
    prefaces.into_iter().try_for_each(|connection| read_to_end(connection).map(drop))
}

#[test(own_server)]
fn idle_connections_are_closed_after_a_while() -> TestResult {
    let server = server(&SHORT)?;
    let reply = server.client().raw(b"GET /healthz HTTP/1.1\r\nhost: it\r\n\r\n", End::Wait)?;
    check(reply.starts_with("HTTP/1.1 200") && reply.ends_with(r#"{"ok":true}"#), || reply)
}

/// They have a low limit; and one that follows from that of open files.
#[test(own_server)]
fn a_thousand_idle_connections_lock_nobody_out() -> TestResult {
    const IDLE: usize = 1000;
    let few_files = ServerOptions::default().wrapper("ulimit -n 256 && exec \"$@\"".to_owned());
    for (options, connections_max) in
        [(ServerOptions::default().flags(&["--max-connections", "40"]), 40), (few_files, 128)]
    {
        let topic = unique_topic("idle");
        let server = options.start()?;
        let client = server.client();
        // One of them has been of use, and others have begun a request.
        let kept = server.client();
        kept.get("/healthz")?.expect(200)?;
        let mut idle = connections(&client, IDLE / 2, b"")?;
        idle.extend(connections(&client, IDLE / 2, b"GET /heal")?);
        for id in 0..10 {
            check_publish(&server, &topic, &id.to_string())?;
        }
        let open = idle.iter().map(is_open).collect::<Result<Vec<_>, _>>()?;
        let open = open.into_iter().filter(|is_open| *is_open).count();
        check(open < connections_max, || format!("{open} of {IDLE} are open"))?;
        check(open > 0, || "all were closed, without need".into())?;
        kept.get("/healthz")?.expect(200)?;
        check_eq(client.counters(&topic)?.unique_processed, 10, "stored")?;
        let told = server.log().matches("--max-connections").count();
        check_eq(told, 1, "how often it was said that there is no room")?;
    }
    Ok(())
}

#[test(own_server)]
fn a_connection_beyond_those_that_are_busy_is_503() -> TestResult {
    const BUSY: usize = 4;
    let topic = unique_topic("busy");
    let server = server(&["--max-connections", &BUSY.to_string()])?;
    let streams = (0..BUSY)
        .map(|_| Stream::open(&server.client(), "/events/stream?after=end"))
        .collect::<Result<Vec<_>, _>>()?;
    for _ in 0..100 {
        let mut connection = server.client().connect()?;
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: it\r\n\r\n")?;
        let reply = read_text(connection)?;
        let is_refusal = reply.starts_with("HTTP/1.1 503 ") && reply.contains("\r\nretry-after: ");
        check(is_refusal && reply.contains("connection: close"), || format!("{reply:?}"))?;
    }
    drop(streams);
    wait_until("there is room again", || {
        // A request may be refused, or its connection closed.
        let reply = server.client().publish(event(&topic, "1"));
        Ok(reply.is_ok_and(|reply| reply.status == 200).then_some(()))
    })
}

/// None is cut by a limit, and a publish is answered beside them.
#[test(own_server)]
fn open_streams_stay_and_hold_up_nobody() -> TestResult {
    const STREAMS: usize = 320;
    let topic = unique_topic("streams");
    let server = server(&SHORT)?;
    let path = format!("/events/stream?topic={topic}");
    let mut streams = (0..STREAMS)
        .map(|_| {
            let mut stream = Stream::open(&server.client(), &path)?;
            stream.opening()?;
            Ok(stream)
        })
        .collect::<Result<Vec<_>, Failed>>()?;
    // As long as this takes, nothing happens on the streams.
    let silent = server.client().connect()?;
    let half =
        connections(&server.client(), 1, half_a_request(&server.client(), &topic).as_bytes())?;
    for connection in half.into_iter().chain([silent]) {
        read_to_end(connection)?;
    }
    check_publish(&server, &topic, "1")?;
    for stream in &mut streams {
        stream.check_next(&["1"], "of a stream")?;
    }
    Ok(())
}

/// A client that takes nothing of a reply, which is larger than what the system
/// keeps for it.
#[test(own_server)]
fn a_reply_that_nobody_takes_does_not_stay() -> TestResult {
    const EVENTS: usize = 8;
    const PAYLOAD_BYTES: usize = 6 << 20;
    let topic = unique_topic("unread");
    let server = server(&SHORT)?;
    let client = server.client();
    for id in 0..EVENTS {
        let payload = "x".repeat(PAYLOAD_BYTES);
        let body = format!(
            r#"{{"topic":"{topic}","event_id":"{id}","source":"it","payload":"{payload}"}}"#
        );
        client.publish(body)?.expect(200)?;
    }
    let request = format!(
        "GET /events?topic={topic}&limit=1000 HTTP/1.1\r\nhost: it\r\n\
         accept: application/x-ndjson\r\n\r\n"
    );
    let unread = connections(&client, 1, request.as_bytes())?.remove(0);
    wait_until("it is closed", || {
        // What is written to a connection that was closed resets it.
        Ok((&unread).write_all(b"\r\n").is_err().then_some(()))
    })?;
    // One who takes it gets all of it.
    let reply = client.send(
        "GET",
        &format!("/events?topic={topic}&limit=1000"),
        &[("accept", "application/x-ndjson")],
        &[],
    )?;
    check_eq(reply.expect(200)?.text.lines().count(), EVENTS, "events")
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The kinds and streams of the frames that come until the server closes.
fn frames(connection: TcpStream) -> Result<Vec<(u8, u32)>, Failed> {
    let bytes = read_to_end(connection)?;
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while let [l2, l1, l0, kind, _, s3, s2, s1, s0, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *l2, *l1, *l0]) as usize;
        frames.push((*kind, u32::from_be_bytes([*s3, *s2, *s1, *s0])));
        rest = after.get(length..).unwrap_or_default();
    }
    Ok(frames)
}

#[test(own_server)]
fn http_2_has_the_same_limits() -> TestResult {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const END_HEADERS: u8 = 4;
    let topic = unique_topic("http-2");
    let server = server(&SHORT)?;
    let client = server.client();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend(frame(SETTINGS, 0, 0, &[]));
    let silent = connections(&client, 100, &begin)?;
    // POST, http, and two literals; no end of the stream.
    let mut head = vec![0x83, 0x86, 0x44, 8];
    head.extend(b"/publish");
    head.extend([0x41, client.address().len() as u8]);
    head.extend(client.address().as_bytes());
    begin.extend(frame(HEADERS, END_HEADERS, 1, &head));
    let half = connections(&client, 100, &begin)?;
    check_publish(&server, &topic, "1")?;
    for connection in silent {
        let frames = frames(connection)?;
        let is_ended = frames.contains(&(SETTINGS, 0)) && frames.contains(&(GOAWAY, 0));
        check(is_ended, || format!("a silent client got {frames:?}"))?;
    }
    for connection in half {
        let frames = frames(connection)?;
        let is_ended = frames.contains(&(HEADERS, 1)) && frames.contains(&(GOAWAY, 0));
        check(is_ended, || format!("half a request got {frames:?}"))?;
    }
    check_eq(client.all_events(&topic)?.len(), 1, "stored")
}
