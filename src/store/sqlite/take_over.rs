//! A store of an earlier version is taken over, step by step.
//!
//! Up to version 4 an event and its identity were one row. They are copied into two
//! tables, the contents in the order of their places and the identities in that of their
//! index, so that both are written from one end to the other. Where a step goes on is told
//! by what is there, so it matters neither who took the one before nor whether it was cut
//! off. What is read is the old table until all is copied; then it goes, and the new one
//! has its name. Nothing is written meanwhile but by this.
//!
//! What takes something away is a transaction, on a connection of its own, that looks
//! once more whether it is still to be done: an instance that is late by any time must
//! not take away what another one has put there.

use std::time::Duration;

use super::SqliteStore;
use super::checkpoint;
use super::columns::Columns;
use super::fault::store_error;
use super::raised::Raised;
use super::setup::{self, Place, SCHEMA, SCHEMA_FROM_1, SCHEMA_FROM_4, SCHEMA_VERSION};
use super::statement::{Statement, query};
use crate::platform::sqlite::{Sqlite, SqliteConnection, Value};
use crate::store::model::StoreError;
use crate::time::{DAY_MS, UnixMillis};

/// Most rows that are copied in one commit.
const ROWS_MAX: i64 = 10_000;

/// Bytes of payloads after which a commit is not made larger.
const PAYLOAD_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Pages that a step writes, at most and about.
const STEP_PAGES: i64 = 2 * PAYLOAD_BYTES_MAX / 4096;

/// For how long a commit goes on with taking the store over from an earlier version, in
/// milliseconds, before it says that the store is busy.
const TAKE_OVER_MS_MAX: u64 = 300;

/// How far a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing but version 5.
    Done,
    /// Contents are to be copied, so many places of so many are.
    Contents { copied: i64, all: i64 },
    /// Identities are to be copied.
    Identities { all: i64 },
    /// The old table is to go.
    Copied,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// There is nothing more to do.
    Done,
    /// There is; so says the sentence.
    More(String),
}

impl SqliteStore {
    /// Makes a store of an earlier version one from which can be read, and tells whether it
    /// is taken over with that.
    ///
    /// # Errors
    ///
    /// What the store says; the next call begins again.
    pub(super) fn begin_take_over(&self, now: UnixMillis) -> Result<bool, StoreError> {
        begin(&*self.sqlite, now)
    }

    /// Takes the store over for a commit that waits for it.
    ///
    /// # Errors
    ///
    /// What the store says. Busy, when there is more to do.
    pub(super) async fn take_over_before_commit(&self) -> Result<(), StoreError> {
        self.take_over(Duration::from_millis(TAKE_OVER_MS_MAX)).await
    }

    /// Goes on until the store is taken over, `at_once` for so long.
    pub(super) async fn take_over_lingering(&self, at_once: Duration) {
        while self.to_take_over.get() {
            match self.take_over(at_once).await {
                Err(error) if !error.is_busy() => break,
                // Others take steps, too.
                _ => self.clock.sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Takes the store over from an earlier version, as far as it comes in `for_at_most`.
    /// What fails is tried again by the next call, of this instance or another.
    ///
    /// # Errors
    ///
    /// What the store says. Busy, when there is more to do.
    async fn take_over(&self, for_at_most: Duration) -> Result<(), StoreError> {
        if self.is_taking_over.get() {
            return Err(StoreError::busy("this instance takes the store over"));
        }
        let _taking_over = Raised::of(&self.is_taking_over);
        let began = self.clock.monotonic();
        let mut pages = 0;
        loop {
            let connection = self.ready_to_write()?;
            if !self.to_take_over.get() {
                return Ok(());
            }
            self.wrote.set(!self.on_server.get());
            match step(&*self.sqlite, &*connection, self.clock.now()).await? {
                Step::Done => {
                    self.to_take_over.set(false);
                    self.checkpoints.put_back();
                }
                Step::More(told) if self.clock.monotonic() - began >= for_at_most => {
                    return Err(StoreError::busy(told));
                }
                Step::More(_) => {}
            }
            pages += STEP_PAGES;
            if pages >= self.checkpoints.pages_max() && !self.on_server.get() {
                pages = 0;
                let pages_max = self.checkpoints.pages_max();
                // What is not copied now is copied later.
                let is_copying = &self.is_copying;
                checkpoint::run(&*self.sqlite, &*self.clock, pages_max, is_copying).await.ok();
            }
        }
    }
}

fn begin(sqlite: &dyn Sqlite, now: UnixMillis) -> Result<bool, StoreError> {
    in_transaction(sqlite, |connection| {
        if version(connection)? == SCHEMA_VERSION {
            return Ok(true);
        }
        if setup::has(connection, "events", "")? {
            setup::run_script(connection, SCHEMA_FROM_1, now)?;
        }
        for emptied in ["topics", "verdict"] {
            query(connection, &format!("DROP TABLE IF EXISTS {emptied}"), Vec::new())?;
        }
        let has_topics = setup::has(connection, "topic_totals", "")?;
        for column in ["pruned", "pruned_seq", "content_bytes"] {
            // With what follows the name in the definition.
            if has_topics && !setup::has(connection, "topic_totals", &format!(" {column} "))? {
                let add = format!(
                    "ALTER TABLE topic_totals ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
                );
                query(connection, &add, Vec::new())?;
            }
        }
        if !setup::has(connection, "event_log", "UNIQUE")? {
            finish(connection, now)?;
            return Ok(true);
        }
        setup::run_script(connection, SCHEMA_FROM_4, now)?;
        setup::run_tables(connection, now)?;
        Ok(false)
    })
}

/// Does all of `change`, or nothing.
fn in_transaction<T>(
    sqlite: &dyn Sqlite,
    change: impl FnOnce(&dyn SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let connection = sqlite.open().map_err(store_error)?;
    if setup::never_checkpoint(&*connection)? == Place::File {
        query(&*connection, "PRAGMA synchronous = FULL", Vec::new())?;
    }
    query(&*connection, "BEGIN IMMEDIATE", Vec::new())?;
    let changed = change(&*connection);
    let end = if changed.is_ok() { "COMMIT" } else { "ROLLBACK" };
    query(&*connection, end, Vec::new())?;
    changed
}

fn version(connection: &dyn SqliteConnection) -> Result<i64, StoreError> {
    const VERSION: &str = "SELECT user_version FROM pragma_user_version";
    Columns::first_of(query(connection, VERSION, Vec::new())?)?.integer()
}

/// What there is to do.
fn stage(connection: &dyn SqliteConnection) -> Result<Stage, StoreError> {
    const COPIED: &str = "SELECT coalesce((SELECT max(seq) FROM event_log_5), 0), \
        coalesce((SELECT max(seq) FROM event_log), 0), \
        (SELECT topic_id || ' ' || event_id FROM event_log \
         ORDER BY topic_id DESC, event_id DESC LIMIT 1) \
        IS (SELECT topic_id || ' ' || event_id FROM identity \
         ORDER BY topic_id DESC, event_id DESC LIMIT 1)";
    if version(connection)? == SCHEMA_VERSION {
        return Ok(Stage::Done);
    }
    let mut columns = Columns::first_of(query(connection, COPIED, Vec::new())?)?;
    let (copied, all) = (columns.integer()?, columns.integer()?);
    let has_identities = columns.integer()? != 0;
    Ok(match has_identities {
        _ if copied < all => Stage::Contents { copied, all },
        false => Stage::Identities { all },
        true => Stage::Copied,
    })
}

/// One step.
///
/// # Errors
///
/// What the store says; busy, when another instance takes a step. The next call goes on.
async fn step(
    sqlite: &dyn Sqlite,
    connection: &dyn SqliteConnection,
    now: UnixMillis,
) -> Result<Step, StoreError> {
    let (statement, told) = match stage(connection)? {
        Stage::Done => return Ok(Step::Done),
        Stage::Contents { copied, all } => {
            (contents(), format!("{copied} of {all} events are copied"))
        }
        Stage::Identities { all } => {
            (identities(), format!("the identities of {all} events are being copied"))
        }
        Stage::Copied => {
            in_transaction(sqlite, |connection| match stage(connection)? {
                Stage::Copied => {
                    query(connection, "DROP TABLE event_log", Vec::new())?;
                    finish(connection, now)
                }
                _ => Ok(()),
            })?;
            // By this instance or another: no stage comes after it but that it is done.
            return Ok(Step::Done);
        }
    };
    let copied = connection.commit(&statement.sql, statement.parameters).await;
    copied.map_err(store_error)?;
    Ok(Step::More(format!("the store is being taken over from an earlier version: {told}")))
}

fn contents() -> Statement {
    const CONTENTS: &str = "\
        INSERT INTO event_log_5 (seq, topic_id, received_at, event_id, source, timestamp, payload) \
        SELECT seq, topic_id, received_at, event_id, source, timestamp, payload FROM event_log \
        WHERE seq > (SELECT coalesce(max(seq), 0) FROM event_log_5) AND seq <= ( \
          SELECT max(seq) FROM ( \
            SELECT seq, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before FROM ( \
              SELECT seq, octet_length(payload) AS bytes FROM event_log \
              WHERE seq > (SELECT coalesce(max(seq), 0) FROM event_log_5) \
              ORDER BY seq LIMIT ?1)) \
          WHERE bytes_before < ?2) \
        ORDER BY seq";
    let parameters = vec![ROWS_MAX.into(), PAYLOAD_BYTES_MAX.into()];
    Statement { sql: CONTENTS.into(), parameters }
}

fn identities() -> Statement {
    const IDENTITIES: &str = "\
        INSERT INTO identity (topic_id, event_id, seq, day, content) \
        SELECT topic_id, event_id, seq, received_at / ?2, content FROM event_log \
        WHERE (topic_id, event_id) > ( \
          coalesce((SELECT max(topic_id) FROM identity), 0), \
          coalesce((SELECT max(event_id) FROM identity \
                    WHERE topic_id = (SELECT max(topic_id) FROM identity)), '')) \
        ORDER BY topic_id, event_id LIMIT ?1";
    let parameters: Vec<Value> = vec![ROWS_MAX.into(), DAY_MS.into()];
    Statement { sql: IDENTITIES.into(), parameters }
}

/// What is left when the old table is gone: the new one gets its name, and there are
/// ways in.
fn finish(connection: &dyn SqliteConnection, now: UnixMillis) -> Result<(), StoreError> {
    if setup::has(connection, "event_log_5", "")? {
        query(connection, "DROP TRIGGER count_taken_over", Vec::new())?;
        query(connection, "ALTER TABLE event_log_5 RENAME TO event_log", Vec::new())?;
    }
    setup::run_script(connection, SCHEMA, now)?;
    query(connection, &format!("PRAGMA user_version = {SCHEMA_VERSION}"), Vec::new()).map(drop)
}

#[cfg(test)]
mod tests;
