//! The one text of a JSON value.
//!
//! Two texts are of the same value when a service takes them for the same content: the
//! order of keys, white space and the way a character is escaped do not matter, numbers
//! compare by their text, and of a key given twice the last counts. So the canonical text
//! has keys in the order of their code points, no white space, numbers as they are, and
//! of escapes only those that JSON asks for.

use std::borrow::Cow;
use std::ops::Range;

/// Most levels of nesting; services take fewer.
const DEPTH_MAX: usize = 1_000;

/// Adds the canonical text of a JSON value, whose syntax was checked, to `out`.
///
/// # Errors
///
/// If it is nested too deep, or a string of it is no text (a lone surrogate).
pub(super) fn write(json: &str, out: &mut Vec<u8>) -> Result<(), String> {
    Scan { json, at: 0 }.value(out, 0)
}

/// Adds a string as canonical JSON.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    // Into memory, which does not fail.
    serde_json::to_writer(out, text).ok();
}

/// A text and how far it was read.
struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        match self.next_byte() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => {
                let token = self.string();
                if token.contains('\\') {
                    write_string(&unescaped(token)?, out);
                } else {
                    out.extend_from_slice(token.as_bytes());
                }
                Ok(())
            }
            _ => {
                let rest = &self.json[self.at..];
                let end = rest.find([' ', '\t', '\n', '\r', ',', ']', '}']).unwrap_or(rest.len());
                out.extend_from_slice(&rest.as_bytes()[..end]);
                self.at += end;
                Ok(())
            }
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        self.at += 1;
        out.push(b'[');
        let mut is_first = true;
        while !matches!(self.next_byte(), Some(b']') | None) {
            if !is_first {
                self.at += 1;
                out.push(b',');
            }
            is_first = false;
            self.value(out, depth + 1)?;
        }
        self.at += 1;
        out.push(b']');
        Ok(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        self.at += 1;
        out.push(b'{');
        let begin = out.len();
        let mut members: Vec<(Cow<'a, str>, Range<usize>)> = Vec::new();
        let mut is_sorted = true;
        while !matches!(self.next_byte(), Some(b'}') | None) {
            if !members.is_empty() {
                self.at += 1;
                out.push(b',');
                self.next_byte();
            }
            let key = unescaped(self.string())?;
            let start = out.len();
            write_string(&key, out);
            self.next_byte();
            self.at += 1;
            out.push(b':');
            self.value(out, depth + 1)?;
            is_sorted &= members.last().is_none_or(|(last, _)| *last < key);
            members.push((key, start..out.len()));
        }
        self.at += 1;
        if !is_sorted {
            let given = out.split_off(begin);
            // Those with one key stay in their order, so that the last of them is last.
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (index, (key, range)) in members.iter().enumerate() {
                if members.get(index + 1).is_some_and(|(next, _)| next == key) {
                    continue;
                }
                if out.len() > begin {
                    out.push(b',');
                }
                out.extend_from_slice(&given[range.start - begin..range.end - begin]);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// The next byte that is no white space, which is not taken.
    fn next_byte(&mut self) -> Option<u8> {
        let rest = &self.json.as_bytes()[self.at..];
        let skipped = rest.iter().take_while(|byte| b" \t\n\r".contains(byte)).count();
        self.at += skipped;
        rest.get(skipped).copied()
    }

    /// The string that begins here, with its quotes.
    fn string(&mut self) -> &'a str {
        let bytes = self.json.as_bytes();
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        self.at = self.at.min(bytes.len());
        &self.json[start..self.at]
    }
}

/// The characters that a string stands for, which is given with its quotes.
fn unescaped(token: &str) -> Result<Cow<'_, str>, String> {
    if !token.contains('\\') {
        let inner = token.strip_prefix('"').and_then(|token| token.strip_suffix('"'));
        return Ok(Cow::Borrowed(inner.unwrap_or(token)));
    }
    serde_json::from_str(token).map(Cow::Owned).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> String {
        serde_json::from_str::<&serde_json::value::RawValue>(json).unwrap();
        let mut out = b"before ".to_vec();
        write(json, &mut out).unwrap();
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    #[test]
    fn the_same_value_has_one_text() {
        for (json, expected) in [
            ("{}", "{}"),
            (" [ ] ", "[]"),
            ("null", "null"),
            (r#" { "b" : 1.0 , "a" : [ true , "x" , { } ] } "#, r#"{"a":[true,"x",{}],"b":1.0}"#),
            (r#"{"a":1,"b":2,"a":3,"a":4}"#, r#"{"a":4,"b":2}"#),
            (r#"{"\u0061":1,"A":2}"#, r#"{"A":2,"a":1}"#),
            (r#""\u00e9\/\ud83d\ude00\n\u0000\"\\""#, r#""é/😀\n\u0000\"\\""#),
            (r#"{"é":1,"z":{"y":[],"x":""}}"#, r#"{"z":{"x":"","y":[]},"é":1}"#),
            ("[12345678901234567890.10, 1E5, -0, 1e5]", "[12345678901234567890.10,1E5,-0,1e5]"),
        ] {
            assert_eq!(canonical(json), expected, "{json}");
            assert_eq!(canonical(&canonical(json)), expected, "{json}");
        }
    }

    #[test]
    fn values_that_differ_have_others() {
        let texts = ["1", "1.0", r#""1""#, "[1]", "[[1]]", r#"{"1":1}"#, "[1,1]", "true", r#""""#];
        let distinct: std::collections::BTreeSet<_> = texts.map(canonical).into();
        assert_eq!(distinct.len(), texts.len());
    }

    #[test]
    fn what_no_service_takes_is_an_error() {
        let deep = "[".repeat(DEPTH_MAX + 2) + &"]".repeat(DEPTH_MAX + 2);
        assert!(write(&deep, &mut Vec::new()).is_err());
        assert!(write(r#"{"\ud800":1}"#, &mut Vec::new()).is_err());
    }
}
