#![allow(clippy::panic, reason = "a test that cannot go on has failed")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use postgres::Client;
use postgres::error::SqlState;

use super::*;
use crate::{is_available_or_skip, shared};

type TestResult = Result<(), Box<dyn Error>>;

/// How long something that must happen may take before a test has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(POLL);
    }
}

/// What the one row and column of a query holds.
fn text(client: &mut Client, query: &str) -> Result<String, postgres::Error> {
    client.query_one(&format!("SELECT ({query})::text"), &[])?.try_get(0)
}

#[test]
fn databases_are_apart_and_go_when_they_are_dropped() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let (one, other) = (shared()?.database()?, shared()?.database()?);
    let mut in_one = one.url().parse::<Config>()?.connect(NoTls)?;
    let mut in_other = other.connect()?;
    in_one.batch_execute("CREATE TABLE t (n bigint); INSERT INTO t VALUES (41)")?;
    assert_eq!(text(&mut in_one, "SELECT n + 1 FROM t")?, "42");
    let missing = in_other.batch_execute("SELECT FROM t").unwrap_err();
    assert_eq!(missing.code(), Some(&SqlState::UNDEFINED_TABLE), "{missing}");
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", one.name());
    assert_eq!(text(&mut in_other, &count)?, "1");
    drop(one);
    assert_eq!(text(&mut in_other, &count)?, "0");
    assert!(in_one.batch_execute("SELECT").is_err(), "its connections are cut");
    Ok(())
}

#[test]
fn it_is_no_kinder_than_the_server_of_a_stranger() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = shared()?;
    let database = server.database()?;
    let mut client = database.connect()?;
    assert_eq!(text(&mut client, "SELECT 'a' < 'B'")?, "true", "the order is not that of bytes");
    let superuser = "SELECT usesuper FROM pg_user WHERE usename = current_user";
    assert_eq!(text(&mut client, superuser)?, "false");
    assert_eq!(text(&mut database.superuser_config().connect(NoTls)?, superuser)?, "true");
    let mut wrong = database.config();
    let refused = wrong.password("wrong").connect(NoTls).map(drop).unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD), "{refused}");
    let of_data = fs::metadata(server.folder().join("data"))?;
    assert_ne!(of_data.uid(), 0, "root's");
    Ok(())
}

#[test]
fn what_was_committed_is_there_after_a_kill() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = Server::start(Options::default())?;
    let database = server.database()?;
    let mut client = database.connect()?;
    client.batch_execute("CREATE TABLE t (n bigint); INSERT INTO t VALUES (1)")?;
    let busy: u32 = text(&mut client, "SELECT pg_backend_pid()")?.parse()?;
    let before = server.pid().ok_or("it has a process")?;
    // Which would go on, since it does not look whether the server is there.
    let forever = "DO $$ BEGIN LOOP END LOOP; END $$";
    let runner = thread::spawn(move || client.batch_execute(forever));
    let mut other = database.connect()?;
    let is_busy = format!("SELECT state FROM pg_stat_activity WHERE pid = {busy}");
    until("it runs", || text(&mut other, &is_busy).unwrap() == "active");

    server.kill()?;
    assert_eq!(server.pid(), None);
    for pid in [before, busy] {
        assert_eq!(processes::alive(pid)?, None, "something of it runs");
    }
    assert!(runner.join().unwrap().is_err());
    assert!(database.connect().is_err());
    assert_eq!(server.kill(), Err(ServerError::NotRunning));

    server.restart()?;
    assert_eq!(text(&mut database.connect()?, "SELECT n FROM t")?, "1");
    assert!(server.log()?.contains("automatic recovery in progress"), "{}", server.log()?);
    Ok(())
}

#[test]
fn it_stops_in_order_and_starts_again() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = Server::start(Options::default())?;
    let database = server.database()?;
    let _stays_connected = database.connect()?;
    let before = server.pid();
    server.restart()?;
    assert_ne!(server.pid(), before);
    database.connect()?;
    server.stop()?;
    assert!(database.connect().is_err());
    assert_eq!(server.stop(), Err(ServerError::NotRunning));
    server.restart()?;
    database.connect()?;
    assert!(!server.log()?.contains("automatic recovery"), "{}", server.log()?);
    Ok(())
}

#[test]
fn options_arrive() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    own(directory.path(), User::for_server()?)?;
    let server = Server::start(Options {
        fsync: true,
        max_connections: 12,
        settings: vec![
            ("timezone".to_owned(), "UTC".to_owned()),
            ("cluster_name".to_owned(), r"it's \ 1".to_owned()),
        ],
        environment: vec![("MARK".to_owned(), "a mark".to_owned())],
        directory: Some(directory.path().to_owned()),
    })?;
    assert!(server.folder().starts_with(directory.path()));
    let database = server.database()?;
    let mut client = database.superuser_config().connect(NoTls)?;
    for (name, expected) in [
        ("fsync", "on"),
        ("max_connections", "12"),
        ("timezone", "UTC"),
        ("cluster_name", r"it's \ 1"),
    ] {
        assert_eq!(text(&mut client, &format!("current_setting('{name}')"))?, expected, "{name}");
    }
    client.batch_execute("CREATE TABLE t (mark text); COPY t FROM PROGRAM 'printenv MARK'")?;
    assert_eq!(text(&mut client, "SELECT mark FROM t")?, "a mark");
    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists(), "{} is there", folder.display());
    Ok(())
}

#[test]
fn an_error_names_what_is_wrong() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Server::start(Options { settings, ..Options::default() }).map(drop).unwrap_err();
    assert!(matches!(error, ServerError::Ended(_)), "{error:?}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    let directory = Some("/nowhere".into());
    let error = Server::start(Options { directory, ..Options::default() }).map(drop).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
    let error = shared()?.execute("SELEC 1").unwrap_err();
    assert!(error.to_string().contains(r#"syntax error at or near "SELEC""#), "{error}");
    Ok(())
}

/// Two servers at once have ports of their own; of one whose port is taken while it
/// is stopped is said what is wrong.
#[test]
fn a_port_that_is_taken_is_named() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = Server::start(Options::default())?;
    assert_ne!(server.port(), shared()?.port());
    server.stop()?;
    let taken = std::net::TcpListener::bind(("127.0.0.1", server.port()))?;
    let error = server.restart().unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
    drop(taken);
    Ok(server.restart()?)
}

/// Not a test: what the next one starts as a process of its own.
#[test]
#[ignore = "started by another test"]
fn holds_the_shared_server() -> TestResult {
    let server = shared()?;
    println!("it is {} {}", server.pid().unwrap_or(0), server.folder().display());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// A process that holds the shared server: the server's process, and its folder.
fn holder() -> Result<(Child, u32, PathBuf), Box<dyn Error>> {
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["--exact", "server::tests::holds_the_shared_server", "--ignored", "--nocapture"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(holder.stdout.take().ok_or("no stdout")?);
    let told = stdout.by_ref().lines().map_while(Result::ok).find_map(|line| {
        let (pid, folder) = line.split_once("it is ")?.1.split_once(' ')?;
        Some((pid.parse().ok()?, PathBuf::from(folder)))
    });
    holder.stdout = Some(stdout.into_inner());
    let (pid, folder) = told.ok_or("it tells nothing")?;
    Ok((holder, pid, folder))
}

#[test]
fn it_ends_with_its_process_however_that_ends() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    for signal in [Some("KILL"), Some("INT"), None] {
        let (mut process, pid, folder) = holder()?;
        assert!(processes::alive(pid)?.is_some() && folder.exists(), "it runs");
        match signal {
            // Also to what it has started and left in its group, as a terminal does.
            Some(signal) => {
                let group = format!("-{}", process.id());
                Command::new("kill").args(["-s", signal, "--", &group]).status()?;
            }
            // The end of its input, upon which it ends by itself.
            None => drop(process.stdin.take()),
        }
        process.wait()?;
        until("the server has ended", || processes::alive(pid).unwrap().is_none());
        until("its folder has gone", || !folder.exists());
    }
    Ok(())
}
