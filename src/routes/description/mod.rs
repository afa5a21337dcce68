//! Holds what is said of the code against the code: `openapi.json`, and the
//! tables of the docs.
//!
//! Each check gives the drifts that it found, one a line: the place, what is
//! said there, and what the code says.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

mod docs;
mod generators;
mod limits;
mod operations;
mod planted;
mod problems;
mod schemas;
mod shape;

/// A list of all fields of a struct, or of all variants of an enum, that does not
/// compile unless it is complete.
macro_rules! every {
    (fields of $type:ident: $($field:ident),*) => {{
        fn _complete(one: $type) {
            let $type { $($field: _),* } = one;
        }
        [$(stringify!($field)),*]
    }};
    (variants of $type:ident: $($variant:ident),*) => {{
        fn _complete(one: $type) {
            match one { $($type::$variant => {})* }
        }
        [$($type::$variant),*]
    }};
}
use every;

/// The description.
#[derive(Clone)]
struct Description(Value);

impl Description {
    fn read() -> Self {
        Description(serde_json::from_str(include_str!("../../openapi.json")).unwrap())
    }

    /// What is at a JSON pointer; null when nothing is.
    fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// What a `$ref` leads to; anything else is itself.
    fn resolve<'a>(&'a self, mut value: &'a Value) -> &'a Value {
        while let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            value = self.at(reference.trim_start_matches('#'));
        }
        value
    }

    /// Every value of the document under its JSON pointer.
    fn values(&self) -> Vec<(String, &Value)> {
        fn walk<'a>(pointer: String, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
            for (name, child) in entries(value) {
                walk(format!("{pointer}/{name}"), child, found);
            }
            if let Some(elements) = value.as_array() {
                for (index, element) in elements.iter().enumerate() {
                    walk(format!("{pointer}/{index}"), element, found);
                }
            }
            found.push((pointer, value));
        }
        let mut found = Vec::new();
        walk(String::new(), &self.0, &mut found);
        found
    }
}

/// The members of an object, by their names as they stand in a JSON pointer;
/// nothing else has any.
fn entries(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value))
}

/// The strings of an array; nothing else has any.
fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The default of a variable in the manifest.
fn variable(name: &str) -> String {
    let (_, default) = variables().into_iter().find(|(variable, _)| variable == name).unwrap();
    default
}

/// The variables of the manifest, and their defaults.
fn variables() -> Vec<(String, String)> {
    let manifest: toml::Table = include_str!("../../../spin.toml").parse().unwrap();
    let declared = manifest["variables"].as_table().unwrap().iter();
    declared.map(|(name, one)| (name.clone(), one["default"].as_str().unwrap().into())).collect()
}

/// What differs between the code and what is said of it.
#[derive(Default)]
struct Drifts(Vec<String>);

impl Drifts {
    fn add(&mut self, place: impl Display, what: impl Display) {
        self.0.push(format!("{place}: {what}"));
    }

    /// One fact.
    fn same<T: PartialEq + Serialize>(&mut self, place: impl Display, said: T, code: T) {
        if said != code {
            let [said, code] = [said, code].map(|fact| serde_json::to_string(&fact).unwrap());
            self.add(place, format_args!("{said} is said, the code has {code}"));
        }
    }

    /// Names, of which neither side has one that the other has not.
    fn names<S: Into<String>, C: Into<String>>(
        &mut self,
        place: impl Display,
        said: impl IntoIterator<Item = S>,
        code: impl IntoIterator<Item = C>,
    ) {
        let said: BTreeSet<String> = said.into_iter().map(Into::into).collect();
        let code: BTreeSet<String> = code.into_iter().map(Into::into).collect();
        for name in said.difference(&code) {
            self.add(&place, format_args!("{name} is said, the code does not have it"));
        }
        for name in code.difference(&said) {
            self.add(&place, format_args!("the code has {name}, it is not said"));
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} drifts:\n{}", self.0.len(), self.0.join("\n"));
    }
}
