//! The runtime configuration file: what is behind the labels of the manifest, and
//! limits.
//!
//! Read as Spin reads it. What Spin would act on and this host does not is refused
//! by name, and so is what Spin does not know.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use url::Url;

use crate::libsql_server::LibsqlServer;

/// The type of what is in a file of this machine.
const FILE: &str = "spin";
/// The type of a database on a server.
const LIBSQL: &str = "libsql";
/// Types of stores that Spin has beside it.
const STORES_ELSEWHERE: [&str; 2] = ["aws_dynamo", "azure_cosmos"];
/// The type of a store that is in Redis.
const REDIS: &str = "redis";
/// What else Spin reads, besides what is in [`Raw`].
const NOT_SUPPORTED: [&str; 8] = [
    "client_tls",
    "config_provider",
    "llm_compute",
    "outbound_http",
    "outbound_mqtt",
    "outbound_mysql",
    "outbound_redis",
    "variables_provider",
];

/// What a runtime configuration says; by default, nothing.
#[derive(Debug, Default)]
pub(crate) struct RuntimeConfig {
    /// SQLite databases by their labels.
    pub databases: BTreeMap<String, SqliteDatabase>,
    /// Key-value stores by their labels.
    pub stores: BTreeMap<String, KeyValueStore>,
    /// Where data is, unless the command line says so; empty: in memory.
    pub state_dir: Option<OsString>,
    /// Where logs are, unless the command line says so; empty: nowhere.
    pub log_dir: Option<OsString>,
    /// PostgreSQL connections of all components at a time.
    pub postgres_connections_max: Option<usize>,
    /// Outgoing connections of all components at a time.
    pub connections_max: Option<usize>,
    /// Bytes of memory that an instance may have, unless the command line says so.
    pub memory_bytes_max: Option<usize>,
}

/// A database of `spin:sqlite`.
#[derive(Debug)]
pub(crate) enum SqliteDatabase {
    /// In a file of this machine.
    File(SqliteFile),
    /// On a libSQL server.
    Server(LibsqlServer),
}

impl SqliteDatabase {
    /// The name of its type.
    fn of(&self) -> &'static str {
        match self {
            Self::File(_) => FILE,
            Self::Server(_) => LIBSQL,
        }
    }
}

/// A SQLite database in a file of this machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqliteFile {
    /// Where; without one, it is in memory.
    pub path: Option<PathBuf>,
    /// Whether a statement may `ATTACH` other files.
    #[serde(default)]
    pub allow_attach_file: bool,
}

/// A key-value store.
#[derive(Debug)]
pub(crate) enum KeyValueStore {
    /// In this file of this machine; without one, in memory.
    File(Option<PathBuf>),
    /// In Redis.
    Redis(RedisUrl),
}

/// Where Redis is, and its password.
pub(crate) struct RedisUrl(pub Url);

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct RawKeyValueFile {
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct RawRedis {
    url: String,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    sqlite_database: BTreeMap<String, RawLabel>,
    #[serde(default)]
    key_value_store: BTreeMap<String, RawLabel>,
    state_dir: Option<OsStringOfText>,
    log_dir: Option<OsStringOfText>,
    max_instance_memory: Option<usize>,
    #[serde(default)]
    outbound_pg: RawPostgres,
    #[serde(default)]
    outbound_networking: RawNetworking,
    #[serde(flatten)]
    rest: toml::Table,
}

/// A table of a label, whose type says what else is in it.
#[derive(Deserialize)]
struct RawLabel {
    r#type: String,
    #[serde(flatten)]
    rest: toml::Table,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPostgres {
    max_connections: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetworking {
    max_total_connections: Option<usize>,
    // They are of requests to the network and of sockets, of which there are none.
    #[serde(default)]
    #[expect(dead_code, reason = "Spin has it")]
    block_networks: Vec<String>,
    #[expect(dead_code, reason = "Spin has it")]
    max_socket_connections: Option<usize>,
}

#[derive(Deserialize)]
#[serde(from = "String")]
struct OsStringOfText(OsString);

impl From<String> for OsStringOfText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl RuntimeConfig {
    /// Reads and checks the runtime configuration at `file`.
    ///
    /// # Errors
    ///
    /// One that cannot be read, is malformed, or asks for what this host does not
    /// do.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the runtime configuration {shown}"))?;
        let working_directory =
            std::env::current_dir().context("cannot tell the working directory")?;
        // That of a file without a directory is the working directory.
        let directory = working_directory.join(file.parent().unwrap_or(Path::new("")));
        Self::parse(&text, &directory, &working_directory)
            .with_context(|| format!("in the runtime configuration {shown}"))
    }

    /// Relative paths of databases begin in the working directory, and those of
    /// stores in the directory of the file, as in Spin.
    fn parse(text: &str, directory: &Path, working_directory: &Path) -> Result<Self> {
        let raw: Raw = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        if let Some(name) = raw.rest.keys().find(|name| NOT_SUPPORTED.contains(&name.as_str())) {
            bail!("`{name}` is not supported by this host");
        }
        let unknown: Vec<_> = raw.rest.keys().map(String::as_str).collect();
        ensure!(unknown.is_empty(), "unused runtime config key(s): {}", unknown.join(", "));

        let mut databases = BTreeMap::new();
        for (label, table) in raw.sqlite_database {
            let context = format!("[sqlite_database.{label}]");
            let database = if table.r#type == LIBSQL {
                let server: LibsqlServer = table.fields(&context)?;
                server.check().context(context)?;
                SqliteDatabase::Server(server)
            } else {
                let mut database: SqliteFile = table.of_file(&[], &context)?;
                database.path = database.path.map(|path| working_directory.join(path));
                SqliteDatabase::File(database)
            };
            databases.insert(label, database);
        }
        let mut stores = BTreeMap::new();
        for (label, table) in raw.key_value_store {
            let context = format!("[key_value_store.{label}]");
            let store = if table.r#type == REDIS {
                let RawRedis { url } = table.fields(&context)?;
                // What is wrong with it is not said, as it may have a password.
                let url = redis::parse_redis_url(&url)
                    .with_context(|| format!("{context}: invalid Redis URL"))?;
                KeyValueStore::Redis(RedisUrl(url))
            } else {
                let RawKeyValueFile { path } = table.of_file(&STORES_ELSEWHERE, &context)?;
                KeyValueStore::File(path.map(|path| directory.join(path)))
            };
            stores.insert(label, store);
        }
        Ok(Self {
            databases,
            stores,
            state_dir: raw.state_dir.map(|OsStringOfText(path)| path),
            log_dir: raw.log_dir.map(|OsStringOfText(path)| path),
            postgres_connections_max: raw.outbound_pg.max_connections,
            connections_max: raw.outbound_networking.max_total_connections,
            memory_bytes_max: raw.max_instance_memory,
        })
    }

    /// What is in force, for a person; `None` if it is nothing.
    pub(crate) fn summary(&self) -> Option<String> {
        let databases = self.databases.iter();
        let databases = databases
            .map(|(label, database)| format!("sqlite_database.{label}: {}", database.of()));
        let stores = self.stores.iter().map(|(label, store)| {
            let of = match store {
                KeyValueStore::File(_) => FILE,
                KeyValueStore::Redis(_) => REDIS,
            };
            format!("key_value_store.{label}: {of}")
        });
        let mut parts: Vec<_> = databases.chain(stores).collect();
        for (name, limit) in [
            ("outbound_pg: max_connections", self.postgres_connections_max),
            ("outbound_networking: max_total_connections", self.connections_max),
            ("max_instance_memory", self.memory_bytes_max),
        ] {
            parts.extend(limit.map(|limit| format!("{name}={limit}")));
        }
        (!parts.is_empty()).then(|| format!("[{}]", parts.join("], [")))
    }
}

impl RawLabel {
    fn of_file<T: for<'de> Deserialize<'de>>(self, elsewhere: &[&str], context: &str) -> Result<T> {
        let of = &self.r#type;
        if elsewhere.contains(&of.as_str()) {
            bail!("{context}: the type {of:?} is not supported by this host");
        }
        ensure!(of == FILE, "{context}: there is no type {of:?}");
        self.fields(context)
    }

    /// What is beside the type.
    fn fields<T: for<'de> Deserialize<'de>>(self, context: &str) -> Result<T> {
        let fields: std::result::Result<T, toml::de::Error> = self.rest.try_into();
        fields.map_err(|error| anyhow!("{context}: {}", error.message()))
    }
}

/// A parse error as one line; the library's own form draws the source.
fn one_line(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let message = error.message().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => anyhow!("line {}: {message}", before.matches('\n').count() + 1),
        None => anyhow!("{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RuntimeConfig> {
        RuntimeConfig::parse(text, Path::new("/etc/app"), Path::new("/run/host"))
    }

    #[test]
    fn labels_and_limits() -> Result<()> {
        let config = parse(
            r#"
state_dir = "state"
log_dir = ""
max_instance_memory = 30
[sqlite_database.default]
type = "spin"
path = "a/b.db"
allow_attach_file = true
[sqlite_database.memory]
type = "spin"
[sqlite_database.server]
type = "libsql"
url = "http://db.example:8080"
token = ""
[key_value_store.default]
type = "spin"
path = "c.db"
[key_value_store.absolute]
type = "spin"
path = "/c.db"
[key_value_store.memory]
type = "spin"
[key_value_store.shared]
type = "redis"
url = "redis://:secret@127.0.0.1:6380/3"
[outbound_pg]
max_connections = 10
[outbound_networking]
max_total_connections = 20
block_networks = ["private"]
"#,
        )?;
        let file = |label: &str| match &config.databases[label] {
            SqliteDatabase::File(file) => file,
            other => panic!("{label}: {other:?}"),
        };
        assert_eq!(file("default").path.as_deref(), Some(Path::new("/run/host/a/b.db")));
        assert!(file("default").allow_attach_file);
        assert_eq!(file("memory").path, None);
        assert!(!file("memory").allow_attach_file);
        let stores = format!("{:?}", config.stores);
        let file = |path: &str| format!("File(Some({path:?}))");
        for (label, store) in [
            ("default", file("/etc/app/c.db")),
            ("absolute", file("/c.db")),
            ("memory", "File(None)".to_owned()),
            ("shared", "Redis(RedisUrl(..))".to_owned()),
        ] {
            assert!(stores.contains(&format!("{label:?}: {store}")), "{stores}");
        }
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.state_dir.as_deref(), Some("state".as_ref()));
        assert_eq!(config.log_dir.as_deref(), Some("".as_ref()));
        assert_eq!((config.postgres_connections_max, config.connections_max), (Some(10), Some(20)));
        assert_eq!(config.memory_bytes_max, Some(30));
        assert_eq!(
            config.summary().as_deref(),
            Some(
                "[sqlite_database.default: spin], [sqlite_database.memory: spin], \
                 [sqlite_database.server: libsql], \
                 [key_value_store.absolute: spin], [key_value_store.default: spin], \
                 [key_value_store.memory: spin], [key_value_store.shared: redis], \
                 [outbound_pg: max_connections=10], \
                 [outbound_networking: max_total_connections=20], \
                 [max_instance_memory=30]"
            )
        );
        Ok(())
    }

    #[test]
    fn an_empty_one_says_nothing() -> Result<()> {
        let config = parse("")?;
        assert!(config.databases.is_empty() && config.stores.is_empty());
        assert_eq!((config.summary(), config.state_dir), (None, None));
        Ok(())
    }

    #[test]
    fn what_is_not_known_or_not_supported_is_named() {
        for (text, named) in [
            ("baz = 1", "unused runtime config key(s): baz"),
            ("[baz]\n[qux]", "unused runtime config key(s): baz, qux"),
            ("[llm_compute]\ntype = 'spin'", "`llm_compute` is not supported by this host"),
            ("[[client_tls]]", "`client_tls` is not supported by this host"),
            (
                "[sqlite_database.a]\ntype = 'libsql'\nurl = 'libsql://a'\ntoken = ''",
                "[sqlite_database.a]: the url \"libsql://a\" does not start with 'https://'",
            ),
            (
                "[sqlite_database.a]\ntype = 'libsql'\nurl = 'http://a'",
                "[sqlite_database.a]: missing field `token`",
            ),
            (
                "[sqlite_database.a]\ntype = 'libsql'\nurl = 'http://a'\ntoken = ''\npath = 'b'",
                "[sqlite_database.a]: unknown field `path`",
            ),
            (
                "[key_value_store.b]\ntype = 'azure_cosmos'\nkey = 'redis://a'",
                "[key_value_store.b]: the type \"azure_cosmos\" is not supported by this host",
            ),
            ("[key_value_store.b]\ntype = 'redis'", "[key_value_store.b]: missing field `url`"),
            (
                "[key_value_store.b]\ntype = 'redis'\nurl = 'a'",
                "[key_value_store.b]: invalid Redis URL",
            ),
            (
                "[key_value_store.b]\ntype = 'redis'\nurl = 'http://a'",
                "[key_value_store.b]: invalid Redis URL",
            ),
            ("[sqlite_database.a]\ntype = 'other'", "there is no type \"other\""),
            ("[key_value_store.a]\ntype = 'other'", "there is no type \"other\""),
            ("[sqlite_database.a]\npath = 'b'", "missing field `type`"),
            ("[sqlite_database.a]\ntype = 'spin'\nurl = 'b'", "unknown field `url`"),
            ("[sqlite_database.a]\ntype = 'spin'\npath = 1", "[sqlite_database.a]: invalid type"),
            ("[key_value_store.a]\ntype = 'spin'\npath = 1", "[key_value_store.a]: invalid type"),
            ("[outbound_pg]\nmin = 1", "unknown field `min`"),
            ("[outbound_pg]\nmax_connections = -1", "line 2: "),
            ("a", "line 1: "),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(named) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
