//! Whether a copy is sound, and its counters are those of its events.
//!
//! What is looked at of the schema are two tables that a person with `sqlite3` would look
//! at as well. A database that has others is not compared, which is said.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

/// What has a meaning in the URI of a file.
const RESERVED: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

/// How closely a copy is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Depth {
    /// `PRAGMA integrity_check`: everything, indexes against tables included
    Full,
    /// `PRAGMA quick_check`: everything but that
    Quick,
}

/// What was found in a copy that is sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Found {
    /// Which check said so.
    pub depth: Depth,
    /// The version of the schema.
    pub schema_version: i64,
    /// The events, if it has a table of them.
    pub stored: Option<Stored>,
}

/// The events of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Stored {
    /// As they were counted, topic by topic, and as the counters say.
    pub events: u64,
    /// Topics of them.
    pub topics: u64,
    /// The newest one's place.
    pub last_seq: u64,
}

/// Looks at a copy, which nobody writes to.
///
/// # Errors
///
/// If it is damaged, or a topic's counter is not the number of its events.
pub(super) fn check(path: &Path, depth: Depth) -> anyhow::Result<Found> {
    // As it is, with no log and no locks: neither may be beside it in the end.
    let path = std::path::absolute(path)?;
    let path = path.to_string_lossy();
    let uri = format!("file:{}?immutable=1", utf8_percent_encode(&path, RESERVED));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let copy = Connection::open_with_flags(uri, flags)?;
    let pragma = match depth {
        Depth::Full => "PRAGMA integrity_check(1)",
        Depth::Quick => "PRAGMA quick_check(1)",
    };
    let verdict: String = copy.query_row(pragma, [], |row| row.get(0))?;
    ensure!(verdict == "ok", "it is damaged, and so is what it was copied from: {verdict}");
    let schema_version = copy.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let stored = stored(&copy)?;
    Ok(Found { depth, schema_version, stored })
}

fn stored(copy: &Connection) -> anyhow::Result<Option<Stored>> {
    let tables: u64 = copy.query_row(
        "SELECT count(*) FROM sqlite_schema
         WHERE type = 'table' AND name IN ('topic_totals', 'event_log')",
        [],
        |row| row.get(0),
    )?;
    if tables < 2 {
        return Ok(None);
    }
    // Since schema 5 contents may be pruned, and are counted.
    let prunes: bool = copy.query_row(
        "SELECT count(*) FROM pragma_table_info('topic_totals') WHERE name = 'pruned'",
        [],
        |row| row.get(0),
    )?;
    let pruned = if prunes { "pruned" } else { "0" };
    let mut of_topics = copy.prepare(&format!(
        "SELECT topic, unique_processed - {pruned},
           (SELECT count(*) FROM event_log WHERE topic_id = id)
         FROM topic_totals"
    ))?;
    let mut rows = of_topics.query([])?;
    let (mut events, mut topics) = (0, 0);
    while let Some(row) = rows.next()? {
        let (topic, counted, there): (String, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        ensure!(
            counted == there,
            "topic {topic:?} has {there} events, and its counter says {counted}"
        );
        events += there;
        topics += 1;
    }
    // The newest row stays when its event is pruned, and is of no topic then.
    let (all, last_seq): (u64, u64) = copy.query_row(
        "SELECT count(*) FILTER (WHERE topic_id <> 0), coalesce(max(seq), 0) FROM event_log",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    ensure!(all == events, "{all} events are stored, and {events} of a topic that is there");
    Ok(Some(Stored { events, topics, last_seq }))
}
