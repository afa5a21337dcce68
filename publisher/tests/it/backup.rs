//! `backup`: of one moment, and checked, or not there.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::json;

use crate::fake::Fake;
use crate::harness::{Done, Place};

const DATABASE: &str = "state/sqlite_db.db";

/// A database with so many events of one topic, all of them still in its log as long as
/// the connection is open.
fn database(place: &Place, events: u64) -> Connection {
    std::fs::create_dir(place.path("state")).unwrap();
    let database = Connection::open(place.path(DATABASE)).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA user_version = 4;
             CREATE TABLE topic_totals (id INTEGER PRIMARY KEY, topic TEXT, unique_processed INTEGER);
             CREATE TABLE event_log (seq INTEGER PRIMARY KEY, topic_id INTEGER, event_id TEXT);
             CREATE INDEX event_log_by_topic ON event_log (topic_id);",
        )
        .unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO event_log (topic_id, event_id) SELECT 1, printf('%0100d', i) FROM n";
    database.execute(fill, [events]).unwrap();
    database.execute("INSERT INTO topic_totals VALUES (1, 't', ?1)", [events]).unwrap();
    database
}

/// Runs it; no service is asked.
fn backup(place: &Place, args: &[&str]) -> Done {
    let nobody = Fake::new();
    let args = [&["backup", "copy", "--state-dir", "state"], args].concat();
    place.run(&nobody, &args)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_has_what_was_committed_and_touches_nothing() {
    let place = Place::new();
    let database = database(&place, 5_000);
    let key_value = Connection::open(place.path("state/sqlite_key_value.db")).unwrap();
    key_value.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (7)").unwrap();
    // Nobody is held up, and what is not committed is not there.
    database.execute_batch("BEGIN IMMEDIATE; DELETE FROM event_log").unwrap();
    let before = std::fs::read(place.path(DATABASE)).unwrap();
    let log = std::fs::metadata(place.path("state/sqlite_db.db-wal")).unwrap().len();

    let done = backup(&place, &[]).ok();
    assert_eq!(done.counts(["events", "topics", "last_seq"]), [5_000, 1, 5_000]);
    assert_eq!(done.json["integrity"], "full");
    assert_eq!(std::fs::read(place.path(DATABASE)).unwrap(), before);
    assert_eq!(std::fs::metadata(place.path("state/sqlite_db.db-wal")).unwrap().len(), log);
    database.execute_batch("ROLLBACK").unwrap();

    let made = names(&place.path("copy"));
    assert_eq!(made, ["backup.json", "sqlite_db.db", "sqlite_key_value.db"]);
    assert_eq!(place.read_json("copy/backup.json")["schema_version"], json!(4));
    let copy = Connection::open(place.path("copy/sqlite_db.db")).unwrap();
    let mode: String = copy.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    let count: u64 = copy.query_row("SELECT count(*) FROM event_log", [], |r| r.get(0)).unwrap();
    assert_eq!((mode.as_str(), count), ("wal", 5_000));
    let copy = Connection::open(place.path("copy/sqlite_key_value.db")).unwrap();
    assert_eq!(copy.query_row("SELECT b FROM a", [], |row| row.get(0)), Ok(7));
    assert_eq!(names(&place.path("")), ["copy", "state"]);
}

/// After a kill the log is there, and nobody has it open.
#[test]
fn what_a_killed_service_left_is_copied_with_its_log() {
    let place = Place::new();
    let open = database(&place, 100);
    std::fs::create_dir(place.path("killed")).unwrap();
    for name in ["sqlite_db.db", "sqlite_db.db-wal"] {
        std::fs::copy(place.path(&format!("state/{name}")), place.path(&format!("killed/{name}")))
            .unwrap();
    }
    drop(open);
    let log = std::fs::metadata(place.path("killed/sqlite_db.db-wal")).unwrap().len();
    let done = backup(&place, &["--database", "killed/sqlite_db.db", "--check", "quick"]).ok();
    assert_eq!(done.counts(["events"]), [100]);
    assert!(done.json["notes"][0].as_str().unwrap().contains("no key-value store"), "{done:#?}");
    assert_eq!(std::fs::metadata(place.path("killed/sqlite_db.db-wal")).unwrap().len(), log);
}

#[test]
fn what_cannot_be_is_said_and_leaves_nothing() {
    let place = Place::new();
    let database = database(&place, 2_000);
    place.write("there", "");
    place.write("text", "no database, and long enough to be one\n".repeat(100));
    for (args, code, expected) in [
        (&["there"][..], 1, "there is there already"),
        (&["no/such/copy"], 1, "cannot write no/such/copy"),
        (&["copy", "--state-dir", "nowhere"], 1, "no database at nowhere/sqlite_db.db"),
        (&["copy", "--database", "text"], 1, "file is not a database"),
        (&["copy", "--check", "none"], 2, "--check"),
        (&[], 2, "<DIR>"),
    ] {
        let args = [&["backup", "--state-dir", "state"], args].concat();
        let args = if args.contains(&"nowhere") { [&args[..1], &args[3..]].concat() } else { args };
        let told = place.tell(&Fake::new(), &args);
        assert_eq!(told.code, Some(code), "{told:#?}");
        assert!(told.stderr.contains(expected), "{expected}: {told:#?}");
    }
    assert_eq!(names(&place.path("")), ["state", "text", "there"]);

    database.execute("UPDATE topic_totals SET unique_processed = 1999", []).unwrap();
    let done = backup(&place, &[]).failed();
    assert!(done.stderr.contains("has 2000 events, and its counter says 1999"), "{done:#?}");
    database.execute("UPDATE topic_totals SET unique_processed = 2000", []).unwrap();
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(database);
    let mut bytes = std::fs::read(place.path(DATABASE)).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 4096].fill(0x55);
    std::fs::write(place.path(DATABASE), bytes).unwrap();
    let done = backup(&place, &[]).failed();
    assert!(done.stderr.contains("copy of sqlite_db.db is no use"), "{done:#?}");
    assert_eq!(names(&place.path("")), ["state", "text", "there"]);
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    // A limit of the size of files is what a test can have of it.
    if !cfg!(unix) {
        return;
    }
    let place = Place::new();
    let _database = database(&place, 5_000);
    let publisher = place.publisher(&Fake::new(), &["backup", "copy", "--state-dir", "state"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 200; trap '' XFSZ; exec \"$0\" \"$@\""]);
    limited.arg(publisher.get_program()).args(publisher.get_args());
    let output = limited.current_dir(place.path("")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot copy state/sqlite_db.db"), "{stderr}");
    assert_eq!(names(&place.path("")), ["state"]);
}
