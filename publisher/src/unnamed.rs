//! Files that have their name only once they are whole, so that none is ever taken for
//! what it is not yet.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::NamedTempFile;

/// A file that does not have its name yet, and goes if it is not given it.
pub(crate) struct Unnamed {
    file: NamedTempFile,
    path: PathBuf,
}

impl Unnamed {
    /// One that is to have this name.
    ///
    /// # Errors
    ///
    /// If it cannot be written there, or something else than a file has the name.
    pub(crate) fn create(path: PathBuf) -> anyhow::Result<Self> {
        let shown = path.display();
        // A device, above all, must not be replaced by a file.
        let is_replaceable = path.symlink_metadata().map_or(true, |there| there.is_file());
        ensure!(is_replaceable, "{shown} is there and is not a file");
        let name =
            path.file_name().with_context(|| format!("{shown} is not the name of a file"))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory(&path));
        let file = file.with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { file, path })
    }

    /// Removes what has the name now.
    ///
    /// # Errors
    ///
    /// If it cannot be removed.
    pub(crate) fn remove_named(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot replace {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Gives it its name once it is on disk, and tells its length in bytes.
    ///
    /// # Errors
    ///
    /// If it does not get it.
    pub(crate) fn name(self) -> anyhow::Result<u64> {
        let Self { file, path } = self;
        let named = || {
            file.as_file().sync_all()?;
            let bytes = file.as_file().metadata()?.len();
            file.persist(&path)?;
            sync_directory(directory(&path))?;
            anyhow::Ok(bytes)
        };
        named().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a file of this name is.
#[must_use]
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Has the names in a directory on disk.
///
/// # Errors
///
/// If they may not be.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Has the names in a directory on disk, as far as the system lets us.
#[cfg(not(unix))]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // There directories are not opened as files.
    File::open(directory).map(drop).or(Ok(()))
}
