//! Who asks, and whether they may: by the key that comes with a request.
//!
//! A key comes in `X-Api-Key`, or in `Authorization` by one of the schemes that clients
//! have: `Bearer`, `Basic` (as the password, whoever the user is, or as the user without
//! a password), `Splunk`, `ApiKey`.
//! What is read may come by an access token instead, for those who can set no header.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures::FutureExt;
use futures::future::{self, LocalBoxFuture};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest, Sha256};

use crate::config::{Key, Keys, Scope};
use crate::http::access_token;
use crate::http::problem::{Code, Problem};
use crate::http::query::{Parameter, Query, Takes};
use crate::platform::SharedPlatform;
use crate::time::UnixMillis;

/// After how long it is looked again whether a key has ended: the clock may be set.
const END_SLEEP_MAX: Duration = Duration::from_secs(60);

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whatever browsers say of a request, no other client does.
const OF_BROWSERS: [&str; 2] = ["sec-fetch-mode", "sec-fetch-site"];

/// The parameter of an access token.
pub(crate) const ACCESS_TOKEN: Parameter =
    Parameter::new("access_token", Takes::Pattern(r"^[A-Za-z0-9._-]+\.[0-9]+\.[0-9a-f]{64}$"));

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Whoever has a key.
    AnyKey,
    /// Whoever has a key that is good for this.
    Scope(Scope),
}

/// Who sent a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Option<Rc<Key>>);

impl Caller {
    /// The key of the caller, if keys are asked for.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.0.as_deref()
    }

    /// That the key has ended, if it has.
    pub(crate) fn ended(&self, now: impl FnOnce() -> UnixMillis) -> Option<Problem> {
        let key = self.key().filter(|key| key.expires.is_some())?;
        key.has_expired(now()).then(|| Problem::new(Code::KeyExpired, has_ended(key)))
    }

    /// Waits until the key ends: for ever, if it has no end.
    pub(crate) fn end(&self, platform: &SharedPlatform) -> LocalBoxFuture<'static, ()> {
        let Some(expires) = self.key().and_then(|key| key.expires) else {
            return future::pending().boxed_local();
        };
        let platform = Rc::clone(platform);
        async move {
            // What is not above 0 is over.
            while let Ok(left @ 1..) = u64::try_from(expires - platform.now()) {
                platform.sleep(Duration::from_millis(left).min(END_SLEEP_MAX)).await;
            }
        }
        .boxed_local()
    }

    /// Checks that all of these topics are the caller's business; none stands for all.
    ///
    /// # Errors
    ///
    /// 403 when one is not.
    pub(crate) fn check_topics<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Result<(), Problem> {
        let Some(key) = self.key().filter(|key| !key.is_of_all_topics()) else { return Ok(()) };
        let mut is_any_named = false;
        for topic in topics {
            is_any_named = true;
            if !key.is_of(topic) {
                return Err(Problem::topic_refused(&key.name, topic));
            }
        }
        match is_any_named {
            true => Ok(()),
            false => Err(all_topics_refused(&key.name)),
        }
    }

    /// Checks that every topic is the caller's business.
    ///
    /// # Errors
    ///
    /// 403 when not.
    pub(crate) fn check_all_topics(&self) -> Result<(), Problem> {
        self.check_topics([])
    }
}

fn all_topics_refused(name: &str) -> Problem {
    let detail =
        format!("The key {name} is of some topics alone, and this is about others as well.");
    Problem::new(Code::TopicRefused, detail)
}

/// The caller of an operation that is for those with `access`. The clock is asked only if
/// there are keys.
///
/// # Errors
///
/// 401 without a key, and with one that is not known or has ended; 403 with one that is
/// not good for it.
pub(crate) fn authenticate(
    keys: &Keys,
    access: Access,
    head: &Parts,
    now: impl FnOnce() -> UnixMillis,
) -> Result<Caller, Problem> {
    if keys.is_empty() || access == Access::Open {
        return Ok(Caller::default());
    }
    let now = now();
    let key = match presented(&head.headers)? {
        Some(secret) => {
            let digest = Sha256::digest(secret.as_bytes()).into();
            keys.of_digest(&digest).ok_or_else(|| refusal(head, Code::KeyUnknown, UNKNOWN))?
        }
        None => by_token(keys, access, head, now)?,
    };
    if key.has_expired(now) {
        return Err(refusal(head, Code::KeyExpired, &has_ended(key)));
    }
    match access {
        Access::Scope(scope) if !key.has(scope) => {
            let (name, scope) = (&key.name, scope.name());
            let detail = format!("The key {name} does not have the scope {scope}.");
            let challenge = format!("{BEARER}, error=\"insufficient_scope\", scope=\"{scope}\"");
            let problem = Problem::new(Code::ScopeMissing, detail);
            Err(challenged(problem, &challenge))
        }
        _ => Ok(Caller(Some(Rc::clone(key)))),
    }
}

fn has_ended(key: &Key) -> String {
    format!("The key {} has ended.", key.name)
}

const UNKNOWN: &str = "This key is not known.";

/// The key of an access token, which is good for reading alone.
fn by_token<'k>(
    keys: &'k Keys,
    access: Access,
    head: &Parts,
    now: UnixMillis,
) -> Result<&'k Rc<Key>, Problem> {
    let reads = matches!(access, Access::Scope(Scope::Read))
        && [Method::GET, Method::HEAD].contains(&head.method);
    let query = Query::parse(head.uri.query());
    match query.get(&ACCESS_TOKEN)? {
        Some(token) if reads => access_token::key_of(keys, token, now).ok_or_else(|| {
            refusal(head, Code::KeyUnknown, "The access token is not valid, or no longer.")
        }),
        _ => Err(refusal(
            head,
            Code::KeyRequired,
            "A key is needed, in Authorization (Bearer, or Basic as the password) or X-Api-Key.",
        )),
    }
}

/// The key that a client sent, if it did.
fn presented(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Problem> {
    let is_plain = headers.contains_key(X_API_KEY);
    let name = if is_plain { X_API_KEY } else { header::AUTHORIZATION };
    let mut given = headers.get_all(&name).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let not_understood = |why: &str| {
        let problem = Problem::new(Code::KeyUnknown, format!("The header {name} {why}."));
        challenged(problem, BEARER)
    };
    if given.any(|other| other != first) {
        return Err(not_understood("is there more than once"));
    }
    let value = first.to_str().map_err(|_| not_understood("is no text"))?;
    let secret = if is_plain { Some(value.trim().into()) } else { of_scheme(value) };
    let secret = secret.ok_or_else(|| {
        not_understood("has none of the schemes Bearer, Basic, Splunk and ApiKey, or no key")
    })?;
    Ok(Some(secret))
}

/// The key in the value of `Authorization`.
fn of_scheme(value: &str) -> Option<Cow<'_, str>> {
    let (scheme, given) = value.trim().split_once(' ')?;
    let given = given.trim();
    let pair = || {
        let bytes = STANDARD.decode(given).or_else(|_| STANDARD_NO_PAD.decode(given)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, key) = text.split_once(':')?;
        Some(if key.is_empty() { user } else { key }.to_owned())
    };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "splunk" => Some(given.into()),
        "basic" => pair().map(Cow::Owned),
        // Clients of Elasticsearch take an id and a key, or whatever text they are given.
        "apikey" => Some(pair().map_or(given.into(), Cow::Owned)),
        _ => None,
    }
}

/// The scheme by which a page, too, sends a key.
pub(crate) const BEARER: &str = "Bearer realm=\"sekali\"";
const BASIC: &str = "Basic realm=\"sekali\", charset=\"UTF-8\"";

fn refusal(head: &Parts, code: Code, detail: &str) -> Problem {
    let problem = challenged(Problem::new(code, detail), BEARER);
    // Browsers would ask for a password, and pages ask for the key themselves.
    match OF_BROWSERS.iter().any(|name| head.headers.contains_key(*name)) {
        true => problem,
        false => challenged(problem, BASIC),
    }
}

fn challenged(problem: Problem, challenge: &str) -> Problem {
    match HeaderValue::from_str(challenge) {
        Ok(challenge) => problem.with_header(header::WWW_AUTHENTICATE, challenge),
        // Names of scopes are always a header's value.
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    use super::*;
    use crate::text::hex;

    const SHOP: &str = "sekali_shop";
    const READER: &str = "sekali_reader:with-colon";
    const NOW: UnixMillis = 1_767_323_045_678;

    fn keys() -> Keys {
        let digest = |secret: &str| hex(&Sha256::digest(secret));
        let shop = json!({"name": "shop", "sha256": digest(SHOP), "scopes": ["publish"]});
        let reader = json!({"name": "reader", "sha256": digest(READER), "scopes": ["read"],
            "expires": "2026-06-01"});
        Keys::parse(&json!([shop, reader]).to_string()).unwrap()
    }

    fn head(method: &str, uri: &str, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn name_of(headers: &[(&str, &[u8])]) -> Result<String, Code> {
        let caller = authenticate(&keys(), Access::AnyKey, &head("GET", "/", headers), || NOW);
        caller.map(|caller| caller.key().unwrap().name.clone()).map_err(|problem| {
            assert_eq!(problem.status().as_u16(), 401);
            problem.code()
        })
    }

    fn authorization(value: &str) -> Result<String, Code> {
        name_of(&[("authorization", value.as_bytes())])
    }

    #[test]
    fn a_key_comes_by_any_of_the_schemes() {
        let encode = |text: &str| STANDARD.encode(text);
        for value in [
            format!("Bearer {SHOP}"),
            format!("bearer   {SHOP} "),
            format!("Splunk {SHOP}"),
            format!("ApiKey {SHOP}"),
            format!("ApiKey {}", encode(&format!("id:{SHOP}"))),
            format!("Basic {}", encode(&format!(":{SHOP}"))),
            format!("Basic {}", encode(&format!("{SHOP}:"))),
            format!("BASIC {}", encode(&format!("anybody:{SHOP}")).trim_end_matches('=')),
        ] {
            assert_eq!(authorization(&value), Ok("shop".to_owned()), "{value}");
        }
        let basic = format!("Basic {}", encode(&format!("user:{READER}")));
        assert_eq!(authorization(&basic), Ok("reader".to_owned()));
        assert_eq!(name_of(&[("x-api-key", SHOP.as_bytes())]), Ok("shop".to_owned()));
        // A proxy may have one of its own.
        let both = [("authorization", &b"Basic eDp5"[..]), ("x-api-key", SHOP.as_bytes())];
        assert_eq!(name_of(&both), Ok("shop".to_owned()));
    }

    #[test]
    fn nothing_else_lets_anybody_in() {
        assert_eq!(name_of(&[]), Err(Code::KeyRequired));
        let digest = hex(&Sha256::digest(SHOP));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic",
            "Basic !",
            "Basic eA==",
            "Digest x",
            SHOP,
            "Bearer sekali_shopp",
            "Bearer sekali_sho",
            "Bearer SEKALI_SHOP",
            &digest,
            &format!("Bearer {digest}"),
            &format!("Basic {}", STANDARD.encode(SHOP)),
        ] {
            assert_eq!(authorization(value), Err(Code::KeyUnknown), "{value:?}");
        }
        let key = format!("Bearer {SHOP}").into_bytes();
        let twice = [("authorization", &key[..]), ("authorization", b"Bearer x")];
        assert_eq!(name_of(&twice), Err(Code::KeyUnknown));
        let again = [("authorization", &key[..]), ("authorization", &key)];
        assert_eq!(name_of(&again), Ok("shop".to_owned()));
    }

    #[test]
    fn whatever_comes_is_refused_without_being_told_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(15);
        let schemes = ["Bearer ", "Basic ", "Splunk ", "ApiKey ", "", "Negotiate "];
        for _ in 0..20_000 {
            let mut value = schemes[rng.random_range(0..schemes.len())].as_bytes().to_vec();
            let length = rng.random_range(0..60);
            match rng.random_range(0..3) {
                0 => value.extend((0..length).map(|_| rng.random_range(32..=255_u8))),
                1 => {
                    let text: Vec<u8> = (0..length).map(|_| rng.random()).collect();
                    value.extend(STANDARD.encode(text).bytes());
                }
                _ => {
                    let mut text = SHOP.to_owned().into_bytes();
                    let place = rng.random_range(0..text.len());
                    text[place] ^= 1 << rng.random_range(0..6);
                    value.extend(text);
                }
            }
            value.retain(|byte| *byte != 127);
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            let head = head("GET", "/", &[("authorization", value.as_bytes())]);
            let problem = authenticate(&keys(), Access::AnyKey, &head, || NOW).unwrap_err();
            assert_eq!(problem.status().as_u16(), 401);
            let text = value.to_str().unwrap_or("\u{0}");
            let secret = text.split_once(' ').map_or(text, |(_, secret)| secret);
            assert!(secret.len() < 8 || !problem.detail().contains(secret), "{text}");
        }
    }

    #[test]
    fn a_key_ends_and_has_scopes() {
        let key = format!("Bearer {READER}").into_bytes();
        let head = head("GET", "/events", &[("authorization", &key)]);
        let ask =
            |access, now| authenticate(&keys(), access, &head, || now).map_err(|one| one.code());
        let end = crate::time::parse("2026-06-01").unwrap();
        ask(Access::Scope(Scope::Read), end - 1).unwrap();
        assert_eq!(ask(Access::AnyKey, end).unwrap_err(), Code::KeyExpired);
        assert_eq!(ask(Access::Scope(Scope::Publish), NOW).unwrap_err(), Code::ScopeMissing);
        assert_eq!(ask(Access::Scope(Scope::Admin), NOW).unwrap_err(), Code::ScopeMissing);
        assert!(ask(Access::Open, end).unwrap().key().is_none());
    }

    #[test]
    fn browsers_are_not_made_to_ask_for_a_password() {
        let challenges = |headers: &[(&str, &[u8])]| {
            let problem = authenticate(&keys(), Access::AnyKey, &head("GET", "/", headers), || NOW);
            let reply = problem.unwrap_err().into_reply();
            let given = reply.headers.get_all(header::WWW_AUTHENTICATE).iter();
            given.map(|one| one.to_str().unwrap()[..5].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(challenges(&[]), ["Beare", "Basic"]);
        assert_eq!(challenges(&[("sec-fetch-mode", b"cors")]), ["Beare"]);
    }

    #[test]
    fn a_token_reads_for_a_while() {
        let keys = keys();
        let reader = keys.named("reader").unwrap();
        let token = access_token::new(reader, NOW);
        let end = NOW + i64::from(access_token::SECONDS) * 1_000;
        let ask = |token: &str, method: &str, access, now| {
            let uri = format!("/events/stream?access_token={token}");
            authenticate(&keys, access, &head(method, &uri, &[]), || now).map_err(|one| one.code())
        };
        let read = Access::Scope(Scope::Read);
        let caller = ask(&token, "GET", read, end - 1).unwrap();
        assert_eq!(caller.key().unwrap().name, "reader");
        assert_eq!(ask(&token, "GET", read, end).unwrap_err(), Code::KeyUnknown);
        assert_eq!(ask(&token, "POST", read, NOW).unwrap_err(), Code::KeyRequired);
        assert_eq!(ask(&token, "GET", Access::AnyKey, NOW).unwrap_err(), Code::KeyRequired);
        let publish = Access::Scope(Scope::Publish);
        assert_eq!(ask(&token, "GET", publish, NOW).unwrap_err(), Code::KeyRequired);
        let longer = token.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        let other = token.replacen("reader", "shop", 1);
        let (short, _) = token.split_at(token.len() - 2);
        for wrong in [&longer, &other, short, "", "reader", "reader.1", &format!("{token}0")] {
            assert_eq!(ask(wrong, "GET", read, NOW).unwrap_err(), Code::KeyUnknown, "{wrong}");
        }
        // One by a key that does not read.
        let token = access_token::new(keys.named("shop").unwrap(), NOW);
        assert_eq!(ask(&token, "GET", read, NOW).unwrap_err(), Code::ScopeMissing);
    }

    #[test]
    fn a_key_of_some_topics_is_of_no_others() {
        let entry = json!({"name": "a", "sha256": "0a".repeat(32), "scopes": ["read"],
            "topics": ["shop.*", "log"]});
        let keys = Keys::parse(&entry.to_string()).unwrap();
        let caller = Caller(keys.named("a").cloned());
        caller.check_topics(["shop.a", "log"]).unwrap();
        for topics in [&["shop.a", "other"][..], &[]] {
            let problem = caller.check_topics(topics.iter().copied()).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (403, Code::TopicRefused));
        }
        caller.check_all_topics().unwrap_err();
        Caller::default().check_all_topics().unwrap();
    }
}
