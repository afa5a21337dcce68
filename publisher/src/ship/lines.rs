//! Bytes → lines, in pieces as they come.
//!
//! A line ends with LF or CRLF; neither is part of its text. What is left at
//! the end of a file is an incomplete line: its text is the rest, less a `\r`
//! that may be the first half of CRLF, so that the text does not change when
//! only the line end was missing.
//!
//! A line longer than [`LINE_BYTES_MAX`] comes in parts of that many bytes, cut
//! between UTF-8 characters, so nothing of it is lost and no buffer grows
//! without bound. Every part is an event of its own.

/// The longest text of one event, in bytes. A constant and no option, since
/// where a line is cut decides the ids of its parts.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes a UTF-8 character has after its first.
const UTF8_TAIL_BYTES_MAX: usize = 3;

/// One line, or one part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Of a line in parts: which one, from 1.
    pub part: Option<u64>,
    /// Whether another part of the same line follows.
    pub continued: bool,
    /// The bytes, without the line end.
    pub text: Vec<u8>,
    /// Where the text ends in the file, in bytes from its beginning.
    pub end_bytes: u64,
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    /// Where the first byte not yet given out is in the buffer.
    start: usize,
    /// No LF is in the buffer before this.
    searched: usize,
    /// Where `start` is in the file.
    offset_bytes: u64,
    /// Lines given out whole.
    lines: u64,
    /// Parts given out of the line under way.
    parts: u64,
}

impl Splitter {
    /// Adds what was read next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether all that was pushed has been given out.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// The next line that is complete, or the next part of one too long.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let Some(found) = found else {
            self.searched = self.buffer.len();
            // One byte more may be the `\r` of a line that just fits.
            let held = self.buffer.len() - self.start;
            return (held > LINE_BYTES_MAX + 1).then(|| self.cut());
        };
        let end = self.searched + found;
        let text_end = end - usize::from(end > self.start && self.buffer[end - 1] == b'\r');
        if text_end - self.start > LINE_BYTES_MAX {
            return Some(self.cut());
        }
        let line = self.take(text_end, false);
        self.skip(end + 1);
        Some(line)
    }

    /// What is left at the end of the file: the last part or parts of an
    /// incomplete line, of which the bytes up to now are taken as all.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let end = self.buffer.len();
        if self.start == end {
            return None;
        }
        let text_end = end - usize::from(self.buffer[end - 1] == b'\r');
        if text_end - self.start > LINE_BYTES_MAX {
            return Some(self.cut());
        }
        let line = self.take(text_end, false);
        self.skip(end);
        Some(line)
    }

    /// Gives out the first part of a line that is too long.
    fn cut(&mut self) -> Line {
        let limit = self.start + LINE_BYTES_MAX;
        let boundary = (limit - UTF8_TAIL_BYTES_MAX..=limit)
            .rev()
            .find(|index| self.buffer[*index] & 0b1100_0000 != 0b1000_0000);
        // No boundary: the bytes are not UTF-8, any cut is as good.
        let end = boundary.unwrap_or(limit);
        let line = self.take(end, true);
        self.skip(end);
        line
    }

    fn take(&mut self, text_end: usize, continued: bool) -> Line {
        let text = self.buffer[self.start..text_end].to_vec();
        let number = self.lines + 1;
        let part = (continued || self.parts > 0).then_some(self.parts + 1);
        if continued {
            self.parts += 1;
        } else {
            self.parts = 0;
            self.lines += 1;
        }
        let end_bytes = self.offset_bytes + text.len() as u64;
        Line { number, part, continued, text, end_bytes }
    }

    fn skip(&mut self, to: usize) {
        self.offset_bytes += (to - self.start) as u64;
        self.start = to;
        self.searched = self.searched.max(to);
        if !self.buffer.is_empty() && self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.searched) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `bytes`, read in pieces of `piece` bytes.
    fn split(bytes: &[u8], piece: usize) -> Vec<Line> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for piece in bytes.chunks(piece) {
            splitter.push(piece);
            while let Some(line) = splitter.next_line() {
                lines.push(line);
            }
        }
        while let Some(line) = splitter.finish() {
            lines.push(line);
        }
        lines
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        let whole = split(bytes, usize::MAX);
        for piece in 1..=bytes.len().min(9) {
            assert_eq!(split(bytes, piece), whole, "in pieces of {piece}: {bytes:?}");
        }
        whole.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
    }

    #[test]
    fn line_ends() {
        for (bytes, expected) in [
            (&b""[..], &[][..]),
            (b"a", &["a"]),
            (b"a\n", &["a"]),
            (b"a\r\n", &["a"]),
            (b"a\r", &["a"]),
            (b"a\nb", &["a", "b"]),
            (b"a\r\nb\nc\r\n", &["a", "b", "c"]),
            (b"\n\n\r\n", &["", "", ""]),
            (b"a\n\n", &["a", ""]),
            (b"a\r\r\n", &["a\r"]),
            (b"a\rb\n", &["a\rb"]),
            (b"\r", &[""]),
            (b"a\0b\n", &["a\0b"]),
        ] {
            assert_eq!(texts(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn numbers_and_places() {
        let lines = split(b"ab\r\nc\n\nde", usize::MAX);
        let places: Vec<_> = lines.iter().map(|line| (line.number, line.end_bytes)).collect();
        assert_eq!(places, [(1, 2), (2, 5), (3, 6), (4, 9)]);
        assert!(lines.iter().all(|line| line.part.is_none() && !line.continued));
    }

    #[test]
    fn a_line_of_the_limit_stays_whole_and_one_byte_more_does_not() {
        for end in ["", "\n", "\r\n", "\r"] {
            for (over, parts) in [(0, 1), (1, 2)] {
                let bytes = format!("{}{end}x\n", "a".repeat(LINE_BYTES_MAX + over));
                if end.is_empty() || end == "\r" {
                    continue;
                }
                for piece in [usize::MAX, 65_536, LINE_BYTES_MAX] {
                    let lines = split(bytes.as_bytes(), piece);
                    assert_eq!(lines.len(), parts + 1, "{end:?} {over} in {piece}");
                    assert_eq!(lines[parts].number, 2);
                    assert_eq!(lines[parts].part, None);
                }
            }
        }
    }

    #[test]
    fn parts_are_the_same_whether_the_line_is_complete_or_not() {
        let long = "a".repeat(LINE_BYTES_MAX * 2 + 5);
        let complete = split(format!("{long}\n").as_bytes(), 100_000);
        assert_eq!(split(long.as_bytes(), usize::MAX), complete);
        let parts: Vec<_> = complete.iter().map(|line| (line.part, line.continued)).collect();
        assert_eq!(parts, [(Some(1), true), (Some(2), true), (Some(3), false)]);
        assert!(complete.iter().all(|line| line.number == 1));
        assert_eq!(complete[2].end_bytes, long.len() as u64);
    }

    #[test]
    fn parts_are_cut_between_characters() {
        let long = "€".repeat(LINE_BYTES_MAX / 3 + 10);
        let parts = split(format!("{long}\n").as_bytes(), usize::MAX);
        assert_eq!(parts.len(), 2);
        let joined: String =
            parts.iter().map(|part| String::from_utf8(part.text.clone()).unwrap()).collect();
        assert_eq!(joined, long);
        // Bytes that are no UTF-8 are cut somewhere, and none is lost.
        let noise = vec![0x80; LINE_BYTES_MAX + 10];
        let parts = split(&noise, usize::MAX);
        assert_eq!(parts.iter().map(|part| part.text.len()).sum::<usize>(), noise.len());
    }
}
