//! Instances that hand their commits over to one writer, a component of its own.
//!
//! Where each instance takes two requests at a time, its own commits have two requests
//! at most: one that has more is the writer's.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::publish_stream;
use crate::support::crash_load::CrashLoad;
use crate::support::prometheus::Scrape;
use crate::support::{
    Auditor, Client, End, Reply, Rng, Server, ServerOptions, TestResult, check, check_eq,
    concurrently, event, join, own_server, root, sqlite_server, test, unique_topic, wait_until,
};

const CLIENTS: usize = 32;

/// Publishes of all clients together.
const PUBLISHES: u64 = 2_000;

/// The host's options under which an instance's own commits have two requests at most.
const TWO_AT_A_TIME: [&str; 2] = ["--max-instance-concurrent-reuse-count", "2"];

fn two_at_a_time() -> ServerOptions {
    ServerOptions::default().flags(&TWO_AT_A_TIME)
}

/// How many commits there were, and how many of them were of more than two requests.
fn commits(client: &Client) -> Result<(u64, u64), Failed> {
    let scrape = Scrape::take(client)?;
    let (all, _) = scrape.histogram("sekali_commit_requests")?;
    let of_two = scrape.get("sekali_commit_requests_bucket", &[("le", "2.0")]);
    let of_two = of_two.ok_or("no commits of up to two requests are told")?;
    Ok((all, all - of_two as u64))
}

/// Clients publish at once, each event of its own, one of five again and one of ten a
/// shared one, until so many publishes were answered, and any that is not is sent again.
fn publish(client: &Client, topic: &str, publishes: u64) -> Result<Auditor, Failed> {
    let answered = AtomicU64::new(0);
    let auditors = concurrently(CLIENTS, |number| {
        let mut rng = Rng(number as u64);
        let mut auditor = Auditor::default();
        let mut last = format!("{number}-first");
        while answered.fetch_add(1, Ordering::Relaxed) < publishes {
            let id = match rng.below(10) {
                0 | 1 => last.clone(),
                2 => format!("shared-{}", rng.below(100)),
                _ => format!("{number}-{}", rng.below(u64::MAX)),
            };
            let ids = [id.clone()];
            loop {
                let reply = publish_one(client, topic, &ids)?;
                match reply.status {
                    200 => {
                        auditor.record(&ids, &reply)?;
                        break;
                    }
                    503 => {}
                    // The host ended the instance in the middle of it.
                    500 if reply.text.is_empty() => auditor.record_unanswered(1),
                    _ => return Err(format!("{reply:#?}").into()),
                }
            }
            last = id;
        }
        Ok(auditor)
    })?;
    Ok(Auditor::merged(auditors))
}

/// The reply to a publish, also where it is the host's own, which the API does not
/// describe.
fn publish_one(client: &Client, topic: &str, ids: &[String; 1]) -> Result<Reply, Failed> {
    let body = event(topic, &ids[0]);
    let request = format!(
        "POST /publish?results=all HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        client.address(),
        body.len()
    );
    let response = client.raw(request.as_bytes(), End::Wait)?;
    let (head, text) = response.split_once("\r\n\r\n").ok_or("no whole head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no status: {head:?}"))?;
    Ok(Reply { request, status, headers: Vec::new(), text: text.to_owned() })
}

/// Each event is stored once, and the counters are those of the replies.
fn publish_and_audit(server: &Server, publishes: u64) -> TestResult {
    let (client, topic) = (server.client(), unique_topic("writer"));
    publish(&client, &topic, publishes)?.audit(&client, &topic)
}

/// Publishes until commits of several instances have been seen.
fn publish_until_shared(server: &Server) -> TestResult {
    let client = server.client();
    wait_until("instances share commits", || {
        publish_and_audit(server, PUBLISHES)?;
        Ok((commits(&client)?.1 > 0).then_some(()))
    })
}

/// The manifest without the component that writes, and with no way to it.
fn without_writer() -> Result<(ServerOptions, TempDir), Failed> {
    let mut manifest: toml::Table = fs::read_to_string(root().join("spin.toml"))?.parse()?;
    let triggers = manifest["trigger"]["http"].as_array_mut().ok_or("no triggers")?;
    let before = triggers.len();
    triggers.retain(|trigger| trigger["component"].as_str() == Some("sekali"));
    check_eq((before, triggers.len()), (2, 1), "triggers")?;
    let components = manifest["component"].as_table_mut().ok_or("no components")?;
    components.remove("sekali-writer").ok_or("no component that writes")?;
    let service = components["sekali"].as_table_mut().ok_or("no service")?;
    service.remove("allowed_outbound_hosts").ok_or("no way to it")?;
    let source = service["source"].as_str().ok_or("no source")?;
    let source = root().join(source).display().to_string();
    service.insert("source".to_owned(), source.into());
    let directory = TempDir::new()?;
    let path = directory.path().join("spin.toml");
    fs::write(&path, manifest.to_string())?;
    Ok((ServerOptions::default().manifest(path), directory))
}

#[test(sqlite_server)]
fn instances_share_commits() -> TestResult {
    publish_until_shared(&two_at_a_time().start()?)
}

/// By default, where instances take several requests at a time.
#[test(own_server)]
fn each_id_is_accepted_once() -> TestResult {
    publish_and_audit(&Server::start()?, PUBLISHES)
}

#[test(sqlite_server)]
fn instances_that_are_to_write_for_themselves_do() -> TestResult {
    let server = two_at_a_time().variable("one_writer=false").start()?;
    each_commits_for_itself(&server)
}

#[test(sqlite_server)]
fn an_application_without_the_component_works() -> TestResult {
    let (options, _directory) = without_writer()?;
    each_commits_for_itself(&options.flags(&TWO_AT_A_TIME).start()?)
}

fn each_commits_for_itself(server: &Server) -> TestResult {
    const COMMITS: u64 = PUBLISHES / 4;
    publish_and_audit(server, PUBLISHES)?;
    let client = server.client();
    let shared = wait_until("commits are told", || {
        let (all, shared) = commits(&client)?;
        Ok((all >= COMMITS).then_some(shared))
    })?;
    check_eq(shared, 0, "commits of more than two requests")
}

#[test(sqlite_server)]
fn what_was_acknowledged_survives_kills() -> TestResult {
    const KILLS: usize = 8;
    const REQUESTS_UNTIL_KILL_MAX: u64 = 600;
    let state = Arc::new(TempDir::new()?);
    let mut load = CrashLoad::new(&unique_topic("killed"), Some(1), 5);
    let start = || ServerOptions::on(&state).flags(&TWO_AT_A_TIME).start();
    for _ in 0..KILLS {
        load.run_until_killed(start()?, REQUESTS_UNTIL_KILL_MAX)?;
    }
    let server = start()?;
    load.audit(&server)?;
    // Whoever had the lease is dead, and another has it.
    publish_until_shared(&server)
}

/// Writers that end after one line, and after five.
#[test(own_server)]
fn writers_that_end_all_the_time_lose_nothing() -> TestResult {
    // Each of the first is an instance of its own, which costs more than a commit.
    for (reuse, publishes) in [("1", PUBLISHES / 8), ("5", PUBLISHES / 2)] {
        let flags = ["--max-instance-reuse-count", reuse];
        for options in [ServerOptions::default(), two_at_a_time()] {
            publish_and_audit(&options.flags(&flags).start()?, publishes)?;
        }
    }
    Ok(())
}

/// The writer is ended with lines open: each of its requests goes on for longer. What it
/// has committed and not answered is delivered again, by the instance that handed it over,
/// and counts as received twice.
#[test(own_server)]
fn writers_that_are_ended_by_a_timeout_lose_nothing() -> TestResult {
    for options in [ServerOptions::default(), two_at_a_time()] {
        let server = options.flags(&["--request-timeout", "150ms"]).start()?;
        let topic = unique_topic("ended");
        let mut auditor = publish(&server.client(), &topic, PUBLISHES)?;
        auditor.record_unanswered(PUBLISHES);
        // An audit may be ended as well, where it takes that long.
        let server = ServerOptions::on(&server.kill()?).start()?;
        auditor.audit(&server.client(), &topic)?;
    }
    Ok(())
}

/// A stream of events goes on while instances hand over what comes in single requests.
#[test(sqlite_server)]
fn a_stream_of_events_goes_on_beside_it() -> TestResult {
    const EVENTS: u64 = 200;
    let server = two_at_a_time().start()?;
    let (client, topic) = (server.client(), unique_topic("stream"));
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let (mut up, mut down) = publish_stream::open(&client)?;
            for number in 0..EVENTS {
                up.send(&publish_stream::line(&topic, number))?;
                check_eq(down.status()?.as_str(), "accepted", "a new event")?;
                up.send(&publish_stream::line(&topic, number / 2))?;
                check_eq(down.status()?.as_str(), "duplicate", "one of before")?;
            }
            up.end()
        });
        let singles = publish_until_shared(&server);
        join(stream).and(singles)
    })?;
    let counters = client.counters(&topic)?;
    check_eq((counters.received, counters.unique_processed), (2 * EVENTS, EVENTS), "counters")
}

/// Many topics, batches and rejected events: counters are added up where they came from.
#[test(own_server)]
fn batches_and_what_is_rejected_are_counted_once() -> TestResult {
    const REQUESTS: usize = 40;
    let server = two_at_a_time().start()?;
    let client = server.client();
    let topics: Vec<String> = (0..4).map(|_| unique_topic("batches")).collect();
    concurrently(16, |number| {
        for request in 0..REQUESTS {
            let id = |place: usize| format!("{}-{place}", request % (REQUESTS / 2));
            let mut events: Vec<String> =
                (0..8).map(|place| event(&topics[(number + place) % 4], &id(place))).collect();
            events.push(r#"{"topic":7}"#.to_owned());
            let reply = client.publish(format!("[{}]", events.join(",")))?.expect(200)?;
            check_eq(reply.count("rejected")?, 1, "rejected")?;
        }
        Ok(())
    })?;
    let stats = client.get("/stats")?.expect(200)?;
    let requests = 16 * REQUESTS as u64;
    check_eq(stats.count("rejected")?, requests, "rejected")?;
    let mut unique = 0;
    for topic in &topics {
        let counters = stats.counters(topic)?;
        check_eq(counters.received, 2 * requests, "received")?;
        unique += counters.unique_processed;
    }
    // Each place comes with each topic, of so many different requests.
    check_eq(unique, 4 * 8 * REQUESTS as u64 / 2, "unique_processed")
}

/// The component is called by the service alone.
#[test(own_server)]
fn the_writer_is_not_reached_from_outside() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    client.publish(event(&unique_topic("outside"), "1"))?.expect(200)?;
    for path in ["/lines/2", "/sekali-writer/lines/2"] {
        client.send("POST", path, &[], b"")?.expect(404)?;
    }
    for host in ["sekali-writer.spin.internal", "sekali-writer"] {
        let request = format!(
            "POST /lines/2 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-length: 0\r\n\r\n"
        );
        let response = client.raw(request.as_bytes(), End::Wait)?;
        let is_refused = response.is_empty()
            || ["HTTP/1.1 404 ", "HTTP/1.1 421 "].iter().any(|head| response.starts_with(head));
        check(is_refused, || format!("{host}: {response:?}"))?;
    }
    Ok(())
}
