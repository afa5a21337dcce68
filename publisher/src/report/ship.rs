//! What came of `publisher ship`.

use super::output::Report;
use super::table::{align, table};
use crate::ship::{FileReport, ShipReport};

impl Report for ShipReport {
    fn ok(&self) -> bool {
        Self::ok(self)
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
