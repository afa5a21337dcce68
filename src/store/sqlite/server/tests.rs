use std::cell::Cell;
use std::rc::Rc;

use async_trait::async_trait;
use fallible_iterator::FallibleIterator;
use libsql_sqlite3_parser::ast::{Cmd, Stmt};
use libsql_sqlite3_parser::lexer::sql::Parser;

use super::*;
use crate::event::{Event, sample};
use crate::platform::fake::{FakePlatform, now};
use crate::platform::sqlite::{Row, Sqlite, SqliteConnection, SqliteError, Value};
use crate::store::conformance::{Fixture, conformance};
use crate::store::engine::{Deliveries, Store};
use crate::store::marks::Lease;
use crate::store::model::{Outcome, Seq};
use crate::store::sqlite::{SqliteStore, take_first};
use crate::time::UnixMillis;

/// Pragmas that the client sends, whatever is said to them.
const PRAGMAS_SENT: [&str; 2] = ["user_version", "page_count"];

/// A server over the database of a platform, behind the client of libSQL.
#[derive(Clone)]
struct Server {
    platform: Rc<FakePlatform>,
    /// Whether the next statement finds its connection forgotten.
    forgets: Rc<Cell<bool>>,
    /// Whether the answer to the next statement is lost.
    loses: Rc<Cell<bool>>,
    opened: Rc<Cell<usize>>,
}

impl Server {
    fn new() -> Self {
        Server {
            platform: FakePlatform::new(),
            forgets: Rc::default(),
            loses: Rc::default(),
            opened: Rc::default(),
        }
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::new(Rc::new(self.clone()), self.platform.clone(), self.platform.clone())
    }

    /// What becomes of the answer to a statement.
    fn answer(&self, result: Result<Vec<Row>, SqliteError>) -> Result<Vec<Row>, SqliteError> {
        if self.loses.take() {
            let words = "http error: `connection closed before message completed`";
            return Err(said(words));
        }
        result.map_err(|error| match error {
            SqliteError::Sqlite(words) => said(&format!(
                "cursor error: `error at step 0: (error code: SQLITE_UNKNOWN) `{words}``"
            )),
            other => other,
        })
    }

    fn forgotten(&self) -> Result<(), SqliteError> {
        match self.forgets.take() {
            true => Err(said(
                "api error: `{\"message\":\"The stream has expired due to inactivity\",\
                 \"code\":\"STREAM_EXPIRED\"}`",
            )),
            false => Ok(()),
        }
    }
}

fn said(words: &str) -> SqliteError {
    SqliteError::Sqlite(format!("Hrana: `{words}`"))
}

/// The statement as the client would send it.
fn sent(statement: &str) -> Result<String, SqliteError> {
    let refused = || SqliteError::Sqlite("unsupported statement".to_owned());
    let read = Parser::new(statement.as_bytes()).next();
    let command = read.map_err(|error| SqliteError::Sqlite(format!("syntax error: {error}")))?;
    let command = command.ok_or_else(refused)?;
    match &command {
        // Sent as it is.
        Cmd::Stmt(Stmt::CreateTable { .. }) => Ok(statement.to_owned()),
        Cmd::Stmt(Stmt::Pragma(name, _)) if !PRAGMAS_SENT.contains(&name.name.0.as_str()) => {
            Err(refused())
        }
        Cmd::Stmt(Stmt::Begin(..) | Stmt::Commit(_) | Stmt::Rollback { .. }) => Err(refused()),
        _ => Ok(command.to_string()),
    }
}

impl Sqlite for Server {
    fn open(&self) -> Result<Rc<dyn SqliteConnection>, SqliteError> {
        self.opened.set(self.opened.get() + 1);
        Ok(Rc::new(self.clone()))
    }
}

#[async_trait(?Send)]
impl SqliteConnection for Server {
    fn query(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Row>, SqliteError> {
        let statement = sent(statement)?;
        self.forgotten()?;
        self.answer(self.platform.database.query(&statement, parameters))
    }

    async fn commit(
        &self,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, SqliteError> {
        let statement = sent(statement)?;
        self.forgotten()?;
        self.answer(self.platform.database.commit(&statement, parameters).await)
    }
}

impl Fixture for Server {
    fn empty() -> Self {
        Server::new()
    }

    fn instance(&self) -> Rc<dyn Store> {
        Rc::new(self.store())
    }

    fn set_now(&self, now: UnixMillis) {
        self.platform.now.set(now);
    }
}

conformance!(Server);

fn append(store: &SqliteStore, event: &Event) -> Result<Vec<Outcome>, StoreError> {
    let encoded = store.encode(&[event]).unwrap();
    let deliveries = Deliveries { encoded, events: 1, ..Deliveries::default() };
    now(store.append(&[&deliveries], None))
}

fn accepted(seq: i64) -> Outcome {
    Outcome::Accepted { seq: Seq::new(seq) }
}

#[test]
fn what_is_said_tells_the_fault() {
    for (said, expected) in [
        ("cursor error: `error at step 0: (error code: SQLITE_BUSY) `database is locked``", None),
        ("http error: `error trying to connect: tcp connect error: refused`", {
            Some(Fault::Unavailable)
        }),
        ("http error: `connection closed before message completed`", Some(Fault::Indeterminate)),
        ("cursor error: `cursor stream ended prematurely`", Some(Fault::Indeterminate)),
        ("cursor error: `error reading a body from connection`", Some(Fault::Indeterminate)),
        ("json error: `EOF while parsing a string`", Some(Fault::Indeterminate)),
        ("api error: `upstream is gone`", Some(Fault::Indeterminate)),
        ("api error: `{\"error\":\"Unauthorized: `The JWT is invalid`\"}`", {
            Some(Fault::Unavailable)
        }),
        ("api error: `Received an invalid baton`", Some(Fault::Busy)),
        ("api error: `Received a baton that has already been used`", Some(Fault::Busy)),
        ("api error: `Stream for this baton was closed`", Some(Fault::Busy)),
        ("api error: `{\"code\":\"STREAM_EXPIRED\"}`", Some(Fault::Busy)),
        // Words of SQLite are no refusal, whatever is in them.
        ("cursor error: `error at step 0: (error code: SQLITE_ERROR) `a baton``", None),
    ] {
        assert_eq!(fault_of(&format!("Hrana: `{said}`")), expected, "{said}");
    }
    assert_eq!(fault_of("database is locked"), None);
}

#[test]
fn a_connection_that_the_server_forgot_is_replaced_by_another() {
    let server = Server::new();
    let store = server.store();
    assert_eq!(append(&store, &sample("t", "a", "1")), Ok(vec![accepted(1)]));
    server.platform.statements.borrow_mut().clear();
    server.forgets.set(true);
    assert!(append(&store, &sample("t", "b", "1")).unwrap_err().is_busy());
    assert_eq!(append(&store, &sample("t", "b", "1")), Ok(vec![accepted(2)]));
    assert_eq!(server.opened.get(), 2);
    // What is the server's is not looked at again.
    assert_eq!(server.platform.statements.borrow().len(), 1);
}

#[test]
fn an_answer_that_is_lost_leaves_open_what_was_done() {
    let server = Server::new();
    let store = server.store();
    assert_eq!(append(&store, &sample("t", "a", "1")), Ok(vec![accepted(1)]));
    server.loses.set(true);
    assert!(append(&store, &sample("t", "b", "1")).unwrap_err().is_indeterminate());
    assert_eq!(append(&store, &sample("t", "b", "1")), Ok(vec![Outcome::Duplicate]));
}

#[test]
fn a_commit_is_one_statement_and_nothing_is_done_for_a_log() {
    let server = Server::new();
    let store = server.store().with_wal_pages_max(1);
    append(&store, &sample("t", "a", "1")).unwrap();
    server.platform.statements.borrow_mut().clear();
    for id in ["b", "c", "d"] {
        append(&store, &sample("t", id, "1")).unwrap();
    }
    now(store.linger());
    assert!(!store.wants_to_linger());
    assert_eq!(server.platform.statements.borrow().len(), 3);
    now(store.try_commit()).unwrap();
}

#[test]
fn the_lease_of_the_one_writer_is_there_as_well() {
    let server = Server::new();
    now(server.store().probe()).unwrap();
    let lease = |holder| Lease { holder, now: 0, for_ms: Lease::MS };
    assert!(take_first(&server, lease(1)).unwrap().is_some());
    assert!(take_first(&server, lease(2)).unwrap().is_none());
}
