//! Whose webhooks are taken: a topic, how its sender signs, and the key to that.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{PUBLIC_KEY_LENGTH, VerifyingKey};
use hmac::{Hmac, KeyInit};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::event::Topic;

/// How a sender signs its webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// As <https://www.standardwebhooks.com> has it.
    Standard,
    Github,
    Stripe,
}

/// What a signature is checked with.
#[derive(Clone)]
pub(crate) enum WebhookKey {
    /// A secret that both sides have, as a digest that waits for what was signed.
    Hmac(Hmac<Sha256>),
    /// The public half of the sender's.
    Ed25519(VerifyingKey),
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A sender of webhooks, and the topic that they are of.
#[derive(Clone, Debug)]
struct Entry {
    topic: Topic,
    scheme: Scheme,
    key: WebhookKey,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Webhooks(Vec<Entry>);

/// An entry as it is given in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryJson {
    topic: String,
    scheme: String,
    secret: String,
}

impl Webhooks {
    /// Reads lines of `TOPIC SCHEME SECRET`, or a JSON array of objects with these
    /// members.
    ///
    /// # Errors
    ///
    /// A phrase that says which entry is wrong, and never what is in it: any word of one
    /// may be a secret that stands in the wrong place.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let value = value.trim();
        let entries: Vec<Result<EntryJson, String>> = match value.starts_with('[') {
            true => {
                let entries: Vec<&RawValue> = serde_json::from_str(value).map_err(|error| {
                    let (line, column) = (error.line(), error.column());
                    format!("it is no JSON array (line {line}, column {column})")
                })?;
                entries.into_iter().map(entry_in_json).collect()
            }
            false => {
                let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(entry_in_line).collect()
            }
        };
        let entries = entries.into_iter().enumerate().map(|(index, entry)| {
            entry.and_then(Entry::read).map_err(|why| format!("entry {}: {why}", index + 1))
        });
        entries.collect::<Result<_, _>>().map(Webhooks)
    }

    /// The keys of a topic, and how they are used.
    pub(crate) fn of(&self, topic: &str) -> Vec<(Scheme, &WebhookKey)> {
        let entries = self.0.iter().filter(|entry| entry.topic.as_str() == topic);
        entries.map(|entry| (entry.scheme, &entry.key)).collect()
    }
}

fn entry_in_json(json: &RawValue) -> Result<EntryJson, String> {
    // What is wrong is not repeated: it would be with the value.
    serde_json::from_str(json.get())
        .map_err(|_| "must have topic, scheme and secret, each a string, and no more".to_owned())
}

fn entry_in_line(line: &str) -> Result<EntryJson, String> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        Some(word.to_owned())
    };
    match (word(), word()) {
        // A secret may have spaces in it.
        (Some(topic), Some(scheme)) => Ok(EntryJson { topic, scheme, secret: rest.to_owned() }),
        _ => Err("must be a topic, a scheme and a secret with spaces between".to_owned()),
    }
}

impl Entry {
    fn read(given: EntryJson) -> Result<Self, String> {
        let EntryJson { topic, scheme, secret } = given;
        let topic = Topic::parse(topic).map_err(|why| format!("the topic {why}"))?;
        let scheme = match scheme.as_str() {
            "standard" => Scheme::Standard,
            "github" => Scheme::Github,
            "stripe" => Scheme::Stripe,
            _ => return Err("the scheme must be standard, github or stripe".to_owned()),
        };
        let key = match scheme {
            Scheme::Standard => standard_key(&secret),
            // All of it is the key, also what Stripe's begin with.
            Scheme::Github | Scheme::Stripe => hmac_key(secret.as_bytes()),
        };
        let key = key.map_err(|why| format!("the secret {why}"))?;
        Ok(Entry { topic, scheme, key })
    }
}

/// A key as Standard Webhooks writes them; what has no prefix is a secret.
fn standard_key(given: &str) -> Result<WebhookKey, &'static str> {
    if given.starts_with("whsk_") {
        return Err("is the sender's own key (whsk_); what is needed is the public one (whpk_)");
    }
    if let Some(public) = given.strip_prefix("whpk_") {
        let bytes = STANDARD.decode(public).map_err(|_| "must be base64 after whpk_")?;
        let bytes = <[u8; PUBLIC_KEY_LENGTH]>::try_from(bytes)
            .map_err(|_| "must be a key of 32 bytes in base64 after whpk_")?;
        let key = VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak());
        return key.map(WebhookKey::Ed25519).ok_or("is no public key of ed25519");
    }
    let secret = given.strip_prefix("whsec_").unwrap_or(given);
    hmac_key(&STANDARD.decode(secret).map_err(|_| "must be base64, after whsec_ or alone")?)
}

fn hmac_key(secret: &[u8]) -> Result<WebhookKey, &'static str> {
    if secret.is_empty() {
        return Err("must not be empty");
    }
    // There is no length that does not do.
    Hmac::new_from_slice(secret)
        .map(WebhookKey::Hmac)
        .map_err(|_| "has a length that cannot be used")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(value: &str, topic: &str) -> Vec<Scheme> {
        Webhooks::parse(value).unwrap().of(topic).into_iter().map(|(scheme, _)| scheme).collect()
    }

    #[test]
    fn lines_and_json_are_the_same() {
        let lines = "\n a.b  standard\twhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw \r\n\n\
                     gh github It's a Secret to Everybody\na.b stripe whsec_x\n";
        let json = r#"[{"topic": "a.b", "scheme": "standard",
                        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
                       {"topic": "gh", "scheme": "github", "secret": "It's a Secret to Everybody"},
                       {"scheme": "stripe", "topic": "a.b", "secret": "whsec_x"}]"#;
        for value in [lines, json] {
            assert_eq!(schemes(value, "a.b"), [Scheme::Standard, Scheme::Stripe]);
            assert_eq!(schemes(value, "gh"), [Scheme::Github]);
            assert_eq!(schemes(value, "a"), []);
        }
        for none in ["", " \n ", "[]"] {
            assert_eq!(schemes(none, ""), []);
        }
        // A topic may have spaces there.
        let json = r#"[{"topic": "a b", "scheme": "github", "secret": " "}]"#;
        assert_eq!(schemes(json, "a b"), [Scheme::Github]);
    }

    #[test]
    fn keys_are_checked() {
        let public = "whpk_1bhgYoJvRZ3Eo6xYyDBHxbQYHBlnHBxXeYVkgOWJGYo=";
        for (secret, expected) in [
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Ok(())),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Ok(())),
            // That of RFC 8032, 7.1, test 1.
            ("whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", Ok(())),
            ("whsec_", Err("must not be empty")),
            ("whsec_a", Err("must be base64, after whsec_ or alone")),
            ("It's", Err("must be base64, after whsec_ or alone")),
            ("whpk_AAAA", Err("must be a key of 32 bytes in base64 after whpk_")),
            ("whpk_?", Err("must be base64 after whpk_")),
            // No point of the curve, and one by which anything is signed.
            (
                "whpk_AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                Err("is no public key of ed25519"),
            ),
            (
                "whpk_AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                Err("is no public key of ed25519"),
            ),
        ] {
            assert_eq!(standard_key(secret).map(drop), expected, "{secret}");
        }
        let own = public.replace("whpk_", "whsk_");
        assert!(standard_key(&own).unwrap_err().contains("whpk_"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_number_and_never_shown() {
        const SECRET: &str = "c2VjcmV0LXNlY3JldA==";
        for (value, expected) in [
            (format!("t {SECRET}"), "entry 1: must be a topic, a scheme and a secret"),
            (SECRET.to_owned(), "entry 1: must be a topic, a scheme and a secret"),
            (format!("t github x\nt {SECRET} standard"), "entry 2: the scheme must be standard"),
            (format!("t github x\n\n{SECRET} Github {SECRET}"), "entry 2: the scheme must be"),
            (format!("t standard whsec_{SECRET}!"), "entry 1: the secret must be base64"),
            (format!("t standard whpk_{SECRET}"), "entry 1: the secret must be a key of 32 bytes"),
            (format!("{SECRET}{} github x", "t".repeat(255)), "entry 1: the topic must have"),
            (
                format!(r#"[{{"topic": "t", "scheme": "github", "secret": "x"}}, "{SECRET}"]"#),
                "entry 2: must have topic, scheme and secret",
            ),
            (format!(r#"[{{"topic": "t", "scheme": "{SECRET}"}}]"#), "entry 1: must have topic"),
            (format!(r#"[{{"{SECRET}": 1}}]"#), "entry 1: must have topic"),
            (
                r#"[{"topic": "t", "scheme": "github", "secret": ""}]"#.to_owned(),
                "entry 1: the secret must not be empty",
            ),
            (format!(r#"[{{"topic": "{SECRET}"}}, {SECRET}]"#), "it is no JSON array (line 1"),
            (format!(r#"[] {SECRET}"#), "it is no JSON array (line 1, column 4)"),
        ] {
            let error = Webhooks::parse(&value).unwrap_err();
            assert!(error.starts_with(expected), "{value}: {error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let webhooks = Webhooks::parse(
            "t github s3cret\nt standard whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        );
        let shown = format!("{webhooks:?}");
        assert!(shown.contains("topic: Topic(\"t\"), scheme: Github, key: ***"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("115"), "{shown}");
    }
}
