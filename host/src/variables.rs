//! `spin:variables@3.0.0`: application variables, the templates of the
//! component that refer to them, and where their values come from.
//!
//! A value is looked for on the command line, then in `SPIN_VARIABLE_<NAME>` of
//! the environment, then in the same name of `.env` in the working directory,
//! then in the manifest's default. All of it is known at the start, so that a
//! variable without a value fails there and not in a request.

use std::collections::{BTreeMap, HashMap};
use std::env::VarError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use wasmtime::component::{Accessor, HasData};

use crate::bindings::variables::{Error, Host, HostWithStore};

const ENVIRONMENT_PREFIX: &str = "SPIN_VARIABLE_";
const DOTENV_FILE: &str = ".env";

/// The application's variables, with their values.
#[derive(Debug)]
pub(crate) struct ApplicationVariables(BTreeMap<String, String>);

impl ApplicationVariables {
    /// Those of which `defaults` has the defaults (`None`: a value is required).
    /// `given` looks a variable up outside of the manifest.
    pub(crate) fn resolve(
        defaults: &BTreeMap<String, Option<String>>,
        given: impl Fn(&str) -> Result<Option<String>>,
    ) -> Result<Self> {
        let mut values = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, default) in defaults {
            check_name(name).map_err(|reason| anyhow::anyhow!("variable {reason}"))?;
            match given(name)?.or_else(|| default.clone()) {
                Some(value) => {
                    values.insert(name.clone(), value);
                }
                None => missing.push(name.as_str()),
            }
        }
        if let Some(first) = missing.first() {
            bail!(
                "no value for the required variable(s) {}: set {} or pass --variable {first}=VALUE",
                missing.join(", "),
                environment_name(first),
            );
        }
        Ok(Self(values))
    }

    /// Replaces each `{{ name }}` in `template`.
    pub(crate) fn evaluate(&self, template: &str) -> Result<String> {
        let mut value = String::new();
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").context("unmatched '{{' in its template")?;
            let name = name.trim();
            value.push_str(literal);
            value.push_str(
                self.0
                    .get(name)
                    .with_context(|| format!("unknown variable {name:?} in its template"))?,
            );
            rest = after;
        }
        value.push_str(rest);
        Ok(value)
    }
}

/// The variables a component may read, by name, with their values.
#[derive(Debug)]
pub(crate) struct Variables {
    component: String,
    values: HashMap<String, String>,
}

impl Variables {
    /// Evaluates the component's `templates` over the application's variables.
    pub(crate) fn new(
        component: &str,
        templates: &BTreeMap<String, String>,
        application: &ApplicationVariables,
    ) -> Result<Self> {
        let values = templates
            .iter()
            .map(|(name, template)| {
                check_name(name).map_err(|reason| anyhow::anyhow!("variable {reason}"))?;
                let value = application
                    .evaluate(template)
                    .with_context(|| format!("variable {name:?} of component {component:?}"))?;
                Ok((name.clone(), value))
            })
            .collect::<Result<_>>()?;
        Ok(Self { component: component.to_owned(), values })
    }

    fn get(&self, name: &str) -> Result<String, Error> {
        check_name(name).map_err(Error::InvalidName)?;
        self.values.get(name).cloned().ok_or_else(|| {
            Error::Undefined(format!("no variable for {:?}.{name:?}", self.component))
        })
    }
}

/// A name is lower-case words and numbers joined by single underscores, so that
/// it has one spelling as an environment variable.
fn check_name(name: &str) -> Result<(), String> {
    let reason = if name.is_empty() {
        "must not be empty".to_owned()
    } else if let Some(invalid) =
        name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_'))
    {
        format!(
            "invalid character {invalid:?}. Variable names may contain only lower-case letters, \
             numbers, and underscores."
        )
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "must start with a lowercase ASCII letter".to_owned()
    } else if name.ends_with('_') {
        "must end with a lowercase ASCII letter or digit".to_owned()
    } else if name.contains("__") {
        "must not contain multiple consecutive underscores".to_owned()
    } else {
        return Ok(());
    };
    Err(format!("{name:?}: {reason}"))
}

/// One `--variable`, in Spin's syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `KEY=VALUE`
    Value(String, String),
    /// `KEY=@FILE`: the content of the file.
    Content(String, PathBuf),
    /// `@FILE.json`: an object of strings.
    Json(PathBuf),
    /// `@FILE.toml`: a table of strings.
    Toml(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(file) = text.strip_prefix('@') {
            let file = PathBuf::from(file);
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("json") => Ok(Self::Json(file)),
                Some("toml") => Ok(Self::Toml(file)),
                _ => Err("variable files must end in .json or .toml".to_owned()),
            }
        } else if let Some((key, value)) = text.split_once('=') {
            Ok(match value.strip_prefix('@') {
                Some(file) => Self::Content(key.to_owned(), file.into()),
                None => Self::Value(key.to_owned(), value.to_owned()),
            })
        } else {
            Err("variables must be in the form 'key=value' or '@file'".to_owned())
        }
    }
}

impl Source {
    fn values(&self) -> Result<HashMap<String, String>> {
        let read = |file: &Path| {
            std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the variable file {}", file.display()))
        };
        let malformed = |file: &Path| format!("cannot parse the variable file {}", file.display());
        Ok(match self {
            Self::Value(key, value) => HashMap::from([(key.clone(), value.clone())]),
            Self::Content(key, file) => HashMap::from([(key.clone(), read(file)?)]),
            Self::Json(file) => {
                serde_json::from_str(&read(file)?).with_context(|| malformed(file))?
            }
            Self::Toml(file) => toml::from_str(&read(file)?)
                .map_err(|error| anyhow::anyhow!("{}: {}", malformed(file), error.message()))?,
        })
    }
}

/// Looks variables up outside of the manifest: in `sources`, of which a later
/// one wins, then in the environment, then in `.env`.
pub(crate) fn outside(
    sources: &[Source],
) -> Result<impl Fn(&str) -> Result<Option<String>> + use<>> {
    let mut on_command_line = HashMap::new();
    for source in sources {
        on_command_line.extend(source.values()?);
    }
    let dotenv = dotenv(Path::new(DOTENV_FILE))?;
    Ok(move |name: &str| {
        if let Some(value) = on_command_line.get(name) {
            return Ok(Some(value.clone()));
        }
        let environment_name = environment_name(name);
        match std::env::var(&environment_name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(dotenv.get(&environment_name).cloned()),
            Err(VarError::NotUnicode(_)) => bail!("{environment_name} is not valid UTF-8"),
        }
    })
}

fn environment_name(name: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", name.to_ascii_uppercase())
}

/// The file is optional, and one that cannot be opened counts as absent.
fn dotenv(file: &Path) -> Result<HashMap<String, String>> {
    let Ok(lines) = dotenvy::from_path_iter(file) else {
        return Ok(HashMap::new());
    };
    lines.collect::<Result<_, _>>().with_context(|| format!("cannot parse {}", file.display()))
}

impl Host for Arc<Variables> {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<Error> {
        Ok(error)
    }
}

/// Names [`Variables`] as the data behind the interface.
pub(crate) struct HasVariables;

impl HasData for HasVariables {
    type Data<'a> = &'a mut Arc<Variables>;
}

impl<T: Send> HostWithStore<T> for HasVariables {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<String, Error> {
        accessor.with(|mut access| access.get().get(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        templates: &[(&str, &str)],
        defaults: &[(&str, Option<&str>)],
        given: &[(&str, &str)],
    ) -> Result<Variables> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let defaults = defaults
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect();
        let application = ApplicationVariables::resolve(&defaults, |name| {
            let found = given.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })?;
        Variables::new("c", &templates.iter().map(own).collect(), &application)
    }

    fn value(template: &str) -> Result<String> {
        let defaults = [("set", None), ("unset", Some("default"))];
        let variables = resolve(&[("v", template)], &defaults, &[("set", "given")])?;
        Ok(variables.values["v"].clone())
    }

    #[test]
    fn templates() -> Result<()> {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{ set }}", "given"),
            ("a-{{set}}-{{  unset  }}-b", "a-given-default-b"),
            ("} }} {", "} }} {"),
        ] {
            assert_eq!(value(template)?, expected, "{template}");
        }
        assert!(value("{{ set").is_err());
        let unknown = format!("{:#}", value("{{ nowhere }}").expect_err("unknown"));
        assert!(unknown.contains("\"nowhere\""), "{unknown}");
        Ok(())
    }

    #[test]
    fn a_given_value_wins_over_the_default() -> Result<()> {
        let variables = resolve(&[("v", "{{ a }}")], &[("a", Some("x"))], &[("a", "y")])?;
        assert_eq!(variables.values["v"], "y");
        Ok(())
    }

    #[test]
    fn required_variables_need_a_value_even_when_unused() {
        let error = resolve(&[], &[("a_b", None), ("c", None)], &[]).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "no value for the required variable(s) a_b, c: \
             set SPIN_VARIABLE_A_B or pass --variable a_b=VALUE"
        );
    }

    #[test]
    fn get() -> Result<()> {
        let variables = resolve(&[("v", "x")], &[], &[])?;
        assert!(matches!(variables.get("v").as_deref(), Ok("x")));
        assert!(matches!(variables.get("w"), Err(Error::Undefined(_))));
        for name in ["", "aX", "1bc", "_x", "x.y", "x_", "a__b", "x-y"] {
            assert!(matches!(variables.get(name), Err(Error::InvalidName(_))), "{name}");
        }
        Ok(())
    }

    #[test]
    fn sources() {
        let parse = |text: &str| text.parse::<Source>();
        assert_eq!(parse("k=v=w"), Ok(Source::Value("k".into(), "v=w".into())));
        assert_eq!(parse("k=@f"), Ok(Source::Content("k".into(), "f".into())));
        assert_eq!(parse("@f.json"), Ok(Source::Json("f.json".into())));
        assert_eq!(parse("@f.toml"), Ok(Source::Toml("f.toml".into())));
        assert!(parse("@f.txt").is_err());
        assert!(parse("k").is_err());
    }
}
