//! libSQL servers, as the runtime configuration names them, and connections to them.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::sync::OnceCell;

/// Beginnings of addresses that are spoken to over HTTP.
const SCHEMES: [&str; 2] = ["http://", "https://"];

/// A database on a libSQL server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LibsqlServer {
    /// Where it is.
    url: String,
    /// What it knows this host by.
    token: String,
    /// The client of all connections; it has read which certificates to trust.
    #[serde(skip)]
    client: OnceCell<libsql::Database>,
}

impl fmt::Debug for LibsqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibsqlServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl LibsqlServer {
    /// Checks what there is to check without asking the server.
    ///
    /// # Errors
    ///
    /// An address that is not one of HTTP.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            SCHEMES.iter().any(|scheme| self.url.starts_with(scheme)),
            "the url {:?} does not start with 'https://' or 'http://'",
            self.url
        );
        Ok(())
    }

    async fn connect(&self) -> Result<libsql::Connection> {
        let build = || libsql::Builder::new_remote(self.url.clone(), self.token.clone()).build();
        let client = self.client.get_or_try_init(build).await.context("no client of libSQL")?;
        Ok(client.connect()?)
    }
}

/// A connection of a guest, made with its first use.
#[expect(unreachable_pub, reason = "a public type has it")]
pub struct ServerConnection {
    server: Arc<LibsqlServer>,
    connection: OnceCell<libsql::Connection>,
}

impl ServerConnection {
    /// Nothing is asked of the server yet.
    pub(crate) fn new(server: Arc<LibsqlServer>) -> Self {
        Self { server, connection: OnceCell::new() }
    }

    /// The connection, with which the server is not asked for anything yet.
    ///
    /// # Errors
    ///
    /// A client that cannot be made, for want of certificates to trust.
    pub(crate) async fn connected(&self) -> Result<&libsql::Connection> {
        self.connection.get_or_try_init(|| self.server.connect()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_shown() {
        let text = "url = \"http://db.example\"\ntoken = \"secret\"";
        let server: LibsqlServer = toml::from_str(text).expect("a server");
        let shown = format!("{server:?}");
        assert!(shown.contains("db.example") && !shown.contains("secret"), "{shown}");
    }
}
