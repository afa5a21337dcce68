//! Whether the databases are whole, found out at the start, before clients rely
//! on them.
//!
//! `PRAGMA quick_check` reads the whole file, at the speed of the disk, so large
//! files are checked only when that is asked for.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::console;

/// The largest file that is checked without being told so, in bytes: a second or
/// so of reading.
const UNASKED_BYTES_MAX: u64 = 256 << 20;

/// When databases are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuickCheck {
    /// Files of up to 256 MiB are.
    Auto,
    /// All are, however long it takes.
    Always,
    /// None is.
    Never,
}

impl QuickCheck {
    /// Checks the database in `file`, if there is one.
    ///
    /// # Errors
    ///
    /// A database that is damaged. One that cannot be looked at is not known to
    /// be; that is said, and no error.
    pub(crate) fn run(self, file: &Path) -> Result<()> {
        let Ok(metadata) = fs::metadata(file) else { return Ok(()) };
        let is_checked = match self {
            Self::Auto => metadata.len() <= UNASKED_BYTES_MAX,
            Self::Always => true,
            Self::Never => false,
        };
        let shown = file.display();
        if !is_checked {
            if self == Self::Auto {
                console::message(format_args!(
                    "{shown} is large and was not checked: --quick-check always does"
                ));
            }
            return Ok(());
        }
        match first_fault(file) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => bail!(
                "the database {shown} is damaged ({fault}): \
                 restore a backup, or start on it as it is with --quick-check never"
            ),
            Err(error) => {
                console::message(format_args!("{shown} could not be checked: {error}"));
                Ok(())
            }
        }
    }
}

/// What SQLite finds first, if it finds anything.
fn first_fault(file: &Path) -> rusqlite::Result<Option<String>> {
    // Never created here.
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let result: rusqlite::Result<String> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match result {
        Ok(ok) if ok == "ok" => Ok(None),
        Ok(fault) => Ok(Some(fault)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Ok(Some(error.to_string()))
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_damaged_and_none() -> Result<()> {
        let file = std::env::temp_dir().join(format!("sekali-check-{}.db", std::process::id()));
        QuickCheck::Always.run(&file)?;
        assert!(!file.exists(), "it is not made");
        let connection = Connection::open(&file)?;
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000))")?;
        drop(connection);
        QuickCheck::Auto.run(&file)?;
        let mut bytes = fs::read(&file)?;
        bytes[4096..8192].fill(0xff);
        fs::write(&file, &bytes)?;
        let error = QuickCheck::Auto.run(&file).expect_err("damaged");
        assert!(error.to_string().contains("is damaged"), "{error}");
        QuickCheck::Never.run(&file)?;
        fs::write(&file, "no database at all, but text that is long enough for a header")?;
        assert!(QuickCheck::Auto.run(&file).is_err());
        fs::remove_file(&file)?;
        Ok(())
    }
}
