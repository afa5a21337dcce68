//! The files of `tests/corpus`: requests and their replies as data.
//!
//! Each file is a test, run in the order of its cases; each case has a topic
//! of its own, written `$topic`. A step is a request and what its reply must
//! hold: `reply` names fields that must be there with these values (`"*"`: any),
//! `contains` text that must be in the reply as it is, `headers` the reply's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::{fs, io};

use libtest_mimic::{Failed, Trial};
use serde::Deserialize;
use serde_json::Value;

use super::registry::on_any_server;
use super::{Client, Reply, TestResult, check, root, unique_topic};

/// Below the root of the checkout.
const CORPUS: &str = "tests/corpus";

/// A test for each file of `tests/corpus`, named after it.
pub fn trials() -> io::Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for entry in fs::read_dir(root().join(CORPUS))? {
        let path = entry?.path();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let Some(name) = path.file_stem().and_then(OsStr::to_str).filter(|_| is_toml) else {
            continue;
        };
        trials.push(on_any_server(format!("corpus::{name}"), move |target| {
            run(&path, &target.client())
        }));
    }
    trials.sort_by(|one, next| one.name().cmp(next.name()));
    Ok(trials)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    step: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    send: String,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    status: u16,
    reply: Option<String>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn run(path: &Path, client: &Client) -> TestResult {
    let file: File = toml::from_str(&fs::read_to_string(path)?)?;
    let mut failures = Vec::new();
    for case in &file.case {
        let topic = unique_topic("corpus");
        for (index, step) in case.step.iter().enumerate() {
            if let Err(failed) = run_step(step, &topic, client) {
                let why = failed.message().unwrap_or("failed");
                failures.push(format!("{} (step {}): {why}", case.name, index + 1));
                break;
            }
        }
    }
    check(failures.is_empty(), || failures.join("\n\n"))
}

fn run_step(step: &Step, topic: &str, client: &Client) -> TestResult {
    let fill = |text: &str| text.replace("$topic", topic);
    let (method, path) = step.send.split_once(' ').unwrap_or(("GET", &step.send));
    let request_headers: Vec<(&String, String)> =
        step.request_headers.iter().map(|(name, value)| (name, fill(value))).collect();
    let headers: Vec<(&str, &str)> =
        request_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = client.send(method, &fill(path), &headers, fill(&step.body).as_bytes())?;
    check(reply.status == step.status, || format!("expected {}, got {reply:#?}", step.status))?;
    check_common(&reply, method)?;
    if let Some(expected) = &step.reply {
        let expected: Value = serde_json::from_str(&fill(expected)).map_err(|error| {
            Failed::from(format!("the corpus is not JSON: {error}: {expected}"))
        })?;
        let got = reply.json()?;
        matches(&expected, &got, "reply").map_err(|why| format!("{why}\nin {reply:#?}"))?;
    }
    for text in &step.contains {
        let text = fill(text);
        check(reply.text.contains(&text), || format!("no {text:?} in {reply:#?}"))?;
    }
    for (name, expected) in &step.headers {
        let got = reply.header(name);
        check(got == Some(expected) || (got.is_some() && expected == "*"), || {
            format!("header {name}: expected {expected:?}, got {got:?} in {reply:#?}")
        })?;
    }
    Ok(())
}

/// What holds for every reply.
fn check_common(reply: &Reply, method: &str) -> TestResult {
    let content_type = reply.header("content-type").unwrap_or_default();
    check(!content_type.is_empty(), || format!("no content-type in {reply:#?}"))?;
    if !content_type.contains("ndjson") && method != "HEAD" {
        let length = reply.header("content-length");
        check(length == Some(&reply.text.len().to_string()), || {
            format!("content-length {length:?} of {} bytes in {reply:#?}", reply.text.len())
        })?;
    }
    // To a publish, 409 is the ordinary reply under another status.
    let is_ordinary = reply.status < 400 || (reply.status == 409 && reply.text.contains("results"));
    if !is_ordinary && method != "HEAD" {
        check(content_type == "application/problem+json", || format!("not a problem: {reply:#?}"))?;
        let problem = reply.json()?;
        for field in ["type", "title", "detail", "code"] {
            let there = problem[field].as_str().is_some_and(|text| !text.is_empty());
            check(there, || format!("a problem without {field}: {reply:#?}"))?;
        }
        check(problem["status"] == reply.status, || format!("another status in {reply:#?}"))?;
        let retry = reply.header("retry-after").is_some();
        check(retry == (reply.status == 503), || format!("Retry-After in {reply:#?}"))?;
    }
    Ok(())
}

fn matches(expected: &Value, got: &Value, at: &str) -> Result<(), String> {
    match (expected, got) {
        (Value::String(any), _) if any == "*" && !got.is_null() => Ok(()),
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .try_for_each(|(name, value)| matches(value, &got[name], &format!("{at}.{name}"))),
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            expected.iter().zip(got).enumerate().try_for_each(|(index, (expected, got))| {
                matches(expected, got, &format!("{at}[{index}]"))
            })
        }
        _ if expected == got => Ok(()),
        _ => Err(format!("{at}: expected {expected}, got {got}")),
    }
}
