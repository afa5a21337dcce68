//! Retention: how much is kept of which topics.
//!
//! Each of the variables is one number for all topics, or has others for topics by
//! pattern. The first pattern that a topic matches counts, and the number without a
//! pattern is for the topics that match none.

use crate::event::{TopicGroup, TopicPattern};
use crate::time::{DAY_MS, UnixMillis};

/// Most patterns in one variable.
const PATTERNS_MAX: usize = 100;

/// Longest time that is kept, in days.
const DAYS_MAX: f64 = 100_000.0;

/// Greatest number of events or bytes that are kept.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// What stands for no limit.
const ALL: &str = "all";

/// How much is kept of a group of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// For how long, in milliseconds.
    Age(UnixMillis),
    /// How many events, of all topics of the group together.
    Events(i64),
    /// How many bytes, of all topics of the group together.
    Bytes(i64),
}

/// A limit, and for which topics it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) group: TopicGroup,
    pub(crate) limit: Limit,
}

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Each holds by itself.
    pub(crate) rules: Vec<Rule>,
    /// For how long the identities of pruned events are kept, in milliseconds; for ever
    /// if it does not say.
    pub(crate) identity_age: Option<UnixMillis>,
}

impl Retention {
    /// Whether everything is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.identity_age.is_none()
    }
}

/// An age in days.
///
/// # Errors
///
/// What an age is.
pub(super) fn days(text: &str) -> Result<Limit, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let days = text.parse::<f64>().ok().filter(|_| is_number);
    match days.filter(|days| *days <= DAYS_MAX).map(|days| (days * DAY_MS as f64) as UnixMillis) {
        Some(age) if age > 0 => Ok(Limit::Age(age)),
        _ => Err(format!("a number of days up to {DAYS_MAX}, such as 30 or 0.5")),
    }
}

fn amount(text: &str) -> Result<i64, String> {
    let amount = text.parse().ok().filter(|amount| (1..=AMOUNT_MAX).contains(amount));
    amount.ok_or_else(|| format!("a whole number from 1 to {AMOUNT_MAX}"))
}

/// A number of events.
///
/// # Errors
///
/// What a number of events is.
pub(super) fn events(text: &str) -> Result<Limit, String> {
    amount(text).map(Limit::Events)
}

/// A number of bytes.
///
/// # Errors
///
/// What a number of bytes is.
pub(super) fn bytes(text: &str) -> Result<Limit, String> {
    amount(text).map(Limit::Bytes)
}

/// Reads the rules of one variable, whose numbers `read` reads: lines, or with commas
/// between, `PATTERN=NUMBER`, `PATTERN=all`, or a number.
///
/// # Errors
///
/// What is wrong with which of them.
pub(super) fn rules(
    value: &str,
    read: impl Fn(&str) -> Result<Limit, String>,
) -> Result<Vec<Rule>, String> {
    let limit = |entry: &str, text: &str| match text {
        ALL => Ok(None),
        _ => read(text).map(Some).map_err(|expected| format!("{entry:?} has no {expected}")),
    };
    let mut before: Vec<TopicPattern> = Vec::new();
    let mut rules = Vec::new();
    let mut of_others = None;
    let entries = value.split(['\n', ',']).map(str::trim).filter(|entry| !entry.is_empty());
    for entry in entries {
        // A topic may have a sign of equality in it, a number has none.
        let (pattern, text) = match entry.rsplit_once('=') {
            Some((pattern, text)) => (Some(pattern.trim()), text.trim()),
            None => (None, entry),
        };
        let limit = limit(entry, text)?;
        let pattern = pattern.map(|pattern| TopicPattern::new(pattern.to_owned()));
        match pattern.filter(|pattern| !pattern.is_any()) {
            Some(pattern) if pattern.as_str().is_empty() => {
                return Err(format!("{entry:?} has no pattern of topics"));
            }
            Some(pattern) if before.contains(&pattern) => {
                return Err(format!("{:?} is there twice", pattern.as_str()));
            }
            Some(_) if before.len() == PATTERNS_MAX => {
                return Err(format!("there are more than {PATTERNS_MAX} patterns"));
            }
            Some(pattern) => {
                let group = TopicGroup { of: Some(pattern.clone()), but: before.clone() };
                rules.extend(limit.map(|limit| Rule { group, limit }));
                before.push(pattern);
            }
            None if of_others.is_some() => {
                return Err("there are two numbers for all other topics".to_owned());
            }
            None => of_others = Some(limit),
        }
    }
    let group = TopicGroup { of: None, but: before };
    rules.extend(of_others.flatten().map(|limit| Rule { group, limit }));
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_for_the_topics_that_match_no_pattern() {
        let group = |of: Option<&str>, but: &[&str]| {
            let pattern = |text: &&str| TopicPattern::new((*text).to_owned());
            TopicGroup { of: of.as_ref().map(pattern), but: but.iter().map(pattern).collect() }
        };
        let all = Rule { group: group(None, &[]), limit: Limit::Age(30 * DAY_MS) };
        assert_eq!(rules(" 30 ", days), Ok(vec![all.clone()]));
        assert_eq!(rules("*=30", days), Ok(vec![all]));
        assert_eq!(rules(" , \n", days), Ok(Vec::new()));
        assert_eq!(rules("all", days), Ok(Vec::new()));
        let expected = [
            (Some("debug.*"), &[][..], Limit::Age(DAY_MS / 2)),
            (Some("a=b"), &["debug.*", "audit.*"], Limit::Age(7 * DAY_MS)),
            (None, &["debug.*", "audit.*", "a=b"], Limit::Age(30 * DAY_MS)),
        ];
        let expected: Vec<Rule> = expected
            .iter()
            .map(|(of, but, limit)| Rule { group: group(*of, but), limit: *limit })
            .collect();
        for value in
            ["debug.*=0.5, audit.*=all, a=b=7, 30", "30\ndebug.* = 0.5\naudit.* = all\na=b = 7\n"]
        {
            assert_eq!(rules(value, days).as_ref(), Ok(&expected), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, said) in [
            ("?", "\"?\""),
            ("0", "\"0\""),
            ("-1", "\"-1\""),
            ("1e3", "\"1e3\""),
            ("inf", "\"inf\""),
            ("100001", "100000"),
            ("a=ten", "\"a=ten\""),
            ("=3", "no pattern"),
            ("a=3, a=4", "twice"),
            ("3, 4", "two numbers"),
        ] {
            let error = rules(value, days).unwrap_err();
            assert!(error.contains(said), "{value}: {error}");
        }
        for wrong in ["0", "0.5", "-1", "1000000000000001", "ten"] {
            assert!(rules(wrong, events).is_err(), "{wrong}");
            assert!(rules(wrong, bytes).is_err(), "{wrong}");
        }
        assert_eq!(rules("7", events).unwrap()[0].limit, Limit::Events(7));
        assert_eq!(rules("7", bytes).unwrap()[0].limit, Limit::Bytes(7));
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!("t{n}=1")).collect();
        assert!(rules(&many.join(","), days).unwrap_err().contains("more than"));
    }
}
