//! What an event's id is made of.
//!
//! # The chain
//!
//! The id of line n is a hash over the texts of lines 1 to n, and so over what
//! the file is and where the line stands in it, and over no name:
//!
//! - The same file again, renamed, copied or grown, gives the same ids.
//! - Lines with the same text in one file have other predecessors: both stay.
//! - Files that differ anywhere have other ids from the first difference on.
//! - An incomplete last line has the id of its text so far. Completed by a line
//!   end alone it is the same line; completed by more text it is another line,
//!   stored whole.
//!
//! The source is in the hash too: the same file from another host is another
//! event, not a conflict. The topic is part of an event's identity anyway.
//!
//! # The head
//!
//! What a chain alone would get wrong are files that begin alike, with a
//! banner say, and then differ: the beginning of the second would be taken for
//! the first's. So lines within the first [`HEAD_BYTES`] are salted with a
//! fingerprint of those bytes, as log shippers do to tell files apart. Later
//! lines need no salt, as their chain has gone through the head.
//!
//! A file shorter than the head has no fingerprint that lasts, since it will
//! grow; its lines have no salt. For short files, and for files alike for
//! longer than the head, the [`registry`](super::registry) remembers on this
//! machine what was shipped, and gives a file that shares lines with another,
//! but is another, a salt of its own. It keeps that, whatever it grows into.
//!
//! # Limits
//!
//! A file that begins with the whole of another as it was shipped, or is the
//! beginning of another, cannot be told from its copy, if they are not read at
//! once; it is taken for it. Without the registry (another machine,
//! `--no-state`):
//!
//! - two files that were both shorter than the head when shipped, or are alike
//!   for more than the head, share the lines they begin with. The summary
//!   says how many lines were found so, as a file grown looks the same;
//! - a file first shipped shorter than the head, and again when it was longer,
//!   has the lines of its head stored twice.

use sha2::{Digest as _, Sha256};

use super::lines::Line;

/// The bytes at the beginning of a file that tell it from others.
pub(crate) const HEAD_BYTES: usize = 1024;

/// Characters of an id: 128 bits in hexadecimal.
const ID_CHARS: usize = 32;
/// Names the scheme in every hash; a change to the scheme must change it.
const SCHEME: &[u8] = b"sekali ship 1\0";

/// A SHA-256 digest.
pub(crate) type Hash = [u8; 32];

/// Hashes parts as one, each with its length, so that no two lists collide.
#[must_use]
pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(SCHEME);
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Bytes in hexadecimal.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// What tells a file from others that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Goes into the ids of the lines that end within `zone_bytes`.
    pub salt: Option<String>,
    /// How far from the beginning of the file the salt reaches.
    pub zone_bytes: u64,
}

impl Identity {
    /// A salt that reaches to here is in all ids of a file.
    pub(crate) const ZONE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();

    /// The identity by content alone. `head` is the file's beginning, up to
    /// [`HEAD_BYTES`].
    #[must_use]
    pub(crate) fn of_head(head: &[u8]) -> Self {
        Self { salt: fingerprint(head), zone_bytes: HEAD_BYTES as u64 }
    }
}

/// The fingerprint of a file that is long enough to have one.
#[must_use]
pub(crate) fn fingerprint(head: &[u8]) -> Option<String> {
    let head = head.get(..HEAD_BYTES)?;
    Some(hex(&hash(&[b"head", head])[..ID_CHARS / 2]))
}

/// Gives each line of a file its id, in order.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    identity: Identity,
    state: Hash,
}

impl Chain {
    /// Starts at the beginning of a file.
    #[must_use]
    pub(crate) fn new(source: &str, identity: Identity) -> Self {
        Self { identity, state: hash(&[b"chain", source.as_bytes()]) }
    }

    /// The id of the next line.
    pub(crate) fn id(&mut self, line: &Line) -> String {
        // Where a long line is cut is part of what it is: else its parts would
        // be the same as so many short lines.
        let kind: &[u8] = if line.continued { b"part" } else { b"line" };
        self.state = hash(&[kind, &self.state, &line.text]);
        let salt = self.identity.salt.as_deref().unwrap_or_default();
        let salted = line.end_bytes <= self.identity.zone_bytes;
        let salt = if salted { salt } else { "" };
        hex(&hash(&[b"id", salt.as_bytes(), &self.state])[..ID_CHARS / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Splitter;
    use super::*;

    fn ids_as(source: &str, bytes: &[u8]) -> Vec<String> {
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let mut chain = Chain::new(source, Identity::of_head(head));
        let mut splitter = Splitter::default();
        splitter.push(bytes);
        let mut ids = Vec::new();
        while let Some(line) = splitter.next_line() {
            ids.push(chain.id(&line));
        }
        while let Some(line) = splitter.finish() {
            ids.push(chain.id(&line));
        }
        ids
    }

    fn ids(text: &str) -> Vec<String> {
        ids_as("host", text.as_bytes())
    }

    #[test]
    fn ids_are_stable_across_versions() {
        assert_eq!(ids("first\nsecond\n"), GOLDEN);
    }

    const GOLDEN: [&str; 2] =
        ["92679460050a1503f4dac7a441918350", "3042b9cd38eaa2dce7ca7702265e000c"];

    #[test]
    fn the_same_text_twice_has_two_ids() {
        let ids = ids("a\na\na\n");
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[1], ids[2]);
    }

    #[test]
    fn a_grown_file_keeps_its_ids() {
        assert_eq!(ids("a\nb\n"), ids("a\nb\nc\n")[..2]);
        let long = "a line of a file that is longer than the head\n".repeat(60);
        assert_eq!(ids(&long), ids(&format!("{long}more\n"))[..60]);
    }

    #[test]
    fn the_line_end_is_not_part_of_a_line_but_its_text_is() {
        for same in ["a\nb\n", "a\nb\r\n", "a\nb\r", "a\r\nb"] {
            assert_eq!(ids("a\nb"), ids(same), "{same:?}");
        }
        assert_ne!(ids("a\nb")[1], ids("a\nbcd\n")[1]);
        assert_ne!(ids("a\nb\r")[1], ids("a\nb\rc\n")[1]);
    }

    #[test]
    fn files_that_begin_alike_share_no_id_once_they_are_longer_than_the_head() {
        let banner = "=== service starting, version 1 ===\nsettings read\n";
        let first = format!("{banner}{}", "first\n".repeat(200));
        let second = format!("{banner}{}", "second\n".repeat(200));
        let first = ids(&first);
        assert!(ids(&second).iter().all(|id| !first.contains(id)));
    }

    #[test]
    fn bytes_that_read_alike_are_told_apart() {
        assert_ne!(ids_as("host", b"\xff\n"), ids_as("host", b"\xfe\n"));
    }

    #[test]
    fn another_source_is_another_event() {
        assert_ne!(ids_as("one", b"a\n"), ids_as("two", b"a\n"));
    }
}
