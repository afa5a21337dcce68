//! The variables of the application.

use crate::support::{
    ServerOptions, TestResult, check, check_eq, event, own_server, test, unique_topic,
};

#[test(own_server)]
fn variables_change_the_limits() -> TestResult {
    let topic = unique_topic("variables");
    let options = ServerOptions::default();
    let server = options.variable("body_bytes_max=1000").variable("batch_events_max=2").start()?;
    let client = server.client();
    let three = [event(&topic, "1"), event(&topic, "2"), event(&topic, "3")].concat();
    let reply = client.publish(&three)?.expect(413)?.json()?;
    check(reply["code"] == "too_many_events", || format!("{reply:#}"))?;
    let long = event(&topic, &"x".repeat(600));
    let reply = client.publish(long)?.expect(413)?.json()?;
    check(reply["code"] == "body_too_large", || format!("{reply:#}"))?;
    check_eq(client.counters(&topic)?.received, 0, "received")
}

#[test(own_server)]
fn an_invalid_variable_is_named() -> TestResult {
    let server = ServerOptions::default().variable("batch_events_max=many").start()?;
    let reply = server.client().publish(event("t", "1"))?.expect(503)?;
    check(reply.text.contains("batch_events_max") && reply.text.contains("many"), || {
        format!("{reply:#?}")
    })?;
    server.client().get("/health")?.expect(503).map(drop)
}
