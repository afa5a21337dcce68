//! Bytes as they are read → text as it is shipped.
//!
//! - A byte order mark says what the encoding is, and is no part of the text.
//!   Without one it is the one that was given, UTF-8 by default.
//! - UTF-8 is handed on byte by byte, valid or not, since the ids of lines are
//!   made of their bytes; other encodings are decoded.
//! - A row of at least [`HOLE_BYTES_MIN`] NUL bytes is a hole: what a writer
//!   leaves that writes on at its old offset after the file was truncated, or a
//!   machine that lost its power. It is left out and counted. In the middle of
//!   a line it ends that line, for what comes after it was written later.

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// NUL bytes in a row that are no text.
pub(crate) const HOLE_BYTES_MIN: usize = 16;

/// The longest byte order mark, in bytes.
const MARK_BYTES_MAX: usize = 3;
/// Of content that is text at most one byte in so many is a control character,
const CONTROL_BYTES_RATIO: usize = 4;
/// or in so many, where
const CONTROL_BYTES_RATIO_IN_NOISE: usize = 20;
/// one byte in so many is no UTF-8.
const INVALID_BYTES_RATIO: usize = 3;
/// In UTF-16 of western text every other byte is NUL, but for one in so many.
const UTF16_BYTES_RATIO: usize = 10;

/// Turns the bytes of one file into text, in pieces as they come.
pub(crate) struct TextDecoder {
    /// Used unless the content says what it is.
    encoding: Option<&'static Encoding>,
    /// The first bytes, until it is known whether they are a mark.
    beginning: Option<Vec<u8>>,
    decoder: Option<Decoder>,
    holes: Holes,
}

impl std::fmt::Debug for TextDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextDecoder").field("holes", &self.holes).finish_non_exhaustive()
    }
}

impl TextDecoder {
    /// For a file in `encoding`, unless its byte order mark says otherwise.
    #[must_use]
    pub(crate) fn new(encoding: Option<&'static Encoding>) -> Self {
        Self { encoding, beginning: Some(Vec::new()), decoder: None, holes: Holes::default() }
    }

    /// Appends to `text` what was read next.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        let Some(mut beginning) = self.beginning.take() else {
            return self.decode(bytes, false, text);
        };
        beginning.extend_from_slice(bytes);
        if beginning.len() < MARK_BYTES_MAX && may_become_mark(&beginning) {
            self.beginning = Some(beginning);
        } else {
            self.begin(&beginning, text);
        }
    }

    /// Appends to `text` what is left at the end of the file.
    pub(crate) fn finish(&mut self, text: &mut Vec<u8>) {
        if let Some(beginning) = self.beginning.take() {
            self.begin(&beginning, text);
        }
        self.decode(&[], true, text);
        self.decoder = None;
        self.holes.finish(text);
    }

    /// NUL bytes left out so far.
    #[must_use]
    pub(crate) fn hole_bytes(&self) -> u64 {
        self.holes.bytes
    }

    fn begin(&mut self, beginning: &[u8], text: &mut Vec<u8>) {
        let marked = Encoding::for_bom(beginning);
        let encoding = marked.map(|(encoding, _)| encoding).or(self.encoding);
        self.decoder = encoding
            .filter(|encoding| *encoding != UTF_8)
            .map(Encoding::new_decoder_without_bom_handling);
        let mark_bytes = marked.map_or(0, |(_, bytes)| bytes);
        self.decode(&beginning[mark_bytes..], false, text);
    }

    fn decode(&mut self, mut bytes: &[u8], last: bool, text: &mut Vec<u8>) {
        let Some(decoder) = &mut self.decoder else { return self.holes.push(bytes, text) };
        let mut decoded = vec![0; 4 * 1024];
        loop {
            let (result, read, written, _) = decoder.decode_to_utf8(bytes, &mut decoded, last);
            self.holes.push(&decoded[..written], text);
            bytes = &bytes[read..];
            if result == CoderResult::InputEmpty {
                return;
            }
        }
    }
}

fn may_become_mark(bytes: &[u8]) -> bool {
    [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"]
        .iter()
        .any(|mark| mark.len() > bytes.len() && mark.starts_with(bytes))
}

/// Leaves out rows of NUL bytes.
#[derive(Debug, Default)]
struct Holes {
    /// NUL bytes at the end of what was pushed.
    run: u64,
    /// Whether the text handed on ends in the middle of a line.
    in_line: bool,
    /// Left out.
    bytes: u64,
}

impl Holes {
    fn push(&mut self, mut bytes: &[u8], text: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let nuls = bytes.iter().take_while(|byte| **byte == 0).count();
            self.run += nuls as u64;
            bytes = &bytes[nuls..];
            if bytes.is_empty() {
                return;
            }
            self.end_run(text);
            let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
            text.extend_from_slice(&bytes[..end]);
            self.in_line = bytes[end - 1] != b'\n';
            bytes = &bytes[end..];
        }
    }

    /// What follows is no NUL.
    fn end_run(&mut self, text: &mut Vec<u8>) {
        let run = std::mem::take(&mut self.run);
        if run >= HOLE_BYTES_MIN as u64 {
            self.bytes += run;
            if std::mem::take(&mut self.in_line) {
                text.push(b'\n');
            }
        } else if run > 0 {
            text.extend(std::iter::repeat_n(0, usize::try_from(run).unwrap_or_default()));
            self.in_line = true;
        }
    }

    fn finish(&mut self, text: &mut Vec<u8>) {
        self.end_run(text);
    }
}

/// Why content that begins with `head` is no text, if it is none: it would be
/// stored as noise. `encoding` is what was given for it.
#[must_use]
pub(crate) fn not_text(head: &[u8], encoding: Option<&'static Encoding>) -> Option<String> {
    if encoding.is_some() || Encoding::for_bom(head).is_some() {
        return None;
    }
    let half = head.len() / 2;
    let nuls_at = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let other_nuls = |odd: usize| nuls_at(1 - odd) * UTF16_BYTES_RATIO < nuls_at(odd);
    for (odd, encoding) in [(1, UTF_16LE), (0, UTF_16BE)] {
        if half > 0 && nuls_at(odd) * 2 > half && other_nuls(odd) {
            let name = encoding.name();
            return Some(format!("it looks like {name}; if it is, give --encoding {name}"));
        }
    }
    let mut text = Vec::new();
    let mut decoder = TextDecoder::new(None);
    decoder.push(head, &mut text);
    let controls = text.iter().filter(|byte| is_control(**byte)).count();
    let invalid: usize = text.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    let noise = controls * CONTROL_BYTES_RATIO_IN_NOISE > text.len()
        && invalid * INVALID_BYTES_RATIO > text.len();
    (noise || controls * CONTROL_BYTES_RATIO > text.len()).then(|| {
        "it is binary, and would be stored as noise; turn it into text first: \
         COMMAND FILE | publisher ship --topic NAME -, or give its --encoding if it is text"
            .to_owned()
    })
}

/// Control characters that logs do not have: all but white space, backspace and
/// the escape that colours are made with.
fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=7 | 14..=26 | 28..=31 | 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of `bytes`, the same in pieces of any length, and what was left
    /// out of it.
    fn text_in(bytes: &[u8], encoding: Option<&'static Encoding>) -> (Vec<u8>, u64) {
        let decode = |piece: usize| {
            let mut decoder = TextDecoder::new(encoding);
            let mut text = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece, &mut text);
            }
            decoder.finish(&mut text);
            (text, decoder.hole_bytes())
        };
        let whole = decode(bytes.len().max(1));
        for piece in 1..=5 {
            assert_eq!(decode(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn text(bytes: &[u8]) -> String {
        let (text, holes) = text_in(bytes, None);
        assert_eq!(holes, 0);
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn byte_order_marks() {
        assert_eq!(text(b""), "");
        assert_eq!(text(b"\xef\xbb\xbffirst\r\n"), "first\r\n");
        assert_eq!(text(b"\xff\xfea\0\n\0\xe9\0"), "a\né");
        assert_eq!(text(b"\xfe\xff\0a\0\n\0\xe9"), "a\né");
        // A pair of surrogates.
        assert_eq!(text(b"\xff\xfe\x3d\xd8\x00\xde"), "😀");
        // What only begins like a mark is kept.
        for kept in [&b"\xef"[..], b"\xef\xbb", b"\xef\xbbx", b"\xff", b"\xfe", b"a\xef\xbb\xbf"] {
            assert_eq!(text_in(kept, None).0, kept);
        }
    }

    #[test]
    fn a_named_encoding_is_decoded_unless_a_mark_says_otherwise() {
        let latin = Encoding::for_label(b"latin1");
        assert_eq!(text_in(b"caf\xe9\n", latin).0, "café\n".as_bytes());
        assert_eq!(text_in("\u{feff}café".as_bytes(), latin).0, "café".as_bytes());
        let sjis = Encoding::for_label(b"shift_jis");
        assert_eq!(text_in(b"\x83\x65\x83\x58\x83\x67", sjis).0, "テスト".as_bytes());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_handed_on() {
        assert_eq!(text_in(b"a\xff\xfe\n", None).0, b"a\xff\xfe\n");
    }

    #[test]
    fn holes_are_left_out_and_counted() {
        let hole = vec![0; 4_096];
        let of = |parts: &[&[u8]]| text_in(&parts.concat(), None);
        assert_eq!(of(&[&hole, b"a line\n"]), (b"a line\n".to_vec(), 4_096));
        assert_eq!(of(&[b"one\n", &hole, b"two\n"]), (b"one\ntwo\n".to_vec(), 4_096));
        assert_eq!(of(&[b"cut o", &hole, b"two\n", &hole]), (b"cut o\ntwo\n".to_vec(), 8_192));
        // Fewer are text.
        assert_eq!(of(&[b"a\0b\0\0\n\0"]), (b"a\0b\0\0\n\0".to_vec(), 0));
        assert_eq!(of(&[&[0; HOLE_BYTES_MIN - 1]]).1, 0);
        assert_eq!(of(&[&[0; HOLE_BYTES_MIN]]), (Vec::new(), HOLE_BYTES_MIN as u64));
    }

    #[test]
    fn what_is_no_text_is_told_with_advice() {
        let none = |head: &[u8]| assert_eq!(not_text(head, None), None, "{head:?}");
        for head in [
            &b""[..],
            b"a line\n",
            b"nul \0 and \x01\r\nbad \xff\n",
            b"\x1b[32mgreen\x1b[0m\n",
            b"caf\xe9\n",
            b"\x83\x65\x83\x58\x83\x67\n",
            b"\xff\xfea\0b\0",
            &[0; 1024],
        ] {
            none(head);
        }
        let elf =
            [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"[..], &[3, 0, 62, 0, 1, 0, 0, 0]].concat();
        assert!(not_text(&elf, None).unwrap().contains("binary"));
        let random: Vec<u8> =
            (0_u32..1_024).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(not_text(&random, None).unwrap().contains("binary"));
        assert!(not_text(b"h\0e\0l\0l\0o\0\n\0", None).unwrap().contains("UTF-16LE"));
        assert!(not_text(b"\0h\0e\0l\0l\0o\0\n", None).unwrap().contains("UTF-16BE"));
        assert_eq!(not_text(b"h\0e\0l\0l\0o\0\n\0", Encoding::for_label(b"utf-16le")), None);
    }
}
