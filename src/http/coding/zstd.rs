//! zstd (RFC 8878), a block at a time.
//!
//! `ruzstd` decodes what is in memory, so frames are taken apart as far as it needs to
//! be known where a block ends. A block has at most 128 KiB, so little is kept of what
//! has come, and nothing is reserved by what a header claims.

use std::io::{self, ErrorKind};

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::decoded::{Decoded, invalid};

/// How far back a frame may refer, in bytes: what RFC 8878 would have each decoder take,
/// and the most that `zstd` uses without `--ultra` or `--long`.
pub(crate) const ZSTD_WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Longest block, in bytes.
const BLOCK_BYTES_MAX: usize = 128 * 1024;

const BLOCK_HEADER_BYTES: usize = 3;

/// The kind of a block that is one byte again and again.
const REPEATED_BLOCK: u32 = 1;

/// That of one which is compressed.
const COMPRESSED_BLOCK: u32 = 2;

const CHECKSUM_BYTES: usize = 4;

/// What a frame begins with.
const FRAME: u32 = 0xfd2f_b528;

/// What one begins with that stands for nothing, less the last four bits.
const SKIPPABLE_FRAME: u32 = 0x184d_2a50;

/// A body in zstd: frames one after another.
#[derive(Default)]
pub(super) struct Zstd {
    /// What has come of a header or a block that is not whole.
    pending: Vec<u8>,
    /// The frame that is under way.
    frame: Option<Frame>,
    /// How many bytes come next that stand for nothing.
    skipped: usize,
}

struct Frame {
    decoder: FrameDecoder,
    has_checksum: bool,
    /// How many bytes it stands for, if it says so.
    length: Option<u64>,
    /// How many of them came.
    decoded: u64,
}

impl Zstd {
    /// Decodes what is whole of the body so far.
    pub(super) fn write(&mut self, encoded: &[u8], decoded: &mut Decoded) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(encoded);
        let mut taken = 0;
        while let Some(more) = self.step(&pending[taken..], decoded)? {
            taken += more;
        }
        pending.drain(..taken);
        self.pending = pending;
        Ok(())
    }

    /// Says whether the body may end here.
    pub(super) fn end(&self) -> io::Result<()> {
        match self.frame.is_none() && self.pending.is_empty() && self.skipped == 0 {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes what comes next, and says how many bytes that were; `None` when it is not
    /// all there.
    fn step(&mut self, input: &[u8], decoded: &mut Decoded) -> io::Result<Option<usize>> {
        if input.is_empty() {
            return Ok(None);
        }
        if self.skipped > 0 {
            let skipped = self.skipped.min(input.len());
            self.skipped -= skipped;
            return Ok(Some(skipped));
        }
        let Some(frame) = &mut self.frame else { return self.begin(input, decoded) };
        let taken = frame.take_block(input, decoded)?;
        if frame.decoder.is_finished() {
            frame.check()?;
            self.frame = None;
        }
        Ok(taken)
    }

    /// Takes what a frame begins with.
    fn begin(&mut self, input: &[u8], decoded: &mut Decoded) -> io::Result<Option<usize>> {
        let Some((kind, rest)) = input.split_first_chunk() else { return Ok(None) };
        match u32::from_le_bytes(*kind) {
            FRAME => {
                let Some(header) = rest.first().and_then(|what| input.get(..header_bytes(*what)))
                else {
                    return Ok(None);
                };
                let frame = Frame::new(header, rest[0])?;
                if frame.length.is_some_and(|length| length > decoded.room() as u64) {
                    return Err(decoded.overflow());
                }
                self.frame = Some(frame);
                Ok(Some(header.len()))
            }
            kind if kind & !0xf == SKIPPABLE_FRAME => {
                let Some((length, _)) = rest.split_first_chunk() else { return Ok(None) };
                self.skipped = u32::from_le_bytes(*length) as usize;
                Ok(Some(input.len() - rest.len() + length.len()))
            }
            _ => Err(invalid("there is something else where a frame should begin")),
        }
    }
}

/// How long the header of a frame is, which says `what` is in it.
fn header_bytes(what: u8) -> usize {
    let has_window = !is_of_one_segment(what);
    let dictionary = [0, 1, 2, 4][usize::from(what & 0b11)];
    5 + usize::from(has_window) + dictionary + length_bytes(what)
}

/// How long the length of the content is in it.
fn length_bytes(what: u8) -> usize {
    [usize::from(is_of_one_segment(what)), 2, 4, 8][usize::from(what >> 6)]
}

/// Whether its content is its window.
fn is_of_one_segment(what: u8) -> bool {
    what & 0b10_0000 != 0
}

impl Frame {
    fn new(header: &[u8], what: u8) -> io::Result<Self> {
        if what & 0b1000 != 0 {
            return Err(invalid("a frame has something that is not known"));
        }
        // One for each frame: to use one again reserves what the next header claims.
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        decoder.init(header).map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { requested, .. } => invalid(format!(
                "a frame needs a window of {requested} bytes, more than {ZSTD_WINDOW_BYTES_MAX}"
            )),
            FrameDecoderError::DictNotProvided { .. } => invalid("a frame needs a dictionary"),
            _ => invalid("the header of a frame is corrupt"),
        })?;
        let length = (length_bytes(what) > 0).then(|| decoder.content_size());
        Ok(Frame { decoder, has_checksum: what & 0b100 != 0, length, decoded: 0 })
    }

    /// Decodes the next block, if it is all there: with the checksum, if it is the last.
    fn take_block(&mut self, input: &[u8], decoded: &mut Decoded) -> io::Result<Option<usize>> {
        let Some([a, b, c]) = input.first_chunk::<BLOCK_HEADER_BYTES>() else { return Ok(None) };
        let header = u32::from_le_bytes([*a, *b, *c, 0]);
        let (is_last, kind) = (header & 1 == 1, header >> 1 & 0b11);
        let content = if kind == REPEATED_BLOCK { 1 } else { (header >> 3) as usize };
        let checksum = if is_last && self.has_checksum { CHECKSUM_BYTES } else { 0 };
        let block = BLOCK_HEADER_BYTES + content + checksum;
        // One that is too long is told by its header.
        if content <= BLOCK_BYTES_MAX && input.len() < block {
            return Ok(None);
        }
        if kind == COMPRESSED_BLOCK && literals(&input[BLOCK_HEADER_BYTES..]) > BLOCK_BYTES_MAX {
            return Err(invalid("a block is too long"));
        }
        let mut rest = input;
        self.decoder
            .decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|_| invalid("a block is corrupt"))?;
        self.decoded += self.decoder.collect_to_writer(decoded)? as u64;
        Ok(Some(input.len() - rest.len()))
    }

    /// Whether all of it came, and as it was.
    fn check(&self) -> io::Result<()> {
        if self.length.is_some_and(|length| length != self.decoded) {
            return Err(invalid("a frame has another length than it says"));
        }
        let told = self.decoder.get_checksum_from_data();
        if told.is_some() && told != self.decoder.get_calculated_checksum() {
            return Err(invalid("a frame does not have its checksum"));
        }
        Ok(())
    }
}

/// How many literals a compressed block claims to have, if it may be more than a block
/// has: `ruzstd` would make as many of one byte.
fn literals(block: &[u8]) -> usize {
    let Some([a, b, c]) = block.first_chunk() else { return 0 };
    let header = u32::from_le_bytes([*a, *b, *c, 0]);
    let is_long = header >> 2 & 0b11 == 0b11;
    // As they are and repeated ones have 20 bits for their number, packed ones 18.
    let bits = if header & 0b10 == 0 { 20 } else { 18 };
    if is_long { (header >> 4 & ((1 << bits) - 1)) as usize } else { 0 }
}
