//! When an instance is one too many.
//!
//! Commits run side by side, but each is a statement of its own, with a connection of
//! its own, of which there are not many (Spin has 64). A burst starts an instance for
//! every request. One that finds that many others commit beside it, and that its own
//! groups are small, had better leave its requests to them.

use std::cell::Cell;

/// So many other commits under way are enough.
const OTHERS_ENOUGH: i64 = 8;

/// Most events in a group that another instance would not notice.
const SMALL_GROUP_EVENTS_MAX: usize = 4;

/// After so many small groups in a row beside enough others an instance is one too many.
/// An instance costs more than a group does.
const SMALL_GROUPS_MAX: u32 = 3;

/// What an instance knows of others.
#[derive(Default)]
pub(super) struct Crowding {
    /// Small groups in a row that others committed beside.
    small_groups: Cell<u32>,
}

impl Crowding {
    /// Notes a commit: of how many events, and how many others were under way at least.
    pub(super) fn note(&self, events: usize, others: i64) {
        if events > 0 {
            let is_small = others >= OTHERS_ENOUGH && events <= SMALL_GROUP_EVENTS_MAX;
            self.small_groups.set(if is_small { self.small_groups.get() + 1 } else { 0 });
        }
    }

    /// Whether this instance had better leave its requests to others.
    pub(super) fn is_crowded(&self) -> bool {
        self.small_groups.get() >= SMALL_GROUPS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_groups_in_a_row_beside_many_others_are_too_many() {
        let crowding = Crowding::default();
        for (events, others) in [(1, 8), (1, 8), (0, 0), (5, 9), (1, 8), (1, 8), (4, 7), (4, 63)] {
            crowding.note(events, others);
            assert!(!crowding.is_crowded());
        }
        crowding.note(1, 8);
        assert!(!crowding.is_crowded());
        crowding.note(1, 8);
        assert!(crowding.is_crowded());
    }
}
