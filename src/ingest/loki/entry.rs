//! An entry as it is read, in either form.

/// An entry, whose members were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Nanoseconds since 1970.
    pub(super) at: u64,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The field of an event.
    pub(super) field: &'static str,
    /// A phrase that follows it.
    pub(super) detail: String,
}

impl Wrong {
    /// A time that cannot be told.
    pub(super) fn time() -> Self {
        let detail = "is no number of nanoseconds since 1970".to_owned();
        Wrong { field: "timestamp", detail }
    }

    /// An entry that cannot be read.
    pub(super) fn entry(why: impl std::fmt::Display) -> Self {
        Wrong { field: "payload", detail: format!("cannot be made: {why}") }
    }
}
