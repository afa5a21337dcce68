//! Query parameters, each named when it is wrong.

use std::borrow::Cow;

use crate::http::problem::Problem;

/// The parameters of one request. Unknown ones are ignored.
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads what stands after the `?`.
    pub fn parse(query: Option<&'a str>) -> Self {
        Query { pairs: form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect() }
    }

    /// The value of `name`, if it was given.
    ///
    /// # Errors
    ///
    /// When it was given more than once.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::invalid_parameter(name, "is given more than once"));
        }
        Ok(first.map(AsRef::as_ref))
    }

    /// Every value of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The value of `name` as `parse` reads it, if it was given.
    ///
    /// # Errors
    ///
    /// When it was given more than once, or `parse` says what it must be.
    pub fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.get(name)?
            .map(|value| parse(value).map_err(|why| Problem::invalid_parameter(name, why)))
            .transpose()
    }

    /// A switch: `true` or `false` (also `1` and `0`); off when it is absent.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn switch(&self, name: &str) -> Result<bool, Problem> {
        let value = self.read(name, |value| match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })?;
        Ok(value.unwrap_or(false))
    }
}
