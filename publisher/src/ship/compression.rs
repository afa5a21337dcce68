//! Compressed files, read as what is in them.
//!
//! Which format it is, its first bytes tell, whatever the file's name. The ids
//! of its lines are those of the plain file, as they are made of its content.

use std::io::{self, BufReader, Read};

use anyhow::bail;

/// Bytes at the beginning that tell what a file is.
pub(crate) const MAGIC_BYTES: usize = 8;

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// gzip, of any number of members.
    Gzip,
    /// Zstandard, of any number of frames.
    Zstd,
    /// xz, of any number of streams.
    Xz,
    /// bzip2, of any number of streams.
    Bzip2,
}

const READABLE: [(&[u8], Compression); 4] = [
    (b"\x1f\x8b\x08", Compression::Gzip),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"BZh", Compression::Bzip2),
];

/// Formats that are known and not read, with what unpacks them into a pipe.
const UNREADABLE: [(&[u8], &str, &str); 9] = [
    (b"\x1f\x9d", "compressed by compress", "zcat FILE"),
    (b"\x1f\xa0", "compressed by compress", "zcat FILE"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "lz4cat FILE"),
    (b"LZIP", "compressed by lzip", "lzip --decompress --stdout FILE"),
    (b"\x89LZO\0", "compressed by lzop", "lzop --decompress --stdout FILE"),
    (b"\xff\x06\0\0sNaP", "compressed by Snappy", "snzip --decompress --stdout FILE"),
    (b"PK\x03\x04", "a ZIP archive", "unzip -p FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so FILE"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar p -inul FILE"),
];

impl Compression {
    /// The format of content that begins with `head`; nothing if it is plain.
    ///
    /// # Errors
    ///
    /// If it is compressed in a way that cannot be read here, naming it and
    /// what to do.
    pub(crate) fn of(head: &[u8]) -> anyhow::Result<Option<Self>> {
        if let Some((_, what, unpack)) =
            UNREADABLE.iter().find(|(magic, ..)| head.starts_with(magic))
        {
            bail!(
                "it is {what}, which is not read here; unpack it into a pipe: \
                 {unpack} | publisher ship --topic NAME -"
            );
        }
        let found = READABLE.iter().find(|(magic, _)| head.starts_with(magic));
        Ok(found.map(|(_, compression)| *compression))
    }

    /// Whether content that begins with this byte may be compressed.
    #[must_use]
    pub(crate) fn may_begin_with(first: u8) -> bool {
        let magics = READABLE.iter().map(|(magic, _)| *magic);
        magics.chain(UNREADABLE.iter().map(|(magic, ..)| *magic)).any(|magic| magic[0] == first)
    }

    /// What is in `reader`.
    ///
    /// # Errors
    ///
    /// If the decoder cannot be made.
    pub(crate) fn decoder(
        self,
        reader: impl Read + Send + 'static,
    ) -> io::Result<Box<dyn Read + Send>> {
        let reader = BufReader::new(reader);
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// `content` in two members, frames or streams, as appending to a
    /// compressed file makes them.
    fn compressed(compression: Compression, content: &[u8]) -> Vec<u8> {
        let (first, second) = content.split_at(content.len() / 2);
        let mut all = Vec::new();
        for part in [first, second] {
            all.extend(match compression {
                Compression::Gzip => {
                    let mut encoder =
                        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap()
                }
                Compression::Zstd => zstd::encode_all(part, 1).unwrap(),
                Compression::Xz => {
                    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap()
                }
                Compression::Bzip2 => {
                    let mut encoder =
                        bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                    encoder.write_all(part).unwrap();
                    encoder.finish().unwrap()
                }
            });
        }
        all
    }

    #[test]
    fn what_was_compressed_in_parts_is_read_whole() {
        let content = b"a line\nand another\n".repeat(10_000);
        for (_, compression) in READABLE {
            let bytes = compressed(compression, &content);
            let head = &bytes[..MAGIC_BYTES];
            assert_eq!(Compression::of(head).unwrap(), Some(compression));
            let mut read = Vec::new();
            let mut decoder = compression.decoder(io::Cursor::new(bytes.clone())).unwrap();
            decoder.read_to_end(&mut read).unwrap();
            assert!(read == content, "{compression:?}");
            // What is cut off is an error, and not the end.
            let cut = bytes[..bytes.len() - 7].to_vec();
            let mut decoder = compression.decoder(io::Cursor::new(cut)).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn other_formats_are_named_with_advice() {
        for (magic, what, unpack) in UNREADABLE {
            let error = Compression::of(&[magic, b"rest"].concat()).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(unpack), "{error}");
        }
        for plain in [&b""[..], b"BZ", b"2024-01-01 a line\n", b"\x1f\x8b"] {
            assert_eq!(Compression::of(plain).unwrap(), None, "{plain:?}");
        }
    }
}
