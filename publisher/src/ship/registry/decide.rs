//! Which known file one is, or none.
//!
//! A file is compared with those that were shipped before under the same topic
//! and source to the same store, by their first 64 KiB (see
//! [`window`](super::super::window)):
//!
//! 1. It is the one that the system knows by the same key (inode and time of
//!    birth), grown or cut. But if it begins anew in its first half, it was
//!    emptied and written again, and is another.
//! 2. Else it is one that it contains (a copy, grown since), or else one of
//!    which it is the beginning (a copy of it as it was, or cut).
//! 3. Else it is new. If lines of it would have the ids of another's, all lines
//!    that could be alike get a salt of their own.
//!
//! Two files that are read in one run and known apart by their keys are two,
//! however alike, while they are short or both grow.
//!
//! Among the files that rotation makes of one, every other one begins with the
//! same lines. There a file is another's copy only where that one is not there
//! any more, or not as it was (it was copied and emptied, packed, or moved), or
//! where it has all that is in the copy: for a while both are there.

use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::super::family::Family;
use super::super::file::{self, FileKey, Opened};
use super::super::identity::{HEAD_BYTES, Identity, hash, hex};
use super::super::window::{ShortDigest, WINDOW_BYTES, Window, digest_of};
use super::model::{EntryId, FamilyFile, Question, Rotation};

/// What is remembered of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) identity: Identity,
    /// The digests of the complete lines in its window.
    pub(super) lines: Vec<ShortDigest>,
    /// The length in bytes and the digest of what follows them.
    pub(super) tail: (usize, ShortDigest),
    /// Whether its window is full.
    pub(super) full: bool,
    pub(super) key: Option<FileKey>,
    /// How far it was shipped, in bytes.
    pub(super) shipped_bytes: u64,
    /// Of one that was moved from the old form: an offset in bytes and the
    /// SHA-256 of the bytes before it, in hexadecimal.
    pub(super) beginning: Option<(usize, String)>,
}

/// Who reads a known file in this run.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) key: Option<FileKey>,
    pub(super) family: Option<Family>,
}

/// How a file compares with a known one, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Relation {
    /// They share their beginning, up to some line.
    Diverges,
    /// It is the beginning of the known one.
    IsPrefix,
    /// It is the known one, or begins with all of it.
    Contains,
}

/// How a file compares with a known one, and how many of the complete lines
/// they share.
pub(super) type Comparison = (Relation, usize);

/// What a file has in common with a known one.
#[derive(Debug, Clone, Copy)]
struct Likeness {
    /// Complete lines from the beginning.
    shared: usize,
    /// Whether it shares as many with no other, so that they are not just what
    /// all begin with.
    alone: bool,
}

/// What was decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is the candidate at this index.
    Is(usize, Relation),
    /// It is new.
    New(Identity),
    /// More of it has to be seen first.
    Undecided,
}

impl Entry {
    /// Compares a file with this one; nothing if they share no line.
    pub(super) fn compare(&self, window: &Window) -> Option<Comparison> {
        if let Some((bytes, digest)) = &self.beginning {
            let beginning = window.text().get(..*bytes)?;
            let same = hex(&<[u8; 32]>::from(Sha256::digest(beginning))) == *digest;
            return same.then(|| (Relation::Contains, window.lines().len()));
        }
        let (tail_bytes, tail) = self.tail;
        if self.lines.is_empty() && tail_bytes == 0 {
            return None;
        }
        let common = self.lines.len().min(window.lines().len());
        // Each digest is over all lines before it, too.
        let both = self.lines[..common].iter().zip(window.lines());
        let shared = common - both.rev().take_while(|(one, other)| one != other).count();
        let relation = if shared == self.lines.len() {
            let rest = window.after(shared);
            match rest.get(..tail_bytes) {
                Some(bytes) if digest_of(bytes) == tail => Relation::Contains,
                // Shorter than the incomplete line: as far as can be seen alike.
                None if shared == window.lines().len() && shared > 0 => Relation::IsPrefix,
                _ => Relation::Diverges,
            }
        } else if shared == window.lines().len() && !window.is_full() && shared > 0 {
            Relation::IsPrefix
        } else {
            Relation::Diverges
        };
        (shared > 0 || relation == Relation::Contains).then_some((relation, shared))
    }

    /// Whether lines that a file of `identity` shares with this one would have
    /// the same ids.
    fn collides(&self, identity: &Identity, window: &Window, shared: usize) -> bool {
        let salt = |identity: &Identity, end: usize| {
            identity.salt.clone().filter(|_| end as u64 <= identity.zone_bytes)
        };
        // A salt reaches from the beginning to some line, so that the first and
        // the last stand for all.
        [0, shared.saturating_sub(1)]
            .into_iter()
            .filter(|_| shared > 0)
            .filter_map(|index| window.line_end(index))
            .any(|end| salt(identity, end) == salt(&self.identity, end))
    }

    /// A file that begins so.
    fn of(window: &Window) -> Self {
        Self {
            id: EntryId(0),
            identity: Identity::of_head(window.head()),
            lines: window.lines().to_vec(),
            tail: (window.tail().len(), digest_of(window.tail())),
            full: window.is_full(),
            key: None,
            shipped_bytes: 0,
            beginning: None,
        }
    }

    fn is_contained(&self, window: &Window) -> bool {
        self.compare(window).is_some_and(|(relation, _)| relation == Relation::Contains)
    }

    /// The same among the files that rotation makes of one.
    fn is_other_generation(
        &self,
        rotation: &Rotation,
        window: &Window,
        likeness: Likeness,
    ) -> bool {
        let long = window.bytes_of(likeness.shared) >= HEAD_BYTES;
        let Some((own, content)) = own_file(self, rotation) else {
            return !long && !likeness.alone;
        };
        let Some(content) = content else { return false };
        if !self.is_contained(&content) {
            return false;
        }
        // Who was made later, where one of the two has the name: a copy of it is, and
        // a file that was renamed for it is not.
        let later = |one: Option<SystemTime>, other: Option<SystemTime>| match (one, other) {
            (Some(one), Some(other)) => one > other,
            _ => long,
        };
        let may_be_copy =
            rotation.packed || (rotation.beside && !own.beside && later(rotation.born, own.born));
        let may_be_copied = !rotation.beside && own.beside && later(own.born, rotation.born);
        let is_copy = may_be_copy && Self::of(window).is_contained(&content);
        let is_copied = may_be_copied && Self::of(&content).is_contained(window);
        !is_copy && !is_copied
    }

    /// Whether the file that is asked about is not this one, however alike.
    fn is_other(
        &self,
        question: &Question,
        claim: Option<&Claim>,
        window: &Window,
        likeness: Likeness,
    ) -> bool {
        if question.not.contains(&self.id) {
            return true;
        }
        let other_key = self.key.is_some() && self.key != question.key;
        if let Some(rotation) = question.rotation.as_ref().filter(|_| other_key)
            && self.is_other_generation(rotation, window, likeness)
        {
            return true;
        }
        let Some(Claim { key: Some(claimed), family }) = claim else { return false };
        if question.key.as_ref().is_none_or(|key| key == claimed) {
            return false;
        }
        if family.is_some() && *family == question.family {
            return false;
        }
        question.followed || window.bytes_of(likeness.shared) < HEAD_BYTES
    }

    /// Whether a file with this one's key that goes on otherwise after `shared`
    /// lines is this one, cut short and written on.
    fn was_cut(&self, window: &Window, shared: usize) -> bool {
        window.bytes_of(shared) >= HEAD_BYTES && shared * 2 >= self.lines.len()
    }
}

/// The file that is under the key of a known one, if there is one, and its
/// beginning, if it can be read.
fn own_file<'a>(entry: &Entry, rotation: &'a Rotation) -> Option<(&'a FamilyFile, Option<Window>)> {
    let own = rotation.files.iter().find(|file| Some(&file.key) == entry.key.as_ref())?;
    let is_own = |opened: &Opened| opened.key == own.key;
    let opened = file::open(&own.path).ok().filter(is_own).or_else(|| {
        // It has another name by now.
        let beside = own.path.parent()?.read_dir().ok()?;
        beside.flatten().find_map(|entry| file::open(&entry.path()).ok().filter(is_own))
    })?;
    Some((own, content(opened, rotation)))
}

fn content(mut opened: Opened, rotation: &Rotation) -> Option<Window> {
    let compression = file::compression(&mut opened.file).ok()?;
    Some(file::window(&opened.file, compression, rotation.encoding).ok()?.0)
}

/// Whether a known file is no longer under its own key, as far as is known: it
/// is not there, or not as it was.
pub(super) fn was_moved(entry: &Entry, rotation: &Rotation) -> bool {
    let content = own_file(entry, rotation).and_then(|(_, content)| content);
    !content.is_some_and(|content| entry.is_contained(&content))
}

/// Decides what a file is. `claim_of` says who reads a candidate in this run,
/// `is_taken` whether a file in this scope has a salt.
pub(super) fn decide<'a>(
    question: &Question,
    window: &Window,
    candidates: &[Entry],
    claim_of: impl Fn(EntryId) -> Option<&'a Claim>,
    is_taken: impl Fn(&str) -> bool,
) -> Decision {
    let compared: Vec<_> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| Some((index, entry, entry.compare(window)?)))
        .collect();
    // Asked last, as it may have to look at files.
    let is_possible = |(index, entry, (_, shared)): &&(usize, &Entry, Comparison)| {
        let alone = !compared.iter().any(|(other, _, (_, also))| other != index && also >= shared);
        let likeness = Likeness { shared: *shared, alone };
        !entry.is_other(question, claim_of(entry.id), window, likeness)
    };

    let same_key = compared
        .iter()
        .filter(|(_, entry, (relation, shared))| {
            entry.key.is_some()
                && entry.key == question.key
                && (*relation != Relation::Diverges || entry.was_cut(window, *shared))
        })
        .filter(is_possible);
    let alike = compared
        .iter()
        .filter(|(_, _, (relation, _))| *relation != Relation::Diverges)
        .filter(is_possible);
    // Of several the one with the most in common, and of those the oldest.
    let best = |&&(_, entry, (relation, shared)): &&(usize, &Entry, Comparison)| {
        (relation, shared, std::cmp::Reverse(entry.id))
    };
    // One of which but a part of a line was seen has shipped no line yet, whose id
    // could be another's by now.
    let is_settled = |entry: &Entry| {
        let others = compared.iter().filter(|(_, other, _)| other.id != entry.id);
        !entry.lines.is_empty()
            || entry.full
            || entry.beginning.is_some()
            || others
                .into_iter()
                .all(|(_, other, (_, shared))| !other.collides(&entry.identity, window, *shared))
    };
    let found = same_key.max_by_key(best).or_else(|| alike.max_by_key(best));
    if let Some((index, _, (relation, _))) = found.filter(|(_, entry, _)| is_settled(entry)) {
        let may_differ_yet = *relation == Relation::IsPrefix && !question.whole;
        return if may_differ_yet && !window.is_full() {
            Decision::Undecided
        } else {
            Decision::Is(*index, *relation)
        };
    }

    let default = Identity::of_head(window.head());
    let colliding = || {
        compared.iter().filter(|(_, entry, (_, shared))| entry.collides(&default, window, *shared))
    };
    if colliding().next().is_none() {
        return Decision::New(default);
    }
    // As long as it is alike nothing says how far; else not beyond the window.
    let alike = colliding().any(|(_, _, (relation, _))| *relation != Relation::Diverges);
    let zone_bytes = if alike { Identity::ZONE_BYTES_MAX } else { WINDOW_BYTES as u64 };
    let seen = window.lines().last().copied().unwrap_or_default();
    // Made of the content, so that it is the same where nothing is remembered;
    // but files that are alike to the end have no other difference than chance.
    let of_content = hex(&hash(&[b"fork", &seen, window.tail()])[..16]);
    let salt = Some(of_content).filter(|salt| !is_taken(salt));
    let salt = salt.unwrap_or_else(|| hex(&rand::random::<[u8; 16]>()));
    Decision::New(Identity { salt: Some(salt), zone_bytes })
}
