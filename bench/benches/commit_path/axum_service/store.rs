//! What is stored, and where: on SQLite or on PostgreSQL.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use publisher::wire::{Counters, Outcome};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::writer::Writer;
use crate::database::Counts;

/// All that the audit knows of the schemas.
pub const COUNTS: Counts = Counts {
    rows: "SELECT count(*) FROM events",
    identities: "SELECT count(*) FROM (SELECT DISTINCT topic, event_id FROM events) AS identities",
};

/// What the name of a store begins with that is no file of SQLite.
const POSTGRES: &str = "postgres://";

/// An event as it is published.
#[derive(Deserialize)]
pub struct Event {
    pub topic: String,
    pub event_id: String,
    pub source: String,
    pub timestamp: Option<String>,
    pub payload: Box<RawValue>,
}

/// What became of an event.
pub struct Settled {
    pub outcome: Outcome,
    /// Of an event that was accepted.
    pub seq: Option<i64>,
}

impl Settled {
    pub const DUPLICATE: Settled = Settled { outcome: Outcome::Duplicate, seq: None };
    pub const CONFLICT: Settled = Settled { outcome: Outcome::Conflict, seq: None };

    pub fn accepted(seq: i64) -> Settled {
        Settled { outcome: Outcome::Accepted, seq: Some(seq) }
    }
}

/// A store.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
}

#[derive(Clone)]
enum Reader {
    Sqlite(Sqlite),
    Postgres(Arc<Postgres>),
}

impl Store {
    /// Opens a file, or what is at a URL of PostgreSQL, and makes the schema.
    pub async fn open(name: &str) -> Result<Self> {
        let (writer, requests) = Writer::new();
        let reader = if name.starts_with(POSTGRES) {
            Reader::Postgres(Arc::new(Postgres::open(name, requests).await?))
        } else {
            Reader::Sqlite(Sqlite::open(Path::new(name), requests)?)
        };
        Ok(Store { writer, reader })
    }

    /// What became of the events, once it is on disk; `None` if they could not be
    /// stored.
    pub async fn append(&self, events: Arc<[Event]>) -> Option<Vec<Settled>> {
        self.writer.store(events).await
    }

    /// The counters of each topic.
    pub async fn counters(&self) -> Result<BTreeMap<String, Counters>> {
        let counters = match &self.reader {
            Reader::Sqlite(sqlite) => sqlite.counters().await,
            Reader::Postgres(postgres) => postgres.counters().await,
        };
        counters.context("cannot read the counters")
    }
}
