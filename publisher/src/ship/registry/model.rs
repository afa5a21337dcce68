//! What is asked about a file, and what is answered.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};

use super::super::family::Family;
use super::super::file::FileKey;
use super::super::identity::Identity;
use super::super::window::Window;

/// Among which files ids could meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// The store of the service.
    pub store: String,
    /// The topic.
    pub topic: String,
    /// The source.
    pub source: String,
}

/// Names a file that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(super) i64);

/// What is asked about a file.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Where its ids must not meet another's.
    pub scope: Scope,
    /// What the system calls it; nothing for a pipe.
    pub key: Option<FileKey>,
    /// The files that rotation makes of one.
    pub family: Option<Family>,
    /// Whether it is read as it grows.
    pub followed: bool,
    /// Whether all of it is there. If not, and it is like a longer one so far,
    /// the answer is [`Answer::Undecided`].
    pub whole: bool,
    /// Files that it is not, however alike.
    pub not: Vec<EntryId>,
    /// Where it stands among the files that rotation makes of one, if it is
    /// followed.
    pub rotation: Option<Rotation>,
}

/// A file among those that rotation makes of one.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// When it was made, if the system knows.
    pub born: Option<SystemTime>,
    /// Whether it is named as a rotation, and has not the name itself.
    pub beside: bool,
    /// Whether it is packed.
    pub packed: bool,
    /// All that are there.
    pub files: Arc<[FamilyFile]>,
    /// What they are encoded in.
    pub encoding: Option<&'static Encoding>,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FamilyFile {
    /// What the system calls it.
    pub key: FileKey,
    /// Its name.
    pub path: PathBuf,
    /// When it was made, if the system knows.
    pub born: Option<SystemTime>,
    /// Whether it is named as a rotation, and has not the name itself.
    pub beside: bool,
}

impl Question {
    /// About content without a name, all of which is there.
    #[must_use]
    pub(crate) fn of(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            key: None,
            family: None,
            followed: false,
            whole: true,
            not: Vec::new(),
            rotation: None,
        }
    }

    /// Whether all of it is there.
    #[must_use]
    pub(crate) fn whole(self, whole: bool) -> Self {
        Self { whole, ..self }
    }
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is this one.
    Known(Known),
    /// More of it has to be seen first.
    Undecided,
}

/// A file that the registry knows, from now on at the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Names it.
    pub id: EntryId,
    /// What its ids are made with.
    pub identity: Identity,
    /// Whether it was known before.
    pub seen: bool,
    /// How far it was shipped, in bytes.
    pub shipped_bytes: u64,
}

/// Reads the beginning of a file, when it is its turn.
pub(crate) type ReadWindow = Box<dyn FnOnce() -> io::Result<Window> + Send>;
