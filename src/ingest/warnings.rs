//! What a client is told of a request that was stored, though perhaps not as it was
//! meant.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::pointer::Pointer;
use crate::text::shortened;

/// Most names of fields in a warning.
const NAMES_MAX: usize = 5;

/// Longest name of a field in a warning, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// The warnings of one request.
#[derive(Default)]
pub(super) struct Warnings {
    /// Events of which a field was left out.
    cut: usize,
    /// Some of those fields.
    names: BTreeSet<String>,
    /// There are others.
    has_more_names: bool,
    /// Ids are taken from the content of records that have a field `event_id`.
    has_unused_id: bool,
}

impl Warnings {
    /// An event had this field beside its own, and it was left out.
    pub(super) fn left_out(&mut self, field: &str) {
        self.cut += 1;
        if self.names.contains(field) {
            return;
        }
        match self.names.len() < NAMES_MAX {
            true => drop(self.names.insert(shortened(field, NAME_BYTES_MAX).into_owned())),
            false => self.has_more_names = true,
        }
    }

    /// A record whose id is that of its content, as nobody said another.
    pub(super) fn look_for_event_id(&mut self, record: &RawValue) {
        self.has_unused_id |= Pointer::member("event_id").find(record).is_some();
    }

    /// A sentence for each.
    pub(super) fn sentences(self) -> Vec<String> {
        let mut sentences = Vec::new();
        if self.cut > 0 {
            let names: Vec<String> = self.names.into_iter().collect();
            let more = if self.has_more_names { ", …" } else { "" };
            sentences.push(format!(
                "Of {} events only topic, event_id, source, timestamp and payload were stored, \
                 and not {}{more}: payload=* in the query stores all other fields.",
                self.cut,
                names.join(", ")
            ));
        }
        if self.has_unused_id {
            sentences.push(
                "Records have a field event_id, and their ids are made from their content: \
                 event_id=/event_id in the query takes the field."
                    .to_owned(),
            );
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_left_out() {
        let mut warnings = Warnings::default();
        assert!(Warnings::default().sentences().is_empty());
        for name in ["msg", "level", "msg"] {
            warnings.left_out(name);
        }
        let [sentence] = &warnings.sentences()[..] else { panic!("one sentence") };
        assert!(sentence.contains("Of 3 events") && sentence.contains("level, msg:"), "{sentence}");
        let mut warnings = Warnings::default();
        for index in 0..100 {
            warnings.left_out(&format!("{index}{}", "x".repeat(1000)));
        }
        let [sentence] = &warnings.sentences()[..] else { panic!("one sentence") };
        assert!(sentence.contains(", …:") && sentence.len() < 500, "{sentence}");
    }
}
