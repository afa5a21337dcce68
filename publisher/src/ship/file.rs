//! Files as they are read: opened, identified, hashed before shipping.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use encoding_rs::Encoding;
use sha2::{Digest as _, Sha256};

use super::identity::{HEAD_BYTES, Hash};
use super::text::{self, TextDecoder};
use super::window::{WINDOW_BYTES, Window};
use crate::compression::{Compression, MAGIC_BYTES};

/// What takes lines from a pipe.
pub(crate) const TAKER: &str = "publisher ship --topic NAME -";

/// Bytes read at a time.
pub(crate) const READ_BYTES: usize = 128 * 1024;

/// What the system calls a file, whatever its name: it survives that it is
/// renamed, and no other file has it later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileKey(pub(crate) String);

/// A file, open, and what is known of it without reading it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The file.
    pub file: File,
    /// What the system says of it.
    pub metadata: Metadata,
    /// What the system calls it.
    pub key: FileKey,
}

impl Opened {
    /// How long ago it was changed, its names included, as far as that is known.
    #[must_use]
    pub(crate) fn age(&self) -> Option<Duration> {
        SystemTime::now().duration_since(changed(&self.metadata)?).ok()
    }
}

#[cfg(unix)]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds)
}

#[cfg(not(unix))]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

/// Opens a file to be shipped.
///
/// # Errors
///
/// If it cannot be opened or is a directory.
pub(crate) fn open(path: &Path) -> anyhow::Result<Opened> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    ensure!(!metadata.is_dir(), "{} is a directory", path.display());
    let key = key(path, &metadata);
    Ok(Opened { file, metadata, key })
}

/// The content of a file, plain or unpacked, from its beginning.
pub(crate) enum Reader {
    /// As it is in the file.
    Plain(File),
    /// Unpacked.
    Unpacked(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(file) => f.debug_tuple("Plain").field(file).finish(),
            Self::Unpacked(_) => f.debug_tuple("Unpacked").finish_non_exhaustive(),
        }
    }
}

impl Reader {
    /// Reads a file from its beginning. The position of `file` itself goes along.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is compressed in a way that cannot be.
    pub(crate) fn new(file: &File, compression: Option<Compression>) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(match compression {
            None => Self::Plain(file),
            Some(compression) => Self::Unpacked(compression.decoder(file)?),
        })
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Unpacked(reader) => reader.read(buffer),
        }
    }
}

/// Reads what there is next, and again where a signal came between; 0 bytes at
/// the end.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn read(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// How a file is compressed, if it is.
///
/// # Errors
///
/// If it cannot be read, or is compressed in a way that is not read here.
pub(crate) fn compression(file: &mut File) -> anyhow::Result<Option<Compression>> {
    Compression::of(&read_head(file, MAGIC_BYTES, 0).context("cannot read")?, TAKER)
}

/// Refuses what is no text, for it would be stored as noise. `head` is its
/// beginning, unpacked.
///
/// # Errors
///
/// If it is none, saying what it looks like and what to do.
pub(crate) fn ensure_text(head: &[u8], encoding: Option<&'static Encoding>) -> anyhow::Result<()> {
    let head = &head[..head.len().min(HEAD_BYTES)];
    text::not_text(head, encoding).map_or(Ok(()), |why| Err(anyhow::Error::msg(why)))
}

/// The beginning of a file's text, and of its content before it was decoded.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn window(
    file: &File,
    compression: Option<Compression>,
    encoding: Option<&'static Encoding>,
) -> io::Result<(Window, Vec<u8>)> {
    let mut reader = Reader::new(file, compression)?;
    let mut decoder = TextDecoder::new(encoding);
    let mut window = Window::default();
    let mut head = Vec::new();
    let mut buffer = vec![0; WINDOW_BYTES];
    while !window.is_full() {
        let read = match read(&mut reader, &mut buffer) {
            Ok(0) => break,
            Ok(read) => &buffer[..read],
            // Who reads on will meet it.
            Err(_) if !head.is_empty() => break,
            Err(error) => return Err(error),
        };
        let missing = HEAD_BYTES.saturating_sub(head.len());
        head.extend_from_slice(&read[..read.len().min(missing)]);
        let mut text = Vec::new();
        decoder.push(read, &mut text);
        window.push(&text);
    }
    Ok((window, head))
}

/// The beginning of a file, up to `bytes_max`. The file is then to be read
/// from `then`.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn read_head(file: &mut File, bytes_max: usize, then: u64) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut head = Vec::with_capacity(bytes_max.min(HEAD_BYTES));
    file.take(bytes_max as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(then))?;
    Ok(head)
}

/// What the system calls a file: its inode and, since inodes are used again, the
/// time of its birth. Where the file system has none, the device has to do,
/// whose number may be another after the next start of the machine.
#[cfg(unix)]
#[must_use]
pub(crate) fn key(_: &Path, metadata: &Metadata) -> FileKey {
    use std::os::unix::fs::MetadataExt as _;
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
    FileKey(match born {
        Some(born) => format!("{}@{}", metadata.ino(), born.as_nanos()),
        None => format!("{}:{}", metadata.dev(), metadata.ino()),
    })
}

/// What stands for a file where the system has no other name for it: its path.
#[cfg(not(unix))]
#[must_use]
pub(crate) fn key(path: &Path, _: &Metadata) -> FileKey {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    FileKey(path.display().to_string())
}

/// SHA-256 of the next `bytes` bytes of `reader`.
///
/// # Errors
///
/// If it cannot be read, or ends before.
pub(crate) fn digest(reader: &mut impl Read, bytes: u64) -> io::Result<Hash> {
    let mut buffer = vec![0; READ_BYTES];
    let mut digest = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let read = match read(reader, &mut buffer[..wanted])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        digest.update(&buffer[..read]);
        left -= read as u64;
    }
    Ok(digest.finalize().into())
}
