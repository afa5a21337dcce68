//! What instances of a service agree on: moments that they note for each other, and who
//! does something for all of them.

use crate::time::UnixMillis;

/// Moments that instances noted for each other, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub std::collections::BTreeMap<String, UnixMillis>);

impl Marks {
    /// The moment under `name`; 1970 when there is none.
    pub fn at(&self, name: &str) -> UnixMillis {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// The moment under `name`, if it is yet to come. One that is further ahead than
    /// `most` milliseconds is from a clock that was ahead.
    pub(crate) fn to_come(&self, name: &str, now: UnixMillis, most: i64) -> Option<UnixMillis> {
        Some(self.at(name)).filter(|moment| now < *moment && *moment <= now + most)
    }
}

/// What an instance wants to take upon itself.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The name of the mark that holds when the last claim ends.
    pub mark: &'a str,
    /// Now.
    pub now: UnixMillis,
    /// For how long it is taken, in milliseconds. A claim of somebody else that seems to
    /// have twice as long to go is from a clock that was ahead, and holds nobody off; not
    /// one that has a little longer, since whoever asks may have read his clock before.
    pub for_ms: UnixMillis,
}

/// What an instance has taken upon itself: as long as the mark is at this moment, nobody
/// else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// The name of the mark.
    pub mark: &'a str,
    /// When the claim ends, unless it is released before.
    pub until: UnixMillis,
}

impl<'a> From<Claim<'a>> for Claimed<'a> {
    /// What there is if the claim is made.
    fn from(claim: Claim<'a>) -> Self {
        Claimed { mark: claim.mark, until: claim.now + claim.for_ms }
    }
}

/// What an instance wants to be for a while: the one that writes for the others.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// What tells instances apart; 20 bits of it count.
    pub holder: u32,
    /// Now.
    pub now: UnixMillis,
    /// For how long, in milliseconds; 0 gives it up.
    pub for_ms: UnixMillis,
}

impl Lease {
    /// Longest lease, in milliseconds. For as long instances write for themselves after
    /// the one writer was killed.
    pub const MS: UnixMillis = 1_000;
}
