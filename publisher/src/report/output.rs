//! Where a report goes: standard output or a file, for people or as JSON.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::console;

/// Where a report goes as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonTo {
    /// To standard output, and nothing else there.
    Stdout,
    /// To a file; people get their report as well.
    File(std::path::PathBuf),
}

/// The end of a run.
pub(crate) trait Report: Serialize {
    /// Whether the run did what it was asked to.
    fn ok(&self) -> bool;
    /// The report for people, lines ended.
    fn text(&self) -> String;
}

/// Writes a report to standard output, for people or as one JSON object, and to
/// a file if that is wanted.
///
/// # Errors
///
/// If standard output or the file cannot be written to.
pub(crate) fn print(report: &impl Report, json: Option<&JsonTo>) -> anyhow::Result<()> {
    let text = match json {
        Some(JsonTo::Stdout) => self::json(report)?,
        Some(JsonTo::File(path)) => {
            write_file(path, &self::json(report)?)?;
            report.text()
        }
        None => report.text(),
    };
    console::print(&text)
}

/// Writes a report to standard error, for people, where standard output is taken.
pub(crate) fn tell(report: &impl Report) {
    console::line(report.text().trim_end());
}

fn json(report: &impl Report) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(report)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("ok".into(), report.ok().into());
    }
    Ok(format!("{value:#}\n"))
}

/// Writes a file of a report.
///
/// # Errors
///
/// If it cannot be written; the message names it.
pub(crate) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
