//! The host's own flags and errors, and a graceful stop.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{
    Outcome, Start, check, check_eq, event, own_server, root, shown, test, unique_topic, until,
};

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

#[test(own_server)]
fn a_state_directory_that_cannot_be_made_is_a_start_error() -> Outcome {
    let state = Arc::new(TempDir::new()?);
    let file = state.path().join("file");
    fs::write(&file, "in the way")?;
    let start = Start { state_path: Some(file.join("below")), ..Start::on(&state) };
    let (mut command, _state) = start.command()?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(!output.status.success(), || format!("it started: {said}"))?;
    check(said.contains("below"), || format!("the directory is not named: {said}"))
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
