//! The commit path: Sekali, the native reference, the component's statement run
//! natively and the empty component in turn, in several rounds.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use publisher::workload::Plan;
use serde::Serialize;

use crate::axum_service;
use crate::cases::{Case, Engine, Form, Service, Setting};
use crate::disk;
use crate::figures::Figures;
use crate::load::Load;
use crate::native;
use crate::postgres::Servers;
use crate::server::Launcher;
use crate::slow_fsync::{self, SlowFsync};
use crate::subject::{Audit, Subject};
use crate::workload;
use crate::{Run, progress};

/// The component's statement for single events.
pub const NATIVE_1: Case = Case::Native { events: 1 };
/// Ceilings.
pub const EMPTY_32: Case = Case::Empty { connections: 32 };
pub const EMPTY_128: Case = Case::Empty { connections: 128 };
/// Cases that targets are set for.
pub const SINGLE_1: Case = Case::publish(1, 1);
pub const SINGLE_32: Case = Case::publish(1, 32);
pub const SINGLE_128: Case = Case::publish(1, 128);
const SINGLE_256: Case = Case::publish(1, 256);
pub const BATCH_100_8: Case = Case::publish(100, 8);
pub const BATCH_1000_8: Case = Case::publish(1_000, 8);
pub const SLOW_SINGLE_32: Case = SINGLE_32.with(Setting::SlowDisk);
const SLOW_SINGLE_128: Case = SINGLE_128.with(Setting::SlowDisk);
pub const ORDERED_BATCH_100_8: Case = BATCH_100_8.with(Setting::OrderedIds);
/// The same on PostgreSQL.
pub const POSTGRES_SINGLE_1: Case = SINGLE_1.on_postgres();
pub const POSTGRES_SINGLE_32: Case = SINGLE_32.on_postgres();
pub const POSTGRES_SINGLE_128: Case = SINGLE_128.on_postgres();
pub const POSTGRES_SINGLE_256: Case = SINGLE_256.on_postgres();
pub const POSTGRES_BATCH_100_8: Case = BATCH_100_8.on_postgres();
pub const POSTGRES_BATCH_1000_8: Case = BATCH_1000_8.on_postgres();
const SLOW_POSTGRES_SINGLE_32: Case = SLOW_SINGLE_32.on_postgres();
const SLOW_POSTGRES_SINGLE_128: Case = SLOW_SINGLE_128.on_postgres();
/// A stream, and as many as batches have connections.
pub const STREAM_1: Case = Case::Stream { setting: Setting::Usual, streams: 1 };
pub const STREAM_8: Case = Case::Stream { setting: Setting::Usual, streams: 8 };

/// All that is measured, in this order.
pub const CASES: [Case; 52] = [
    NATIVE_1,
    Case::Native { events: 10 },
    Case::Native { events: 100 },
    Case::Native { events: 1_000 },
    Case::Empty { connections: 1 },
    EMPTY_32,
    EMPTY_128,
    SINGLE_1,
    SINGLE_1.to_axum(),
    Case::publish(1, 16),
    SINGLE_32,
    SINGLE_32.to_axum(),
    SINGLE_128,
    SINGLE_128.to_axum(),
    SINGLE_256,
    Case::publish(1, 512),
    Case::publish(100, 1),
    BATCH_100_8,
    BATCH_100_8.to_axum(),
    BATCH_100_8.sent_as(Form::Ndjson),
    BATCH_100_8.sent_as(Form::GzipNdjson),
    BATCH_100_8.sent_as(Form::Otlp),
    ORDERED_BATCH_100_8,
    ORDERED_BATCH_100_8.to_axum(),
    Case::publish(100, 32),
    Case::publish(1_000, 1),
    BATCH_1000_8,
    BATCH_1000_8.to_axum(),
    Case::publish(1_000, 32),
    STREAM_1,
    STREAM_8,
    Case::Open,
    SLOW_SINGLE_32,
    SLOW_SINGLE_32.to_axum(),
    SLOW_SINGLE_128,
    Case::Stream { setting: Setting::SlowDisk, streams: 8 },
    POSTGRES_SINGLE_1,
    POSTGRES_SINGLE_1.to_axum(),
    POSTGRES_SINGLE_32,
    POSTGRES_SINGLE_32.to_axum(),
    POSTGRES_SINGLE_128,
    POSTGRES_SINGLE_128.to_axum(),
    POSTGRES_SINGLE_256,
    POSTGRES_SINGLE_256.to_axum(),
    POSTGRES_BATCH_100_8,
    POSTGRES_BATCH_100_8.to_axum(),
    POSTGRES_BATCH_1000_8,
    POSTGRES_BATCH_1000_8.to_axum(),
    SLOW_POSTGRES_SINGLE_32,
    SLOW_POSTGRES_SINGLE_32.to_axum(),
    SLOW_POSTGRES_SINGLE_128,
    SLOW_POSTGRES_SINGLE_128.to_axum(),
];

/// How much longer a sync takes in the cases on a slow disk, unless all are.
pub const SLOW_FSYNC: Duration = Duration::from_millis(4);

/// Arrivals of the open loop, as a share of the rate that 32 connections came
/// to in the same round.
const OPEN_SHARE: f64 = 0.5;

/// One round.
#[derive(Debug, Serialize)]
pub struct Round {
    /// Syncs a second that the disk took before the round.
    pub syncs_before: f64,
    /// And after it.
    pub syncs_after: f64,
    /// Figures in the order in which they were measured.
    pub figures: Vec<Figures>,
    /// What was held against what was sent, for each store.
    pub audits: Vec<Audit>,
}

impl Round {
    /// The figures of a case, if it was measured.
    pub fn figures(&self, case: Case) -> Option<&Figures> {
        self.figures.iter().find(|figures| figures.case == case)
    }

    /// The rate of a case as a multiple of that of another in the same round.
    pub fn rate_ratio(&self, case: Case, reference: Case) -> Option<f64> {
        let reference = self.figures(reference)?.events_per_second;
        Some(self.figures(case)?.events_per_second / reference)
    }
}

/// All rounds, and where they were.
pub struct Measured {
    /// The version of PostgreSQL, if anything was measured on it.
    pub postgres: Option<String>,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// Measures all rounds.
///
/// # Errors
///
/// What goes wrong; that something does not match is in the rounds.
pub fn measure(run: &Run) -> Result<Measured> {
    let mut cases: Vec<Case> = CASES.into_iter().filter(|case| wanted(run, *case)).collect();
    let slow = match run.slow_fsync()? {
        None if cases.iter().any(|case| case.setting() == Setting::SlowDisk) => {
            Some(SlowFsync::new(&run.directory, SLOW_FSYNC)?)
        }
        slow => slow,
    };
    let disks = Disks { slow, all_slow: run.arguments.slow_fsync.is_some() };
    ensure!(!cases.is_empty(), "no measurement has such a name; those without --only are all");
    let mut postgres = Servers::default();
    for case in cases.iter().filter(|case| case.engine() == Engine::Postgres) {
        if let Err(error) = postgres.start(&run.directory, disks.of(*case))? {
            eprintln!("nothing is measured on PostgreSQL: {error}");
            break;
        }
    }
    let version = postgres.version();
    cases.retain(|case| case.engine() == Engine::Sqlite || version.is_some());
    ensure!(!cases.is_empty(), "nothing else is asked for");
    let load = Load::new(run.arguments.span(Engine::Sqlite))?;
    let plans = Plans {
        usual: workload::plan(run.seed)?,
        ordered: workload::plan_with_ordered_ids(run.seed)?,
    };
    let sekali = match &run.arguments.url {
        Some(url) => {
            let database = run.arguments.database.as_deref();
            let subject = Subject::running(&load, url, database, &plans.usual)?;
            Sekali::Running(Box::new(subject))
        }
        None if !cases.iter().any(|case| case.is_of_a_host()) => Sekali::NotMeasured,
        None => Sekali::Ours(Launcher::new(&run.arguments.host_flag)?),
    };
    let mut services = Services { sekali, disks, postgres };
    let numbers = 1..=run.arguments.rounds();
    let rounds = numbers
        .map(|number| round(run, number, &cases, &load, &plans, &mut services))
        .collect::<Result<_>>()?;
    Ok(Measured { postgres: version, rounds })
}

/// What is delivered.
struct Plans {
    usual: Plan,
    ordered: Plan,
}

/// What is measured over HTTP.
struct Services {
    sekali: Sekali,
    disks: Disks,
    postgres: Servers,
}

/// The disk that there is, and the slow one.
struct Disks {
    slow: Option<SlowFsync>,
    all_slow: bool,
}

impl Disks {
    /// The one that a case is measured on, if it is slow.
    fn of(&self, case: Case) -> Option<&SlowFsync> {
        let is_slow = self.all_slow || case.setting() == Setting::SlowDisk;
        self.slow.as_ref().filter(|_| is_slow)
    }
}

/// Where Sekali is.
enum Sekali {
    /// Only others are measured, and to build it would be in vain.
    NotMeasured,
    /// In a server of someone else's, with the store that it has.
    Running(Box<Subject>),
    /// In a host of ours, started for each case with an empty store, as the
    /// references begin with one.
    Ours(Launcher),
}

impl Services {
    fn measure(
        &mut self,
        run: &Run,
        load: &Load,
        plans: &Plans,
        case: Case,
        per_second: f64,
    ) -> Result<(Figures, Option<Audit>)> {
        let slow = self.disks.of(case);
        let service = case.service();
        let state = || run.state_directory();
        let database = || self.postgres.database(slow);
        let process = match (service, case.engine(), &mut self.sekali) {
            (Service::Sekali, _, Sekali::Running(subject)) => {
                return Ok((subject.measure(load, case, per_second)?, None));
            }
            (Service::Sekali, Engine::Sqlite, Sekali::Ours(launcher)) => {
                launcher.start(state()?, slow)?
            }
            (Service::Sekali, Engine::Postgres, Sekali::Ours(launcher)) => {
                launcher.start_on_postgres(state()?, database()?)?
            }
            (Service::Sekali, _, Sekali::NotMeasured) => bail!("there is no host for {case}"),
            (Service::Axum, Engine::Sqlite, _) => axum_service::start(state()?, slow)?,
            (Service::Axum, Engine::Postgres, _) => axum_service::start_on_postgres(database()?)?,
        };
        let plan = match case.setting() {
            Setting::OrderedIds => &plans.ordered,
            Setting::Usual | Setting::SlowDisk => &plans.usual,
        };
        let mut subject = Subject::started(load, service, process, plan, workload::all(plan))?;
        let figures = subject.measure(load, case, per_second)?;
        let mut audit = subject.audit(load)?;
        audit.mismatches.extend(slow.and_then(|slow| too_soon(&figures, slow)));
        for mismatch in &mut audit.mismatches {
            mismatch.insert_str(0, &format!("{case}: "));
        }
        Ok((figures, Some(audit)))
    }

    /// Of a server that all cases were measured on.
    fn audit(&mut self, load: &Load) -> Result<Option<Audit>> {
        match &mut self.sekali {
            Sekali::Running(subject) => subject.audit(load).map(Some),
            Sekali::Ours(_) | Sekali::NotMeasured => Ok(None),
        }
    }
}

/// What gives away, on a slow disk, replies that do not wait for it.
fn too_soon(figures: &Figures, slow: &SlowFsync) -> Option<String> {
    let Figures { case, p50_ms, .. } = *figures;
    let publishes = matches!(case, Case::Publish { .. } | Case::Stream { .. } | Case::Open);
    (publishes && p50_ms < slow.ms()).then(|| {
        let least = slow.ms();
        format!(
            "{case}: half of the replies took {p50_ms:.2} ms or less, a sync {least} ms or more"
        )
    })
}

/// The open loop needs a rate, so it brings the case that it has it from. The
/// statement that this program runs itself has no slow disk; a server of someone
/// else's has neither that nor another store.
fn wanted(run: &Run, case: Case) -> bool {
    let arguments = &run.arguments;
    let ours = arguments.url.is_none();
    let can_be = (ours || case.engine() == Engine::Sqlite)
        && match (case, case.setting()) {
            (Case::Native { .. }, _) => arguments.slow_fsync.is_none(),
            (_, Setting::SlowDisk) => {
                slow_fsync::SUPPORTED && arguments.slow_fsync.is_none() && ours
            }
            (_, Setting::OrderedIds) => ours,
            (_, Setting::Usual) => true,
        };
    can_be && (arguments.wants(case) || (case == SINGLE_32 && arguments.wants(Case::Open)))
}

fn round(
    run: &Run,
    number: usize,
    cases: &[Case],
    load: &Load,
    plans: &Plans,
    services: &mut Services,
) -> Result<Round> {
    let of = format!("{number}/{}", run.arguments.rounds());
    let syncs_before = disk::syncs_per_second(&run.directory)?;
    let mut figures: Vec<Figures> = Vec::new();
    let mut audits = Vec::new();
    for case in cases {
        let measured = match *case {
            Case::Native { events } => {
                native::measure(&run.directory, &plans.usual, events, load.span())?
            }
            case => {
                let load = &load.over(run.arguments.span(case.engine()));
                let closed = figures.iter().find(|figures| figures.case == SINGLE_32);
                let rate = closed.map_or(0.0, |figures| figures.events_per_second);
                let (figures, audit) =
                    services.measure(run, load, plans, case, rate * OPEN_SHARE)?;
                audits.extend(audit);
                figures
            }
        };
        progress(&of, &measured);
        figures.push(measured);
    }
    let syncs_after = disk::syncs_per_second(&run.directory)?;
    audits.extend(services.audit(load)?);
    for mismatch in audits.iter().flat_map(|audit| &audit.mismatches) {
        eprintln!("round {of}  MISMATCH  {mismatch}");
    }
    Ok(Round { syncs_before, syncs_after, figures, audits })
}
