//! What came of `publisher backup`.

use serde::Serialize;

use super::output::Report;
use crate::backup::check::{Depth, Found, Stored};

/// What came of `publisher backup`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BackupReport {
    /// The version of this form, which is in the backup as well.
    pub sekali_backup: u32,
    /// When it was begun, RFC 3339.
    pub taken_at: String,
    /// The directory that was made.
    pub directory: String,
    /// The database that was copied.
    pub database: String,
    /// Bytes of its copy.
    pub bytes: u64,
    /// Bytes of the copy of the key-value store, if there is one.
    pub key_value_bytes: Option<u64>,
    /// By which check the copies are sound.
    pub integrity: Option<Depth>,
    /// The version of the schema.
    pub schema_version: Option<i64>,
    /// The events that are in it.
    #[serde(flatten)]
    pub stored: Option<Stored>,
    /// How long the copying took.
    pub copy_seconds: f64,
    /// How long all took.
    pub seconds: f64,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Whether a signal ended it before its end; then there is no backup.
    pub interrupted: bool,
}

impl BackupReport {
    /// The version of the form.
    const VERSION: u32 = 1;

    /// One of which nothing is known yet.
    #[must_use]
    pub(crate) fn new(directory: String, database: String) -> Self {
        Self {
            sekali_backup: Self::VERSION,
            taken_at: jiff::Timestamp::now().to_string(),
            directory,
            database,
            bytes: 0,
            key_value_bytes: None,
            integrity: None,
            schema_version: None,
            stored: None,
            copy_seconds: 0.0,
            seconds: 0.0,
            notes: Vec::new(),
            interrupted: false,
        }
    }

    /// Adds what was found in the copy of the events.
    pub(crate) fn found(&mut self, found: &Found) {
        self.integrity = Some(found.depth);
        self.schema_version = Some(found.schema_version);
        self.stored = found.stored;
        if found.stored.is_none() {
            let note = "the database has no events of Sekali: nothing was published into it yet, \
                        or it is another one";
            self.notes.push(note.to_owned());
        }
    }
}

impl Report for BackupReport {
    fn ok(&self) -> bool {
        !self.interrupted
    }

    fn text(&self) -> String {
        let Self { directory, bytes, copy_seconds, seconds, .. } = self;
        if self.interrupted {
            return format!("interrupted: {directory} was not made\n");
        }
        let mut text = format!(
            "{directory}: {bytes} bytes copied in {copy_seconds:.2} s, checked after {seconds:.2} s\n"
        );
        if let Some(Stored { events, topics, last_seq }) = self.stored {
            text += &format!(
                "{events} events of {topics} topics, up to seq {last_seq}, as the counters say\n"
            );
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text
    }
}
