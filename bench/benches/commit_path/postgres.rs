//! PostgreSQL: servers of our own that make commits durable, one on the disk that
//! the others have and one on a slow disk. The process that syncs is the server, so
//! it is that which has the slow disk; what is on it, does not.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use publisher::usage::CpuTime;
use tempfile::TempDir;
use temporary_postgres::{Database, Options, Server, ServerError};

use crate::slow_fsync::SlowFsync;

/// Connections that a server takes: more than there are of the load, in case that
/// what is measured has one for each.
const CONNECTIONS_MAX: u32 = 300;

/// A PostgreSQL server on each disk that one is wanted on. All run until the end, so
/// that none starts while something is measured.
#[derive(Default)]
pub struct Servers {
    usual: Option<Postgres>,
    slow: Option<Postgres>,
}

impl Servers {
    /// Starts the one on a disk, unless it runs; or says why there is none here.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is installed, and does not start, or its disk would not be slow.
    pub fn start(
        &mut self,
        directory: &Path,
        disk: Option<&SlowFsync>,
    ) -> Result<Result<(), ServerError>> {
        let server = if disk.is_some() { &mut self.slow } else { &mut self.usual };
        if server.is_none() {
            match Postgres::start(directory, disk)? {
                Ok(started) => *server = Some(started),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// As a server tells it, if one runs: `15.14 (Debian 15.14-0+deb12u1)`.
    pub fn version(&self) -> Option<String> {
        let any = self.usual.as_ref().or(self.slow.as_ref());
        any.map(|server| server.version.clone())
    }

    /// Makes a database on the one on a disk.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn database(&self, disk: Option<&SlowFsync>) -> Result<FreshDatabase> {
        let server = if disk.is_some() { &self.slow } else { &self.usual };
        let Postgres { server, pid, .. } = server.as_ref().context("no PostgreSQL server runs")?;
        FreshDatabase::on(server, *pid)
    }
}

/// A server.
struct Postgres {
    server: Server,
    pid: u32,
    version: String,
    /// Where it has its folder.
    _directory: TempDir,
}

/// The mode of a directory in which all may make what they alone remove.
const FOR_ALL_TO_WRITE: u32 = 0o1777;

/// A database on it that nobody else has. It goes when it is dropped.
#[derive(Debug)]
pub struct FreshDatabase {
    database: Database,
    server: u32,
}

impl Postgres {
    /// See [`Servers::start`].
    fn start(directory: &Path, disk: Option<&SlowFsync>) -> Result<Result<Self, ServerError>> {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = vec![setting("synchronous_commit", "on")];
        if disk.is_some() {
            // The library knows of no other way to sync, such as O_DSYNC. It is what
            // PostgreSQL does on Linux of itself.
            settings.push(setting("wal_sync_method", "fdatasync"));
        }
        // As root it is another user who removes the folder of the server.
        let context = "cannot create a directory for PostgreSQL";
        let directory = TempDir::with_prefix_in("postgres-", directory).context(context)?;
        let mode = Permissions::from_mode(FOR_ALL_TO_WRITE);
        std::fs::set_permissions(directory.path(), mode).context(context)?;
        let server = Server::start(Options {
            fsync: true,
            max_connections: CONNECTIONS_MAX,
            settings,
            environment: disk.map(SlowFsync::environment).unwrap_or_default(),
            directory: Some(directory.path().to_owned()),
        });
        let server = match server {
            Err(error @ (ServerError::NotInstalled(_) | ServerError::NoUser)) => {
                return Ok(Err(error));
            }
            server => server.context("PostgreSQL does not start")?,
        };
        let pid = server.pid().context("PostgreSQL has ended")?;
        if let Some(disk) = disk {
            disk.ensure_loaded(pid)?;
        }
        let version = FreshDatabase::on(&server, pid)?.text("SHOW server_version")?;
        Ok(Ok(Postgres { server, pid, version, _directory: directory }))
    }
}

impl FreshDatabase {
    fn on(server: &Server, pid: u32) -> Result<Self> {
        let database = server.database().context("cannot make a database on PostgreSQL")?;
        Ok(FreshDatabase { database, server: pid })
    }

    /// Where it is, with its user.
    pub fn url(&self) -> String {
        self.database.url()
    }

    /// Where its server is: `postgres://127.0.0.1:5432`.
    pub fn host(&self) -> String {
        format!("postgres://{}", self.database.address())
    }

    /// The number that a query finds.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn count(&self, query: &str) -> Result<u64> {
        let row = self.database.connect()?.query_one(query, &[])?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?)?)
    }

    /// The text that a query finds.
    fn text(&self, query: &str) -> Result<String> {
        Ok(self.database.connect()?.query_one(query, &[])?.try_get(0)?)
    }

    /// CPU time of the server's processes so far, where the system tells.
    pub fn cpu_time(&self) -> Option<CpuTime> {
        CpuTime::of_process_and_children(self.server)
    }
}
