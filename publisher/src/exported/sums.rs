//! What an export can be checked by: of each topic how many events, and a digest of
//! them in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::canonical;
use crate::ship::identity::hex;

/// The sums of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicSum {
    /// Its events.
    pub events: u64,
    /// SHA-256, in hexadecimal, of a line for each event in their order: the JSON array
    /// of event id, source, timestamp and payload, canonical, and a line feed.
    pub sha256: String,
}

/// The sums of topics by their name.
pub(crate) type TopicSums = BTreeMap<String, TopicSum>;

/// What of an event the digest is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub event_id: &'a str,
    pub source: &'a str,
    /// None is as an empty one, which no service gives.
    pub timestamp: Option<&'a str>,
    /// JSON.
    pub payload: &'a str,
}

/// Adds events up.
#[derive(Debug, Default)]
pub(crate) struct Summing {
    topics: HashMap<String, (u64, Sha256)>,
    line: Vec<u8>,
    events: u64,
}

impl Summing {
    /// Adds the next event of a topic.
    ///
    /// # Errors
    ///
    /// If its payload is none that a service would take.
    pub(crate) fn add(&mut self, topic: &str, content: Content<'_>) -> Result<(), String> {
        let Content { event_id, source, timestamp, payload } = content;
        self.line.clear();
        self.line.push(b'[');
        for text in [event_id, source, timestamp.unwrap_or_default()] {
            canonical::write_string(text, &mut self.line);
            self.line.push(b',');
        }
        canonical::write(payload, &mut self.line)?;
        self.line.extend_from_slice(b"]\n");
        // Most events are of a topic that is there.
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), Default::default());
        }
        if let Some((events, hash)) = self.topics.get_mut(topic) {
            *events += 1;
            hash.update(&self.line);
        }
        self.events += 1;
        Ok(())
    }

    /// All events.
    #[must_use]
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The sums.
    #[must_use]
    pub(crate) fn finish(self) -> TopicSums {
        let sum =
            |(events, hash): (u64, Sha256)| TopicSum { events, sha256: hex(&hash.finalize()) };
        self.topics.into_iter().map(|(topic, of)| (topic, sum(of))).collect()
    }
}

/// Where two sums differ, in words: the `expected` ones and what was `found`.
pub(crate) fn differences(expected: &TopicSums, found: &TopicSums) -> Vec<String> {
    let none = TopicSum { events: 0, sha256: String::new() };
    let topics: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let of = |topic: &String| {
        let expected = expected.get(topic).unwrap_or(&none);
        let found = found.get(topic).unwrap_or(&none);
        difference(topic, expected, found)
    };
    topics.into_iter().filter_map(of).collect()
}

/// How the sums of a topic differ, if they do.
pub(crate) fn difference(topic: &str, expected: &TopicSum, found: &TopicSum) -> Option<String> {
    match (expected.events, found.events) {
        (expected, found) if expected != found => {
            Some(format!("topic {topic:?}: {found} events in place of {expected}"))
        }
        _ if expected != found => Some(format!(
            "topic {topic:?}: as many events, and not the same or not in the same order"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(events: &[(&str, &str, &str)]) -> TopicSums {
        let mut summing = Summing::default();
        for (topic, event_id, payload) in events {
            let timestamp = Some("2026-01-01T00:00:00Z");
            summing.add(topic, Content { event_id, source: "s", timestamp, payload }).unwrap();
        }
        assert_eq!(summing.events(), events.len() as u64);
        summing.finish()
    }

    #[test]
    fn the_digest_can_be_made_with_other_tools() {
        // printf '["1","s","2026-01-01T00:00:00Z",{"a":1.0}]\n' | sha256sum
        let sums = sums(&[("t", "1", r#"{"a": 1.0}"#)]);
        assert_eq!(
            sums["t"].sha256,
            "c3ed90279aca06caf3f39986dc9840b24b207ead0fd9c7a77ffcdb14a3b74515"
        );
    }

    #[test]
    fn order_matters_within_a_topic_and_not_between_topics() {
        let (a, b, other) = (("t", "a", "1"), ("t", "b", "1"), ("u", "a", "1"));
        assert_eq!(sums(&[a, other, b]), sums(&[other, a, b]));
        let differs = differences(&sums(&[a, b]), &sums(&[b, a]));
        assert!(matches!(&differs[..], [text] if text.contains("order")), "{differs:?}");
        let differs = differences(&sums(&[a, b, other]), &sums(&[a]));
        assert!(
            matches!(&differs[..], [t, u] if t.contains("1 events in place of 2") && u.contains("\"u\"")),
            "{differs:?}"
        );
        assert!(differences(&sums(&[a]), &sums(&[("t", "a", " 1 ")])).is_empty());
        assert!(!differences(&sums(&[a]), &sums(&[("t", "a", "2")])).is_empty());
    }
}
