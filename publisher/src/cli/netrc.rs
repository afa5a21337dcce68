//! Files of users and passwords in the form of `~/.netrc`, as curl reads them.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// The size from which a file is none of these, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user and a password for a host.
#[derive(PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// Reads the file: what it has for a host, and for a user if one is given.
///
/// # Errors
///
/// If it cannot be read. What is in it is not shown.
pub(super) fn read(path: &Path, host: &str, user: Option<&str>) -> anyhow::Result<Option<Login>> {
    let read = || -> anyhow::Result<String> {
        let length = path.metadata()?.len();
        ensure!(length <= FILE_BYTES_MAX, "it is larger than {FILE_BYTES_MAX} bytes");
        Ok(std::fs::read_to_string(path)?)
    };
    let text = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(find(&text, host, user))
}

/// The first entry for a host that fits.
fn find(text: &str, host: &str, user: Option<&str>) -> Option<Login> {
    let mut words = words(text).into_iter();
    let (mut here, mut login, mut password) = (false, None, None);
    loop {
        let word = words.next();
        if matches!(word.as_deref(), None | Some("machine" | "default")) {
            let fits = here && user.is_none_or(|user| login.as_deref().is_none_or(|l| l == user));
            let found = login.take().or_else(|| user.map(str::to_owned));
            let password: Option<String> = password.take();
            if let (true, Some(user)) =
                (fits, found.filter(|_| password.is_some() || user.is_none()))
            {
                return Some(Login { user, password: password.unwrap_or_default() });
            }
        }
        match word?.as_str() {
            "machine" => here = words.next()?.eq_ignore_ascii_case(host),
            "default" => here = true,
            "login" => login = words.next(),
            "password" => password = words.next(),
            "account" => drop(words.next()),
            _ => {}
        }
    }
}

/// The words of a file: without comments, and without the macros of `macdef`,
/// which end with an empty line. A word in quotes may hold what ends others.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if in_macro {
            in_macro = !line.trim().is_empty();
            continue;
        }
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted_word(quoted),
                None => {
                    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if word == "macdef" {
                in_macro = true;
                break;
            }
            words.push(word);
            rest = after.trim_start();
        }
    }
    words
}

/// A word up to its quote, and what comes after it.
fn quoted_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (word, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => word.push('\n'),
                Some((_, 'r')) => word.push('\r'),
                Some((_, 't')) => word.push('\t'),
                Some((_, escaped)) => word.push(escaped),
                None => {}
            },
            other => word.push(other),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
# machine host login nobody password nothing
machine host login ana password one
machine HOST2
    login ben
    password \"two \\\"and\\\" # more\"
macdef init
machine host3 login in-a-macro password no

machine host login cleo password three account x # machine host3 login c password d
machine only-a-user login dora
machine only-a-password password four
default login any password all
";

    #[test]
    fn entries_are_found_as_by_curl() {
        for (host, user, expected) in [
            ("host", None, Some(("ana", "one"))),
            ("Host", Some("ana"), Some(("ana", "one"))),
            ("host", Some("cleo"), Some(("cleo", "three"))),
            ("host2", None, Some(("ben", "two \"and\" # more"))),
            ("host3", None, Some(("any", "all"))),
            ("host", Some("any"), Some(("any", "all"))),
            ("host", Some("zoe"), None),
            ("only-a-user", None, Some(("dora", ""))),
            ("only-a-password", Some("emil"), Some(("emil", "four"))),
            ("elsewhere", None, Some(("any", "all"))),
        ] {
            let login = find(FILE, host, user);
            let login = login.as_ref().map(|l| (l.user.as_str(), l.password.as_str()));
            assert_eq!(login, expected, "{host} {user:?}");
        }
        for text in ["", "machine", "machine host", "machine host login", "login a password b"] {
            assert!(find(text, "host", None).is_none(), "{text}");
        }
    }
}
