//! The component that is built without SQLite, for hosts that have none.

use std::fs;

use libtest_mimic::Failed;

use crate::support::postgres::{database, on};
use crate::support::{
    ServerOptions, TestResult, check, check_eq, event, own_server, root, stored_once, test,
    unique_topic, wait_until,
};

/// What a component says to a host that it asks for its SQLite.
const SQLITE: &[u8] = b"spin:sqlite/";

/// The same of PostgreSQL.
const POSTGRES: &[u8] = b"spin:postgres/";

fn imports(component: &str, interface: &[u8]) -> Result<bool, std::io::Error> {
    let component = fs::read(root().join(component))?;
    Ok(component.windows(interface.len()).any(|window| window == interface))
}

#[test(own_server)]
fn it_asks_for_no_sqlite_and_keeps_events() -> TestResult {
    let Some(database) = database()? else { return Ok(()) };
    let service = on(&database).without_sqlite()?.start()?;
    for (component, asks) in [
        ("target/wasm32-wasip2/release/sekali.wasm", true),
        ("target/postgres/wasm32-wasip2/release/sekali.wasm", false),
    ] {
        check_eq(imports(component, SQLITE)?, asks, component)?;
        check_eq(imports(component, POSTGRES)?, true, component)?;
    }
    let (topic, client) = (unique_topic("alone"), service.client());
    let event = event(&topic, "1");
    let first = client.publish(event.clone())?.expect(200)?.json()?;
    check_eq(first["accepted"].as_u64(), Some(1), "accepted")?;
    let again = client.publish(event)?.expect(200)?.json()?;
    check_eq(again["duplicates"].as_u64(), Some(1), "duplicates")?;
    check_eq(stored_once(&client, &topic)?.len(), 1, "stored events")?;
    let health = client.get("/health")?.expect(200)?.json()?;
    check(health["stores"].get("sqlite").is_none(), || health.to_string())
}

#[test(own_server)]
fn it_needs_a_database() -> TestResult {
    let options = || -> Result<ServerOptions, Failed> {
        let options = ServerOptions::default().without_sqlite()?;
        Ok(options.variable("database_host=postgres://127.0.0.1:1"))
    };
    let output = options()?.command()?.0.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    check(!output.status.success() && said.contains("database_url"), || said.to_string())?;

    let service = options()?.variable("database_url=").start()?;
    check_eq(service.client().publish(event("t", "1"))?.status, 503, "the status")?;
    wait_until("the log tells why", || {
        Ok(service.log().contains("built without SQLite").then_some(()))
    })
}
