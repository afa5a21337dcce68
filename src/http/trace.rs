//! What a request is called by: its id, and the trace that it is part of.
//!
//! Whoever is in front of the service may have named the request (`X-Request-Id`), and
//! whoever began the work may have named that (`traceparent`, of [Trace Context]). Both
//! are taken up as far as they can be used, and what cannot is as good as not there: no
//! request is refused for it.
//!
//! [Trace Context]: https://www.w3.org/TR/trace-context/

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::reply::Reply;
use crate::log::Line;

/// Longest id of a request that is taken from a client, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Digits of the id of a trace, and of that of a span.
const TRACE_ID_DIGITS: usize = 32;
const SPAN_ID_DIGITS: usize = 16;

/// The flags of a trace that are known: that it is sampled, and that its id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// Makes ids that no other instance makes: by a hash whose key is random, and asked of the
/// platform once.
#[derive(Default)]
pub(crate) struct Ids {
    key: RandomState,
    made: Cell<u64>,
}

impl Ids {
    /// Numbers that look random and belong together.
    fn next<const COUNT: usize>(&self) -> [u64; COUNT] {
        let number = self.made.get();
        self.made.set(number.wrapping_add(1));
        std::array::from_fn(|part| self.key.hash_one((number, part)))
    }
}

/// What one request is called by.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// The client's, if it can be used, or one that was made.
    pub(crate) request_id: String,
    context: Option<Context>,
}

/// Where a request stands in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Context {
    trace_id: String,
    flags: u8,
    /// By what the trace is to call this request.
    span_id: u64,
}

impl Trace {
    /// That of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap, ids: &Ids) -> Self {
        let [high, low, span] = ids.next();
        let request_id = match only(headers, &X_REQUEST_ID).filter(|id| is_request_id(id)) {
            Some(given) => given.to_owned(),
            None => format!("{high:016x}{low:016x}"),
        };
        let parent = only(headers, &TRACEPARENT).and_then(parent);
        let context = parent.map(|(trace_id, flags)| Context {
            trace_id: trace_id.to_owned(),
            flags: flags & KNOWN_FLAGS,
            // No span has the id 0.
            span_id: span.max(1),
        });
        Trace { request_id, context }
    }

    /// The id of the trace, if the client named one.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.context.as_ref().map(|context| context.trace_id.as_str())
    }

    /// By what it is chosen for a sample: so that a trace is in it as a whole, or not at
    /// all.
    pub(crate) fn chosen_by(&self) -> &str {
        self.trace_id().unwrap_or(&self.request_id)
    }

    /// A line of the log about the request.
    pub(crate) fn line(&self, message: &'static str) -> Line<'_> {
        Line { request_id: Some(&self.request_id), trace_id: self.trace_id(), ..Line::new(message) }
    }

    /// The reply that says what its request is called by.
    pub(crate) fn name(&self, reply: Reply) -> Reply {
        let response = self.context.as_ref().map(|Context { trace_id, flags, span_id }| {
            format!("00-{trace_id}-{span_id:016x}-{flags:02x}")
        });
        let named = [(X_REQUEST_ID, Some(self.request_id.clone())), (TRACERESPONSE, response)];
        named.into_iter().fold(reply, |reply, (name, text)| {
            // Visible characters are always a header's value.
            match text.and_then(|text| HeaderValue::try_from(text).ok()) {
                Some(value) => reply.with_header(name, value),
                None => reply,
            }
        })
    }
}

/// A header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut given = headers.get_all(name).iter();
    let (first, None) = (given.next()?, given.next()) else { return None };
    first.to_str().ok()
}

/// Whether an id can stand wherever ids are shown: in a header, in JSON, in a shell.
fn is_request_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'`\\<>".contains(&byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
}

/// The id and the flags of the trace that a `traceparent` names. Later versions may have
/// more, behind what is known of this one.
fn parent(value: &str) -> Option<(&str, u8)> {
    let mut fields = value.splitn(5, '-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = hex(fields.next()?, TRACE_ID_DIGITS)?;
    let parent_id = hex(fields.next()?, SPAN_ID_DIGITS)?;
    let flags = hex(fields.next()?, 2)?;
    let is_known = match version {
        "00" => fields.next().is_none(),
        version => version != "ff",
    };
    let is_named = |id: &str| id.bytes().any(|digit| digit != b'0');
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (is_known && is_named(trace_id) && is_named(parent_id)).then_some((trace_id, flags))
}

/// So many hexadecimal digits in small letters, and nothing else.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_digit)).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::StatusCode;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(headers: &[(HeaderName, &[u8])]) -> Trace {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                map.append(name, value);
            }
        }
        Trace::of(&map, &Ids::default())
    }

    fn of_parent(value: &str) -> Trace {
        trace(&[(TRACEPARENT, value.as_bytes())])
    }

    fn of_id(value: &str) -> String {
        trace(&[(X_REQUEST_ID, value.as_bytes())]).request_id
    }

    fn headers(trace: &Trace) -> (String, Option<String>) {
        let reply = trace.name(Reply::text(StatusCode::OK, ""));
        let of = |name: &HeaderName| Some(reply.headers.get(name)?.to_str().unwrap().to_owned());
        (of(&X_REQUEST_ID).unwrap(), of(&TRACERESPONSE))
    }

    #[test]
    fn a_trace_is_taken_up_and_handed_on() {
        let trace = of_parent(PARENT);
        assert_eq!(trace.trace_id(), Some(TRACE_ID));
        let (id, response) = headers(&trace);
        assert_eq!(id, trace.request_id);
        let response = response.unwrap();
        assert_eq!(response.len(), PARENT.len());
        assert!(response.starts_with(&format!("00-{TRACE_ID}-")) && response.ends_with("-01"));
        assert_ne!(response, PARENT, "the span is another");
        assert_eq!(parent(&response), Some((TRACE_ID, 1)), "{response}");
        // Flags that nobody knows yet are not handed on.
        let (_, response) = headers(&of_parent(&PARENT.replace("-01", "-fe")));
        assert!(response.unwrap().ends_with("-02"));
        assert_eq!(headers(&super::tests::trace(&[])).1, None);
    }

    #[test]
    fn what_is_no_trace_is_as_good_as_not_there() {
        for value in [
            "",
            "-",
            "00",
            &PARENT[..54],
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "0-", 1),
            &PARENT.replacen("00-", "0g-", 1),
            &PARENT.replacen("00-", "", 1),
            &PARENT.replace(TRACE_ID, &"0".repeat(32)),
            &PARENT.replace(TRACE_ID, &TRACE_ID[1..]),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
            &format!("{PARENT}-"),
            &format!("{PARENT}-00"),
            &format!("{PARENT}0"),
            &format!(" {PARENT}"),
            &format!("{PARENT}, {PARENT}"),
            &format!("cc{}0", &PARENT[2..]),
            &format!("cc{}", &PARENT[2..54]),
        ] {
            assert_eq!(of_parent(value).trace_id(), None, "{value:?}");
            assert_eq!(headers(&of_parent(value)).1, None, "{value:?}");
        }
        for value in [format!("cc{}", &PARENT[2..]), format!("01{}-what-ever", &PARENT[2..])] {
            assert_eq!(of_parent(&value).trace_id(), Some(TRACE_ID), "{value:?}");
        }
        let twice = [(TRACEPARENT, PARENT.as_bytes()), (TRACEPARENT, PARENT.as_bytes())];
        assert_eq!(trace(&twice).trace_id(), None);
    }

    #[test]
    fn an_id_is_the_clients_or_made() {
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        for id in ["1", "b4e7c2a0-5a6b-4c39-8c7b-6a9b1f0f2d3e", "Root=1-67891233-abcdef", &longest]
        {
            assert_eq!(of_id(id), id);
        }
        let made = |id: &str| hex(id, TRACE_ID_DIGITS).is_some();
        let too_long = format!("{longest}x");
        for id in ["", "a b", "a\tb", "a\"b", "a\\b", "it's", "<b>", "`a`", "é", &too_long] {
            assert!(made(&of_id(id)), "{id:?}");
        }
        assert!(made(&trace(&[(X_REQUEST_ID, b"a"), (X_REQUEST_ID, b"a")]).request_id));
    }

    #[test]
    fn no_id_is_made_twice() {
        let instances: Vec<Ids> = (0..100).map(|_| Ids::default()).collect();
        let none = HeaderMap::new();
        let ids: BTreeSet<String> = (0..10_000)
            .map(|number| Trace::of(&none, &instances[number % instances.len()]).request_id)
            .collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn whatever_comes_the_reply_can_be_written() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut taken = 0;
        for _ in 0..20_000 {
            let mut mangled = |text: &str| {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..rng.random_range(0..3) {
                    let place = rng.random_range(0..bytes.len());
                    match rng.random_range(0..4) {
                        0 => bytes[place] = rng.random(),
                        1 => bytes[place] = b"0123456789abcdefABCDEF-"[rng.random_range(0..23)],
                        2 => drop(bytes.remove(place)),
                        _ => bytes.insert(place, bytes[place]),
                    }
                }
                bytes
            };
            let (id, parent) = (mangled("7f3d-0001"), mangled(PARENT));
            let trace = trace(&[(X_REQUEST_ID, &id), (TRACEPARENT, &parent)]);
            let (told, response) = headers(&trace);
            assert!(is_request_id(&told), "{told}");
            assert_eq!(response.is_some(), trace.trace_id().is_some());
            if let Some(response) = response {
                taken += 1;
                let (trace_id, _) = super::parent(&response).unwrap();
                assert_eq!(parent[3..35], *trace_id.as_bytes());
            }
        }
        assert!((1_000..19_000).contains(&taken), "{taken}");
    }
}
