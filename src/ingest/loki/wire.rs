//! A push in protocol buffers. The numbers of fields are those of `pkg/push/push.proto`.

use super::entry::{Entry, Wrong};
use super::labels::{self, Labels};
use super::split::Split;
use crate::ingest::format::BodyError;
use crate::ingest::json_text::JsonText;
use crate::ingest::protobuf::{Field, WireError, fields};

/// The entries of a `PushRequest`.
///
/// # Errors
///
/// When it is no such message, or has more entries than it may.
pub(super) fn split(body: &[u8], entries_max: usize) -> Result<Split<'_>, BodyError> {
    let refused =
        |error: WireError| BodyError::invalid(format!("The body is not a PushRequest: {error}."));
    let mut split = Split::new(entries_max);
    for field in fields(body) {
        let field = field.map_err(refused)?;
        if field.number != 1 {
            continue;
        }
        split.open();
        let mut labels = None;
        for field in fields(field.bytes("streams").map_err(refused)?) {
            let field = field.map_err(refused)?;
            match field.number {
                1 => labels = Some(field.bytes("labels").map_err(refused)?),
                2 => split.push(field.bytes("entries").map_err(refused)?)?,
                _ => {}
            }
        }
        split.close(labels);
    }
    Ok(split)
}

/// The labels of a stream.
///
/// # Errors
///
/// A phrase that says what is wrong with them.
pub(super) fn labels(piece: &[u8]) -> Result<Labels, String> {
    labels::parse(std::str::from_utf8(piece).map_err(|_| "are not UTF-8")?)
}

/// Writes the line and the metadata of an `Entry`.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn entry(message: &[u8], text: &mut JsonText) -> Result<Entry, Wrong> {
    let (mut at, mut line) = (0, "");
    for field in fields(message) {
        let field = field.map_err(Wrong::entry)?;
        match field.number {
            1 => at = time(field)?,
            2 => line = field.text("line").map_err(Wrong::entry)?,
            _ => {}
        }
    }
    text.key("line");
    text.string(line);
    metadata(message, text).map_err(Wrong::entry)?;
    Ok(Entry { at })
}

/// A `google.protobuf.Timestamp` in nanoseconds.
fn time(field: Field<'_>) -> Result<u64, Wrong> {
    const SECOND_NANOS: u64 = 1_000_000_000;
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(field.bytes("timestamp").map_err(Wrong::entry)?) {
        let field = field.map_err(Wrong::entry)?;
        match field.number {
            1 => seconds = field.varint("seconds").map_err(Wrong::entry)?,
            2 => nanos = field.varint("nanos").map_err(Wrong::entry)?,
            _ => {}
        }
    }
    if nanos >= SECOND_NANOS {
        return Err(Wrong::time());
    }
    let whole = seconds.checked_mul(SECOND_NANOS);
    whole.and_then(|whole| whole.checked_add(nanos)).ok_or_else(Wrong::time)
}

/// The `structuredMetadata` as an object; without any there is none.
fn metadata(message: &[u8], text: &mut JsonText) -> Result<(), WireError> {
    let from = text.len();
    text.key("metadata");
    let at = text.len();
    text.bracket(b'{');
    for field in fields(message) {
        let field = field?;
        if field.number != 3 {
            continue;
        }
        let (mut name, mut value) = ("", "");
        for field in fields(field.bytes("structuredMetadata")?) {
            let field = field?;
            match field.number {
                1 => name = field.text("the name of metadata")?,
                2 => value = field.text("the value of metadata")?,
                _ => {}
            }
        }
        text.key(name);
        text.string(value);
    }
    text.close_unless_empty(from, at, b'}');
    Ok(())
}
