//! SQLite: a plain schema, and one thread that writes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use publisher::wire::Counters;
use rusqlite::{
    Connection, OptionalExtension as _, Result, Statement, Transaction, TransactionBehavior, params,
};

use super::store::{Event, Settled};
use super::writer::{self, Requests};
use crate::native;

/// Pages of the log after which they are moved to the database: as many as Sekali
/// has by default, so that neither moves them more often. SQLite's own default is
/// 1,000, which two batches write.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 4_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        event_id TEXT NOT NULL,
        source TEXT NOT NULL,
        timestamp TEXT,
        payload TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        UNIQUE (topic, event_id)
    );
    CREATE TABLE IF NOT EXISTS counters (
        topic TEXT PRIMARY KEY,
        received INTEGER NOT NULL,
        unique_processed INTEGER NOT NULL,
        duplicate_dropped INTEGER NOT NULL,
        conflicts INTEGER NOT NULL
    );";

const INSERT: &str = "
    INSERT INTO events (topic, event_id, source, timestamp, payload, received_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";

const STORED: &str =
    "SELECT source = ?3 AND payload = ?4 FROM events WHERE topic = ?1 AND event_id = ?2";

const COUNT: &str = "
    INSERT INTO counters VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (topic) DO UPDATE SET
        received = received + excluded.received,
        unique_processed = unique_processed + excluded.unique_processed,
        duplicate_dropped = duplicate_dropped + excluded.duplicate_dropped,
        conflicts = conflicts + excluded.conflicts";

const COUNTERS: &str =
    "SELECT topic, received, unique_processed, duplicate_dropped, conflicts FROM counters";

/// A store on SQLite.
#[derive(Clone)]
pub struct Sqlite {
    /// A connection that reads.
    reader: Arc<Mutex<Connection>>,
}

impl Sqlite {
    /// Opens `file`, or creates it, and starts the thread that commits `requests`.
    pub fn open(file: &Path, requests: Requests) -> anyhow::Result<Self> {
        let connect = || open(file).context("cannot open the database");
        let writer = connect()?;
        std::thread::spawn(move || write(writer, requests));
        Ok(Sqlite { reader: Arc::new(Mutex::new(connect()?)) })
    }

    /// The counters of each topic.
    pub async fn counters(&self) -> anyhow::Result<BTreeMap<String, Counters>> {
        let reader = Arc::clone(&self.reader);
        let read = tokio::task::spawn_blocking(move || {
            counters(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(read.await??)
    }
}

fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn write(mut connection: Connection, mut requests: Requests) {
    while let Some(first) = requests.blocking_recv() {
        let group = writer::group(first, &mut requests);
        let committed = commit(&mut connection, &group);
        writer::answer(group, committed);
    }
}

/// Stores the events of several requests in one transaction, and counts them.
/// What became of each is on disk when this returns.
fn commit(
    connection: &mut Connection,
    requests: &[impl AsRef<[Event]>],
) -> Result<Vec<Vec<Settled>>> {
    let now = native::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counted: HashMap<&str, Counters> = HashMap::new();
    let mut settled = Vec::with_capacity(requests.len());
    let mut insert = transaction.prepare_cached(INSERT)?;
    for request in requests {
        let mut of_request = Vec::with_capacity(request.as_ref().len());
        for event in request.as_ref() {
            let counters = counted.entry(&event.topic).or_default();
            of_request.push(store(&transaction, &mut insert, event, now, counters)?);
        }
        settled.push(of_request);
    }
    drop(insert);
    for (topic, counters) in counted {
        let Counters { received, unique_processed, duplicate_dropped, conflicts, .. } = counters;
        transaction.prepare_cached(COUNT)?.execute(params![
            topic,
            received,
            unique_processed,
            duplicate_dropped,
            conflicts
        ])?;
    }
    transaction.commit()?;
    Ok(settled)
}

fn store(
    transaction: &Transaction<'_>,
    insert: &mut Statement<'_>,
    event: &Event,
    now: i64,
    counters: &mut Counters,
) -> Result<Settled> {
    let Event { topic, event_id, source, timestamp, payload } = event;
    counters.received += 1;
    let inserted =
        insert.execute(params![topic, event_id, source, timestamp, payload.get(), now])?;
    if inserted == 1 {
        counters.unique_processed += 1;
        return Ok(Settled::accepted(transaction.last_insert_rowid()));
    }
    counters.duplicate_dropped += 1;
    let same: Option<bool> = transaction
        .prepare_cached(STORED)?
        .query_row(params![topic, event_id, source, payload.get()], |row| row.get(0))
        .optional()?;
    if same == Some(true) {
        return Ok(Settled::DUPLICATE);
    }
    counters.conflicts += 1;
    Ok(Settled::CONFLICT)
}

fn counters(connection: &Connection) -> Result<BTreeMap<String, Counters>> {
    let mut statement = connection.prepare_cached(COUNTERS)?;
    let of_topics = statement.query_map((), |row| {
        let counters = Counters {
            received: row.get(1)?,
            unique_processed: row.get(2)?,
            duplicate_dropped: row.get(3)?,
            conflicts: row.get(4)?,
            pruned: 0,
        };
        Ok((row.get(0)?, counters))
    })?;
    of_topics.collect()
}
