//! What came of `publisher ship`.

use serde::Serialize;

use super::output::Report;
use super::table::{align, table};

/// The sums over a file, or over all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Lines read.
    pub lines: u64,
    /// Events made of them; more than lines only where a line was too long for one.
    pub events: u64,
    /// Events stored now.
    pub accepted: u64,
    /// Events stored before; conflicts included.
    pub duplicates: u64,
    /// Events stored before with other content, which should not be.
    pub conflicts: u64,
    /// Events the service refused.
    pub rejected: u64,
    /// Events without an answer.
    pub unacknowledged: u64,
    /// Events in whose text bytes were replaced to make it valid UTF-8.
    pub invalid_utf8: u64,
    /// Bytes read, unpacked where they are compressed.
    pub bytes: u64,
    /// NUL bytes in holes, which were left out.
    pub hole_bytes: u64,
    /// Files of which something is there that could not be read.
    pub unread: u64,
    /// Requests answered.
    pub requests: u64,
    /// Attempts after the first, of all requests.
    pub retries: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.events += other.events;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.rejected += other.rejected;
        self.unacknowledged += other.unacknowledged;
        self.invalid_utf8 += other.invalid_utf8;
        self.bytes += other.bytes;
        self.hole_bytes += other.hole_bytes;
        self.unread += other.unread;
        self.requests += other.requests;
        self.retries += other.retries;
    }
}

/// What came of one file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FileReport {
    /// Its name as it was given.
    pub file: String,
    /// The topic of its events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The sums.
    #[serde(flatten)]
    pub tally: Tally,
    /// From its first byte to the last reply.
    pub seconds: f64,
    /// Lines shipped in a second.
    pub lines_per_second: f64,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Events that were not stored as sent.
    pub problems: Vec<String>,
    /// Why it was not shipped to its end.
    pub failure: Option<String>,
    /// Whether a signal ended it early.
    #[serde(skip)]
    pub interrupted: bool,
}

impl FileReport {
    /// Whether every line of it is stored.
    #[must_use]
    pub(crate) fn ok(&self) -> bool {
        let Tally { conflicts, rejected, unacknowledged, unread, .. } = self.tally;
        self.failure.is_none() && conflicts + rejected + unacknowledged + unread == 0
    }
}

/// What came of `publisher ship`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShipReport {
    /// Where the service is.
    pub url: String,
    /// The source of all events.
    pub source: String,
    /// Each file, in the order they were given.
    pub files: Vec<FileReport>,
    /// All together.
    pub total: FileReport,
    /// Whether a signal ended the run before all was shipped.
    pub interrupted: bool,
}

impl Report for ShipReport {
    /// Whether every line of every file is stored.
    fn ok(&self) -> bool {
        self.files.iter().all(FileReport::ok)
    }

    fn text(&self) -> String {
        let mut sums = table(&[
            "file",
            "lines",
            "accepted",
            "duplicates",
            "conflicts",
            "rejected",
            "unsent",
            "bad UTF-8",
            "bytes",
            "seconds",
            "lines/s",
        ]);
        for file in &self.files {
            sums.add_row(row(file));
        }
        if self.files.len() > 1 {
            sums.add_row(row(&self.total));
        }
        align(&mut sums);
        let mut text = format!("{sums}\n");
        for file in &self.files {
            let name = &file.file;
            for note in &file.notes {
                text += &format!("{name}: {note}\n");
            }
            for problem in &file.problems {
                text += &format!("PROBLEM: {name}: {problem}\n");
            }
            if let Some(failure) = &file.failure {
                text += &format!("FAILED: {name}: {failure}\n");
            }
        }
        text
    }
}

fn row(file: &FileReport) -> Vec<String> {
    let tally = &file.tally;
    let mut row = vec![file.file.clone()];
    row.extend(
        [
            tally.lines,
            tally.accepted,
            tally.duplicates,
            tally.conflicts,
            tally.rejected,
            tally.unacknowledged,
            tally.invalid_utf8,
            tally.bytes,
        ]
        .map(|count| count.to_string()),
    );
    row.push(format!("{:.2}", file.seconds));
    row.push(format!("{:.0}", file.lines_per_second));
    row
}
