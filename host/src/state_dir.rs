//! Where data and logs live, and whether they can: found out at the start,
//! before the first request would.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// Spin's names, so that each runtime finds what the other has written.
const DIRECTORY: &str = ".spin";
const LOG_DIRECTORY: &str = "logs";
const SQLITE_FILE: &str = "sqlite_db.db";
const KEY_VALUE_FILE: &str = "sqlite_key_value.db";

/// The directories of one run. Each may be unset: data then stays in memory,
/// and logs go to stderr only.
#[derive(Debug)]
pub(crate) struct StateDir {
    data: Option<PathBuf>,
    logs: Option<PathBuf>,
}

impl StateDir {
    /// Creates the directories and tries to write there. By default they are
    /// next to the manifest; an empty argument unsets one.
    pub(crate) fn create(
        manifest_directory: &Path,
        state_dir: Option<&OsStr>,
        log_dir: Option<&OsStr>,
    ) -> Result<Self> {
        let given = |argument: &OsStr| {
            if argument.is_empty() {
                return Ok(None);
            }
            std::path::absolute(argument)
                .map(Some)
                .with_context(|| format!("cannot resolve {}", Path::new(argument).display()))
        };
        let data = match state_dir {
            Some(argument) => given(argument)?,
            None => Some(manifest_directory.join(DIRECTORY)),
        };
        let logs = match log_dir {
            Some(argument) => given(argument)?,
            None => data.as_deref().map(|data| data.join(LOG_DIRECTORY)),
        };
        if let Some(data) = &data {
            make_writable(data, "state directory", "--state-dir")?;
        }
        if let Some(logs) = &logs {
            make_writable(logs, "log directory", "--log-dir")?;
        }
        Ok(Self { data, logs })
    }

    /// The file of the default SQLite database.
    pub(crate) fn sqlite_file(&self) -> Option<PathBuf> {
        self.data.as_deref().map(|data| data.join(SQLITE_FILE))
    }

    /// The file of the default key-value store.
    pub(crate) fn key_value_file(&self) -> Option<PathBuf> {
        self.data.as_deref().map(|data| data.join(KEY_VALUE_FILE))
    }

    /// The directory of databases and stores.
    pub(crate) fn data_directory(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The directory of the log files.
    pub(crate) fn log_directory(&self) -> Option<&Path> {
        self.logs.as_deref()
    }
}

/// A directory may exist and not be writable; only a file in it tells.
fn make_writable(directory: &Path, what: &str, flag: &str) -> Result<()> {
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    std::fs::create_dir_all(directory)
        .and_then(|()| File::create(&probe))
        .and_then(|_| std::fs::remove_file(&probe))
        .map_err(|error| {
            anyhow!(
                "cannot use the {what} {} ({error}): make it writable or pass another with {flag}",
                directory.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_given_and_unset() -> Result<()> {
        let root = std::env::temp_dir().join(format!("sekali-state-dir-{}", std::process::id()));
        let create = |state_dir: Option<&OsStr>| StateDir::create(&root, state_dir, None);

        let default = create(None)?;
        assert_eq!(default.sqlite_file(), Some(root.join(".spin/sqlite_db.db")));
        assert_eq!(default.key_value_file(), Some(root.join(".spin/sqlite_key_value.db")));
        assert_eq!(default.log_directory(), Some(&*root.join(".spin/logs")));
        assert_eq!(std::fs::read_dir(root.join(".spin"))?.count(), 1, "only logs/ is left");

        let unset = create(Some(OsStr::new("")))?;
        assert_eq!(unset.sqlite_file(), None);
        assert_eq!(unset.log_directory(), None);

        File::create(root.join("file"))?;
        let error = create(Some(root.join("file").as_os_str())).expect_err("it is a file");
        assert!(format!("{error:#}").contains("--state-dir"), "{error:#}");

        std::fs::remove_dir_all(&root)?;
        Ok(())
    }
}
