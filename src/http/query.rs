//! Query parameters, each named when it is wrong.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::http::problem::Problem;
use crate::store::Cursor;
use crate::time::{self, UnixMillis};

/// A parameter of a route: its name, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Takes {
    /// `true` or `false`, `1` or `0`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number within bounds; `unit` is empty, or such as ` of seconds`.
    Integer { unit: &'static str, min: u64, max: u64 },
    /// A topic.
    Topic,
    /// Topics, each in a parameter of its own, so many at most.
    Topics {
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        max: usize,
    },
    /// A source.
    Source,
    /// The `next` of a page.
    Cursor,
    /// The same, or `end`.
    CursorOrEnd,
    /// ISO 8601.
    Moment,
    /// Any text, of one character at least.
    Text {
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        chars_max: usize,
    },
    /// Text that this regular expression matches, each in a parameter of its own, so
    /// many at most.
    Patterns {
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        max: usize,
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        pattern: &'static str,
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        chars_max: usize,
    },
    /// Text that this regular expression matches.
    Pattern(
        #[cfg_attr(not(test), allow(dead_code, reason = "only the description is held to it"))]
        &'static str,
    ),
}

impl Parameter {
    /// The parameter `name`.
    pub(crate) const fn new(name: &'static str, takes: Takes) -> Self {
        Parameter { name, takes }
    }
}

/// The parameters of one request. Unknown ones are ignored.
pub(crate) struct Query<'a> {
    /// Names and values; no value where its bytes are not UTF-8.
    pairs: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
}

impl<'a> Query<'a> {
    /// Reads what stands after the `?`.
    pub(crate) fn parse(query: Option<&'a str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // No parameter has a name that is not UTF-8.
            (decode(name).unwrap_or_default(), decode(value))
        });
        Query { pairs: pairs.collect() }
    }

    /// Every value of a parameter.
    ///
    /// # Errors
    ///
    /// When one is not UTF-8. Taken for text all the same it would be another
    /// topic than the one that was meant.
    pub(crate) fn all(&self, parameter: &Parameter) -> Result<Vec<&str>, Problem> {
        let given = self.pairs.iter().filter(|(name, _)| name == parameter.name);
        let values: Option<Vec<&str>> = given.map(|(_, value)| value.as_deref()).collect();
        values.ok_or_else(|| Problem::invalid_parameter(parameter.name, "must be UTF-8"))
    }

    /// The value of a parameter, if it was given.
    ///
    /// # Errors
    ///
    /// When it was given more than once, or is not UTF-8.
    pub(crate) fn get(&self, parameter: &Parameter) -> Result<Option<&str>, Problem> {
        match self.all(parameter)?.as_slice() {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(Problem::invalid_parameter(parameter.name, "is given more than once")),
        }
    }

    /// The value of a parameter as `parse` reads it, if it was given.
    ///
    /// # Errors
    ///
    /// When it was given more than once or is not UTF-8, or `parse` says what it
    /// must be.
    pub(crate) fn read<T>(
        &self,
        parameter: &Parameter,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.get(parameter)?
            .map(|value| {
                parse(value).map_err(|why| Problem::invalid_parameter(parameter.name, why))
            })
            .transpose()
    }

    /// A [`Takes::Switch`], off when it is absent.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub(crate) fn switch(&self, parameter: &Parameter) -> Result<bool, Problem> {
        let value = self.read(parameter, |value| match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })?;
        Ok(value.unwrap_or(false))
    }

    /// The word of a [`Takes::OneOf`], if it was given.
    ///
    /// # Errors
    ///
    /// When it is another.
    pub(crate) fn choice(&self, parameter: &Parameter) -> Result<Option<&'static str>, Problem> {
        let Takes::OneOf(words) = parameter.takes else { return Ok(None) };
        self.read(parameter, |value| {
            let known = words.iter().copied().find(|word| *word == value);
            known.ok_or_else(|| format!("must be {}, is {value:?}", words.join(" or ")))
        })
    }

    /// The number of a [`Takes::Integer`], if it was given.
    ///
    /// # Errors
    ///
    /// When it is no such number.
    pub(crate) fn integer(&self, parameter: &Parameter) -> Result<Option<u64>, Problem> {
        let Takes::Integer { unit, min, max } = parameter.takes else { return Ok(None) };
        self.read(parameter, |value| match digits::<u64>(value) {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number{unit} from {min} to {max}, is {value:?}")),
        })
    }

    /// A moment, if it was given.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub(crate) fn moment(&self, parameter: &Parameter) -> Result<Option<UnixMillis>, Problem> {
        self.read(parameter, |value| {
            time::parse(value).map_err(|why| {
                format!("must be an RFC 3339 date and time (a + is written %2B): {why}")
            })
        })
    }
}

/// The text of a name or a value; `None` when its bytes are not UTF-8.
pub(crate) fn decode(given: &str) -> Option<Cow<'_, str>> {
    if !given.contains(['+', '%']) {
        return Some(given.into());
    }
    let bytes: Vec<u8> = percent_decode_str(&given.replace('+', " ")).collect();
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Reads a cursor.
///
/// # Errors
///
/// A phrase that says what it must be.
pub(crate) fn cursor(value: &str) -> Result<Cursor, String> {
    value.parse().map_err(|_| format!("must be the next of an earlier page, is {value:?}"))
}

/// A number of digits alone: no sign, no space.
fn digits<T: FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}
