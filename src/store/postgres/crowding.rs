//! When an instance is one too many.
//!
//! Commits run side by side, but each is a statement of its own, with a connection of
//! its own, of which there are not many (Spin has 64). A burst starts an instance for
//! every request. One that finds that some others commit beside it, and that its own
//! groups are small, had better leave its requests to them: what a commit costs hardly
//! depends on how much is in it.
//!
//! It does so at once. When it took three such groups in a row, 128 clients had 64
//! instances with two requests each for as long as they sent, and a third of the rate:
//! see `docs/platform-notes.md`.

use std::cell::Cell;

/// So many other commits under way are enough: they keep two cores and a disk busy.
const OTHERS_ENOUGH: i64 = 4;

/// Most events in a group that another instance would not notice.
const SMALL_GROUP_EVENTS_MAX: usize = 2;

/// What an instance knows of others.
#[derive(Default)]
pub(super) struct Crowding {
    /// Whether the last group of events was small, and enough others committed beside it.
    is_crowded: Cell<bool>,
}

impl Crowding {
    /// Notes a commit: of how many events, and how many others were under way at least.
    pub(super) fn note(&self, events: usize, others: i64) {
        if events > 0 {
            self.is_crowded.set(others >= OTHERS_ENOUGH && events <= SMALL_GROUP_EVENTS_MAX);
        }
    }

    /// Whether this instance had better leave its requests to others.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_group_beside_enough_others_is_one_too_many() {
        let crowding = Crowding::default();
        assert!(!crowding.is_crowded());
        for (events, others, is_crowded) in [
            (1, 0, false),
            (1, 3, false),
            (1, 4, true),
            (3, 63, false),
            (2, 63, true),
            // Nothing but observations.
            (0, 0, true),
            (1, 3, false),
        ] {
            crowding.note(events, others);
            assert_eq!(crowding.is_crowded(), is_crowded, "{events} events beside {others}");
        }
    }
}
