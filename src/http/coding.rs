//! Content codings: bodies that come compressed, and replies that go out so.
//!
//! Decoding goes on while a body comes, and stops at the limit of what it may be when
//! it is decoded, so no body takes more memory than that and a fixed sum for its
//! decoder.

mod decoded;
mod decoder;
mod encoder;
mod names;
mod parts;
#[cfg(test)]
mod tests;
mod zstd;

pub(crate) use decoder::Decoder;
#[cfg(test)]
pub(crate) use decoder::GZIP_MEMBERS_MAX;
#[cfg(test)]
pub(crate) use encoder::COMPRESSED_BYTES_MIN;
pub(crate) use encoder::compressed;
pub(crate) use names::{OF_NONE, OF_STREAMS, OF_WHOLE_BODIES};
pub(crate) use parts::decoded_parts;
#[cfg(test)]
pub(crate) use zstd::ZSTD_WINDOW_BYTES_MAX;
