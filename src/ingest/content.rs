//! Ids for events whose clients give them none.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::text::hex;

/// Length of the digest in an id, in bytes: SHA-256, cut in half.
const DIGEST_BYTES: usize = 16;

/// The ids by content of one request.
///
/// An id is a digest of topic, source, time and record, and of which equal one of its
/// request it is. So a request that is sent again names the same events, and of equal
/// records in one request each is kept. What it cannot tell apart are equal records of
/// two requests: records need a fine time in them, or something else that differs.
#[derive(Default)]
pub(crate) struct ContentIds {
    /// How often each was seen in this request.
    seen: BTreeMap<[u8; DIGEST_BYTES], usize>,
}

impl ContentIds {
    /// The id of the next record of the request: 32 hexadecimal digits, and from the
    /// second equal one on `#1`, `#2`, …
    ///
    /// `timestamp` is there for a time that is no part of the record, and `record` is the
    /// encoding of the record's payload.
    pub(crate) fn next(
        &mut self,
        topic: &str,
        source: &str,
        timestamp: Option<&str>,
        record: &[u8],
    ) -> String {
        let mut hash = Sha256::new();
        for name in [topic, source, timestamp.unwrap_or_default()] {
            // Behind its length, so that none runs into the next.
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        hash.update(record);
        let full = hash.finalize();
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&full[..DIGEST_BYTES]);
        let count = self.seen.entry(digest).or_default();
        let hex = hex(&digest);
        let id = numbered(&hex, *count);
        *count += 1;
        id
    }
}

/// The id of the record at `index` of those that share the name `id`.
pub(super) fn numbered(id: &str, index: usize) -> String {
    match index {
        0 => id.to_owned(),
        _ => format!("{id}#{index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;

    fn next(ids: &mut ContentIds, topic: &str, source: &str, time: &str, json: &str) -> String {
        ids.next(topic, source, Some(time), Payload::read(json).unwrap().encoding())
    }

    #[test]
    fn equal_requests_have_equal_ids_and_equal_records_have_not() {
        let request = || {
            let mut ids = ContentIds::default();
            let mut next = |json| next(&mut ids, "t", "s", "", json);
            [next(r#"{"a":1,"b":2}"#), next("2"), next(r#"{"b": 2, "a": 1}"#), next("2")]
        };
        let ids = request();
        assert_eq!(ids, request());
        assert_eq!(ids[0].len(), 32);
        assert_eq!(ids[2], format!("{}#1", ids[0]));
        assert_eq!(ids[3], format!("{}#1", ids[1]));
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn all_that_tells_records_apart_counts() {
        let id =
            |topic, source, time, json| next(&mut ContentIds::default(), topic, source, time, json);
        let one = id("t", "s", "1", "1");
        for other in [
            id("u", "s", "1", "1"),
            id("t", "u", "1", "1"),
            id("t", "s", "2", "1"),
            id("t", "s", "1", "2"),
            id("ts", "", "1", "1"),
            id("t", "s1", "", "1"),
        ] {
            assert_ne!(one, other);
        }
    }
}
