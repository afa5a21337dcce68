//! What rotation adds to the name of a file, and the name without it.
//!
//! | adds | as |
//! | --- | --- |
//! | logrotate | `messages.1`, `messages-20260101`, `app.log.2.gz`, `app.1.log` (`extension`), with any `dateformat` |
//! | savelog, electron-log | `app.log.0`, `app.log.old`, `app.old.log` |
//! | logback, log4j, Spring Boot | `app.2026-01-01.log`, `app-2026-01-01.0.log.gz`, `app-01-31-2026-1.log.gz` |
//! | spdlog, lumberjack, pm2 | `app.1.log`, `app-2026-01-01T00-00-00.000.log`, `out__2026-01-01_00-00-00.log` |
//!
//! A name alone cannot tell a rotation from a version or an instance. In doubt
//! it is left as it is: `worker-1.log`, `php8.1.log`, `10.0.0.1` and
//! `report-2024` are names.

use std::ffi::OsStr;

/// Extensions of compressed files.
const COMPRESSED: [&str; 9] = ["gz", "bz2", "xz", "zst", "lz4", "lzma", "lz", "z", "zip"];
/// Extensions of what was kept aside.
const KEPT: [&str; 5] = ["old", "bak", "backup", "orig", "prev"];
/// Digits of the number that rotation puts behind a file's name, at most.
const NUMBER_DIGITS_MAX: usize = 3;
/// The longest extension behind which rotation is looked for, in bytes.
const EXTENSION_BYTES_MAX: usize = 8;
/// Numbers that a time has, a counter behind it included: 2026-01-01T00-00-00.000-1.
const STAMP_NUMBERS_MAX: usize = 8;
/// The years that are taken for years.
const YEARS: std::ops::RangeInclusive<u32> = 1970..=2099;
/// What stands between a name and what rotation adds.
const SEPARATORS: [char; 3] = ['-', '_', '.'];

/// A file's name without what rotation adds, its extension kept: `app.log` for
/// `app.log.2.gz` and `app-20260101.log`. A name that is nothing else stays, as
/// does one that rotation has not touched. What is not Unicode is replaced.
#[must_use]
pub(crate) fn unrotated_name(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let mut left = name.as_ref();
    while let Some(shorter) = without_last(left) {
        left = shorter;
    }
    // logrotate's `extension` and many libraries put it before the extension.
    let Some((stem, extension)) = left.rsplit_once('.').filter(|(_, end)| is_extension(end)) else {
        return left.to_owned();
    };
    let mut base = stem;
    while let Some(shorter) = without_last_inside(base) {
        base = shorter;
    }
    format!("{base}.{extension}")
}

/// Whether a name ends in two numbers, as addresses and versions do.
pub(super) fn ends_in_numbers(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number)
}

/// The name without the last thing that rotation has put at its end.
fn without_last(name: &str) -> Option<&str> {
    let kept = name.rsplit_once('.').filter(|(base, last)| {
        let is = |extension: &&str| last.eq_ignore_ascii_case(extension);
        COMPRESSED.iter().chain(&KEPT).any(is) || is_counter(base, last)
    });
    something(kept.map(|(base, _)| base)).or_else(|| without_stamp(name))
}

/// The same before an extension, where numbers are those of versions and of
/// displays (`Xorg.0.log`) as well.
fn without_last_inside(stem: &str) -> Option<&str> {
    let kept = stem.rsplit_once('.').filter(|(base, last)| {
        let follows_a_number = base.ends_with(|end: char| end.is_ascii_digit());
        let counts = is_counter(base, last) && last.bytes().any(|digit| digit != b'0');
        KEPT.iter().any(|extension| last.eq_ignore_ascii_case(extension))
            || (counts && !follows_a_number)
            || (is_counter(base, last) && without_stamp(base).is_some())
            || (is_counter(base, last) && is_stamp(base))
    });
    something(kept.map(|(base, _)| base)).or_else(|| without_stamp(stem))
}

/// The name without the time at its end.
fn without_stamp(name: &str) -> Option<&str> {
    let mut ends = name.char_indices().filter(|(_, separator)| SEPARATORS.contains(separator));
    let (at, _) = ends.find(|&(at, _)| at > 0 && is_stamp(&name[at + 1..]))?;
    something(Some(name[..at].trim_end_matches(SEPARATORS)))
}

/// A name, if there is something in it.
fn something(name: Option<&str>) -> Option<&str> {
    name.filter(|name| name.chars().any(char::is_alphanumeric))
}

/// Whether `last` may be the number of a rotation of `base`: not if it is the
/// end of an address or of a version.
fn is_counter(base: &str, last: &str) -> bool {
    let before = base.rsplit('.').next().unwrap_or(base);
    is_number(last) && last.len() <= NUMBER_DIGITS_MAX && (!is_number(before) || is_stamp(before))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_extension(text: &str) -> bool {
    text.len() <= EXTENSION_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric())
}

/// Whether a text is a time: a date in one of the usual orders, with or without
/// a time of day and a counter, or seconds since 1970.
fn is_stamp(text: &str) -> bool {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let numbers: Vec<&str> = text.split(['-', '_', '.', ':', 'T', '+']).collect();
    if numbers.len() > STAMP_NUMBERS_MAX || !numbers.iter().all(|number| is_number(number)) {
        return false;
    }
    let rest = match *numbers.as_slice() {
        [year, month, day, ref rest @ ..] if is_date(year, month, day) => rest,
        [first, second, year, ref rest @ ..]
            if is_date(year, first, second) || is_date(year, second, first) =>
        {
            rest
        }
        // A month; with a dot it would rather be a version.
        [year, month] if is_date(year, month, "01") => return !text.contains('.'),
        [whole, ref rest @ ..] if is_whole(whole) => rest,
        _ => return false,
    };
    rest.iter().all(|number| matches!(number.len(), 1..=4 | 6) || is_epoch(number))
}

/// Whether a number is a whole time: YYYYMMDD, with or without hours, minutes
/// and seconds, or seconds since 1970.
fn is_whole(number: &str) -> bool {
    let date = |number: &str| is_date(&number[..4], &number[4..6], &number[6..8]);
    matches!(number.len(), 8 | 10 | 12 | 14) && date(number) || is_epoch(number)
}

fn is_date(year: &str, month: &str, day: &str) -> bool {
    let within = |number: &str, digits, range: std::ops::RangeInclusive<u32>| {
        number.len() == digits && number.parse().is_ok_and(|number| range.contains(&number))
    };
    within(year, 4, YEARS) && within(month, 2, 1..=12) && within(day, 2, 1..=31)
}

/// Whether a number is seconds since 1970, after 2001 and before 2065.
fn is_epoch(number: &str) -> bool {
    number.len() == 10 && (number.starts_with('1') || number.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_rotation_adds() {
        for (rotated, name) in [
            // Numbers, what was kept aside, what is compressed, in any order.
            ("messages.1", "messages"),
            ("access.log.0", "access.log"),
            ("access.log.001", "access.log"),
            ("app.log.2.gz", "app.log"),
            ("app.log.gz.2", "app.log"),
            ("messages.1.zst", "messages"),
            ("messages.12.XZ", "messages"),
            ("messages.gz", "messages"),
            ("app.log.old", "app.log"),
            ("app.log.bak.bz2", "app.log"),
            ("app.log.1.orig", "app.log"),
            ("Xorg.0.log.old", "Xorg.0.log"),
            // Dates, as logrotate's dateformat and others have them.
            ("messages-20260101", "messages"),
            ("messages-20260101.gz", "messages"),
            ("messages_20260101", "messages"),
            ("messages.20260101", "messages"),
            ("messages-2026-01-01", "messages"),
            ("messages.2026-01-01.xz", "messages"),
            ("messages-2026.01.01", "messages"),
            ("messages-20260101-13", "messages"),
            ("messages-2026010113", "messages"),
            ("messages-20260101-131415", "messages"),
            ("messages-20260101131415", "messages"),
            ("messages-2026-01-01-13", "messages"),
            ("messages-2026-01-01_13:14:15", "messages"),
            ("messages-2026-01-01T13:14:15Z", "messages"),
            ("messages-20260101-131415+0700", "messages"),
            ("messages-1767225600", "messages"),
            ("messages-20260101-1767225600.gz", "messages"),
            ("messages-31-12-2026", "messages"),
            ("app.log-20260101.gz", "app.log"),
            ("app.log.2026-01-01.0.gz", "app.log"),
            ("app.log.20260101.1", "app.log"),
            ("access.2026-01", "access"),
            // Before the extension.
            ("app-20260101.log.gz", "app.log"),
            ("app.2026-01-01.log", "app.log"),
            ("app_2026-01-01.log", "app.log"),
            ("app.1.log", "app.log"),
            ("mylog.1.foo.gz", "mylog.foo"),
            ("main.old.log", "main.log"),
            ("app-2026-01-01.0.log.gz", "app.log"),
            ("app-01-31-2026-1.log.gz", "app.log"),
            ("app-2026-01-01T00-00-00.000.log", "app.log"),
            ("out__2026-01-01_00-00-00.log", "out.log"),
            ("access.2026-01.log", "access.log"),
            ("app-1767225600.log", "app.log"),
            ("2026-01-01.2.log", "2026-01-01.log"),
            (".hidden.1", ".hidden"),
            // Names, and never down to nothing.
            ("messages", "messages"),
            ("app.log", "app.log"),
            (".hidden", ".hidden"),
            (".1", ".1"),
            (".gz", ".gz"),
            ("-20260101", "-20260101"),
            (".2026-01-01", ".2026-01-01"),
            ("2026-01-01.log", "2026-01-01.log"),
            ("20260101.log.gz", "20260101.log"),
            ("20260101", "20260101"),
            ("1.log", "1.log"),
            ("1767225600", "1767225600"),
            ("v1.2", "v1"),
            ("php8.1.log", "php8.1.log"),
            ("release-1.2.3", "release-1.2.3"),
            ("release-2026.04.log", "release-2026.04.log"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1.log", "10.0.0.1.log"),
            ("10.0.0.1.log.1", "10.0.0.1.log"),
            ("worker-1.log", "worker-1.log"),
            ("Xorg.0.log", "Xorg.0.log"),
            ("report-2024", "report-2024"),
            ("access.log.2024", "access.log.2024"),
            ("order-20261301", "order-20261301"),
            ("order-99999999", "order-99999999"),
            ("folder.old-20260101", "folder"),
            ("é-20260101", "é"),
            ("", ""),
        ] {
            assert_eq!(unrotated_name(OsStr::new(rotated)), name, "{rotated}");
        }
    }

    #[test]
    fn a_name_without_what_rotation_adds_is_left_alone() {
        for name in ["messages", "app.log", "a.b.c", "v1", "2026-01-01.log", "x-y_z.json"] {
            for added in [".1", ".old", ".gz", "-20260101", ".2026-01-01.zst", "-20260101-13.1.bak"]
            {
                let rotated = format!("{name}{added}");
                assert_eq!(unrotated_name(OsStr::new(&rotated)), name, "{rotated}");
            }
        }
    }
}
