//! Texts of arguments → values.

use std::ffi::OsString;
use std::time::Duration;

use crate::workload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Range};

/// The most requests under way that can be asked for.
pub(super) const CONCURRENCY_MAX: u64 = 10_000;
/// Most streams to one service.
pub(super) const STREAMS_MAX: i64 = 1_000;
/// The longest topic or source, in characters.
const NAME_CHARS_MAX: usize = 255;

/// A variable of the environment. An empty one is as one that is not set.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What is wrong with the arguments, where clap cannot see it.
#[derive(Debug)]
pub(super) struct WrongArguments(pub(super) String);

impl std::fmt::Display for WrongArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongArguments {}

/// The text of an argument that may be secret, as nobody is to see it.
#[derive(Clone)]
pub(super) struct Hidden(pub(super) String);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Reads `30`, `30s`, `500ms`, `2m`, `1.5h`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        unit => return Err(format!("`{unit}` is not one of ms, s, m, h")),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a time as 30, 30s, 500ms or 2m")?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// A time that is not zero.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads `0.2` or `20%`.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|error| error.to_string())? / factor;
    match (0.0..1.0).contains(&share) {
        true => Ok(share),
        false => Err("expected a share from 0 to below 1, as 0.2 or 20%".to_owned()),
    }
}

/// A topic or source of the contract.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let chars = text.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || text.contains('\0') {
        return Err(format!("expected 1 to {NAME_CHARS_MAX} characters without NUL"));
    }
    Ok(text.to_owned())
}

/// Reads `100..100000`, or `100` for always the same.
pub(super) fn parse_payload_bytes(text: &str) -> Result<Range, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        let number = text.trim().parse::<u64>().ok();
        number.filter(|number| (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(number))
    };
    match (number(min), number(max)) {
        (Some(min), Some(max)) if min <= max => Ok(Range { min, max }),
        _ => Err(format!(
            "expected 100 or 100..100000, from {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes"
        )),
    }
}

/// A number over 0.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.trim().parse::<f64>().map_err(|error| error.to_string())?;
    match rate.is_finite() && rate > 0.0 {
        true => Ok(rate),
        false => Err("expected a number over 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_payloads() {
        assert_eq!(parse_payload_bytes("100..100000"), Ok(Range { min: 100, max: 100_000 }));
        assert_eq!(parse_payload_bytes("64"), Ok(Range::exactly(64)));
        for text in ["", "1", "200..100", "100..", "x", "100..99999999999"] {
            assert!(parse_payload_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", ""] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares() {
        for (text, expected) in
            [("0.2", Some(0.2)), ("20%", Some(0.2)), ("20 %", Some(0.2)), ("0", Some(0.0))]
        {
            assert_eq!(parse_share(text).ok(), expected, "{text}");
        }
        for text in ["1", "100%", "20", "-1%", "NaN", "", "%", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected_ms) in
            [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(expected_ms)), "{text}");
        }
        for text in ["", "s", "-1", "1 fortnight", "NaN", "1e40h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_timeout("0").is_err());
    }
}
