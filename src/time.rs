//! Moments as they arrive and as they are shown.

use std::cell::Cell;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMillis = i64;

const MINUTE_MILLIS: i64 = 60_000;

/// A day, in milliseconds.
pub const DAY_MS: UnixMillis = 86_400_000;

/// When somebody is to look again at what others may have changed meanwhile. At once,
/// before it was said, and when the clock was set back since.
#[derive(Default)]
pub(crate) struct NextLook(Cell<Option<(UnixMillis, UnixMillis)>>);

impl NextLook {
    /// Whether it is time.
    pub(crate) fn is_due(&self, now: UnixMillis) -> bool {
        self.0.get().is_none_or(|(looked_at, again_at)| now < looked_at || now >= again_at)
    }

    /// It was looked now, and is to be again then.
    pub(crate) fn put_off(&self, now: UnixMillis, again_at: UnixMillis) {
        self.0.set(Some((now, again_at)));
    }

    /// It is to be looked at once.
    pub(crate) fn hasten(&self) {
        self.0.set(None);
    }
}

/// Longest moment that is read, in bytes.
pub const TIMESTAMP_BYTES_MAX: usize = 64;

const DAY_SECONDS: i32 = 86_400;

/// Digits after the second that `jiff` reads; ISO 8601 sets no limit.
const FRACTION_DIGITS_MAX: usize = 9;

/// Reads an ISO 8601 moment: RFC 3339 with any offset and sub-second
/// precision, and what Python's `isoformat()` and `date(1)` write: no offset
/// (read as UTC), a space for the `T`, a comma before the fraction, an offset
/// without its colon, a date alone.
///
/// # Errors
///
/// A phrase that says what is wrong, for the end of a sentence.
pub fn parse(text: &str) -> Result<UnixMillis, String> {
    if text.len() > TIMESTAMP_BYTES_MAX {
        return Err(format!("it is longer than {TIMESTAMP_BYTES_MAX} bytes"));
    }
    if text.contains('[') {
        return Err("what stands in brackets is not part of ISO 8601".to_owned());
    }
    let text = shorten_fraction(text);
    let text = join_offset(&text);
    let pieces = Pieces::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    if offset.seconds().abs() >= DAY_SECONDS {
        return Err("its offset is a day or more".to_owned());
    }
    let moment = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    // A moment in a year that is written with four digits can lie just outside
    // of what can be told as a timestamp; `9999-12-31` means "for ever".
    let outermost = if moment.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
    Ok(offset.to_timestamp(moment).unwrap_or(outermost).as_millisecond())
}

/// `date '+%F %T %z'` and `git log --date=iso` put a space before the offset.
fn join_offset(text: &str) -> std::borrow::Cow<'_, str> {
    match text.rsplit_once(' ') {
        Some((moment, offset)) if offset.starts_with(['+', '-']) => {
            format!("{moment}{offset}").into()
        }
        _ => text.into(),
    }
}

/// Cuts the fraction of a second to the digits that the parser reads.
fn shorten_fraction(text: &str) -> std::borrow::Cow<'_, str> {
    let Some(point) = text.find(['.', ',']) else { return text.into() };
    let digits = text[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
    if digits <= FRACTION_DIGITS_MAX {
        return text.into();
    }
    let kept = point + 1 + FRACTION_DIGITS_MAX;
    format!("{}{}", &text[..kept], &text[point + 1 + digits..]).into()
}

/// Whether a moment that [`parse`] reads is written as RFC 3339 has it.
pub fn is_rfc3339(text: &str) -> bool {
    text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'))
        && text.parse::<Timestamp>().is_ok()
        && text
            .as_bytes()
            .get(19)
            .is_some_and(|byte| matches!(byte, b'.' | b'Z' | b'z' | b'+' | b'-'))
        && (text.ends_with(['Z', 'z']) || text.as_bytes().iter().rev().nth(2) == Some(&b':'))
}

/// RFC 3339 in UTC with milliseconds, such as `2026-01-02T03:04:05.678Z`.
pub fn rfc3339(at: UnixMillis) -> String {
    let timestamp = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

/// RFC 3339 in UTC with nanoseconds, such as `2026-01-02T03:04:05.678901234Z`, of
/// nanoseconds since 1970-01-01T00:00:00Z.
pub fn rfc3339_nanos(at: u64) -> String {
    const SECOND_NANOS: u64 = 1_000_000_000;
    // 64 bits of nanoseconds end in 2554.
    let (second, nanos) = ((at / SECOND_NANOS) as i64, (at % SECOND_NANOS) as i32);
    let timestamp = Timestamp::new(second, nanos).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.9}")
}

/// The moment that a number of seconds, milliseconds, microseconds or nanoseconds since
/// 1970 tells, which its size tells apart: RFC 3339 in UTC, with all of its digits, such
/// as `2025-10-23T10:00:00.25Z`.
///
/// # Errors
///
/// A phrase that says what is wrong, for the end of a sentence.
pub fn from_epoch(number: &str) -> Result<String, String> {
    /// Up to which whole number it is one of a unit of so many nanoseconds; the first
    /// three are in the year 5138.
    const UNITS: [(u64, u64); 4] = [
        (99_999_999_999, 1_000_000_000),
        (99_999_999_999_999, 1_000_000),
        (99_999_999_999_999_999, 1_000),
        (u64::MAX, 1),
    ];
    let wrong = || "it is no number of seconds since 1970, nor of parts of them".to_owned();
    let number = &*without_exponent(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let unit = UNITS.iter().find(|(up_to, _)| whole <= *up_to).map_or(1, |(_, unit)| *unit);
    // What is finer than a nanosecond is left out.
    let mut nanos = 0;
    let mut place = unit / 10;
    for digit in fraction.bytes().take(FRACTION_DIGITS_MAX) {
        nanos += u64::from(digit - b'0') * place;
        place /= 10;
    }
    let nanos = i128::from(whole) * i128::from(unit) + i128::from(nanos);
    let timestamp = Timestamp::from_nanosecond(nanos).map_err(|_| wrong())?;
    Ok(timestamp.to_string())
}

/// The digits of a number that is written as `1.7612136E9`.
fn without_exponent(number: &str) -> std::borrow::Cow<'_, str> {
    /// More is no time.
    const EXPONENT_MAX: usize = 20;
    let Some((number_of_ten, exponent)) = number.split_once(['e', 'E']) else {
        return number.into();
    };
    let (whole, fraction) = number_of_ten.split_once('.').unwrap_or((number_of_ten, ""));
    let is_fraction = fraction.bytes().all(|byte| byte.is_ascii_digit());
    match exponent.parse::<usize>() {
        Ok(exponent) if is_fraction && !whole.is_empty() && exponent <= EXPONENT_MAX => {
            let digits = format!("{fraction:0<exponent$}");
            format!("{whole}{}.{}", &digits[..exponent], &digits[exponent..]).into()
        }
        _ => number.into(),
    }
}

/// Minutes since 1970 at `at`.
pub fn minute_of(at: UnixMillis) -> i64 {
    at.div_euclid(MINUTE_MILLIS)
}

/// A minute as its UTC name, such as `2026-01-02T03:04Z`. Names sort as minutes do.
pub fn minute_name(minute: i64) -> String {
    let timestamp =
        Timestamp::from_millisecond(minute * MINUTE_MILLIS).unwrap_or(Timestamp::UNIX_EPOCH);
    let civil = TimeZone::UTC.to_datetime(timestamp);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}Z",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute()
    )
}

/// A span as people read it, such as `1h 0m 0s` or `2d 3h 0m 9s`.
pub fn human(span_millis: i64) -> String {
    let seconds = span_millis.max(0) / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d {hours}h {minutes}m {seconds}s")
    } else {
        format!("{hours}h {minutes}m {seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rfc3339_python_and_shells_write() {
        let expected = 1_761_213_600_000; // 2025-10-23T10:00:00Z
        for text in [
            "2025-10-23T10:00:00Z",
            "2025-10-23t10:00:00z",
            "2025-10-23 10:00:00",
            "2025-10-23T10:00:00",
            "2025-10-23T12:00:00+02:00",
            "2025-10-23 12:00:00+0200",
            "2025-10-23T12:00:00+02",
            "2025-10-23T10:00Z",
            "2025-10-23T10:00:00.000000",
            "2025-10-23T10:00:00,000000000+00:00",
            "2025-10-23T10:00:00.000000000000000Z",
            "20251023T100000Z",
            "2025-10-23 12:00:00 +0200",
            "2025-10-23 03:00:00 -07:00",
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        assert_eq!(parse("2025-10-23"), Ok(expected - 10 * 3_600_000));
        assert_eq!(parse("2025-10-23T10:00:00.678Z"), Ok(expected + 678));
        for text in
            ["9999-12-31", "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59Z", "0001-01-01"]
        {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_moment() {
        for text in [
            "",
            "yesterday",
            "10:00:00",
            "2025-13-01",
            "2025-02-30T00:00:00Z",
            "2025-10-23T25:00:00Z",
            "1761213600",
            "2025-10-23T10:00:00Z[Asia/Jakarta]",
            "2025-10-23T10:00:00Z[u-ca=japanese]",
            "2025-10-23T10:00:00+24:00",
            "2025-10-23T10:00:00.00000000000000000000000000000000000000000000000000000000000Z",
            "2025-10-23T10:00:00Z and more",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tells_rfc3339_from_the_rest() {
        for (text, expected) in [
            ("2025-10-23T10:00:00Z", true),
            ("2025-10-23t10:00:00.5z", true),
            ("2025-10-23T12:00:00.123456789+02:00", true),
            ("2025-10-23T12:00:00-07:00", true),
            ("2025-10-23 10:00:00Z", false),
            ("2025-10-23T10:00:00", false),
            ("2025-10-23T10:00Z", false),
            ("2025-10-23T10:00:00+0200", false),
            ("2025-10-23T10:00:00,5Z", false),
            ("2025-10-23", false),
            ("20251023T100000Z", false),
        ] {
            assert_eq!(is_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_since_1970_are_told_apart_by_size() {
        for (number, expected) in [
            ("0", "1970-01-01T00:00:00Z"),
            ("1761213600", "2025-10-23T10:00:00Z"),
            ("1761213600.25", "2025-10-23T10:00:00.25Z"),
            ("1761213600.123456789123", "2025-10-23T10:00:00.123456789Z"),
            ("1761213600678", "2025-10-23T10:00:00.678Z"),
            ("1761213600678.5", "2025-10-23T10:00:00.6785Z"),
            ("1761213600678901", "2025-10-23T10:00:00.678901Z"),
            ("1761213600678901234", "2025-10-23T10:00:00.678901234Z"),
            ("1761213600678901234.9", "2025-10-23T10:00:00.678901234Z"),
            ("1.761213600678E9", "2025-10-23T10:00:00.678Z"),
            ("1761213600e+3", "2025-10-23T10:00:00Z"),
            ("1e9", "2001-09-09T01:46:40Z"),
        ] {
            let moment = from_epoch(number).unwrap();
            assert_eq!(moment, expected, "{number}");
            assert!(parse(&moment).is_ok(), "{moment}");
        }
        for number in [
            "",
            "-1",
            "+1",
            "1e99",
            "1e-9",
            "e9",
            "1.ée1",
            "1.2.3",
            ".5e",
            "x",
            "99999999999999999999",
            " 1",
        ] {
            assert!(from_epoch(number).is_err(), "{number}");
        }
        // Whatever the size, what comes out can be read.
        for power in 0..20 {
            let number = "9".repeat(power + 1);
            if let Ok(moment) = from_epoch(&number) {
                assert!(parse(&moment).is_ok(), "{number}: {moment}");
            }
        }
    }

    #[test]
    fn shows_moments_and_spans() {
        assert_eq!(rfc3339(1_761_213_600_678), "2025-10-23T10:00:00.678Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_nanos(1_761_213_600_678_901_234), "2025-10-23T10:00:00.678901234Z");
        assert_eq!(rfc3339_nanos(1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(rfc3339_nanos(u64::MAX), "2554-07-21T23:34:33.709551615Z");
        assert_eq!(minute_name(minute_of(1_761_213_659_999)), "2025-10-23T10:00Z");
        assert_eq!(human(3_600_500), "1h 0m 0s");
        assert_eq!(human(86_400_000 + 61_000), "1d 0h 1m 1s");
        assert_eq!(human(-5), "0h 0m 0s");
    }
}
