//! `spin:postgres` as the host offers it, against a PostgreSQL server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use libtest_mimic::Failed;
use tempfile::TempDir;
use temporary_postgres::{Database, Options, Server as Postgres, is_available_or_skip, shared};

use crate::support::{
    Server, ServerOptions, Session, TestResult, check, check_eq, own_server, read, test, wait_until,
};

/// Connections of a pool.
const POOL_CONNECTIONS: i64 = 64;

fn run(server: &Server, script: &str) -> Result<Vec<String>, Failed> {
    Session::run(server, "/", script)
}

fn start() -> Result<Server, Failed> {
    ServerOptions::default().stores()?.start()
}

/// Connections of the component's user to the database.
fn backends(database: &Database) -> Result<i64, Failed> {
    let mut client = database.superuser_config().connect(temporary_postgres::postgres::NoTls)?;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename = $2";
    Ok(client.query_one(count, &[&database.name(), &"service"])?.get(0))
}

#[test(own_server)]
fn values_come_back_as_from_spin() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = start()?;
    let database = shared()?.database()?;
    let script = read("tests/corpus/postgres_values.txt")?.replace("ADDRESS", &database.url());
    let told = run(&server, &script)?.join("\n");
    let expected = read("tests/corpus/postgres_values_told.txt")?;
    for (line, (told, expected)) in told.lines().zip(expected.lines()).enumerate() {
        check_eq(told, expected, &format!("line {}", line + 1))?;
    }
    check_eq(told.lines().count(), expected.lines().count(), "lines")
}

#[test(own_server)]
fn only_what_is_allowed_is_connected_to() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let database = shared()?.database()?;
    let (url, address) = (database.url(), database.address());
    let port = shared()?.port();
    let allowed = format!("database_host=postgres://{address}");
    let server = ServerOptions::default().stores()?.variable(&allowed).start()?;
    let not_permitted = |host: &str| {
        format!("Err(Error::ConnectionFailed(\"address postgres://{host} is not permitted\"))")
    };
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let localhost = format!("localhost:{port}");
    let unix = "Err(Error::ConnectionFailed(\"Unix sockets are not supported on WebAssembly\"))";
    for (address, expected) in [
        (url.clone(), "Ok(())".to_owned()),
        (elsewhere.clone(), not_permitted(&localhost)),
        // Each host of an address.
        (url.replace(&address, &format!("{address},{localhost}")), not_permitted(&localhost)),
        ("host=127.0.0.1 user=a".to_owned(), not_permitted("127.0.0.1")),
        (
            format!("host=127.0.0.1 hostaddr=127.0.0.2 port={port} user=a"),
            not_permitted(&format!("127.0.0.2:{port}")),
        ),
        ("host=/tmp user=a".to_owned(), unix.to_owned()),
        ("postgres://%2Ftmp/a".to_owned(), unix.to_owned()),
    ] {
        for verb in ["open", "open-sync", "build", "build-sync"] {
            let told = run(&server, &format!("{verb} {address}"))?;
            check_eq(told.join("\n"), expected.clone(), &format!("{verb} {address}"))?;
        }
    }
    let told = run(&server, "open nonsense\nquery SELECT 1")?;
    check(told[0].starts_with("Err(Error::ConnectionFailed(\"invalid connection string"), || {
        told[0].clone()
    })?;
    check_eq(told[1].as_str(), "no connection", "after it")
}

/// The SQLSTATE of an error.
fn code(told: &str) -> &str {
    let found = told.split_once("code: \"").and_then(|(_, rest)| rest.split_once('"'));
    found.map_or("none", |(code, _)| code)
}

#[test(own_server)]
fn errors_say_what_the_server_says() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = start()?;
    let database = shared()?.database()?;
    let told = run(
        &server,
        &format!(
            "open {}\n\
             execute CREATE TABLE t (a int PRIMARY KEY)\n\
             execute INSERT INTO t VALUES (1), (2)\n\
             execute INSERT INTO t VALUES (1)\n\
             execute-sync INSERT INTO t VALUES (1)\n\
             query INSERT INTO t VALUES (1) RETURNING a\n\
             query-sync INSERT INTO t VALUES (1) RETURNING a\n\
             query SELEC\n\
             query-sync SELEC\n\
             query SELECT 1 / (3 - a) FROM generate_series(1, 9) a\n\
             query SELECT a FROM t WHERE false\n\
             query SELECT a FROM t\n\
             query-sync SELECT a FROM t WHERE false",
            database.url()
        ),
    )?;
    check_eq(told[1].as_str(), "Ok(0)", "a table")?;
    check_eq(told[2].as_str(), "Ok(2)", "two rows")?;
    for (line, expected) in
        [(3, "23505"), (4, "23505"), (5, "23505"), (7, "42601"), (8, "42601"), (9, "22012")]
    {
        let is_typed = told[line].contains("Error::QueryFailed(QueryError::DbError(");
        check(is_typed, || format!("line {line}: {}", told[line]))?;
        check_eq(code(&told[line]), expected, &told[line])?;
    }
    check(told[3].contains("(\"constraint\", \"t_pkey\")"), || told[3].clone())?;
    check(told[3].contains("detail: Some(\"Key (a)=(1) already exists.\")"), || told[3].clone())?;
    // It got as far as its rows, none of which there is.
    check(told[5].starts_with("[] [] Err("), || told[5].clone())?;
    // What Spin makes of it.
    check(told[6].starts_with("Err(Error::QueryFailed(QueryError::Text("), || told[6].clone())?;
    check(told[6].contains("23505"), || told[6].clone())?;
    // Rows that came before it stay.
    check(told[9].contains("[[DbValue::Int32(0)], [DbValue::Int32(1)]] Err("), || told[9].clone())?;
    check_eq(told[10].as_str(), "[] [] Ok(())", "no rows, and so no columns")?;
    let rows = "[(\"a\", DbDataType::Int32)] [[DbValue::Int32(1)], [DbValue::Int32(2)]] Ok(())";
    check_eq(told[11].as_str(), rows, "rows")?;

    // On Spin it would not return at all.
    check(told[12].contains("would never return on Spin"), || told[12].clone())?;

    let refused = |address: &str, named: &str| {
        let told = run(&server, &format!("open {address}"))?.join("\n");
        let is_expected = told.starts_with("Err(Error::ConnectionFailed(") && told.contains(named);
        check(is_expected, || format!("{address}: {told}"))
    };
    let password = database.url().replace("service:", "service:not");
    refused(&password, "password authentication failed")?;
    refused(&format!("{}nowhere", database.url()), "does not exist")?;
    refused("postgres://a:b@127.0.0.1:1/c", "Connection refused")
}

#[test(own_server)]
fn a_connection_is_used_again_cleaned_and_not_rolled_back() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = start()?;
    let database = shared()?.database()?;
    let url = database.url();
    let script = format!(
        "open {url}\n\
         execute CREATE TABLE t (a int)\n\
         query SELECT pg_backend_pid()\n\
         execute SET application_name = 'mine'\n\
         query SELECT pg_advisory_lock(1)\n\
         execute BEGIN\n\
         execute INSERT INTO t VALUES (1)\n\
         close"
    );
    let first = run(&server, &script)?;
    let script = format!(
        "open {url}\n\
         query SELECT pg_backend_pid()\n\
         query SHOW application_name\n\
         query SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'\n\
         query SELECT count(*) FROM t"
    );
    let second = run(&server, &script)?;
    check_eq(&second[1], &first[2], "the same connection")?;
    check(!second[2].contains("mine"), || second[2].clone())?;
    check(second[3].contains("DbValue::Int64(0)"), || second[3].clone())?;
    // Its transaction goes on.
    check(second[4].contains("DbValue::Int64(1)"), || second[4].clone())?;
    let rows: i64 = database.connect()?.query_one("SELECT count(*) FROM t", &[])?.get(0);
    check_eq(rows, 0, "rows for others")?;
    check_eq(backends(&database)?, 1, "connections")
}

#[test(own_server)]
fn a_pool_is_of_64_connections_and_each_component_has_its_own() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let server = start()?;
    let database = shared()?.database()?;
    let url = database.url();
    let mut all = Session::open(&server, "/")?;
    for _ in 0..POOL_CONNECTIONS {
        check_eq(all.tell(&format!("open {url}"))?.as_str(), "Ok(())", "one of 64")?;
    }
    let mut late = Session::open(&server, "/")?;
    late.begin(&server, &format!("open {url}"))?;
    // Nobody waits for those of another component.
    let other = Session::run(&server, "/other/", &format!("open {url}\nquery SELECT 1"))?;
    check(other[1].contains("Ok(())"), || other[1].clone())?;
    check_eq(backends(&database)?, POOL_CONNECTIONS + 1, "connections")?;
    all.tell("close")?;
    check_eq(late.came()?.as_str(), "Ok(())", "the late one")?;
    // Idle ones are kept.
    check_eq(backends(&database)?, POOL_CONNECTIONS + 1, "connections")
}

#[test(own_server)]
fn a_limit_for_all_components_is_kept() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let directory = TempDir::new()?;
    let database = shared()?.database()?;
    let url = database.url();
    for table in ["outbound_pg]\nmax_connections", "outbound_networking]\nmax_total_connections"] {
        let file = directory.path().join("runtime.toml");
        fs::write(&file, format!("[{table} = 1\n"))?;
        let flags = ["--runtime-config-file", &file.display().to_string()];
        let server = ServerOptions::default().stores()?.flags(&flags).start()?;
        let mut first = Session::open(&server, "/")?;
        check_eq(first.tell(&format!("open {url}"))?.as_str(), "Ok(())", "the first")?;
        let mut second = Session::open(&server, "/other/")?;
        second.begin(&server, &format!("open {url}"))?;
        // It waits, whichever component it is.
        check(first.tell("query SELECT 1")?.contains("Ok(())"), || server.log())?;
        check_eq(backends(&database)?, 1, "connections")?;
        first.tell("close")?;
        check_eq(second.came()?.as_str(), "Ok(())", "the second")?;
        drop(server);
        wait_until("they are closed", || Ok((backends(&database)? == 0).then_some(())))?;
    }
    Ok(())
}

#[test(own_server)]
fn a_server_that_comes_back_is_connected_to_again() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let postgres = Postgres::start(Options::default())?;
    let database = postgres.database()?;
    let url = database.url();
    let server = start()?;
    let script = format!("open {url}\nquery SELECT 1");
    check(run(&server, &script)?[1].contains("Ok(())"), || server.log())?;
    // In one of these rows are read all the time, the other does nothing.
    let mut reading = Session::open(&server, "/")?;
    reading.tell(&format!("open {url}"))?;
    let first = reading.tell("begin SELECT repeat('a', 1000) FROM generate_series(1, 100000)")?;
    check(first.starts_with("1 columns, first Some("), || first.clone())?;
    let mut idle = Session::open(&server, "/")?;
    idle.tell(&format!("open {url}"))?;
    for end in [Postgres::stop, Postgres::kill] {
        end(&postgres)?;
        let told = run(&server, &script)?;
        let is_refused = told[0].contains("ConnectionFailed") && told[0].contains("refused");
        check(is_refused, || told[0].clone())?;
        postgres.restart()?;
        let told = run(&server, &script)?;
        check(told[1].contains("Ok(())"), || format!("{told:?}"))?;
    }
    // What the guest has kept is no more, and it is told so.
    let rest = reading.tell("end")?;
    check(rest.contains("Err(Error::QueryFailed("), || end_of(&rest))?;
    for verb in ["query", "query-sync", "execute", "execute-sync"] {
        let told = idle.tell(&format!("{verb} SELECT 1"))?;
        let is_closed = told.starts_with("Err(Error::QueryFailed(") && told.contains("Closed");
        check(is_closed, || format!("{verb}: {told}"))?;
    }
    Ok(())
}

/// The last of a long line.
fn end_of(line: &str) -> String {
    line.chars().skip(line.chars().count().saturating_sub(1000)).collect()
}

/// Has the server of `postgres` offer TLS with the certificate of the corpus.
fn offer_tls(postgres: &Postgres) -> TestResult {
    let folder = postgres.folder();
    let owner = fs::metadata(folder)?;
    for name in ["server.crt", "server.key"] {
        let path = folder.join("data").join(name);
        fs::write(&path, read(&format!("tests/it/tls/{name}"))?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    }
    postgres.execute("ALTER SYSTEM SET ssl = on")?;
    Ok(postgres.restart()?)
}

#[test(own_server)]
fn tls_is_as_the_address_says_and_certificates_are_checked() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let postgres = Postgres::start(Options::default())?;
    let database = postgres.database()?;
    let server = start()?;
    let root = read("tests/it/tls/root.crt")?.replace('\n', "\\n");
    let is_encrypted = "query SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let outcome = |mode: &str, with_root: bool| -> Result<String, Failed> {
        let trusted = if with_root { format!("ca-root {root}\n") } else { String::new() };
        let script = format!("{trusted}build {}?sslmode={mode}\n{is_encrypted}", database.url());
        let told = run(&server, &script)?;
        Ok(told[usize::from(with_root)..].join(" "))
    };
    let encrypted = |told: &str, expected: bool| {
        check(told.contains(&format!("[[DbValue::Boolean({expected})]] Ok(())")), || {
            told.to_owned()
        })
    };
    let refused = |told: &str, named: &str| {
        check(told.contains("ConnectionFailed") && told.contains(named), || told.to_owned())
    };
    encrypted(&outcome("disable", false)?, false)?;
    encrypted(&outcome("prefer", true)?, false)?;
    refused(&outcome("require", true)?, "server does not support TLS")?;
    offer_tls(&postgres)?;
    encrypted(&outcome("disable", false)?, false)?;
    for mode in ["prefer", "require"] {
        encrypted(&outcome(mode, true)?, true)?;
        // Nobody but the guest vouches for it. One that is preferred is no less checked.
        refused(&outcome(mode, false)?, "UnknownIssuer")?;
    }
    let told = run(&server, "ca-root nonsense\nbuild postgres://127.0.0.1/a")?;
    check(told[1].starts_with("Err(Error::Other(\"invalid root certificate"), || told[1].clone())
}
