//! Replies leave in one write.
//!
//! The server sets no `TCP_NODELAY`, as Spin does not. A small reply that
//! leaves in two writes is then held up half-way, by Nagle's algorithm until
//! the client acknowledges the head, which it delays by 40 ms.
//!
//! To see that takes no clock. A small write is one segment, so the first read
//! of a client that waits returns all of a reply that left in one write, and
//! the head alone of one whose body had to wait. The sockets keep their default
//! options: `TCP_NODELAY` or `TCP_QUICKACK` would hide what is looked for.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use libtest_mimic::Failed;

use crate::support::{
    Target, TestResult, any_server, check, check_eq, concurrently, event, no_server, test,
    unique_topic,
};

/// More than any reply that is asked for here.
const READ_BYTES: usize = 16 * 1024;

/// Replies of a kind among which one more than two may be split. It is the host
/// that sends head and body to the connection, one after the other, and now and then
/// its threads come between: once in 30,000 replies, on a machine that has more
/// to do than it can. A component that does not see to it splits one in 20 to 200.
const REPLIES_PER_SPLIT: usize = 200;

const CRLF: &str = "\r\n";

/// More requests than one instance takes in all; so in the next ones.
#[test(any_server)]
fn at_1_connection(target: &Target) -> TestResult {
    check_unsplit(target, 1, 600)
}

#[test(any_server)]
fn at_32_connections(target: &Target) -> TestResult {
    check_unsplit(target, 32, 40)
}

#[test(any_server)]
fn at_128_connections(target: &Target) -> TestResult {
    check_unsplit(target, 128, 15)
}

/// A keep-alive connection that shows in how many parts replies arrive.
struct Connection {
    stream: TcpStream,
}

/// A reply as it arrived.
struct Arrival {
    bytes: Vec<u8>,
    first_part: usize,
}

impl Connection {
    fn send(&mut self, request: &str) -> TestResult {
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// What one read returns.
    fn read(&mut self) -> Result<Vec<u8>, Failed> {
        let mut part = vec![0; READ_BYTES];
        let read = loop {
            match self.stream.read(&mut part) {
                // A machine that was suspended, or a debugger.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        check(read > 0, || "the server closed the connection".into())?;
        part.truncate(read);
        Ok(part)
    }

    /// Reads what is left of a reply of which `first` is there.
    fn read_rest(&mut self, first: Vec<u8>, is_head: bool) -> Result<Arrival, Failed> {
        let first_part = first.len();
        let mut bytes = first;
        while bytes.len() < whole_bytes(&bytes, is_head)? {
            bytes.extend(self.read()?);
        }
        Ok(Arrival { bytes, first_part })
    }

    fn receive(&mut self, is_head: bool) -> Result<Arrival, Failed> {
        let first = self.read()?;
        self.read_rest(first, is_head)
    }
}

impl Arrival {
    fn is_split(&self) -> bool {
        self.first_part < self.bytes.len()
    }
}

/// How long the reply that begins like this is in all, as far as it shows yet.
fn whole_bytes(reply: &[u8], is_head: bool) -> Result<usize, Failed> {
    let text = String::from_utf8_lossy(reply);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(reply.len() + 1) };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
    });
    let length: usize = length.ok_or_else(|| format!("no content-length in {head:?}"))?;
    Ok(head.len() + 4 + if is_head { 0 } else { length })
}

/// A request, and what is expected of its reply.
struct Request {
    /// Its name where splits are counted.
    what: &'static str,
    target: String,
    /// What comes after the line and the host.
    rest: String,
    status: u16,
}

impl Request {
    /// Mostly events to publish, and now and then something else.
    fn numbered(number: usize, topic: &str, id: &str) -> Self {
        let get =
            |what, target: String, status| Request { what, target, rest: CRLF.into(), status };
        let post =
            |what, rest, status| Request { what, target: "POST /publish".into(), rest, status };
        let whole = |body: String| format!("content-length: {}{CRLF}{CRLF}{body}", body.len());
        let chunked = |body: String| {
            let length = body.len();
            format!(
                "transfer-encoding: chunked{CRLF}{CRLF}{length:x}{CRLF}{body}{CRLF}0{CRLF}{CRLF}"
            )
        };
        match number % 20 {
            2 => post("an invalid event", whole(event(topic, "")), 422),
            5 => get("GET /healthz", "GET /healthz".into(), 200),
            8 => get("GET /nowhere", "GET /nowhere".into(), 404),
            11 => get("HEAD /healthz", "HEAD /healthz".into(), 200),
            14 => get("GET /events", format!("GET /events?topic={topic}&limit=1"), 200),
            17 => post("an event in chunks", chunked(event(topic, id)), 200),
            _ => post("an event", whole(event(topic, id)), 200),
        }
    }

    fn text(&self, host: &str) -> String {
        format!("{} HTTP/1.1{CRLF}host: {host}{CRLF}{}", self.target, self.rest)
    }
}

/// How many of so many replies of a kind may be split by chance.
const fn allowed(replies: usize) -> usize {
    2 + replies / REPLIES_PER_SPLIT
}

/// Replies arrive in one part.
fn check_unsplit(target: &Target, connections: usize, requests: usize) -> TestResult {
    let client = target.client();
    let topic = unique_topic("one-write");
    client.publish(event(&topic, "first"))?.expect(200)?;
    let arrivals = concurrently(connections, |place| {
        let mut connection = Connection { stream: client.connect()? };
        let mut arrivals = Vec::new();
        for number in 0..requests {
            let request = Request::numbered(place + number, &topic, &format!("{place}-{number}"));
            connection.send(&request.text(client.address()))?;
            let arrival = connection.receive(request.target.starts_with("HEAD"))?;
            let text = String::from_utf8_lossy(&arrival.bytes);
            check(text.starts_with(&format!("HTTP/1.1 {}", request.status)), || {
                format!("{}: expected {}, got {text}", request.what, request.status)
            })?;
            arrivals.push((request, number, arrival));
        }
        Ok(arrivals)
    })?;

    let mut replies: BTreeMap<_, (usize, Vec<String>)> = BTreeMap::new();
    for (request, number, arrival) in arrivals.into_iter().flatten() {
        let (count, split) = replies.entry(request.what).or_default();
        *count += 1;
        if arrival.is_split() {
            let (first, whole) = (arrival.first_part, arrival.bytes.len());
            split.push(format!("no. {number}: {first} of {whole} bytes"));
        }
    }
    check(replies.values().all(|(count, split)| split.len() <= allowed(*count)), || {
        let mut report = format!("replies in two parts at {connections} connections:");
        for (what, (count, split)) in &replies {
            report.push_str(&format!("\n{what}: {} of {count} {split:?}", split.len()));
        }
        report
    })
}

/// The check itself: it finds a reply whose body is sent once its head has been
/// read, and nothing wrong with one that is sent as a whole.
#[test(no_server)]
fn detects_a_split_reply() -> TestResult {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut connection = Connection { stream: TcpStream::connect(listener.local_addr()?)? };
    let (mut server, _) = listener.accept()?;
    let (seen, head_seen) = mpsc::channel();
    let server = std::thread::spawn(move || -> TestResult {
        server.write_all(format!("{HEAD}ok").as_bytes())?;
        head_seen.recv()?;
        server.write_all(HEAD.as_bytes())?;
        head_seen.recv()?;
        Ok(server.write_all(b"ok")?)
    });
    check(!connection.receive(false)?.is_split(), || "one write was taken for two".into())?;
    seen.send(())?;
    let first = connection.read()?;
    seen.send(())?;
    let arrival = connection.read_rest(first, false)?;
    server.join().map_err(|_| "the server panicked")??;
    check(arrival.is_split(), || "two writes were taken for one".into())?;
    check_eq(arrival.first_part, HEAD.len(), "the first part")?;
    check_eq(arrival.bytes, format!("{HEAD}ok").into_bytes(), "the reply")
}
