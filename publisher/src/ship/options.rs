//! What is shipped, and how.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::rotation::unrotated_name;
use encoding_rs::Encoding;

use super::batch::Limits;

mod rotation;

/// The topic of standard input.
const STDIN_TOPIC: &str = "stdin";

/// What to ship.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// Its name, for people.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The topic, unless told otherwise: the file's name without what rotation
    /// adds to it, and without its extension.
    #[must_use]
    pub(crate) fn topic(&self) -> String {
        let Self::File(path) = self else { return STDIN_TOPIC.to_owned() };
        let name = unrotated_name(path.file_name().unwrap_or(path.as_os_str()));
        if rotation::ends_in_numbers(&name) {
            return name;
        }
        let stem = Path::new(&name).file_stem().unwrap_or(OsStr::new(&name));
        stem.to_string_lossy().into_owned()
    }
}

/// How to ship.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What.
    pub inputs: Vec<Input>,
    /// The topic of all, instead of one for each.
    pub topic: Option<String>,
    /// The source of all.
    pub source: String,
    /// How much goes into one request.
    pub limits: Limits,
    /// Requests under way at a time, and files where they are not followed.
    pub concurrency: usize,
    /// Whether to go on as files grow.
    pub follow: bool,
    /// The interval at which a file that is followed is polled.
    pub poll: Duration,
    /// How long a file that was renamed has to be quiet before it is done with.
    pub renamed_quiet: Duration,
    /// What files are encoded in that do not say so.
    pub encoding: Option<&'static Encoding>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_names_without_rotation_and_extension() {
        for (path, topic) in [
            ("access.log", "access"),
            ("/var/log/Apache_2k.log", "Apache_2k"),
            ("/var/log/access.log.1", "access"),
            ("access.log.2024", "access.log"),
            ("v1.2", "v1"),
            ("messages", "messages"),
            ("messages.1", "messages"),
            ("messages-20260101", "messages"),
            ("messages-20260101.gz", "messages"),
            ("/var/log/messages.old", "messages"),
            ("app.log.2.gz", "app"),
            ("app-20260101.log.gz", "app"),
            ("app.2026-01-01.log", "app"),
            ("2026-01-01.log", "2026-01-01"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1.log", "10.0.0.1"),
            ("report-2024", "report-2024"),
            (".hidden", ".hidden"),
        ] {
            assert_eq!(Input::File(path.into()).topic(), topic, "{path}");
        }
        assert_eq!(Input::Stdin.topic(), "stdin");
    }
}
