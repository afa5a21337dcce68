use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use sha2::Sha256;

use super::*;
use crate::text::hex;

/// When the example of Standard Webhooks was signed.
const AT: i64 = 1_614_265_330;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=";

/// A delivery as it arrives.
#[derive(Clone)]
struct Sent {
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    at: i64,
}

impl Sent {
    fn new(headers: &[(&'static str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()));
        Sent { headers: headers.collect(), body: body.as_bytes().to_vec(), at: AT }
    }

    /// The same with another value of a header, or without it.
    fn with(&self, name: &str, value: Option<&str>) -> Self {
        let mut sent = self.clone();
        match value {
            None => sent.headers.retain(|(known, _)| *known != name),
            Some(value) => {
                let known = sent.headers.iter_mut().find(|(known, _)| *known == name);
                known.unwrap().1 = value.as_bytes().to_vec();
            }
        }
        sent
    }

    fn at(&self, at: i64) -> Self {
        Sent { at, ..self.clone() }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    /// Its event, or why there is none.
    fn take(&self, secrets: &str) -> Result<Entry, String> {
        let webhooks = Webhooks::parse(secrets).unwrap();
        let headers = self.headers();
        let input = Input {
            body: &self.body,
            headers: &headers,
            name: "t",
            trace_id: None,
            batch_events_max: 1,
        };
        let senders = Senders::of(&webhooks, "t").map_err(|problem| problem.detail().to_owned())?;
        let watch = Watch { now: self.at * 1000 + 999, tolerance_seconds: 300 };
        let delivery = senders.verify(&input, watch).map_err(|unverified| {
            format!("{}: {}", unverified.reason.as_str(), Problem::from(unverified).detail())
        })?;
        delivery.event().map_err(|problem| problem.detail().to_owned())
    }

    #[track_caller]
    fn assert_taken(&self, secrets: &str) -> Event {
        self.take(secrets).unwrap().unwrap()
    }

    #[track_caller]
    fn assert_refused(&self, secrets: &str, expected: &str) {
        let why = self.take(secrets).unwrap_err();
        assert!(why.starts_with(expected), "expected {expected}, got {why}");
    }
}

fn hmac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The example of the Standard Webhooks libraries.
fn standard() -> Sent {
    Sent::new(
        &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        r#"{"test": 2432232314}"#,
    )
}

/// The example of GitHub's documentation, and the header of the delivery.
fn github() -> Sent {
    Sent::new(
        &[
            (
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-github-event", "push"),
        ],
        "Hello, World!",
    )
}

const GITHUB: &str = "t github It's a Secret to Everybody";

fn stripe_signature(secret: &str, at: i64, body: &str) -> String {
    hex(&hmac(secret.as_bytes(), &[at.to_string().as_bytes(), b".", body.as_bytes()]))
}

const STRIPE_BODY: &str = r#"{"id": "evt_1", "object": "event", "created": 1614265000}"#;

fn stripe() -> Sent {
    let digest = stripe_signature("whsec_test", AT, STRIPE_BODY);
    let header = format!("t={AT},v1={digest},v0={}", "0".repeat(64));
    Sent::new(&[("stripe-signature", &header)], STRIPE_BODY)
}

const STRIPE: &str = "t stripe whsec_test";

fn private_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public_key() -> String {
    format!("t standard whpk_{}", STANDARD.encode(private_key().verifying_key().as_bytes()))
}

fn signed_by_key() -> Sent {
    let sent = standard();
    let message = [b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.", &sent.body[..]].concat();
    let signature = STANDARD.encode(private_key().sign(&message).to_bytes());
    sent.with("webhook-signature", Some(&format!("v1a,{signature}")))
}

#[test]
fn standard_webhooks_are_taken() {
    let event = standard().assert_taken(&format!("t standard {SECRET}"));
    assert_eq!(event.topic().as_str(), "t");
    assert_eq!(event.event_id().as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    assert_eq!(event.source().as_str(), "standard-webhooks");
    assert_eq!(event.timestamp(), Some("2021-02-25T15:02:10Z"));
    assert_eq!(event.payload(), r#"{"test":2432232314}"#);
    signed_by_key().assert_taken(&public_key());
    // The names that Svix has had before.
    let mut svix = standard();
    for (header, name) in
        svix.headers.iter_mut().zip(["svix-id", "svix-timestamp", "svix-signature"])
    {
        header.0 = name;
    }
    svix.assert_taken(&format!("t standard {SECRET}"));
}

#[test]
fn github_is_taken() {
    let event = github().assert_taken(GITHUB);
    assert_eq!(event.event_id().as_str(), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(event.source().as_str(), "github/push");
    assert_eq!(event.timestamp(), None);
    assert_eq!(event.payload(), r#"{"message":"Hello, World!"}"#);
    for odd in ["", "a b", "é", &"x".repeat(65)] {
        let event = github().with("x-github-event", Some(odd)).assert_taken(GITHUB);
        assert_eq!(event.source().as_str(), "github");
    }
}

#[test]
fn stripe_is_taken() {
    let event = stripe().assert_taken(STRIPE);
    assert_eq!(event.event_id().as_str(), "evt_1");
    assert_eq!(event.source().as_str(), "stripe");
    assert_eq!(event.timestamp(), Some("2021-02-25T14:56:40Z"));
    for (body, id, timestamp) in [
        (r#"{"id":"e","created":"x"}"#, Ok("e"), Some("2021-02-25T15:02:10Z")),
        ("{}", Err("event_id is required: the body has no id"), None),
        ("no JSON", Err("event_id is required: the body has no id"), None),
        (r#"{"id":7}"#, Err("event_id must be a string, is a number"), None),
    ] {
        let header = format!("t={AT},v1={}", stripe_signature("whsec_test", AT, body));
        let entry = Sent::new(&[("stripe-signature", &header)], body).take(STRIPE).unwrap();
        match (entry, id) {
            (Ok(event), Ok(id)) => {
                assert_eq!((event.event_id().as_str(), event.timestamp()), (id, timestamp));
            }
            (Err(wrong), Err(expected)) => assert_eq!(wrong[0].to_string(), expected),
            (entry, _) => panic!("{body}: {entry:?}"),
        }
    }
}

#[test]
fn the_vectors_of_rfc_8032_are_right() {
    for (public, message, signature) in [
        (
            "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            &[][..],
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
            b"r",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
            b"\xaf\x82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let webhooks = Webhooks::parse(&format!("t standard whpk_{public}")).unwrap();
        let Some((_, WebhookKey::Ed25519(key))) = webhooks.of("t").first().copied() else {
            panic!("no key")
        };
        let digit = |at: usize| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
        let mut bytes: Vec<u8> = (0..signature.len()).step_by(2).map(digit).collect();
        let signature = |bytes: &[u8]| ed25519_dalek::Signature::from_slice(bytes).unwrap();
        assert!(key.verify_strict(message, &signature(&bytes)).is_ok());
        assert!(key.verify_strict(b"x", &signature(&bytes)).is_err());
        bytes[40] ^= 1;
        assert!(key.verify_strict(message, &signature(&bytes)).is_err());
    }
}

#[test]
fn any_of_several_signatures_and_any_of_several_keys_will_do() {
    let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let wrong = format!("v1,{}", STANDARD.encode([1; 32]));
    let both = format!("t standard {OTHER_SECRET}\nt standard {SECRET}\n{}", public_key());
    let one = format!("t standard {SECRET}");
    for signatures in [
        format!("{wrong} {right}"),
        format!("{right} {wrong}"),
        format!("v2,abc v1a,{} v1a,zz  {wrong} junk {right}", STANDARD.encode([1; 64])),
        format!("{} {right}", [wrong.as_str(); SIGNATURES_MAX - 1].join(" ")),
    ] {
        let sent = standard().with("webhook-signature", Some(&signatures));
        sent.assert_taken(&both);
        sent.assert_taken(&one);
        sent.assert_refused(&format!("t standard {OTHER_SECRET}"), "signature: ");
        // A secret of the other kind is none.
        sent.assert_refused(&public_key(), "signature: ");
        sent.assert_refused(&format!("u standard {SECRET}"), "No webhooks of this topic");
    }
    signed_by_key().assert_taken(&both);
    signed_by_key().assert_refused(&one, "signature: ");

    let digest = |secret: &str| stripe_signature(secret, AT, STRIPE_BODY);
    let header = format!("t={AT}, v1={},v1={}", digest("whsec_old"), digest("whsec_test"));
    let sent = Sent::new(&[("stripe-signature", &header)], STRIPE_BODY);
    for secrets in [STRIPE, "t stripe whsec_old", "t stripe x\nt stripe whsec_old"] {
        sent.assert_taken(secrets);
    }
    sent.assert_refused("t stripe x", "signature: ");
    github().assert_taken(&format!("t github x\n{GITHUB}"));
}

#[test]
fn a_topic_may_have_senders_of_several_kinds() {
    let all = format!("{STRIPE}\n{GITHUB}\nt standard {SECRET}");
    assert_eq!(standard().assert_taken(&all).source().as_str(), "standard-webhooks");
    assert_eq!(github().assert_taken(&all).source().as_str(), "github/push");
    assert_eq!(stripe().assert_taken(&all).source().as_str(), "stripe");
    Sent::new(&[], "{}").assert_refused(&all, "missing_header: The header stripe-signature");
}

#[test]
fn what_is_wrong_is_refused_by_its_reason() {
    let secrets = format!("t standard {SECRET}\n{}", public_key());
    let twice = |name: &'static str, sent: &Sent| {
        let mut sent = sent.clone();
        let again = sent.headers.iter().find(|(known, _)| *known == name).unwrap().clone();
        sent.headers.push(again);
        sent
    };
    for (sent, secrets, reason) in [
        (standard().with("webhook-id", Some("msg_other")), &*secrets, "signature"),
        (standard().with("webhook-timestamp", Some("1614265331")), &secrets, "signature"),
        (Sent { body: b"{\"test\":2432232314}".to_vec(), ..standard() }, &secrets, "signature"),
        (Sent { body: Vec::new(), ..standard() }, &secrets, "signature"),
        (standard().with("webhook-id", None), &secrets, "missing_header"),
        (standard().with("webhook-timestamp", None), &secrets, "missing_header"),
        (standard().with("webhook-signature", None), &secrets, "missing_header"),
        (standard().with("webhook-id", Some(" ")), &secrets, "invalid_header"),
        (standard().with("webhook-signature", Some("")), &secrets, "invalid_header"),
        (standard().with("webhook-timestamp", Some("1614265330.0")), &secrets, "invalid_header"),
        (standard().with("webhook-timestamp", Some("-1")), &secrets, "invalid_header"),
        (standard().with("webhook-timestamp", Some(&"9".repeat(40))), &secrets, "invalid_header"),
        (standard().with("webhook-id", Some("é")), &secrets, "invalid_header"),
        (twice("webhook-id", &standard()), &secrets, "invalid_header"),
        (twice("webhook-timestamp", &standard()), &secrets, "invalid_header"),
        (twice("webhook-signature", &standard()), &secrets, "invalid_header"),
        (standard().at(AT + 301), &secrets, "timestamp"),
        (standard().at(AT - 301), &secrets, "timestamp"),
        (standard().with("webhook-timestamp", Some("999999999999")), &secrets, "timestamp"),
        (github().with("x-hub-signature-256", Some("sha256=00")), GITHUB, "invalid_header"),
        (github().with("x-hub-signature-256", Some(&"0".repeat(71))), GITHUB, "invalid_header"),
        (github().with("x-hub-signature-256", None), GITHUB, "missing_header"),
        (github().with("x-github-delivery", None), GITHUB, "missing_header"),
        (twice("x-github-delivery", &github()), GITHUB, "invalid_header"),
        (twice("x-hub-signature-256", &github()), GITHUB, "invalid_header"),
        (Sent { body: b"Hello, World?".to_vec(), ..github() }, GITHUB, "signature"),
        (github(), "t github It's a Secret to Everybod", "signature"),
        (stripe().with("stripe-signature", None), STRIPE, "missing_header"),
        (stripe().with("stripe-signature", Some("v1=00")), STRIPE, "invalid_header"),
        (stripe().with("stripe-signature", Some("t=1,t=1,v1=00")), STRIPE, "invalid_header"),
        (stripe().with("stripe-signature", Some("t=,v1=00")), STRIPE, "invalid_header"),
        (stripe().with("stripe-signature", Some("t=1614265330")), STRIPE, "signature"),
        (stripe().with("stripe-signature", Some("t=1614265330,v1=zz")), STRIPE, "signature"),
        (twice("stripe-signature", &stripe()), STRIPE, "invalid_header"),
        (stripe().at(AT + 301), STRIPE, "timestamp"),
        (stripe().at(AT - 301), STRIPE, "timestamp"),
        // The secret as it is, with what it begins with.
        (stripe(), "t stripe test", "signature"),
    ] {
        sent.assert_refused(secrets, &format!("{reason}: "));
    }
    for at in [AT - 300, AT + 300] {
        standard().at(at).assert_taken(&secrets);
        stripe().at(at).assert_taken(STRIPE);
    }
    let many = |one: &str, between: &str| [one; SIGNATURES_MAX + 1].join(between);
    let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let sent = standard().with("webhook-signature", Some(&many(right, " ")));
    sent.assert_refused(&secrets, "invalid_header: The header webhook-signature has more than 10");
    let header = format!("t={AT},{}", many("v1=00", ","));
    let sent = stripe().with("stripe-signature", Some(&header));
    sent.assert_refused(STRIPE, "invalid_header: The header stripe-signature has more than 10");
}

/// Every byte of a signature counts.
#[test]
fn a_signature_that_is_cut_or_changed_is_none() {
    for (sent, name, secrets, begin) in [
        (standard(), "webhook-signature", format!("t standard {SECRET}"), "v1,".len()),
        (signed_by_key(), "webhook-signature", public_key(), "v1a,".len()),
        (github(), "x-hub-signature-256", GITHUB.to_owned(), "sha256=".len()),
        (stripe(), "stripe-signature", STRIPE.to_owned(), "t=1614265330,v1=".len()),
    ] {
        let headers = sent.headers();
        let value = headers.get(name).unwrap().to_str().unwrap();
        let end = value.find(",v0").unwrap_or(value.len());
        for at in begin..end {
            let cut = sent.with(name, Some(&value[..at]));
            assert!(cut.take(&secrets).is_err(), "{name}: {}", &value[..at]);
            let other = if &value[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &value[..at], &value[at + 1..]);
            assert!(sent.with(name, Some(&changed)).take(&secrets).is_err(), "{name}: {changed}");
        }
    }
}

#[test]
fn bodies_are_kept_whole() {
    let take = |body: &[u8], media_type: &str| {
        let digest = hmac(b"s", &[body]);
        let header = format!("sha256={}", hex(&digest));
        let sent = Sent::new(
            &[
                ("x-hub-signature-256", &header),
                ("x-github-delivery", "1"),
                ("content-type", media_type),
            ],
            "",
        );
        let entry = Sent { body: body.to_vec(), ..sent }.take("t github s")?;
        entry.map(|event| event.payload().to_owned()).map_err(|wrong| wrong[0].to_string())
    };
    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
    for (body, media_type, expected) in [
        ("{\"b\": 1.0, \"a\": [1, {}]}", "application/json", r#"{"b":1.0,"a":[1,{}]}"#),
        ("[1]", "", "[1]"),
        ("7", "text/plain", "7"),
        ("\u{feff}{}", "application/json", "{}"),
        ("{\"a\":1} {\"a\":2}", "application/json", r#"{"message":"{\"a\":1} {\"a\":2}"}"#),
        ("", "application/json", r#"{"message":""}"#),
        ("payload=%7B%22a%22%3A+%22%2B%22%7D", FORM, r#"{"a":"+"}"#),
        ("payload=%7B%7D", "text/plain", r#"{"message":"payload=%7B%7D"}"#),
        ("a=1&payload=%7B%7D", FORM, r#"{"message":"a=1&payload=%7B%7D"}"#),
    ] {
        assert_eq!(take(body.as_bytes(), media_type).as_deref(), Ok(expected), "{body}");
    }
    assert_eq!(take(b"\xff", ""), Err("The body is neither JSON nor text in UTF-8.".to_owned()));
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    let why = take(deep.as_bytes(), "").unwrap_err();
    assert!(why.starts_with("payload is nested deeper"), "{why}");
}

/// A small generator, so that a failure can be run again (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Whatever the headers hold, nothing of them is taken that was not signed, and nothing
/// panics.
#[test]
fn headers_of_any_kind_are_refused_in_peace() {
    const PIECES: [&str; 22] = [
        "v1,",
        "v1a,",
        "v1=",
        "v2,",
        "t=",
        "sha256=",
        "1614265330",
        "0",
        "-1",
        "9999999999999",
        " ",
        ",",
        "=",
        ".",
        "+",
        "%",
        "é",
        "\t",
        "AAAA",
        "757107ea0eb2509f",
        "msg_",
        "g0hM9SsE+OTP",
    ];
    let mut random = Random(0x5eed);
    for round in 0..20_000 {
        let (sent, secrets) = match round % 4 {
            0 => (standard(), format!("t standard {SECRET}")),
            1 => (signed_by_key(), public_key()),
            2 => (github(), GITHUB.to_owned()),
            _ => (stripe(), STRIPE.to_owned()),
        };
        let mut broken = sent.clone();
        let of = random.below(broken.headers.len());
        let (name, value) = &mut broken.headers[of];
        if *name == "x-github-event" || *name == "x-github-delivery" {
            // They are not signed.
            continue;
        }
        let before = value.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(value.len() + 1);
            match random.below(5) {
                0 => value.truncate(at),
                1 => value.splice(at..at, *b"\xff").for_each(drop),
                2 if at < value.len() => drop(value.remove(at)),
                3 if at < value.len() => value[at] ^= 1,
                _ => {
                    let piece = PIECES[random.below(PIECES.len())];
                    value.splice(at..at, piece.bytes()).for_each(drop);
                }
            }
        }
        if HeaderValue::from_bytes(value).is_err() {
            continue;
        }
        let now = broken.headers[of].1.clone();
        let taken = broken.take(&secrets).is_ok();
        // What is taken has the same signature in it, or the same value but for spaces.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (before, now) = (text(&before), text(&now));
        let signature = before.split([',', '=']).find(|part| part.len() >= 43).unwrap_or(&before);
        assert!(!taken || now.contains(signature), "{secrets}: {before} -> {now}");
    }
}
