//! Which file is at a path.

use std::fs;
use std::io;
use std::path::Path;

/// What tells a file from every other: device and inode, which no other file is
/// given as long as somebody has it open. Where there are none, only that there
/// is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileIdentity {
    /// Of the file that is at `path` now; `None` when there is none, or none
    /// that can be reached.
    ///
    /// It is looked at and not opened: to close any descriptor of a SQLite file
    /// takes the locks of all connections of the process to it.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).as_ref().map(Self::of).ok()
    }

    /// Of an open file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn of_open(file: &fs::File) -> io::Result<Self> {
        file.metadata().as_ref().map(Self::of).map_err(|error| error.kind().into())
    }

    #[cfg(unix)]
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    #[cfg(not(unix))]
    fn of(_metadata: &fs::Metadata) -> Self {
        Self {}
    }
}
