//! POST /webhooks/{topic}: what senders of webhooks sign.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::prometheus::Scrape;
use crate::support::{
    Client, End, Reply, Server, ServerOptions, TestResult, check, check_eq, event, own_server,
    read, shown, test, wait_until,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_b2xkLXNlY3JldC1vZi1zdGFuZGFyZA==";
const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const STRIPE_SECRET: &str = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH";

/// A delivery, before it is signed.
#[derive(Clone, Copy)]
struct Delivery<'a> {
    id: &'a str,
    body: &'a str,
    /// When it is signed, as seconds from now.
    off: i64,
}

/// What a sender sends.
type Headers = Vec<(&'static str, String)>;

fn delivery<'a>(id: &'a str, body: &'a str) -> Delivery<'a> {
    Delivery { id, body, off: 0 }
}

fn hmac(secret: &[u8], signed: &str) -> Result<Vec<u8>, Failed> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    mac.update(signed.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public_key() -> String {
    format!("whpk_{}", STANDARD.encode(signing_key().verifying_key().as_bytes()))
}

impl Delivery<'_> {
    fn at(&self) -> Result<i64, Failed> {
        Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? + self.off)
    }

    fn standard_as(
        &self,
        sign: impl FnOnce(&str) -> Result<String, Failed>,
    ) -> Result<Headers, Failed> {
        let at = self.at()?;
        Ok(vec![
            ("webhook-id", self.id.to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", sign(&format!("{}.{at}.{}", self.id, self.body))?),
        ])
    }

    fn standard(&self, secret: &str) -> Result<Headers, Failed> {
        let secret = STANDARD.decode(secret.trim_start_matches("whsec_"))?;
        self.standard_as(|signed| Ok(format!("v1,{}", STANDARD.encode(hmac(&secret, signed)?))))
    }

    fn by_key(&self) -> Result<Headers, Failed> {
        self.standard_as(|signed| {
            let signature = signing_key().sign(signed.as_bytes());
            Ok(format!("v1a,{}", STANDARD.encode(signature.to_bytes())))
        })
    }

    fn github(&self) -> Result<Headers, Failed> {
        let digest = hex(&hmac(GITHUB_SECRET.as_bytes(), self.body)?);
        Ok(vec![
            ("x-hub-signature-256", format!("sha256={digest}")),
            ("x-github-delivery", self.id.to_owned()),
            ("x-github-event", "push".to_owned()),
        ])
    }

    fn stripe(&self) -> Result<Headers, Failed> {
        let at = self.at()?;
        let digest = hex(&hmac(STRIPE_SECRET.as_bytes(), &format!("{at}.{}", self.body))?);
        Ok(vec![("stripe-signature", format!("t={at},v1={digest}"))])
    }

    fn send(&self, client: &Client, topic: &str, headers: &Headers) -> Result<Reply, Failed> {
        let mut all: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push(("content-type", "application/json"));
        Ok(client.send("POST", &format!("/webhooks/{topic}"), &all, self.body.as_bytes())?)
    }
}

/// The same headers, with another value of one, or without it.
fn with(mut headers: Headers, name: &str, value: Option<&str>) -> Headers {
    headers.retain(|(known, _)| *known != name || value.is_some());
    for (_, known) in headers.iter_mut().filter(|(known, _)| *known == name) {
        value.unwrap_or_default().clone_into(known);
    }
    headers
}

fn twice(mut headers: Headers, name: &str) -> Headers {
    let again = headers.iter().find(|(known, _)| *known == name).cloned();
    headers.extend(again);
    headers
}

/// A service that takes webhooks of all kinds.
fn start() -> Result<Server, Failed> {
    let secrets = format!(
        "standard standard {SECRET}\nkey standard {}\n\ngithub github {GITHUB_SECRET}\n\
         stripe stripe {STRIPE_SECRET}\n",
        public_key()
    );
    let options = ServerOptions::default().variable("log_level=debug");
    options.variable(&format!("webhook_secrets={secrets}")).start()
}

fn outcome(reply: Reply) -> Result<(u64, u64, u64), Failed> {
    let reply = reply.expect(200)?;
    Ok((reply.count("accepted")?, reply.count("duplicates")?, reply.count("conflicts")?))
}

/// Nothing of a secret, however it is written.
fn check_no_secret(text: &str) -> TestResult {
    let secrets = [SECRET, OLD_SECRET, GITHUB_SECRET, STRIPE_SECRET];
    let plain = secrets.iter().map(|secret| secret.trim_start_matches("whsec_"));
    for secret in plain {
        check(!text.contains(secret), || format!("a secret is in {text}"))?;
    }
    Ok(())
}

#[test(own_server)]
fn each_delivery_is_stored_once() -> TestResult {
    let server = start()?;
    let client = server.client();
    let body = r#"{"id": "evt_1", "created": 1761213600, "n": 1.50}"#;
    let other = r#"{"id": "evt_1", "created": 1761213600, "n": 2}"#;
    let (first, changed) = (delivery("evt_1", body), delivery("evt_1", other));
    for (topic, source, sign) in [
        ("standard", "standard-webhooks", (|one| one.standard(SECRET)) as fn(Delivery) -> _),
        ("key", "standard-webhooks", |one| one.by_key()),
        ("github", "github/push", |one| one.github()),
        ("stripe", "stripe", |one| one.stripe()),
    ] {
        let send = |one: Delivery| outcome(one.send(&client, topic, &sign(one)?)?);
        check_eq(send(first)?, (1, 0, 0), topic)?;
        // A sender that tries again signs again.
        for off in [-1, 2] {
            check_eq(send(Delivery { off, ..first })?, (0, 1, 0), topic)?;
        }
        check_eq(send(changed)?, (0, 1, 1), topic)?;
        let stored = client.all_events(topic)?;
        check_eq(stored.len(), 1, topic)?;
        let event = &stored[0];
        check_eq(&event["event_id"], &json!("evt_1"), topic)?;
        check_eq(&event["source"], &json!(source), topic)?;
        check_eq(
            event["payload"].to_string(),
            r#"{"id":"evt_1","created":1761213600,"n":1.50}"#.parse::<Value>()?.to_string(),
            topic,
        )?;
        if topic == "stripe" {
            check_eq(&event["timestamp"], &json!("2025-10-23T10:00:00Z"), topic)?;
        }
    }
    Ok(())
}

#[test(own_server)]
fn a_body_that_is_no_json_is_a_message() -> TestResult {
    let server = start()?;
    let client = server.client();
    let text = delivery("1", "plain, \"text\"\n");
    outcome(text.send(&client, "standard", &text.standard(SECRET)?)?)?;
    let stored = client.all_events("standard")?;
    check_eq(&stored[0]["payload"], &json!({"message": "plain, \"text\"\n"}), "payload")?;
    let form = delivery("2", "payload=%7B%22a%22%3A1%7D");
    let mut headers = form.github()?;
    headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.send("POST", "/webhooks/github", &headers, form.body.as_bytes())?.expect(200)?;
    let stored = client.all_events("github")?;
    check_eq(&stored[0]["payload"], &json!({"a": 1}), "payload")?;
    // The signature is right, and there is no id.
    let nameless = delivery("", "{\"object\":\"event\"}");
    let reply = nameless.send(&client, "stripe", &nameless.stripe()?)?.expect(422)?.json()?;
    check_eq(&reply["errors"][0]["field"], &json!("event_id"), "field")
}

#[test(own_server)]
fn any_secret_of_a_topic_will_do_and_no_other() -> TestResult {
    let entries = json!([
        {"topic": "a", "scheme": "standard", "secret": OLD_SECRET},
        {"topic": "a", "scheme": "standard", "secret": SECRET},
        {"topic": "a", "scheme": "stripe", "secret": STRIPE_SECRET},
        {"topic": "b c/é", "scheme": "standard", "secret": SECRET},
    ]);
    let server =
        ServerOptions::default().variable(&format!("webhook_secrets={entries}")).start()?;
    let client = server.client();
    for (id, secret) in [("1", OLD_SECRET), ("2", SECRET)] {
        let one = delivery(id, "{}");
        check_eq(outcome(one.send(&client, "a", &one.standard(secret)?)?)?, (1, 0, 0), secret)?;
    }
    let one = delivery("evt_1", "{\"id\":\"evt_1\"}");
    outcome(one.send(&client, "a", &one.stripe()?)?)?;
    // Both signatures, and one of a version that is still to come.
    let one = delivery("3", "{}");
    let [old, new] = [one.standard(OLD_SECRET)?, one.standard(SECRET)?];
    let both = format!("v9,x {} {}", old[2].1, new[2].1);
    for topic in ["a", "b%20c%2F%C3%A9"] {
        let headers = with(old.clone(), "webhook-signature", Some(&both));
        check_eq(outcome(one.send(&client, topic, &headers)?)?, (1, 0, 0), topic)?;
    }
    let refused = one.send(&client, "b%20c%2F%C3%A9", &old)?.expect(401)?.json()?;
    check_eq(&refused["code"], &json!("webhook_refused"), "code")?;
    check_eq(client.all_events("b%20c%2F%C3%A9")?.len(), 1, "events of the other topic")
}

#[test(own_server)]
fn what_is_not_signed_as_it_should_be_is_refused_and_counted() -> TestResult {
    let server = start()?;
    let client = server.client();
    let one = delivery("evt_1", r#"{"id":"evt_1"}"#);
    let (standard, github, stripe) = (one.standard(SECRET)?, one.github()?, one.stripe()?);
    let off = |off| Delivery { off, ..one };
    let signature = "webhook-signature";
    let cut = standard[2].1.trim_end_matches('=').to_owned();
    let many = [standard[2].1.as_str(); 11].join(" ");
    let huge = format!("v1,{}", "A".repeat(20_000));
    let stripes = ["v1=00"; 5_000].join(",");
    let mut counted = std::collections::BTreeMap::new();
    for (topic, headers, reason) in [
        ("standard", vec![], "missing_header"),
        ("standard", with(standard.clone(), signature, None), "missing_header"),
        ("standard", with(standard.clone(), "webhook-id", None), "missing_header"),
        ("standard", with(standard.clone(), "webhook-timestamp", None), "missing_header"),
        ("standard", twice(standard.clone(), signature), "invalid_header"),
        ("standard", twice(standard.clone(), "webhook-id"), "invalid_header"),
        ("standard", with(standard.clone(), "webhook-timestamp", Some("1e9")), "invalid_header"),
        ("standard", with(standard.clone(), signature, Some(&many)), "invalid_header"),
        ("standard", with(standard.clone(), signature, Some(&huge)), "signature"),
        ("standard", with(standard.clone(), signature, Some(&cut)), "signature"),
        ("standard", with(standard.clone(), signature, Some(", ,v1,,v1a,=")), "signature"),
        ("standard", with(standard.clone(), "webhook-id", Some("evt_2")), "signature"),
        ("standard", one.standard(OLD_SECRET)?, "signature"),
        ("standard", one.by_key()?, "signature"),
        ("standard", github.clone(), "missing_header"),
        ("standard", off(-320).standard(SECRET)?, "timestamp"),
        ("standard", off(320).standard(SECRET)?, "timestamp"),
        ("key", standard.clone(), "signature"),
        ("key", delivery("evt_1", "{}").by_key()?, "signature"),
        ("key", off(-320).by_key()?, "timestamp"),
        ("github", with(github.clone(), "x-github-delivery", None), "missing_header"),
        ("github", with(github.clone(), "x-hub-signature-256", Some("sha1=00")), "invalid_header"),
        ("github", twice(github.clone(), "x-github-delivery"), "invalid_header"),
        ("github", delivery("1", "{}").github()?, "signature"),
        ("stripe", twice(stripe.clone(), "stripe-signature"), "invalid_header"),
        ("stripe", with(stripe.clone(), "stripe-signature", Some(&stripes)), "invalid_header"),
        ("stripe", delivery("1", "{}").stripe()?, "signature"),
        ("stripe", off(-320).stripe()?, "timestamp"),
        ("stripe", off(320).stripe()?, "timestamp"),
    ] {
        let reply = one.send(&client, topic, &headers)?.expect(401)?;
        check_eq(reply.header("www-authenticate"), Some("Webhook"), topic)?;
        check_no_secret(&reply.text)?;
        let reply = reply.json()?;
        check_eq(&reply["code"], &json!("webhook_refused"), topic)?;
        *counted.entry(reason).or_insert(0) += 1;
    }
    // No client of these tests sends what is no text.
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n",
        client.address()
    );
    let junk = [head.as_bytes(), b"x-hub-signature-256: sha256=\xff\xfe\x80\r\n\r\n"].concat();
    let reply = client.raw(&junk, End::Wait)?;
    // Spin and the host that behaves as it does answer 500 to what is not UTF-8.
    let status = reply.split(' ').nth(1).unwrap_or_default();
    check(["401", "500"].contains(&status), || reply.clone())?;
    *counted.entry("invalid_header").or_insert(0) += usize::from(status == "401");

    for topic in ["standard", "key", "github", "stripe"] {
        check_eq(client.all_events(topic)?, Vec::<Value>::new(), topic)?;
    }
    let refused = |scrape: &Scrape, reason: &str| {
        scrape
            .get("sekali_webhooks_refused_total", &[("reason", reason)])
            .map(|count| count as usize)
    };
    wait_until("all refusals are counted", || {
        let scrape = Scrape::take(&client)?;
        let are = counted.iter().all(|(reason, count)| refused(&scrape, reason) == Some(*count));
        Ok(are.then_some(()))
    })?;
    // What is right is still taken.
    for (topic, headers) in [("standard", &standard), ("github", &github), ("stripe", &stripe)] {
        check_eq(outcome(one.send(&client, topic, headers)?)?, (1, 0, 0), topic)?;
    }
    let log = wait_until("the refusals are in the log", || {
        let log = server.log();
        Ok(log.contains("webhook_refused").then_some(log))
    })?;
    check_no_secret(&log)
}

#[test(own_server)]
fn how_old_a_delivery_may_be_can_be_said() -> TestResult {
    let secrets = format!("webhook_secrets=old standard {SECRET}");
    let options = ServerOptions::default().variable(&secrets);
    let server = options.variable("webhook_tolerance_seconds=86400").start()?;
    let one = delivery("evt_1", "{}");
    for off in [-86_000, 86_000] {
        let one = Delivery { off, ..one };
        one.send(&server.client(), "old", &one.standard(SECRET)?)?.expect(200)?;
    }
    for off in [-87_000, 87_000] {
        let one = Delivery { off, ..one };
        let reply = one.send(&server.client(), "old", &one.standard(SECRET)?)?.expect(401)?;
        check(reply.text.contains("at most 86400 s"), || format!("{reply:#?}"))?;
    }
    Ok(())
}

#[test(own_server)]
fn other_refusals_are_those_of_any_publish() -> TestResult {
    let secrets = format!("webhook_secrets=github github {GITHUB_SECRET}");
    let server =
        ServerOptions::default().variable(&secrets).variable("body_bytes_max=100").start()?;
    let client = server.client();
    let code = |reply: Reply| Ok::<_, Failed>(reply.json()?["code"].clone());
    let long = "x".repeat(101);
    let one = delivery("1", &long);
    let reply = one.send(&client, "github", &one.github()?)?.expect(413)?;
    check_eq(code(reply)?, json!("body_too_large"), "code")?;
    let one = delivery(&long, "{}");
    let too_long = "x".repeat(256);
    let headers = with(one.github()?, "x-github-delivery", Some(&too_long));
    check_eq(
        code(one.send(&client, "github", &headers)?.expect(422)?)?,
        json!("invalid_events"),
        "code",
    )?;
    // It is gzip, of nothing.
    let empty = [31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let headers = [("content-encoding", "gzip")];
    let reply = client.send("POST", "/webhooks/github", &headers, &empty)?.expect(415)?;
    check_eq(code(reply)?, json!("unsupported_encoding"), "code")?;
    let headers = [("origin", "https://evil.example")];
    let reply = client.send("POST", "/webhooks/github", &headers, &[])?.expect(403)?;
    check_eq(code(reply)?, json!("origin_refused"), "code")?;
    check_eq(client.all_events("github")?.len(), 0, "events")
}

#[test(own_server)]
fn webhooks_of_a_topic_without_a_secret_are_unknown() -> TestResult {
    let github = format!("webhook_secrets=github github {GITHUB_SECRET}");
    for (variable, topics) in [("webhook_secrets=", ["github", "x"]), (&github, ["GitHub", "x"])] {
        let server = ServerOptions::default().variable(variable).start()?;
        let one = delivery("1", "{}");
        for topic in topics {
            let reply = one.send(&server.client(), topic, &one.github()?)?.expect(404)?.json()?;
            check_eq(&reply["code"], &json!("webhook_unknown"), topic)?;
        }
        server.client().publish(event("t", "1"))?.expect(200)?;
    }
    Ok(())
}

#[test(own_server)]
fn an_entry_that_is_wrong_is_told_by_its_number_alone() -> TestResult {
    for (value, why) in [
        (format!("a github x\nb {GITHUB_SECRET}"), "entry 2: the scheme must be"),
        (
            json!([{"topic": "a", "scheme": OLD_SECRET, "secret": SECRET}]).to_string(),
            "entry 1: the scheme must be",
        ),
        (format!("[{SECRET}"), "it is no JSON array (line 1, column 2)"),
    ] {
        let options = ServerOptions::default().variable("log_level=debug");
        let server = options.variable(&format!("webhook_secrets={value}")).start()?;
        let reply = server.client().publish(event("t", "1"))?.expect(503)?;
        check(reply.text.contains("webhook_secrets") && reply.text.contains(why), || {
            format!("{why}: {reply:#?}")
        })?;
        check_no_secret(&reply.text)?;
        let log = wait_until("it is in the log", || {
            let log = server.log();
            Ok(log.contains("misconfigured").then_some(log))
        })?;
        check_no_secret(&log)?;
    }
    Ok(())
}

/// The commands of `docs/webhooks.md`, as they stand there.
#[test(own_server)]
fn the_documented_commands_are_taken() -> TestResult {
    let tools = ["bash", "curl", "openssl"];
    if tools.iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
        println!("not tested: there are not all of {tools:?} here");
        return Ok(());
    }
    let text = read("docs/webhooks.md")?;
    let (_, by_hand) = text.split_once("## By hand").ok_or("no commands")?;
    let scripts = by_hand.split("```sh\n").skip(1).filter_map(|part| part.split("```").next());
    let scripts: Vec<&str> = scripts.filter(|script| script.contains("curl")).collect();
    check_eq(scripts.len(), 3, "scripts")?;
    let secrets = format!(
        "users standard {SECRET}\ngithub github {GITHUB_SECRET}\nbilling stripe {STRIPE_SECRET}"
    );
    let server =
        ServerOptions::default().variable(&format!("webhook_secrets={secrets}")).start()?;
    for script in scripts {
        let script = script.replace("http://127.0.0.1:3000", &server.url);
        let script = format!("set -euo pipefail\n{script}");
        for expected in ["\"accepted\":1", "\"duplicates\":1"] {
            let output = Command::new("bash").args(["-c", &script]).output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            check(said.contains(expected), || format!("{script}\n{}", shown(&output)))?;
        }
    }
    Ok(())
}
