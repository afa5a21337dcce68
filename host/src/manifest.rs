//! `spin.toml`, checked, in the terms of this host.
//!
//! Reads what an application of HTTP components uses. What else Spin would act
//! on is refused by name, so that no application seems to run here and
//! behaves otherwise under Spin. What `spin up` itself does not look at
//! (descriptions, build targets, settings of tools) is ignored.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

/// The name of a manifest that is not named otherwise.
pub(crate) const FILE_NAME: &str = "spin.toml";
const VERSION: i64 = 2;
/// The only field of a route that is none from outside.
const PRIVATE: &str = "private";

/// An application of components that are called over HTTP.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Where the manifest is; relative paths in it start here.
    pub directory: PathBuf,
    /// The application's name.
    pub name: String,
    /// The application's version, which may be empty.
    pub version: String,
    /// Application variables with their defaults; `None`: a value is required.
    pub variables: BTreeMap<String, Option<String>>,
    /// By which paths components are called, in the order of the manifest.
    pub triggers: Vec<Trigger>,
    /// The components, in the order of their names.
    pub components: Vec<Component>,
}

/// One way to a component.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// The component's name.
    pub component: String,
    /// The route from outside, as written; `None` for a private one, by which
    /// only other components of the application get there.
    pub route: Option<String>,
}

/// A component of an application.
#[derive(Debug)]
pub(crate) struct Component {
    /// Its name in the manifest.
    pub id: String,
    /// Its `.wasm` file.
    pub source: PathBuf,
    /// Templates of its variables.
    pub variables: BTreeMap<String, String>,
    /// Its environment variables.
    pub environment: BTreeMap<String, String>,
    /// What it may send requests to: templates.
    pub allowed_outbound_hosts: Vec<String>,
    /// Labels of the key-value stores it may open.
    pub key_value_stores: HashSet<String>,
    /// Labels of the SQLite databases it may open.
    pub sqlite_databases: HashSet<String>,
    /// How to build it, if the manifest says so.
    pub build: Option<Build>,
}

/// How to build a component.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Build {
    /// Shell commands, run in this order.
    pub commands: Vec<String>,
    /// Where to run them.
    pub directory: PathBuf,
}

/// What the manifest may hold besides what a structure names.
type Rest = BTreeMap<String, toml::Value>;

#[derive(Deserialize)]
struct RawManifest {
    spin_manifest_version: toml::Value,
    application: RawApplication,
    #[serde(default)]
    variables: BTreeMap<String, RawVariable>,
    #[serde(default)]
    trigger: BTreeMap<String, Vec<RawTrigger>>,
    #[serde(default)]
    component: BTreeMap<String, RawComponent>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawApplication {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawVariable {
    default: Option<String>,
    #[serde(default)]
    required: bool,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawTrigger {
    route: toml::Value,
    component: toml::Value,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawComponent {
    source: toml::Value,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    key_value_stores: HashSet<String>,
    #[serde(default)]
    sqlite_databases: HashSet<String>,
    build: Option<RawBuild>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawBuild {
    command: RawCommands,
    workdir: Option<PathBuf>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawCommands {
    One(String),
    Many(Vec<String>),
}

impl Manifest {
    /// Finds the manifest: `from` is the file or its directory. Without it, the
    /// nearest `spin.toml` in the working directory or above, so that
    /// `cargo up` works wherever `cargo` does.
    pub(crate) fn find(from: Option<&Path>) -> Result<PathBuf> {
        if let Some(from) = from {
            let file = if from.is_dir() { from.join(FILE_NAME) } else { from.to_owned() };
            ensure!(
                file.is_file(),
                "there is no manifest at {}: pass another with --from",
                file.display()
            );
            return absolute(&file);
        }
        let working_directory =
            std::env::current_dir().context("cannot tell the working directory")?;
        working_directory
            .ancestors()
            .map(|directory| directory.join(FILE_NAME))
            .find(|file| file.is_file())
            .with_context(|| {
                format!(
                    "there is no {FILE_NAME} in {} or above: pass one with --from",
                    working_directory.display()
                )
            })
    }

    /// Reads and checks the manifest at `file`.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the manifest {}", file.display()))?;
        let directory = file.parent().unwrap_or(Path::new("."));
        Self::parse(&text, directory).with_context(|| format!("in {}", file.display()))
    }

    fn parse(text: &str, directory: &Path) -> Result<Self> {
        let raw: RawManifest = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        ensure!(
            raw.spin_manifest_version.as_integer() == Some(VERSION),
            "`spin_manifest_version` must be {VERSION}"
        );
        refuse("the manifest", &raw.rest, &[])?;
        let ignored = ["authors", "description", "targets", "tool"];
        refuse("[application]", &raw.application.rest, &ignored)?;

        let variables = raw
            .variables
            .into_iter()
            .map(|(name, variable)| {
                let context = format!("variable {name:?}");
                refuse(&context, &variable.rest, &["description", "secret"])?;
                ensure!(
                    variable.required != variable.default.is_some(),
                    "{context} must be `required` or have a `default`"
                );
                Ok((name, variable.default))
            })
            .collect::<Result<_>>()?;

        ensure!(!raw.component.is_empty(), "there is no [component]");
        let mut triggers = Vec::new();
        for (kind, of_kind) in raw.trigger {
            ensure!(kind == "http", "[[trigger.{kind}]]: this host serves `http` only");
            for trigger in of_kind {
                triggers.push(trigger.check(&raw.component)?);
            }
        }
        ensure!(!triggers.is_empty(), "there is no [[trigger.http]]");
        let components = raw
            .component
            .into_iter()
            .map(|(id, component)| component.check(id, directory))
            .collect::<Result<_>>()?;

        Ok(Self {
            directory: directory.to_owned(),
            name: raw.application.name,
            version: raw.application.version,
            variables,
            triggers,
            components,
        })
    }
}

impl RawTrigger {
    fn check(self, components: &BTreeMap<String, RawComponent>) -> Result<Trigger> {
        let context = "[[trigger.http]]";
        let mut rest = self.rest;
        if let Some(executor) = rest.remove("executor") {
            let kind = executor.get("type").and_then(|kind| kind.as_str());
            ensure!(
                matches!(kind, Some("http" | "spin")),
                "{context}: only an `executor` of type \"http\" is supported by this host"
            );
        }
        refuse(context, &rest, &["id"])?;
        let toml::Value::String(component) = self.component else {
            bail!("{context}: a `component` written inline is not supported by this host");
        };
        ensure!(
            components.contains_key(&component),
            "{context}: there is no component {component:?}"
        );
        let route = match self.route {
            toml::Value::String(route) => Some(route),
            toml::Value::Table(table)
                if table.len() == 1 && table.get(PRIVATE) == Some(&true.into()) =>
            {
                None
            }
            _ => bail!("{context}: a `route` must be a path or {{ {PRIVATE} = true }}"),
        };
        Ok(Trigger { component, route })
    }
}

impl RawComponent {
    fn check(self, id: String, directory: &Path) -> Result<Component> {
        let context = format!("component {id:?}");
        ensure!(is_name(&id), "{context}: a name is words of one case, joined by hyphens");
        refuse(&context, &self.rest, &["description", "profile", "targets", "tool"])?;
        let toml::Value::String(source) = self.source else {
            bail!("{context}: a `source` that is not a file is not supported by this host");
        };
        let build = self
            .build
            .map(|build| {
                refuse(&format!("[{context}.build]"), &build.rest, &["watch"])?;
                Ok::<_, anyhow::Error>(Build {
                    commands: match build.command {
                        RawCommands::One(command) => vec![command],
                        RawCommands::Many(commands) => commands,
                    },
                    directory: match build.workdir {
                        Some(below) => directory.join(below),
                        None => directory.to_owned(),
                    },
                })
            })
            .transpose()?;
        Ok(Component {
            id,
            source: directory.join(source),
            variables: self.variables,
            environment: self.environment,
            allowed_outbound_hosts: self.allowed_outbound_hosts,
            key_value_stores: self.key_value_stores,
            sqlite_databases: self.sqlite_databases,
            build,
        })
    }
}

/// Whether a component may be called so, which is a part of its host.
fn is_name(id: &str) -> bool {
    id.split('-').all(|word| {
        let is_upper = word.starts_with(|first: char| first.is_ascii_uppercase());
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word.chars().all(|char| {
                char.is_ascii_digit()
                    || (char.is_ascii_alphabetic() && char.is_ascii_uppercase() == is_upper)
            })
    })
}

/// Fails on what this host would silently leave out. An empty list or table
/// asks for nothing.
fn refuse(context: &str, rest: &Rest, ignored: &[&str]) -> Result<()> {
    let asks_for_nothing = |value: &toml::Value| match value {
        toml::Value::Array(array) => array.is_empty(),
        toml::Value::Table(table) => table.is_empty(),
        _ => false,
    };
    match rest
        .iter()
        .find(|(field, value)| !ignored.contains(&field.as_str()) && !asks_for_nothing(value))
    {
        Some((field, _)) => bail!("{context}: `{field}` is not supported by this host"),
        None => Ok(()),
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

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
spin_manifest_version = 2
[application]
name = "app"
[variables]
given = { required = true, secret = true }
defaulted = { default = "x" }
[[trigger.http]]
route = "/..."
component = "c"
[component.c]
source = "target/c.wasm"
allowed_outbound_hosts = []
sqlite_databases = ["default"]
[component.c.variables]
v = "{{ given }}"
[component.c.environment]
E = "1"
[component.c.build]
command = "make"
workdir = "c"
watch = ["src"]
"#;

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text, Path::new("/app"))
    }

    #[test]
    fn small() -> Result<()> {
        let manifest = parse(SMALL)?;
        assert_eq!(manifest.name, "app");
        let trigger = Trigger { component: "c".to_owned(), route: Some("/...".to_owned()) };
        assert_eq!(manifest.triggers, [trigger]);
        assert_eq!(manifest.variables["given"], None);
        assert_eq!(manifest.variables["defaulted"].as_deref(), Some("x"));
        let [component] = manifest.components.try_into().expect("one component");
        assert_eq!(component.id, "c");
        assert_eq!(component.source, Path::new("/app/target/c.wasm"));
        assert_eq!(component.variables["v"], "{{ given }}");
        assert_eq!(component.environment["E"], "1");
        assert!(component.sqlite_databases.contains("default"));
        assert!(component.key_value_stores.is_empty());
        assert!(component.allowed_outbound_hosts.is_empty());
        let build = component.build.context("build")?;
        assert_eq!(build.commands, ["make"]);
        assert_eq!(build.directory, Path::new("/app/c"));
        Ok(())
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (from, to, named) in [
            ("version = 2", "version = 1", "spin_manifest_version"),
            ("name = \"app\"", "nome = \"app\"", "missing field `name`"),
            ("[variables]", "[variables", "line 5"),
            ("required = true, ", "", "\"given\""),
            ("[[trigger.http]]", "[[trigger.redis]]", "trigger.redis"),
            ("component = \"c\"", "component = \"d\"", "\"d\""),
            ("component = \"c\"", "component = {}", "inline"),
            ("[component.c]", "[component.d_e]\nsource='d'\n[component.c]", "\"d_e\""),
            ("route = \"/...\"", "route = { private = false }", "`route`"),
            ("route = \"/...\"", "route = { private = true, a = 1 }", "`route`"),
            ("route = ", "executor = { type = \"wagi\" }\nroute = ", "`executor`"),
            ("route = ", "static_response = { body = '' }\nroute = ", "`static_response`"),
            ("allowed_outbound_hosts = []", "files = ['a']", "`files`"),
            ("\"target/c.wasm\"", "{ url = 'https://a' }", "`source`"),
        ] {
            assert!(SMALL.contains(from), "{from}");
            let error = parse(&SMALL.replacen(from, to, 1)).expect_err(to);
            let error = format!("{error:#}");
            assert!(error.contains(named), "{to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn build_commands_may_be_a_list() -> Result<()> {
        let manifest = parse(&SMALL.replace("\"make\"", "[\"a\", \"b\"]"))?;
        assert_eq!(manifest.components[0].build.as_ref().context("build")?.commands, ["a", "b"]);
        Ok(())
    }

    #[test]
    fn several_components() -> Result<()> {
        let manifest = parse(&format!(
            r#"{SMALL}
[[trigger.http]]
route = {{ private = true }}
component = "b"
[[trigger.http]]
route = "/b"
component = "b"
[component.b]
source = "target/c.wasm"
allowed_outbound_hosts = ["http://c.spin.internal", "{{{{ given }}}}"]
environment = {{ ROLE = "b" }}
"#
        ))?;
        let triggers: Vec<_> = manifest
            .triggers
            .iter()
            .map(|trigger| (trigger.component.as_str(), trigger.route.as_deref()))
            .collect();
        assert_eq!(triggers, [("c", Some("/...")), ("b", None), ("b", Some("/b"))]);
        let [b, c] = manifest.components.try_into().expect("two components");
        assert_eq!((b.id.as_str(), c.id.as_str()), ("b", "c"));
        assert_eq!(b.source, c.source);
        assert_eq!(b.allowed_outbound_hosts, ["http://c.spin.internal", "{{ given }}"]);
        assert_eq!((b.environment.len(), b.environment["ROLE"].as_str()), (1, "b"));
        assert!(b.sqlite_databases.is_empty() && b.build.is_none());
        Ok(())
    }
}
