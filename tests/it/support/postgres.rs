//! Services on a PostgreSQL of the test's own choice, whichever engine the others have.

use libtest_mimic::Failed;
use temporary_postgres::{Database, Options, Server};

use super::ServerOptions;

/// A database on the server that tests share; none where PostgreSQL is not installed.
pub fn database() -> Result<Option<Database>, Failed> {
    Ok(match temporary_postgres::is_available_or_skip()? {
        true => Some(temporary_postgres::shared()?.database()?),
        false => None,
    })
}

/// A server of the test's own, to be stopped and killed, and a database on it.
pub fn own() -> Result<Option<(Server, Database)>, Failed> {
    if !temporary_postgres::is_available_or_skip()? {
        return Ok(None);
    }
    // It is killed, and has to know what it has acknowledged.
    let server = Server::start(Options { fsync: true, ..Options::default() })?;
    let database = server.database()?;
    Ok(Some((server, database)))
}

/// A service on a database.
pub fn on(database: &Database) -> ServerOptions {
    at(&database.url(), &database.address())
}

/// A service on the database of this URL, at this host and port.
pub fn at(url: &str, address: &str) -> ServerOptions {
    ServerOptions::default()
        .variable(&format!("database_url={url}"))
        .variable(&format!("database_host=postgres://{address}"))
}
