//! Arguments of `publisher export` and `publisher import`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::batch_args::BatchArgs;
use super::values::{WrongArguments, parse_name};
use crate::exported::manifest::{Selection, beside};
use crate::{export, import};

/// Most topics that can be asked for; the pages of each are in memory.
const EXPORT_TOPICS_MAX: usize = 32;
/// The name of standard input or output.
const DASH: &str = "-";

/// Write stored events to a file, a JSON object a line, in their order
///
/// Each line is an event as POST /publish takes it, with its seq and received_at, which
/// are ignored there. All is of the moment when the export begins. A file whose name
/// ends in .zst or .gz is compressed. It has its name once it is whole, and beside it is
/// FILE.manifest.json with how many events each topic has and a digest of them.
///
/// Stored events that cannot be shown are left out, named on standard error, and make
/// the exit code 1.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExportArgs {
    /// Where to write; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = DASH)]
    output: PathBuf,
    /// Where to write the manifest [default: FILE.manifest.json, for standard output none]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Only events of this topic, or of these if there are several
    #[arg(long = "topic", value_name = "TOPIC", value_parser = parse_name)]
    topics: Vec<String>,
    /// Only events received from then on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events received before (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only events after this cursor, as an earlier export gave it
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

impl ExportArgs {
    /// Whether the events go to standard output.
    pub(super) fn is_to_stdout(&self) -> bool {
        self.output == Path::new(DASH)
    }

    /// What to export, and where to.
    ///
    /// # Errors
    ///
    /// If both the events and the result are to be on standard output, two things in one
    /// file, or there are too many topics.
    pub(super) fn options(&self) -> anyhow::Result<export::Options> {
        let mut only_topics: Vec<String> = Vec::new();
        for topic in &self.topics {
            if !only_topics.contains(topic) {
                only_topics.push(topic.clone());
            }
        }
        if only_topics.len() > EXPORT_TOPICS_MAX {
            let what = format!("there can be {EXPORT_TOPICS_MAX} of '--topic' at most");
            return Err(WrongArguments(what).into());
        }
        if self.json && self.is_to_stdout() {
            let what = "'--json' needs '--output FILE': the events are on standard output";
            return Err(WrongArguments(what.to_owned()).into());
        }
        if self.manifest.as_ref() == Some(&self.output) {
            let what = "'--manifest' and '--output' name the same file";
            return Err(WrongArguments(what.to_owned()).into());
        }
        let (to, default) = match self.is_to_stdout() {
            true => (export::To::Stdout, None),
            false => (export::To::File(self.output.clone()), Some(beside(&self.output))),
        };
        let (after, since, until) = (self.after.clone(), self.since.clone(), self.until.clone());
        Ok(export::Options {
            selection: Selection { only_topics, after, since, until },
            to,
            manifest: self.manifest.clone().or(default),
        })
    }
}

/// Publish the events of an export, each stored once
///
/// Imported again, a file adds nothing. The events of a topic are stored in the order of
/// the file. First the file is held against its manifest; nothing is sent of one that is
/// cut off or changed. Then what was stored is read back and compared.
///
/// An event that is stored with other content stays as it is stored: it is named, and
/// makes the exit code 1.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ImportArgs {
    /// The export, which may be compressed; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The manifest of the export [default: FILE.manifest.json]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Do without a manifest: whether the file is whole cannot be told then
    #[arg(long, conflicts_with = "manifest")]
    no_manifest: bool,
    /// Whether to read back what was stored and compare it with the file
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    verify: bool,
    /// Only hold the file against its manifest, and send nothing
    #[arg(long)]
    pub check_only: bool,
    #[command(flatten)]
    batches: BatchArgs,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

impl ImportArgs {
    /// What to import and how.
    ///
    /// # Errors
    ///
    /// If there is no manifest, and nobody said that there need be none.
    pub(super) fn options(&self) -> anyhow::Result<import::Options> {
        let from = match self.file == Path::new(DASH) {
            true => import::From::Stdin,
            false => import::From::File(self.file.clone()),
        };
        let manifest = match (&self.manifest, self.no_manifest, &from) {
            (Some(given), ..) => Some(given.clone()),
            (None, true, _) => None,
            (None, false, import::From::Stdin) => {
                let what = "standard input needs '--manifest FILE' or '--no-manifest'";
                return Err(WrongArguments(what.to_owned()).into());
            }
            (None, false, import::From::File(path)) => Some(manifest_of(path)?),
        };
        Ok(import::Options { from, manifest, limits: self.batches.limits()?, verify: self.verify })
    }
}

/// The manifest beside a file, which has to be there.
fn manifest_of(file: &Path) -> anyhow::Result<PathBuf> {
    let manifest = beside(file);
    anyhow::ensure!(file.exists(), "cannot open {}: there is no such file", file.display());
    anyhow::ensure!(
        manifest.exists(),
        "there is no {}, so nobody can tell whether {} is whole: name it with --manifest, or do \
         without by --no-manifest",
        manifest.display(),
        file.display()
    );
    Ok(manifest)
}
