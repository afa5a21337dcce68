//! The values of the instance flags, in Spin's syntax: one value, or a range
//! from which each new instance draws its own.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use rand::distr::uniform::SampleUniform;

/// One value, or a half-open range to draw from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range<T> {
    /// Always this value.
    Value(T),
    /// A value from the first (included) to the second (excluded).
    Bounds(T, T),
}

impl<T: SampleUniform + PartialOrd + Copy> Range<T> {
    /// A value for one instance.
    pub(crate) fn draw(self) -> T {
        match self {
            Self::Value(value) => value,
            // Parsing has refused empty ranges, on which drawing would panic.
            Self::Bounds(start, end) => rand::random_range(start..end),
        }
    }
}

/// Parses `16` or `1..8`.
pub(crate) fn parse_count(text: &str) -> Result<Range<usize>, String> {
    parse_range(text, |part| {
        part.parse().map_err(|error| {
            format!("expected an integer such as 16 or a range such as 1..8: {error}")
        })
    })
}

/// Parses `1s`, `500ms` or `1..8s`; a bare number is in seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Range<Duration>, String> {
    parse_range(text, duration)
}

/// Parses one duration; 0 is "without limit".
pub(crate) fn parse_limit(text: &str) -> Result<Duration, String> {
    let limit = duration(text)?;
    Ok(if limit.is_zero() { Duration::MAX } else { limit })
}

fn parse_range<T: PartialOrd>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Range<T>, String> {
    let Some((start, end)) = text.split_once("..") else {
        return parse(text).map(Range::Value);
    };
    let (start, end) = (parse(start)?, parse(end)?);
    if start < end {
        Ok(Range::Bounds(start, end))
    } else {
        Err("the range is empty: its end is excluded and must be greater than its start".to_owned())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    fn units<N: FromStr<Err: Display>>(number: &str) -> Result<N, String> {
        number.parse().map_err(|error| {
            format!("expected an integer followed by `s`, `ms`, `us`, `μs` or `ns`: {error}")
        })
    }
    // `ms`, `us` and `ns` end in `s` too, so the bare `s` comes last.
    if let Some(number) = text.strip_suffix("ms") {
        units(number).map(Duration::from_millis)
    } else if let Some(number) = text.strip_suffix("us").or_else(|| text.strip_suffix("μs")) {
        units(number).map(Duration::from_micros)
    } else if let Some(number) = text.strip_suffix("ns") {
        units(number).map(Duration::from_nanos)
    } else {
        units(text.strip_suffix('s').unwrap_or(text)).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(parse_count("16"), Ok(Range::Value(16)));
        assert_eq!(parse_count("1..8"), Ok(Range::Bounds(1, 8)));
        for bad in ["", "x", "-1", "8..1", "4..4", "1..", "1...8"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("1", Range::Value(ms(1000))),
            ("1s", Range::Value(ms(1000))),
            ("500ms", Range::Value(ms(500))),
            ("7us", Range::Value(Duration::from_micros(7))),
            ("7μs", Range::Value(Duration::from_micros(7))),
            ("7ns", Range::Value(Duration::from_nanos(7))),
            ("1..8s", Range::Bounds(ms(1000), ms(8000))),
            ("100ms..1s", Range::Bounds(ms(100), ms(1000))),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for bad in ["", "s", "1m", "1.5s", "-1s", "2s..1s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_limit("0"), Ok(Duration::MAX));
        assert!(parse_limit("1s..2s").is_err());
    }

    #[test]
    fn drawn_values_are_within_bounds() {
        assert_eq!(Range::Value(3).draw(), 3);
        for _ in 0..100 {
            assert!((1..4).contains(&Range::Bounds(1_usize, 4).draw()));
        }
    }
}
