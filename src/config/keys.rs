//! Keys: who may do what, and with which topics.
//!
//! A key itself is a secret of whoever uses it. What is configured is its SHA-256, so
//! neither the configuration nor a log has anything by which somebody gets in.

use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value};
use subtle::{Choice, ConstantTimeEq};

use crate::event::TopicPattern;
use crate::text::unhex;
use crate::time::{self, UnixMillis};

/// Most keys of a service. Each request is compared with all of them.
pub(crate) const KEYS_MAX: usize = 1_000;

/// Longest name of a key, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 64;

/// Most patterns of topics of one key.
pub(crate) const PATTERNS_MAX: usize = 100;

/// Greatest rate of a key, in events or bytes a second.
const RATE_MAX: u64 = 1_000_000_000_000;

/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// The SHA-256 of a key.
pub(crate) type Digest = [u8; DIGEST_BYTES];

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To publish.
    Publish,
    /// To read events, counters and subscriptions, and to acknowledge.
    Read,
    /// All, and to define and remove subscriptions.
    Admin,
}

impl Scope {
    pub(crate) const ALL: [Scope; 3] = [Scope::Publish, Scope::Read, Scope::Admin];

    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Publish => "publish",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// Most that a key may publish in a second; `None` is without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Events.
    pub(crate) events: Option<u64>,
    /// Bytes of bodies, decoded.
    pub(crate) bytes: Option<u64>,
}

/// Somebody's key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// By which logs and counters call it.
    pub(crate) name: String,
    /// Its SHA-256.
    pub(crate) digest: Digest,
    scopes: Vec<Scope>,
    /// Of which topics; of all when there is none.
    topics: Vec<TopicPattern>,
    /// When it ends, if it does.
    pub(crate) expires: Option<UnixMillis>,
    /// How much it may publish.
    pub(crate) rates: Rates,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its digest does not let anybody in, but makes access tokens.
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// Whether it is good for `scope`.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it is good for every topic.
    pub(crate) fn is_of_all_topics(&self) -> bool {
        self.topics.is_empty()
    }

    /// Whether it is good for `topic`.
    pub(crate) fn is_of(&self, topic: &str) -> bool {
        self.is_of_all_topics() || self.topics.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether it has ended.
    pub(crate) fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The keys of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys(Vec<Rc<Key>>);

impl Keys {
    /// Reads keys: an array of JSON, or an object a line. Nothing is no key.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them, in words that repeat nothing of what was
    /// given: it may be a key, in the place of its digest.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let value = value.trim();
        let entries: Vec<Value> = match value.strip_prefix('[') {
            Some(_) => serde_json::from_str(value).map_err(|error| not_json(&error))?,
            None => {
                let entries = serde_json::Deserializer::from_str(value).into_iter();
                entries.collect::<Result<_, _>>().map_err(|error| not_json(&error))?
            }
        };
        if entries.len() > KEYS_MAX {
            return Err(format!("has {} keys, at most {KEYS_MAX} are taken", entries.len()));
        }
        let mut keys: Vec<Rc<Key>> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let number = index + 1;
            let key =
                key(entry).map_err(|why| format!("has a key, number {number}, that {why}"))?;
            let same = |other: &&Rc<Key>| other.name == key.name || other.digest == key.digest;
            if let Some(other) = keys.iter().position(|other| same(&other)) {
                let what = if keys[other].name == key.name { "name" } else { "sha256" };
                let first = other + 1;
                return Err(format!("has the same {what} in the keys {first} and {number}"));
            }
            keys.push(Rc::new(key));
        }
        Ok(Keys(keys))
    }

    /// Whether there is none, and the service is open to everybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key with this digest. It takes as long whether there is one or not.
    pub(crate) fn of_digest(&self, digest: &Digest) -> Option<&Rc<Key>> {
        let mut found = None;
        for key in &self.0 {
            let is_same: Choice = key.digest.ct_eq(digest);
            if bool::from(is_same) {
                found = Some(key);
            }
        }
        found
    }

    /// The key of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Rc<Key>> {
        self.0.iter().find(|key| key.name == name)
    }

    /// The names of all keys, in the order in which they were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name.as_str())
    }
}

/// Where it is wrong, and not what is there.
fn not_json(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("is not JSON at line {line}, column {column}")
}

/// Reads one key.
///
/// # Errors
///
/// The rest of a sentence.
fn key(entry: &Value) -> Result<Key, String> {
    let entry = entry.as_object().ok_or("is no object")?;
    const FIELDS: [&str; 7] =
        ["name", "sha256", "scopes", "topics", "expires", "events_per_second", "bytes_per_second"];
    if entry.keys().any(|field| !FIELDS.contains(&field.as_str())) {
        return Err(format!("has a field other than {}", FIELDS.join(", ")));
    }
    let name = entry.get("name").and_then(Value::as_str).filter(|name| is_name(name));
    let name = name.ok_or_else(|| {
        format!("has no name of 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes, underscores")
    })?;
    let digest = entry.get("sha256").and_then(Value::as_str).and_then(digest);
    Ok(Key {
        name: name.to_owned(),
        digest: digest.ok_or("has no sha256 of 64 hexadecimal digits (publisher key new)")?,
        scopes: scopes(entry).ok_or("has no scopes, an array of publish, read and admin")?,
        topics: patterns(entry).ok_or_else(|| {
            format!("has topics that are no array of 1 to {PATTERNS_MAX} patterns such as shop.*")
        })?,
        expires: match entry.get("expires") {
            None | Some(Value::Null) => None,
            Some(given) => {
                let at = given.as_str().and_then(|given| time::parse(given).ok());
                Some(at.ok_or("has an end (expires) that is no time such as 2027-01-31T00:00:00Z")?)
            }
        },
        rates: Rates {
            events: rate(entry, "events_per_second")?,
            bytes: rate(entry, "bytes_per_second")?,
        },
    })
}

fn is_name(name: &str) -> bool {
    let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"._-".contains(&one);
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn digest(digits: &str) -> Option<Digest> {
    unhex(digits)?.try_into().ok()
}

fn scopes(entry: &Map<String, Value>) -> Option<Vec<Scope>> {
    let given = entry.get("scopes")?.as_array()?.iter();
    let scopes: Option<Vec<Scope>> = given.map(|scope| Scope::parse(scope.as_str()?)).collect();
    scopes.filter(|scopes| !scopes.is_empty())
}

/// No field, or `*`, is every topic. An array of none is a mistake that would be taken
/// for either.
fn patterns(entry: &Map<String, Value>) -> Option<Vec<TopicPattern>> {
    let given = match entry.get("topics") {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(given) => given.as_array()?,
    };
    let pattern = |one: &Value| Some(one.as_str()?.to_owned()).filter(|text| !text.is_empty());
    let patterns: Vec<String> = given.iter().map(pattern).collect::<Option<_>>()?;
    if !(1..=PATTERNS_MAX).contains(&patterns.len()) {
        return None;
    }
    let patterns: Vec<_> = patterns.into_iter().map(TopicPattern::new).collect();
    Some(if patterns.iter().any(TopicPattern::is_any) { Vec::new() } else { patterns })
}

fn rate(entry: &Map<String, Value>, field: &str) -> Result<Option<u64>, String> {
    match entry.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(given) => {
            let rate = given.as_u64().filter(|rate| (1..=RATE_MAX).contains(rate));
            rate.map(Some)
                .ok_or_else(|| format!("has {field} that is no whole number from 1 to {RATE_MAX}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({"name": "shop", "sha256": "0a".repeat(32), "scopes": ["publish"]})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut entry = entry();
        entry[field] = value;
        entry
    }

    #[test]
    fn keys_are_an_array_or_lines() {
        let mut other = with("name", json!("reader"));
        other["sha256"] = json!("0B".repeat(32));
        let lines = format!("{}\n\n  {}\n", entry(), other);
        let keys = Keys::parse(&lines).unwrap();
        assert_eq!(keys, Keys::parse(&json!([entry(), other]).to_string()).unwrap());
        assert_eq!(keys.names().collect::<Vec<_>>(), ["shop", "reader"]);
        assert_eq!(keys.of_digest(&[0x0b; 32]).unwrap().name, "reader");
        assert_eq!(keys.of_digest(&[0x0c; 32]), None);
        assert!(Keys::parse(" \n").unwrap().is_empty());
        assert!(Keys::parse("[]").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_key_is_named_by_its_number_and_never_told() {
        let secret = "sekali_verysecret";
        for (wrong, why) in [
            (json!(secret), "is no object"),
            (with("name", json!("a b")), "no name"),
            (with("name", json!("")), "no name"),
            (with("name", json!("a".repeat(65))), "no name"),
            (with("sha256", json!(secret)), "sha256"),
            (with("sha256", json!("0x".repeat(32))), "sha256"),
            (with("sha256", json!(7)), "sha256"),
            (with("scopes", json!([])), "scopes"),
            (with("scopes", json!("publish")), "scopes"),
            (with("scopes", json!(["publish", secret])), "scopes"),
            (with("topics", json!([])), "topics"),
            (with("topics", json!([""])), "topics"),
            (with("topics", json!(vec!["a"; PATTERNS_MAX + 1])), "topics"),
            (with("expires", json!(secret)), "expires"),
            (with("expires", json!(5)), "expires"),
            (with("events_per_second", json!(0)), "events_per_second"),
            (with("bytes_per_second", json!(1.5)), "bytes_per_second"),
            (with(secret, json!(1)), "a field other than"),
        ] {
            let mut first = entry();
            first["name"] = json!("first");
            first["sha256"] = json!("ff".repeat(32));
            let error = Keys::parse(&json!([first, wrong]).to_string()).unwrap_err();
            assert!(error.contains("number 2") && error.contains(why), "{error}");
            assert!(!error.contains("verysecret"), "{error}");
        }
        for text in ["sekali_verysecret", "{\"name\":\"verysecret\"", "[\"verysecret\"]x", "[{]"] {
            let error = Keys::parse(text).unwrap_err();
            assert!(!error.contains("verysecret"), "{error}");
        }
        let twice = json!([entry(), entry()]).to_string();
        assert!(Keys::parse(&twice).unwrap_err().contains("same name in the keys 1 and 2"));
        let twice = json!([entry(), with("name", json!("b"))]).to_string();
        assert!(Keys::parse(&twice).unwrap_err().contains("same sha256 in the keys 1 and 2"));
        let many: Vec<Value> = (0..=KEYS_MAX).map(|_| entry()).collect();
        assert!(Keys::parse(&json!(many).to_string()).unwrap_err().contains("at most 1000"));
        assert!(!format!("{:?}", Keys::parse(&entry().to_string())).contains("10, 10"));
    }

    #[test]
    fn a_key_ends_and_is_good_for_what_it_says() {
        let keys = Keys::parse(
            &json!([
                with("expires", json!("2026-01-02T03:04:05Z")),
                {"name": "all", "sha256": "0b".repeat(32), "scopes": ["admin"],
                 "topics": ["*"], "events_per_second": 5},
            ])
            .to_string(),
        );
        let keys = keys.unwrap();
        let (shop, all) = (keys.named("shop").unwrap(), keys.named("all").unwrap());
        let end = shop.expires.unwrap();
        assert!(!shop.has_expired(end - 1) && shop.has_expired(end) && !all.has_expired(end));
        assert!(shop.has(Scope::Publish) && !shop.has(Scope::Read) && !shop.has(Scope::Admin));
        assert!(Scope::ALL.into_iter().all(|scope| all.has(scope)));
        assert!(all.is_of_all_topics() && all.is_of("anything"));
        assert_eq!(all.rates, Rates { events: Some(5), bytes: None });
    }
}
