//! Writes the text of a JSON value piece by piece, for formats whose records are
//! not JSON.

use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::text;

/// The text of one JSON value while it is written. What would make it longer than
/// it may be is left out, and told at the end.
pub(super) struct JsonText {
    text: Vec<u8>,
    bytes_max: usize,
    is_too_long: bool,
}

impl JsonText {
    /// An empty text, of so many bytes at most.
    pub(super) fn new(bytes_max: usize) -> Self {
        JsonText { text: Vec::new(), bytes_max, is_too_long: false }
    }

    /// Begins anew.
    pub(super) fn begin(&mut self) {
        self.text.clear();
        self.is_too_long = false;
    }

    /// The text that was written, which is empty from now on.
    ///
    /// # Errors
    ///
    /// A phrase, when it is longer than it may be.
    pub(super) fn finish(&mut self) -> Result<String, String> {
        let is_too_long = std::mem::take(&mut self.is_too_long);
        let text = std::mem::take(&mut self.text);
        match String::from_utf8(text) {
            Ok(text) if !is_too_long => Ok(text),
            _ => Err(format!("is longer than {} bytes as JSON", self.bytes_max)),
        }
    }

    /// Where the next piece begins.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Takes back what was written from `at` on.
    pub(super) fn truncate(&mut self, at: usize) {
        self.text.truncate(at);
    }

    /// Begins an object or an array, or ends it.
    pub(super) fn bracket(&mut self, bracket: u8) {
        self.push(&[bracket]);
    }

    /// Ends what `open` began at `at`; takes it back when it is empty, with all
    /// that was written from `from` on.
    pub(super) fn close_unless_empty(&mut self, from: usize, at: usize, bracket: u8) {
        if self.text.len() <= at + 1 {
            self.text.truncate(from);
        } else {
            self.bracket(bracket);
        }
    }

    /// A comma, unless this is the first in its object or array.
    pub(super) fn separate(&mut self) {
        // No value ends with any of them.
        if !matches!(self.text.last(), None | Some(b'{' | b'[' | b':')) {
            self.push(b",");
        }
    }

    /// The key of the next member.
    pub(super) fn key(&mut self, key: &str) {
        self.separate();
        self.string(key);
        self.push(b":");
    }

    /// The key of the member whose value was written at `at` without one.
    pub(super) fn key_before(&mut self, at: usize, key: &str) {
        let value = self.text.split_off(at);
        self.key(key);
        self.push(&value);
    }

    /// A string.
    pub(super) fn string(&mut self, text: &str) {
        self.value(text);
    }

    /// A whole number, or another word of JSON.
    pub(super) fn word(&mut self, word: impl std::fmt::Display) {
        let mut text = String::new();
        // Writing to a string does not fail.
        write!(text, "{word}").ok();
        self.push(text.as_bytes());
    }

    /// A number; a string where JSON has none.
    pub(super) fn double(&mut self, number: f64) {
        match number {
            _ if number.is_finite() => self.value(&number),
            _ if number.is_nan() => self.string("NaN"),
            _ if number > 0.0 => self.string("Infinity"),
            _ => self.string("-Infinity"),
        }
    }

    /// Bytes, as a string of base64.
    pub(super) fn base64(&mut self, bytes: &[u8]) {
        /// So many bytes at a time, all of whose pieces but the last have no padding.
        const PIECE_BYTES: usize = 3 << 10;
        self.push(b"\"");
        for piece in bytes.chunks(PIECE_BYTES) {
            self.push(STANDARD.encode(piece).as_bytes());
        }
        self.push(b"\"");
    }

    /// Bytes, as a string of lower-case hexadecimal digits.
    pub(super) fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.push(b"\"");
        for byte in bytes {
            self.push(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        self.push(b"\"");
    }

    /// What is JSON already.
    pub(super) fn raw(&mut self, json: &str) {
        self.push(json.as_bytes());
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        if text::write_json(Bounded(self), value).is_err() {
            self.is_too_long = true;
        }
    }

    fn push(&mut self, piece: &[u8]) {
        if self.is_too_long || self.text.len() + piece.len() > self.bytes_max {
            self.is_too_long = true;
        } else {
            self.text.extend_from_slice(piece);
        }
    }
}

/// Stops whoever writes more than there may be.
struct Bounded<'t>(&'t mut JsonText);

impl io::Write for Bounded<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.push(piece);
        match self.0.is_too_long {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(piece.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_is_json() {
        let mut text = JsonText::new(1000);
        text.bracket(b'{');
        for (key, number) in [("a", 1.0), ("\"", -0.5), ("n", f64::NAN), ("i", f64::INFINITY)] {
            text.key(key);
            text.double(number);
        }
        let at = text.len();
        text.bracket(b'[');
        text.separate();
        text.word(true);
        text.separate();
        text.string("[");
        text.separate();
        text.base64(&[0xfb, 0xff]);
        text.separate();
        text.hex(&[0x0a, 0xbc]);
        text.bracket(b']');
        text.key_before(at, "late\u{9b}");
        let from = text.len();
        text.key("empty");
        let at = text.len();
        text.bracket(b'{');
        text.close_unless_empty(from, at, b'}');
        text.bracket(b'}');
        let expected =
            r#"{"a":1.0,"\"":-0.5,"n":"NaN","i":"Infinity","late\u009b":[true,"[","+/8=","0abc"]}"#;
        assert_eq!(text.finish().unwrap(), expected);
        assert_eq!(text.finish().unwrap(), "");
    }

    #[test]
    fn takes_no_more_than_it_may() {
        let mut text = JsonText::new(10);
        text.string("12345678");
        assert_eq!(text.finish().unwrap().len(), 10);
        text.string("123456789");
        assert!(text.text.capacity() < 20);
        text.word(1);
        assert_eq!(text.finish().unwrap_err(), "is longer than 10 bytes as JSON");
        text.base64(&vec![0; 10_000]);
        assert!(text.text.capacity() < 20);
        assert!(text.finish().is_err());
        assert!(text.finish().is_ok());
    }

    #[test]
    fn long_bytes_are_one_string() {
        let mut text = JsonText::new(100_000);
        let bytes: Vec<u8> = (0..10_000).map(|index| index as u8).collect();
        text.base64(&bytes);
        assert_eq!(text.finish().unwrap(), format!("\"{}\"", STANDARD.encode(&bytes)));
    }
}
