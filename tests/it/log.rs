//! What the service logs.

use crate::support::{
    Outcome, Start, check, check_eq, event, own_server, test, unique_topic, until,
};

#[test(own_server)]
fn refusals_are_logged_and_accepted_events_are_not() -> Outcome {
    let topic = unique_topic("logs");
    let server = Start::default().start()?;
    let client = server.client();
    client.publish(event(&topic, "1"))?.expect(200)?;
    client.publish(event(&topic, "1"))?.expect(200)?;
    client.publish("oops")?.expect(422)?;
    client.get("/nowhere")?.expect(404)?;
    let lines = until("both refusals are logged", || {
        let said = server.said();
        let lines: Vec<serde_json::Value> =
            said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok((lines.len() >= 2).then_some(lines))
    })?;
    check_eq(lines.len(), 2, "log lines")?;
    check(lines[0]["code"] == "invalid_body" && lines[0]["level"] == "warn", || {
        format!("{lines:#?}")
    })?;
    check(lines[1]["status"] == 404 && lines[1]["path"] == "/nowhere", || format!("{lines:#?}"))
}
