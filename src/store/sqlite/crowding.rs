//! When an instance is one writer too many.
//!
//! SQLite has one writer. A burst starts an instance for every request, and all
//! of them would commit one event at a time, in turn, for as long as they live.
//! An instance that finds itself in that state had better leave its requests to
//! others, which then commit larger groups.

use std::cell::Cell;
use std::time::Duration;

use crate::store::model::StoreError;

/// A statement of a small group that took so long, in milliseconds, has waited
/// for another instance, if there are others.
const CONTENDED_MS_MIN: u64 = 1;

/// Most events in a group that another instance would not notice.
const SMALL_GROUP_EVENTS_MAX: usize = 2;

/// Least events in a commit of the one writer for a small group to be one too many.
const COMMIT_EVENTS_MIN: usize = 8;

/// After so many small groups in a row that waited for others, an instance is
/// one too many.
const SMALL_GROUPS_MAX: u32 = 2;

/// The same of groups that were handed over. An instance costs more than a group does,
/// so they are more.
const SMALL_SHARES_MAX: u32 = 6;

/// What an instance knows of other writers.
#[derive(Default)]
pub(super) struct Crowding {
    /// Whether a statement ever found the store busy. Without that a slow
    /// statement is a slow disk.
    met_others: Cell<bool>,
    /// Small groups in a row that waited for others.
    small_groups: Cell<u32>,
    /// Small groups in a row that were handed over, and were in a large commit.
    small_shares: Cell<u32>,
}

impl Crowding {
    /// Notes a commit: how it failed, if it did, of how many events, and how
    /// long it took.
    pub(super) fn note(&self, failed: Option<&StoreError>, events: usize, took: Duration) {
        match failed {
            Some(error) => self.met_others.set(self.met_others.get() || error.is_busy()),
            None => {
                let waited =
                    self.met_others.get() && took >= Duration::from_millis(CONTENDED_MS_MIN);
                let is_small = waited && events <= SMALL_GROUP_EVENTS_MAX;
                self.small_groups.set(if is_small { self.small_groups.get() + 1 } else { 0 });
            }
        }
    }

    /// Notes a group that the one writer committed: its events, and those of the whole
    /// commit.
    pub(super) fn note_share(&self, (events, of): (usize, usize)) {
        if events == 0 {
            return;
        }
        let is_small = of >= COMMIT_EVENTS_MIN && events <= SMALL_GROUP_EVENTS_MAX;
        self.small_shares.set(if is_small { self.small_shares.get() + 1 } else { 0 });
    }

    /// Whether this instance had better leave its requests to others.
    pub(super) fn is_crowded(&self) -> bool {
        self.small_groups.get() >= SMALL_GROUPS_MAX || self.small_shares.get() >= SMALL_SHARES_MAX
    }
}
