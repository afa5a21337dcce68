//! Arguments, and the way from them to a run and its exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use reqwest::Url;

use crate::calibrate::{self, Calibration, SERVER_COMMAND};
#[cfg(unix)]
use crate::chaos;
use crate::client::{self, Client, Protocol};
use crate::console;
use crate::ledger::{Recorded, RunFile};
use crate::report::{self, JsonTo, LoadReport, Report};
use crate::retry::BACKOFF_MAX_MS;
use crate::signal::{self, EXIT_INTERRUPTED, Stop};
use crate::{load, ship};

mod load_args;
mod ship_args;
mod values;

#[cfg(unix)]
use load_args::ChaosArgs;
use load_args::{
    CalibrateArgs, LoadArgs, RecordedArgs, ResultArgs, ResumeArgs, VerifyArgs, WorkloadsArgs,
};
use ship_args::ShipArgs;
use values::{parse_duration, parse_timeout, parse_url, variable};

/// The variable that says where the service is.
const URL_VARIABLE: &str = "SEKALI_URL";
/// Where the service is if nothing else is said.
const URL_DEFAULT: &str = "http://127.0.0.1:3000";
/// The longest backoff while a service that was killed comes back, in
/// milliseconds.
#[cfg(unix)]
const CHAOS_BACKOFF_MAX_MS: u64 = 100;
/// The exit code of a run whose checks held and that crossed a threshold.
const EXIT_THRESHOLD: u8 = 3;

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
    /// Where the service is [default: http://127.0.0.1:3000; of a recorded run: where it was]
    /// [env: SEKALI_URL]
    #[arg(long, global = true, value_parser = parse_url)]
    url: Option<Url>,
    /// How long to wait for the service to become healthy (30, 500ms, 2m)
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait_for: Duration,
    /// How long to retry a request after its first failure; 0: never
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    retry_for: Duration,
    /// How long one attempt of a request may take
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ship(ShipArgs),
    Load(Box<LoadArgs>),
    Verify(VerifyArgs),
    Resume(ResumeArgs),
    #[cfg(unix)]
    Chaos(Box<ChaosArgs>),
    Calibrate(CalibrateArgs),
    Workloads(WorkloadsArgs),
    /// Print the JSON Schema of the result of load, resume, verify and chaos
    Schema,
    #[command(name = SERVER_COMMAND, hide = true)]
    CalibrationServer,
}

/// The whole program.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args).and_then(Cli::with_environment) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error; clap knows which stream and code it wants.
            let code = error.exit_code();
            if let Err(error) = print_clap(&error) {
                console::note(format_args!("{error:#}"));
                return ExitCode::FAILURE;
            }
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    // The server of a calibration is to take one core at most.
    let one_thread = matches!(cli.command, Command::CalibrationServer);
    let mut runtime = match one_thread {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console::note(format_args!("cannot start: {error}"));
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
            console::note(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            console::note(format_args!("a defect: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what clap has to say: help and versions, which are results, or what is
/// wrong with the arguments.
fn print_clap(error: &clap::Error) -> anyhow::Result<()> {
    match error.print() {
        // The code says it all the same.
        Err(_) if error.use_stderr() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

impl Cli {
    /// Takes from the environment what the arguments do not say.
    fn with_environment(mut self) -> Result<Self, clap::Error> {
        if self.service.url.is_none()
            && let Some(url) = variable(URL_VARIABLE)
        {
            let url = url.to_str().ok_or_else(|| "it is not Unicode".to_owned());
            let url = url.and_then(parse_url).map_err(|error| wrong_variable(URL_VARIABLE, &error));
            self.service.url = Some(url?);
        }
        Ok(self)
    }
}

fn wrong_variable(name: &str, error: &str) -> clap::Error {
    let kind = clap::error::ErrorKind::ValueValidation;
    Cli::command().error(kind, format!("the variable {name} is wrong: {error}"))
}

/// A service that is to be there, and the user who may not want to wait.
struct Session {
    client: Arc<Client>,
    stop: Stop,
    wait_for: Duration,
}

impl Service {
    fn session(self, protocol: Protocol, backoff_max_ms: u64) -> anyhow::Result<Session> {
        let client = Arc::new(Client::new(client::Options {
            url: self.url.map_or_else(|| parse_url(URL_DEFAULT), Ok).map_err(Error::msg)?,
            timeout: self.timeout,
            retry_for: self.retry_for,
            backoff_max: Duration::from_millis(backoff_max_ms),
            protocol,
            jitter_seed: rand::random(),
        })?);
        Ok(Session { client, stop: signal::watch()?, wait_for: self.wait_for })
    }

    fn default_session(self) -> anyhow::Result<Session> {
        self.session(Protocol::Http1, BACKOFF_MAX_MS)
    }

    /// Where a recorded run was, unless told otherwise.
    fn session_of(mut self, run: &RunFile) -> anyhow::Result<Session> {
        if self.url.is_none() {
            self.url = Some(parse_url(&run.url).map_err(Error::msg)?);
        }
        self.default_session()
    }
}

impl Session {
    /// Waits until the service is healthy; false if the user ended that.
    async fn ready(&self) -> anyhow::Result<bool> {
        let mut interrupted = self.stop.clone();
        tokio::select! {
            healthy = self.client.wait_until_healthy(self.wait_for) => healthy.map(|()| true),
            () = interrupted.wait() => Ok(false),
        }
    }
}

/// What is wrong with the arguments is said before anything is waited for.
async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { service, command } = cli;
    let interrupted = ExitCode::from(EXIT_INTERRUPTED);
    match command {
        Command::Ship(args) => {
            let session = service.default_session()?;
            let (options, registry) = (args.options()?, args.registry()?);
            if !session.ready().await? {
                return Ok(interrupted);
            }
            let report = ship::run(session.client, options, registry, session.stop).await?;
            report::print(&report, args.json.then_some(&JsonTo::Stdout))?;
            Ok(exit_code(report.ok(), report.interrupted))
        }
        Command::Load(args) => {
            let session = service.session(args.http.protocol(), BACKOFF_MAX_MS)?;
            let options = args.options()?;
            if !session.ready().await? {
                return Ok(interrupted);
            }
            finish(&args.results, load::run(session.client, options, session.stop).await?)
        }
        Command::Verify(VerifyArgs { recorded, results }) => {
            on_recorded(service, &recorded, None, &results, load::verify).await
        }
        Command::Resume(ResumeArgs { recorded, concurrency, results }) => {
            on_recorded(service, &recorded, concurrency, &results, load::resume).await
        }
        #[cfg(unix)]
        Command::Chaos(args) => {
            let session = service.session(Protocol::Http1, CHAOS_BACKOFF_MAX_MS)?;
            let options = args.options(session.wait_for)?;
            let kills = options.kills;
            let json_only = args.results.is_json_only();
            let on_kill = |number, kill: &_| {
                let line = kill_line(number, kills, kill);
                if json_only {
                    console::line(line);
                } else {
                    // The kills go on; that the result cannot be written is an
                    // error in the end.
                    console::print(&format!("{line}\n")).ok();
                }
            };
            let report = chaos::run(session.client, options, session.stop, on_kill).await?;
            finish(&args.results, report)
        }
        Command::Calibrate(args) => calibration(service, &args).await,
        Command::Workloads(args) => {
            console::print(&args.text()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Schema => {
            // As it is written: what is always there is required.
            let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
            let schema = settings.into_generator().into_root_schema_for::<LoadReport>();
            console::print(&format!("{:#}\n", serde_json::to_value(schema)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CalibrationServer => calibrate::serve().await.map(|()| ExitCode::SUCCESS),
    }
}

/// Audits a recorded run, or goes on with it.
async fn on_recorded<Audit: Future<Output = anyhow::Result<LoadReport>>>(
    service: Service,
    recorded: &RecordedArgs,
    concurrency: Option<u64>,
    results: &ResultArgs,
    audit: impl FnOnce(Arc<Client>, Recorded, load::Options, Stop) -> Audit,
) -> anyhow::Result<ExitCode> {
    let run = Recorded::read(&recorded.directory())?;
    let session = service.session_of(&run.run)?;
    let options = recorded.options(&run.run, concurrency)?;
    if !session.ready().await? {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    finish(results, audit(session.client, run, options, session.stop).await?)
}

async fn calibration(mut service: Service, args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let server = calibrate::Server::start().await?;
    service.url = Some(Url::parse(&server.url)?);
    let session = service.session(args.http.protocol(), BACKOFF_MAX_MS)?;
    let report = load::run(session.client, args.options()?, session.stop).await?;
    let calibration = Calibration::of(&report);
    report::print(&calibration, args.json.then_some(&JsonTo::Stdout))?;
    Ok(exit_code(calibration.ok(), report.interrupted))
}

#[cfg(unix)]
fn kill_line(number: u32, kills: u32, kill: &report::load::Kill) -> String {
    let report::load::Kill { at_second, up_ms, acknowledged, under_way, down_ms } = kill;
    format!(
        "kill {number}/{kills} at {at_second:.1} s: up for {up_ms:.0} ms, {acknowledged} events \
         acknowledged, {under_way} requests under way; healthy again after {down_ms:.0} ms"
    )
}

fn finish(results: &ResultArgs, report: LoadReport) -> anyhow::Result<ExitCode> {
    let report = results.write(report)?;
    Ok(match report.is_sound() && report.crosses_threshold() {
        true => ExitCode::from(EXIT_THRESHOLD),
        false => exit_code(report.ok, report.interrupted),
    })
}

fn exit_code(ok: bool, interrupted: bool) -> ExitCode {
    match (ok, interrupted) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(EXIT_INTERRUPTED),
        (false, false) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
