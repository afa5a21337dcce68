//! Service state in the key-value store: the time of the first start, and a
//! snapshot of the counters for each minute.
//!
//! The counters themselves live in the store, in the same commits as the events.
//! When the key-value store is empty or fails, nothing but what is here is missing.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use crate::platform::SharedPlatform;
use crate::store::{RetryingStore, StoreError, TopicRange};
use crate::time::{self, UnixMillis};

/// The key of the time of the first start.
const STARTED_AT: &str = "started_at";

/// The key of the snapshots, oldest first. One value holds them all, some
/// 100 kB for a day: a chart of the day is one call then, and not one for each
/// minute.
const SNAPSHOTS: &str = "snapshots";

/// The key of the minute of the newest. The first publish of every instance
/// asks whether its minute has a snapshot, which is to cost a read of a few
/// bytes and not of all the day.
const NEWEST: &str = "newest_snapshot";

/// How long a snapshot is kept, in minutes.
pub(crate) const HISTORY_MINUTES_MAX: i64 = 24 * 60;

/// One snapshot as it is kept and shown: the counters as the first publish of
/// the minute left them.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Snapshot {
    minute: String,
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
}

/// The state of the service beside its store.
pub(crate) struct History {
    platform: SharedPlatform,
    store: RetryingStore,
    /// The last minute (since 1970) for which this instance looked after the
    /// snapshot.
    minute_seen: Cell<i64>,
}

impl History {
    /// That which the platform keeps.
    pub(crate) fn new(platform: SharedPlatform, store: RetryingStore) -> Self {
        History { platform, store, minute_seen: Cell::default() }
    }

    /// Reads something small, to see that the key-value store answers.
    ///
    /// # Errors
    ///
    /// What the key-value store says.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        self.platform.get(STARTED_AT).await?;
        Ok(())
    }

    /// The time of the first start. The store was created by the first request,
    /// so its age stands in when the key-value store has lost its own note.
    ///
    /// # Errors
    ///
    /// What the key-value store says.
    pub(crate) async fn started_at(
        &self,
        created_at: UnixMillis,
    ) -> Result<UnixMillis, StoreError> {
        let noted = self.platform.get(STARTED_AT).await?;
        let noted = noted.and_then(|text| time::parse(std::str::from_utf8(&text).ok()?).ok());
        if let Some(noted) = noted {
            return Ok(noted);
        }
        self.platform.set(STARTED_AT, time::rfc3339(created_at).as_bytes()).await?;
        Ok(created_at)
    }

    /// The snapshots of the last [`HISTORY_MINUTES_MAX`], oldest first.
    ///
    /// # Errors
    ///
    /// What the key-value store says.
    pub(crate) async fn snapshots(&self) -> Result<Vec<Snapshot>, StoreError> {
        let Some(value) = self.platform.get(SNAPSHOTS).await? else { return Ok(Vec::new()) };
        let mut snapshots: Vec<Snapshot> = serde_json::from_slice(&value)
            .map_err(|error| StoreError::unavailable(format!("the snapshots are none: {error}")))?;
        // Their names are in the order of time.
        let minute = time::minute_of(self.platform.now());
        let oldest = time::minute_name(minute - HISTORY_MINUTES_MAX);
        snapshots.retain(|snapshot| snapshot.minute > oldest);
        Ok(snapshots)
    }

    /// Keeps a snapshot of the counters if this is the first publish of its
    /// minute. True when it was the one to keep it.
    ///
    /// # Errors
    ///
    /// What a store says. Nothing but the snapshot is lost then.
    pub(crate) async fn snapshot_each_minute(&self) -> Result<bool, StoreError> {
        let minute = time::minute_of(self.platform.now());
        if self.minute_seen.replace(minute) == minute {
            return Ok(false);
        }
        let minute = time::minute_name(minute);
        let newest = self.platform.get(NEWEST).await?;
        if newest.is_some_and(|newest| newest.as_slice() >= minute.as_bytes()) {
            return Ok(false);
        }
        let mut snapshots = self.snapshots().await?;
        snapshots.retain(|snapshot| snapshot.minute < minute);
        let totals = self.store.ask(async |store| store.totals(TopicRange::NONE).await).await?;
        let all = totals.all;
        snapshots.push(Snapshot {
            minute: minute.clone(),
            received: all.received(),
            unique_processed: all.unique_processed,
            duplicate_dropped: all.duplicate_dropped,
        });
        let value = serde_json::to_vec(&snapshots)
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
        // Two instances that do this at once write nearly the same; were one of
        // them late by a minute, that minute would be missing, and nothing else.
        self.platform.set(SNAPSHOTS, &value).await?;
        self.platform.set(NEWEST, minute.as_bytes()).await?;
        self.started_at(totals.created_at).await?;
        Ok(true)
    }
}
