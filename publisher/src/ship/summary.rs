//! What there is to say about a file.

use crate::console;
use crate::report::ship::Tally;

/// Problems of one file that are listed one by one; the rest are counted.
const PROBLEMS_LISTED_MAX: usize = 20;
/// Notes on one file that are kept; the rest are counted.
const NOTES_LISTED_MAX: usize = 50;

/// What there is to say about a file: sums, and what went wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// The sums.
    pub tally: Tally,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Events that were not stored as sent.
    pub problems: Vec<String>,
    notes_unlisted: u64,
    /// Problems that are not listed, here or in a reply.
    pub problems_unlisted: u64,
    /// Whether a signal ended it early.
    pub interrupted: bool,
}

impl Summary {
    /// Says what a reader should know.
    pub(crate) fn note(&mut self, text: String) {
        if self.notes.len() < NOTES_LISTED_MAX {
            self.notes.push(text);
        } else {
            self.notes_unlisted += 1;
        }
    }

    /// Says what a reader should know, and says it at once.
    pub(crate) fn say(&mut self, text: &str) {
        console::note(format_args!("{text}"));
        self.note(text.to_owned());
    }

    /// Says what is not stored as it should be.
    pub(crate) fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(text);
        } else {
            self.problems_unlisted += 1;
        }
    }

    /// Ends the lists.
    pub(crate) fn close(&mut self) {
        if self.problems_unlisted > 0 {
            self.problems.push(format!("… and {} more", self.problems_unlisted));
            self.problems_unlisted = 0;
        }
        if self.notes_unlisted > 0 {
            self.notes.push(format!("… and {} notes more", self.notes_unlisted));
            self.notes_unlisted = 0;
        }
        let holes = self.tally.hole_bytes;
        if holes > 0 {
            self.notes.push(format!("{holes} NUL bytes in holes were left out"));
        }
        let Tally { lines, events, .. } = self.tally;
        if events > lines {
            let parts = events - lines;
            self.notes.push(format!("very long lines were split, into {parts} events more"));
        }
    }
}
