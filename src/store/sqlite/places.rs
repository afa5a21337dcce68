//! Where the events of a commit are in its bytes.
//!
//! SQL cannot read lengths out of bytes at a fair price. So beside the bytes it gets
//! the [`places`] of the events in them, as the numbers of a JSON object: what SQLite
//! parses of a commit is a few digits for each event, and each field is copied out of
//! the bytes once.

use std::fmt::Write as _;

use crate::event::CONTENT_DIGEST_BYTES;
use crate::store::encoding::{self, LENGTH_BITS, LENGTHS_BYTES};
use crate::store::engine::Deliveries;
use crate::store::model::StoreError;

/// The bits that are left for where an event begins.
const BEGIN_BITS: u32 = 63 - 3 * LENGTH_BITS;

/// The bytes of a group of deliveries.
pub(super) fn bytes_of(group: &[&Deliveries]) -> Vec<u8> {
    let mut bytes =
        Vec::with_capacity(group.iter().map(|deliveries| deliveries.encoded.len()).sum());
    for deliveries in group {
        bytes.extend_from_slice(&deliveries.encoded);
    }
    bytes
}

/// Where the `count` events of `encoded` are in it, as the triggers of `schema.sql`
/// want it: a JSON object with a member for each, in their order. Its name is a number
/// of the lengths of payload and timestamp, the last of 10 bits; its value one of the
/// place of the topic, from 1 on, and the lengths of topic, event id and source, of 10
/// bits each. So an event is one row of `json_each`, and nothing of it is an array
/// that would have to be parsed again.
///
/// # Errors
///
/// When `encoded` is none that [`encode`](encoding::encode) made, or has another number of events.
pub(super) fn places(encoded: &[u8], count: usize) -> Result<String, StoreError> {
    const PLACE_BYTES: usize = 32;
    if u64::try_from(encoded.len()).is_ok_and(|bytes| bytes >> BEGIN_BITS > 0) {
        return Err(StoreError::unexpected("more bytes than have a place"));
    }
    let mut places = String::with_capacity(PLACE_BYTES * count + 2);
    places.push('{');
    let mut events = encoding::events(encoded);
    let mut found = 0;
    loop {
        let at = encoded.len() - events.bytes_left();
        let Some(event) = events.next().transpose()? else { break };
        let begin = at + LENGTHS_BYTES + CONTENT_DIGEST_BYTES + 1;
        let of_names = joined([begin, event.topic.len(), event.event_id.len(), event.source.len()]);
        let of_texts = joined([event.payload.len(), event.timestamp.len()]);
        let comma = if found > 0 { "," } else { "" };
        write!(places, "{comma}\"{of_texts}\":{of_names}").map_err(StoreError::unexpected)?;
        found += 1;
    }
    places.push('}');
    if found != count {
        return Err(StoreError::unexpected(format_args!("{found} events, not {count}")));
    }
    Ok(places)
}

/// One number of several: all but the first have [`LENGTH_BITS`].
fn joined<const N: usize>(numbers: [usize; N]) -> u64 {
    numbers.into_iter().fold(0, |all, number| all << LENGTH_BITS | number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn a_place_for_each_event_or_none_at_all() {
        let events = [sample("t", "a", r#"{"a":"é"}"#), sample("topic", "b", "1")];
        let encoded = encoding::encode(&events.each_ref()).unwrap();
        assert!(places(&encoded, 2).is_ok());
        assert!(places(&encoded, 3).is_err());
        assert!(places(&encoded[..encoded.len() - 1], 2).is_err());
    }
}
