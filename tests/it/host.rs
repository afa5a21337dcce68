use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use tempfile::TempDir;

use crate::harness::{Outcome, Start, check, check_eq, event, root, shown, unique_topic, until};
use crate::registry::{own_server, test};

/// Starts a host that must not start, and returns what it says.
fn refused(start: &Start) -> Result<String, libtest_mimic::Failed> {
    let (mut command, _state) = start.command()?;
    let output = command.output()?;
    check_eq(output.status.code(), Some(1), &shown(&output))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    check_eq(errors, 1, &format!("error lines in {said:?}"))?;
    Ok(said)
}

#[test(own_server)]
fn a_port_in_use_is_one_clear_line() -> Outcome {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let said = refused(&Start { listen: Some(address.clone()), ..Start::default() })?;
    check(said.contains(&address) && said.contains("--listen"), || said)
}

/// The checkout's manifest with `from` replaced by `to`.
fn manifest(state: &TempDir, from: &str, to: &str) -> Result<Start, libtest_mimic::Failed> {
    let text = fs::read_to_string(root().join("spin.toml"))?;
    check(text.contains(from), || format!("no {from:?} in spin.toml"))?;
    let path = state.path().join("spin.toml");
    fs::write(&path, text.replace(from, to))?;
    Ok(Start { manifest: Some(path), ..Start::default() })
}

#[test(own_server)]
fn a_missing_component_is_one_clear_line() -> Outcome {
    let state = TempDir::new()?;
    let start = manifest(&state, "release/sekali.wasm", "release/nowhere.wasm")?;
    let said = refused(&start)?;
    check(said.contains("nowhere.wasm") && said.contains("cargo build"), || said)
}

#[test(own_server)]
fn a_bad_manifest_is_one_clear_line() -> Outcome {
    let state = TempDir::new()?;
    for (from, to, named) in [
        ("spin_manifest_version = 2", "spin_manifest_version = 9", "spin_manifest_version"),
        ("[application]", "[application", "spin.toml"),
        ("{{ log_level }}", "{{ nothing }}", "nothing"),
        ("component = \"sekali\"", "component = \"other\"", "other"),
    ] {
        let said = refused(&manifest(&state, from, to)?)?;
        check(said.contains(named), || format!("{named} is not named: {said}"))?;
    }
    let start = Start { manifest: Some(state.path().join("none.toml")), ..Start::default() };
    let said = refused(&start)?;
    check(said.contains("none.toml"), || said)
}

/// A request whose body is still on its way when SIGTERM arrives.
#[test(own_server)]
fn requests_under_way_finish_on_sigterm() -> Outcome {
    let topic = unique_topic("graceful");
    let state = Arc::new(TempDir::new()?);
    let mut server = Start::on(&state).start()?;
    let client = server.client();
    let body = event(&topic, "under way");
    let (first, rest) = body.split_at(10);
    let mut stream = client.connect()?;
    write!(
        stream,
        "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{first}",
        client.address(),
        body.len()
    )?;
    // A stream of events never finishes by itself.
    let mut follower = client.connect()?;
    write!(
        follower,
        "GET /events/stream?after=end HTTP/1.1\r\nhost: {}\r\n\r\n",
        client.address()
    )?;
    // The reply to a later request shows that this one was taken on.
    let mut idle = client.connect()?;
    write!(idle, "GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", client.address())?;
    let mut byte = [0];
    idle.read_exact(&mut byte)?;
    follower.read_exact(&mut byte)?;
    server.signal("TERM")?;
    until("no new connection is taken", || {
        Ok(std::net::TcpStream::connect(client.address()).is_err().then_some(()))
    })?;
    let mut followed = String::new();
    follower.read_to_string(&mut followed)?;
    check(followed.ends_with("\r\n0\r\n\r\n"), || format!("it was cut off: {followed:?}"))?;
    stream.write_all(rest.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    check(reply.starts_with("HTTP/1.1 200") && reply.contains(r#""accepted":1"#), || reply)?;
    let status = server.wait()?;
    check(status.success(), || format!("{status}: {}", server.said()))?;
    let server = Start::on(&state).start()?;
    check_eq(server.client().all_events(&topic)?.len(), 1, "stored")
}

#[test(own_server)]
fn variables_change_the_limits() -> Outcome {
    let topic = unique_topic("variables");
    let start = Start::default().flags(&[
        "--variable",
        "body_bytes_max=1000",
        "--variable",
        "batch_events_max=2",
    ]);
    let client = start.start()?;
    let client = client.client();
    let three = [event(&topic, "1"), event(&topic, "2"), event(&topic, "3")].concat();
    let reply = client.publish(&three)?.expect(413)?.json()?;
    check(reply["code"] == "too_many_events", || format!("{reply:#}"))?;
    let long = event(&topic, &"x".repeat(600));
    let reply = client.publish(long)?.expect(413)?.json()?;
    check(reply["code"] == "body_too_large", || format!("{reply:#}"))?;
    check_eq(client.counters(&topic)?.received, 0, "received")
}

#[test(own_server)]
fn an_invalid_variable_is_named() -> Outcome {
    let server = Start::default().flags(&["--variable", "batch_events_max=many"]).start()?;
    let reply = server.client().publish(event("t", "1"))?.expect(503)?;
    check(reply.text.contains("batch_events_max") && reply.text.contains("many"), || {
        format!("{reply:#?}")
    })?;
    server.client().get("/health")?.expect(503).map(drop)
}

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

#[test(own_server)]
fn slow_bodies_hold_up_no_other_client() -> Outcome {
    let topic = unique_topic("slow");
    let server = Start::default().start()?;
    let client = server.client();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = client.connect()?;
        write!(
            stream,
            "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\n{{",
            client.address()
        )?;
        slow.push(stream);
    }
    client.publish(event(&topic, "1"))?.expect(200)?;
    check_eq(client.counters(&topic)?.received, 1, "received")
}
