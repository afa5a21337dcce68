//! The beginning of a file, in the form in which files are compared.
//!
//! Of the first [`WINDOW_BYTES`] of the text there is a digest for each complete
//! line, over that line and all before it. So two files can be compared to the
//! line without their contents: the first line at which the digests differ is
//! the first in which the files do.

use sha2::{Digest as _, Sha256};

use super::identity::{HEAD_BYTES, hash};

/// The bytes of text that are compared. Files alike for longer are one.
pub(crate) const WINDOW_BYTES: usize = 64 * 1024;
/// The complete lines that are compared, which end the window where they are
/// very short.
pub(crate) const WINDOW_LINES_MAX: usize = 4_096;

/// The digest of some lines, or of bytes; shortened, as it stands against
/// chance alone.
pub(crate) type ShortDigest = [u8; DIGEST_BYTES];

/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: usize = 8;

/// The digest of bytes that need not be lines.
#[must_use]
pub(crate) fn digest_of(bytes: &[u8]) -> ShortDigest {
    shortened(&Sha256::digest(bytes))
}

fn shortened(digest: &[u8]) -> ShortDigest {
    let mut short = ShortDigest::default();
    short.copy_from_slice(&digest[..DIGEST_BYTES]);
    short
}

/// The beginning of a file's text.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    text: Vec<u8>,
    /// Of each complete line: the digest of it and all before it.
    lines: Vec<ShortDigest>,
    /// Of each complete line: where the next one begins in `text`.
    ends: Vec<usize>,
    full: bool,
    chain: [u8; 32],
}

impl Default for Window {
    fn default() -> Self {
        let chain = hash(&[b"window"]);
        Self { text: Vec::new(), lines: Vec::new(), ends: Vec::new(), full: false, chain }
    }
}

impl Window {
    /// Adds the text that follows, as far as it is in the window.
    pub(crate) fn push(&mut self, text: &[u8]) {
        if self.full {
            return;
        }
        let room = WINDOW_BYTES - self.text.len();
        self.text.extend_from_slice(&text[..text.len().min(room)]);
        self.full = text.len() >= room;
        let mut begin = self.complete_bytes();
        let mut searched = self.text.len() - text.len().min(room);
        while let Some(found) = memchr::memchr(b'\n', &self.text[searched..]) {
            let end = searched + found + 1;
            let line = &self.text[begin..end - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.chain = hash(&[&self.chain, line]);
            self.lines.push(shortened(&self.chain));
            self.ends.push(end);
            (begin, searched) = (end, end);
            if self.lines.len() == WINDOW_LINES_MAX {
                self.full = true;
                self.text.truncate(end);
                break;
            }
        }
    }

    /// Whether no more text goes in.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether nothing is in it.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text itself.
    #[must_use]
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its beginning, up to [`HEAD_BYTES`].
    #[must_use]
    pub(crate) fn head(&self) -> &[u8] {
        &self.text[..self.text.len().min(HEAD_BYTES)]
    }

    /// The digests of its complete lines.
    #[must_use]
    pub(crate) fn lines(&self) -> &[ShortDigest] {
        &self.lines
    }

    /// Where the text of complete line `index` ends, in bytes, without its line
    /// end, roughly: CR is not looked for.
    #[must_use]
    pub(crate) fn line_end(&self, index: usize) -> Option<usize> {
        self.ends.get(index).map(|end| end - 1)
    }

    /// The bytes of its first `lines` complete lines.
    #[must_use]
    pub(crate) fn bytes_of(&self, lines: usize) -> usize {
        lines.checked_sub(1).and_then(|index| self.ends.get(index)).copied().unwrap_or_default()
    }

    /// What follows the first `lines` complete lines.
    #[must_use]
    pub(crate) fn after(&self, lines: usize) -> &[u8] {
        &self.text[self.bytes_of(lines)..]
    }

    /// The text after the last complete line.
    #[must_use]
    pub(crate) fn tail(&self) -> &[u8] {
        &self.text[self.complete_bytes()..]
    }

    fn complete_bytes(&self) -> usize {
        self.bytes_of(self.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &[u8], piece: usize) -> Window {
        let mut window = Window::default();
        for piece in text.chunks(piece) {
            window.push(piece);
        }
        window
    }

    #[test]
    fn lines_are_the_same_in_pieces_of_any_length() {
        let text = b"one\r\ntwo\n\nthree\nincomplete";
        let whole = window(text, text.len());
        assert_eq!(whole.lines().len(), 4);
        assert_eq!(whole.tail(), b"incomplete");
        assert_eq!(whole.after(2), b"\nthree\nincomplete");
        for piece in 1..9 {
            let parts = window(text, piece);
            assert_eq!((parts.lines(), parts.tail()), (whole.lines(), whole.tail()), "{piece}");
        }
        // The line end makes no difference, the line does.
        assert_eq!(window(b"one\ntwo\n", 99).lines(), &whole.lines()[..2]);
        assert_ne!(window(b"one\ntwo.\n", 99).lines()[1], whole.lines()[1]);
    }

    #[test]
    fn it_ends_at_its_limits() {
        let long = window(&vec![b'a'; WINDOW_BYTES + 5], 1_000);
        assert!(long.is_full() && long.lines().is_empty());
        assert_eq!(long.tail().len(), WINDOW_BYTES);
        let many = window(&[b'\n'; WINDOW_LINES_MAX + 5], 1_000);
        assert!(many.is_full() && many.tail().is_empty());
        assert_eq!(many.lines().len(), WINDOW_LINES_MAX);
        let mut exact = window(&vec![b'a'; WINDOW_BYTES - 1], 1_000);
        assert!(!exact.is_full());
        exact.push(b"a");
        assert!(exact.is_full());
    }
}
