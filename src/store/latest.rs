//! A value as it was last read, for all requests of an instance that can do
//! with one of some age.

use std::cell::RefCell;
use std::time::Duration;

/// What was read, and when on the monotonic clock.
#[derive(Debug)]
pub(crate) struct Latest<T>(RefCell<Option<(Duration, T)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Latest(RefCell::new(None))
    }
}

impl<T: Clone> Latest<T> {
    /// The value, if it was read no longer than `age_max` before `now`.
    pub(crate) fn get(&self, now: Duration, age_max: Duration) -> Option<T> {
        let latest = self.0.borrow();
        let (read_at, value) = latest.as_ref()?;
        (now.saturating_sub(*read_at) <= age_max).then(|| value.clone())
    }

    /// Keeps what was read at `now`.
    pub(crate) fn set(&self, now: Duration, value: T) {
        self.0.replace(Some((now, value)));
    }
}
