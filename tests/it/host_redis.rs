//! Key-value stores in Redis, as the host offers them, against a Redis server.

use libtest_mimic::Failed;
use redis::Commands;
use tempfile::TempDir;

use crate::support::redis::{Redis, configured, is_available_or_skip};
use crate::support::{
    Server, ServerOptions, Session, TestResult, check, check_eq, own_server, root, test, wait_until,
};

/// The application for databases and stores, with stores of these labels in Redis beside
/// the default one in a file.
fn start(stores: &[(&str, &str)]) -> Result<(Server, TempDir), Failed> {
    start_by("exec \"$@\"", stores)
}

/// The same by a shell script, to which the host is `"$@"`.
fn start_by(script: &str, stores: &[(&str, &str)]) -> Result<(Server, TempDir), Failed> {
    let labels: String = stores.iter().map(|(label, _)| format!(", \"{label}\"")).collect();
    let options = ServerOptions::default().stores_with(
        "key_value_stores = [\"default\"]",
        &format!("key_value_stores = [\"default\"{labels}]"),
    )?;
    let (options, directory) = configured(options.wrapper(script.to_owned()), stores)?;
    Ok((options.start()?, directory))
}

fn run(server: &Server, script: &str) -> Result<Vec<String>, Failed> {
    Session::run(server, "/", script)
}

/// More keys than come in one part of a listing, or wait for the guest.
const KEYS: usize = 100;

#[test(own_server)]
fn a_store_in_redis_does_what_one_in_a_file_does() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let redis = Redis::start()?;
    let (server, _directory) = start(&[("redis", &redis.url(0))])?;
    let many: String = (0..KEYS).map(|number| format!("set LABEL k{number} v\n")).collect();
    let script = format!(
        "get LABEL k\nexists LABEL k\nkeys LABEL\ndelete LABEL k\n\
         set LABEL k one\nget LABEL k\nexists LABEL k\nset LABEL k two words, and ä\nget LABEL k\n\
         set LABEL empty\nget LABEL empty\nexists LABEL empty\nset LABEL  of-no-key\nget LABEL \n\
         keys LABEL\ndelete LABEL k\nget LABEL k\nexists LABEL k\ndelete LABEL k\n{many}keys LABEL"
    );
    let in_file = run(&server, &script.replace("LABEL", "default"))?;
    let in_redis = run(&server, &script.replace("LABEL", "redis"))?;
    for ((line, expected), told) in script.lines().zip(&in_file).zip(&in_redis) {
        check_eq(told, expected, line)?;
        check(told.starts_with("Ok("), || format!("{line}: {told}"))?;
    }
    check_eq(in_redis.len(), script.lines().count(), "lines")?;
    check_eq(run(&server, "get other k")?[0].as_str(), "Err(Error::AccessDenied)", "another label")
}

/// One database is one store, whichever label leads to it.
#[test(own_server)]
fn keys_are_what_the_guest_calls_them() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let redis = Redis::start()?;
    let (url, elsewhere) = (redis.url(0), redis.url(7));
    let (server, _directory) = start(&[("a", &url), ("b", &url), ("c", &elsewhere)])?;
    let mut client = redis.connect()?;
    client.set::<_, _, ()>("of a stranger", "1")?;
    let told =
        run(&server, "set a k one\nget b k\nget c k\nkeys b\nkeys c\nset c k three\nget a k")?;
    let expected = [
        "Ok(())",
        "Ok(Some(\"one\"))",
        "Ok(None)",
        "Ok([\"k\", \"of a stranger\"])",
        "Ok([])",
        "Ok(())",
        "Ok(Some(\"one\"))",
    ];
    check_eq(told.as_slice(), &expected.map(str::to_owned)[..], "what was told")?;
    check_eq(client.get::<_, String>("k")?.as_str(), "one", "the key in Redis")?;
    let summary = "[key_value_store.a: redis], [key_value_store.b: redis]";
    let log = server.log();
    check(log.contains(summary) && !log.contains(redis.password()), || log)
}

#[test(own_server)]
fn errors_are_those_of_redis() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let redis = Redis::start()?;
    let (server, _directory) = start(&[("redis", &redis.url(0))])?;
    redis.connect()?.rpush::<_, _, ()>("list", "1")?;
    let told = run(&server, "get redis list\nexists redis list\nset redis list 1\nget redis list")?;
    check(told[0].starts_with("Err(Error::Other(\"WRONGTYPE"), || told[0].clone())?;
    check_eq(told[1..].join(" ").as_str(), "Ok(true) Ok(()) Ok(Some(\"1\"))", "after it")
}

/// As in Spin it is waited for, by nobody but who has called.
#[test(own_server)]
fn a_server_that_is_stopped_is_waited_for() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let redis = Redis::start()?;
    let (server, _directory) = start(&[("redis", &redis.url(0))])?;
    run(&server, "set redis k 1")?;
    redis.signal("STOP")?;
    let mut waiting = Session::open(&server, "/")?;
    waiting.begin(&server, "get redis k")?;
    check_eq(
        run(&server, "set default k 2\nget default k")?.join(" ").as_str(),
        "Ok(()) Ok(Some(\"2\"))",
        "beside it",
    )?;
    redis.signal("CONT")?;
    check_eq(waiting.came()?.as_str(), "Ok(Some(\"1\"))", "what came at last")
}

#[test(own_server)]
fn a_server_that_was_restarted_is_connected_to_again() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let mut redis = Redis::start()?;
    let (server, _directory) = start(&[("redis", &redis.url(0))])?;
    for round in 0..3 {
        check_eq(run(&server, &format!("set redis k {round}"))?[0].as_str(), "Ok(())", "a set")?;
        redis.kill()?;
        redis.restart()?;
        // The first look at it makes the connection again.
        let expected = format!("Ok(Some(\"{round}\"))");
        check_eq(run(&server, "get redis k")?, vec![expected], "after a restart")?;
    }
    Ok(())
}

/// The guest is told nothing for minutes, as in Spin; the operator is at once.
#[test(own_server)]
fn a_connection_that_is_refused_is_told_to_the_operator() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let mut redis = Redis::start()?;
    let address = redis.address();
    let wrong = redis.url(0).replace(redis.password(), "hunter2");
    let (server, _directory) = start(&[("wrong", &wrong), ("down", &redis.url(0))])?;
    let told = format!("cannot connect to Redis at {address}: ");
    let is_told = |words: &str| {
        wait_until("the operator is told", || {
            let log = server.log();
            let told = log.lines().filter_map(|line| line.strip_prefix(&told));
            Ok(told.map(str::to_lowercase).any(|why| why.contains(words)).then_some(()))
        })
    };
    let mut session = Session::open(&server, "/")?;
    session.begin(&server, "get wrong k")?;
    is_told("authentication failed")?;
    redis.kill()?;
    let mut session = Session::open(&server, "/")?;
    session.begin(&server, "get down k")?;
    is_told("connection refused")?;
    let log = server.log();
    check(!log.contains("hunter2") && !log.contains(redis.password()), || log)
}

#[test(own_server)]
fn tls_is_for_servers_that_the_machine_trusts() -> TestResult {
    if !is_available_or_skip()? {
        return Ok(());
    }
    let file = |name: &str| root().join("tests/it/tls").join(name).display().to_string();
    let redis = Redis::start_with(|port| {
        let port = port.to_string();
        let (certificate, key, root) = (file("server.crt"), file("server.key"), file("root.crt"));
        [
            ["--port", "0"],
            ["--tls-port", port.as_str()],
            ["--tls-cert-file", certificate.as_str()],
            ["--tls-key-file", key.as_str()],
            ["--tls-ca-cert-file", root.as_str()],
            ["--tls-auth-clients", "no"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    })?;
    let url = redis.url(0).replace("redis://", "rediss://");
    let trusting = format!("SSL_CERT_FILE='{}' exec \"$@\"", file("root.crt"));
    let (server, _directory) = start_by(&trusting, &[("redis", &url)])?;
    let told = run(&server, "set redis k 1\nget redis k")?;
    check_eq(told.join(" ").as_str(), "Ok(()) Ok(Some(\"1\"))", "over TLS")?;

    let (server, _directory) = start(&[("redis", &url)])?;
    let mut session = Session::open(&server, "/")?;
    session.begin(&server, "get redis k")?;
    wait_until("the operator is told", || Ok(server.log().contains("UnknownIssuer").then_some(())))
}
