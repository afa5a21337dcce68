//! What the fields of OTLP in JSON hold.

use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error, MapAccess};
use serde_json::value::RawValue;

use super::form::{VALUE_DEPTH_MAX, too_deep};
use crate::ingest::json_message::{Each, Message, One, skip};
use crate::ingest::json_text::JsonText;
use crate::ingest::key::Key;

/// An `AnyValue`, or the elements of an array one after the other. Of several kinds in
/// it the last counts.
pub(super) struct Value<'t> {
    text: &'t mut JsonText,
    depth: usize,
    /// Whether it is an element, so that there is to be a comma before it.
    is_element: bool,
    /// Where it begins.
    at: usize,
}

impl<'t> Value<'t> {
    /// A value `depth` deep.
    pub(super) fn new(text: &'t mut JsonText, depth: usize) -> Self {
        Value { text, depth, is_element: false, at: 0 }
    }

    /// The text without what was written of the value before.
    fn anew(&mut self) -> &mut JsonText {
        self.text.truncate(self.at);
        self.text
    }
}

impl<'de> Message<'de> for Value<'_> {
    fn begin(&mut self) -> Result<(), String> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(too_deep());
        }
        if self.is_element {
            self.text.separate();
        }
        self.at = self.text.len();
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "stringValue" | "string_value" => {
                if let Some(Key(value)) = map.next_value()? {
                    self.anew().string(&value);
                }
            }
            "boolValue" | "bool_value" => {
                if let Some(value) = map.next_value::<Option<bool>>()? {
                    self.anew().word(value);
                }
            }
            "intValue" | "int_value" => {
                if let Some(value) = given::<i64, A>(map, "int_value")? {
                    self.anew().word(value);
                }
            }
            "doubleValue" | "double_value" => {
                if let Some(value) = given::<f64, A>(map, "double_value")? {
                    self.anew().double(value);
                }
            }
            "bytesValue" | "bytes_value" => {
                if let Some(Key(value)) = map.next_value()? {
                    self.anew().base64(&bytes(&value).map_err(A::Error::custom)?);
                }
            }
            "arrayValue" | "array_value" => {
                let depth = self.depth + 1;
                let mut array = Array { text: self.anew(), depth };
                map.next_value_seed(One(&mut array))?;
            }
            "kvlistValue" | "kvlist_value" => {
                let depth = self.depth + 1;
                let mut list = KeyValueList { text: self.anew(), depth };
                map.next_value_seed(One(&mut list))?;
            }
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.text.len() == self.at {
            self.text.word("null");
        }
    }
}

struct Array<'t> {
    text: &'t mut JsonText,
    depth: usize,
}

impl<'de> Message<'de> for Array<'_> {
    fn begin(&mut self) -> Result<(), String> {
        self.text.bracket(b'[');
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "values" => {
                let mut element = Value::new(self.text, self.depth);
                element.is_element = true;
                map.next_value_seed(Each(&mut element))
            }
            _ => skip(map),
        }
    }

    fn end(&mut self) {
        self.text.bracket(b']');
    }
}

struct KeyValueList<'t> {
    text: &'t mut JsonText,
    depth: usize,
}

impl<'de> Message<'de> for KeyValueList<'_> {
    fn begin(&mut self) -> Result<(), String> {
        self.text.bracket(b'{');
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "values" => map.next_value_seed(Each(&mut KeyValue::new(self.text, self.depth))),
            _ => skip(map),
        }
    }

    fn end(&mut self) {
        self.text.bracket(b'}');
    }
}

/// A `KeyValue`, or one after the other, as members of an object.
struct KeyValue<'t> {
    text: &'t mut JsonText,
    depth: usize,
    has_key: bool,
    /// Where its value begins, when that is there.
    value: Option<usize>,
}

impl<'t> KeyValue<'t> {
    fn new(text: &'t mut JsonText, depth: usize) -> Self {
        KeyValue { text, depth, has_key: false, value: None }
    }

    fn set_key(&mut self, key: &str) {
        self.has_key = true;
        match self.value {
            Some(at) => self.text.key_before(at, key),
            None => self.text.key(key),
        }
    }
}

impl<'de> Message<'de> for KeyValue<'_> {
    fn begin(&mut self) -> Result<(), String> {
        (self.has_key, self.value) = (false, None);
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "key" if !self.has_key => {
                let key: Option<Key<'_>> = map.next_value()?;
                self.set_key(key.as_ref().map_or("", |Key(key)| key));
                Ok(())
            }
            "value" if self.value.is_none() => {
                self.value = Some(self.text.len());
                map.next_value_seed(One(&mut Value::new(self.text, self.depth)))
            }
            "key" | "value" => {
                Err(A::Error::custom(format!("the {name} of an attribute is there twice")))
            }
            _ => skip(map),
        }
    }

    fn end(&mut self) {
        if !self.has_key {
            self.set_key("");
        }
        if self.value.is_none() {
            self.text.word("null");
        }
    }
}

/// A list of attributes as an object; without any there is none.
pub(super) fn attributes<'de, A: MapAccess<'de>>(
    text: &mut JsonText,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    let from = text.len();
    text.key(key);
    let at = text.len();
    text.bracket(b'{');
    map.next_value_seed(Each(&mut KeyValue::new(text, 1)))?;
    text.close_unless_empty(from, at, b'}');
    Ok(())
}

/// A number, as one or as a string; `null` is none.
fn given<'de, N: FromStr, A: MapAccess<'de>>(
    map: &mut A,
    name: &str,
) -> Result<Option<N>, A::Error> {
    let raw: Option<&RawValue> = map.next_value()?;
    let Some(text) = raw.map(RawValue::get) else { return Ok(None) };
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let number = quoted.unwrap_or(text).parse();
    number.map(Some).map_err(|_| A::Error::custom(format!("{name} is not such a number")))
}

/// A number that is 0 when there is none.
pub(super) fn integer<'de, N: FromStr + Default, A: MapAccess<'de>>(
    map: &mut A,
    name: &str,
) -> Result<N, A::Error> {
    given(map, name).map(Option::unwrap_or_default)
}

/// A severity, by its number or by its name.
pub(super) fn severity<'de, A: MapAccess<'de>>(map: &mut A) -> Result<i32, A::Error> {
    let raw: Option<&RawValue> = map.next_value()?;
    let text = raw.map_or("0", RawValue::get).trim_matches('"');
    let number = text.parse().ok().or_else(|| severity_of(text));
    number.ok_or_else(|| A::Error::custom("severity_number is none that there is"))
}

/// The number of a severity's name, such as `SEVERITY_NUMBER_INFO2`.
fn severity_of(name: &str) -> Option<i32> {
    const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    /// So many numbers belong to a level.
    const STEPS: i32 = 4;
    let name = name.strip_prefix("SEVERITY_NUMBER_")?;
    if name == "UNSPECIFIED" {
        return Some(0);
    }
    let level = name.trim_end_matches(['2', '3', '4']);
    let step = match &name[level.len()..] {
        "" => 1,
        step => step.parse().ok().filter(|step| *step <= STEPS)?,
    };
    let at = LEVELS.iter().position(|one| *one == level)?;
    Some(at as i32 * STEPS + step)
}

/// A number; 0 is the same as none.
pub(super) fn number<N: Default + PartialEq + std::fmt::Display>(
    text: &mut JsonText,
    key: &str,
    number: N,
) {
    if number != N::default() {
        text.key(key);
        text.word(number);
    }
}

/// A string; an empty one is the same as none.
pub(super) fn string<'de, A: MapAccess<'de>>(
    text: &mut JsonText,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    let value: Option<Key<'_>> = map.next_value()?;
    if let Some(Key(value)) = value.filter(|Key(value)| !value.is_empty()) {
        text.key(key);
        text.string(&value);
    }
    Ok(())
}

/// The id of a trace or a span, in hexadecimal.
pub(super) fn identifier<'de, A: MapAccess<'de>>(
    text: &mut JsonText,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    let id: Option<Key<'_>> = map.next_value()?;
    let Some(Key(id)) = id.filter(|Key(id)| !id.is_empty()) else { return Ok(()) };
    if id.len() % 2 > 0 || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(A::Error::custom(format!("{key} is not hexadecimal")));
    }
    text.key(key);
    text.string(&id.to_ascii_lowercase());
    Ok(())
}

/// The bytes of base64 in either alphabet, padded or not.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
    let decoded = match text.contains(['-', '_']) {
        true => ENGINE.decode(text.replace('-', "+").replace('_', "/")),
        false => ENGINE.decode(text),
    };
    decoded.map_err(|_| "bytes_value is not base64".to_owned())
}
