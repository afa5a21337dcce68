use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Waker};

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::event::sample;
use crate::platform::fake::{FakeDatabase, FakePlatform, now};
use crate::platform::sqlite::{Row, SqliteError, Value};
use crate::store::sqlite::SqliteStore;
use crate::store::{Deliveries, Store};

/// A file, to which each `open` is a connection of its own.
struct File {
    directory: TempDir,
    /// Keeps the WAL, which the last connection that closes would delete.
    kept: rusqlite::Connection,
    statements: Rc<RefCell<Vec<String>>>,
    /// Whether another connection tries to write while a checkpoint is made, and
    /// what came of it.
    intrudes: Option<Attempts>,
}

/// What came of statements that write.
type Attempts = Rc<RefCell<Vec<Result<usize, String>>>>;

const INSERT: &str = "INSERT INTO t VALUES (1)";

impl File {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let kept = connection(&directory);
        kept.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a)").unwrap();
        File { directory, kept, statements: Rc::default(), intrudes: None }
    }

    fn path(&self, of: &str) -> PathBuf {
        self.directory.path().join(of)
    }

    /// The database without its WAL.
    fn copied(&self) -> Vec<u8> {
        fs::read(self.path("file.db")).unwrap()
    }

    fn wal_bytes(&self) -> u64 {
        fs::metadata(self.path("file.db-wal")).unwrap().len()
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        now(run(self, &*FakePlatform::new(), 1000, &Cell::default()))
    }
}

fn connection(directory: &TempDir) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(directory.path().join("file.db")).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

impl Sqlite for File {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        Ok(Rc::new(Spied {
            database: FakeDatabase::over(connection(&self.directory)),
            statements: Rc::clone(&self.statements),
            intrudes: self.intrudes.clone().map(|came| (connection(&self.directory), came)),
        }))
    }
}

struct Spied {
    database: FakeDatabase,
    statements: Rc<RefCell<Vec<String>>>,
    intrudes: Option<(rusqlite::Connection, Attempts)>,
}

impl Spied {
    fn note(&self, statement: &str) {
        self.statements.borrow_mut().push(statement.to_owned());
        if let Some((other, came)) = &self.intrudes
            && statement.contains("wal_checkpoint")
        {
            let wrote = other.execute(INSERT, []).map_err(|error| error.to_string());
            came.borrow_mut().push(wrote);
        }
    }
}

#[async_trait(?Send)]
impl SqliteConnection for Spied {
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError> {
        self.note(statement);
        self.database.query(statement, parameters)
    }

    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError> {
        self.note(statement);
        self.database.commit(statement, parameters).await
    }
}

#[test]
fn all_is_copied_and_the_next_commit_begins_the_wal_anew() {
    let file = File::new();
    for _ in 0..50 {
        file.kept.execute(INSERT, []).unwrap();
    }
    let wal_bytes = file.wal_bytes();
    let before = file.copied();
    file.checkpoint().unwrap();
    assert_ne!(file.copied(), before);
    file.kept.execute(INSERT, []).unwrap();
    assert_eq!(file.wal_bytes(), wal_bytes, "it did not grow");
    let (_, pages, copied): (i64, i64, i64) = file
        .kept
        .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((pages, copied), (1, 1));
}

/// `PRAGMA wal_checkpoint(FULL)` copies here, and holds no lock.
#[test]
fn without_the_write_lock_nothing_is_copied() {
    let file = File::new();
    file.kept.execute_batch(INSERT).unwrap();
    let writer = connection(&file.directory);
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = file.copied();
    assert!(file.checkpoint().unwrap_err().is_busy());
    assert_eq!(file.copied(), before);
    writer.execute_batch("COMMIT").unwrap();
    file.checkpoint().unwrap();
    assert_ne!(file.copied(), before);
}

#[test]
fn nobody_commits_while_it_is_copied() {
    let came = Attempts::default();
    let file = File { intrudes: Some(Rc::clone(&came)), ..File::new() };
    file.kept.execute_batch(INSERT).unwrap();
    file.checkpoint().unwrap();
    assert_eq!(came.take(), [Err("database is locked".to_owned())]);
    file.kept.execute(INSERT, []).unwrap();
}

#[test]
fn what_a_reader_still_reads_is_left_and_nobody_waits_for_long() {
    let file = File::new();
    let reader = connection(&file.directory);
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    file.kept.execute_batch(INSERT).unwrap();
    file.checkpoint().unwrap();
    let count = |of: &str| file.statements.borrow().iter().filter(|one| one.contains(of)).count();
    assert_eq!(count("wal_checkpoint"), COPIES_MAX as usize);
    file.kept.execute_batch(INSERT).unwrap();
    reader.execute_batch("COMMIT").unwrap();
    file.checkpoint().unwrap();
    assert_eq!(count("wal_checkpoint"), COPIES_MAX as usize + 1);
}

#[test]
fn dropped_anywhere_it_gives_up_the_lock() {
    let platform = FakePlatform::new();
    let mut polls = 0;
    loop {
        polls += 1;
        let file = File::new();
        file.kept.execute_batch(INSERT).unwrap();
        let is_copying = Cell::default();
        let mut running = Box::pin(run(&file, &*platform, 0, &is_copying));
        let mut context = Context::from_waker(Waker::noop());
        let done = (0..polls).any(|_| running.as_mut().poll(&mut context).is_ready());
        drop(running);
        file.kept.execute(INSERT, []).unwrap();
        if done {
            break;
        }
    }
    assert!(polls > 1, "{polls}");
}

#[test]
fn no_connection_makes_checkpoints_by_itself() {
    let file = Rc::new(File::new());
    let (store, platform) = store(&file, 1);
    append(&store, "a");
    now(store.linger());
    assert!(platform.slept.get() > Duration::ZERO);
    let statements = file.statements.borrow();
    let never = statements.iter().filter(|one| *one == "PRAGMA wal_autocheckpoint = 0").count();
    assert_eq!(never, 3, "that of the store, and two for the checkpoint: {statements:#?}");
    assert_eq!(statements[0], "PRAGMA wal_autocheckpoint = 0", "before anything can be written");
}

#[test]
fn one_of_the_instances_that_find_it_due_makes_it() {
    const PAGES_MAX: u32 = 200;
    let file = Rc::new(File::new());
    let made = || {
        let statements = file.statements.borrow();
        statements.iter().filter(|one| one.contains("wal_checkpoint(")).count()
    };
    // Instances of one commit each, all of which found it due by the time that
    // the first of them had nothing else to do.
    let mut instances = Vec::new();
    for number in 0..PAGES_MAX {
        let (store, _) = store(&file, PAGES_MAX);
        append(&store, &number.to_string());
        now(store.append(&[], Some(&[("observed".to_owned(), 1)].into()))).unwrap();
        instances.push(store);
    }
    assert_eq!(made(), 0, "not before their replies");
    for store in &instances {
        now(store.linger());
    }
    assert_eq!(made(), 1);
    let value = "SELECT value FROM counters WHERE name = 'wal_pages'";
    let left: i64 = file.kept.query_row(value, [], |row| row.get(0)).unwrap();
    assert!(left < i64::from(PAGES_MAX), "{left}");
}

#[test]
fn one_that_failed_is_due_again() {
    let file = Rc::new(File::new());
    let (store, _) = store(&file, 1);
    append(&store, "a");
    let before = file.copied();
    let connection = connection(&file.directory);
    let claimed = "CREATE TRIGGER claimed AFTER UPDATE ON counters WHEN NEW.value = 0 \
        BEGIN SELECT raise(FAIL, 'planted'); END";
    connection.execute_batch(claimed).unwrap();
    now(store.linger());
    assert_eq!(file.copied(), before);
    connection.execute_batch("DROP TRIGGER claimed").unwrap();
    append(&store, "b");
    now(store.linger());
    assert_ne!(file.copied(), before);
}

/// Of commits of something else than events: no other need follow.
#[test]
fn what_an_instance_has_written_is_told_before_it_ends() {
    let file = Rc::new(File::new());
    let (store, _) = store(&file, 1_000_000);
    append(&store, "a");
    now(store.linger());
    let told = || {
        let value = "SELECT value FROM counters WHERE name = 'wal_pages'";
        file.kept.query_row(value, [], |row| row.get::<_, i64>(0)).ok()
    };
    assert_eq!(told(), None, "with what is observed of the commit, by and by");
    now(store.remove_subscription("s")).unwrap();
    file.statements.borrow_mut().clear();
    now(store.linger());
    assert_eq!(file.statements.borrow().len(), 1);
    assert_eq!(told(), Some(pages(1, 200) + 2 * COMMIT_PAGES));
}

fn store(file: &Rc<File>, pages_max: u32) -> (SqliteStore, Rc<FakePlatform>) {
    let platform = FakePlatform::new();
    let store = SqliteStore::new(file.clone(), platform.clone(), platform.clone());
    (store.with_wal_pages_max(pages_max), platform)
}

fn append(store: &SqliteStore, event_id: &str) {
    let encoded = store.encode(&[&sample("t", event_id, "1")]).unwrap();
    let deliveries = Deliveries { encoded, events: 1, ..Deliveries::default() };
    now(store.append(&[&deliveries], None)).unwrap();
}
