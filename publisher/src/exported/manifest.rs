//! The manifest of an export: `FILE.manifest.json` beside the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::sums::TopicSums;

/// The version of the form that is written here.
const VERSION: u32 = 1;
/// What is added to the name of a file.
const ENDING: &str = ".manifest.json";

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of this form.
    pub sekali_export: u32,
    /// When it was begun, RFC 3339.
    pub exported_at: String,
    /// Of which service.
    pub url: String,
    /// When its store was first started, which tells stores apart.
    #[serde(default)]
    pub store_started_at: Option<String>,
    /// What was asked for, where that is not everything.
    #[serde(flatten)]
    pub selection: Selection,
    /// Where it ends; nothing if the store was empty.
    pub up_to: Option<UpTo>,
    /// Lines of the file.
    pub events: u64,
    /// Stored events that cannot be shown, and are not in the file.
    pub unreadable: u64,
    /// The sums of each topic.
    pub topics: TopicSums,
}

/// What is to be exported, in the words of `GET /events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selection {
    /// Of these topics alone; of all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_topics: Vec<String>,
    /// After this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Received from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Received before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The last place of which something could be in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UpTo {
    /// Of the newest event when it began.
    pub seq: u64,
    /// The cursor after it, from which a later export can go on.
    pub cursor: Option<String>,
}

impl Manifest {
    /// The version of the form.
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads one.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{shown} is not the manifest of an export"))?;
        let version = manifest.sekali_export;
        ensure!(
            version <= VERSION,
            "{shown} is of version {version}, and this publisher knows {VERSION}"
        );
        Ok(manifest)
    }

    /// As it is written.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, which would be a defect.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Where the manifest of a file is, if nothing else is said.
#[must_use]
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(ENDING);
    name.into()
}
