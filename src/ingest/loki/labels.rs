//! The labels of a stream as text, such as `{app="web", job="a \"b\""}`: strings are
//! those of Go.

/// Labels, in the order in which they are given.
pub(super) type Labels = Vec<(String, String)>;

/// Reads the labels of a stream.
///
/// # Errors
///
/// A phrase that says what is wrong with them.
pub(super) fn parse(text: &str) -> Result<Labels, String> {
    let mut rest = Rest(text.trim());
    let mut labels = Vec::new();
    rest.expect('{')?;
    loop {
        if rest.takes('}') {
            break;
        }
        let name = rest.name()?;
        rest.expect('=')?;
        labels.push((name, rest.string()?));
        if !rest.takes(',') {
            rest.expect('}')?;
            break;
        }
    }
    match rest.0.is_empty() {
        true => Ok(labels),
        false => Err("go on after their }".to_owned()),
    }
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    /// Takes a character, and the white space around it, if it is the next.
    fn takes(&mut self, one: char) -> bool {
        match self.0.trim_start().strip_prefix(one) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, one: char) -> Result<(), String> {
        match self.takes(one) {
            true => Ok(()),
            false => Err(format!("have no {one} where one is expected")),
        }
    }

    /// A name, which may be a string as well.
    fn name(&mut self) -> Result<String, String> {
        if self.0.starts_with(['"', '`']) {
            return self.string();
        }
        let is_part = |one: char| one.is_ascii_alphanumeric() || "_.:".contains(one);
        let end = self.0.find(|one| !is_part(one)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        match name.is_empty() {
            true => Err("have no name where one is expected".to_owned()),
            false => Ok(name.to_owned()),
        }
    }

    /// A string, with escapes or, between backticks, without any.
    fn string(&mut self) -> Result<String, String> {
        let endless = || "have a string without an end".to_owned();
        if let Some(raw) = self.0.strip_prefix('`') {
            let (value, rest) = raw.split_once('`').ok_or_else(endless)?;
            self.0 = rest;
            return Ok(value.to_owned());
        }
        self.0 = self.0.strip_prefix('"').ok_or("have no string where one is expected")?;
        let mut bytes = Vec::new();
        loop {
            let at = self.0.find(['"', '\\']).ok_or_else(endless)?;
            bytes.extend_from_slice(&self.0.as_bytes()[..at]);
            let is_end = self.0[at..].starts_with('"');
            self.0 = &self.0[at + 1..];
            if is_end {
                return String::from_utf8(bytes).map_err(|_| "are not UTF-8".to_owned());
            }
            self.escape(&mut bytes)?;
        }
    }

    /// What stands after a backslash.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let wrong = || "have a \\ with something that is no escape".to_owned();
        let kind = self.0.chars().next().ok_or_else(wrong)?;
        let one = match kind {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' => kind,
            '0'..='7' => {
                bytes.push(self.number(0, 3, 8).ok_or_else(wrong)? as u8);
                return Ok(());
            }
            'x' => {
                bytes.push(self.number(1, 2, 16).ok_or_else(wrong)? as u8);
                return Ok(());
            }
            'u' | 'U' => {
                let digits = if kind == 'u' { 4 } else { 8 };
                let number = self.number(1, digits, 16).ok_or_else(wrong)?;
                let one = char::from_u32(number).ok_or_else(wrong)?;
                bytes.extend_from_slice(one.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(wrong()),
        };
        self.0 = &self.0[1..];
        bytes.extend_from_slice(one.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// So many digits, after as many characters; three octal ones may be too great.
    fn number(&mut self, skipped: usize, digits: usize, radix: u32) -> Option<u32> {
        let end = skipped + digits;
        let text = self.0.get(skipped..end)?;
        let number = u32::from_str_radix(text, radix).ok()?;
        let is_whole = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        self.0 = &self.0[end..];
        (is_whole && (radix == 16 || number <= 0xff)).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_clients_write() {
        for (text, expected) in [
            ("{}", vec![]),
            (r#"{app="web"}"#, vec![("app", "web")]),
            (r#" { app = "web" , job="a \"b\"", } "#, vec![("app", "web"), ("job", "a \"b\"")]),
            (
                r#"{a="\a\b\f\n\r\t\v\\\'\x41\101\u00e9\U0001f600 é"}"#,
                vec![("a", "\u{7}\u{8}\u{c}\n\r\t\u{b}\\'AAé😀 é")],
            ),
            (r#"{a="\xc3\xa9",b=`\n`}"#, vec![("a", "é"), ("b", "\\n")]),
            (r#"{"service.name"="}",k8s.pod="x"}"#, vec![("service.name", "}"), ("k8s.pod", "x")]),
        ] {
            let labels = parse(text).unwrap();
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(labels, expected, "{text}");
        }
    }

    #[test]
    fn says_what_are_no_labels() {
        for (text, expected) in [
            ("", "have no { where one is expected"),
            ("{", "have no name where one is expected"),
            ("{a", "have no = where one is expected"),
            ("{a=", "have no string where one is expected"),
            ("{a=1}", "have no string where one is expected"),
            (r#"{a="#, "have no string where one is expected"),
            (r#"{a="b"#, "have a string without an end"),
            ("{a=`b", "have a string without an end"),
            (r#"{a="b\"#, "have a \\ with something that is no escape"),
            (r#"{a="b""#, "have no } where one is expected"),
            (r#"{a="b"}c"#, "go on after their }"),
            (r#"{a="b" c="d"}"#, "have no } where one is expected"),
            (r#"{a!="b"}"#, "have no = where one is expected"),
            (r#"{a="\xff"}"#, "are not UTF-8"),
            (r#"{a="\x4"}"#, "have a \\ with something that is no escape"),
            (r#"{a="\u+123"}"#, "have a \\ with something that is no escape"),
            (r#"{a="\ud800"}"#, "have a \\ with something that is no escape"),
            (r#"{a="\477"}"#, "have a \\ with something that is no escape"),
            (r#"{a="\é"}"#, "have a \\ with something that is no escape"),
            (r#"{a="\ué12"}"#, "have a \\ with something that is no escape"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
