//! When and how the write-ahead log (WAL) is copied into the database.
//!
//! SQLite up to 3.51.2, and so that of Spin 4.1, loses commits when a connection
//! begins a checkpoint just after another one was complete while a third commits
//! and begins the WAL anew (`docs/platform-notes.md` shows where). So no connection
//! of ours checkpoints by itself (`setup.rs` sees to it), and a checkpoint runs
//! only while this instance holds the write lock: nobody can commit meanwhile.
//!
//! `PRAGMA wal_checkpoint(FULL)` does not do: when the write lock is not to be had
//! in time it goes on without, as a passive one; when it has it, it keeps all
//! writers from writing for as long as any reader likes. So one connection takes
//! the lock, by `BEGIN IMMEDIATE`, and does nothing without; another copies,
//! passively, and waits for readers as long as we say.
//!
//! When: SQLite does not tell the size of the WAL, and an instance may live for one
//! request. So each estimates the pages that it has written, and adds them now and
//! then to a counter in the database, in a commit that it makes anyway. Who finds
//! the counter full sets it to 0, which is a commit, so only one does; that one
//! makes the checkpoint, after its replies.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::columns::Columns;
use super::raised::Raised;
use super::statement::{Statement, query};
use super::{fault, setup};
use crate::platform::Clock;
use crate::platform::sqlite::{Sqlite, SqliteConnection};
use crate::store::model::StoreError;

/// The name of the counter of pages written since a checkpoint.
pub(super) const WAL_PAGES: &str = "wal_pages";

/// Pages after which a checkpoint is due, unless it is said otherwise. More, and
/// writers wait longer for each; fewer, and pages that change with every commit
/// are copied more often.
pub const WAL_PAGES_MAX: u32 = 4_000;

/// An instance tells what it has written at the latest when it is this part of
/// the pages after which a checkpoint is due: many instances write at once.
const TOLD_PART: i64 = 16;

/// What a commit writes beside its events: the counters, and the last pages of the
/// table and its indexes.
const COMMIT_PAGES: i64 = 3;

/// Bytes in a page.
const PAGE_BYTES: usize = 4_096;

/// How often an instance tries to make a checkpoint that it found due.
const TRIES_MAX: u32 = 20;

/// How often it is tried to have the write lock, a few milliseconds each.
const LOCK_TRIES_MAX: u32 = 200;

/// How often it is tried to copy what a reader still reads, while writers wait.
const COPIES_MAX: u32 = 10;

/// A WAL of so many times the pages after which a checkpoint is due was not begun
/// anew after the last one, since readers were still in it. Then the lock is kept
/// for a pause more: they leave, and those that begin read the database alone.
const ANEW_PART: i64 = 2;

/// Pause before the next try, in milliseconds.
const PAUSE_MS: u64 = 1;

/// How many pages a commit writes, at a guess: each event touches a page of the
/// index of identities.
pub(super) fn pages(events: usize, bytes: usize) -> i64 {
    let pages = events.saturating_add(bytes / PAGE_BYTES);
    i64::try_from(pages).unwrap_or(i64::MAX).saturating_add(COMMIT_PAGES)
}

/// How many pages it takes to prune so many events that have so many bytes together, at a
/// guess: their own are freed and not written, but for those that say which are free.
pub(super) fn pages_of_pruning(events: i64, bytes: i64) -> i64 {
    const EVENTS_OF_PAGE: i64 = 50;
    const FREED_OF_PAGE: i64 = 1_000 * PAGE_BYTES as i64;
    COMMIT_PAGES + events / EVENTS_OF_PAGE + bytes / FREED_OF_PAGE
}

/// What an instance knows of the WAL.
pub(super) struct Checkpoints {
    pages_max: i64,
    /// Pages written and not told to the others.
    untold: Cell<i64>,
    /// Whether some of them were written by a commit that is not of events, after
    /// which none need follow that could tell.
    nobody_tells: Cell<bool>,
    /// How often a checkpoint that is due may still be tried.
    tries_left: Cell<u32>,
}

impl Checkpoints {
    /// Due after `pages_max` pages of all instances.
    pub(super) fn after(pages_max: u32) -> Self {
        Checkpoints {
            pages_max: i64::from(pages_max),
            untold: Cell::default(),
            nobody_tells: Cell::default(),
            tries_left: Cell::default(),
        }
    }

    /// What a commit of so many `pages` is to tell, if it is time. It `counts`
    /// something anyway, or not.
    pub(super) fn to_tell(&self, pages: i64, counts: bool) -> Option<i64> {
        let untold = self.untold.get() + pages;
        (counts || self.has_to_tell() || untold >= (self.pages_max / TOLD_PART).max(1))
            .then_some(untold)
    }

    /// Notes a commit of events that was not asked to tell.
    pub(super) fn note(&self, pages: i64) {
        self.untold.set(self.untold.get() + pages);
    }

    /// Notes a commit after which none need follow.
    pub(super) fn note_last(&self, pages: i64) {
        self.note(pages);
        self.nobody_tells.set(true);
    }

    /// Whether an instance with nothing else to do has to tell.
    pub(super) fn has_to_tell(&self) -> bool {
        self.nobody_tells.get()
    }

    /// Notes that a commit of `pages` told `told` pages, and that there are `all`
    /// now, of all instances.
    pub(super) fn note_told(&self, told: i64, pages: i64, all: i64) {
        self.untold.set(self.untold.get() + pages - told);
        self.nobody_tells.set(false);
        if all >= self.pages_max {
            self.tries_left.set(TRIES_MAX);
        }
    }

    /// Whether to make a checkpoint now. Each call is one try.
    pub(super) fn is_due(&self) -> bool {
        let tries_left = self.tries_left.get();
        self.tries_left.set(tries_left.saturating_sub(1));
        tries_left > 0
    }

    /// The statement by which one instance takes the checkpoint upon itself; it
    /// returns a row to that one.
    pub(super) fn claim(&self) -> Statement {
        Statement {
            sql: "UPDATE counters SET value = 0 WHERE name = ?1 AND value >= ?2 RETURNING name"
                .into(),
            parameters: vec![WAL_PAGES.into(), self.pages_max.into()],
        }
    }

    /// Pages of all instances after which a checkpoint is due.
    pub(super) fn pages_max(&self) -> i64 {
        self.pages_max
    }

    /// Nothing is due any more: this instance or another has seen to it.
    pub(super) fn settle(&self) {
        self.tries_left.set(0);
    }

    /// A checkpoint is due with the next commit of this instance that tells.
    pub(super) fn put_back(&self) {
        self.note(self.pages_max);
    }
}

/// Copies the WAL into the database, while nobody else can write, as far as
/// readers let it. On connections of its own: no statement of a request may come
/// between `BEGIN` and `ROLLBACK`.
///
/// All writers wait from one to the other, so what is awaited in between is the copy
/// alone, unless a reader is in the way: the instance goes on to take requests, or the
/// groups of others, and a new one need not be started for them. Dropped in between,
/// it gives the lock up with its connections.
///
/// `is_copying` is set while this instance has the lock: its own commits need not try.
///
/// # Errors
///
/// What the store says. Busy, if the lock was not to be had, or somebody else makes
/// a checkpoint.
pub(super) async fn run(
    sqlite: &dyn Sqlite,
    clock: &dyn Clock,
    pages_max: i64,
    is_copying: &Cell<bool>,
) -> Result<(), StoreError> {
    let (writer, copier) = (connection(sqlite)?, connection(sqlite)?);
    lock(&*writer, clock).await?;
    let _copying = Raised::of(is_copying);
    let copied = copy(&*copier, clock, pages_max).await;
    query(&*writer, "ROLLBACK", Vec::new())?;
    copied
}

fn connection(sqlite: &dyn Sqlite) -> Result<Rc<dyn SqliteConnection>, StoreError> {
    let connection = sqlite.open().map_err(fault::store_error)?;
    setup::never_checkpoint(&*connection)?;
    setup::hardly_wait(&*connection)?;
    Ok(connection)
}

/// Takes the write lock.
async fn lock(writer: &dyn SqliteConnection, clock: &dyn Clock) -> Result<(), StoreError> {
    let mut tries_left = LOCK_TRIES_MAX;
    loop {
        match query(writer, "BEGIN IMMEDIATE", Vec::new()) {
            Err(error) if error.is_busy() && tries_left > 0 => tries_left -= 1,
            result => return result.map(drop),
        }
        clock.sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

/// The checkpoint itself. Somebody has to hold the write lock.
async fn copy(
    copier: &dyn SqliteConnection,
    clock: &dyn Clock,
    pages_max: i64,
) -> Result<(), StoreError> {
    for _ in 0..COPIES_MAX {
        let copied = copier.commit("PRAGMA wal_checkpoint(PASSIVE)", Vec::new()).await;
        let copied = copied.map_err(fault::store_error)?;
        let mut columns = Columns::first_of(copied)?;
        if columns.integer()? != 0 {
            return Err(StoreError::busy("somebody else makes a checkpoint"));
        }
        let (pages, copied) = (columns.integer()?, columns.integer()?);
        let all = copied >= pages;
        if all && pages <= pages_max.saturating_mul(ANEW_PART) {
            break;
        }
        clock.sleep(Duration::from_millis(PAUSE_MS)).await;
        if all {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
