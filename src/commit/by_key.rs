//! What each key has published, counted as observations are: what an instance saw last
//! is missing when it was killed. The counters of events are exact, by topic.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::store::{Increments, Outcome};

/// What the names of these counters begin with.
const PREFIX: &str = "key/";

/// What came by one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct KeyCounts {
    /// Deliveries of valid events.
    pub(crate) received: i64,
    /// Events stored.
    pub(crate) unique_processed: i64,
    /// Deliveries of events that were stored before, conflicts included.
    pub(crate) duplicate_dropped: i64,
    /// Those of them whose content was another.
    pub(crate) conflicts: i64,
    /// Deliveries that were no valid events.
    pub(crate) rejected: i64,
}

/// The outcomes that are counted, by their names in the store.
const OUTCOMES: [&str; 4] = ["accepted", "duplicate", "conflict", "rejected"];

/// What to add when so many entries came by the key `name`, of which the valid ones had
/// these outcomes.
pub(crate) fn increments(name: &str, entries: usize, outcomes: &[Outcome]) -> Increments {
    let count = |is_one: fn(&Outcome) -> bool| outcomes.iter().filter(|one| is_one(one)).count();
    let counts = [
        count(|one| matches!(one, Outcome::Accepted { .. })),
        count(|one| matches!(one, Outcome::Duplicate)),
        count(|one| matches!(one, Outcome::Conflict)),
        entries.saturating_sub(outcomes.len()),
    ];
    let named = OUTCOMES.iter().zip(counts).filter(|(_, count)| *count > 0);
    let increment = |(outcome, count): (&&str, usize)| {
        (format!("{PREFIX}{name}/{outcome}"), i64::try_from(count).unwrap_or(i64::MAX))
    };
    named.map(increment).collect()
}

/// What came by each key, out of all that was counted by name.
pub(crate) fn of(counted: &Increments) -> BTreeMap<&str, KeyCounts> {
    let mut by_key: BTreeMap<&str, KeyCounts> = BTreeMap::new();
    for (name, count) in counted {
        let key = name.strip_prefix(PREFIX).and_then(|name| name.rsplit_once('/'));
        let Some((key, outcome)) = key else { continue };
        let counts = by_key.entry(key).or_default();
        match outcome {
            "accepted" => counts.unique_processed += count,
            "duplicate" => counts.duplicate_dropped += count,
            "conflict" => {
                counts.duplicate_dropped += count;
                counts.conflicts += count;
            }
            _ => counts.rejected += count,
        }
        counts.received = counts.unique_processed + counts.duplicate_dropped;
    }
    by_key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Seq;

    #[test]
    fn what_is_added_is_what_is_told() {
        let accepted = Outcome::Accepted { seq: Seq::new(1) };
        let outcomes = [accepted, Outcome::Duplicate, Outcome::Conflict];
        let mut counted = increments("a.b", 5, &outcomes);
        counted.extend(increments("c", 1, &[accepted]));
        counted.insert("rejected/topic".to_owned(), 9);
        let all = KeyCounts {
            received: 3,
            unique_processed: 1,
            duplicate_dropped: 2,
            conflicts: 1,
            rejected: 2,
        };
        let one = KeyCounts { received: 1, unique_processed: 1, ..KeyCounts::default() };
        assert_eq!(of(&counted), BTreeMap::from([("a.b", all), ("c", one)]));
        assert!(increments("d", 0, &[]).is_empty());
    }
}
