//! A SQLite file, and whether it is still the one at its path.
//!
//! A file can be deleted, moved or replaced while connections have it open.
//! They go on with what they have, so what they commit then is in a file that
//! nobody finds again. So the path is looked at after each statement and before
//! its result is handed on: a commit is reported only when the file in which it
//! is was at its path afterwards. The same holds for the log (`-wal`), which
//! has what was committed last.
//!
//! Once a file is lost, its connections are closed, and none is opened before
//! all of them are: they share the index of the log (`-shm`) by its path.
//! Closing does no harm to what is at the path now: a database that has moved
//! is not written to by SQLite's closing, and no log is deleted then.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::console;
use crate::file_identity::FileIdentity;

/// How often a file is opened again that was not there before, or was replaced
/// meanwhile.
const OPENINGS_MAX: usize = 5;

/// Why there is no connection, or why what it says must not be believed.
#[derive(Debug)]
pub(crate) enum FileError {
    /// SQLite's own.
    Sqlite(rusqlite::Error),
    /// The file is not the one that was opened. The words are none that SQLite
    /// has for anything else, and name no path: guests see them.
    Lost,
    /// Connections to a file that was lost are not all closed yet.
    Closing,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Lost => f.write_str(
                "the database file was deleted, moved or replaced; \
                 whether this was stored is not known",
            ),
            Self::Closing => f.write_str("the database file is about to be opened again"),
        }
    }
}

impl From<rusqlite::Error> for FileError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A SQLite file that connections are opened to; without a path, each has a
/// database in memory.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: Option<PathBuf>,
    current: Mutex<Option<Arc<OpenFile>>>,
    /// Those that were opened, some of which may be gone.
    connections: Mutex<Vec<Weak<LazyConnection>>>,
}

impl DatabaseFile {
    /// The file at `path`, which is opened with the first connection.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, current: Mutex::default(), connections: Mutex::default() }
    }

    /// Opens a connection; its directory is made again if it is gone.
    fn open(&self) -> Result<OpenConnection, FileError> {
        let Some(path) = &self.path else {
            let connection = rusqlite::Connection::open_in_memory()?;
            return Ok(OpenConnection { log: None, connection, file: None });
        };
        let mut current = lock(&self.current);
        let before = current.take_if(|file| file.connections.load(Ordering::Acquire) == 0);
        match current.as_ref() {
            Some(file) if file.is_lost() => return Err(FileError::Closing),
            Some(file) => {
                // A new connection would begin a new log, or a new database.
                if file.is_gone() || file.has_lost_its_log() {
                    return Err(FileError::Lost);
                }
            }
            None => {
                make_directory_of(path);
                set_log_aside(path, before.as_deref());
            }
        }
        let (connection, identity) = open_at(path)?;
        let file = current.get_or_insert_with(|| Arc::new(OpenFile::new(path, identity)));
        if file.identity != identity {
            // Since the look above.
            file.is_gone();
            return Err(FileError::Lost);
        }
        Ok(OpenConnection { log: None, connection, file: Some(Counted::new(file)) })
    }

    /// Closes the connections to a lost file that nobody uses at this moment.
    /// The others are closed by who uses them.
    fn close_lost(&self) {
        for connection in lock(&self.connections).iter().filter_map(Weak::upgrade) {
            if let Ok(mut state) = connection.state.try_lock()
                && matches!(&*state, State::Open(open) if open.is_lost())
            {
                state.close();
            }
        }
    }

    fn note(&self, connection: &Arc<LazyConnection>) {
        let mut connections = lock(&self.connections);
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }
}

/// A connection that is opened with its first use, and closed for good when its
/// file is lost: a new one would not have the settings of this one.
#[derive(Debug)]
pub(crate) struct LazyConnection {
    file: Arc<DatabaseFile>,
    set_up: SetUp,
    state: Mutex<State>,
}

/// Makes a new connection fit for use.
pub(crate) type SetUp = fn(&rusqlite::Connection) -> rusqlite::Result<()>;

#[derive(Debug)]
enum State {
    Unopened,
    Open(Box<OpenConnection>),
    Lost,
}

impl State {
    /// Closes a connection whose file is lost.
    fn close(&mut self) {
        if let State::Open(open) = self {
            open.save_log();
        }
        *self = State::Lost;
    }
}

impl LazyConnection {
    /// Nothing is opened yet.
    pub(crate) fn new(file: Arc<DatabaseFile>, set_up: SetUp) -> Arc<Self> {
        Arc::new(Self { file, set_up, state: Mutex::new(State::Unopened) })
    }

    /// Runs `work` on the connection, which is opened now if this is its first
    /// use, and hands on its result if the file is at its path afterwards.
    ///
    /// # Errors
    ///
    /// Those of `work`; and [`FileError`].
    pub(crate) fn run<T, E: From<FileError>>(
        self: &Arc<Self>,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = lock(&self.state);
        let result = self.run_on(&mut state, work);
        let is_lost = matches!(*state, State::Lost);
        drop(state);
        if is_lost {
            self.file.close_lost();
        }
        result
    }

    fn run_on<T, E: From<FileError>>(
        self: &Arc<Self>,
        state: &mut State,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        if matches!(state, State::Unopened) {
            let opened = self.file.open().inspect_err(|_| self.file.close_lost())?;
            (self.set_up)(&opened.connection).map_err(FileError::Sqlite)?;
            *state = State::Open(Box::new(opened));
            self.file.note(self);
        }
        let State::Open(open) = state else { return Err(FileError::Lost.into()) };
        let result =
            if open.is_lost() { Err(FileError::Lost.into()) } else { work(&open.connection) };
        if open.is_lost_now() {
            state.close();
            return Err(FileError::Lost.into());
        }
        result
    }

    /// Whether it can be used no more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(*lock(&self.state), State::Lost)
    }
}

/// A file that connections of this process have open.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    identity: FileIdentity,
    log_path: PathBuf,
    log: Mutex<Log>,
    lost: AtomicBool,
    /// Whether what is in its log was copied into it, after it was lost.
    saved: AtomicBool,
    connections: AtomicUsize,
}

/// The log that connections have open.
#[derive(Debug, Default)]
struct Log {
    /// The one that was last seen.
    identity: Option<FileIdentity>,
    /// Connections that have it open and are not being closed: SQLite deletes it
    /// with the last one.
    holders: usize,
}

/// A connection, and what it has open.
#[derive(Debug)]
struct OpenConnection {
    // In this order: the log may go when the connection is being closed, and the
    // connection is counted until it is.
    log: Option<HeldLog>,
    connection: rusqlite::Connection,
    file: Option<Counted>,
}

/// Counts a connection to a file until it is dropped.
#[derive(Debug)]
struct Counted(Arc<OpenFile>);

impl Counted {
    fn new(file: &Arc<OpenFile>) -> Self {
        file.connections.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(file))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Says that a connection has this log open, until it is dropped.
#[derive(Debug)]
struct HeldLog {
    file: Arc<OpenFile>,
    identity: FileIdentity,
}

impl HeldLog {
    /// `None` when others have another one open.
    fn new(file: &Arc<OpenFile>, identity: FileIdentity) -> Option<Self> {
        let mut log = lock(&file.log);
        if log.holders > 0 && log.identity != Some(identity) {
            return None;
        }
        *log = Log { identity: Some(identity), holders: log.holders + 1 };
        Some(Self { file: Arc::clone(file), identity })
    }
}

impl Drop for HeldLog {
    fn drop(&mut self) {
        lock(&self.file.log).holders -= 1;
    }
}

/// A connection to the file at `path`, and which file that is.
fn open_at(path: &Path) -> Result<(rusqlite::Connection, FileIdentity), FileError> {
    for _ in 0..OPENINGS_MAX {
        let before = FileIdentity::at(path);
        let connection = rusqlite::Connection::open(path)?;
        // A file that was not there before may have been made by this opening or
        // by somebody else's.
        if let Some(identity) = before
            && FileIdentity::at(path) == before
        {
            return Ok((connection, identity));
        }
    }
    Err(FileError::Lost)
}

fn make_directory_of(path: &Path) {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = made {
        // SQLite says that it cannot open the file, and nothing more.
        console::message(format_args!("cannot make the directory of {}: {error}", path.display()));
    }
}

/// Moves a log away that is of another database than the one at `path`: SQLite
/// would apply it to that one, or delete it if there is none. It has what was
/// committed last to its own.
fn set_log_aside(path: &Path, before: Option<&OpenFile>) {
    let log_path = log_of(path);
    let Some(log) = FileIdentity::at(&log_path) else { return };
    let is_of_another = match FileIdentity::at(path) {
        None => fs::metadata(&log_path).is_ok_and(|metadata| metadata.len() > 0),
        Some(identity) => {
            before.is_some_and(|before| before.identity != identity && before.has_log(log))
        }
    };
    if !is_of_another {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut aside = log_path.clone().into_os_string();
    aside.push(format!(".of-another-{}", now.as_millis()));
    let aside = PathBuf::from(aside);
    let shown = aside.display();
    match fs::rename(&log_path, &aside) {
        Ok(()) => console::message(format_args!(
            "{} is the log of a database that is no longer beside it; \
             it is kept as {shown}, with what was committed last to that database",
            log_path.display()
        )),
        Err(error) => {
            console::message(format_args!("cannot move {} to {shown}: {error}", log_path.display()))
        }
    }
}

/// SQLite keeps the log beside the file itself, also if the path is a link.
fn log_of(path: &Path) -> PathBuf {
    let mut log = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    log.push("-wal");
    log.into()
}

impl OpenFile {
    fn new(path: &Path, identity: FileIdentity) -> Self {
        Self {
            path: path.to_owned(),
            identity,
            log_path: log_of(path),
            log: Mutex::default(),
            lost: AtomicBool::default(),
            saved: AtomicBool::default(),
            connections: AtomicUsize::default(),
        }
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn has_log(&self, identity: FileIdentity) -> bool {
        lock(&self.log).identity == Some(identity)
    }

    /// Looks whether the file is not at its path any more.
    fn is_gone(&self) -> bool {
        let is_gone = FileIdentity::at(&self.path) != Some(self.identity);
        if is_gone {
            self.lose("is no longer the one that was opened: it was deleted, moved or replaced");
        }
        is_gone
    }

    /// Looks whether the log is not at its path that connections have open.
    fn has_lost_its_log(&self) -> bool {
        let is_lost = {
            let log = lock(&self.log);
            log.holders > 0 && log.identity != FileIdentity::at(&self.log_path)
        };
        if is_lost {
            self.lose("has lost its log (-wal), which was deleted, moved or replaced");
        }
        is_lost
    }

    fn lose(&self, what: &str) {
        // Once, however many find it out.
        if !self.lost.swap(true, Ordering::AcqRel) {
            console::message(format_args!(
                "the database {} {what}; requests are refused until it is opened again",
                self.path.display()
            ));
        }
    }
}

impl OpenConnection {
    /// Whether the file was found to be lost.
    fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|counted| counted.0.is_lost())
    }

    /// Looks whether file and log are the ones at their paths, after a statement.
    /// A connection that is lost is to be dropped.
    fn is_lost_now(&mut self) -> bool {
        let Some(Counted(file)) = &self.file else { return false };
        let file = Arc::clone(file);
        file.is_lost() || file.is_gone() || !self.has_its_log(&file)
    }

    /// Copies what is in the log into the database, if it is the log alone that
    /// is lost. The last connection to be closed does so too, unless another
    /// process has the database open.
    fn save_log(&self) {
        let Some(Counted(file)) = &self.file else { return };
        let is_at_path = FileIdentity::at(&file.path) == Some(file.identity);
        if self.log.is_none() || !is_at_path || file.saved.swap(true, Ordering::AcqRel) {
            return;
        }
        let copied = self
            .connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get::<_, i64>(0));
        if !matches!(copied, Ok(0)) {
            // The next one that is closed tries again.
            file.saved.store(false, Ordering::Release);
        }
    }

    /// Whether the log is the one that this connection has open, if it has one.
    fn has_its_log(&mut self, file: &Arc<OpenFile>) -> bool {
        if let Some(held) = &self.log {
            let is_there = FileIdentity::at(&file.log_path) == Some(held.identity);
            return is_there || !file.has_lost_its_log();
        }
        if !is_in_wal_mode(&self.connection) {
            return true;
        }
        // It is opened by the first statement that reads the file, which need not
        // have been one of the guest's, and from then on it is not deleted by who
        // closes another connection. One that fails tells nothing.
        const READ: &str = "SELECT count(*) FROM sqlite_schema";
        if self.connection.query_row(READ, [], |_| Ok(())).is_err() {
            return true;
        }
        self.log =
            FileIdentity::at(&file.log_path).and_then(|identity| HeldLog::new(file, identity));
        if self.log.is_none() {
            file.lose("has another log (-wal) than its connections, or none");
        }
        self.log.is_some()
    }
}

fn is_in_wal_mode(connection: &rusqlite::Connection) -> bool {
    connection
        .query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))
        .is_ok_and(|mode| mode == "wal")
}

/// A panic while the lock was held left no half-done state behind: what matters
/// is in SQLite.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const WAL: [&str; 2] = ["PRAGMA journal_mode = WAL", "CREATE TABLE IF NOT EXISTS t (a)"];

    /// A directory that is gone at the end, and a file in it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("sekali-database-{name}-{}", std::process::id());
            Place(std::env::temp_dir().join(name))
        }

        fn path(&self, suffix: &str) -> PathBuf {
            self.0.join(format!("x.db{suffix}"))
        }

        fn file(&self) -> Arc<DatabaseFile> {
            Arc::new(DatabaseFile::new(Some(self.path(""))))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn connection(file: &Arc<DatabaseFile>) -> Arc<LazyConnection> {
        LazyConnection::new(Arc::clone(file), |connection| {
            WAL.iter().try_for_each(|statement| connection.execute_batch(statement))
        })
    }

    fn count(connection: &Arc<LazyConnection>) -> Result<i64, FileError> {
        connection
            .run(|sqlite| Ok(sqlite.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
    }

    fn insert(connection: &Arc<LazyConnection>) -> Result<(), FileError> {
        connection.run(|sqlite| Ok(sqlite.execute_batch("INSERT INTO t VALUES (1)")?))
    }

    fn is_lost<T>(result: Result<T, FileError>) -> bool {
        matches!(result, Err(FileError::Lost))
    }

    #[test]
    fn what_goes_is_noticed_and_opened_again() {
        let gone = |place: &Place| fs::remove_dir_all(&place.0);
        let unlinked = |place: &Place| fs::remove_file(place.path(""));
        let moved = |place: &Place| fs::rename(place.path(""), place.path(".moved"));
        let log_unlinked = |place: &Place| fs::remove_file(place.path("-wal"));
        type Way<'a> = (&'a str, &'a dyn Fn(&Place) -> std::io::Result<()>, i64);
        let ways: [Way<'_>; 4] = [
            ("gone", &gone, 0),
            ("unlinked", &unlinked, 0),
            ("moved", &moved, 0),
            ("log", &log_unlinked, 2),
        ];
        for (what, go, left) in ways {
            let place = Place::new(what);
            let file = place.file();
            let [one, other] = [connection(&file), connection(&file)];
            insert(&one).expect("stored");
            insert(&other).expect("stored");
            go(&place).expect(what);
            // A new one must not begin anything beside those that are open.
            assert!(is_lost(insert(&connection(&file))), "{what}");
            assert!(is_lost(count(&one)) && is_lost(insert(&other)), "{what}");
            assert!(one.is_lost() && other.is_lost(), "{what}");
            let again = connection(&file);
            assert_eq!(count(&again).expect("opened again"), left, "{what}");
            insert(&again).expect("stored");
        }
    }

    /// What happens between a statement and its result.
    #[test]
    fn a_result_counts_only_if_the_file_is_there_afterwards() {
        let place = Place::new("between");
        let file = place.file();
        let lost = connection(&file);
        insert(&lost).expect("stored");
        let stored = lost.run(|sqlite| {
            sqlite.execute_batch("INSERT INTO t VALUES (1)")?;
            fs::remove_file(place.path("")).expect("unlinked");
            Ok::<_, FileError>(())
        });
        assert!(is_lost(stored));
        assert_eq!(count(&connection(&file)).expect("a new one"), 0);
    }

    #[test]
    fn a_log_that_is_of_another_database_is_set_aside() {
        let place = Place::new("aside");
        let file = place.file();
        let lost = connection(&file);
        insert(&lost).expect("stored");
        let other = Place::new("other");
        insert(&connection(&other.file())).expect("stored");
        fs::rename(other.path(""), place.path("")).expect("replaced");
        assert!(is_lost(count(&lost)));
        assert_eq!(count(&connection(&file)).expect("the other"), 1);
        let aside = fs::read_dir(&place.0).expect("a directory").filter(|entry| {
            let name = entry.as_ref().map(|entry| entry.file_name()).unwrap_or_default();
            name.to_string_lossy().contains("-wal.of-another-")
        });
        assert_eq!(aside.count(), 1);
    }

    /// The last one to be closed deletes the log, and the next begins a new one;
    /// between the two SQLite says now and then that it is busy.
    #[test]
    fn connections_that_come_and_go_are_no_loss() {
        const THREADS: i64 = 4;
        const CONNECTIONS: i64 = 100;
        let place = Place::new("busy");
        let file = place.file();
        insert(&connection(&file)).expect("stored");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..CONNECTIONS {
                        while let Err(error) = insert(&connection(&file)) {
                            assert!(error.to_string().contains("is locked"), "{error}");
                        }
                    }
                });
            }
        });
        assert_eq!(count(&connection(&file)).expect("opened"), THREADS * CONNECTIONS + 1);
    }
}
