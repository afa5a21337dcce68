//! A flag that is up for as long as somebody is at something.

use std::cell::Cell;

/// Lowers its flag when it is dropped, however that comes.
pub(super) struct Raised<'a>(&'a Cell<bool>);

impl<'a> Raised<'a> {
    /// Raises `flag`; `None` if it was up.
    pub(super) fn of(flag: &'a Cell<bool>) -> Option<Self> {
        (!flag.replace(true)).then_some(Raised(flag))
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
