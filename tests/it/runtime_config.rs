//! The host's runtime configuration file, as `spin up` takes it.

use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{
    ServerOptions, Session, TestResult, check, check_eq, own_server, shown, test,
};

const LABELS: (&str, &str) = (
    "key_value_stores = [\"default\"]\nsqlite_databases = [\"default\"]",
    "key_value_stores = [\"default\", \"more\"]\nsqlite_databases = [\"default\", \"more\"]",
);

/// The application for databases and stores with a runtime configuration of `text`,
/// which is in `directory`.
fn configured(directory: &Path, text: &str) -> Result<ServerOptions, libtest_mimic::Failed> {
    let file = directory.join("runtime.toml");
    std::fs::write(&file, text)?;
    let options = ServerOptions::default().stores_with(LABELS.0, LABELS.1)?;
    Ok(options.flags(&["--runtime-config-file", &file.display().to_string()]))
}

#[test(own_server)]
fn labels_lead_to_files() -> TestResult {
    let directory = TempDir::new()?;
    let path = |name: &str| directory.path().join(name);
    let config = format!(
        "[sqlite_database.more]\ntype = \"spin\"\npath = \"{}\"\nallow_attach_file = true\n\
         [key_value_store.default]\ntype = \"spin\"\npath = \"below/default.db\"\n\
         [key_value_store.more]\ntype = \"spin\"\n",
        path("more.db").display()
    );
    let server = configured(directory.path(), &config)?.start()?;
    let attached = path("attached.db").display().to_string();
    let script = format!(
        "sqlite default CREATE TABLE a (b)\n\
         sqlite more CREATE TABLE c (d)\n\
         sqlite default SELECT name FROM sqlite_schema\n\
         sqlite more SELECT name FROM sqlite_schema\n\
         sqlite default ATTACH '{attached}' AS other\n\
         sqlite more ATTACH '{attached}' AS other\n\
         sqlite other SELECT 1\n\
         set default k one\n\
         set more k two\n\
         get default k\n\
         get more k\n\
         get other k"
    );
    let told = Session::run(&server, "/", &script)?.join("\n");
    let expected = "Ok([])\nOk([])\nOk([[Value::Text(\"a\")]])\nOk([[Value::Text(\"c\")]])\n\
         Err(Error::Io(\"not authorized\"))\nOk([])\nErr(Error::AccessDenied)\n\
         Ok(())\nOk(())\nOk(Some(\"one\"))\nOk(Some(\"two\"))\nErr(Error::AccessDenied)";
    check_eq(told.as_str(), expected, "what was told")?;

    // What is in files is there; what has none is in memory.
    let tables = |file: &Path| -> Result<String, rusqlite::Error> {
        let names = "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table'";
        Connection::open(file)?.query_row(names, [], |row| row.get(0))
    };
    let state = server.state.path();
    check_eq(tables(&state.join("sqlite_db.db"))?.as_str(), "a", "the default database")?;
    check_eq(tables(&path("more.db"))?.as_str(), "c", "the other database")?;
    // Beside the file of the configuration, wherever the host was started.
    let stores = tables(&path("below/default.db"))?;
    check_eq(stores.as_str(), "spin_key_value", "the default store")?;
    check(!state.join("sqlite_key_value.db").exists(), || "the usual store is made".to_owned())?;
    let log = server.log();
    let summary = "[sqlite_database.more: spin], [key_value_store.default: spin]";
    check(log.contains(summary), || log)
}

#[test(own_server)]
fn what_is_not_known_keeps_the_host_from_starting() -> TestResult {
    let directory = TempDir::new()?;
    for (text, named) in [
        ("", "[sqlite_database.more]"),
        ("[sqlite_database.more]\ntype = \"spin\"", "[key_value_store.more]"),
        ("baz = 1", "unused runtime config key(s): baz"),
        ("[sqlite_database.more]\ntype = \"libsql\"", "missing field `url`"),
        ("[key_value_store.more]\ntype = \"redis\"", "missing field `url`"),
        ("[key_value_store.more]\ntype = \"redis\"\nurl = \"a\"", "invalid Redis URL"),
        ("[", "runtime.toml"),
    ] {
        let output = configured(directory.path(), text)?.command()?.0.output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let is_told = !output.status.success() && error.contains(named);
        check(is_told, || format!("{text}: {}", shown(&output)))?;
    }
    let flags = ["--runtime-config-file", "nowhere.toml"];
    let output = ServerOptions::default().stores()?.flags(&flags).command()?.0.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    check(error.contains("nowhere.toml"), || shown(&output))
}

#[test(own_server)]
fn the_environment_names_the_file_and_flags_win() -> TestResult {
    let directory = TempDir::new()?;
    let file = directory.path().join("runtime.toml");
    let (elsewhere, logs) = (directory.path().join("elsewhere"), directory.path().join("logs"));
    let text =
        format!("state_dir = \"{}\"\nlog_dir = \"{}\"\n", elsewhere.display(), logs.display());
    std::fs::write(&file, text)?;
    let script = format!("RUNTIME_CONFIG_FILE='{}' exec \"$@\"", file.display());
    let server = ServerOptions::default().stores()?.wrapper(script).start()?;
    Session::run(&server, "/", "sqlite default CREATE TABLE a (b)")?;
    check(logs.join("stores_stdout.txt").exists(), || server.log())?;
    // `--state-dir` is given.
    check(server.state.path().join("sqlite_db.db").exists(), || server.log())?;
    check(!elsewhere.exists(), || server.log())
}
