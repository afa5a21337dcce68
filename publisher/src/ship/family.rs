//! The files that rotation makes of one.

use std::path::{Path, PathBuf};

use super::options::unrotated_name;

/// A name and what rotation makes of it: `app.log`, `app.log.1`,
/// `app.log-20260101.gz` in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    directory: PathBuf,
    base: String,
}

impl Family {
    /// The one that a file belongs to; none if its path does not end in a name.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let base = unrotated_name(path.file_name()?);
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Some(Self { directory: absolute.parent()?.to_owned(), base })
    }

    /// Where its files are.
    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_of_a_name_in_its_directory() {
        let family = |path: &str| Family::of(Path::new(path));
        assert_eq!(family("/log/app.log"), family("/log/app.log.2.gz"));
        assert_eq!(family("app.log"), family("./app.log-20260101"));
        assert_ne!(family("/log/app.log"), family("/other/app.log"));
        assert_ne!(family("/log/app.log"), family("/log/other.log"));
        assert_eq!(family("/"), None);
    }
}
