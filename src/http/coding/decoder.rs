//! A body on its way from its coding to what it was before.

use std::io::{self, ErrorKind, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::decoded::{Decoded, invalid};
use super::names::Coding;
use super::zstd::Zstd;
use crate::http::problem::Problem;

/// How much of a body is decoded at once, in bytes: what a decoder keeps of it is not
/// much more.
const ENCODED_BYTES_MAX: usize = 64 * 1024;

/// Most members of a gzip body that is read as a whole. They are joined as if they were
/// one, and each costs as much time as some ten thousand bytes do, however short it is.
pub(crate) const GZIP_MEMBERS_MAX: u32 = 10_000;

/// Takes a body as it comes and gives it as it was before it was encoded.
pub(crate) struct Decoder {
    coding: Option<Coding>,
    state: State,
    bytes_max: usize,
    has_begun: bool,
}

enum State {
    /// There is nothing to decode.
    AsItIs(Decoded),
    /// With how many members more there may be.
    Gzip(GzDecoder<Decoded>, u32),
    /// Which of both it is is told by the first two bytes, of which the first may be here.
    Deflate(Option<u8>, Decoded),
    Zlib(ZlibDecoder<Decoded>),
    RawDeflate(DeflateDecoder<Decoded>),
    Zstd(Box<Zstd>, Decoded),
}

impl Decoder {
    /// A decoder of a body that has `bytes_max` bytes at most when it is decoded.
    pub(crate) fn new(coding: Option<Coding>, bytes_max: usize) -> Self {
        Decoder::with_limits(coding, bytes_max, GZIP_MEMBERS_MAX)
    }

    /// A decoder of a body of any length, which is taken as it comes.
    pub(super) fn of_stream(coding: Coding) -> Self {
        Decoder::with_limits(Some(coding), usize::MAX, u32::MAX)
    }

    fn with_limits(coding: Option<Coding>, bytes_max: usize, members_max: u32) -> Self {
        let decoded = Decoded::new(bytes_max);
        let state = match coding {
            None => State::AsItIs(decoded),
            Some(Coding::Gzip) => State::Gzip(GzDecoder::new(decoded), members_max - 1),
            Some(Coding::Deflate) => State::Deflate(None, decoded),
            Some(Coding::Zstd) => State::Zstd(Box::default(), decoded),
        };
        Decoder { coding, state, bytes_max, has_begun: false }
    }

    /// Decodes what comes next of the body.
    ///
    /// # Errors
    ///
    /// 413 when it is too long by now, and 422 when it is not in its coding.
    pub(crate) fn write(&mut self, encoded: &[u8]) -> Result<(), Problem> {
        let mut rest = encoded;
        while !rest.is_empty() {
            rest = &rest[self.step(rest)?..];
        }
        Ok(())
    }

    /// Decodes some of what comes next, and says how much: something, if there is anything.
    ///
    /// # Errors
    ///
    /// Those of [`Self::write`].
    pub(super) fn step(&mut self, encoded: &[u8]) -> Result<usize, Problem> {
        self.has_begun |= !encoded.is_empty();
        let some = &encoded[..encoded.len().min(ENCODED_BYTES_MAX)];
        self.state.step(some).map_err(|error| self.refused(&error))
    }

    /// The whole body, less what was taken.
    ///
    /// # Errors
    ///
    /// Those of [`Self::write`]; it may not end here.
    pub(crate) fn end(mut self) -> Result<Vec<u8>, Problem> {
        // Nothing is nothing in every coding: some clients name one with every request.
        if self.has_begun {
            self.state.end().map_err(|error| self.refused(&error))?;
        }
        Ok(self.state.decoded().take())
    }

    /// Everything that the body gives so far and was not taken yet.
    ///
    /// # Errors
    ///
    /// Those of [`Self::write`].
    pub(super) fn take(&mut self) -> Result<Vec<u8>, Problem> {
        self.state.flush().map_err(|error| self.refused(&error))?;
        Ok(self.state.decoded().take())
    }

    fn refused(&mut self, error: &io::Error) -> Problem {
        if self.state.decoded().is_over() {
            return Problem::decoded_body_too_large(self.bytes_max);
        }
        let coding = self.coding.map_or("", Coding::name);
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        };
        Problem::invalid_body(format!("The body is not {coding}: {why}."))
    }
}

impl State {
    fn step(&mut self, encoded: &[u8]) -> io::Result<usize> {
        match self {
            State::AsItIs(decoded) => decoded.write(encoded),
            State::Gzip(decoder, members) => match decoder.write(encoded)? {
                // This member is whole, and there is another.
                0 if !encoded.is_empty() => {
                    decoder.try_finish()?;
                    let left = members.checked_sub(1);
                    *members = left.ok_or_else(|| invalid("it has too many members"))?;
                    let decoded = std::mem::take(decoder.get_mut());
                    *decoder = GzDecoder::new(decoded);
                    decoder.write(encoded)
                }
                taken => Ok(taken),
            },
            State::Deflate(first, decoded) => {
                let Some(second) = encoded.first() else { return Ok(0) };
                let Some(first) = first.replace(*second) else { return Ok(1) };
                let decoded = std::mem::take(decoded);
                *self = match is_zlib(first, *second) {
                    true => State::Zlib(ZlibDecoder::new(decoded)),
                    false => State::RawDeflate(DeflateDecoder::new(decoded)),
                };
                let begin = [first, *second];
                let mut rest = &begin[..];
                while !rest.is_empty() {
                    rest = &rest[self.step(rest)?..];
                }
                Ok(1)
            }
            State::Zlib(decoder) => decoder.write(encoded).and_then(not_beyond_the_end),
            State::RawDeflate(decoder) => decoder.write(encoded).and_then(not_beyond_the_end),
            State::Zstd(decoder, decoded) => {
                decoder.write(encoded, decoded)?;
                Ok(encoded.len())
            }
        }
    }

    /// Has all decoded that came.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            State::Gzip(decoder, _) => decoder.flush(),
            State::Zlib(decoder) => decoder.flush(),
            State::RawDeflate(decoder) => decoder.flush(),
            State::AsItIs(_) | State::Deflate(..) | State::Zstd(..) => Ok(()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            State::AsItIs(_) => Ok(()),
            State::Gzip(decoder, _) => decoder.try_finish(),
            State::Deflate(..) => Err(ErrorKind::UnexpectedEof.into()),
            State::Zlib(decoder) => decoder.try_finish(),
            State::RawDeflate(decoder) => decoder.try_finish(),
            State::Zstd(decoder, _) => decoder.end(),
        }
    }

    fn decoded(&mut self) -> &mut Decoded {
        match self {
            State::AsItIs(decoded) | State::Deflate(_, decoded) | State::Zstd(_, decoded) => {
                decoded
            }
            State::Gzip(decoder, _) => decoder.get_mut(),
            State::Zlib(decoder) => decoder.get_mut(),
            State::RawDeflate(decoder) => decoder.get_mut(),
        }
    }
}

/// Whether a body in deflate has the header of zlib.
fn is_zlib(first: u8, second: u8) -> bool {
    let is_deflate = first & 0x0f == 8 && first >> 4 <= 7;
    is_deflate && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

fn not_beyond_the_end(taken: usize) -> io::Result<usize> {
    match taken {
        0 => Err(invalid("something comes after its end")),
        taken => Ok(taken),
    }
}
