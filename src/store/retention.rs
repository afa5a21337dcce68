//! What a store may forget: of which topics how much is kept, and what was pruned.
//!
//! To prune an event is to remove its content; its identity stays, so it is still a
//! duplicate when it is delivered again, until identities are forgotten as well.

use super::marks::Claimed;
use super::model::Cursor;
pub use crate::event::TopicGroup;
use crate::time::UnixMillis;

/// What a store has of the events of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The place directly before the oldest of them; [`Cursor::END`] when there is none.
    pub before_oldest: Cursor,
    /// How many they are.
    pub events: i64,
    /// How long their event ids, sources, timestamps and payloads are together, in bytes.
    pub bytes: i64,
}

/// Which events to prune at once.
#[derive(Clone, Copy, Debug)]
pub struct Prune<'a> {
    /// The claim of whoever prunes. What is over a limit is counted before it is pruned,
    /// so of two that do so at once each would prune it.
    pub claimed: Claimed<'a>,
    /// Those of these topics,
    pub group: &'a TopicGroup,
    /// after this place
    pub after: Cursor,
    /// and up to this one,
    pub up_to: Cursor,
    /// received before this moment, if one is given:
    pub received_before: Option<UnixMillis>,
    /// the oldest, so many at most,
    pub events_max: usize,
    /// and not more than it takes to have so many bytes less, if that is given.
    pub bytes_enough: Option<i64>,
}

/// What was pruned at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// How many events.
    pub events: i64,
    /// How many bytes, as [`Kept::bytes`] counts them.
    pub bytes: i64,
    /// Up to this place there is nothing more to prune: all of it, when this is the end
    /// that was asked for.
    pub up_to: Cursor,
}

/// How far a look for identities to forget came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// How many were looked at.
    pub looked_at: i64,
    /// How many were forgotten.
    pub forgotten: i64,
    /// Whether that was the last one, and the next look begins with the first.
    pub was_last: bool,
}
