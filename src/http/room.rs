//! How much of a list a short reply holds.
//!
//! Fluent Bit keeps 4,096 bytes of a reply, head and body together, takes a
//! longer one for a failure, and sends the request again for ever. So the replies
//! to a publish end their lists early, and say how much is not listed.

use serde::Serialize;

use crate::text;

/// Longest body of a reply to a publish that does not ask for every event, in
/// bytes. Some 200 are the head; the rest of the 4,096 is for the headers that
/// proxies add.
pub(crate) const PUBLISH_REPLY_BYTES_MAX: usize = 3_499;

/// What a list adds to a reply beside its elements.
const AROUND_LIST: &str = r#","results":[],"results_omitted":18446744073709551615"#;

/// Room for the elements of a list, in bytes.
pub(crate) struct Room {
    bytes_left: usize,
}

impl Room {
    /// The room that a publish has beside `reply`, whose list is empty.
    pub(crate) fn beside(reply: &impl Serialize) -> Self {
        let taken = AROUND_LIST.len() + json_bytes(reply);
        Room { bytes_left: PUBLISH_REPLY_BYTES_MAX.saturating_sub(taken) }
    }

    /// Whether there is room for `element` too, which takes it then.
    pub(crate) fn takes(&mut self, element: &impl Serialize) -> bool {
        let left = self.bytes_left.checked_sub(json_bytes(element) + ",".len());
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }
}

fn json_bytes(value: &impl Serialize) -> usize {
    // What cannot be written is as good as too long.
    text::to_json(value).map_or(PUBLISH_REPLY_BYTES_MAX, |json| json.len())
}
