//! Whether a delivery is of whom it says: the schemes by which webhooks are signed.
//!
//! - Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the
//!   same with `svix-`, over `id.timestamp.body`.
//! - GitHub: `X-Hub-Signature-256`, over the body alone.
//! - Stripe: `Stripe-Signature`, which has the time in it, over `time.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use hmac::Mac;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::{Scheme, WebhookKey};
use crate::http::problem::{Code, Problem};
use crate::time::UnixMillis;

/// By what it is seen how long ago a delivery was signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) now: UnixMillis,
    /// How far a sender's clock may be off, either way, and how long a delivery may take.
    pub(crate) tolerance_seconds: u32,
}

/// Most signatures of one delivery. Each is checked with every key of its topic.
pub(crate) const SIGNATURES_MAX: usize = 10;

/// Most digits of a time; more are beyond any year that can be told.
const TIME_DIGITS_MAX: usize = 12;

/// Length of a signature by a secret, in bytes: SHA-256.
const DIGEST_BYTES: usize = 32;

/// The headers of Standard Webhooks: id, time, signatures. Svix has had its own names
/// before, and still sends those.
static STANDARD_HEADERS: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("webhook-id"),
        HeaderName::from_static("webhook-timestamp"),
        HeaderName::from_static("webhook-signature"),
    ],
    [
        HeaderName::from_static("svix-id"),
        HeaderName::from_static("svix-timestamp"),
        HeaderName::from_static("svix-signature"),
    ],
];

const X_HUB_SIGNATURE_256: HeaderName = HeaderName::from_static("x-hub-signature-256");

const X_GITHUB_DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");

const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// What is wrong with a delivery that is not believed, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A header is missing that its scheme has.
    MissingHeader,
    /// A header is not as its scheme has it.
    InvalidHeader,
    /// It was signed too long ago, or in the future.
    Timestamp,
    /// No signature is by a key of the topic.
    Signature,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Reason; 4] =
        [Reason::MissingHeader, Reason::InvalidHeader, Reason::Timestamp, Reason::Signature];

    /// As it stands in `/metrics`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::MissingHeader => "missing_header",
            Reason::InvalidHeader => "invalid_header",
            Reason::Timestamp => "timestamp",
            Reason::Signature => "signature",
        }
    }

    /// The name under which instances count it.
    pub(crate) fn counter(self) -> String {
        format!("webhooks_refused/{}", self.as_str())
    }
}

/// A delivery that is not believed.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub(crate) reason: Reason,
    detail: String,
}

impl Unverified {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Unverified { reason, detail: detail.into() }
    }

    fn header(name: &HeaderName, what: &str) -> Self {
        Unverified::new(Reason::InvalidHeader, format!("The header {name} {what}."))
    }
}

impl From<Unverified> for Problem {
    fn from(unverified: Unverified) -> Self {
        // A 401 has to say what would be another way in.
        Problem::new(Code::WebhookRefused, unverified.detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Webhook"))
    }
}

/// What a delivery says beside its body. Its signature was checked.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) scheme: Scheme,
    /// How it is called, if its headers say so.
    pub(super) id: Option<&'a str>,
    /// When it was signed, in seconds since 1970, if its headers say so.
    pub(super) timestamp: Option<&'a str>,
}

/// Checks a delivery with the keys of its topic. If those are of several schemes, it is
/// of the first whose signature it has.
pub(super) fn verify<'a>(
    keys: &[(Scheme, &WebhookKey)],
    headers: &'a HeaderMap,
    body: &[u8],
    watch: Watch,
) -> Result<Signed<'a>, Unverified> {
    let is_signed = |scheme: &Scheme| match scheme {
        Scheme::Standard => {
            STANDARD_HEADERS.iter().any(|[.., signatures]| headers.contains_key(signatures))
        }
        Scheme::Github => headers.contains_key(X_HUB_SIGNATURE_256),
        Scheme::Stripe => headers.contains_key(STRIPE_SIGNATURE),
    };
    let mut schemes = keys.iter().map(|(scheme, _)| *scheme);
    let first = schemes.clone().next().unwrap_or(Scheme::Standard);
    let scheme = schemes.find(is_signed).unwrap_or(first);
    let keys = keys.iter().filter(|(of, _)| *of == scheme).map(|(_, key)| *key);
    match scheme {
        Scheme::Standard => standard(keys, headers, body, watch),
        Scheme::Github => github(keys, headers, body),
        Scheme::Stripe => stripe(keys, headers, body, watch),
    }
}

fn standard<'a, 'k>(
    mut keys: impl Iterator<Item = &'k WebhookKey>,
    headers: &'a HeaderMap,
    body: &[u8],
    watch: Watch,
) -> Result<Signed<'a>, Unverified> {
    let [usual, _] = &STANDARD_HEADERS;
    let sent = STANDARD_HEADERS.iter().find(|[.., signatures]| headers.contains_key(signatures));
    let [id_name, time_name, signatures_name] = sent.unwrap_or(usual);
    let given = one(headers, signatures_name)?;
    let (id, timestamp) = (one(headers, id_name)?, one(headers, time_name)?);
    let (mut by_secret, mut by_key) = (Vec::new(), Vec::new());
    for (index, given) in given.split(' ').filter(|given| !given.is_empty()).enumerate() {
        if index == SIGNATURES_MAX {
            return Err(too_many(signatures_name));
        }
        // Those of versions that are still to come are not looked at.
        match given.split_once(',') {
            Some(("v1", digest)) => by_secret.extend(from_base64::<DIGEST_BYTES>(digest)),
            Some(("v1a", signature)) => {
                let bytes = from_base64::<{ Signature::BYTE_SIZE }>(signature);
                by_key.extend(bytes.map(|bytes| Signature::from_bytes(&bytes)));
            }
            _ => {}
        }
    }
    check_time(time_name, timestamp, watch)?;
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let mut whole = None;
    let fits = |key: &WebhookKey| match key {
        WebhookKey::Hmac(_) => is_by_secret(key, &parts, &by_secret),
        WebhookKey::Ed25519(key) if !by_key.is_empty() => {
            let message = whole.get_or_insert_with(|| parts.concat());
            by_key.iter().any(|signature| key.verify_strict(message, signature).is_ok())
        }
        WebhookKey::Ed25519(_) => false,
    };
    match keys.any(fits) {
        true => Ok(Signed { scheme: Scheme::Standard, id: Some(id), timestamp: Some(timestamp) }),
        false => Err(no_signature_fits(signatures_name)),
    }
}

fn github<'a, 'k>(
    mut keys: impl Iterator<Item = &'k WebhookKey>,
    headers: &'a HeaderMap,
    body: &[u8],
) -> Result<Signed<'a>, Unverified> {
    let given = one(headers, &X_HUB_SIGNATURE_256)?;
    let id = one(headers, &X_GITHUB_DELIVERY)?;
    let digest = given.strip_prefix("sha256=").and_then(from_hex);
    let digest = digest.ok_or_else(|| {
        Unverified::header(&X_HUB_SIGNATURE_256, "must be sha256= and 64 hexadecimal digits")
    })?;
    match keys.any(|key| is_by_secret(key, &[body], &[digest])) {
        true => Ok(Signed { scheme: Scheme::Github, id: Some(id), timestamp: None }),
        false => Err(no_signature_fits(&X_HUB_SIGNATURE_256)),
    }
}

fn stripe<'a, 'k>(
    mut keys: impl Iterator<Item = &'k WebhookKey>,
    headers: &'a HeaderMap,
    body: &[u8],
    watch: Watch,
) -> Result<Signed<'a>, Unverified> {
    let wrong = |what: &str| Unverified::header(&STRIPE_SIGNATURE, what);
    let (mut timestamp, mut digests) = (None, Vec::new());
    for (index, given) in one(headers, &STRIPE_SIGNATURE)?.split(',').enumerate() {
        // The time is beside them.
        if index > SIGNATURES_MAX {
            return Err(too_many(&STRIPE_SIGNATURE));
        }
        match given.trim().split_once('=') {
            Some(("t", _)) if timestamp.is_some() => return Err(wrong("has more than one t=")),
            Some(("t", time)) => timestamp = Some(time),
            Some(("v1", digest)) => digests.extend(from_hex(digest)),
            _ => {}
        }
    }
    let timestamp = timestamp.ok_or_else(|| wrong("has no t="))?;
    check_time(&STRIPE_SIGNATURE, timestamp, watch)?;
    let parts = [timestamp.as_bytes(), b".", body];
    match keys.any(|key| is_by_secret(key, &parts, &digests)) {
        true => Ok(Signed { scheme: Scheme::Stripe, id: None, timestamp: Some(timestamp) }),
        false => Err(no_signature_fits(&STRIPE_SIGNATURE)),
    }
}

/// Whether one of `digests` is what this secret makes of the `parts`. How long it takes
/// does not tell how much of one is right.
fn is_by_secret(key: &WebhookKey, parts: &[&[u8]], digests: &[[u8; DIGEST_BYTES]]) -> bool {
    let WebhookKey::Hmac(secret) = key else { return false };
    if digests.is_empty() {
        return false;
    }
    let mut digest = secret.clone();
    parts.iter().for_each(|part| digest.update(part));
    digests.iter().any(|given| digest.clone().verify_slice(given).is_ok())
}

/// Checks when a delivery was signed.
fn check_time(name: &HeaderName, seconds: &str, watch: Watch) -> Result<(), Unverified> {
    let is_number = seconds.len() <= TIME_DIGITS_MAX && seconds.bytes().all(|b| b.is_ascii_digit());
    let at = Some(seconds).filter(|_| is_number).and_then(|seconds| seconds.parse::<i64>().ok());
    let at = at.ok_or_else(|| {
        Unverified::header(name, "must tell its time in whole seconds since 1970")
    })?;
    let Watch { now, tolerance_seconds } = watch;
    let off = now.div_euclid(1000).abs_diff(at);
    if off <= u64::from(tolerance_seconds) {
        return Ok(());
    }
    let detail = format!(
        "By the header {name} the webhook was signed at {at}, which is {off} s from the clock of \
         this service; at most {tolerance_seconds} s are taken (webhook_tolerance_seconds)."
    );
    Err(Unverified::new(Reason::Timestamp, detail))
}

fn no_signature_fits(name: &HeaderName) -> Unverified {
    let detail = format!(
        "No signature in the header {name} is one of this body by a secret of this topic \
         (webhook_secrets)."
    );
    Unverified::new(Reason::Signature, detail)
}

fn too_many(name: &HeaderName) -> Unverified {
    Unverified::header(name, &format!("has more than {SIGNATURES_MAX} signatures"))
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Unverified> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        let detail = format!("The header {name} is missing.");
        return Err(Unverified::new(Reason::MissingHeader, detail));
    };
    if values.next().is_some() {
        return Err(Unverified::header(name, "is given more than once"));
    }
    let value = value.to_str().map_err(|_| Unverified::header(name, "must be ASCII"))?.trim();
    match value.is_empty() {
        true => Err(Unverified::header(name, "must not be empty")),
        false => Ok(value),
    }
}

/// So many bytes of base64.
fn from_base64<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// The bytes of a digest in hexadecimal digits.
fn from_hex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut bytes = [0; DIGEST_BYTES];
    if text.len() != 2 * DIGEST_BYTES {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |of: u8| char::from(of).to_digit(16);
        let &[high, low] = digits else { return None };
        *byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(bytes)
}
