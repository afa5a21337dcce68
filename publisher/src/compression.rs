//! Compressed files, read and written as what is in them.
//!
//! Which format a file is in that is read, its first bytes tell, whatever its name.
//! The name says in which one a file is written.

use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::Path;

use anyhow::bail;
use flate2::write::GzEncoder;

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

/// Endings of names that promise a format which is not written here.
const UNWRITABLE: [&str; 8] = ["xz", "bz2", "lz4", "lz", "lzo", "7z", "zip", "rar"];

/// How hard Zstandard tries: its own default, which a disk does not outrun.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The format of content that begins with `head`; nothing if it is plain. `taker`
    /// is the command that takes it from a pipe.
    ///
    /// # Errors
    ///
    /// If it is compressed in a way that cannot be read here, naming it and
    /// what to do.
    pub(crate) fn of(head: &[u8], taker: &str) -> anyhow::Result<Option<Self>> {
        if let Some((_, what, unpack)) =
            UNREADABLE.iter().find(|(magic, ..)| head.starts_with(magic))
        {
            bail!(
                "it is {what}, which is not read here; unpack it into a pipe: \
                 {unpack} | {taker}"
            );
        }
        let found = READABLE.iter().find(|(magic, _)| head.starts_with(magic));
        Ok(found.map(|(_, compression)| *compression))
    }

    /// The format that the name of a file asks for which is to be written.
    ///
    /// # Errors
    ///
    /// If it is one that is not written here.
    pub(crate) fn asked_for(path: &Path) -> anyhow::Result<Option<Self>> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Ok(Some(Self::Gzip)),
            "zst" | "zstd" => Ok(Some(Self::Zstd)),
            other if UNWRITABLE.contains(&other) => {
                bail!("no file is written as .{other} here: give one that ends in .zst or .gz")
            }
            _ => Ok(None),
        }
    }

    /// Whether content that begins with this byte may be compressed.
    #[must_use]
    fn may_begin_with(first: u8) -> bool {
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

/// What is in `reader`, unpacked if it is compressed. `taker` is as in
/// [`Compression::of`].
///
/// # Errors
///
/// If it cannot be read, or is compressed in a way that is not read here.
pub(crate) fn unpacked(
    mut reader: impl Read + Send + 'static,
    taker: &str,
) -> anyhow::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    reader.by_ref().take(1).read_to_end(&mut head)?;
    // More is not waited for where it need not be: it may be long in coming.
    if head.first().is_some_and(|first| Compression::may_begin_with(*first)) {
        reader.by_ref().take(MAGIC_BYTES as u64 - 1).read_to_end(&mut head)?;
    }
    let compression = Compression::of(&head, taker)?;
    let whole = Cursor::new(head).chain(reader);
    Ok(match compression {
        Some(compression) => compression.decoder(whole)?,
        None => Box::new(whole),
    })
}

/// Writes into `W`, compressed or not.
pub(crate) enum Encoder<W: Write> {
    /// As it is.
    Plain(W),
    /// One member of gzip.
    Gzip(GzEncoder<W>),
    /// One frame of Zstandard, with a checksum.
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// An encoder before its first byte.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or nothing is written in such a format.
    pub(crate) fn new(compression: Option<Compression>, writer: W) -> io::Result<Self> {
        Ok(match compression {
            None => Self::Plain(writer),
            Some(Compression::Gzip) => {
                Self::Gzip(GzEncoder::new(writer, flate2::Compression::default()))
            }
            Some(Compression::Zstd) => {
                let mut encoder = zstd::Encoder::new(writer, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
            Some(Compression::Xz | Compression::Bzip2) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        })
    }

    /// Writes what ends the format.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(writer) => Ok(writer),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKER: &str = "publisher ship -";

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
            assert_eq!(Compression::of(head, TAKER).unwrap(), Some(compression));
            let mut read = Vec::new();
            let mut decoder = compression.decoder(Cursor::new(bytes.clone())).unwrap();
            decoder.read_to_end(&mut read).unwrap();
            assert!(read == content, "{compression:?}");
            // What is cut off is an error, and not the end.
            let cut = bytes[..bytes.len() - 7].to_vec();
            let mut decoder = compression.decoder(Cursor::new(cut)).unwrap();
            assert!(decoder.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn other_formats_are_named_with_advice() {
        for (magic, what, unpack) in UNREADABLE {
            let error = Compression::of(&[magic, b"rest"].concat(), TAKER).unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains(&format!("{unpack} | {TAKER}")),
                "{error}"
            );
        }
        for plain in [&b""[..], b"BZ", b"2024-01-01 a line\n", b"\x1f\x8b"] {
            assert_eq!(Compression::of(plain, TAKER).unwrap(), None, "{plain:?}");
        }
    }

    #[test]
    fn the_name_says_how_a_file_is_written() {
        let content = b"a line\nand another\n".repeat(1_000);
        for (name, expected) in [
            ("a.ndjson.zst", Some(Compression::Zstd)),
            ("a.GZ", Some(Compression::Gzip)),
            ("a.ndjson", None),
            ("zst", None),
        ] {
            let asked = Compression::asked_for(Path::new(name)).unwrap();
            assert_eq!(asked, expected, "{name}");
            let mut encoder = Encoder::new(asked, Vec::new()).unwrap();
            encoder.write_all(&content).unwrap();
            let written = encoder.finish().unwrap();
            assert_eq!(Compression::of(&written, TAKER).unwrap(), expected, "{name}");
            let Some(compression) = expected else { continue };
            let mut read = Vec::new();
            compression.decoder(Cursor::new(written)).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{name}");
        }
        assert!(Compression::asked_for(Path::new("a.ndjson.xz")).is_err());
    }
}
