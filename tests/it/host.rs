//! The host's own flags and errors, and a graceful stop.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::support::{
    ServerOptions, TestResult, check, check_eq, event, own_server, shown, sqlite_server, test,
    unique_topic, wait_until,
};

/// The error, in one line, of a host that must not start.
fn start_error(options: &ServerOptions) -> Result<String, Failed> {
    let (mut command, _state) = options.command()?;
    let output = command.output()?;
    check_eq(output.status.code(), Some(1), &shown(&output))?;
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let errors = error.lines().filter(|line| line.starts_with("error: ")).count();
    check_eq(errors, 1, &format!("error lines in {error:?}"))?;
    Ok(error)
}

#[test(own_server)]
fn a_port_in_use_is_one_clear_line() -> TestResult {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let error = start_error(&ServerOptions::default().listen(&address))?;
    check(error.contains(&address) && error.contains("--listen"), || error)
}

#[test(own_server)]
fn a_missing_component_is_one_clear_line() -> TestResult {
    let options = ServerOptions::default();
    let options = options.edit_manifest("release/sekali.wasm", "release/nowhere.wasm")?;
    let error = start_error(&options)?;
    check(error.contains("nowhere.wasm") && error.contains("cargo build"), || error)
}

#[test(own_server)]
fn a_bad_manifest_is_one_clear_line() -> TestResult {
    for (from, to, named) in [
        ("spin_manifest_version = 2", "spin_manifest_version = 9", "spin_manifest_version"),
        ("[application]", "[application", "spin.toml"),
        ("{{ log_level }}", "{{ nothing }}", "nothing"),
        ("component = \"sekali\"", "component = \"other\"", "other"),
    ] {
        let error = start_error(&ServerOptions::default().edit_manifest(from, to)?)?;
        check(error.contains(named), || format!("{named} is not named: {error}"))?;
    }
    let nowhere = TempDir::new()?.path().join("none.toml");
    let error = start_error(&ServerOptions::default().manifest(nowhere))?;
    check(error.contains("none.toml"), || error)
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.append(&mut self::files(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

#[test(own_server)]
fn compiled_code_is_kept_and_made_again_when_it_is_damaged() -> TestResult {
    let directory = TempDir::new()?;
    let (file, code) = (directory.path().join("cache.toml"), directory.path().join("code"));
    fs::write(&file, format!("[cache]\ndirectory = {code:?}\n"))?;
    let flags = ["--cache", &file.to_string_lossy()];
    let topic = unique_topic("compiled");
    let publish = |event_id: &str| -> TestResult {
        let server = ServerOptions::default().flags(&flags).start()?;
        let reply = server.client().publish(event(&topic, event_id))?;
        check_eq(reply.status, 200, "publish")
    };
    publish("compiled")?;
    // What is beside them is about their use.
    let kept = || -> Result<Vec<PathBuf>, Failed> {
        Ok(files(&code)?.into_iter().filter(|file| file.extension().is_none()).collect())
    };
    let first = kept()?;
    check(!first.is_empty(), || "nothing is kept".to_owned())?;
    publish("taken")?;
    check_eq(kept()?, first.clone(), "files")?;
    for file in &first {
        fs::write(file, "rubbish")?;
    }
    publish("made again")?;
    let error = start_error(&ServerOptions::default().flags(&["--cache", "/nowhere.toml"]))?;
    check(error.contains("/nowhere.toml"), || error)
}

#[test(own_server)]
fn a_host_without_a_place_for_compiled_code_serves() -> TestResult {
    let script = r#"XDG_CACHE_HOME=/dev/null exec "$@""#;
    let server = ServerOptions::default().wrapper(script.to_owned()).start()?;
    let reply = server.client().publish(event(&unique_topic("compiled"), "a"))?;
    check_eq(reply.status, 200, "publish")?;
    let said = "Compiling at each start: ";
    wait_until("it is said", || Ok(server.log().contains(said).then_some(())))?;
    let quiet = ServerOptions::default().flags(&["--disable-cache"]).wrapper(script.to_owned());
    let server = quiet.start()?;
    check_eq(server.log().contains("Compiling"), false, "it is said where none is wanted")
}

#[test(own_server)]
fn a_state_directory_that_cannot_be_made_is_a_start_error() -> TestResult {
    let state = Arc::new(TempDir::new()?);
    let file = state.path().join("file");
    fs::write(&file, "in the way")?;
    let options = ServerOptions::on(&state).state_path(file.join("below"));
    let (mut command, _state) = options.command()?;
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    check(!output.status.success(), || format!("it started: {error}"))?;
    check(error.contains("below"), || format!("the directory is not named: {error}"))
}

/// Pages overwritten with rubbish; and a file that is no database.
#[test(sqlite_server)]
fn a_damaged_database_is_a_start_error() -> TestResult {
    let topic = unique_topic("damaged");
    let state = Arc::new(TempDir::new()?);
    let mut server = ServerOptions::on(&state).start()?;
    let ids: Vec<String> = (0..500).map(|id| id.to_string()).collect();
    server.client().publish_ids(&topic, &ids)?.expect(200)?;
    server.signal("TERM")?;
    server.wait()?;

    let file = state.path().join("sqlite_db.db");
    let whole = fs::read(&file)?;
    let check_refused = |options: &ServerOptions| {
        let error = start_error(options)?;
        let is_clear = error.contains("sqlite_db.db")
            && error.contains("is damaged")
            && error.contains("--quick-check never");
        check(is_clear, || error)
    };
    let options = ServerOptions::on(&state);
    let middle = whole.len() / 2 / 4096 * 4096;
    let mut damaged = whole.clone();
    damaged[middle..middle + 4096].fill(0xff);
    fs::write(&file, &damaged)?;
    check_refused(&options)?;
    check_refused(&options.clone().flags(&["--quick-check", "always"]))?;
    drop(options.clone().flags(&["--quick-check", "never"]).start()?);
    fs::write(&file, "not a database, but long enough to be taken for one".repeat(100))?;
    check_refused(&options)?;
    fs::write(&file, &whole)?;
    let server = options.start()?;
    check_eq(server.client().all_events(&topic)?.len(), ids.len(), "stored")
}

/// A request whose body is still on its way when SIGTERM arrives.
#[test(own_server)]
fn requests_under_way_finish_on_sigterm() -> TestResult {
    let topic = unique_topic("graceful");
    let state = Arc::new(TempDir::new()?);
    let mut server = ServerOptions::on(&state).start()?;
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
    let mut subscriber = client.connect()?;
    write!(
        subscriber,
        "GET /events/stream?after=end HTTP/1.1\r\nhost: {}\r\n\r\n",
        client.address()
    )?;
    // The reply to a later request shows that these are under way.
    let mut idle = client.connect()?;
    write!(idle, "GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", client.address())?;
    let mut byte = [0];
    idle.read_exact(&mut byte)?;
    subscriber.read_exact(&mut byte)?;
    server.signal("TERM")?;
    wait_until("no new connection is taken", || {
        Ok(TcpStream::connect(client.address()).is_err().then_some(()))
    })?;
    let mut received = String::new();
    subscriber.read_to_string(&mut received)?;
    check(received.ends_with("\r\n0\r\n\r\n"), || format!("it was cut off: {received:?}"))?;
    stream.write_all(rest.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    check(reply.starts_with("HTTP/1.1 200") && reply.contains(r#""accepted":1"#), || reply)?;
    let status = server.wait()?;
    check(status.success(), || status.to_string())?;
    let server = ServerOptions::on(&state).start()?;
    check_eq(server.client().all_events(&topic)?.len(), 1, "stored")
}
