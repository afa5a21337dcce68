//! `publisher export` and `publisher import` against the real service.

use std::fs;
use std::path::Path;

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Edit, Server, TestResult, check, check_eq, own_server, publisher, shown, test,
};

/// What an export has to bring back as it was: numbers, escapes, the order of keys, times in
/// all their forms, and none.
const EVENTS: &str = r#"[
    {"topic": "a", "event_id": "1", "source": "s", "timestamp": "2025-10-23 10:00", "payload": {"b": 1.10, "a": 12345678901234567890.5}},
    {"topic": "b", "event_id": "1", "source": "s", "timestamp": "2025-10-23", "payload": "\u0000 \u00e9 é \ud83d\ude00"},
    {"topic": "a", "event_id": "2", "source": "s", "payload": null},
    {"topic": "é \n", "event_id": " ", "source": "\\", "payload": [1E5, -0, [], {}]},
    {"topic": "a", "event_id": "0", "source": "t", "timestamp": "2025-10-23T10:00:00.123456789+07:00"}
]"#;

/// Runs a publisher to its end, which has to be a good one; its result.
fn run(server: &Server, args: &[&str]) -> Result<Value, Failed> {
    let output = publisher(&server.url, args).arg("--json").output()?;
    check(output.status.success(), || shown(&output))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", shown(&output)).into())
}

fn export(server: &Server, file: &Path) -> Result<Value, Failed> {
    run(server, &["export", "-o", &file.display().to_string()])?;
    let manifest = fs::read(format!("{}.manifest.json", file.display()))?;
    Ok(serde_json::from_slice(&manifest)?)
}

/// The events of a file without what is of a store.
fn events(file: &Path) -> Result<Vec<Value>, Failed> {
    let text = fs::read_to_string(file)?;
    let event = |line: &str| -> Result<Value, Failed> {
        let mut event: Value = serde_json::from_str(line)?;
        for field in ["seq", "received_at"] {
            let field = event.as_object_mut().and_then(|event| event.remove(field));
            check(field.is_some(), || format!("a field is missing in {line}"))?;
        }
        Ok(event)
    };
    text.lines().map(event).collect()
}

/// The text of the payloads, with every digit.
fn payloads(file: &Path) -> Result<Vec<String>, Failed> {
    let text = fs::read_to_string(file)?;
    let payload = |line: &str| {
        let from = line.find(r#""payload":"#)?;
        let to = line.rfind(r#","received_at":"#)?;
        Some(line[from..to].to_owned())
    };
    let payload = |line| payload(line).ok_or_else(|| format!("no payload in {line}").into());
    text.lines().map(payload).collect()
}

#[test(own_server)]
fn an_export_fills_an_empty_store_with_the_same() -> TestResult {
    let (server, other) = (Server::start()?, Server::start()?);
    server.client().publish(EVENTS)?.expect(200)?;
    let args = ["load", "--events", "3000", "--topics", "7", "--batch", "50"];
    run(&server, &args)?;
    let directory = TempDir::new()?;
    let (file, back) = (directory.path().join("all"), directory.path().join("back"));
    let manifest = export(&server, &file)?;
    let count = manifest["events"].as_u64().unwrap_or_default();
    check(count > 2000, || format!("{manifest:#}"))?;

    let path = file.display().to_string();
    let first = run(&other, &["import", &path, "--batch", "70"])?;
    check_eq(&first["accepted"], &manifest["events"], "accepted")?;
    check_eq(first["read_back"]["same"].as_u64(), Some(10), "topics that are the same")?;
    let again = run(&other, &["import", &path])?;
    check_eq(again["accepted"].as_u64(), Some(0), "accepted the second time")?;
    check_eq(&again["duplicates"], &manifest["events"], "duplicates")?;

    let after = export(&other, &back)?;
    check(after["topics"] == manifest["topics"], || format!("{manifest:#} became {after:#}"))?;
    check(events(&back)? == events(&file)?, || "events came back otherwise".into())?;
    check(payloads(&back)? == payloads(&file)?, || "payloads came back otherwise".into())
}

/// Who has no publisher sends the file as it is.
#[test(own_server)]
fn lines_of_an_export_are_published_as_they_are() -> TestResult {
    let server = Server::start()?;
    server.client().publish(EVENTS)?.expect(200)?;
    let directory = TempDir::new()?;
    let file = directory.path().join("all");
    export(&server, &file)?;
    let reply = server.client().publish(fs::read_to_string(&file)?)?.expect(200)?;
    check_eq((reply.count("duplicates")?, reply.count("conflicts")?), (5, 0), "duplicates")?;
    let warnings = reply.json()?["warnings"].to_string();
    check(warnings.contains("not seq:"), || format!("no word of it in {warnings}"))
}

/// What is published meanwhile is in an export up to its last place, and not after.
#[test(own_server)]
fn an_export_is_of_one_moment() -> TestResult {
    let server = Server::start()?;
    let directory = TempDir::new()?;
    let load = ["load", "--events", "20000", "--batch", "20", "--topics", "5"];
    let mut load = publisher(&server.url, &load).spawn()?;
    let client = server.client();
    let mut exports = Vec::new();
    while load.try_wait()?.is_none() {
        let file = directory.path().join(exports.len().to_string());
        exports.push((export(&server, &file)?, file));
    }
    check(
        !exports.is_empty() && client.get("/stats")?.expect(200)?.count("received")? == 20_000,
        || "no export was made during the load, or the load failed".into(),
    )?;
    let whole = directory.path().join("whole");
    export(&server, &whole)?;
    let lines = fs::read_to_string(&whole)?;
    for (manifest, file) in exports {
        let part = fs::read_to_string(&file)?;
        check(lines.starts_with(&part), || format!("{} is no beginning", file.display()))?;
        let last = part.lines().last().map(serde_json::from_str::<Value>).transpose()?;
        let seq = last.map_or(Value::Null, |last| last["seq"].clone());
        check_eq(&manifest["up_to"]["seq"], &seq, "the last place")?;
    }
    Ok(())
}

/// Rows that somebody broke are told, and cost no other.
#[test(own_server)]
fn damaged_rows_are_left_out_and_told() -> TestResult {
    let server = Server::start()?;
    server.client().publish(EVENTS)?.expect(200)?;
    let damage = Edit {
        sqlite: "UPDATE event_log SET payload = '{' WHERE event_id = '2'",
        postgres: "UPDATE sekali.event_log SET payload = '{' WHERE event_id = '2'",
    };
    damage.apply(&server)?;
    let directory = TempDir::new()?;
    let file = directory.path().join("all").display().to_string();
    let output = publisher(&server.url, &["export", "-o", &file]).output()?;
    check_eq(output.status.code(), Some(1), &shown(&output))?;
    check(shown(&output).contains(r#"event "2" of topic "a""#), || shown(&output))?;
    check_eq(fs::read_to_string(&file)?.lines().count(), 4, "lines")
}
