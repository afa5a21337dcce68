//! What is remembered of files, in SQL.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rusqlite::{
    Connection, OptionalExtension as _, Row, ToSql, Transaction, TransactionBehavior, params,
};

use super::super::file::FileKey;
use super::super::identity::Identity;
use super::super::window::{DIGEST_BYTES, ShortDigest, Window, digest_of};
use super::decide::{Claim, Decision, Entry, Relation, decide, was_moved};
use super::model::{Answer, EntryId, Known, Question, ReadWindow, Scope};

/// The version of the tables, in `user_version`.
pub(super) const VERSION: i64 = 1;
/// Files remembered; the one not seen for longest is forgotten first.
pub(super) const ENTRIES_MAX: i64 = 65_536;
/// Files with the same first line that are compared to the line; the newest.
const SAME_FIRST_LINE_MAX: i64 = 64;
/// The wait for another process that uses the registry, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 60_000;

const SCHEMA: &str = "
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    store TEXT NOT NULL, topic TEXT NOT NULL, source TEXT NOT NULL,
    -- What the ids are made with.
    salt TEXT, zone_bytes INTEGER NOT NULL,
    -- The window: digests of its complete lines, one after the other, the first
    -- and the last of them once more to be found by, and what follows them.
    lines BLOB NOT NULL, first_line BLOB, last_line BLOB,
    tail_bytes INTEGER NOT NULL, tail BLOB NOT NULL, is_full INTEGER NOT NULL,
    -- What the system calls the file.
    file_key TEXT,
    shipped_bytes INTEGER NOT NULL,
    -- Of files moved from the old form, instead of a window.
    beginning_bytes INTEGER, beginning TEXT,
    -- When it was last seen, in milliseconds since 1970.
    seen_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX files_by_key ON files (store, topic, source, file_key);
CREATE INDEX files_by_first_line ON files (store, topic, source, first_line);
CREATE INDEX files_by_first_line_and_salt ON files (store, topic, source, first_line, salt);
CREATE INDEX files_by_last_line ON files (store, topic, source, last_line);
CREATE INDEX files_by_salt ON files (store, topic, source, salt);
CREATE INDEX files_by_time ON files (seen_ms);
-- Names that are followed: files beside them that are not known are new.
CREATE TABLE followed (
    store TEXT NOT NULL, topic TEXT NOT NULL, source TEXT NOT NULL, path TEXT NOT NULL,
    PRIMARY KEY (store, topic, source, path)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

const COLUMNS: &str = "id, salt, zone_bytes, lines, tail_bytes, tail, is_full, file_key, \
                       shipped_bytes, beginning_bytes, beginning";

/// The database, and who reads what in this run.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    claims: HashMap<EntryId, Claim>,
}

impl Database {
    /// One that is forgotten with the process.
    pub(super) fn in_memory() -> anyhow::Result<Self> {
        Ok(Self::of(Connection::open_in_memory()?)?)
    }

    /// One in a file, which exists and may be empty.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or is damaged.
    pub(super) fn at(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
        // Where the file system cannot have it, another mode does as well.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if found != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
        }
        Self::of(connection)
    }

    fn of(mut connection: Connection) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? == 0 {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.commit()?;
        Ok(Self { connection, claims: HashMap::new() })
    }

    /// The version of its tables.
    pub(super) fn version(&self) -> rusqlite::Result<i64> {
        version(&self.connection)
    }

    /// Does something in one transaction, alone among all processes.
    ///
    /// # Errors
    ///
    /// If it cannot be begun or committed.
    pub(super) fn transaction(
        &mut self,
        act: impl FnOnce(&mut InTransaction<'_>),
    ) -> anyhow::Result<()> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let mut registry = InTransaction { transaction, claims: &mut self.claims };
        act(&mut registry);
        Ok(registry.transaction.commit()?)
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The registry, under its lock.
pub(super) struct InTransaction<'a> {
    transaction: Transaction<'a>,
    claims: &'a mut HashMap<EntryId, Claim>,
}

impl InTransaction<'_> {
    /// Decides what a file is, and remembers it.
    pub(super) fn identify(
        &mut self,
        question: &Question,
        read: ReadWindow,
    ) -> anyhow::Result<Answer> {
        let window = read().context("cannot read the file")?;
        let mut candidates = self.candidates(question, &window)?;
        let decision = decide(
            question,
            &window,
            &candidates,
            |id| self.claims.get(&id),
            |salt| self.has_salt(&question.scope, salt).unwrap_or(true),
        );
        let known = match decision {
            Decision::Undecided => return Ok(Answer::Undecided),
            Decision::Is(index, relation) => {
                let entry = candidates.swap_remove(index);
                self.found(question, &window, entry, relation)?
            }
            Decision::New(identity) => {
                let key = question.key.as_ref();
                let id = self.insert(&question.scope, &identity, &window, key)?;
                Known { id, identity, seen: false, shipped_bytes: 0 }
            }
        };
        let claim = Claim { key: question.key.clone(), family: question.family.clone() };
        self.claims.entry(known.id).or_insert(claim);
        Ok(Answer::Known(known))
    }

    /// Remembers that it is a known one.
    fn found(
        &self,
        question: &Question,
        window: &Window,
        entry: Entry,
        relation: Relation,
    ) -> anyhow::Result<Known> {
        // Its name for the system, if it is the only one that is left of it.
        let moved = question.rotation.as_ref().is_some_and(|rotation| was_moved(&entry, rotation));
        let key = if entry.key.is_none() || moved { question.key.clone() } else { None };
        let Entry { id, identity, .. } = entry;
        // The part that was cut off has to be shipped again, once it is there.
        let shipped_bytes = if relation == Relation::Diverges { 0 } else { entry.shipped_bytes };
        if relation != Relation::IsPrefix {
            self.set_window(id, window)?;
        }
        self.transaction
            .prepare_cached(
                "UPDATE files SET seen_ms = ?2, file_key = coalesce(?3, file_key), \
                 shipped_bytes = ?4 WHERE id = ?1",
            )?
            .execute(params![id.0, now_ms(), key.map(|key| key.0), shipped_bytes])?;
        Ok(Known { id, identity, seen: true, shipped_bytes })
    }

    /// Remembers how far a file was shipped.
    pub(super) fn record(
        &mut self,
        id: EntryId,
        window: &Window,
        shipped_bytes: u64,
    ) -> anyhow::Result<()> {
        let sql = format!("SELECT {COLUMNS} FROM files WHERE id = ?1");
        let entry = self.transaction.prepare_cached(&sql)?.query_row([id.0], entry).optional()?;
        // It may have been forgotten in favour of newer ones.
        let Some(entry) = entry else { return Ok(()) };
        // Another process may have read more of it by now.
        if entry.compare(window).is_some_and(|(relation, _)| relation == Relation::Contains) {
            self.set_window(id, window)?;
        }
        self.transaction
            .prepare_cached(
                "UPDATE files SET shipped_bytes = max(shipped_bytes, ?2), seen_ms = ?3 \
                 WHERE id = ?1",
            )?
            .execute(params![id.0, shipped_bytes, now_ms()])?;
        Ok(())
    }

    /// Lets a file that is like this one be it.
    pub(super) fn release(&mut self, id: EntryId) {
        self.claims.remove(&id);
    }

    /// Whether a name was followed before.
    pub(super) fn was_followed(&self, scope: &Scope, path: &str) -> anyhow::Result<bool> {
        let Scope { store, topic, source } = scope;
        let mut statement = self.transaction.prepare_cached(
            "SELECT 1 FROM followed WHERE store = ?1 AND topic = ?2 AND source = ?3 AND path = ?4",
        )?;
        Ok(statement.exists(params![store, topic, source, path])?)
    }

    /// Remembers that a name is followed.
    pub(super) fn set_followed(&self, scope: &Scope, path: &str) -> anyhow::Result<()> {
        let Scope { store, topic, source } = scope;
        self.transaction.execute(
            "INSERT INTO followed VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![store, topic, source, path],
        )?;
        Ok(())
    }

    /// Forgets the files that were not seen for longest.
    pub(super) fn forget_oldest(&mut self) -> anyhow::Result<()> {
        let count: i64 =
            self.transaction.query_row("SELECT count(*) FROM files", (), |row| row.get(0))?;
        self.transaction.execute(
            "DELETE FROM files WHERE id IN (SELECT id FROM files ORDER BY seen_ms, id LIMIT ?1)",
            [(count - ENTRIES_MAX).max(0)],
        )?;
        Ok(())
    }

    /// Adds a file.
    pub(super) fn insert(
        &self,
        scope: &Scope,
        identity: &Identity,
        window: &Window,
        key: Option<&FileKey>,
    ) -> anyhow::Result<EntryId> {
        let Scope { store, topic, source } = scope;
        self.transaction
            .prepare_cached(
                "INSERT INTO files (store, topic, source, salt, zone_bytes, lines, tail_bytes, \
                 tail, is_full, file_key, shipped_bytes, seen_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, x'', 0, x'', 0, ?6, 0, ?7)",
            )?
            .execute(params![
                store,
                topic,
                source,
                identity.salt,
                identity.zone_bytes,
                key.map(|key| &key.0),
                now_ms()
            ])?;
        let id = EntryId(self.transaction.last_insert_rowid());
        self.set_window(id, window)?;
        Ok(id)
    }

    /// Marks a file as moved from the old form: instead of a window, the SHA-256
    /// of its first `bytes` bytes in hexadecimal.
    pub(super) fn set_beginning(
        &self,
        id: EntryId,
        bytes: u64,
        digest: &str,
    ) -> anyhow::Result<()> {
        self.transaction.execute(
            "UPDATE files SET beginning_bytes = ?2, beginning = ?3 WHERE id = ?1",
            params![id.0, bytes, digest],
        )?;
        Ok(())
    }

    fn set_window(&self, id: EntryId, window: &Window) -> anyhow::Result<()> {
        let lines = window.lines();
        let tail = window.tail();
        self.transaction
            .prepare_cached(
                "UPDATE files SET lines = ?2, first_line = ?3, last_line = ?4, tail_bytes = ?5, \
                 tail = ?6, is_full = ?7, beginning_bytes = NULL, beginning = NULL WHERE id = ?1",
            )?
            .execute(params![
                id.0,
                lines.as_flattened(),
                lines.first(),
                lines.last(),
                tail.len(),
                digest_of(tail),
                window.is_full()
            ])?;
        Ok(())
    }

    /// The files that the one that is asked about could be, or share ids with.
    fn candidates(&self, question: &Question, window: &Window) -> anyhow::Result<Vec<Entry>> {
        let Scope { store, topic, source } = &question.scope;
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        let mut add = |condition: &str, values: &[&dyn ToSql]| -> anyhow::Result<()> {
            let sql = format!(
                "SELECT {COLUMNS} FROM files WHERE store = ?1 AND topic = ?2 AND source = ?3 \
                 AND {condition}"
            );
            let mut statement = self.transaction.prepare_cached(&sql)?;
            let scope: [&dyn ToSql; 3] = [store, topic, source];
            let rows = statement.query_map(&*[&scope, values].concat(), entry)?;
            for entry in rows {
                let entry = entry?;
                if known.insert(entry.id) {
                    found.push(entry);
                }
            }
            Ok(())
        };
        if let Some(key) = &question.key {
            add("file_key = ?4", &[&key.0])?;
        }
        // Those that it contains: one of its lines is the last of theirs.
        for line in window.lines() {
            add("last_line = ?4", &[line])?;
        }
        // Those without a complete line, and those moved from the old form.
        add("first_line IS NULL", &[])?;
        let newest = format!("ORDER BY id DESC LIMIT {SAME_FIRST_LINE_MAX}");
        if let Some(first) = window.lines().first() {
            add(&format!("first_line = ?4 {newest}"), &[first])?;
            // Those with the ids that it would have by its content alone.
            let default = Identity::of_head(window.head()).salt;
            add(&format!("first_line = ?4 AND salt IS ?5 {newest}"), &[first, &default])?;
        }
        Ok(found)
    }

    fn has_salt(&self, scope: &Scope, salt: &str) -> rusqlite::Result<bool> {
        let Scope { store, topic, source } = scope;
        self.transaction
            .prepare_cached(
                "SELECT 1 FROM files WHERE store = ?1 AND topic = ?2 AND source = ?3 AND salt = ?4",
            )?
            .exists(params![store, topic, source, salt])
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let lines: Vec<u8> = row.get("lines")?;
    let digests = lines.as_chunks::<DIGEST_BYTES>().0.to_vec();
    let tail: Vec<u8> = row.get("tail")?;
    let beginning_bytes: Option<usize> = row.get("beginning_bytes")?;
    let beginning: Option<String> = row.get("beginning")?;
    Ok(Entry {
        id: EntryId(row.get("id")?),
        identity: Identity { salt: row.get("salt")?, zone_bytes: row.get("zone_bytes")? },
        lines: digests,
        tail: (row.get("tail_bytes")?, ShortDigest::try_from(&*tail).unwrap_or_default()),
        full: row.get("is_full")?,
        key: row.get::<_, Option<String>>("file_key")?.map(FileKey),
        shipped_bytes: row.get("shipped_bytes")?,
        beginning: beginning_bytes.zip(beginning),
    })
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
