//! Structured lines on stderr, where Spin collects them: one JSON object each.
//!
//! A line for a refused request (`warn`), one for a fault of a store or of ours
//! (`error`); nothing per accepted event at the default level. Of a share of the requests
//! that an operator asks for, a line of access each (`info`).
//!
//! Whoever can send requests can have lines written, onto the disk of the store.
//! So no field is long, whatever was sent; and of lines of one kind an instance
//! writes some in a minute, counts the others, and says how many there were.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use crate::text;
use crate::time::{self, UnixMillis};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed that should not have.
    Error,
    /// A request was refused.
    Warn,
    /// Something happened that happens seldom.
    Info,
    /// Every request.
    Debug,
}

/// Longest text of a line that came from outside, in bytes of JSON.
const FIELD_BYTES_MAX: usize = 300;

/// Lines of a kind that an instance writes in [`SPAN_SECONDS`].
const KIND_LINES_MAX: u64 = 3;

/// How long lines of a kind are counted, in seconds.
const SPAN_SECONDS: i64 = 60;

/// One line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line<'a> {
    /// What happened, the same words each time.
    pub message: &'static str,
    /// The request's method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// The request's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// The path as the route table has it, if there is such a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'static str>,
    /// The reply's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The problem's stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What the client was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// What the client was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'a str>,
    /// Whether it is written however many there are of its kind: each tells what
    /// no other does, and no client can have them written at will, or an operator has
    /// said of how many requests they are wanted.
    #[serde(skip)]
    pub is_always_written: bool,
    /// How many bytes of the request's body were read, as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many events came, valid or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<usize>,
    /// Until the reply began, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// The name of the key by which the request came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// The id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// The id of the trace that the request is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// Of which share of the requests there are lines like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// How many lines of this kind were not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
}

impl Line<'_> {
    /// A line of which only the message is known.
    pub fn new(message: &'static str) -> Self {
        Line { message, ..Line::default() }
    }
}

/// What lines have in common of which only some are written: nothing that a
/// client could choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    level: Level,
    message: &'static str,
    status: Option<u16>,
    code: Option<&'static str>,
    route: Option<&'static str>,
}

/// The lines of a kind since one moment.
struct Count {
    since: UnixMillis,
    written: u64,
    left_out: u64,
}

/// What was left out of the log.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    kind: Kind,
    lines: u64,
    seconds: i64,
}

/// Which lines an instance writes, and how many it does not.
#[derive(Default)]
struct Limiter {
    counts: BTreeMap<Kind, Count>,
    /// All lines that it was asked about.
    lines: u64,
    /// Somebody looks after what is left out.
    is_attended: bool,
}

impl Limiter {
    /// Whether a line of this kind is to be written.
    fn admits(&mut self, kind: Kind, now: UnixMillis) -> bool {
        self.lines += 1;
        let count =
            self.counts.entry(kind).or_insert(Count { since: now, written: 0, left_out: 0 });
        let is_admitted = count.written < KIND_LINES_MAX;
        match is_admitted {
            true => count.written += 1,
            false => count.left_out += 1,
        }
        is_admitted
    }

    /// Begins to count anew what was counted for long enough, and tells what was
    /// left out meanwhile.
    fn renew(&mut self, now: UnixMillis) -> Vec<LeftOut> {
        let is_over = |count: &Count| !(0..SPAN_SECONDS * 1000).contains(&(now - count.since));
        let over = self.take(now, is_over);
        self.counts.retain(|_, count| !is_over(count));
        over
    }

    /// Tells all that was left out, and leaves out more until it is renewed.
    fn flush(&mut self, now: UnixMillis) -> Vec<LeftOut> {
        self.is_attended = false;
        self.take(now, |_| true)
    }

    fn take(&mut self, now: UnixMillis, is_wanted: impl Fn(&Count) -> bool) -> Vec<LeftOut> {
        let wanted = self.counts.iter_mut().filter(|(_, one)| one.left_out > 0 && is_wanted(one));
        let taken = wanted.map(|(kind, count)| LeftOut {
            kind: *kind,
            lines: std::mem::take(&mut count.left_out),
            seconds: ((now - count.since) / 1000).max(0),
        });
        taken.collect()
    }

    /// Whether something is left out that nobody looks after yet; the caller does
    /// from now on.
    fn attend(&mut self) -> bool {
        let is_left_out = self.counts.values().any(|count| count.left_out > 0);
        is_left_out && !std::mem::replace(&mut self.is_attended, true)
    }
}

thread_local! {
    /// That of this instance, whose requests run on one thread.
    static LIMITER: RefCell<Limiter> = RefCell::default();
}

/// Writes `line`, unless `least` says that `level` matters too little, or there
/// were enough of its kind. Nothing is left out of what is written for every
/// request, at the level that asks for it. `now` is asked only for what is written: the
/// time is a call of the platform.
pub fn write(least: Option<Level>, level: Level, now: impl FnOnce() -> UnixMillis, line: Line<'_>) {
    if least.is_none_or(|least| level > least) {
        return;
    }
    let now = now();
    let Line { message, status, code, route, .. } = line;
    let kind = Kind { level, message, status, code, route };
    let is_exempt = level == Level::Debug || line.is_always_written;
    let (left_out, is_admitted) = LIMITER.with_borrow_mut(|limiter| {
        let left_out = limiter.renew(now);
        (left_out, is_exempt || limiter.admits(kind, now))
    });
    tell(left_out, now);
    if is_admitted {
        print(level, now, line);
    }
}

/// Whether lines were left out and nobody is to call [`flush`] yet.
pub fn attend() -> bool {
    LIMITER.with_borrow_mut(Limiter::attend)
}

/// How many lines there were, written or not.
pub fn lines() -> u64 {
    LIMITER.with_borrow(|limiter| limiter.lines)
}

/// Says what was left out, before the instance ends.
pub fn flush(now: UnixMillis) {
    let left_out = LIMITER.with_borrow_mut(|limiter| limiter.flush(now));
    tell(left_out, now);
}

fn tell(left_out: Vec<LeftOut>, now: UnixMillis) {
    for LeftOut { kind, lines, seconds } in left_out {
        let Kind { level, message, status, code, route } = kind;
        let detail = format!("… and {lines} more like this in {seconds} s");
        let line = Line {
            message,
            path: route,
            status,
            code,
            detail: Some(&detail),
            left_out: Some(lines),
            ..Line::default()
        };
        print(level, now, line);
    }
}

fn print(level: Level, now: UnixMillis, line: Line<'_>) {
    if let Ok(text) = text_of(level, now, &line) {
        // One write for each line, so that lines of many instances do not mix.
        // When stderr is gone there is nowhere left to report that.
        std::io::stderr().write_all(&text).ok();
    }
}

fn short(field: Option<&str>) -> Option<Cow<'_, str>> {
    field.map(|text| text::shortened(text, FIELD_BYTES_MAX))
}

/// The line as it is written.
fn text_of(level: Level, now: UnixMillis, line: &Line<'_>) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Written<'a> {
        time: String,
        level: Level,
        #[serde(flatten)]
        line: Line<'a>,
    }
    let (method, path) = (short(line.method), short(line.path));
    let (detail, cause) = (short(line.detail), short(line.cause));
    let line = Line {
        method: method.as_deref(),
        path: path.as_deref(),
        detail: detail.as_deref(),
        cause: cause.as_deref(),
        ..line.clone()
    };
    let mut text = text::to_json(&Written { time: time::rfc3339(now), level, line })?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_767_323_045_678;

    fn kind(code: &'static str, route: Option<&'static str>) -> Kind {
        let (message, status) = ("request refused", Some(404));
        Kind { level: Level::Warn, message, status, code: Some(code), route }
    }

    #[test]
    fn every_field_is_short_and_can_be_seen() {
        for unit in ["M", "\u{9b}", "\u{1}", "\u{202e}", "😀"] {
            let long = unit.repeat(100_000);
            let line = Line {
                method: Some(&long),
                path: Some(&long),
                detail: Some(&long),
                cause: Some(&long),
                ..Line::new("request refused")
            };
            let text = String::from_utf8(text_of(Level::Warn, NOW, &line).unwrap()).unwrap();
            assert!(text.len() < 4 * FIELD_BYTES_MAX + 200, "{} bytes", text.len());
            assert_eq!(text.matches('\n').count(), 1);
            assert!(!text.trim_end().contains(|one: char| one.is_control() || one == '\u{202e}'));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(read["path"].as_str().unwrap().starts_with(unit), "the value is the same");
        }
    }

    #[test]
    fn of_a_kind_some_are_written_and_the_others_counted() {
        let mut limiter = Limiter::default();
        let (one, other) = (kind("a", None), kind("a", Some("/events")));
        let admitted = |limiter: &mut Limiter, kind, now| {
            (0..10).filter(|_| limiter.admits(kind, now)).count() as u64
        };
        assert_eq!(admitted(&mut limiter, one, NOW), KIND_LINES_MAX);
        assert_eq!(admitted(&mut limiter, other, NOW + 30_000), KIND_LINES_MAX);
        assert_eq!(limiter.renew(NOW + 59_999), []);
        let left_out = |kind, lines, seconds| LeftOut { kind, lines, seconds };
        assert_eq!(limiter.renew(NOW + 61_000), [left_out(one, 10 - KIND_LINES_MAX, 61)]);
        assert_eq!(admitted(&mut limiter, one, NOW + 61_000), KIND_LINES_MAX);
        // Before the instance goes, all is told, and once.
        assert_eq!(
            limiter.flush(NOW + 63_000),
            [left_out(one, 10 - KIND_LINES_MAX, 2), left_out(other, 10 - KIND_LINES_MAX, 33)]
        );
        assert_eq!(limiter.flush(NOW + 63_000), []);
        assert_eq!(admitted(&mut limiter, one, NOW + 64_000), 0, "it is of the same minute");
        // A clock that is set back holds up nothing.
        assert_eq!(limiter.renew(NOW), [left_out(one, 10, 0)]);
        assert_eq!(admitted(&mut limiter, one, NOW), KIND_LINES_MAX);
        assert_eq!(limiter.lines, 50);
    }

    #[test]
    fn what_is_left_out_is_attended_once() {
        let mut limiter = Limiter::default();
        for _ in 0..KIND_LINES_MAX {
            limiter.admits(kind("a", None), NOW);
            assert!(!limiter.attend(), "nothing is left out");
        }
        limiter.admits(kind("a", None), NOW);
        assert!(limiter.attend());
        assert!(!limiter.attend());
        limiter.flush(NOW);
        assert!(!limiter.attend(), "it was told");
        limiter.admits(kind("a", None), NOW);
        assert!(limiter.attend());
    }
}
