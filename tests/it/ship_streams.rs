//! `publisher ship` over POST /publish/stream of the real service.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::proxy::{Fate, Proxy, Way};
use crate::support::{
    Client, Server, ServerOptions, Target, TestResult, any_server, check, check_eq, own_server,
    publisher, shown, test, unique_topic, wait_until,
};

/// Lines of which many are the same.
fn lines(count: usize) -> Vec<String> {
    (0..count)
        .map(|line| format!("Oct 23 10:00:{:02} app: message {}", line % 60, line % 7))
        .collect()
}

fn write(directory: &TempDir, lines: &[String]) -> Result<String, Failed> {
    let file = directory.path().join("app.log");
    fs::write(&file, lines.join("\n") + "\n")?;
    Ok(file.display().to_string())
}

fn ship(url: &str, topic: &str, file: &str, more: &[&str]) -> Command {
    let args = ["ship", "--json", "--topic", topic, "--source", "it", "--no-state", file];
    publisher(url, &[&args[..], more].concat())
}

/// Lines, accepted and duplicates.
fn total(mut command: Command) -> Result<[u64; 3], Failed> {
    let output = command.output()?;
    check(output.status.success(), || shown(&output))?;
    let summary: Value = serde_json::from_slice(&output.stdout)?;
    Ok(["lines", "accepted", "duplicates"].map(|name| summary["total"][name].as_u64().unwrap_or(0)))
}

fn check_stored(client: &Client, topic: &str, lines: &[String]) -> TestResult {
    let events = client.all_events(topic)?;
    let stored: Vec<_> = events.iter().map(|event| &event["payload"]["message"]).collect();
    let are_same = stored.iter().zip(lines).all(|(stored, line)| *stored == line);
    check(are_same && stored.len() == lines.len(), || {
        format!("{} events are not the {} lines", stored.len(), lines.len())
    })
}

/// What stands before a service and counts publish requests, but for streams.
struct Watch {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Watch {
    fn before(address: &str) -> Result<Self, Failed> {
        const REQUEST: &[u8] = b"POST /publish ";
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let proxy = Proxy::before(address, move |_, way, bytes| {
            if way == Way::ToServer {
                let windows = bytes.windows(REQUEST.len());
                counted.fetch_add(windows.filter(|one| *one == REQUEST).count(), Ordering::SeqCst);
            }
            Fate::Pass
        })?;
        Ok(Self { url: format!("http://{}", proxy.address), requests })
    }

    /// Requests since it was asked last.
    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

/// Either way the ids are the same, and so is the order.
#[test(any_server)]
fn a_stream_and_requests_store_the_same_lines(target: &Target) -> TestResult {
    const LINES: u64 = 2_000;
    const BATCHES: usize = 100;
    let directory = TempDir::new()?;
    let lines = lines(LINES as usize);
    let file = write(&directory, &lines)?;
    let watch = Watch::before(target.client().address())?;
    let over_stream = &["--batch", "20"][..];
    let as_requests = &["--batch", "20", "--streams", "0"][..];
    for (first, second) in [(over_stream, as_requests), (as_requests, over_stream)] {
        let topic = unique_topic("either-way");
        for (way, expected) in [(first, [LINES, LINES, 0]), (second, [LINES, 0, LINES])] {
            check_eq(total(ship(&watch.url, &topic, &file, way))?, expected, &format!("{way:?}"))?;
            let requests = watch.requests();
            check_eq(requests < BATCHES, way == over_stream, &format!("{requests} for {way:?}"))?;
            check_stored(&target.client(), &topic, &lines)?;
        }
    }
    Ok(())
}

/// The service is killed in the middle of a stream and comes back at the same address.
#[test(own_server)]
fn a_service_that_is_killed_under_a_stream_has_each_line_once() -> TestResult {
    const LINES: usize = 60_000;
    const KILLS: u64 = 3;
    let directory = TempDir::new()?;
    let lines = lines(LINES);
    let file = write(&directory, &lines)?;
    let mut server = Server::start()?;
    let address = server.client().address().to_owned();
    let more = ["--batch", "100", "--retry-for", "10m"];
    let child = ship(&server.url, "t", &file, &more).spawn()?;
    for kill in 1..=KILLS {
        let client = server.client();
        wait_until("lines are on their way", || {
            let stored = client.get("/stats")?.expect(200)?.count("unique_processed")?;
            Ok((stored > kill * 10_000).then_some(()))
        })?;
        let state = server.kill()?;
        server = ServerOptions::on(&state).listen(&address).start()?;
    }
    let output = child.wait_with_output()?;
    check(output.status.success(), || shown(&output))?;
    let summary: Value = serde_json::from_slice(&output.stdout)?;
    let count = |name: &str| summary["total"][name].as_u64().unwrap_or(0);
    check_eq(count("accepted") + count("duplicates"), LINES as u64, &format!("{summary:#}"))?;
    check(count("retries") >= 1, || format!("no kill was felt: {summary:#}"))?;
    let stats = server.client().get("/stats")?.expect(200)?.json()?;
    check_eq(stats["unique_processed"].as_u64(), Some(LINES as u64), "stored")?;
    check_eq(stats["conflicts"].as_u64(), Some(0), "conflicts")?;
    check_stored(&server.client(), "t", &lines)
}
