//! Arguments, and the way from them to a run and its exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::client::{self, Client};
use crate::load;
use crate::report::{self, Report};
use crate::ship::batch::{BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, Limits};
use crate::ship::registry::Registry;
use crate::ship::{self, Input};
use crate::signal::{self, EXIT_INTERRUPTED};
use crate::workload::Plan;

/// The longest topic or source, in characters.
const NAME_CHARS_MAX: usize = 255;
/// The most events in a request that can be asked for.
const BATCH_EVENTS_MAX: u64 = 1_000_000;
/// The most requests under way that can be asked for.
const CONCURRENCY_MAX: u64 = 10_000;
/// The most topics of a load.
const TOPICS_MAX: u64 = 10_000;

/// Ships log files into Sekali, drives load against it and audits the result.
#[derive(Debug, Parser)]
#[command(name = "publisher", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    service: Service,
    #[command(subcommand)]
    command: Command,
}

/// How to reach the service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
struct Service {
    /// Where the service is
    #[arg(
        long, global = true, env = "SEKALI_URL", default_value = "http://127.0.0.1:3000",
        value_parser = parse_url
    )]
    url: Url,
    /// How long to wait for the service to become healthy (30, 500ms, 2m)
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait_for: Duration,
    /// How long to retry a request after its first failure; 0: never
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    retry_for: Duration,
    /// How long one attempt of a request may take
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ship(ShipArgs),
    Load(LoadArgs),
}

/// Ship the lines of log files, each stored once
///
/// Every line is an event, empty lines included.
///
/// An event's id comes from the content of the file up to its line, not from
/// the file's name. Shipped again with the same topic and source, also after
/// it was renamed or has grown, a file adds only what is new. Lines with the
/// same text in one file are all kept, and so are the lines of two files that
/// begin alike. A last line without a line end is shipped as it is; once more
/// was written to it, it is shipped whole.
///
/// What tells files apart that begin alike is their first KiB. For shorter
/// files, and for those alike for longer, a registry of what was shipped from
/// here decides (--state); without it such files share the lines they begin
/// with, and a file that has grown past its first KiB since it was shipped has
/// that KiB's lines stored again. A file that begins with all of another is
/// taken for that one grown.
///
/// Lines end with LF or CRLF. Bytes that are not UTF-8 are replaced by U+FFFD
/// and counted. Lines longer than 1 MiB become several events.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct ShipArgs {
    /// Files to ship; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Topic of all events [default: each file's name without its extension; `stdin`]
    #[arg(long, value_parser = parse_name)]
    topic: Option<String>,
    /// Source of all events [default: the host's name]
    #[arg(long, value_parser = parse_name)]
    source: Option<String>,
    /// Keep reading as the files grow, also when they are rotated, until SIGINT or SIGTERM
    #[arg(long, short)]
    follow: bool,
    /// The time between two looks at a file that is followed
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = parse_timeout)]
    poll: Duration,
    /// Requests under way at a time; those of one file follow each other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    concurrency: u64,
    /// Most events in a request
    #[arg(
        long, value_name = "EVENTS", default_value_t = BATCH_EVENTS_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_EVENTS_MAX)
    )]
    batch: u64,
    /// Most bytes in a request, unless one event has more
    #[arg(
        long, value_name = "BYTES", default_value_t = BATCH_BYTES_DEFAULT as u64,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    batch_bytes: u64,
    /// The registry of what was shipped [default: sekali/ship.json in the user's state directory]
    #[arg(long, value_name = "FILE", env = "SEKALI_SHIP_STATE")]
    state: Option<PathBuf>,
    /// Do without the registry
    #[arg(long, conflicts_with = "state")]
    no_state: bool,
}

/// Deliver events, some of them repeatedly, and audit the outcome
///
/// A share of the deliveries repeats earlier ones, exactly so many. The replies
/// and the change in /stats are held against what must come of them; a
/// mismatch is an exit code of 1.
///
/// The same seed gives the same deliveries, byte for byte: a second run with
/// it finds duplicates only, and is checked as such. Two runs with the same
/// seed at the same time disturb each other's check; runs with other seeds, and
/// other clients, do not.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct LoadArgs {
    /// Deliveries
    #[arg(long, default_value_t = 5_000)]
    events: u64,
    /// The share of them that repeats earlier ones (0.2 or 20%)
    #[arg(long, value_name = "SHARE", default_value = "20%", value_parser = parse_share)]
    duplicates: f64,
    /// Requests under way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    concurrency: u64,
    /// Events in a request
    #[arg(
        long, value_name = "EVENTS", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_EVENTS_MAX)
    )]
    batch: u64,
    /// Topics to spread the events over
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=TOPICS_MAX))]
    topics: u64,
    /// What the deliveries are derived from [default: random; it is printed]
    #[arg(long)]
    seed: Option<u64>,
}

/// The whole program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error; clap knows which stream and code it wants.
            let code = error.exit_code();
            if let Err(error) = error.print() {
                eprintln!("publisher: {error}");
            }
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("publisher: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // On a worker rather than here, so that it may block in place.
    let result = runtime.block_on(async { tokio::spawn(run(cli)).await });
    // A read of standard input cannot be called off, and must not hold us.
    runtime.shutdown_background();
    match result {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            eprintln!("publisher: {error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("publisher: a defect: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { service, command } = cli;
    let stop = signal::watch()?;
    let client = Arc::new(Client::new(client::Options {
        url: service.url,
        timeout: service.timeout,
        retry_for: service.retry_for,
        jitter_seed: rand::random(),
    })?);
    // What is wrong with the arguments is said before anything is waited for.
    let job = match command {
        Command::Ship(args) => Job::Ship(args.options()?, args.registry()),
        Command::Load(args) => Job::Load(args.options()?),
    };
    let mut interrupted = stop.clone();
    tokio::select! {
        healthy = client.wait_until_healthy(service.wait_for) => healthy?,
        () = interrupted.wait() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    }
    match job {
        Job::Ship(options, registry) => {
            let report = ship::run(client, options, registry, stop).await?;
            finish(&report, service.json, report.interrupted)
        }
        Job::Load(options) => {
            let report = load::run(client, options, stop).await?;
            finish(&report, service.json, report.interrupted)
        }
    }
}

enum Job {
    Ship(ship::Options, Registry),
    Load(load::Options),
}

fn finish(report: &impl Report, json: bool, interrupted: bool) -> anyhow::Result<ExitCode> {
    report::print(report, json).context("cannot print the result")?;
    Ok(match (report.ok(), interrupted) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(EXIT_INTERRUPTED),
        (false, false) => ExitCode::FAILURE,
    })
}

impl ShipArgs {
    fn options(&self) -> anyhow::Result<ship::Options> {
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
            limits: Limits {
                batch_events_max: usize::try_from(self.batch)?,
                batch_bytes_max: usize::try_from(self.batch_bytes)?,
            },
            concurrency: usize::try_from(self.concurrency)?,
            follow: self.follow,
            poll: self.poll,
        })
    }

    /// The registry; shipping does without it rather than not at all.
    fn registry(&self) -> Registry {
        let default = || Registry::default_path(|name| std::env::var_os(name));
        let path = if self.no_state { None } else { self.state.clone().or_else(default) };
        let Some(path) = path else { return Registry::in_memory() };
        Registry::at(path).unwrap_or_else(|error| {
            eprintln!(
                "publisher: {error:#}\npublisher: what is shipped will not be remembered, which \
                 may store first lines twice or take one file for another; see `publisher ship \
                 --help`"
            );
            Registry::in_memory()
        })
    }
}

impl LoadArgs {
    fn options(&self) -> anyhow::Result<load::Options> {
        let seed = self.seed.unwrap_or_else(rand::random);
        Ok(load::Options {
            plan: Plan::new(seed, self.events, self.duplicates, self.topics)?,
            concurrency: usize::try_from(self.concurrency)?,
            batch_events: usize::try_from(self.batch)?,
        })
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; expected http://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("expected http://HOST:PORT or https://HOST".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected an address without query or fragment".to_owned());
    }
    Ok(url)
}

/// Reads `30`, `30s`, `500ms`, `2m`, `1.5h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        unit => return Err(format!("`{unit}` is not one of ms, s, m, h")),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a time as 30, 30s, 500ms or 2m")?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// A time that is not zero.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads `0.2` or `20%`.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|error| error.to_string())? / factor;
    match (0.0..1.0).contains(&share) {
        true => Ok(share),
        false => Err("expected a share from 0 to below 1, as 0.2 or 20%".to_owned()),
    }
}

/// A topic or source of the contract.
fn parse_name(text: &str) -> Result<String, String> {
    let chars = text.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || text.contains('\0') {
        return Err(format!("expected 1 to {NAME_CHARS_MAX} characters without NUL"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares() {
        for (text, expected) in
            [("0.2", Some(0.2)), ("20%", Some(0.2)), ("20 %", Some(0.2)), ("0", Some(0.0))]
        {
            assert_eq!(parse_share(text).ok(), expected, "{text}");
        }
        for text in ["1", "100%", "20", "-1%", "NaN", "", "%", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected_ms) in
            [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(expected_ms)), "{text}");
        }
        for text in ["", "s", "-1", "1 fortnight", "NaN", "1e40h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_timeout("0").is_err());
    }

    #[test]
    fn urls() {
        for text in ["http://127.0.0.1:3000", "https://example.org/base/"] {
            assert!(parse_url(text).is_ok(), "{text}");
        }
        for text in ["127.0.0.1:3000", "localhost:3000", "ftp://x", "http://x/?a=1", ""] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}
