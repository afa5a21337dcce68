//! Arguments of `publisher ship`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use encoding_rs::Encoding;

use super::batch_args::BatchArgs;
use super::values::{CONCURRENCY_MAX, STREAMS_MAX, parse_name, parse_timeout, variable};
use crate::client::Protocol;
use crate::console;
use crate::ship::registry::{self, Registry};
use crate::ship::{self, Input};

/// The variable that says where the registry is.
const STATE_VARIABLE: &str = "SEKALI_SHIP_STATE";

/// Ship the lines of log files, each stored once
///
/// Every line is an event, empty lines included.
///
/// An event's id comes from the content of the file up to its line, not from
/// the file's name or from how it is read. Shipped again with the same topic and
/// source, also after it was renamed, copied, packed or has grown, a file adds
/// only what is new. Lines with the same text in one file are all kept, and so
/// are the lines of two files that begin alike. A last line without a line end
/// is shipped as it is; once more was written to it, it is shipped whole.
///
/// What tells files apart that begin alike is their first KiB. For shorter
/// files, and for those alike for longer, a registry of what was shipped from
/// here decides (--state); without it such files share the lines they begin
/// with, and a file that has grown past its first KiB since it was shipped has
/// that KiB's lines stored again. A file that begins with all of another is
/// taken for that one grown, unless both are read at once.
///
/// gzip, zstd, xz and bzip2 are unpacked. Lines end with LF or CRLF. Bytes that
/// are not text in the file's encoding are replaced by U+FFFD and counted, holes
/// of NUL bytes are left out and counted. Lines longer than 1 MiB become several
/// events.
///
/// With --follow, files beside a name that are named as its rotations (NAME.1,
/// NAME-DATE, NAME.2.gz) and were not shipped to their end are shipped, too. No
/// error ends it: what cannot be read now is tried again, and counted at the end.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShipArgs {
    /// Files to ship; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Topic of all events [default: each file's name without its extension and what rotation
    /// adds, as .1, .old, -20260101, .gz; `stdin`]
    #[arg(long, value_parser = parse_name)]
    topic: Option<String>,
    /// Source of all events [default: the host's name]
    #[arg(long, value_parser = parse_name)]
    source: Option<String>,
    /// Keep reading as the files grow, also when they are rotated, until SIGINT or SIGTERM
    #[arg(long, short)]
    follow: bool,
    /// The interval at which a file that is followed is polled
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = parse_timeout)]
    poll: Duration,
    /// How long a file has to be quiet after it was renamed, before it is done with
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_timeout)]
    renamed_quiet: Duration,
    /// What the files are encoded in, such as windows-1252 or utf-16le, where they have no
    /// byte order mark [default: utf-8]
    #[arg(long, value_name = "NAME", value_parser = parse_encoding)]
    encoding: Option<&'static Encoding>,
    /// Send the lines over so many streams (POST /publish/stream) if the service offers
    /// them, else, or with 0, as ordinary requests
    #[arg(
        long, value_name = "COUNT", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(0..=STREAMS_MAX)
    )]
    streams: u16,
    /// Requests under way at a time; those of one file follow each other. On a stream they
    /// are parts, and those of one file are sent ahead of their answers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    concurrency: u64,
    #[command(flatten)]
    batches: BatchArgs,
    /// The registry of what was shipped [default: sekali/ship.db in the user's state
    /// directory] [env: SEKALI_SHIP_STATE]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Do without the registry
    #[arg(long, conflicts_with = "state")]
    no_state: bool,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

fn parse_encoding(label: &str) -> Result<&'static Encoding, String> {
    Encoding::for_label_no_replacement(label.as_bytes()).ok_or_else(|| {
        "no encoding of the web's standard (https://encoding.spec.whatwg.org/#names-and-labels)"
            .to_owned()
    })
}

impl ShipArgs {
    /// What is spoken.
    pub(super) fn protocol(&self) -> Protocol {
        let count = NonZeroUsize::new(self.streams.into());
        count.map_or(Protocol::Http1, Protocol::StreamsIfOffered)
    }

    /// What to ship and how.
    ///
    /// # Errors
    ///
    /// If the host's name is needed and is no source.
    pub(super) fn options(&self) -> anyhow::Result<ship::Options> {
        let source = match &self.source {
            Some(source) => source.clone(),
            None => {
                let host = gethostname::gethostname().to_string_lossy().into_owned();
                parse_name(&host).map_err(|error| {
                    anyhow::anyhow!("the host's name is no source ({error}): give --source")
                })?
            }
        };
        let input = |path: &PathBuf| match path.as_os_str() == "-" {
            true => Input::Stdin,
            false => Input::File(path.clone()),
        };
        let mut inputs = Vec::new();
        for input in self.files.iter().map(input) {
            // Standard input can be read but once, and a file named twice
            // would only be sent twice.
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        }
        Ok(ship::Options {
            inputs,
            topic: self.topic.clone(),
            source,
            limits: self.batches.limits()?,
            concurrency: usize::try_from(self.concurrency)?,
            follow: self.follow,
            poll: self.poll,
            renamed_quiet: self.renamed_quiet,
            encoding: self.encoding,
        })
    }

    /// The registry; shipping does without it rather than not at all.
    ///
    /// # Errors
    ///
    /// If not even one that is forgotten can be made.
    pub(super) fn registry(&self) -> anyhow::Result<Registry> {
        let default = || registry::default_path(|name| std::env::var_os(name));
        let from_environment = || variable(STATE_VARIABLE).map(PathBuf::from);
        let given = || self.state.clone().or_else(from_environment).or_else(default);
        let path = if self.no_state { None } else { given() };
        let Some(path) = path else { return Registry::in_memory() };
        let mut say = |text: String| console::note(text);
        Registry::at(path, &mut say).or_else(|error| {
            say(format!(
                "{error:#}; what is shipped will not be remembered, which may store first lines \
                 twice or take one file for another. Give another registry with --state, or \
                 --no-state to do without; see `publisher ship --help`"
            ));
            Registry::in_memory()
        })
    }
}
