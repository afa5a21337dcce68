//! Arguments, and the way from them to a run and its exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::task::block_in_place;

use crate::address::masked;
use crate::calibrate::{self, Calibration, SERVER_COMMAND};
#[cfg(unix)]
use crate::chaos;
use crate::client::{Client, Protocol};
use crate::console;
use crate::ledger::Recorded;
use crate::report::{self, JsonTo, LoadReport, Report};
use crate::retry::BACKOFF_MAX_MS;
use crate::signal::{self, EXIT_INTERRUPTED, Stop};
use crate::{backup, export, import, load, ship};

mod backup_args;
mod batch_args;
mod key_args;
mod load_args;
mod netrc;
mod service;
mod ship_args;
mod transfer_args;
mod values;

use backup_args::BackupArgs;
use key_args::KeyArgs;
#[cfg(unix)]
use load_args::ChaosArgs;
use load_args::{
    CalibrateArgs, LoadArgs, RecordedArgs, ResultArgs, ResumeArgs, VerifyArgs, WorkloadsArgs,
};
use service::Service;
use ship_args::ShipArgs;
use transfer_args::{ExportArgs, ImportArgs};
use values::WrongArguments;

/// The longest backoff while a service that was killed comes back, in
/// milliseconds.
#[cfg(unix)]
const CHAOS_BACKOFF_MAX_MS: u64 = 100;
/// The exit code of wrong arguments.
const EXIT_ARGUMENTS: u8 = 2;
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

#[derive(Debug, Subcommand)]
enum Command {
    Ship(ShipArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Backup(BackupArgs),
    Load(Box<LoadArgs>),
    Verify(VerifyArgs),
    Resume(ResumeArgs),
    #[cfg(unix)]
    Chaos(Box<ChaosArgs>),
    Calibrate(CalibrateArgs),
    Workloads(WorkloadsArgs),
    Key(KeyArgs),
    /// Print the JSON Schema of the result of load, resume, verify and chaos
    Schema,
    #[command(name = SERVER_COMMAND, hide = true)]
    CalibrationServer,
}

/// The whole program.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return end_by_clap(&error),
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
        Ok(Err(error)) => match error.downcast_ref::<WrongArguments>() {
            Some(WrongArguments(message)) => {
                end_by_clap(&Cli::command().error(ErrorKind::ValueValidation, message))
            }
            None => {
                console::note(format_args!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            console::note(format_args!("a defect: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The end with what clap has to say. Help is no error; clap knows which stream
/// and code it wants.
fn end_by_clap(error: &clap::Error) -> ExitCode {
    match print_clap(error) {
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_ARGUMENTS)),
        Err(error) => {
            console::note(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what clap has to say: help and versions, which are results, or what is
/// wrong with the arguments.
fn print_clap(error: &clap::Error) -> anyhow::Result<()> {
    // It repeats what was given, which may be an address with a password in it.
    let text = error.render().to_string();
    let shown = masked(&text);
    if error.use_stderr() && shown != text {
        console::line(shown.trim_end());
        return Ok(());
    }
    match error.print() {
        // The code says it all the same.
        Err(_) if error.use_stderr() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

/// What is wrong with the arguments is said before anything is waited for.
async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { service, command } = cli;
    let interrupted = ExitCode::from(EXIT_INTERRUPTED);
    match command {
        Command::Ship(args) => {
            let session = service.session(args.protocol(), BACKOFF_MAX_MS)?;
            let (options, registry) = (args.options()?, args.registry()?);
            if !session.ready().await? {
                return Ok(interrupted);
            }
            let report = ship::run(session.client, options, registry, session.stop).await?;
            report::print(&report, args.json.then_some(&JsonTo::Stdout))?;
            Ok(exit_code(report.ok(), report.interrupted))
        }
        Command::Export(args) => {
            let session = service.session(Protocol::Http1, BACKOFF_MAX_MS)?;
            let options = args.options()?;
            if !session.ready().await? {
                return Ok(interrupted);
            }
            let report = export::run(session.client, options, session.stop).await?;
            match args.is_to_stdout() {
                true => report::tell(&report),
                false => report::print(&report, args.json.then_some(&JsonTo::Stdout))?,
            }
            Ok(exit_code(report.ok(), report.interrupted))
        }
        Command::Import(args) => {
            let session = service.session(Protocol::Http1, BACKOFF_MAX_MS)?;
            let options = args.options()?;
            let report = match args.check_only {
                true => block_in_place(|| import::check(&options, &session.stop))?,
                false if !session.ready().await? => return Ok(interrupted),
                false => import::run(session.client, options, session.stop).await?,
            };
            report::print(&report, args.json.then_some(&JsonTo::Stdout))?;
            Ok(exit_code(report.ok(), report.interrupted))
        }
        Command::Backup(args) => {
            let stop = signal::watch()?;
            let report = block_in_place(|| backup::run(&args.options(), &stop))?;
            report::print(&report, args.json.then_some(&JsonTo::Stdout))?;
            Ok(exit_code(report.ok(), report.interrupted))
        }
        Command::Load(args) => {
            let protocol = args.streams.protocol(args.http.protocol());
            let session = service.session(protocol, BACKOFF_MAX_MS)?;
            let options = args.options()?;
            if !session.ready().await? {
                return Ok(interrupted);
            }
            let client = Arc::clone(&session.client);
            let report = load::run(session.client, options, session.stop).await?;
            client.close().await;
            finish(&args.results, report)
        }
        Command::Verify(VerifyArgs { recorded, results }) => {
            on_recorded(service, &recorded, None, &results, load::verify).await
        }
        Command::Resume(ResumeArgs { recorded, concurrency, results }) => {
            on_recorded(service, &recorded, concurrency, &results, load::resume).await
        }
        #[cfg(unix)]
        Command::Chaos(args) => {
            let protocol = args.streams.protocol(Protocol::Http1);
            let session = service.session(protocol, CHAOS_BACKOFF_MAX_MS)?;
            let options = args.options(session.wait_for)?;
            let (kills, processes) = (options.kills, options.commands.len());
            let json_only = args.results.is_json_only();
            let on_kill = |number, kill: &_| {
                let line = kill_line((number, kills), processes, kill);
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
        Command::Key(args) => {
            args.run()?;
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

async fn calibration(service: Service, args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let server = calibrate::Server::start().await?;
    let session = service.session_at(server.url.parse()?, args.http.protocol(), BACKOFF_MAX_MS)?;
    let report = load::run(session.client, args.options()?, session.stop).await?;
    let calibration = Calibration::of(&report);
    report::print(&calibration, args.json.then_some(&JsonTo::Stdout))?;
    Ok(exit_code(calibration.ok(), report.interrupted))
}

#[cfg(unix)]
fn kill_line((number, kills): (u32, u32), processes: usize, kill: &report::load::Kill) -> String {
    let report::load::Kill { process, at_second, up_ms, acknowledged, under_way, down_ms } = kill;
    let which = if processes > 1 { format!(" of process {process}") } else { String::new() };
    format!(
        "kill {number}/{kills}{which} at {at_second:.1} s: up for {up_ms:.0} ms, {acknowledged} events \
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
