//! Events as bytes, on their way into the statement that is a commit.
//!
//! One event is the lengths of its fields, then the fields, all without a
//! separator; several are one after the other, and so are those of a group:
//!
//! | | bytes |
//! | --- | --- |
//! | length of the payload, lowest byte first | 4 |
//! | lengths of topic, event id, source, timestamp (0: none), likewise | 4 × 2 |
//! | content, topic, event id, source, timestamp, payload | |
//!
//! It is how engines keep events for the statement that stores them.

use super::model::StoreError;
use crate::event::{CONTENT_DIGEST_BYTES, Event};

/// Before the fields of an event.
pub(super) const LENGTHS_BYTES: usize = 4 + 4 * 2;

/// The bits that a length of a name has at most. No name is longer than 255 characters of
/// four bytes, no timestamp longer than 64 bytes.
pub(super) const LENGTH_BITS: u32 = 10;

/// The events, as bytes.
///
/// # Errors
///
/// None that an [`Event`] can cause.
pub(super) fn encode(events: &[&Event]) -> Result<Vec<u8>, StoreError> {
    let bytes = events.iter().map(|event| {
        LENGTHS_BYTES
            + CONTENT_DIGEST_BYTES
            + names(event).iter().map(|name| name.len()).sum::<usize>()
            + event.payload().len()
    });
    let mut encoded = Vec::with_capacity(bytes.sum());
    for event in events {
        let payload = u32::try_from(event.payload().len()).map_err(StoreError::unexpected)?;
        encoded.extend_from_slice(&payload.to_le_bytes());
        let names = names(event);
        for name in names {
            let length = u16::try_from(name.len()).map_err(StoreError::unexpected)?;
            encoded.extend_from_slice(&length.to_le_bytes());
        }
        encoded.extend_from_slice(event.content());
        for name in names {
            encoded.extend_from_slice(name.as_bytes());
        }
        encoded.extend_from_slice(event.payload().as_bytes());
    }
    Ok(encoded)
}

/// Topic, event id, source, timestamp.
fn names(event: &Event) -> [&str; 4] {
    let timestamp = event.timestamp().unwrap_or_default();
    [event.topic().as_str(), event.event_id().as_str(), event.source().as_str(), timestamp]
}

/// An event in its bytes.
pub(super) struct Encoded<'a> {
    pub(super) content: &'a [u8],
    pub(super) topic: &'a [u8],
    pub(super) event_id: &'a [u8],
    pub(super) source: &'a [u8],
    /// Empty: none.
    pub(super) timestamp: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Takes events apart, one after the other.
pub(super) struct Events<'a> {
    left: &'a [u8],
}

/// The events in `encoded`.
pub(super) fn events(encoded: &[u8]) -> Events<'_> {
    Events { left: encoded }
}

impl<'a> Events<'a> {
    /// How many bytes have not been taken apart.
    pub(super) fn bytes_left(&self) -> usize {
        self.left.len()
    }

    fn next_event(&mut self) -> Option<Encoded<'a>> {
        let (payload, mut lengths) = self.take(LENGTHS_BYTES)?.split_first_chunk::<4>()?;
        let payload = usize::try_from(u32::from_le_bytes(*payload)).ok()?;
        let mut names = [0; 4];
        for name in &mut names {
            let (length, rest) = lengths.split_first_chunk::<2>()?;
            *name = usize::from(u16::from_le_bytes(*length));
            if *name >> LENGTH_BITS > 0 {
                return None;
            }
            lengths = rest;
        }
        let [topic, event_id, source, timestamp] = names;
        Some(Encoded {
            content: self.take(CONTENT_DIGEST_BYTES)?,
            topic: self.take(topic)?,
            event_id: self.take(event_id)?,
            source: self.take(source)?,
            timestamp: self.take(timestamp)?,
            payload: self.take(payload)?,
        })
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(bytes)?;
        self.left = left;
        Some(taken)
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Encoded<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let event = self.next_event();
        if event.is_none() {
            self.left = &[];
        }
        Some(event.ok_or_else(|| StoreError::unexpected("bytes that are no event")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn events_are_what_they_were_and_bytes_that_are_none_are_told() {
        let first = sample("t", "a", r#"{"a":"é"}"#);
        let second = sample("topic", "b", "1");
        let encoded = encode(&[&first, &second]).unwrap();
        let apart = [encode(&[&first]).unwrap(), encode(&[&second]).unwrap()].concat();
        assert_eq!(encoded, apart, "a group is its members, one after the other");
        let events: Vec<_> = events(&encoded).map(Result::unwrap).collect();
        assert_eq!(events.len(), 2);
        for (event, expected) in events.iter().zip([&first, &second]) {
            assert_eq!(event.content, expected.content());
            assert_eq!(event.topic, expected.topic().as_str().as_bytes());
            assert_eq!(event.event_id, expected.event_id().as_str().as_bytes());
            assert_eq!(event.source, expected.source().as_str().as_bytes());
            assert_eq!(event.timestamp, expected.timestamp().unwrap_or_default().as_bytes());
            assert_eq!(event.payload, expected.payload().as_bytes());
        }
        let is_whole = |bytes: &[u8]| super::events(bytes).all(|event| event.is_ok());
        let first = encode(&[&first]).unwrap().len();
        for cut in (1..encoded.len()).filter(|cut| *cut != first) {
            assert!(!is_whole(&encoded[..cut]), "cut off after {cut}");
        }
        let mut too_long = encoded;
        too_long[5] = 4;
        assert!(!is_whole(&too_long), "a topic of 1024 bytes");
    }
}
