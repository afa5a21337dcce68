//! One JSON value of a body, and the fields of an event in it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::key::Key;
use crate::event::{FieldError, Found};

/// The fields of an event before any is looked at. Of a field given twice the
/// last counts, as in the JSON parsers of Python, JavaScript and Go.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) topic: Option<&'a RawValue>,
    pub(super) event_id: Option<&'a RawValue>,
    pub(super) source: Option<&'a RawValue>,
    pub(super) timestamp: Option<&'a RawValue>,
    pub(super) payload: Option<&'a RawValue>,
    /// The first that is none of these.
    pub(super) other: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// The fields of an object.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub(super) fn read(json: &'a RawValue) -> Result<Self, FieldError> {
        if !json.get().starts_with('{') {
            return Err(FieldError::new("event", "must be a JSON object"));
        }
        serde_json::from_str(json.get())
            .map_err(|error| FieldError::new("event", format!("cannot be read: {error}")))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key()? {
                    let field = match key.as_ref() {
                        "topic" => &mut fields.topic,
                        "event_id" => &mut fields.event_id,
                        "source" => &mut fields.source,
                        "timestamp" => &mut fields.timestamp,
                        "payload" => &mut fields.payload,
                        _ => {
                            fields.other.get_or_insert(key);
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// The members of an object that have these names. Of one given twice the last counts.
///
/// # Errors
///
/// When it is no object.
pub(super) fn members<'a, const N: usize>(
    json: &'a RawValue,
    names: &[&str; N],
) -> Result<[Option<&'a RawValue>; N], FieldError> {
    struct Members<'n, const N: usize>(&'n [&'n str; N]);

    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = [Option<&'de RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(Key(key)) = map.next_key()? {
                match self.0.iter().position(|name| *name == key) {
                    Some(place) => found[place] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }

    if !json.get().starts_with('{') {
        return Err(FieldError::new("event", "must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_str(json.get());
    serde::Deserializer::deserialize_map(&mut json, Members(names))
        .map_err(|error| FieldError::new("event", format!("cannot be read: {error}")))
}

/// The members of an object but for those whose name is among `left_out`: an object
/// again.
///
/// # Errors
///
/// When it is no object, or a name cannot be read.
pub(super) fn others(json: &RawValue, left_out: &[&str]) -> Result<String, FieldError> {
    struct Others<'l>(&'l [&'l str]);

    impl<'de> Visitor<'de> for Others<'_> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
            let mut text = "{".to_owned();
            while let Some(Key(key)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                if self.0.contains(&key.as_ref()) {
                    continue;
                }
                if text.len() > 1 {
                    text.push(',');
                }
                text.push_str(&serde_json::to_string(&key).map_err(serde::de::Error::custom)?);
                text.push(':');
                text.push_str(value.get());
            }
            text.push('}');
            Ok(text)
        }
    }

    let mut json = serde_json::Deserializer::from_str(json.get());
    serde::Deserializer::deserialize_map(&mut json, Others(left_out))
        .map_err(|error| FieldError::new("event", format!("cannot be read: {error}")))
}

/// The string of a field that has to be there.
pub(super) fn required(raw: Option<&RawValue>) -> Found<String> {
    raw.ok_or_else(|| "is required".to_owned()).and_then(string)
}

/// The characters of a JSON string.
pub(super) fn string(raw: &RawValue) -> Found<String> {
    match raw.get().starts_with('"') {
        true => unescaped(raw),
        false => Err(format!("must be a string, is {}", kind(raw))),
    }
}

/// The characters of a JSON string, or the digits of a number.
pub(super) fn string_or_number(raw: &RawValue) -> Found<String> {
    match kind(raw) {
        "a string" => unescaped(raw),
        "a number" => Ok(raw.get().to_owned()),
        other => Err(format!("must be a string or a number, is {other}")),
    }
}

fn unescaped(raw: &RawValue) -> Found<String> {
    serde_json::from_str(raw.get()).map_err(|_| "holds a lone surrogate".to_owned())
}

/// What a JSON value is, for a sentence.
pub(super) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn leaves_members_out() {
        let json = r#"{"a": 1, "\u0062": {"c": 2}, "d\n": [3], "a": 4}"#;
        for (left_out, expected) in [
            (&[][..], r#"{"a":1,"b":{"c": 2},"d\n":[3],"a":4}"#),
            (&["a", "c"], r#"{"b":{"c": 2},"d\n":[3]}"#),
            (&["a", "b", "d\n"], "{}"),
        ] {
            assert_eq!(others(raw(json), left_out).unwrap(), expected);
        }
        assert!(others(raw("[]"), &[]).is_err());
        assert!(others(raw(r#"{"\ud800":1}"#), &[]).is_err());
    }

    #[test]
    fn finds_members() {
        let json = raw(r#"{"b": 1, "x": {"a": 2}, "\u0061": [3], "b": 4}"#);
        let found = members(json, &["a", "b", "c", "a.b"]).unwrap();
        let found = found.map(|one| one.map(RawValue::get));
        assert_eq!(found, [Some("[3]"), Some("4"), None, None]);
        for other in ["[]", "7", "null", "\"{}\""] {
            assert!(members(raw(other), &["a"]).is_err(), "{other}");
        }
    }

    #[test]
    fn reads_strings_and_numbers() {
        for (json, expected) in [
            (r#""\u0065""#, Ok("e")),
            ("1.50", Ok("1.50")),
            (r#""\udc00""#, Err("holds a lone surrogate")),
            ("null", Err("must be a string or a number, is null")),
            ("{}", Err("must be a string or a number, is an object")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(string_or_number(raw(json)), expected, "{json}");
        }
        assert_eq!(string(raw("1")), Err("must be a string, is a number".to_owned()));
    }
}
