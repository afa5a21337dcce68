//! What came of `publisher export`.

use serde::Serialize;

use super::output::Report;
use crate::exported::manifest::UpTo;

/// What came of `publisher export`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportReport {
    /// Where the service is.
    pub url: String,
    /// Where the lines are.
    pub file: String,
    /// Where the manifest is.
    pub manifest: Option<String>,
    /// Lines written.
    pub events: u64,
    /// Topics of them.
    pub topics: u64,
    /// Stored events that cannot be shown, and were left out.
    pub unreadable: u64,
    /// The place up to which it was read.
    pub up_to: Option<UpTo>,
    /// Bytes of the lines.
    pub bytes: u64,
    /// Bytes of the file, which may be compressed.
    pub file_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Events in a second.
    pub events_per_second: f64,
    /// Whether a signal ended it before its end; then there is no file.
    pub interrupted: bool,
}

impl Report for ExportReport {
    /// Whether every event is in the file.
    fn ok(&self) -> bool {
        !self.interrupted && self.unreadable == 0
    }

    fn text(&self) -> String {
        let Self { file, events, topics, seconds, .. } = self;
        if self.interrupted {
            return format!("interrupted after {events} events: {file} was not written\n");
        }
        let mut text = format!(
            "{events} events of {topics} topics in {file}: {} bytes of {} in {seconds:.2} s, {:.0} \
             events/s\n",
            self.file_bytes, self.bytes, self.events_per_second
        );
        match &self.up_to {
            Some(UpTo { seq, cursor: Some(cursor) }) => {
                text += &format!("up to seq {seq}; --after {cursor} goes on from there\n");
            }
            Some(UpTo { seq, cursor: None }) => text += &format!("up to seq {seq}\n"),
            None => text += "the store is empty\n",
        }
        match &self.manifest {
            Some(manifest) => text += &format!("manifest: {manifest}\n"),
            None => text += "without a manifest: --manifest FILE writes one\n",
        }
        if self.unreadable > 0 {
            text += &format!(
                "NOT ALL: {} stored events cannot be shown and are not in it\n",
                self.unreadable
            );
        }
        text
    }
}
