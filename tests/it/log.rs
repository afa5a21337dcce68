//! What the service logs.

use libtest_mimic::Failed;
use serde_json::Value;

use crate::support::{
    End, Server, TestResult, check, check_eq, event, own_server, test, unique_topic, wait_until,
};

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 1_500;

#[test(own_server)]
fn refusals_are_logged_and_accepted_events_are_not() -> TestResult {
    let topic = unique_topic("logs");
    let server = Server::start()?;
    let client = server.client();
    client.publish(event(&topic, "1"))?.expect(200)?;
    client.publish(event(&topic, "1"))?.expect(200)?;
    client.publish("oops")?.expect(422)?;
    client.get("/nowhere")?.expect(404)?;
    let lines = wait_until("both refusals are logged", || {
        let log = server.log();
        let lines: Vec<Value> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok((lines.len() >= 2).then_some(lines))
    })?;
    check_eq(lines.len(), 2, "log lines")?;
    check(lines[0]["code"] == "invalid_body" && lines[0]["level"] == "warn", || {
        format!("{lines:#?}")
    })?;
    check(lines[1]["status"] == 404 && lines[1]["path"] == "/nowhere", || format!("{lines:#?}"))
}

/// The lines of the service.
fn lines(server: &Server) -> Vec<(String, Value)> {
    let log = server.log();
    let parsed =
        log.lines().filter_map(|line| Some((line.to_owned(), serde_json::from_str(line).ok()?)));
    parsed.collect()
}

/// Whether a terminal shows it as it is.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|one| {
        one.is_control()
            || ('\u{200b}'..='\u{200f}').contains(&one)
            || ('\u{2028}'..='\u{202e}').contains(&one)
            || ('\u{2066}'..='\u{2069}').contains(&one)
    })
}

/// Everything that a client can choose, at its longest and with what a terminal
/// acts on.
#[test(own_server)]
fn what_a_client_sends_fills_no_line_and_moves_no_cursor() -> TestResult {
    const HIDDEN: &str = "\u{7f}\u{9b}31m\u{202e}\u{2066}\u{2069}\u{2028}\u{200b}\u{85}";
    let server = Server::start()?;
    let client = server.client();
    let address = client.address();
    let requests = [
        format!("{} /publish HTTP/1.1\r\n", "M".repeat(300_000)),
        format!("GET /{} HTTP/1.1\r\n", "p".repeat(60_000)),
        format!("GET /events?order={} HTTP/1.1\r\n", "q".repeat(60_000)),
        "GET /events?order=%C2%9B%E2%80%AE%1B%7F HTTP/1.1\r\n".to_owned(),
        format!(
            "POST /publish HTTP/1.1\r\ncontent-encoding: {}\r\n",
            HIDDEN.trim_start_matches('\u{7f}')
        ),
        format!("GET /nowhere{} HTTP/1.1\r\n", &HIDDEN[1..]),
    ];
    let mut refused = 0;
    for request in &requests {
        let of = request.chars().take(40).collect::<String>();
        let request =
            format!("{request}host: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let reply = client.raw(request.as_bytes(), End::Wait)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or("no reply")?;
        check(head.starts_with("HTTP/1.1 4"), || format!("{of}: {head}"))?;
        check(body.len() < LINE_BYTES_MAX, || format!("{of}: {} bytes", body.len()))?;
        check(is_plain(body), || format!("{of}: {body:?}"))?;
        // The host answers by itself what is no request to it.
        refused += usize::from(body.contains("urn:sekali:problem"));
    }
    check(refused >= 5, || format!("{refused} requests came to the service"))?;
    let lines = wait_until("all refusals are logged", || {
        let lines = lines(&server);
        Ok((lines.len() >= refused).then_some(lines))
    })?;
    for (line, _) in &lines {
        check(line.len() < LINE_BYTES_MAX, || format!("{} bytes: {line:.300}", line.len()))?;
        check(is_plain(line), || format!("{line:?}"))?;
    }
    let told = lines.iter().any(|(_, line)| {
        line["detail"].as_str().is_some_and(|detail| detail.contains("\u{9b}31m\u{202e}"))
    });
    check(told, || format!("the value is another: {lines:#?}"))
}

/// However many requests are refused, and whatever they differ in: few lines, and
/// none that is not counted.
#[test(own_server)]
fn lines_of_a_kind_are_counted_and_not_written() -> TestResult {
    const REQUESTS: u64 = 600;
    let server = Server::start()?;
    let client = server.client();
    for number in 0..REQUESTS / 2 {
        client.get(&format!("/nowhere/{number}"))?.expect(404)?;
        client.publish(format!("oops {number}"))?.expect(422)?;
    }
    let counted = |lines: &[(String, Value)]| {
        let of = |(_, line): &(String, Value)| line["left_out"].as_u64().unwrap_or(1);
        lines.iter().map(of).sum::<u64>()
    };
    let lines = wait_until("every refusal is written or counted", || -> Result<_, Failed> {
        let lines = lines(&server);
        Ok((counted(&lines) >= REQUESTS).then_some(lines))
    })?;
    check_eq(counted(&lines), REQUESTS, "written and counted")?;
    check(lines.len() < 100, || format!("{} lines", lines.len()))?;
    let summary = lines.iter().find(|(_, line)| line["left_out"].is_u64());
    let (text, summary) = summary.ok_or("no line tells what was left out")?;
    check(text.contains(" more like this in "), || text.clone())?;
    check(summary["code"] == "not_found" || summary["code"] == "invalid_body", || text.clone())
}
