//! A store whose write lock another process holds.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use rusqlite::Connection;

use crate::support::{
    Auditor, Client, Reply, Server, ServerOptions, TestResult, check, check_eq, concurrently,
    event, join, sqlite_server, stored_once, test, unique_topic, wait_until, while_polling,
};

/// Most events that wait in one instance.
const WAITING_EVENTS_MAX: usize = 40_000;

/// Most bytes of payload that wait in one instance.
const WAITING_BYTES_MAX: usize = 24 * 1024 * 1024;

/// A publish waits for longer than a test does, so whatever is refused is
/// refused for another reason; and an instance takes more requests at a time
/// than may wait in it.
fn patient() -> Result<Server, Failed> {
    let options = ServerOptions::default().variable("commit_wait_ms_max=600000");
    let flags =
        ["--max-instance-concurrent-reuse-count", "64", "--max-instance-reuse-count", "100000"];
    options.flags(&flags).start()
}

/// The write lock of a server's store, until it is dropped.
struct Lock(Connection);

impl Lock {
    fn take(server: &Server) -> Result<Self, Failed> {
        let database = server.database()?;
        database.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Lock(database))
    }

    fn release(self) -> TestResult {
        Ok(self.0.execute_batch("ROLLBACK")?)
    }
}

#[test(sqlite_server)]
fn publish_is_503_until_the_lock_is_released() -> TestResult {
    const CLIENTS: usize = 40;
    let server = ServerOptions::default().variable("commit_wait_ms_max=300").start()?;
    let topic = unique_topic("locked");
    let first = ["first".to_owned()];
    let mut auditor = Auditor::default();
    auditor.publish(&server.client(), &topic, &first)?;
    let clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();

    let reader = server.client();
    let read = || {
        check_eq(reader.counters(&topic)?.received, 1, "received while it is locked")?;
        let events = reader.get(&format!("/events?topic={topic}"))?.expect(200)?;
        check_eq(events.count("count")?, 1, "stored while it is locked")
    };
    let lock = Lock::take(&server)?;
    while_polling(2, read, || {
        concurrently(CLIENTS, |number| {
            check_refused(&clients[number].publish_ids(&topic, &[number.to_string()])?)
        })
    })?;
    read()?;
    lock.release()?;

    let auditors = concurrently(CLIENTS, |number| {
        let mut auditor = Auditor::default();
        auditor.publish(&clients[number], &topic, &[number.to_string()])?;
        Ok(auditor)
    })?;
    auditor.merge(Auditor::merged(auditors));
    auditor.audit(&server.client(), &topic)
}

#[test(sqlite_server)]
fn limits_the_events_that_wait() -> TestResult {
    overfill(&patient()?, 5_000, 0)
}

#[test(sqlite_server)]
fn limits_the_bytes_that_wait() -> TestResult {
    overfill(&patient()?, 4, 1_000_000)
}

/// An instance that is crowded out takes no more requests, and the host may
/// have chosen it for the next: it has to end, which a stream that stays open
/// would keep it from. One client, so that no later request of another wakes the
/// one that waits.
#[test(sqlite_server)]
fn open_streams_hold_up_no_publish() -> TestResult {
    const REQUESTS: usize = 200;
    // A statement waits for 3 ms: now and then it is to fail, mostly to wait.
    const HELD_MS: [u64; 4] = [10, 2, 2, 2];
    const FREE: Duration = Duration::from_millis(1);
    let topic = unique_topic("streams");
    let server = Server::start()?;
    let client = server.client();
    client.publish(event(&topic, "first"))?.expect(200)?;
    let done = AtomicBool::new(false);
    let contend = || {
        for held in HELD_MS.iter().cycle().take_while(|_| !done.load(Ordering::Acquire)) {
            let lock = Lock::take(&server)?;
            std::thread::sleep(Duration::from_millis(*held));
            lock.release()?;
            std::thread::sleep(FREE);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let contender = scope.spawn(contend);
        // Every instance that takes a publish has streams as well.
        let mut streams = Vec::new();
        let published = (0..REQUESTS).try_for_each(|id| {
            let mut stream = client.connect()?;
            let request = "GET /events/stream?after=end HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes())?;
            // The beginning of the head: it is open.
            stream.read_exact(&mut [0; 16])?;
            streams.push(stream);
            client.publish(event(&topic, &id.to_string()))?.expect(200).map(drop)
        });
        done.store(true, Ordering::Release);
        join(contender).and(published)
    })?;
    check_eq(client.counters(&topic)?.unique_processed, REQUESTS as u64 + 1, "events")
}

fn check_refused(reply: &Reply) -> TestResult {
    let seconds = reply.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    let is_problem = reply.header("content-type") == Some("application/problem+json");
    let is_busy = reply.status == 503 && reply.json()?["code"] == "store_busy";
    check(is_busy && is_problem && seconds.is_some(), || format!("no refusal: {reply:#?}"))
}

/// Requests come while the store is locked until one is refused for want of
/// room. Then the store is free again.
fn overfill(server: &Server, events: usize, payload_bytes: usize) -> TestResult {
    /// They would fill several instances.
    const REQUESTS_MAX: usize = 200;
    /// What the host takes without any load, in MiB.
    const HOST_MIB_MAX: usize = 200;
    /// How many times what waits is in memory: as a body, as events, in a
    /// statement, and what each of them grew through.
    const COPIES_MAX: usize = 10;

    let topic = unique_topic("overfill");
    let mut auditor = Auditor::default();
    auditor.publish(&server.client(), &topic, &["first".to_owned()])?;
    let padding = format!(r#""payload":{{"padding":"{}","#, "x".repeat(payload_bytes));
    let body = |ids: &[String]| -> String {
        let padded = |id: &String| event(&topic, id).replace(r#""payload":{"#, &padding);
        ids.iter().map(padded).collect()
    };
    let publish = |ids: &[String]| {
        server.client().send("POST", "/publish?results=all", &[], body(ids).as_bytes())
    };
    let request = |number: usize| -> Vec<String> {
        (0..events).map(|place| format!("{number}-{place}")).collect()
    };

    let lock = Lock::take(server)?;
    let is_full = AtomicBool::new(false);
    let ask = |number: usize| -> Result<(Vec<String>, Reply), Failed> {
        let ids = request(number);
        let reply = publish(&ids)?;
        is_full.fetch_or(reply.status != 200, Ordering::Release);
        Ok((ids, reply))
    };
    let replies: Vec<(Vec<String>, Reply)> = std::thread::scope(|scope| {
        let mut requests = Vec::new();
        let full = wait_until("a request is refused", || {
            if requests.len() < REQUESTS_MAX {
                let (ask, number) = (&ask, requests.len());
                requests.push(scope.spawn(move || ask(number)));
            }
            // It is answered when its turn comes, so requests are sent no
            // faster than they are taken in.
            server.client().get("/healthz")?.expect(200)?;
            Ok(is_full.load(Ordering::Acquire).then_some(()))
        });
        lock.release()?;
        full?;
        requests.into_iter().map(join).collect::<Result<_, Failed>>()
    })?;

    let (waited, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|(_, reply)| reply.status == 200);
    check(!refused.is_empty(), || "nothing was refused".into())?;
    let room =
        (WAITING_EVENTS_MAX / events).min(WAITING_BYTES_MAX / (events * payload_bytes.max(1)));
    check(waited.len() >= room, || {
        format!("{} requests waited, {} were refused", waited.len(), refused.len())
    })?;
    for (ids, reply) in &waited {
        check_eq(reply.count("accepted")?, events as u64, "accepted of a request that waited")?;
        auditor.record(ids, reply)?;
    }
    for (ids, reply) in &refused {
        check_refused(reply)?;
        let reply = publish(ids)?.expect(200)?;
        check_eq(reply.count("accepted")?, events as u64, "accepted of a request sent again")?;
        auditor.record(ids, &reply)?;
    }
    auditor.audit(&server.client(), &topic)?;
    let Some(peak_mib) = peak_resident_mib(server) else { return Ok(()) };
    let waited_mib = waited.len() * body(&request(0)).len() / (1 << 20);
    check(peak_mib < HOST_MIB_MAX + COPIES_MAX * waited_mib, || {
        format!("{peak_mib} MiB resident at the peak, when {waited_mib} MiB waited")
    })
}

/// How a client leaves that does not wait for its reply.
struct Leave {
    /// By a reset instead of an orderly close.
    reset: bool,
    /// Only when a request that came later has been answered, so that this one
    /// is under way.
    later: bool,
}

/// Sends a whole request and leaves.
fn leave(client: &Client, topic: &str, id: &str, how: &Leave) -> TestResult {
    let (host, body) = (client.address(), event(topic, id));
    let mut stream = client.connect()?;
    if how.reset {
        // To close a socket in which something is unread resets the connection.
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n")?;
        stream.peek(&mut [0])?;
    }
    let length = body.len();
    let request =
        format!("POST /publish HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    if how.later {
        client.get("/healthz")?.expect(200)?;
    }
    Ok(())
}

/// Of 96 clients 64 leave without their replies while nothing can be committed.
/// What they sent is stored or not, and the others do not notice.
#[test(sqlite_server)]
fn disconnected_clients_leave_nothing_hanging() -> TestResult {
    const CLIENTS: usize = 96;
    const REQUESTS: usize = 5;
    let leaver = |number: usize| (!number.is_multiple_of(3)).then(|| format!("gone-{number}"));
    let topic = unique_topic("gone");
    let mut server = Server::start()?;
    let mut auditor = Auditor::default();
    auditor.publish(&server.client(), &topic, &["first".to_owned()])?;
    let lock = Lock::take(&server)?;
    let left = AtomicUsize::new(0);
    let work = |number: usize| {
        let client = server.client();
        let mut auditor = Auditor::default();
        if let Some(id) = leaver(number) {
            let how = Leave { reset: number % 3 == 1, later: number.is_multiple_of(2) };
            let sent = leave(&client, &topic, &id, &how);
            left.fetch_add(1, Ordering::Release);
            return sent.map(|()| auditor);
        }
        for request in 0..REQUESTS {
            auditor.publish(&client, &topic, &[format!("{number}-{request}")])?;
        }
        Ok(auditor)
    };
    let auditors = std::thread::scope(|scope| {
        let clients = scope.spawn(|| concurrently(CLIENTS, work));
        let leavers = (0..CLIENTS).filter_map(leaver).count();
        let all_left = wait_until("those that leave have left", || {
            Ok((left.load(Ordering::Acquire) == leavers).then_some(()))
        });
        lock.release()?;
        all_left?;
        join(clients)
    });
    auditor.merge(Auditor::merged(auditors?));

    // Once the host has ended, nothing of those that left is still on its way.
    server.signal("TERM")?;
    let status = server.wait()?;
    let dropped = server.log().contains("requests under way were dropped");
    check(status.success() && !dropped, || status.to_string())?;
    let server = ServerOptions::on(&server.state).start()?;
    let client = server.client();
    let stored = stored_once(&client, &topic)?;
    // So far each id was delivered once, if at all.
    check_eq(client.counters(&topic)?.received, stored.len() as u64, "received")?;
    for id in (0..CLIENTS).filter_map(leaver) {
        if stored.contains(&id) {
            auditor.record_accepted(id.clone());
        }
        auditor.publish(&client, &topic, &[id])?;
    }
    auditor.audit(&client, &topic)
}

/// The most memory that the host ever had resident; `None` where there is no `/proc`.
fn peak_resident_mib(server: &Server) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kib| kib / 1024)
}
