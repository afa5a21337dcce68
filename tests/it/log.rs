//! What the service logs.

use serde_json::Value;

use crate::support::{
    Server, TestResult, check, check_eq, event, own_server, test, unique_topic, wait_until,
};

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
