//! The Spin variables, read once per instance, and the role of the component.
//!
//! Each variable has its default in `spin.toml`, so a value that is missing or cannot
//! be read is a mistake in a deployment: requests are answered 503 with the
//! variable's name until it is mended, and shippers keep their events.

use std::fmt;
use std::time::Duration;

use http::Uri;

use crate::log::Level;
use crate::platform::Variables;

mod hosts;
mod keys;
mod retention;
mod share;
mod webhooks;

pub(crate) use hosts::{Host, Hosts};
#[cfg(test)]
pub(crate) use keys::KEYS_MAX;
pub(crate) use keys::{Key, Keys, Rates, Scope};
pub(crate) use retention::{Limit, Retention, Rule};
pub(crate) use share::Share;
pub(crate) use webhooks::{Scheme, WebhookKey, Webhooks};

/// What an instance is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It answers requests, and hands its commits over to the one writer while there
    /// are several instances.
    Service,
    /// It answers requests, and commits by itself.
    ServiceAlone,
    /// It is called by the others, and commits for them.
    Writer,
}

impl Role {
    /// The environment variable that tells a component that it is the writer, by the
    /// value `writer`.
    const VARIABLE: &str = "SEKALI_ROLE";

    /// Whether this component is the writer.
    pub(crate) fn is_writer(variables: &(impl Variables + ?Sized)) -> bool {
        variables.environment(Role::VARIABLE).is_some_and(|role| role == "writer")
    }
}

/// Where events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// In the SQLite database of the platform.
    Sqlite,
    /// In a PostgreSQL database.
    Postgres {
        /// Where it is, and who may.
        url: Secret,
    },
}

/// Text that is not to be seen in a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl std::ops::Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How the service was set up.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where events are kept.
    pub(crate) engine: Engine,
    /// Largest request body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// Most events in one request.
    pub(crate) batch_events_max: usize,
    /// How long a publish waits for the store before it is answered 503.
    pub(crate) commit_wait_max: Duration,
    /// What the instance is there for.
    pub(crate) role: Role,
    /// After how many pages in the write-ahead log it is copied into the database.
    pub(crate) wal_pages_max: u32,
    /// What `Retry-After` says on a 503.
    pub(crate) retry_after_seconds: u32,
    /// Least severe log line written; `None` for no line at all.
    pub(crate) log_level: Option<Level>,
    /// Of which share of the requests a line of access is written, if of any.
    pub(crate) access_log: Option<Share>,
    /// Whether replies say where their time went.
    pub(crate) server_timing: bool,
    /// Pages of which origins may call the service.
    pub(crate) cors_origins: Origins,
    /// By which names the service may be called.
    pub(crate) allowed_hosts: Hosts,
    /// Who may call it; everybody if there is no key.
    pub(crate) keys: Keys,
    /// Whether the protocols of other services are spoken.
    pub(crate) compat: bool,
    /// Whose webhooks are taken.
    pub(crate) webhooks: Webhooks,
    /// How much is kept.
    pub(crate) retention: Retention,
    /// How far the signed time of a webhook may be from the clock, either way.
    pub(crate) webhook_tolerance_seconds: u32,
}

impl Config {
    /// Reads all variables.
    ///
    /// # Errors
    ///
    /// A sentence that names the variable that is missing or wrong.
    pub(crate) async fn load(variables: &(impl Variables + ?Sized)) -> Result<Self, String> {
        let read = Reader { variables };
        Ok(Config {
            engine: read.engine("database_url").await?,
            body_bytes_max: read.positive("body_bytes_max").await? as usize,
            batch_events_max: read.positive("batch_events_max").await? as usize,
            commit_wait_max: Duration::from_millis(
                read.positive("commit_wait_ms_max").await?.into(),
            ),
            role: match read.flag("one_writer").await? {
                _ if Role::is_writer(variables) => Role::Writer,
                true => Role::Service,
                false => Role::ServiceAlone,
            },
            wal_pages_max: read.positive("wal_pages_max").await?,
            retry_after_seconds: read.positive("retry_after_seconds").await?,
            log_level: read.log_level("log_level").await?,
            access_log: read.share("access_log").await?,
            server_timing: read.flag("server_timing").await?,
            cors_origins: read.origins("cors_origins").await?,
            allowed_hosts: read.hosts("allowed_hosts").await?,
            keys: read.keys("api_keys").await?,
            compat: read.flag("compat").await?,
            webhooks: read.webhooks("webhook_secrets").await?,
            retention: read.retention().await?,
            webhook_tolerance_seconds: read.positive("webhook_tolerance_seconds").await?,
        })
    }
}

struct Reader<'a, V: ?Sized> {
    variables: &'a V,
}

impl<V: Variables + ?Sized> Reader<'_, V> {
    async fn text(&self, name: &str) -> Result<String, String> {
        let value = self.variables.variable(name).await;
        value.map_err(|error| format!("The variable {name} cannot be read: {error}."))
    }

    /// A URL of PostgreSQL, or nothing for SQLite. The value is never repeated.
    async fn engine(&self, name: &str) -> Result<Engine, String> {
        let value = self.text(name).await?;
        let value = value.trim();
        if value.is_empty() {
            return Ok(Engine::Sqlite);
        }
        let scheme = value.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(format!(
                "The variable {name} must be empty, or a URL such as \
                 postgres://user:password@db.example:5432/sekali."
            ));
        }
        Ok(Engine::Postgres { url: Secret(value.to_owned()) })
    }

    async fn positive(&self, name: &str) -> Result<u32, String> {
        let value = self.text(name).await?;
        match value.trim().parse::<u32>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!(
                "The variable {name} must be a whole number from 1 to {}, is {value:?}.",
                u32::MAX
            )),
        }
    }

    async fn flag(&self, name: &str) -> Result<bool, String> {
        let value = self.text(name).await?;
        match value.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("The variable {name} must be true or false, is {value:?}.")),
        }
    }

    async fn log_level(&self, name: &str) -> Result<Option<Level>, String> {
        let value = self.text(name).await?;
        match value.trim() {
            "off" => Ok(None),
            "error" => Ok(Some(Level::Error)),
            "warn" => Ok(Some(Level::Warn)),
            "info" => Ok(Some(Level::Info)),
            "debug" => Ok(Some(Level::Debug)),
            _ => Err(format!(
                "The variable {name} must be off, error, warn, info or debug, is {value:?}."
            )),
        }
    }

    /// A share of all requests, or none.
    async fn share(&self, name: &str) -> Result<Option<Share>, String> {
        let value = self.text(name).await?;
        match value.trim() {
            "off" => Ok(None),
            share => Share::parse(share).map(Some).ok_or_else(|| {
                format!(
                    "The variable {name} must be off, or a share of the requests above 0 and up \
                     to 1, such as 0.01, is {value:?}."
                )
            }),
        }
    }

    async fn origins(&self, name: &str) -> Result<Origins, String> {
        let value = self.text(name).await?;
        Origins::parse(&value).map_err(|wrong| {
            format!(
                "The variable {name} must be * or origins such as \
                 https://app.example:8443 with commas between, has {wrong:?}."
            )
        })
    }

    async fn hosts(&self, name: &str) -> Result<Hosts, String> {
        let value = self.text(name).await?;
        Hosts::parse(&value).map_err(|wrong| {
            format!(
                "The variable {name} must be hosts such as events.example, 127.0.0.1:3000 or \
                 *.example with commas between, has {wrong:?}."
            )
        })
    }

    /// Keys. Nothing of the value is ever repeated.
    async fn keys(&self, name: &str) -> Result<Keys, String> {
        let value = self.text(name).await?;
        Keys::parse(&value).map_err(|why| format!("The variable {name} {why}."))
    }

    async fn retention(&self) -> Result<Retention, String> {
        let mut rules = self.rules("retention_days", retention::days).await?;
        rules.extend(self.rules("retention_events_max", retention::events).await?);
        rules.extend(self.rules("retention_bytes_max", retention::bytes).await?);
        let name = "identity_retention_days";
        let identity_age = match self.text(name).await?.trim() {
            "" => None,
            value => match retention::days(value) {
                Ok(Limit::Age(age)) => Some(age),
                Ok(_) => None,
                Err(expected) => {
                    return Err(format!(
                        "The variable {name} must be empty, or {expected}; is {value:?}."
                    ));
                }
            },
        };
        Ok(Retention { rules, identity_age })
    }

    /// Rules of retention, whose numbers `limit` reads.
    async fn rules(
        &self,
        name: &str,
        limit: impl Fn(&str) -> Result<Limit, String>,
    ) -> Result<Vec<Rule>, String> {
        let value = self.text(name).await?;
        retention::rules(&value, limit).map_err(|wrong| {
            format!(
                "The variable {name} must be a number, or lines such as shop.*=30 and audit.*=all; \
                 {wrong}."
            )
        })
    }

    /// Secrets of webhooks. Nothing of the value is repeated.
    async fn webhooks(&self, name: &str) -> Result<Webhooks, String> {
        let value = self.text(name).await?;
        Webhooks::parse(&value).map_err(|wrong| {
            format!(
                "The variable {name} must be lines such as \"billing stripe whsec_…\", or a JSON \
                 array of objects with topic, scheme and secret; {wrong}."
            )
        })
    }
}

/// Pages of which origins may call the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// Those of any origin.
    Any,
    /// Those of these origins, of none by default.
    Only(Vec<String>),
}

impl Origins {
    /// Reads `*`, or origins with commas between.
    ///
    /// # Errors
    ///
    /// What is no origin.
    fn parse(value: &str) -> Result<Self, &str> {
        if value.trim() == "*" {
            return Ok(Origins::Any);
        }
        let given = value.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        given.map(|given| origin(given).ok_or(given)).collect::<Result<_, _>>().map(Origins::Only)
    }
}

/// An origin as a browser would send it: scheme, host, and port if it is not
/// that of the scheme.
fn origin(given: &str) -> Option<String> {
    let uri: Uri = given.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_origin = given.len() == scheme.len() + "://".len() + authority.as_str().len();
    if !is_origin || authority.as_str().contains('@') {
        return None;
    }
    let default_port = match scheme {
        "https" => ":443",
        _ => ":80",
    };
    let origin = given.to_ascii_lowercase();
    Some(origin.strip_suffix(default_port).unwrap_or(&origin).to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::platform::fake::{FakePlatform, now};

    fn load(name: &str, value: &str) -> Result<Config, String> {
        let platform = FakePlatform::new();
        platform.variables.replace(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        now(Config::load(&*platform))
    }

    #[test]
    fn names_the_variable_that_is_wrong() {
        for name in [
            "database_url",
            "body_bytes_max",
            "batch_events_max",
            "commit_wait_ms_max",
            "one_writer",
            "wal_pages_max",
            "retry_after_seconds",
            "log_level",
            "access_log",
            "server_timing",
            "cors_origins",
            "api_keys",
            "compat",
            "webhook_secrets",
            "identity_retention_days",
            "webhook_tolerance_seconds",
        ] {
            for wrong in ["?", "0", "-1", "ten", "99999999999"] {
                let error = load(name, wrong).unwrap_err();
                assert!(error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn the_manifest_declares_what_is_read_and_no_more() {
        let platform = FakePlatform::new();
        let config = now(Config::load(&*platform)).unwrap();
        assert_eq!(config.body_bytes_max, 10 * 1024 * 1024);
        assert_eq!(config.log_level, Some(Level::Warn));
        let mut read = platform.variables_read.take();
        read.sort();
        let manifest: toml::Table = include_str!("../spin.toml").parse().unwrap();
        let names = |table: &toml::Value| -> Vec<String> {
            let mut names: Vec<String> = table.as_table().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        // This one is the manifest's own.
        let declared = names(&manifest["variables"]);
        assert!(declared.contains(&"database_host".to_owned()));
        let declared: Vec<_> =
            declared.into_iter().filter(|name| name != "database_host").collect();
        assert_eq!(declared, read);
        for component in ["sekali", "sekali-writer"] {
            assert_eq!(names(&manifest["component"][component]["variables"]), read, "{component}");
        }
        // And that for PostgreSQL alone, which has the same but for what is of SQLite.
        let postgres: toml::Table = include_str!("../spin.postgres.toml").parse().unwrap();
        assert_eq!(names(&postgres["component"]["sekali"]["variables"]), read);
        let of_both: Vec<_> = names(&manifest["variables"])
            .into_iter()
            .filter(|name| !["one_writer", "wal_pages_max"].contains(&name.as_str()))
            .collect();
        assert_eq!(names(&postgres["variables"]), of_both);
        for name in of_both.iter().filter(|name| !name.starts_with("database_")) {
            assert_eq!(postgres["variables"][name], manifest["variables"][name], "{name}");
        }
    }

    #[test]
    fn a_database_is_chosen_by_its_url_which_is_never_told() {
        assert_eq!(load("log_level", "off").unwrap().engine, Engine::Sqlite);
        for url in ["postgres://u:secret@db/x", " postgresql://u:secret@db/x "] {
            let config = load("database_url", url).unwrap();
            let Engine::Postgres { url: kept } = &config.engine else { panic!("{config:?}") };
            assert_eq!(&**kept, url.trim());
            assert!(!format!("{config:?}").contains("secret"));
        }
        for wrong in ["mysql://u:secret@db", "host=db password=secret"] {
            assert!(!load("database_url", wrong).unwrap_err().contains("secret"));
        }
    }

    #[test]
    fn rules_of_retention_are_read_of_three_variables() {
        assert!(load("log_level", "off").unwrap().retention.is_empty());
        for name in ["retention_days", "retention_events_max", "retention_bytes_max"] {
            assert_eq!(load(name, "a*=1, 7").unwrap().retention.rules.len(), 2);
            let error = load(name, "a*=0").unwrap_err();
            assert!(error.contains(name) && error.contains("a*=0"), "{error}");
        }
        let config = load("identity_retention_days", " 2 ").unwrap();
        assert_eq!(config.retention.identity_age, Some(2 * crate::time::DAY_MS));
    }

    #[test]
    fn origins_are_checked() {
        assert_eq!(Origins::parse(" "), Ok(Origins::Only(Vec::new())));
        assert_eq!(Origins::parse(" * "), Ok(Origins::Any));
        assert_eq!(
            Origins::parse("https://A.example:443, http://127.0.0.1:5173,"),
            Ok(Origins::Only(vec![
                "https://a.example".to_owned(),
                "http://127.0.0.1:5173".to_owned()
            ]))
        );
        for wrong in ["a.example", "https://a.example/", "https://", "*, https://a", "http://u@a"] {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
            let error = load("cors_origins", wrong).unwrap_err();
            assert!(error.contains("cors_origins"), "{error}");
        }
    }

    #[test]
    fn hosts_are_any_unless_they_are_named() {
        assert_eq!(load("log_level", "off").unwrap().allowed_hosts, Hosts::Any);
        assert_ne!(load("allowed_hosts", "a.example").unwrap().allowed_hosts, Hosts::Any);
        let error = load("allowed_hosts", "https://a.example").unwrap_err();
        assert!(error.contains("allowed_hosts"), "{error}");
    }
}
