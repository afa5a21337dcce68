//! How many records of a request were not taken, for formats that tell just that.

use super::format::Entry;
use crate::event::FieldError;
use crate::http::problem::{InvalidEvent, Problem};
use crate::store::Outcome;

/// The records that were not taken, of those of which it is known what came of them.
#[derive(Default)]
pub(super) struct Tally {
    settled: usize,
    pub(super) rejected: usize,
    /// What is wrong with the first.
    pub(super) first: Option<InvalidEvent>,
}

impl Tally {
    /// Counts what came of the next entries. Their ids are digests of their content, so
    /// they hardly ever conflict.
    ///
    /// # Errors
    ///
    /// When the outcomes are not those of the entries.
    pub(super) fn settle(
        &mut self,
        entries: &[Entry],
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem> {
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        for (index, entry) in (self.settled..).zip(entries) {
            let wrong = match entry {
                Err(errors) => errors.first().cloned(),
                Ok(_) => match outcomes.next() {
                    Some(Outcome::Accepted { .. } | Outcome::Duplicate) => None,
                    Some(Outcome::Conflict) => {
                        Some(FieldError::new("event_id", "is that of another record"))
                    }
                    None => return Err(Problem::internal("there are fewer outcomes than events")),
                },
            };
            if let Some(wrong) = wrong {
                self.rejected += 1;
                self.first.get_or_insert_with(|| InvalidEvent::new(index, &wrong));
            }
        }
        self.settled += entries.len();
        Ok(())
    }
}
