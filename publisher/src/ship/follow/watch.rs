//! What is there under a name and its rotations.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::family::Family;
use super::super::file::{self, FileKey, Opened};
use super::super::registry::FamilyFile;

/// Changes of a directory within this time of a look may not show in its time
/// yet, in milliseconds.
const DIRECTORY_TIME_MS: u64 = 2_000;
/// The longest time between two looks into the directory, in seconds; a file
/// beside may grow without it.
const DIRECTORY_SECONDS_MAX: u64 = 30;

/// A file that was not there at the last look.
#[derive(Debug)]
pub(super) enum Found {
    /// It has the name.
    Current(Opened),
    /// It is named as a rotation of it.
    Sibling(PathBuf, Opened),
}

/// The length in bytes and the time of the last change.
type Stamp = (u64, Option<SystemTime>);

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.len(), metadata.modified().ok())
}

/// Looks at a name, and at the files beside it that rotation has made of it.
/// What it finds it opens at once: so nobody's deletion comes before.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    family: Option<Family>,
    /// Which file has the name.
    current: Option<FileKey>,
    /// Files that are being read.
    open: HashSet<FileKey>,
    /// Files beside it, as they were when they were found.
    siblings: HashMap<FileKey, Stamp>,
    /// The directory's time at the last look into it, and when that was.
    directory: Option<(Option<SystemTime>, Instant)>,
    /// The files of the family that were there at the last look into the directory.
    pub(super) files: Arc<[FamilyFile]>,
    /// Whether what is beside the name and cannot be read is nothing to speak of,
    /// at the first look.
    pub(super) ignore_unreadable: bool,
    /// What cannot be read, and why.
    pub(super) troubles: HashMap<PathBuf, String>,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            family: Family::of(path),
            current: None,
            open: HashSet::new(),
            siblings: HashMap::new(),
            directory: None,
            files: Arc::from([]),
            ignore_unreadable: false,
            troubles: HashMap::new(),
        }
    }

    /// Whether a file has the name.
    pub(super) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// A file begins anew: it is to be looked at again, if it has the name still, and
    /// so is what is beside it, as it may be its copy.
    pub(super) fn begin_anew(&mut self, key: &FileKey) {
        self.current.take_if(|current| current == key);
        self.siblings.clear();
        self.directory = None;
    }

    /// A file is not being read any more, and is looked at again if it is there.
    pub(super) fn forget(&mut self, key: &FileKey) {
        self.open.remove(key);
        self.siblings.remove(key);
        self.directory = None;
    }

    /// The files that are new since the last look: those beside it in the order
    /// in which they were written to, and then the one with the name.
    pub(super) fn look(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        let current = self.look_at_name();
        self.look_beside(&mut found);
        found.extend(current.map(Found::Current));
        found
    }

    fn look_at_name(&mut self) -> Option<Opened> {
        let path = self.path.clone();
        match path.metadata() {
            Ok(metadata) => {
                if self.current.as_ref() == Some(&file::key(&path, &metadata)) {
                    self.troubles.remove(&path);
                    return None;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // What was there may come again, under the same name even.
                self.troubles.remove(&path);
                return None;
            }
            Err(error) => {
                self.troubles.insert(path, format!("cannot look at it: {error}"));
                return None;
            }
        }
        let opened = self.open(&path)?;
        self.current = Some(opened.key.clone());
        self.open.insert(opened.key.clone());
        Some(opened)
    }

    fn look_beside(&mut self, found: &mut Vec<Found>) {
        let Some(family) = self.family.clone() else { return };
        let changed = family.directory().metadata().and_then(|metadata| metadata.modified()).ok();
        let settled = |time: SystemTime| {
            let age = SystemTime::now().duration_since(time).unwrap_or_default();
            age > Duration::from_millis(DIRECTORY_TIME_MS)
        };
        let long_ago = |at: Instant| at.elapsed() > Duration::from_secs(DIRECTORY_SECONDS_MAX);
        let same = self.directory.is_some_and(|(time, at)| time == changed && !long_ago(at));
        if same && changed.is_some_and(settled) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(family.directory()) else { return };
        self.directory = Some((changed, Instant::now()));
        let mut files = Vec::new();
        let name = self.path.file_name().map(ToOwned::to_owned);
        let mut new = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let is_name = Some(entry.file_name()) == name;
            if !is_name && Family::of(&path).as_ref() != Some(&family) {
                continue;
            }
            // Files that are linked to are not made by rotation, and `-` links to the
            // newest one are common.
            let Ok(metadata) = (if is_name { path.metadata() } else { path.symlink_metadata() })
            else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let key = file::key(&path, &metadata);
            files.push(FamilyFile {
                key: key.clone(),
                path: path.clone(),
                born: metadata.created().ok(),
                beside: !is_name,
            });
            if is_name || self.is_known(&key, &metadata) {
                continue;
            }
            match self.open(&path) {
                // Another one may have the name by now. Who had it is found at the next look.
                Some(opened) if !self.is_known(&opened.key, &opened.metadata) => {
                    let stamp = stamp(&opened.metadata);
                    self.siblings.insert(opened.key.clone(), stamp);
                    new.push((stamp.1, path, opened));
                }
                Some(_) => {}
                None if self.ignore_unreadable => {
                    self.troubles.remove(&path);
                    self.siblings.insert(key, stamp(&metadata));
                }
                None => {}
            }
        }
        self.ignore_unreadable = false;
        let there: HashSet<&FileKey> = files.iter().map(|file| &file.key).collect();
        self.siblings.retain(|key, _| there.contains(key));
        self.files = files.into();
        new.sort_by_key(|(changed, ..)| *changed);
        found.extend(new.into_iter().map(|(_, path, opened)| Found::Sibling(path, opened)));
    }

    /// Whether it is being read, or was found as it is.
    fn is_known(&self, key: &FileKey, metadata: &Metadata) -> bool {
        self.open.contains(key) || self.siblings.get(key) == Some(&stamp(metadata))
    }

    fn open(&mut self, path: &Path) -> Option<Opened> {
        match file::open(path) {
            Ok(opened) => {
                self.troubles.remove(path);
                Some(opened)
            }
            Err(error) => {
                let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                if kind != Some(ErrorKind::NotFound) {
                    self.troubles.insert(path.to_owned(), format!("{error:#}"));
                }
                None
            }
        }
    }
}
