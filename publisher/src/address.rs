//! Where a service is, and who asks.
//!
//! An address can hold a password (`http://user:password@host`). It is taken
//! apart as soon as it is read: [`Address`] knows the place, and shows of the
//! rest only that it is there. What was secret is in [`Credentials`], which shows
//! nothing and becomes a request's `Authorization`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is shown in the place of a secret.
const MASK: &str = "***";
/// What of a user's name is shown as it is; the rest is as in an address.
const USER_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a service is. Shown, serialized or as text for debugging, it has no
/// secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Without a user, a password, a query or a fragment.
    place: Url,
    credentials: Option<Credentials>,
    shown: String,
}

/// Why a text is no address. Nothing of the text is in it, as that may be a
/// secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError(String);

impl Address {
    /// The same for somebody else, or for nobody.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.shown = shown(&self.place, credentials.as_ref());
        self.credentials = credentials;
        self
    }

    /// Who asks.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The place alone.
    #[must_use]
    pub fn place(&self) -> &Url {
        &self.place
    }

    /// The address as it may be seen by anybody, without a slash at its end:
    /// `http://user:***@host:3000`.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `http://HOST:PORT`, `https://USER:PASSWORD@HOST/BASE` and the like,
    /// and what [`Address::shown`] makes of them.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why: &str| AddressError(why.to_owned());
        let place = || wrong("expected http://HOST:PORT or https://HOST");
        let mut url = Url::parse(text)
            .map_err(|error| AddressError(format!("{error}; expected http://HOST:PORT")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(place());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "expected an address without query or fragment; in a password they are written \
                 %3F and %23",
            ));
        }
        if url.path().contains('@') {
            return Err(wrong("expected no @ in the path; in a password / is written %2F"));
        }
        let credentials = credentials_of(&url);
        url.set_username("").map_err(|()| place())?;
        url.set_password(None).map_err(|()| place())?;
        Ok(Self { shown: shown(&url, credentials.as_ref()), place: url, credentials })
    }
}

fn credentials_of(url: &Url) -> Option<Credentials> {
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let (user, password) = (url.username(), url.password());
    match (user, password) {
        ("", None) => None,
        (MASK, None) => Some(Credentials { user: Vec::new(), secret: Secret::Masked }),
        (_, Some(MASK)) => Some(Credentials { user: decoded(user), secret: Secret::Masked }),
        (_, None) => Some(Credentials { user: decoded(user), secret: Secret::User }),
        (_, Some(password)) => {
            Some(Credentials { user: decoded(user), secret: Secret::Password(decoded(password)) })
        }
    }
}

fn shown(place: &Url, credentials: Option<&Credentials>) -> String {
    let text = place.as_str().trim_end_matches('/');
    match (credentials, text.split_once("://")) {
        (Some(credentials), Some((scheme, rest))) => format!("{scheme}://{credentials}@{rest}"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// A user and a password. Shown is the user, if there is a password beside it: a
/// user alone is a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Vec<u8>,
    secret: Secret,
}

/// What of credentials is secret.
#[derive(Clone, PartialEq, Eq)]
enum Secret {
    /// The user, who has no password.
    User,
    /// This, be it empty.
    Password(Vec<u8>),
    /// Something that is not known: the address is one that was shown.
    Masked,
}

impl Credentials {
    /// Of a user and a password.
    #[must_use]
    pub fn new(user: &[u8], password: &[u8]) -> Self {
        Self { user: user.to_owned(), secret: Secret::Password(password.to_owned()) }
    }

    /// The user; empty if that is a secret.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// Whether there is a password, be it empty.
    #[must_use]
    pub fn has_password(&self) -> bool {
        matches!(self.secret, Secret::Password(_))
    }

    /// The value of a request's `Authorization`, marked as secret; none if the
    /// secret is not known.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        let password = match &self.secret {
            Secret::User => &[][..],
            Secret::Password(password) => password,
            Secret::Masked => return None,
        };
        let pair = [&self.user, &b":"[..], password].concat();
        // Of ASCII alone, of which a value can be made.
        let mut value =
            HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.secret, self.user.is_empty()) {
            (Secret::User, _) | (_, true) => f.write_str(MASK),
            _ => write!(f, "{}:{MASK}", percent_encode(&self.user, USER_PLAIN)),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that may hold addresses, with what may be secret in them masked: for
/// messages that repeat what was given.
#[must_use]
pub(crate) fn masked(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>');
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_end) {
        let word = piece.trim_end_matches(is_end);
        out.push_str(&masked_word(word));
        out.push_str(&piece[word.len()..]);
    }
    out
}

fn masked_word(word: &str) -> String {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, word),
    };
    let rest = match rest.rsplit_once('@') {
        Some((before, after)) if scheme.is_some() || before.contains(':') => {
            format!("{MASK}@{after}")
        }
        _ => rest.to_owned(),
    };
    let Some(scheme) = scheme else { return rest };
    let rest = match rest.split_once('?') {
        Some((before, _)) => format!("{before}?{MASK}"),
        None => rest,
    };
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Option<String> {
        let address: Address = text.parse().unwrap();
        let value = address.credentials()?.authorization()?;
        assert!(!format!("{value:?}").contains("Basic"), "marked as secret");
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        Some(String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap())
    }

    #[test]
    fn an_address_shows_no_secret_and_sends_it() {
        for (text, shown, sent) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", None),
            ("https://example.org/base/", "https://example.org/base", None),
            ("http://ana:s3cret@host:1", "http://ana:***@host:1", Some("ana:s3cret")),
            ("https://ana:s3%40%2Fcret@host/b", "https://ana:***@host/b", Some("ana:s3@/cret")),
            ("http://ana:s3@cret@host", "http://ana:***@host", Some("ana:s3@cret")),
            ("http://ana:@host", "http://***@host", Some("ana:")),
            ("http://t0ken@host", "http://***@host", Some("t0ken:")),
            ("http://:s3cret@host", "http://***@host", Some(":s3cret")),
            ("http://a%20b:s3cret@host", "http://a%20b:***@host", Some("a b:s3cret")),
            ("http://@host", "http://host", None),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.shown(), shown, "{text}");
            assert_eq!(format!("{address} {address:?}"), format!("{shown} {shown:?}"));
            assert_eq!(header(text).as_deref(), sent, "{text}");
            assert!(!address.place().as_str().contains('@'), "{text}");
        }
    }

    #[test]
    fn an_address_that_was_shown_lacks_its_secret() {
        for (text, user) in [("http://ana:***@host", "ana"), ("http://***@host", "")] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.shown(), text);
            let credentials = address.credentials().unwrap();
            assert_eq!((credentials.user(), credentials.authorization()), (user.as_bytes(), None));
            let again: Address = serde_json::from_value(serde_json::json!(&address)).unwrap();
            assert_eq!(again, address);
        }
        let old: Address = serde_json::from_str("\"http://ana:s3cret@host\"").unwrap();
        assert_eq!(serde_json::json!(old), "http://ana:***@host");
        assert!(old.credentials().unwrap().has_password());
    }

    #[test]
    fn what_is_no_address_is_not_repeated() {
        for text in [
            "127.0.0.1:3000",
            "localhost:3000",
            "ftp://ana:s3cret@host",
            "ana:s3cret@host",
            "http://ana:s3cret@",
            "http://ana:s3cret@host:99999",
            "http://ana:s3#cret@host",
            "http://ana:s3/cret@host",
            "http://ana:12/s3cret@host",
            "http://ana:12?s3cret@host",
            "http://host/?token=s3cret",
            "http://host/#s3cret",
            "http://[s3cret",
            "",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("s3") && !error.contains("cret"), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_in_a_text_are_masked() {
        for (text, expected) in [
            ("error: 'http://ana:s3cret@host' found", "error: 'http://***@host' found"),
            ("run --url=https://t0ken@host/a?b=c now", "run --url=https://***@host/a?*** now"),
            ("ana:s3cret@host", "***@host"),
            ("mail ana@example.org", "mail ana@example.org"),
            ("http://ana:s3/cr@et@host\nnext", "http://***@host\nnext"),
            ("http://host:3000/ is fine", "http://host:3000/ is fine"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
