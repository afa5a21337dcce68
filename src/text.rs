//! Text on its way out: JSON that a terminal shows as it is, texts that are cut where
//! they grow too long, and what was compressed when this was built.
//!
//! A terminal acts on control characters, and the order in which it shows others
//! can be turned round by invisible ones. JSON escapes only those below U+0020,
//! so all JSON that goes out is written here: the value is the same, and what
//! cannot be seen is written as `\u009b`.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use flate2::read::GzDecoder;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Stands at the end of a text that was cut.
const CUT: char = '…';

/// A file by its name, compressed when this was built (`build.rs`).
macro_rules! compressed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}
pub(crate) use compressed;

/// What a file was before it was compressed.
///
/// # Errors
///
/// None for one that was.
pub(crate) fn decompressed(compressed: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut plain)?;
    Ok(plain)
}

/// `value` as JSON on one line, each character that cannot be seen escaped.
/// Raw JSON in it stays as it is.
///
/// # Errors
///
/// A map whose keys are no strings.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::new();
    push_json(&mut json, value)?;
    Ok(json)
}

/// The same, at the end of `json`.
///
/// # Errors
///
/// A map whose keys are no strings.
pub fn push_json<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    write_json(json, value)
}

/// The same, to `writer`.
///
/// # Errors
///
/// A map whose keys are no strings, and those of the writer.
pub fn write_json<T: Serialize + ?Sized>(writer: impl Write, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, Visible))
}

struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        if !fragment.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            for (at, hidden) in fragment.char_indices().filter(|(_, one)| is_hidden(*one)) {
                writer.write_all(&fragment.as_bytes()[written..at])?;
                for unit in hidden.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
                written = at + hidden.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

/// Whether a character does something to what is shown around it, or cannot be
/// seen: control characters, and those that join, separate, hide or turn round
/// text.
fn is_hidden(one: char) -> bool {
    one.is_control()
        || matches!(
            one,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text`, cut where it would have more than `bytes_max` bytes as JSON.
pub fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let mut bytes = 0;
    let mut fits = 0;
    for (at, one) in text.char_indices() {
        if bytes + CUT.len_utf8() <= bytes_max {
            fits = at;
        }
        bytes += json_bytes(one);
        if bytes > bytes_max {
            return Cow::Owned(format!("{}{CUT}", &text[..fits]));
        }
    }
    Cow::Borrowed(text)
}

/// Bytes as hexadecimal digits in small letters.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits, in capital letters or small ones; `None` for other
/// text.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let of = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(of(pair[0])? << 4 | of(pair[1])?).ok();
    match digits.as_bytes().as_chunks() {
        (pairs, []) => pairs.iter().map(byte).collect(),
        _ => None,
    }
}

/// The length of a character in a string of [`to_json`].
fn json_bytes(one: char) -> usize {
    match one {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        _ if is_hidden(one) => 6 * one.len_utf16(),
        _ => one.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        String::from_utf8(to_json(text).unwrap()).unwrap()
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for (text, expected) in [
            ("a \"b\" ~ é 😀 日本", r#""a \"b\" ~ é 😀 日本""#),
            ("\u{1b}[2J\u{7f}", r#""\u001b[2J\u007f""#),
            ("\u{80}\u{9b}31m\u{9f}\u{a0}", "\"\\u0080\\u009b31m\\u009f\u{a0}\""),
            ("a\u{202e}b\u{2066}c\u{2069}", r#""a\u202eb\u2066c\u2069""#),
            ("\u{2028}\u{2029}\u{200b}\u{feff}\u{ad}", r#""\u2028\u2029\u200b\ufeff\u00ad""#),
            ("\u{e0041}", r#""\udb40\udc41""#),
        ] {
            assert_eq!(written(text), expected);
            assert_eq!(serde_json::from_str::<String>(expected).unwrap(), text);
        }
    }

    #[test]
    fn raw_json_stays() {
        let raw = serde_json::value::RawValue::from_string("\"\u{9b}\"".to_owned()).unwrap();
        assert_eq!(to_json(&raw).unwrap(), "\"\u{9b}\"".as_bytes());
    }

    #[test]
    fn what_is_too_long_is_cut() {
        for unit in ["x", "é", "😀", "\"", "\n", "\u{1}", "\u{9b}", "\u{e0041}", "é\u{1}\""] {
            let text = unit.repeat(100);
            for bytes_max in 3..200 {
                let cut = shortened(&text, bytes_max);
                let bytes = written(&cut).len() - 2;
                assert!(bytes <= bytes_max, "{unit:?}: {bytes} of {bytes_max}");
                assert!(cut == text || cut.ends_with(CUT));
                // No more is cut than has to be.
                assert!(cut == text || bytes + 15 > bytes_max, "{unit:?}: {bytes} of {bytes_max}");
            }
        }
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdef", 5), "ab…");
    }
}
