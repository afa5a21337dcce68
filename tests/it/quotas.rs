//! The quotas of a serverless host, as Akamai Functions has them: 128 MiB of memory for an
//! instance, and bodies of 10 MiB.

use libtest_mimic::Failed;

use crate::support::{
    Server, ServerOptions, TestResult, check, check_eq, concurrently, own_server, stored_once,
    test, unique_topic, wait_until,
};

/// Bytes of memory that an instance may have.
const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Large bodies at a time: as many as an instance takes requests.
const BODIES: usize = 16;

fn service_with(memory_bytes: usize) -> Result<Server, Failed> {
    let memory = memory_bytes.to_string();
    ServerOptions::default().flags(&["--max-instance-memory", &memory]).start()
}

fn service() -> Result<Server, Failed> {
    service_with(MEMORY_BYTES_MAX)
}

fn event(topic: &str, id: &str, payload: &str) -> String {
    format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s","payload":{payload}}}"#)
}

/// `piece` over and over, as much as is worth a body.
fn filled(piece: &str) -> String {
    piece.repeat((BODY_BYTES_MAX - 200) / piece.len())
}

#[test(own_server)]
fn the_largest_bodies_fit() -> TestResult {
    let topic = unique_topic("quota");
    let small: String = (0..).map(|n| event(&topic, &format!("small {n}"), "1")).take(9_000).fold(
        String::new(),
        |mut lines, line| {
            lines.push_str(&line);
            lines.push('\n');
            lines
        },
    );
    for (of, body) in [
        ("a string", event(&topic, "a", &format!("\"{}\"", filled("x")))),
        ("quotes", event(&topic, "b", &format!("\"{}\"", filled("\\\"")))),
        ("empty objects", event(&topic, "c", &format!("[{}{{}}]", filled("{},")))),
        ("many lines", small),
    ] {
        check(body.len() <= BODY_BYTES_MAX, || format!("{of}: {} bytes", body.len()))?;
        // An instance of its own: memory that one has had it keeps.
        let reply = service()?.client().publish(&body)?;
        check_eq(reply.status, 200, of)?;
    }
    Ok(())
}

/// The instance ends, and the next one serves.
#[test(own_server)]
fn what_does_not_fit_is_an_error() -> TestResult {
    let service = service_with(MEMORY_BYTES_MAX / 8)?;
    let (topic, client) = (unique_topic("quota"), service.client());
    let large = event(&topic, "large", &format!("\"{}\"", filled("x")));
    // There is no reply if it ends while the body is still being sent.
    let status = client.publish_status(large.as_bytes());
    check(matches!(status, Ok(500) | Err(_)), || format!("{status:?}"))?;
    // The connection by which it came may be about to close.
    let client = service.client();
    client.publish_one(&topic, "1")?;
    check_eq(stored_once(&client, &topic)?.len(), 1, "stored")
}

/// They do not fit all at once. An instance that had too many ends, and its requests are
/// for the client to send again; nothing is lost, and nothing stored twice.
#[test(own_server)]
fn more_than_fits_at_a_time_is_stored_once() -> TestResult {
    let service = service()?;
    let topic = unique_topic("quota");
    let client = service.client();
    concurrently(BODIES, |number| {
        let payload = format!(r#"{{"of":"{number}","filling":"{}"}}"#, filled("x"));
        let body = event(&topic, &number.to_string(), &payload);
        wait_until("it is taken", || {
            let status = client.publish_status(body.as_bytes());
            check(matches!(status, Ok(200 | 500 | 503) | Err(_)), || format!("{status:?}"))?;
            Ok(matches!(status, Ok(200)).then_some(()))
        })
    })?;
    check_eq(stored_once(&client, &topic)?.len(), BODIES, "stored")
}
