//! POST /publish/stream: events up and outcomes down on one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::support::{
    Client, Server, ServerOptions, Target, TestResult, any_server, check, check_eq, event, join,
    own_server, sqlite_server, test, unique_topic,
};

/// One end of a stream of events, in chunks of HTTP/1.1.
pub struct Up(TcpStream);

/// The other.
pub struct Down {
    connection: BufReader<TcpStream>,
    /// What came of a chunk, up to a line that is not whole.
    read: Vec<u8>,
    has_ended: bool,
}

pub fn open(client: &Client) -> Result<(Up, Down), Failed> {
    open_in(client, "identity")
}

/// A stream whose body is in a content coding.
pub fn open_in(client: &Client, coding: &str) -> Result<(Up, Down), Failed> {
    let mut connection = client.connect()?;
    let host = client.address();
    let head = format!(
        "POST /publish/stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\ncontent-encoding: {coding}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes())?;
    let mut down = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    down.read_line(&mut line)?;
    check(line.starts_with("HTTP/1.1 200"), || line.clone())?;
    let mut is_passed_on_at_once = false;
    while line != "\r\n" {
        line.clear();
        down.read_line(&mut line)?;
        is_passed_on_at_once |= line.eq_ignore_ascii_case("x-accel-buffering: no\r\n");
    }
    check(is_passed_on_at_once, || "a proxy may collect the outcomes".into())?;
    Ok((Up(connection), Down { connection: down, read: Vec::new(), has_ended: false }))
}

impl Up {
    pub fn send(&mut self, text: &str) -> TestResult {
        self.send_bytes(text.as_bytes())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> TestResult {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        Ok(self.0.write_all(&chunk)?)
    }

    pub fn end(&mut self) -> TestResult {
        Ok(self.0.write_all(b"0\r\n\r\n")?)
    }
}

impl Down {
    /// The next outcome; `None` at the end, an error when the connection breaks.
    pub fn next(&mut self) -> Result<Option<Value>, Failed> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.has_ended {
                check(self.read.is_empty(), || "a line without an end".into())?;
                return Ok(None);
            }
            let mut size = String::new();
            self.connection.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            self.connection.read_exact(&mut chunk)?;
            self.has_ended = size == 0;
            self.read.extend_from_slice(&chunk[..size]);
        }
    }

    pub fn status(&mut self) -> Result<String, Failed> {
        let outcome = self.next()?.ok_or("the stream has ended")?;
        outcome["status"].as_str().map(str::to_owned).ok_or_else(|| outcome.to_string().into())
    }
}

pub fn line(topic: &str, id: impl ToString) -> String {
    format!("{}\n", event(topic, &id.to_string()))
}

/// Each outcome is read before the next event is sent.
#[test(any_server)]
fn each_outcome_comes_while_the_request_goes_on(target: &Target) -> TestResult {
    let topic = unique_topic("turns");
    let client = target.client();
    let (mut up, mut down) = open(&client)?;
    for (text, expected, stored) in [
        (line(&topic, 1), "accepted", 1),
        (line(&topic, 1), "duplicate", 1),
        ("{\"topic\": 7}\n".to_owned(), "rejected", 1),
        (line(&topic, 2), "accepted", 2),
    ] {
        // Also when it comes in two parts.
        let (begin, end) = text.split_at(text.len() / 2);
        up.send(begin)?;
        up.send(end)?;
        check_eq(down.status()?.as_str(), expected, &text)?;
        check_eq(client.counters(&topic)?.unique_processed, stored, "stored by then")?;
    }
    up.end()?;
    check(down.next()?.is_none(), || "more outcomes than events".into())
}

/// The client reads and sends at the same time, and never waits.
#[test(any_server)]
fn outcomes_are_in_order_and_events_in_few_commits(target: &Target) -> TestResult {
    const EVENTS: u64 = 20_000;
    const DISTINCT: u64 = 15_000;
    let topic = unique_topic("many");
    let client = target.client();
    let (mut up, mut down) = open(&client)?;
    let outcomes = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for first in (0..EVENTS).step_by(10) {
                let lines: String =
                    (first..first + 10).map(|number| line(&topic, number % DISTINCT)).collect();
                up.send(&lines)?;
            }
            up.end()
        });
        let mut outcomes = Vec::new();
        while let Some(outcome) = down.next()? {
            outcomes.push(outcome);
        }
        join(sender).map(|()| outcomes)
    })?;
    check_eq(outcomes.len() as u64, EVENTS, "outcomes")?;
    for (number, outcome) in (0..EVENTS).zip(&outcomes) {
        let status = if number < DISTINCT { "accepted" } else { "duplicate" };
        let id = (number % DISTINCT).to_string();
        let is_right = outcome["index"] == number
            && outcome["status"] == status
            && outcome["event_id"] == id.as_str();
        check(is_right, || format!("{number}: {outcome}"))?;
    }
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (EVENTS, DISTINCT), "counters")
}

/// What was acknowledged is stored, wherever the service is killed.
#[test(own_server)]
fn what_was_acknowledged_survives_a_kill() -> TestResult {
    const ROUNDS: u64 = 5;
    let topic = unique_topic("killed");
    let mut server = Server::start()?;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let client = server.client();
        let (mut up, mut down) = open(&client)?;
        server = std::thread::scope(|scope| {
            // Until the connection breaks.
            let sender = scope.spawn(|| {
                let mut numbers = 0..;
                while numbers.next().is_some_and(|number: u64| {
                    up.send(&line(&topic, format!("{round}-{number}"))).is_ok()
                }) {}
            });
            for _ in 0..200 * (round + 1) {
                let outcome = down.next()?.ok_or("the stream has ended")?;
                check_eq(&outcome["status"], &"accepted".into(), "status")?;
                acknowledged.extend(outcome["event_id"].as_str().map(str::to_owned));
            }
            let state = server.kill()?;
            while let Ok(Some(outcome)) = down.next() {
                acknowledged.extend(outcome["event_id"].as_str().map(str::to_owned));
            }
            sender.join().map_err(|_| "the sender panicked")?;
            ServerOptions::on(&state).start()
        })?;
    }
    let stored = server.client().all_events(&topic)?;
    let ids: std::collections::BTreeSet<String> =
        stored.iter().filter_map(|event| event["event_id"].as_str().map(str::to_owned)).collect();
    check_eq(ids.len(), stored.len(), "each once")?;
    let lost: Vec<_> = acknowledged.iter().filter(|id| !ids.contains(*id)).collect();
    check(lost.is_empty(), || format!("{} of {} lost", lost.len(), acknowledged.len()))
}

/// A store that stays busy ends the stream with the reason.
#[test(sqlite_server)]
fn a_busy_store_is_the_last_line() -> TestResult {
    let topic = unique_topic("busy");
    let server = ServerOptions::default().variable("commit_wait_ms_max=200").start()?;
    let (mut up, mut down) = open(&server.client())?;
    up.send(&line(&topic, 1))?;
    check_eq(down.status()?.as_str(), "accepted", "before")?;
    let database = server.database()?;
    database.execute_batch("BEGIN IMMEDIATE")?;
    up.send(&line(&topic, 2))?;
    let problem = down.next()?.ok_or("no last line")?;
    check_eq(&problem["code"], &"store_busy".into(), "code")?;
    check(down.next()?.is_none(), || "something after the last line".into())?;
    database.execute_batch("ROLLBACK")?;
    check_eq(server.client().counters(&topic)?.unique_processed, 1, "stored")
}
