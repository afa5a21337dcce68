//! One pass over the text of a JSON value: its compact text, and a digest of
//! the value that it stands for.
//!
//! Two deliveries have the same content when their payloads are the same JSON
//! *value*: key order, white space and the way a character is escaped do not
//! matter; numbers compare by their text, so that no digit is ever rounded
//! away; of a key given twice the last counts, as Python, JavaScript and Go
//! read it. [`read`] turns that rule into bytes that are equal exactly when
//! the values are, and hashes them.
//!
//! The pass keeps its own stack, so depth costs no native stack, and replaces
//! what grows long by its hash on the way up, so the work is linear in the text.

use std::fmt;

use sha2::{Digest, Sha256};

/// Most levels of nesting in a payload.
///
/// Deeper ones could be stored, but most JSON parsers stop at 512 (PHP) or
/// 1,000 levels (Python, Jackson), and one such event would make every page
/// of `GET /events` that holds it unreadable for them.
pub const PAYLOAD_DEPTH_MAX: usize = 500;

/// Length above which the encoding of a value is replaced by its hash.
const ENCODING_BYTES_MAX: usize = 64;

/// Bytes of an encoding that are collected before they are hashed.
const PENDING_BYTES_MAX: usize = 4096;

/// Why a payload cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PayloadError {
    /// A `\ud800`–`\udfff` escape without its other half.
    LoneSurrogate,
    /// More than [`PAYLOAD_DEPTH_MAX`] levels.
    TooDeep,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadError::LoneSurrogate => f.write_str("holds a lone surrogate"),
            PayloadError::TooDeep => {
                write!(f, "is nested deeper than {PAYLOAD_DEPTH_MAX} levels")
            }
        }
    }
}

/// A payload that was read.
#[derive(Debug)]
pub(super) struct Payload {
    /// The JSON text as it was given, less the white space between tokens.
    pub(super) text: String,
    /// Equal for equal values, as far as SHA-256 can tell.
    pub(super) encoding: Vec<u8>,
}

/// The encoding of one value, which never grows long: what is beyond a few
/// kilobytes is hashed as it comes.
struct Encoding {
    pending: Vec<u8>,
    hash: Option<Sha256>,
}

impl Encoding {
    fn new(tag: u8) -> Self {
        Encoding { pending: vec![tag], hash: None }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() <= PENDING_BYTES_MAX {
            self.pending.extend_from_slice(bytes);
            return;
        }
        let hash = self.hash.get_or_insert_default();
        hash.update(&self.pending);
        hash.update(bytes);
        self.pending.clear();
    }

    /// Appends `part` behind its length, so that parts cannot run into one another.
    fn push_part(&mut self, part: &[u8]) {
        let mut length = part.len();
        while length >= 0x80 {
            self.push(&[(length & 0x7f) as u8 | 0x80]);
            length >>= 7;
        }
        self.push(&[length as u8]);
        self.push(part);
    }

    /// The encoding itself when it is short, else its hash.
    fn finish(self) -> Vec<u8> {
        if self.hash.is_none() && self.pending.len() <= ENCODING_BYTES_MAX {
            return self.pending;
        }
        let mut hash = self.hash.unwrap_or_default();
        hash.update(&self.pending);
        let mut hashed = vec![b'h'];
        hashed.extend_from_slice(&hash.finalize());
        hashed
    }
}

/// A container that is still open.
enum Frame {
    Array(Encoding),
    Object { members: Vec<(String, Vec<u8>)>, key: Option<String> },
}

/// Reads the text of one JSON value, whose syntax was already checked.
///
/// # Errors
///
/// [`PayloadError`] for what JSON's grammar allows and Sekali does not.
pub(super) fn read(json: &str) -> Result<Payload, PayloadError> {
    let bytes = json.as_bytes();
    let mut text = String::with_capacity(json.len());
    let mut stack: Vec<Frame> = Vec::new();
    let mut root = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let value = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b',' | b':' => None,
            b'[' | b'{' => {
                if stack.len() == PAYLOAD_DEPTH_MAX {
                    return Err(PayloadError::TooDeep);
                }
                stack.push(match byte {
                    b'[' => Frame::Array(Encoding::new(b'a')),
                    _ => Frame::Object { members: Vec::new(), key: None },
                });
                None
            }
            b']' | b'}' => stack.pop().map(close),
            b'"' => {
                at = end_of_string(bytes, at);
                let decoded = decode(&json[start..at])?;
                match stack.last_mut() {
                    Some(Frame::Object { key: key @ None, .. }) => {
                        *key = Some(decoded.into_owned());
                        None
                    }
                    _ => Some(tagged(b's', decoded.as_bytes())),
                }
            }
            _ => {
                while bytes.get(at).is_some_and(|next| !b" \t\n\r,]}".contains(next)) {
                    at += 1;
                }
                Some(tagged(b'n', &bytes[start..at]))
            }
        };
        text.push_str(&json[start..at]);
        if let Some(value) = value {
            match stack.last_mut() {
                None => root = value,
                Some(Frame::Array(elements)) => elements.push_part(&value),
                Some(Frame::Object { members, key }) => {
                    members.push((key.take().unwrap_or_default(), value));
                }
            }
        }
    }
    Ok(Payload { text, encoding: root })
}

/// The index after the closing quote of the string whose content begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The characters that a JSON string token, quotes included, stands for.
fn decode(token: &str) -> Result<std::borrow::Cow<'_, str>, PayloadError> {
    if !token.contains('\\') {
        return Ok(token[1..token.len() - 1].into());
    }
    // The grammar was checked before: a lone surrogate is all that is left to find.
    serde_json::from_str::<String>(token).map(Into::into).map_err(|_| PayloadError::LoneSurrogate)
}

/// The encoding of a container whose last member is in.
fn close(frame: Frame) -> Vec<u8> {
    match frame {
        Frame::Array(elements) => elements.finish(),
        Frame::Object { mut members, .. } => {
            // Stable, so that of equal keys the last given stays last.
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            let mut encoding = Encoding::new(b'o');
            for (index, (key, value)) in members.iter().enumerate() {
                if members.get(index + 1).is_some_and(|(next, _)| next == key) {
                    continue;
                }
                encoding.push_part(key.as_bytes());
                encoding.push_part(value);
            }
            encoding.finish()
        }
    }
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut encoding = Encoding::new(tag);
    encoding.push(content);
    encoding.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        read(a).unwrap().encoding == read(b).unwrap().encoding
    }

    #[test]
    fn equal_values_are_equal() {
        for (a, b) in [
            (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ],\n\t\"a\":1 }"),
            (r#""\u0041\/\ud83d\ude00""#, r#""A/😀""#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"\u0061":1}"#, r#"{"a":1}"#),
            ("12345678901234567890.10", " 12345678901234567890.10 "),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        let long = "x".repeat(500);
        assert!(same(
            &format!(r#"{{"k":["{long}"],"z":0}}"#),
            &format!(r#"{{"z":0, "k":["{long}"]}}"#)
        ));
    }

    #[test]
    fn other_values_are_other() {
        for (a, b) in [
            ("1", "1.0"),
            ("1", "\"1\""),
            ("12345678901234567890", "12345678901234567891"),
            ("[]", "{}"),
            ("[[]]", "[]"),
            ("[1,2]", "[2,1]"),
            ("[1,2]", "[12]"),
            (r#"["a","b"]"#, r#"["ab"]"#),
            (r#"{"a":"b"}"#, r#"{"b":"a"}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
            ("null", "{}"),
            ("null", "\"null\""),
            (r#""a""#, r#""a\u0000""#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        let long = "x".repeat(500);
        assert!(!same(&format!(r#"["{long}"]"#), &format!(r#"["{long}y"]"#)));
    }

    #[test]
    fn text_keeps_all_but_white_space() {
        let given = "{ \"n\" : 1.2300e+10 , \"s\": \" a\\u0000\\n b \" , \"a\" : [ ] }";
        assert_eq!(read(given).unwrap().text, r#"{"n":1.2300e+10,"s":" a\u0000\n b ","a":[]}"#);
        assert_eq!(read(" -0 ").unwrap().text, "-0");
        assert_eq!(read(r#"{"a":1,"a":2}"#).unwrap().text, r#"{"a":1,"a":2}"#);
    }

    #[test]
    fn refuses_lone_surrogates_and_depth() {
        for json in [r#""\ud800""#, r#"["\udc00"]"#, r#"{"\ud800":1}"#, r#""\ud800\u0041""#] {
            assert_eq!(read(json).unwrap_err(), PayloadError::LoneSurrogate, "{json}");
        }
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(&nested(PAYLOAD_DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(PAYLOAD_DEPTH_MAX + 1)).unwrap_err(), PayloadError::TooDeep);
    }
}
