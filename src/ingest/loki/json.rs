//! A push in JSON: `{"streams": [{"stream": {…}, "values": [["nanoseconds", "line"]]}]}`.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::entry::{Entry, Wrong};
use super::labels::Labels;
use super::split::Split;
use crate::ingest::format::BodyError;
use crate::ingest::json_message::{Each, Message, One, Pieces, piece, read, skip, text as text_of};
use crate::ingest::json_text::JsonText;
use crate::ingest::key::Key;

/// The entries of a push.
///
/// # Errors
///
/// When it is none, or has more entries than it may.
pub(super) fn split(body: &[u8], entries_max: usize) -> Result<Split<'_>, BodyError> {
    let mut push = Push { split: Split::new(entries_max) };
    let read = read(body, &mut push);
    if push.split.are_too_many {
        return Err(BodyError::TooManyEvents);
    }
    let refused = |why| BodyError::invalid(format!("The body is not a push: {why}."));
    read.map(|()| push.split).map_err(refused)
}

struct Push<'a> {
    split: Split<'a>,
}

impl<'de> Message<'de> for Push<'de> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "streams" => {
                map.next_value_seed(Each(&mut Stream { split: &mut self.split, labels: None }))
            }
            _ => skip(map),
        }
    }
}

struct Stream<'s, 'a> {
    split: &'s mut Split<'a>,
    labels: Option<&'a [u8]>,
}

impl<'de> Message<'de> for Stream<'_, 'de> {
    fn begin(&mut self) -> Result<(), String> {
        self.labels = None;
        self.split.open();
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "stream" => self.labels = piece(map)?,
            "values" => map.next_value_seed(Pieces("entries", |entry| self.split.push(entry)))?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(&mut self) {
        self.split.close(self.labels);
    }
}

/// The labels of a stream.
///
/// # Errors
///
/// A phrase that says what is wrong with them.
pub(super) fn labels(piece: &[u8]) -> Result<Labels, String> {
    let mut object = Object { labels: Vec::new() };
    read(piece, &mut object).map_err(|why| format!("cannot be read: {why}"))?;
    Ok(object.labels)
}

struct Object {
    labels: Labels,
}

impl<'de> Message<'de> for Object {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let Key(value) = map.next_value()?;
        self.labels.push((name.to_owned(), value.into_owned()));
        Ok(())
    }
}

/// Writes the line and the metadata of an entry.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn entry(piece: &[u8], text: &mut JsonText) -> Result<Entry, Wrong> {
    let piece = text_of(piece).map_err(Wrong::entry)?;
    let mut deserializer = serde_json::Deserializer::from_str(piece);
    let time = deserializer.deserialize_seq(Value { text }).map_err(Wrong::entry)?;
    Ok(Entry { at: time.trim_matches('"').parse().map_err(|_| Wrong::time())? })
}

/// Reads `["nanoseconds", "line", {metadata}]`; gives the time.
struct Value<'t> {
    text: &'t mut JsonText,
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of a time and a line")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<&'de str, A::Error> {
        let missing = || A::Error::custom("an entry is an array of a time and a line");
        let time: &RawValue = seq.next_element()?.ok_or_else(missing)?;
        let Key(line) = seq.next_element()?.ok_or_else(missing)?;
        self.text.key("line");
        self.text.string(&line);
        let from = self.text.len();
        self.text.key("metadata");
        let at = self.text.len();
        self.text.bracket(b'{');
        seq.next_element_seed(One(&mut Metadata { text: self.text }))?;
        self.text.close_unless_empty(from, at, b'}');
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(time.get())
    }
}

struct Metadata<'t> {
    text: &'t mut JsonText,
}

impl<'de> Message<'de> for Metadata<'_> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let Key(value) = map.next_value()?;
        self.text.key(name);
        self.text.string(&value);
        Ok(())
    }
}
