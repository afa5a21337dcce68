//! What is shipped, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::batch::Limits;

/// The topic of standard input.
const STDIN_TOPIC: &str = "stdin";
/// Digits of the number that rotation puts behind a file's name, at most.
const ROTATION_DIGITS_MAX: usize = 3;

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

    /// The topic, unless told otherwise: the file's name without its
    /// extension, nor the number that rotation puts behind it.
    #[must_use]
    pub(crate) fn topic(&self) -> String {
        let Self::File(path) = self else { return STDIN_TOPIC.to_owned() };
        let numbered = path.extension().is_some_and(|extension| {
            let extension = extension.as_encoded_bytes();
            extension.len() <= ROTATION_DIGITS_MAX && extension.iter().all(u8::is_ascii_digit)
        });
        let rotated = path.file_stem().map(Path::new);
        let path =
            rotated.filter(|stem| numbered && stem.extension().is_some()).unwrap_or(path.as_path());
        let stem = path.file_stem().unwrap_or(path.as_os_str());
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_file_stems() {
        for (path, topic) in [
            ("access.log", "access"),
            ("/var/log/Apache_2k.log", "Apache_2k"),
            ("/var/log/access.log.1", "access"),
            ("access.log.2024", "access.log"),
            ("v1.2", "v1"),
            ("messages", "messages"),
            ("messages.1", "messages"),
            (".hidden", ".hidden"),
        ] {
            assert_eq!(Input::File(path.into()).topic(), topic, "{path}");
        }
        assert_eq!(Input::Stdin.topic(), "stdin");
    }
}
