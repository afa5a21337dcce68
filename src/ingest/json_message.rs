//! Messages of protocol buffers in JSON, read field by field as they stand in the body.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::key::Key;

/// Reads a message, which `null` stands for when it has no fields.
pub(super) fn read<'a>(piece: &'a [u8], message: &mut impl Message<'a>) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(text(piece)?);
    let read = One(message).deserialize(&mut deserializer);
    read.and_then(|()| deserializer.end()).map_err(|error| error.to_string())
}

/// A piece of a body as text.
///
/// # Errors
///
/// A phrase, when it is none.
pub(super) fn text(piece: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(piece)
        .map_err(|error| format!("it is not UTF-8 (at byte {})", error.valid_up_to()))
}

/// What takes the fields of a message, or of one after the other.
pub(super) trait Message<'de> {
    /// Another message begins.
    ///
    /// # Errors
    ///
    /// When there may be none.
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Takes the value of one field; one that is not known has to be skipped.
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// The message ends.
    fn end(&mut self) {}
}

/// Reads one message.
pub(super) struct One<'m, M>(pub(super) &'m mut M);

impl<'de, M: Message<'de>> DeserializeSeed<'de> for One<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Rather than any, which would be a parser of its own for each message.
        deserializer.deserialize_option(self)
    }
}

impl<'de, M: Message<'de>> Visitor<'de> for One<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.begin().map_err(A::Error::custom)?;
        while let Some(Key(name)) = map.next_key()? {
            self.0.field(&name, &mut map)?;
        }
        self.0.end();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.0.begin().map_err(E::custom)?;
        self.0.end();
        Ok(())
    }
}

/// Reads an array of messages; `null` is an empty one.
pub(super) struct Each<'m, M>(pub(super) &'m mut M);

impl<'de, M: Message<'de>> DeserializeSeed<'de> for Each<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, M: Message<'de>> Visitor<'de> for Each<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(One(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Hands on the elements of an array as they stand in the body, of whatever kind they
/// are, until one is refused; `null` is an empty one. The first says what they are, for
/// an error.
pub(super) struct Pieces<F>(pub(super) &'static str, pub(super) F);

impl<'de, E, F: FnMut(&'de [u8]) -> Result<(), E>> DeserializeSeed<'de> for Pieces<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, E, F: FnMut(&'de [u8]) -> Result<(), E>> Visitor<'de> for Pieces<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of {}", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&RawValue>()? {
            let taken = (self.1)(element.get().as_bytes());
            taken.map_err(|_| A::Error::custom(format_args!("too many {}", self.0)))?;
        }
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_none<N>(self) -> Result<(), N> {
        Ok(())
    }
}

/// Passes over a field that is not known.
pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>()?;
    Ok(())
}

/// A value as it stands in the body; `null` is none.
pub(super) fn piece<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<&'de [u8]>, A::Error> {
    let raw: Option<&RawValue> = map.next_value()?;
    Ok(raw.map(|raw| raw.get().as_bytes()))
}
