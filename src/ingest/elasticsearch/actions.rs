//! The body of a `_bulk` request: a line that says what is to be done, and a line with
//! the document that it is done with.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ingest::key::Key;
use crate::ingest::record::{kind, members};
use crate::ingest::shapes::BYTE_ORDER_MARK;
use crate::text::shortened;

/// How much of an action that there is not is told back, in bytes.
const TOLD_BACK_BYTES_MAX: usize = 40;

/// What is to be done with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Index,
    Update,
    Delete,
}

impl Verb {
    const ALL: [Verb; 4] = [Verb::Create, Verb::Index, Verb::Update, Verb::Delete];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Index => "index",
            Verb::Update => "update",
            Verb::Delete => "delete",
        }
    }
}

/// One action.
#[derive(Debug)]
pub(super) struct Action<'a> {
    pub(super) verb: Verb,
    /// The value of `_index`.
    pub(super) index: Option<&'a RawValue>,
    /// The value of `_id`.
    pub(super) id: Option<&'a RawValue>,
    /// The line after it; empty for an action that has none.
    pub(super) document: &'a [u8],
}

/// The actions of a body, in its order, or a sentence that says why a line is none.
pub(super) fn actions<'a>(body: &'a [u8]) -> impl Iterator<Item = Result<Action<'a>, String>> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // As Elasticsearch counts them.
    let mut lines = (1..).zip(lines);
    std::iter::from_fn(move || {
        let (number, line) = lines.find(|(_, line)| !line.is_empty())?;
        let malformed = |why| format!("Malformed action/metadata line [{number}], {why}.");
        let mut action = match action(line) {
            Ok(action) => action,
            Err(why) => return Some(Err(malformed(why))),
        };
        if action.verb != Verb::Delete {
            action.document = lines.next().map(|(_, line)| line).unwrap_or_default();
            if action.document.is_empty() {
                return Some(Err(malformed("expected a document in the line after it".into())));
            }
        }
        Some(Ok(action))
    })
}

/// The action of a line, without its document.
fn action(line: &[u8]) -> Result<Action<'_>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let json: &RawValue =
        serde_json::from_str(line).map_err(|error| format!("it is not JSON: {error}"))?;
    if !json.get().starts_with('{') {
        return Err(format!("expected an object but found {}", kind(json)));
    }
    let only = serde_json::Deserializer::from_str(json.get()).deserialize_map(OnlyMember);
    let (name, metadata) = only
        .map_err(|error| format!("it cannot be read: {error}"))?
        .ok_or("expected one action and nothing beside it")?;
    let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.as_str() == name) else {
        return Err(format!(
            "expected create, index, update or delete but found {:?}",
            shortened(&name, TOLD_BACK_BYTES_MAX)
        ));
    };
    let [index, id] = members(metadata, &["_index", "_id"])
        .map_err(|_| format!("expected an object but found {}", kind(metadata)))?
        .map(|value| value.filter(|value| value.get() != "null"));
    Ok(Action { verb, index, id, document: &[] })
}

/// The member of an object that has only one.
struct OnlyMember;

impl<'de> Visitor<'de> for OnlyMember {
    type Value = Option<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some(Key(name)) = map.next_key()? else { return Ok(None) };
        let value = map.next_value()?;
        let mut is_alone = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_alone = false;
        }
        Ok(is_alone.then_some((name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lines() {
        let body = "\u{feff}{\"create\":{\"_index\":\"i\",\"_id\":7,\"_type\":\"_doc\"}}\r\n{}\r\n\n\
                    { \"delete\" : { \"_id\": \"x\" } }\n{\"index\":{\"_id\":null}}\nnot json";
        let found: Vec<_> = actions(body.as_bytes()).map(Result::unwrap).collect();
        let raw = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.verb, raw(one.index), raw(one.id), str::from_utf8(one.document)))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                (Verb::Create, some("\"i\""), some("7"), Ok("{}")),
                (Verb::Delete, None, some("\"x\""), Ok("")),
                (Verb::Index, None, None, Ok("not json")),
            ]
        );
        assert_eq!(actions(b"\n \r\n").count(), 0);
    }

    #[test]
    fn names_the_line_that_is_no_action() {
        for (line, why) in [
            ("7", "an object but found a number"),
            ("[]", "an object but found an array"),
            ("{", "it is not JSON"),
            ("{}", "one action"),
            (r#"{"create":{},"index":{}}"#, "one action"),
            (r#"{"drop":{}}"#, "but found \"drop\""),
            (r#"{"create":"i"}"#, "an object but found a string"),
            (r#"{"create":{}}"#, "a document"),
            ("{\"create\":{}}\n\n", "a document"),
        ] {
            let body = format!("{{\"index\":{{}}}}\n{{}}\n{line}");
            let last = actions(body.as_bytes()).last().unwrap().unwrap_err();
            assert!(last.contains("line [3], ") && last.contains(why), "{line}: {last}");
        }
        let wrong = actions(b"{\"create\":{}}\n{}\n\xff\n").last().unwrap().unwrap_err();
        assert!(wrong.contains("line [3], it is not UTF-8"), "{wrong}");
    }
}
