//! Takes a store of version 1 over.
//!
//! The first statement that wants version 2 brings what is there at once
//! (`schema_from_1.sql`). From then on everything can be read, and the version before
//! cannot publish. The identities of events that were stored before follow step by step,
//! which whoever wants to publish does, for a moment, and is told that the store is busy;
//! an instance that has nothing else to do goes on with it to the end.

use std::time::Duration;

use super::PostgresStore;
use super::columns::Columns;
use super::statement::{Statement, integer};
use crate::platform::postgres::Row;
use crate::store::model::StoreError;

/// How many events are taken over in one commit. It takes some tens of milliseconds.
const STEP_EVENTS_MAX: usize = 5_000;

/// For how long somebody who wants to publish takes the store over before it is answered,
/// in milliseconds.
const TAKE_OVER_MS_MAX: u64 = 500;

/// For how long somebody who finds another one at it waits before it is answered, in
/// milliseconds: it asks again at once.
const OTHERS_MS: u64 = 100;

/// How far a store is taken over.
enum Progress {
    /// All of it.
    Over,
    /// So many events, of so many.
    Events { taken: i64, of: i64, is_others: bool },
}

/// Takes the next events over, in one commit.
fn step(events_max: usize) -> Statement {
    const STEP: &str = "SELECT taken, events, is_others FROM sekali.take_over_2($1)";
    Statement { sql: STEP, parameters: vec![integer(events_max)] }
}

/// What [`step`] returned.
fn progress(rows: Vec<Row>) -> Result<Progress, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let (taken, of) = (columns.optional_integer()?, columns.optional_integer()?);
    let Some((taken, of)) = taken.zip(of) else { return Ok(Progress::Over) };
    Ok(Progress::Events { taken, of, is_others: columns.boolean()? })
}

impl PostgresStore {
    /// Goes on with the take-over for [`TAKE_OVER_MS_MAX`], unless somebody else is at
    /// it, and returns what to tell whoever wanted to publish.
    pub(super) async fn take_over(&self) -> StoreError {
        self.is_taking_over.set(true);
        let until = self.clock.monotonic() + Duration::from_millis(TAKE_OVER_MS_MAX);
        loop {
            match self.take_over_step().await {
                Err(error) => return error,
                Ok(Progress::Over) => {
                    return StoreError::busy("the store has just been taken over from version 1");
                }
                Ok(Progress::Events { taken, of, is_others })
                    if is_others || self.clock.monotonic() >= until =>
                {
                    if is_others {
                        self.clock.sleep(Duration::from_millis(OTHERS_MS)).await;
                    }
                    return StoreError::busy(format!(
                        "the store is being taken over from version 1: {taken} of {of} events"
                    ));
                }
                Ok(Progress::Events { .. }) => {}
            }
        }
    }

    /// Goes on with a take-over that a commit has met until it is over, or fails, or
    /// somebody else is at it.
    pub(super) async fn take_over_to_the_end(&self) {
        while self.is_taking_over.replace(false) {
            let progress = self.take_over_step().await;
            let goes_on = matches!(progress, Ok(Progress::Events { is_others: false, .. }));
            self.is_taking_over.set(goes_on);
        }
    }

    async fn take_over_step(&self) -> Result<Progress, StoreError> {
        let progress = progress(self.run(step(STEP_EVENTS_MAX)).await?)?;
        if let Progress::Over = progress {
            self.is_taking_over.set(false);
        }
        Ok(progress)
    }
}
