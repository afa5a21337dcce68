//! What came of `publisher import`.

use serde::Serialize;

use super::output::Report;
use super::ship::Tally;

/// What was read back.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ReadBack {
    /// Topics whose events were all read.
    pub topics: u64,
    /// Those that are as in the file: the same events in the same order.
    pub same: u64,
    /// Events read.
    pub events: u64,
    /// Topics that have other events, too, and were not read: the replies told of each
    /// event that it is there.
    pub others: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What came of `publisher import`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImportReport {
    /// Where the service is; nothing if only the file was looked at.
    pub url: Option<String>,
    /// Where the events come from.
    pub file: String,
    /// Whether it was held against a manifest.
    pub has_manifest: bool,
    /// Events that are missing in it since they could not be read, as its manifest says.
    pub unreadable: u64,
    /// Topics of it.
    pub topics: u64,
    /// The sums of what was sent.
    #[serde(flatten)]
    pub tally: Tally,
    /// What was read back, if that was asked for.
    pub read_back: Option<ReadBack>,
    /// How long it took, reading back included.
    pub seconds: f64,
    /// Events answered in a second, without reading back.
    pub events_per_second: f64,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Events that are not stored as in the file.
    pub problems: Vec<String>,
    /// Why it did not come to its end.
    pub failure: Option<String>,
    /// Whether a signal ended it before its end.
    pub interrupted: bool,
}

impl ImportReport {
    /// One of which nothing is known yet.
    #[must_use]
    pub(crate) fn new(url: Option<String>, file: String) -> Self {
        Self {
            url,
            file,
            has_manifest: false,
            unreadable: 0,
            topics: 0,
            tally: Tally::default(),
            read_back: None,
            seconds: 0.0,
            events_per_second: 0.0,
            notes: Vec::new(),
            problems: Vec::new(),
            failure: None,
            interrupted: false,
        }
    }
}

impl Report for ImportReport {
    /// Whether every event of the file is stored.
    fn ok(&self) -> bool {
        let Tally { conflicts, rejected, unacknowledged, .. } = self.tally;
        self.failure.is_none()
            && !self.interrupted
            && self.problems.is_empty()
            && conflicts + rejected + unacknowledged == 0
    }

    fn text(&self) -> String {
        let Self { file, topics, tally, seconds, events_per_second, .. } = self;
        let Tally { events, accepted, duplicates, conflicts, rejected, unacknowledged, .. } = tally;
        let mut text = format!("{file}: {events} events of {topics} topics");
        match &self.url {
            None => text += &format!(" in {seconds:.2} s"),
            Some(url) => {
                text += &format!(
                    " sent to {url}: {accepted} accepted, {duplicates} duplicates, {conflicts} \
                     conflicts, {rejected} rejected, {unacknowledged} without an answer; \
                     {seconds:.2} s, {events_per_second:.0} events/s"
                );
            }
        }
        text.push('\n');
        if self.failure.is_none() && !self.interrupted {
            text += match self.has_manifest {
                true => "as its manifest says\n",
                false => "without a manifest: whether it is whole cannot be told\n",
            };
        }
        if self.unreadable > 0 {
            text += &format!(
                "{} events more could not be read when it was exported\n",
                self.unreadable
            );
        }
        if *events > 0 && self.url.is_some() && *duplicates == *events && *conflicts == 0 {
            text += "nothing new: every event of it was stored before\n";
        }
        if let Some(ReadBack { topics, same, events, others, seconds }) = self.read_back {
            text += &format!(
                "read back: {same} of {topics} topics are the same events in the same order \
                 ({events} events in {seconds:.2} s)\n"
            );
            if others > 0 {
                text += &format!(
                    "not read back: {others} topics, which have other events, too; the replies \
                     told of each event that it is there\n"
                );
            }
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        for problem in &self.problems {
            text += &format!("PROBLEM: {problem}\n");
        }
        if let Some(failure) = &self.failure {
            text += &format!("FAILED: {failure}\n");
        }
        if self.interrupted {
            text += "interrupted; the same again goes on, as nothing is stored twice\n";
        }
        text
    }
}
