//! Files as they are read: opened, identified, hashed before shipping.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use super::identity::{HEAD_BYTES, Hash};
use super::registry::Content;

/// Bytes read at a time.
pub(crate) const READ_BYTES: usize = 128 * 1024;

/// The first bytes of what gzip wrote.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Opens a file to be shipped.
///
/// # Errors
///
/// If it cannot be opened or is a directory.
pub(crate) fn open(path: &Path) -> anyhow::Result<(File, Metadata)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    ensure!(!metadata.is_dir(), "{} is a directory", path.display());
    Ok((file, metadata))
}

/// Refuses what is no text, for it would be stored as noise.
///
/// # Errors
///
/// If the file is compressed.
pub(crate) fn ensure_text(head: &[u8]) -> anyhow::Result<()> {
    ensure!(
        !head.starts_with(&GZIP_MAGIC),
        "it is compressed; unpack it into a pipe: zcat FILE | publisher ship --topic NAME -"
    );
    Ok(())
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

/// Which file it is, whatever its name: it survives being renamed.
#[cfg(unix)]
#[must_use]
pub(crate) fn key(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino()))
}

/// Which file it is, whatever its name; not known on this system.
#[cfg(not(unix))]
#[must_use]
pub(crate) fn key(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// The first `len_bytes` of a file, which may be growing.
#[derive(Debug)]
pub(crate) struct FileContent<'a> {
    /// The file; it is left at its beginning.
    pub file: &'a mut File,
    /// Its length.
    pub len_bytes: u64,
}

impl Content for FileContent<'_> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn digests(&mut self, offsets: &[u64]) -> io::Result<Vec<Hash>> {
        self.file.rewind()?;
        let digests = digests(self.file, offsets);
        self.file.rewind()?;
        digests
    }
}

/// What is in memory already.
impl Content for &[u8] {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn digests(&mut self, offsets: &[u64]) -> io::Result<Vec<Hash>> {
        digests(&mut &**self, offsets)
    }
}

/// SHA-256 of the bytes of `reader` up to each of `offsets`, which ascend.
///
/// # Errors
///
/// If it cannot be read, or ends before the last of them.
pub(crate) fn digests(reader: &mut impl io::Read, offsets: &[u64]) -> io::Result<Vec<Hash>> {
    let mut buffer = vec![0; READ_BYTES];
    let mut digest = Sha256::new();
    let mut position = 0;
    let mut digests = Vec::with_capacity(offsets.len());
    for offset in offsets {
        while position < *offset {
            let wanted = usize::try_from(offset - position).unwrap_or(READ_BYTES).min(READ_BYTES);
            let read = match reader.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            digest.update(&buffer[..read]);
            position += read as u64;
        }
        digests.push(digest.clone().finalize().into());
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_beginnings() {
        let bytes = vec![7; READ_BYTES + 10];
        let offsets = [0, 1, 1, READ_BYTES as u64, bytes.len() as u64];
        let expected: Vec<Hash> = offsets
            .iter()
            .map(|offset| Sha256::digest(&bytes[..*offset as usize]).into())
            .collect();
        assert_eq!(digests(&mut &*bytes, &offsets).unwrap(), expected);
        assert!(digests(&mut &*bytes, &[bytes.len() as u64 + 1]).is_err());
    }
}
