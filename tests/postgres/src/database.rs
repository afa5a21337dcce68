use postgres::{Client, Config, NoTls};

use crate::ServerError;
use crate::server::{Access, execute};

/// A database of its own, of a user that is no superuser and owns nothing else. It
/// goes when this is dropped, whoever is connected to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    access: Access,
}

impl Database {
    pub(crate) fn create(access: Access, name: String) -> Result<Self, ServerError> {
        let owner = Access::USER;
        execute(&access.as_superuser(), &format!("CREATE DATABASE {name} OWNER {owner}"))?;
        Ok(Database { name, access })
    }

    /// As in `postgres://user:password@127.0.0.1:5432/name`. Nothing in it has to be
    /// percent-encoded.
    pub fn url(&self) -> String {
        let (user, password) = (Access::USER, &self.access.password);
        format!("postgres://{user}:{password}@{}/{}", self.address(), self.name)
    }

    /// Where its server is, as in `127.0.0.1:5432`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.access.port)
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For a client of any kind.
    pub fn config(&self) -> Config {
        let mut config = self.access.as_user();
        config.dbname(&self.name);
        config
    }

    /// The same as a superuser.
    pub fn superuser_config(&self) -> Config {
        let mut config = self.access.as_superuser();
        config.dbname(&self.name);
        config
    }

    /// A connection, not for asynchronous code.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn connect(&self) -> Result<Client, postgres::Error> {
        self.config().connect(NoTls)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Where the server does not run any more it goes with the folder.
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        execute(&self.access.as_superuser(), &drop).ok();
    }
}
