//! A push as the entries in it, before any of them is read.

use crate::ingest::format::BodyError;

/// The entries of a push, as pieces of the body in its own form. Streams without any are
/// not kept: of them there could be millions.
#[derive(Debug)]
pub(super) struct Split<'a> {
    /// The labels of each stream, if it has any.
    pub(super) streams: Vec<Option<&'a [u8]>>,
    /// The entries, each with the place of its stream.
    pub(super) entries: Vec<(&'a [u8], usize)>,
    entries_max: usize,
    /// There was one more.
    pub(super) are_too_many: bool,
}

impl<'a> Split<'a> {
    /// A push without entries, which may have so many.
    pub(super) fn new(entries_max: usize) -> Self {
        Split { streams: Vec::new(), entries: Vec::new(), entries_max, are_too_many: false }
    }

    /// Begins with the entries of another stream.
    pub(super) fn open(&mut self) {
        self.streams.push(None);
    }

    /// Takes another entry.
    ///
    /// # Errors
    ///
    /// When there may be no more.
    pub(super) fn push(&mut self, entry: &'a [u8]) -> Result<(), BodyError> {
        self.are_too_many = self.entries.len() == self.entries_max;
        if self.are_too_many {
            return Err(BodyError::TooManyEvents);
        }
        self.entries.push((entry, self.streams.len() - 1));
        Ok(())
    }

    /// There are no more entries of this stream; `labels` are its.
    pub(super) fn close(&mut self, labels: Option<&'a [u8]>) {
        let last = self.streams.len() - 1;
        if self.entries.last().is_some_and(|(_, stream)| *stream == last) {
            self.streams[last] = labels;
        } else {
            self.streams.pop();
        }
    }
}
