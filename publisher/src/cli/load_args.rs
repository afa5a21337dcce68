//! Arguments of `publisher load`, `resume`, `verify`, `chaos` and `calibrate`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::values::{
    CONCURRENCY_MAX, STREAMS_MAX, parse_duration, parse_payload_bytes, parse_rate, parse_share,
    parse_timeout,
};
#[cfg(unix)]
use crate::chaos;
use crate::client::Protocol;
use crate::ledger::{self, RunFile};
use crate::load;
use crate::report::load::Arrivals;
use crate::report::{self, JsonTo, LoadReport, html};
use crate::threshold::FailIf;
use crate::workload::{BATCH_EVENTS_MAX, NAMED, Plan, Range, Spec, TOPICS_MAX};

/// Deliveries if nothing else is said.
const EVENTS_DEFAULT: u64 = 5_000;
/// Requests under way at a time in a closed loop if nothing else is said.
const CONCURRENCY_CLOSED: u64 = 32;
/// The same in an open loop, where it is a limit and not a goal.
const CONCURRENCY_OPEN: u64 = 256;
/// Requests of a calibration under way at a time.
const CALIBRATION_CONCURRENCY: usize = 32;

/// What is delivered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workload")]
struct ShapeArgs {
    /// What the load looks like: a name (see `publisher workloads`) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    workload: String,
    /// The share of deliveries that repeats earlier ones (0.2 or 20%)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    duplicates: Option<f64>,
    /// Events in a request
    #[arg(
        long, value_name = "EVENTS",
        value_parser = clap::value_parser!(u64).range(1..=BATCH_EVENTS_MAX)
    )]
    batch: Option<u64>,
    /// Topics to spread the events over
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=TOPICS_MAX))]
    topics: Option<u64>,
    /// The size of payloads, every doubling alike (100..100000)
    #[arg(long, value_name = "BYTES", value_parser = parse_payload_bytes)]
    payload_bytes: Option<Range>,
    /// What the deliveries are derived from [default: random; it is printed]
    #[arg(long)]
    seed: Option<u64>,
}

/// What is spoken.
#[derive(Debug, Args)]
pub(super) struct HttpArgs {
    /// Speak HTTP/2 without TLS (h2c), all requests over one connection
    #[arg(long)]
    http2: bool,
}

/// How many streams there are.
#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    /// Send all events over so many streams (POST /publish/stream), on which requests
    /// are parts; --concurrency is that of all together
    #[arg(
        long, value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=STREAMS_MAX)
    )]
    streams: Option<u16>,
}

impl StreamArgs {
    /// What is spoken, if not `otherwise`.
    pub(super) fn protocol(&self, otherwise: Protocol) -> Protocol {
        let count = self.streams.and_then(|count| NonZeroUsize::new(count.into()));
        count.map_or(otherwise, Protocol::Streams)
    }
}

/// Where results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(super) struct ResultArgs {
    /// Write the result as JSON, to a file or else to standard output and nothing
    /// but it; `publisher schema` describes it
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fail (exit code 3) if this holds, as 'p99>50ms', 'errors>0', 'rate<1000'; repeatable
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<FailIf>,
}

/// Deliver events, some of them repeatedly, measure it, and audit the outcome
///
/// Shares of the deliveries repeat earlier ones, exactly so many. The replies
/// and the change in /stats are held against what must come of them, and with
/// --audit every event is read back; a mismatch is an exit code of 1.
///
/// Without --rate it is a closed loop: each request is sent when an earlier one
/// is answered. With --rate it is an open loop: requests are sent when their
/// time has come, and latency counts from then ("corrected"), so that a pause
/// of the service is seen for what it is; "raw" counts from when a request was
/// really sent.
///
/// The same seed gives the same deliveries, byte for byte: a second run with
/// it finds duplicates only, and is checked as such. Two runs with the same
/// seed at the same time disturb each other's check; runs with other seeds, and
/// other clients, do not.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct LoadArgs {
    /// Deliveries [default: 5000, or as many as fit into --duration]
    #[arg(long)]
    events: Option<u64>,
    /// How long to send (30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    duration: Option<Duration>,
    /// How long it takes until latencies and rates count (2s)
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    warm_up: Duration,
    /// Send so many events a second, whatever the service does (open loop)
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Send at random moments (a Poisson process) instead of evenly
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Most requests under way at a time [default: 32; with --rate 256]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    concurrency: Option<u64>,
    /// Go on after a request that cannot be answered
    #[arg(long)]
    keep_going: bool,
    /// Send NDJSON, a line for each event, instead of arrays
    #[arg(long)]
    ndjson: bool,
    /// Compress bodies, if the service takes that
    #[arg(long)]
    gzip: bool,
    #[command(flatten)]
    /// What is spoken.
    pub http: HttpArgs,
    #[command(flatten)]
    /// Whether it is streams.
    pub streams: StreamArgs,
    /// Keep a ledger, and in the end read every event back
    #[arg(long)]
    audit: bool,
    /// Keep a ledger in this directory [default with --audit: one named after the
    /// seed under sekali/runs in the user's state directory]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    /// Where results go.
    pub results: ResultArgs,
}

/// A run that has a ledger.
#[derive(Debug, Args)]
pub(super) struct RecordedArgs {
    /// The run: the directory of its ledger, or its name under the default directory
    run: PathBuf,
}

/// Audit a run from its ledger alone, also after a crash of the publisher
///
/// Nothing is sent. What has neither a reply nor a failure in the ledger may or
/// may not be stored; `publisher resume` sends it again.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct VerifyArgs {
    /// Which run.
    #[command(flatten)]
    pub recorded: RecordedArgs,
    #[command(flatten)]
    /// Where results go.
    pub results: ResultArgs,
}

/// Go on with a run that was broken off, and audit all of it
///
/// What is not settled is sent again, with the same ids and bytes, and then the
/// rest of the plan if it has an end.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ResumeArgs {
    /// Which run.
    #[command(flatten)]
    pub recorded: RecordedArgs,
    /// Most requests under way at a time [default: as before]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX))]
    pub concurrency: Option<u64>,
    #[command(flatten)]
    /// Where results go.
    pub results: ResultArgs,
}

/// Kill the service at random moments of a load, and audit what is left
///
/// The service is started by --command, in a process group of its own; a kill
/// (SIGKILL) goes to that group and to nothing else. Give --url the address that
/// the command listens on. In the end every event is read back.
#[cfg(unix)]
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ChaosArgs {
    /// What starts the service, for `sh -c`. Once for each process, if it is several:
    /// what is needed first, then replicas behind a balancer, which is no process of
    /// these; each kill ends one of them
    #[arg(long = "command", value_name = "COMMAND", required = true)]
    commands: Vec<String>,
    /// How often the service, or a process of it, is killed
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// The shortest time from when the service is healthy to the kill
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    up_min: Duration,
    /// The longest
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    up_max: Duration,
    /// Requests under way at a time
    #[arg(
        long, default_value_t = CONCURRENCY_CLOSED,
        value_parser = clap::value_parser!(u64).range(1..=CONCURRENCY_MAX)
    )]
    concurrency: u64,
    #[command(flatten)]
    /// Whether it is streams.
    pub streams: StreamArgs,
    /// Keep the ledger and the service's output in this directory [default: one
    /// named after the seed under sekali/runs in the user's state directory]
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    /// Where results go.
    pub results: ResultArgs,
}

/// Measure this program against a server that does nothing
///
/// It is the most that a load can ask of a service on this machine.
#[derive(Debug, Args)]
pub(super) struct CalibrateArgs {
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_timeout)]
    duration: Duration,
    /// Send so many requests a second; otherwise as many as can be
    #[arg(long, value_name = "REQUESTS_PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    #[command(flatten)]
    /// What is spoken.
    pub http: HttpArgs,
    /// Keep a ledger in this directory
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// List the workloads that have a name, or print one as a TOML file
#[derive(Debug, Args)]
pub(super) struct WorkloadsArgs {
    /// The one to print
    name: Option<String>,
}

impl ShapeArgs {
    fn spec(&self) -> anyhow::Result<Spec> {
        let mut spec = match Spec::named(&self.workload) {
            Some(spec) => spec,
            None => read_workload(Path::new(&self.workload))?,
        };
        spec.duplicates = self.duplicates.unwrap_or(spec.duplicates);
        spec.batch = self.batch.map_or(spec.batch, Range::exactly);
        spec.topics = self.topics.unwrap_or(spec.topics);
        spec.payload_bytes = self.payload_bytes.or(spec.payload_bytes);
        Ok(spec)
    }

    fn plan(&self, deliveries: Option<u64>) -> anyhow::Result<Plan> {
        Plan::new(self.seed.unwrap_or_else(rand::random), self.spec()?, deliveries)
    }
}

fn read_workload(path: &Path) -> anyhow::Result<Spec> {
    let names = || NAMED.iter().map(|named| named.name).collect::<Vec<_>>().join(", ");
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("{} is no workload ({}), and cannot be read as a file", path.display(), names())
    })?;
    Spec::from_toml(&text).with_context(|| format!("{} is no workload", path.display()))
}

impl HttpArgs {
    /// The version of HTTP.
    pub(super) fn protocol(&self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Http1 }
    }
}

impl LoadArgs {
    /// What to deliver and how.
    ///
    /// # Errors
    ///
    /// If there can be no such load.
    pub(super) fn options(&self) -> anyhow::Result<load::Options> {
        let events = match (self.events, self.duration) {
            (None, None) => Some(EVENTS_DEFAULT),
            (events, _) => events,
        };
        let plan = self.shape.plan(events)?;
        let ledger = match (&self.ledger, self.audit) {
            (Some(directory), _) => Some(directory.clone()),
            (None, true) => Some(ledger::new_directory(&plan)?),
            (None, false) => None,
        };
        let arrivals = match (self.rate, self.poisson) {
            (None, _) => Arrivals::Closed,
            (Some(_), false) => Arrivals::Constant,
            (Some(_), true) => Arrivals::Poisson,
        };
        if let Some(duration) = self.duration {
            ensure!(self.warm_up < duration, "the warm-up takes as long as all, or longer");
        }
        let is_stream = self.streams.streams.is_some();
        ensure!(!is_stream || !self.gzip, "a stream of events is not compressed");
        ensure!(!is_stream || !self.http.http2, "streams go over HTTP/1.1 here");
        let usual = if self.rate.is_some() { CONCURRENCY_OPEN } else { CONCURRENCY_CLOSED };
        let concurrency = usize::try_from(self.concurrency.unwrap_or(usual))?;
        Ok(load::Options {
            arrivals,
            rate: self.rate.unwrap_or_default(),
            duration: self.duration,
            warm_up: self.warm_up,
            lines: self.ndjson,
            gzip: self.gzip,
            keep_going: self.keep_going,
            ledger,
            read_back: self.audit,
            ..load::Options::closed(plan, concurrency)
        })
    }
}

impl RecordedArgs {
    /// The directory of the run.
    pub(super) fn directory(&self) -> PathBuf {
        ledger::find(&self.run)
    }

    /// How to verify it, or to go on with it, with another concurrency if one
    /// is given.
    ///
    /// # Errors
    ///
    /// If there can be no such run.
    pub(super) fn options(
        &self,
        run: &RunFile,
        concurrency: Option<u64>,
    ) -> anyhow::Result<load::Options> {
        let concurrency = concurrency.map_or(Ok(run.concurrency), usize::try_from)?;
        Ok(load::Options {
            ledger: Some(self.directory()),
            read_back: true,
            ..load::Options::closed(run.plan()?, concurrency)
        })
    }
}

#[cfg(unix)]
impl ChaosArgs {
    /// The commands, each with a file for its output in `directory`.
    fn commands(&self, directory: &Path) -> Vec<chaos::Command> {
        let output = |number: usize| match self.commands.len() {
            1 => "service.log".to_owned(),
            _ => format!("service-{number}.log"),
        };
        let command = |(number, line): (usize, &String)| chaos::Command {
            line: line.clone(),
            output: directory.join(output(number)),
        };
        (1..).zip(&self.commands).map(command).collect()
    }

    /// How to disturb the service.
    ///
    /// # Errors
    ///
    /// If there can be no such load.
    pub(super) fn options(&self, wait_for: Duration) -> anyhow::Result<chaos::Options> {
        ensure!(self.up_min <= self.up_max, "--up-min is over --up-max");
        let plan = self.shape.plan(None)?;
        let directory = match &self.ledger {
            Some(directory) => directory.clone(),
            None => ledger::new_directory(&plan)?,
        };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(chaos::Options {
            load: load::Options {
                ledger: Some(directory.clone()),
                read_back: true,
                ..load::Options::closed(plan, usize::try_from(self.concurrency)?)
            },
            commands: self.commands(&directory),
            kills: self.kills,
            up: (self.up_min, self.up_max),
            wait_for,
        })
    }
}

impl CalibrateArgs {
    /// A load of single events.
    ///
    /// # Errors
    ///
    /// If there can be no such load.
    pub(super) fn options(&self) -> anyhow::Result<load::Options> {
        let spec = Spec { duplicates: 0.0, ..Spec::DEFAULT };
        let plan = Plan::new(rand::random(), spec, None)?;
        let arrivals = self.rate.map_or(Arrivals::Closed, |_| Arrivals::Constant);
        Ok(load::Options {
            arrivals,
            rate: self.rate.unwrap_or_default(),
            duration: Some(self.duration),
            ledger: self.ledger.clone(),
            ..load::Options::closed(plan, CALIBRATION_CONCURRENCY)
        })
    }
}

impl WorkloadsArgs {
    /// The list, or the file.
    ///
    /// # Errors
    ///
    /// If there is no such workload.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let Some(name) = &self.name else {
            let line =
                |named: &crate::workload::Named| format!("{:9} {}\n", named.name, named.about);
            return Ok(NAMED.iter().map(line).collect());
        };
        let spec = Spec::named(name).with_context(|| format!("there is no workload {name}"))?;
        Ok(toml::to_string(&spec)?)
    }
}

impl ResultArgs {
    /// Whether standard output is for JSON alone.
    #[cfg(unix)]
    pub(super) fn is_json_only(&self) -> bool {
        self.json() == Some(JsonTo::Stdout)
    }

    fn json(&self) -> Option<JsonTo> {
        self.json.as_ref().map(|file| file.clone().map_or(JsonTo::Stdout, JsonTo::File))
    }

    /// Evaluates the thresholds and writes a report. Returns it with them.
    ///
    /// # Errors
    ///
    /// If a file or standard output cannot be written.
    pub(super) fn write(&self, mut report: LoadReport) -> anyhow::Result<LoadReport> {
        report.thresholds = self.fail_if.iter().map(|fail_if| fail_if.evaluate(&report)).collect();
        report.ok = report.is_sound() && !report.crosses_threshold();
        if let Some(path) = &self.html {
            report::write_file(path, &html::page(&report)?)?;
        }
        report::print(&report, self.json().as_ref())?;
        Ok(report)
    }
}
