//! JSON pointers (RFC 6901) into the text of a JSON value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::key::Key;

/// A way to one value within another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// As it was given.
    text: String,
    /// A name of a member, or an index, for each level.
    steps: Vec<String>,
}

impl Pointer {
    /// Reads a pointer such as `/event/id`; an empty one is the whole value.
    ///
    /// # Errors
    ///
    /// A phrase that says what it must be.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = text.split('/');
        let is_relative = steps.next().is_some_and(|before| !before.is_empty());
        let mut escapes = text.split('~').skip(1);
        if is_relative || escapes.any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(format!("must be a JSON pointer such as /event/id, is {text:?}"));
        }
        let steps = steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        Ok(Pointer { text: text.to_owned(), steps })
    }

    /// The member of an object with this name.
    pub(super) fn member(name: &str) -> Self {
        let text = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Pointer { text, steps: vec![name.to_owned()] }
    }

    /// The member of an object that it leads to or into, by its name.
    pub(super) fn first(&self) -> Option<&str> {
        self.steps.first().map(String::as_str)
    }

    /// The value that it leads to. Of a member given twice the last counts.
    pub(crate) fn find<'a>(&self, json: &'a RawValue) -> Option<&'a RawValue> {
        self.steps.iter().try_fold(json, |value, step| {
            let mut value = serde_json::Deserializer::from_str(value.get());
            value.deserialize_any(Step(step)).ok().flatten()
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One level down.
struct Step<'s>(&'s str);

impl Step<'_> {
    /// The index that it is: digits, the first of which is no zero beside others.
    fn index(&self) -> Option<usize> {
        let is_index = self.0 == "0" || !self.0.starts_with('0');
        let is_index = is_index && self.0.bytes().all(|byte| byte.is_ascii_digit());
        is_index.then(|| self.0.parse().ok()).flatten()
    }
}

/// What is neither an object nor an array has nothing in it: an error, as good as
/// nothing found.
impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Key(key)) = map.next_key()? {
            match key == Cow::Borrowed(self.0) {
                true => found = Some(map.next_value()?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let wanted = self.index();
        let (mut found, mut index) = (None, 0);
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if Some(index) == wanted {
                found = Some(element);
            }
            index += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(pointer: &str, json: &'a str) -> Option<&'a str> {
        let json = serde_json::from_str(json).unwrap();
        Pointer::parse(pointer).unwrap().find(json).map(RawValue::get)
    }

    #[test]
    fn leads_where_the_rfc_says() {
        // Its own examples.
        let json = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,
            "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}"#;
        for (pointer, expected) in [
            ("", Some(json)),
            ("/foo", Some(r#"["bar", "baz"]"#)),
            ("/foo/0", Some(r#""bar""#)),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/c%d", Some("2")),
            ("/e^f", Some("3")),
            ("/g|h", Some("4")),
            ("/i\\j", Some("5")),
            ("/k\"l", Some("6")),
            ("/ ", Some("7")),
            ("/m~0n", Some("8")),
            ("/foo/2", None),
            ("/foo/00", None),
            ("/foo/-", None),
            ("/foo/0/x", None),
            ("/x", None),
            ("/x/y", None),
            ("//", None),
        ] {
            assert_eq!(find(pointer, json), expected, "{pointer}");
        }
    }

    #[test]
    fn of_a_member_given_twice_the_last_counts() {
        assert_eq!(find("/a/b", r#"{"a":{"b":1},"\u0061":{"b":2,"b":3}}"#), Some("3"));
        assert_eq!(find("/~01", r#"{"~1":{}}"#), Some("{}"));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["id", "#/id", "/~", "/~2", "/a/~", "/~~01", " /a"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }
}
