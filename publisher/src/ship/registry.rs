//! What was shipped from this machine, to tell files apart that begin alike.
//!
//! The registry chooses the salt of a file's first lines (see
//! [`identity`](super::identity)) and nothing else. It never decides that a
//! line need not be sent: the service alone knows what it has stored. Losing
//! it loses no line; it can at most store lines of a file's beginning twice.
//!
//! It remembers of each file the offsets up to which it was shipped, each with
//! the digest of the bytes before it, for each store, topic and source. A file is one of those, grown or not, if
//! it begins with all the bytes that were last shipped, or is as long as at an
//! earlier checkpoint and the same. If it is none of them and yet would share
//! ids with one, it gets a salt made of its own bytes, up to where the other
//! was shipped.
//!
//! A store is named by the time it first started, which it tells in `/stats`,
//! and so is never taken for another one at the same address.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::identity::{HEAD_BYTES, Hash, Identity, fingerprint, hash, hex};
use super::lines::Splitter;
use crate::state;

/// Files remembered; the one not seen for longest is forgotten first.
const ENTRIES_MAX: usize = 4_096;
/// Checkpoints remembered of one file.
const CHECKPOINTS_MAX: usize = 32;
/// The form of the registry's file.
const FORMAT: u32 = 1;

/// The bytes of a file, as far as they can be read before shipping.
pub(crate) trait Content {
    /// How many there are.
    fn len_bytes(&self) -> u64;

    /// SHA-256 of the bytes up to each of `offsets`, which ascend and do not
    /// exceed the length.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn digests(&mut self, offsets: &[u64]) -> io::Result<Vec<Hash>>;
}

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

/// A file that was shipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    id: u64,
    #[serde(flatten)]
    scope: Scope,
    salt: Option<String>,
    zone_bytes: u64,
    #[serde(flatten)]
    head: Head,
    /// Up to where it was shipped, each time all there was; ascending.
    #[serde(rename = "ends")]
    checkpoints: Vec<Checkpoint>,
}

/// What is compared of the beginnings of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Digest of the first line's text, as far as it is in the head.
    first_line: String,
    /// The fingerprint, once the file is long enough.
    fingerprint: Option<String>,
}

impl Head {
    fn of(head: &[u8]) -> Self {
        let mut splitter = Splitter::default();
        splitter.push(head);
        let line = splitter.next_line().or_else(|| splitter.finish());
        let text = line.map(|line| line.text).unwrap_or_default();
        let first_line = hex(&hash(&[b"first", &text])[..16]);
        Self { first_line, fingerprint: fingerprint(head) }
    }
}

/// An offset in a file, and the digest of the bytes before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Checkpoint {
    #[serde(rename = "bytes")]
    offset: u64,
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    files: Vec<Entry>,
}

/// Names an entry for [`Registry::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId(u64);

/// What the registry says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where it is remembered.
    pub id: EntryId,
    /// What its ids are made with.
    pub identity: Identity,
    /// Whether it was shipped before.
    pub seen: bool,
}

/// The registry: in a file, or for this process only.
#[derive(Debug)]
pub(crate) struct Registry {
    path: Option<PathBuf>,
    /// The entries, where there is no file.
    entries: Vec<Entry>,
}

impl Registry {
    /// A registry that is forgotten at the end of the process.
    #[must_use]
    pub(crate) fn in_memory() -> Self {
        Self { path: None, entries: Vec::new() }
    }

    /// The registry in a file, which need not exist yet.
    ///
    /// # Errors
    ///
    /// If it can be neither read nor made.
    pub(crate) fn at(path: PathBuf) -> anyhow::Result<Self> {
        let mut registry = Self { path: Some(path), entries: Vec::new() };
        registry.update(|_| ())?;
        Ok(registry)
    }

    /// Where the registry is unless told otherwise: in the user's directory
    /// for state, if there is one.
    #[must_use]
    pub(crate) fn default_path(
        var: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Option<PathBuf> {
        Some(state::directory(var)?.join("ship.json"))
    }

    /// Decides what a file is, and remembers it before a line of it is sent.
    /// `head` is its beginning, up to [`HEAD_BYTES`], and not empty. It is none
    /// of the files that are `excluded`, however alike.
    ///
    /// # Errors
    ///
    /// If its content or the registry cannot be read.
    pub(crate) fn identify(
        &mut self,
        scope: &Scope,
        head: &[u8],
        content: &mut dyn Content,
        excluded: &[EntryId],
    ) -> anyhow::Result<Known> {
        let len_bytes = content.len_bytes();
        let default = Identity::of_head(head);
        let head = Head::of(head);
        let mut wanted = match &self.path {
            None => offsets(&self.entries, scope, &head),
            Some(path) => offsets(&load(path)?, scope, &head),
        };
        // All of it, and where a salt's zone may end.
        wanted.extend([len_bytes, len_bytes.min(HEAD_BYTES as u64)]);
        wanted.retain(|offset| *offset <= len_bytes);
        wanted.sort_unstable();
        wanted.dedup();
        let digests = content.digests(&wanted).context("cannot read the file")?;
        let digests: BTreeMap<u64, String> =
            wanted.into_iter().zip(digests.iter().map(|digest| hex(digest))).collect();
        self.update(|entries| decide(entries, scope, default, head, len_bytes, &digests, excluded))
    }

    /// Remembers that a file was shipped up to an offset, with the digest of the
    /// bytes before it.
    ///
    /// # Errors
    ///
    /// If the registry cannot be written.
    pub(crate) fn record(
        &mut self,
        id: EntryId,
        head: &[u8],
        offset: u64,
        digest: &Hash,
    ) -> anyhow::Result<()> {
        self.update(|entries| {
            // It may have been forgotten in favour of newer ones.
            if let Some(entry) = entries.iter_mut().find(|entry| entry.id == id.0) {
                entry.begins_with(Head::of(head));
                entry.add_checkpoint(Checkpoint { offset, digest: hex(digest) });
            }
        })
    }

    /// Changes the entries, alone among all processes.
    fn update<T>(&mut self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> anyhow::Result<T> {
        let Some(path) = &self.path else {
            let result = change(&mut self.entries);
            forget_oldest(&mut self.entries);
            return Ok(result);
        };
        let locked = lock(path).with_context(|| format!("cannot lock {}", path.display()))?;
        let mut entries = load(path)?;
        let result = change(&mut entries);
        forget_oldest(&mut entries);
        store(path, entries).with_context(|| format!("cannot write {}", path.display()))?;
        // Held until the new entries are in place.
        drop(locked);
        Ok(result)
    }
}

impl Entry {
    /// Whether the file could be this one, by its beginning.
    fn may_contain(&self, head: &Head) -> bool {
        self.head.fingerprint.is_none()
            || head.fingerprint.is_none()
            || self.head.fingerprint == head.fingerprint
    }

    /// The offset of the last checkpoint of this file that `digests` show a file
    /// of `len_bytes` to have passed.
    fn matching(&self, len_bytes: u64, digests: &BTreeMap<u64, String>) -> Option<u64> {
        let last = self.checkpoints.last()?;
        let same =
            |checkpoint: &&Checkpoint| digests.get(&checkpoint.offset) == Some(&checkpoint.digest);
        let grown = Some(last).filter(same);
        // Not grown from an earlier checkpoint: that went on otherwise.
        let is_all = |checkpoint: &&Checkpoint| checkpoint.offset == len_bytes;
        let earlier = || self.checkpoints.iter().find(is_all).filter(same);
        grown.or_else(earlier).map(|checkpoint| checkpoint.offset)
    }

    /// Whether a file with the identity `default` could share ids with this
    /// one, although it is another.
    fn collides(&self, default: &Identity, head: &Head) -> bool {
        let alike_beyond_head = default.salt.is_some() && self.head.fingerprint == default.salt;
        let both_unsalted = default.salt.is_none() && self.salt.is_none();
        alike_beyond_head || both_unsalted && self.head.first_line == head.first_line
    }

    fn begins_with(&mut self, head: Head) {
        // A file that is shorter now was longer once.
        if head.fingerprint.is_some() || self.head.fingerprint.is_none() {
            self.head = head;
        }
    }

    fn add_checkpoint(&mut self, checkpoint: Checkpoint) {
        if self.checkpoints.last().is_none_or(|last| last.offset < checkpoint.offset) {
            self.checkpoints.push(checkpoint);
            if self.checkpoints.len() > CHECKPOINTS_MAX {
                self.checkpoints.remove(0);
            }
        }
    }
}

/// The offsets up to which the files that could be this one were shipped.
fn offsets(entries: &[Entry], scope: &Scope, head: &Head) -> Vec<u64> {
    let candidates =
        entries.iter().filter(|entry| entry.scope == *scope && entry.may_contain(head));
    candidates
        .flat_map(|entry| entry.checkpoints.iter().map(|checkpoint| checkpoint.offset))
        .collect()
}

/// Finds the file among the entries, or adds it.
fn decide(
    entries: &mut Vec<Entry>,
    scope: &Scope,
    default: Identity,
    head: Head,
    len_bytes: u64,
    digests: &BTreeMap<u64, String>,
    excluded: &[EntryId],
) -> Known {
    let ours = |entry: &&Entry| entry.scope == *scope;
    let known = entries
        .iter()
        .filter(ours)
        .filter(|entry| !excluded.contains(&EntryId(entry.id)))
        .filter_map(|entry| Some((entry.matching(len_bytes, digests)?, entry.id)))
        .max();
    if let Some((_, id)) = known
        && let Some(index) = entries.iter().position(|entry| entry.id == id)
    {
        // To the end: seen last, forgotten last.
        let mut entry = entries.remove(index);
        if let Some(digest) = digests.get(&len_bytes) {
            entry.add_checkpoint(Checkpoint { offset: len_bytes, digest: digest.clone() });
        }
        entry.begins_with(head);
        let identity = Identity { salt: entry.salt.clone(), zone_bytes: entry.zone_bytes };
        entries.push(entry);
        return Known { id: EntryId(id), identity, seen: true };
    }

    let mut identity = default;
    let others = entries.iter().filter(ours).filter(|entry| entry.collides(&identity, &head));
    let checkpoints = others.flat_map(|entry| entry.checkpoints.last());
    let reach = checkpoints.map(|checkpoint| checkpoint.offset).max();
    if let Some(reach) = reach {
        let zone_bytes = reach.max(HEAD_BYTES as u64);
        // Of the bytes in the zone as many as are known. They differ from those
        // of every such file, or this file would have been found; the number is
        // for a file that is not the one it looks like.
        let known = digests.range(..=zone_bytes).next_back();
        let (bytes, digest) = known.map_or((0, ""), |(bytes, digest)| (*bytes, digest));
        let salt = |number: u64| {
            let parts = [&bytes.to_le_bytes(), digest.as_bytes(), &number.to_le_bytes()];
            Some(hex(&hash(&[b"fork", parts[0], parts[1], parts[2]])[..16]))
        };
        let taken =
            |salt: &Option<String>| entries.iter().filter(ours).any(|entry| entry.salt == *salt);
        let salt = (0..).map(salt).find(|salt| !taken(salt)).flatten();
        identity = Identity { salt, zone_bytes };
    }
    let id = entries.iter().map(|entry| entry.id).max().unwrap_or_default() + 1;
    let digest = digests.get(&len_bytes).cloned();
    entries.push(Entry {
        id,
        scope: scope.clone(),
        salt: identity.salt.clone(),
        zone_bytes: identity.zone_bytes,
        head,
        checkpoints: digest
            .map(|digest| Checkpoint { offset: len_bytes, digest })
            .into_iter()
            .collect(),
    });
    Known { id: EntryId(id), identity, seen: false }
}

fn forget_oldest(entries: &mut Vec<Entry>) {
    let over = entries.len().saturating_sub(ENTRIES_MAX);
    entries.drain(..over);
}

fn lock(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // A file of its own: the registry itself is replaced with each change.
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = private(OpenOptions::new().create(true).truncate(false).write(true)).open(name)?;
    file.lock()?;
    Ok(file)
}

fn load(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
    };
    let stored: Stored = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not a registry of shipped files", path.display()))?;
    ensure!(stored.format == FORMAT, "{} is of another version", path.display());
    Ok(stored.files)
}

fn store(path: &Path, files: Vec<Entry>) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let bytes = serde_json::to_vec(&Stored { format: FORMAT, files })?;
    let mut file =
        private(OpenOptions::new().create(true).truncate(true).write(true)).open(&name)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(name, path)?;
    Ok(())
}

/// For the user's eyes only: topics and sources may say more than others
/// should know.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests;
