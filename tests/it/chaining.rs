//! Components of one application that call each other, as the host has it.

use std::fs;

use libtest_mimic::Failed;

use crate::support::{
    Client, Duplex, End, ServerOptions, TestResult, check, check_eq, own_server, test, wait_until,
};

/// The response to a request with the body `a`, which is none of the service's.
fn post(client: &Client, path: &str) -> Result<String, Failed> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 1\r\n\r\na",
        client.address()
    );
    client.raw(request.as_bytes(), End::Wait)
}

fn expect(response: &str, status: u16, body: &str) -> TestResult {
    let is_expected =
        response.starts_with(&format!("HTTP/1.1 {status} ")) && response.ends_with(body);
    check(is_expected, || format!("expected {status} and {body:?}, got {response:?}"))
}

/// A body of one chunk, as it is sent.
const ECHO: &str = "\r\n\r\n1\r\na\r\n0\r\n\r\n";

#[test(own_server)]
fn bodies_go_both_ways_at_the_same_time() -> TestResult {
    let mut server = ServerOptions::default().chained()?.start()?;
    let mut duplex = Duplex::open(&server.client(), "/x/via/back/a/b?c=d")?;
    // It is there although nothing of the body is.
    let head = duplex.head()?;
    check_eq(head[0].as_str(), "HTTP/1.1 200 OK", "status")?;
    for line in ["one", "two", "three"] {
        duplex.send(line)?;
        check_eq(duplex.receive_body_line()?.as_str(), line, "the echo")?;
    }
    // As Spin tells it: the request's own headers first.
    let seen = |name: &str| -> Vec<&str> {
        let prefix = format!("seen-{name}: ");
        head.iter().filter_map(|line| line.trim_end().strip_prefix(&prefix)).collect()
    };
    check_eq(seen("host"), Vec::<&str>::new(), "host")?;
    for (name, expected) in [
        ("spin-path-info", "/a/b"),
        ("spin-full-url", "http://localhost/a/b?c=d"),
        ("spin-matched-route", "/..."),
        ("spin-raw-component-route", "/..."),
        ("spin-client-addr", "0.0.0.0:0"),
    ] {
        check_eq(seen(name).last().copied(), Some(expected), name)?;
    }
    check_eq(seen("spin-client-addr").first().copied(), Some("mine"), "its own header")?;
    // A request under way is finished first.
    server.signal("TERM")?;
    wait_until("it stops", || Ok(server.log().contains("Stopping:").then_some(())))?;
    duplex.send("four")?;
    check_eq(duplex.receive_body_line()?.as_str(), "four", "the echo")?;
    duplex.end()?;
    let status = server.wait()?;
    check(status.success(), || status.to_string())
}

#[test(own_server)]
fn a_request_between_components_does_not_hold_up_the_end() -> TestResult {
    let mut server = ServerOptions::default().chained()?.start()?;
    for _ in 0..3 {
        expect(&post(&server.client(), "/hold/back")?, 200, "")?;
    }
    server.signal("TERM")?;
    let status = server.wait()?;
    check(status.success(), || status.to_string())?;
    let log = server.log();
    check(!log.contains("dropped") && !log.contains("failed"), || log)
}

#[test(own_server)]
fn only_what_is_allowed_is_called() -> TestResult {
    let server = ServerOptions::default().chained()?.start()?;
    let client = server.client();
    expect(&post(&client, "/via/back/x")?, 200, ECHO)?;
    for path in ["/via/alone/x", "/via/front/x", "/alone/via/back/x", "/via/a.back/x"] {
        let response = post(&client, path)?;
        expect(&response, 502, "")?;
        check(response.contains("HttpRequestDenied"), || format!("{path}: {response:?}"))?;
    }
    // It would be allowed and is not there: the caller traps.
    expect(&post(&client, "/via/nobody/x")?, 500, "\r\n\r\n")?;
    expect(&post(&client, "/via/back/x")?, 200, ECHO)
}

#[test(own_server)]
fn each_component_has_routes_environment_and_logs_of_its_own() -> TestResult {
    let options = ServerOptions::default().chained()?.variable("called=alone");
    let server = options.start()?;
    let client = server.client();
    for path in ["/1", "/alone/2", "/via/alone/3"] {
        expect(&post(&client, path)?, 200, ECHO)?;
    }
    for (component, expected) in
        [("front", "front /1\nfront /via/alone/3\n"), ("alone", "alone /alone/2\nalone /3\n")]
    {
        let file = server.state.path().join(format!("logs/{component}_stdout.txt"));
        check_eq(fs::read_to_string(file)?.as_str(), expected, component)?;
    }
    let log = server.log();
    let routes = [("front", ""), ("alone", "/alone")]
        .map(|(component, path)| format!("  {component}: {}{path} (wildcard)\n", server.url));
    for route in routes {
        check(log.contains(&route), || format!("no {route} in {log}"))?;
    }
    check(!log.contains("  back: "), || log.clone())
}

/// Not even by the host that components have for it.
#[test(own_server)]
fn a_private_route_is_none_from_outside() -> TestResult {
    let (from, to) = ("route = \"/...\"", "route = \"/front/...\"");
    let server = ServerOptions::default().chained_with(from, to)?.start()?;
    let client = server.client();
    expect(&post(&client, "/front/via/back/x")?, 200, ECHO)?;
    for path in ["/", "/back", "/back/x", "/via/back/x"] {
        expect(&post(&client, path)?, 404, "\r\n\r\n")?;
    }
    // Such a host is taken away, and the connection of a request without one is
    // closed.
    let request = "GET /front/x HTTP/1.1\r\nhost: back.spin.internal\r\n\r\n";
    check_eq(client.raw(request.as_bytes(), End::Wait)?, String::new(), "response")
}

#[test(own_server)]
fn the_network_is_refused_at_the_start() -> TestResult {
    let options = ServerOptions::default()
        .chained_with("http://nobody.spin.internal", "https://example.com")?;
    let (mut command, _state) = options.command()?;
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_clear = error.contains("component \"front\"")
        && error.contains("https://example.com")
        && error.contains("only http://NAME.spin.internal");
    check(!output.status.success() && is_clear, || error)
}
