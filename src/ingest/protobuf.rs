//! Protocol buffers as they come: a reader of fields that copies nothing.
//!
//! It is our own, since the libraries decode into values that are owned. An empty
//! attribute is two bytes on the wire and a hundred or more as a value, so that
//! a body within the limit would take hundreds of megabytes. Here a message is a
//! slice of the body, and is read field by field, as often as need be.

use std::fmt;

/// Most bytes of a variable-length integer.
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// A field goes on where the message ends.
    EndsEarly,
    /// A variable-length integer of more than 64 bits.
    LongVarint,
    /// A field whose number is 0, or more than there are.
    FieldNumber,
    /// A wire type that there is not, or that of groups, which nobody sends.
    WireType(u8),
    /// A field that is there as another type than it has.
    WrongType(&'static str),
    /// A string that is not UTF-8.
    NotUtf8(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::EndsEarly => f.write_str("a field goes on where its message ends"),
            WireError::LongVarint => f.write_str("a number has more than 64 bits"),
            WireError::FieldNumber => f.write_str("a field has a number that there is not"),
            WireError::WireType(given) => write!(f, "a field is of wire type {given}"),
            WireError::WrongType(name) => write!(f, "{name} has the wrong wire type"),
            WireError::NotUtf8(name) => write!(f, "{name} is not UTF-8"),
        }
    }
}

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// One field of a message. What it is asked for is named as its type's
/// definition names it, for the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its number.
    pub(super) number: u32,
    wire: Wire<'a>,
}

impl<'a> Field<'a> {
    /// An integer, a boolean or an enumeration.
    pub(super) fn varint(self, name: &'static str) -> Result<u64, WireError> {
        match self.wire {
            Wire::Varint(number) => Ok(number),
            _ => Err(WireError::WrongType(name)),
        }
    }

    /// Eight bytes.
    pub(super) fn fixed64(self, name: &'static str) -> Result<u64, WireError> {
        match self.wire {
            Wire::Fixed64(number) => Ok(number),
            _ => Err(WireError::WrongType(name)),
        }
    }

    /// Four bytes.
    pub(super) fn fixed32(self, name: &'static str) -> Result<u32, WireError> {
        match self.wire {
            Wire::Fixed32(number) => Ok(number),
            _ => Err(WireError::WrongType(name)),
        }
    }

    /// Bytes, or a message.
    pub(super) fn bytes(self, name: &'static str) -> Result<&'a [u8], WireError> {
        match self.wire {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WrongType(name)),
        }
    }

    /// A string.
    pub(super) fn text(self, name: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| WireError::NotUtf8(name))
    }
}

/// The fields of one message, in its order; after an error there are no more.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of `message`.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, WireError> {
        const NUMBER_MAX: u64 = (1 << 29) - 1;
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > NUMBER_MAX {
            return Err(WireError::FieldNumber);
        }
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::EndsEarly)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::WireType(other as u8)),
        };
        Ok(Field { number: number as u32, wire })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::EndsEarly)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for index in 0..VARINT_BYTES_MAX {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if (bits << shift) >> shift != bits {
                return Err(WireError::LongVarint);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::LongVarint)
    }
}

/// Appends an integer field; 0, which is the default, is left out.
pub(super) fn push_varint(message: &mut Vec<u8>, number: u32, value: u64) {
    if value > 0 {
        push_number(message, u64::from(number) << 3);
        push_number(message, value);
    }
}

/// Appends a field of bytes, a string or a message.
pub(super) fn push_bytes(message: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    push_number(message, u64::from(number) << 3 | 2);
    push_number(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn push_number(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        fields(message).collect()
    }

    #[test]
    fn reads_each_wire_type() {
        let message = [
            &[0x08, 0x96, 0x01][..],
            &[0x11, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x1a, 2, b'h', b'i'],
            &[0x25, 1, 2, 3, 4],
            &[0xa2, 0x06, 0],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ]
        .concat();
        let read = read(&message).unwrap();
        assert_eq!(read.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2, 3, 4, 100, 1]);
        assert_eq!(read[0].varint("a"), Ok(150));
        assert_eq!(read[1].fixed64("b"), Ok(0x0807_0605_0403_0201));
        assert_eq!(read[2].text("c"), Ok("hi"));
        assert_eq!(read[3].fixed32("d"), Ok(0x0403_0201));
        assert_eq!(read[4].bytes("e"), Ok(&[][..]));
        assert_eq!(read[5].varint("f"), Ok(u64::MAX));
        assert_eq!(read[0].text("a"), Err(WireError::WrongType("a")));
        assert_eq!(read[2].varint("c"), Err(WireError::WrongType("c")));
    }

    #[test]
    fn says_what_is_no_message() {
        for (message, expected) in [
            (&[0x08][..], WireError::EndsEarly),
            (&[0x08, 0x80], WireError::EndsEarly),
            (&[0x11, 1, 2, 3], WireError::EndsEarly),
            (&[0x1a, 2, b'h'], WireError::EndsEarly),
            (&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], WireError::EndsEarly),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
                WireError::LongVarint,
            ),
            (&[0x80; 12], WireError::LongVarint),
            (&[0x00, 0], WireError::FieldNumber),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 0], WireError::FieldNumber),
            (&[0x0b], WireError::WireType(3)),
            (&[0x0c], WireError::WireType(4)),
            (&[0x0f], WireError::WireType(7)),
        ] {
            assert_eq!(read(message), Err(expected), "{message:x?}");
        }
        let not_utf8 = read(&[0x0a, 1, 0xff]).unwrap();
        assert_eq!(not_utf8[0].text("name"), Err(WireError::NotUtf8("name")));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        push_varint(&mut message, 1, 0);
        push_varint(&mut message, 2, 300);
        push_bytes(&mut message, 1000, "é".repeat(100).as_bytes());
        let read = read(&message).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].number, read[0].varint("n")), (2, Ok(300)));
        assert_eq!((read[1].number, read[1].text("t")), (1000, Ok("é".repeat(100).as_str())));
    }
}
