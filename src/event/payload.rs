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
//! what grows long by its hash on the way up. Of the members of an object, which
//! have to be sorted, it keeps no more than their encodings, which are no longer
//! than their text, and four bytes for each to say where it begins. So work and
//! memory are a small multiple of the text, whatever it holds.

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
enum PayloadError {
    /// A `\ud800`–`\udfff` escape without its other half.
    LoneSurrogate,
    /// More than [`PAYLOAD_DEPTH_MAX`] levels.
    TooDeep,
    /// Longer than 4 GiB, which no limit of bodies allows.
    TooLong,
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadError::LoneSurrogate => f.write_str("holds a lone surrogate"),
            PayloadError::TooDeep => {
                write!(f, "is nested deeper than {PAYLOAD_DEPTH_MAX} levels")
            }
            PayloadError::TooLong => f.write_str("is too long"),
        }
    }
}

/// A payload that was read.
#[derive(Debug)]
pub struct Payload {
    /// The JSON text as it was given, less the white space between tokens.
    pub(super) text: String,
    /// Equal for equal values, as far as SHA-256 can tell.
    pub(super) encoding: Vec<u8>,
}

impl Payload {
    /// Reads the text of one JSON value, whose syntax was already checked.
    ///
    /// # Errors
    ///
    /// A phrase that says what of it JSON's grammar allows and Sekali does not.
    pub fn read(json: &str) -> Result<Self, String> {
        read(json).map_err(|error| error.to_string())
    }

    /// Bytes that are equal for equal values and for no others, as far as SHA-256 can
    /// tell; at most 64 of them.
    pub fn encoding(&self) -> &[u8] {
        &self.encoding
    }
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
        self.push(Length::of(part).as_bytes());
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

/// A length before a part: seven bits a byte, the lowest first, the eighth set
/// in all but the last.
struct Length {
    bytes: [u8; 10],
    count: usize,
}

impl Length {
    fn of(part: &[u8]) -> Self {
        let mut length = Length { bytes: [0; 10], count: 0 };
        let mut left = part.len();
        loop {
            let more = left >= 0x80;
            length.bytes[length.count] = (left & 0x7f) as u8 | if more { 0x80 } else { 0 };
            length.count += 1;
            if !more {
                return length;
            }
            left >>= 7;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    /// The part behind a length, and what comes after it.
    fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
        let mut length = 0;
        for (index, byte) in bytes.iter().enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                return bytes[index + 1..].split_at(length);
            }
        }
        (bytes, &[])
    }
}

/// The members of all objects that are open, those of the innermost last.
#[derive(Default)]
struct Members {
    /// Of each its key and its value, both behind their length.
    bytes: Vec<u8>,
    /// Where in `bytes` each begins.
    starts: Vec<u32>,
}

impl Members {
    /// Begins a member with its key, a JSON string token.
    fn begin(&mut self, token: &str) -> Result<(), PayloadError> {
        self.starts.push(u32::try_from(self.bytes.len()).map_err(|_| PayloadError::TooLong)?);
        if !token.contains('\\') {
            self.push_part(&token.as_bytes()[1..token.len() - 1]);
            return Ok(());
        }
        let mut key = Vec::new();
        decode(token, |piece| key.extend_from_slice(piece))?;
        self.push_part(&key);
        Ok(())
    }

    fn push_part(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(Length::of(part).as_bytes());
        self.bytes.extend_from_slice(part);
    }

    /// Ends the innermost object, whose first member is at `first` of all: its
    /// encoding, in which of members with one key there is only the last.
    fn close(&mut self, first: usize) -> Vec<u8> {
        let mut encoding = Encoding::new(b'o');
        let Members { bytes, starts } = self;
        let own = &mut starts[first..];
        let Some(begin) = own.first().map(|begin| *begin as usize) else {
            return encoding.finish();
        };
        let member = |start: u32| &bytes[start as usize..];
        let key = |start: u32| Length::split(member(start)).0;
        own.sort_unstable_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
        for (index, start) in own.iter().enumerate() {
            if own.get(index + 1).is_some_and(|next| key(*next) == key(*start)) {
                continue;
            }
            let (_, value) = Length::split(member(*start));
            let (_, rest) = Length::split(value);
            let length = member(*start).len() - rest.len();
            encoding.push(&member(*start)[..length]);
        }
        starts.truncate(first);
        bytes.truncate(begin);
        encoding.finish()
    }
}

/// A container that is still open.
enum Frame {
    Array(Encoding),
    Object {
        /// Where its members begin among those of all objects.
        first: usize,
        /// Whether a key is there and waits for its value.
        has_key: bool,
    },
}

/// Reads the text of one JSON value, whose syntax was already checked.
///
/// # Errors
///
/// [`PayloadError`] for what JSON's grammar allows and Sekali does not.
fn read(json: &str) -> Result<Payload, PayloadError> {
    let bytes = json.as_bytes();
    let mut text = String::with_capacity(json.len());
    let mut stack: Vec<Frame> = Vec::new();
    let mut members = Members::default();
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
                    _ => Frame::Object { first: members.starts.len(), has_key: false },
                });
                None
            }
            b']' | b'}' => stack.pop().map(|frame| match frame {
                Frame::Array(elements) => elements.finish(),
                Frame::Object { first, .. } => members.close(first),
            }),
            b'"' => {
                at = end_of_string(bytes, at);
                let token = &json[start..at];
                match stack.last_mut() {
                    Some(Frame::Object { has_key: has_key @ false, .. }) => {
                        *has_key = true;
                        members.begin(token)?;
                        None
                    }
                    _ => {
                        let mut encoding = Encoding::new(b's');
                        decode(token, |piece| encoding.push(piece))?;
                        Some(encoding.finish())
                    }
                }
            }
            _ => {
                while bytes.get(at).is_some_and(|next| !b" \t\n\r,]}".contains(next)) {
                    at += 1;
                }
                let mut encoding = Encoding::new(b'n');
                encoding.push(&bytes[start..at]);
                Some(encoding.finish())
            }
        };
        text.push_str(&json[start..at]);
        if let Some(value) = value {
            match stack.last_mut() {
                None => root = value,
                Some(Frame::Array(elements)) => elements.push_part(&value),
                Some(Frame::Object { has_key, .. }) => {
                    *has_key = false;
                    members.push_part(&value);
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

/// Hands on the characters that a JSON string token, quotes included, stands
/// for, piece by piece.
fn decode(token: &str, mut take: impl FnMut(&[u8])) -> Result<(), PayloadError> {
    let mut rest = &token[1..token.len() - 1];
    while let Some(at) = rest.find('\\') {
        take(&rest.as_bytes()[..at]);
        // The grammar was checked before: a lone surrogate is all that is left to find.
        let (one, length) = unescape(&rest[at..]).ok_or(PayloadError::LoneSurrogate)?;
        take(one.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + length..];
    }
    take(rest.as_bytes());
    Ok(())
}

/// Adds the text of a JSON value to `text`, with every escape replaced by the character
/// that it stands for. What is none, in a text that is damaged, stays as it is.
pub fn unescaped(json: &str, text: &mut String) {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        match unescape(rest) {
            Some((one, length)) if rest.is_char_boundary(length) => {
                text.push(one);
                rest = &rest[length..];
            }
            _ => {
                text.push('\\');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
}

/// The character that `text` begins with as an escape, and the escape's length.
fn unescape(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let one = match text.as_bytes().get(1)? {
        b'u' => {
            let first = unit(0)?;
            return match char::from_u32(first.into()) {
                Some(one) => Some((one, 6)),
                None => Some((char::decode_utf16([first, unit(6)?]).next()?.ok()?, 12)),
            };
        }
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        itself => char::from(*itself),
    };
    Some((one, 2))
}

#[cfg(test)]
mod tests;
