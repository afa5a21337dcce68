//! The publisher against the real service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Client, Edit, Server, ServerOptions, Target, TestResult, any_server, check, check_eq,
    free_address, own_server, publisher, root, shell_line, shown, test, unique_topic, wait_until,
};

/// Real logs, beside the checkout where they are present.
const LOGHUB: &str = "../shared/data/loghub";

/// Runs a publisher to its end; its stdout as JSON.
fn run(mut command: Command) -> Result<Value, Failed> {
    let output = command.output()?;
    check(output.status.success(), || shown(&output))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", shown(&output)).into())
}

fn ship(target: &Target, topic: &str, file: &Path) -> Result<Value, Failed> {
    let file = file.display().to_string();
    let args = ["ship", "--json", "--topic", topic, "--source", "it", &file];
    run(publisher(&target.url, &args))
}

/// A total of the summary.
fn total(summary: &Value, field: &str) -> Result<u64, Failed> {
    summary["total"][field]
        .as_u64()
        .ok_or_else(|| format!("no total {field} in {summary:#}").into())
}

fn stored_lines(client: &Client, topic: &str) -> Result<Vec<String>, Failed> {
    let events = client.all_events(topic)?;
    Ok(events
        .iter()
        .map(|event| event["payload"]["message"].as_str().unwrap_or_default().to_owned())
        .collect())
}

fn lines_of(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

fn logs() -> Result<Vec<PathBuf>, Failed> {
    let directory = root().join(LOGHUB);
    if !directory.is_dir() {
        println!("no {LOGHUB} beside the checkout, generated lines stand in");
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Lines as logs have them: some of them the same.
fn made_up(lines: usize) -> String {
    (0..lines)
        .map(|line| format!("Oct 23 10:00:{:02} host app: message {}\n", line % 60, line % 7))
        .collect()
}

#[test(any_server)]
fn ships_real_logs_once(target: &Target) -> TestResult {
    let directory = TempDir::new()?;
    let mut files = logs()?;
    if files.is_empty() {
        let file = directory.path().join("made-up.log");
        fs::write(&file, made_up(2000))?;
        files.push(file);
    }
    for file in files {
        let topic = unique_topic("loghub");
        let lines = lines_of(&fs::read(&file)?);
        let summary = ship(target, &topic, &file)?;
        check_eq(total(&summary, "lines")?, lines.len() as u64, "lines")?;
        check_eq(total(&summary, "accepted")?, lines.len() as u64, "accepted")?;
        check(stored_lines(&target.client(), &topic)? == lines, || {
            format!("{} came back other than it was", file.display())
        })?;
        let again = ship(target, &topic, &file)?;
        check_eq(total(&again, "accepted")?, 0, "accepted the second time")?;
        check_eq(total(&again, "duplicates")?, lines.len() as u64, "duplicates")?;
    }
    Ok(())
}

#[test(any_server)]
fn ships_a_renamed_and_grown_file(target: &Target) -> TestResult {
    let directory = TempDir::new()?;
    let topic = unique_topic("grown");
    let file = directory.path().join("app.log");
    let mut text = made_up(2000);
    fs::write(&file, &text)?;
    ship(target, &topic, &file)?;
    let copy = directory.path().join("app.log.1");
    text.push_str(&made_up(10));
    fs::write(&copy, &text)?;
    let summary = ship(target, &topic, &copy)?;
    check_eq(total(&summary, "accepted")?, 10, "accepted")?;
    check(stored_lines(&target.client(), &topic)? == lines_of(text.as_bytes()), || {
        "the file came back other than it was".into()
    })
}

#[test(any_server)]
fn ships_standard_input(target: &Target) -> TestResult {
    use std::io::Write;
    use std::process::Stdio;
    let topic = unique_topic("stdin");
    let args = ["ship", "--json", "--topic", &topic, "--source", "it", "-"];
    let mut child = publisher(&target.url, &args).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    stdin.write_all(b"one\r\ntwo\n\none\nlast \xff")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    check(output.status.success(), || shown(&output))?;
    let stored = stored_lines(&target.client(), &topic)?;
    check_eq(
        stored,
        ["one", "two", "", "one", "last \u{fffd}"].map(str::to_owned).to_vec(),
        "lines",
    )
}

#[test(any_server)]
fn load_balances(target: &Target) -> TestResult {
    let report = run(publisher(&target.url, &["load", "--json"]))?;
    check_eq(report["sent"].as_u64(), Some(5000), "sent")?;
    check_eq(report["accepted"].as_u64(), Some(4000), "accepted")?;
    check_eq(report["duplicates"].as_u64(), Some(1000), "duplicates")
}

#[test(any_server)]
fn load_over_streams_balances(target: &Target) -> TestResult {
    for (streams, batch) in [("1", "1"), ("3", "7")] {
        let workload = ["--duplicates", "30%", "--topics", "3", "--batch", batch];
        let args = ["load", "--json", "--events", "3000", "--concurrency", "200", "--audit"];
        let ledger = TempDir::new()?;
        let ledger = ledger.path().join("run").display().to_string();
        let places = ["--streams", streams, "--ledger", &ledger];
        let report = run(publisher(&target.url, &[&args[..], &workload, &places].concat()))?;
        check_eq(report["received"].as_u64(), Some(3000), "received")?;
        check(report["duplicates"].as_u64() > Some(500), || format!("{report:#}"))?;
    }
    Ok(())
}

#[test(any_server)]
fn load_in_batches_over_topics_balances(target: &Target) -> TestResult {
    let args = [
        "load",
        "--json",
        "--events",
        "3000",
        "--duplicates",
        "0.5",
        "--batch",
        "70",
        "--topics",
        "5",
        "--concurrency",
        "8",
    ];
    let report = run(publisher(&target.url, &args))?;
    check_eq(report["sent"].as_u64(), Some(3000), "sent")?;
    check_eq(report["accepted"].as_u64(), Some(1500), "accepted")
}

/// The service is killed in the middle and comes back at the same address: the
/// publisher's own retries and check must come out right.
#[test(own_server)]
fn load_survives_a_kill() -> TestResult {
    let first = Server::start()?;
    let client = first.client();
    let address = client.address().to_owned();
    let child = publisher(&first.url, &["load", "--json", "--events", "20000"]).spawn()?;
    wait_until("the load is under way", || {
        Ok((client.get("/stats")?.expect(200)?.count("received")? > 2000).then_some(()))
    })?;
    let state = first.kill()?;
    let second = ServerOptions::on(&state).listen(&address).start()?;
    let output = child.wait_with_output()?;
    check(output.status.success(), || shown(&output))?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    check_eq(report["errors"].as_u64(), Some(0), &format!("errors in {report:#}"))?;
    let stats = second.client().get("/stats")?.expect(200)?.json()?;
    check(stats["unique_processed"] == 16_000, || format!("{stats:#}"))
}

#[test(any_server)]
fn every_workload_is_read_back(target: &Target) -> TestResult {
    let directory = TempDir::new()?;
    let names = publisher::workload::NAMED.iter().map(|named| named.name);
    for name in names {
        let ledger = directory.path().join(name).display().to_string();
        let args = ["load", "--workload", name, "--events", "1000", "--audit", "--ledger", &ledger];
        let report = run(publisher(&target.url, &[&args[..], &["--json"]].concat()))?;
        check_eq(report["sent"].as_u64(), Some(1000), &format!("sent in {name}"))?;
        check_eq(&report["check"]["events_read"], &report["distinct"], "events read back")?;
    }
    Ok(())
}

/// The publisher is killed in the middle; another one finds out from the ledger
/// what was sent, and sends the rest.
#[test(own_server)]
fn a_killed_load_is_resumed() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let directory = TempDir::new()?;
    let ledger = directory.path().join("run").display().to_string();
    let args = ["load", "--json", "--events", "6000", "--ledger", &ledger];
    let mut child = publisher(&server.url, &args).spawn()?;
    wait_until("the load is under way", || {
        Ok((client.get("/stats")?.expect(200)?.count("received")? > 1000).then_some(()))
    })?;
    child.kill()?;
    child.wait()?;
    let verified = run(publisher(&server.url, &["verify", &ledger, "--json"]))?;
    check(verified["sent"].as_u64() < Some(6000), || format!("it was not cut off: {verified:#}"))?;
    let resumed = run(publisher(&server.url, &["resume", &ledger, "--json"]))?;
    check_eq(resumed["sent"].as_u64(), Some(6000), "sent")?;
    check_eq(resumed["check"]["events_read"].as_u64(), Some(4800), "events read back")
}

#[test(own_server)]
fn chaos_balances() -> TestResult {
    chaos(&[])
}

#[test(own_server)]
fn chaos_over_streams_balances() -> TestResult {
    chaos(&["--streams", "4", "--concurrency", "200"])
}

fn chaos(how: &[&str]) -> TestResult {
    const KILLS: &str = "6";
    let address = free_address()?;
    let (host, state) = ServerOptions::default().listen(&address).command()?;
    let line = shell_line(&host);
    let ledger = state.path().join("run").display().to_string();
    let args = ["chaos", "--json", "--kills", KILLS, "--up-max", "300ms", "--ledger", &ledger];
    let url = format!("http://{address}");
    let report = run(publisher(&url, &[&args[..], &["--command", &line], how].concat()))?;
    check_eq(report["kills"].as_array().map(Vec::len), Some(6), "kills")?;
    check(report["retries"].as_u64() > Some(0), || format!("no kill was felt: {report:#}"))?;
    check(std::net::TcpStream::connect(&address).is_err(), || "the service was left behind".into())
}

#[test(own_server)]
fn says_when_the_service_is_not_there() -> TestResult {
    let url = format!("http://{}", free_address()?);
    let output = publisher(&url, &["load", "--wait-for", "1"]).output()?;
    check(!output.status.success(), || shown(&output))?;
    check(String::from_utf8_lossy(&output.stderr).contains(&url), || shown(&output))
}

/// Replies name some of what was wrong; the sums are of all.
#[test(own_server)]
fn problems_that_no_reply_names_are_counted() -> TestResult {
    const LINES: u64 = 400;
    let server = Server::start()?;
    let directory = TempDir::new()?;
    let file = directory.path().join("app.log");
    fs::write(&file, made_up(LINES as usize))?;
    let file = file.display().to_string();
    let args = ["ship", "--json", "--topic", "t", "--source", "it", &file];
    run(publisher(&server.url, &args))?;
    let other_content = Edit {
        sqlite: "UPDATE identity SET content = zeroblob(16)",
        postgres: "UPDATE sekali.identity SET content = decode(repeat('00', 16), 'hex')",
    };
    other_content.apply(&server)?;
    let output = publisher(&server.url, &args).output()?;
    let summary: Value = serde_json::from_slice(&output.stdout)?;
    check_eq(total(&summary, "conflicts")?, LINES, "conflicts")?;
    let problems = summary["files"][0]["problems"].as_array().cloned().unwrap_or_default();
    let last = problems.last().and_then(Value::as_str).unwrap_or_default().to_owned();
    let more = last.strip_prefix("… and ").and_then(|last| last.strip_suffix(" more"));
    let more = more.and_then(|more| more.parse::<u64>().ok()).ok_or(last)?;
    check_eq(problems.len() as u64 - 1 + more, LINES, "problems, told and counted")
}

/// An audit needs the outcome of each event, and the counters of each topic,
/// however many there are of both.
#[test(own_server)]
fn an_audit_reads_all_outcomes_and_all_topics() -> TestResult {
    let server = Server::start()?;
    let args = [
        "load",
        "--json",
        "--audit",
        "--events",
        "12000",
        "--batch",
        "1000",
        "--duplicates",
        "0.6",
        "--topics",
        "3000",
    ];
    let report = run(publisher(&server.url, &args))?;
    check(report["ok"] == true, || format!("{report:#}"))?;
    let stats = server.client().get("/stats")?.expect(200)?.json()?;
    check(stats["topics_next"].is_string(), || "all topics are on one page".into())
}
