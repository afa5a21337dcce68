//! The commit path: native reference, empty component and Sekali in turn, in
//! several rounds.

use anyhow::{Result, ensure};
use publisher::workload::Plan;
use serde::Serialize;

use crate::cases::Case;
use crate::disk;
use crate::figures::Figures;
use crate::load::Load;
use crate::native;
use crate::server::Launcher;
use crate::subject::{Audit, Subject};
use crate::workload;
use crate::{Run, progress};

/// The reference for single events.
pub const NATIVE_1: Case = Case::Native { events: 1 };
/// Ceilings.
pub const EMPTY_32: Case = Case::Empty { connections: 32 };
pub const EMPTY_128: Case = Case::Empty { connections: 128 };
/// Cases that targets are set for.
pub const SINGLE_1: Case = Case::Publish { events: 1, connections: 1 };
pub const SINGLE_32: Case = Case::Publish { events: 1, connections: 32 };
pub const SINGLE_128: Case = Case::Publish { events: 1, connections: 128 };
pub const BATCH_100_8: Case = Case::Publish { events: 100, connections: 8 };
pub const BATCH_1000_8: Case = Case::Publish { events: 1_000, connections: 8 };

/// All that is measured, in this order.
pub const CASES: [Case; 19] = [
    NATIVE_1,
    Case::Native { events: 10 },
    Case::Native { events: 100 },
    Case::Native { events: 1_000 },
    Case::Empty { connections: 1 },
    EMPTY_32,
    EMPTY_128,
    SINGLE_1,
    Case::Publish { events: 1, connections: 16 },
    SINGLE_32,
    SINGLE_128,
    Case::Publish { events: 1, connections: 512 },
    Case::Publish { events: 100, connections: 1 },
    BATCH_100_8,
    Case::Publish { events: 100, connections: 32 },
    Case::Publish { events: 1_000, connections: 1 },
    BATCH_1000_8,
    Case::Publish { events: 1_000, connections: 32 },
    Case::Open,
];

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

/// Measures all rounds.
///
/// # Errors
///
/// What goes wrong; that something does not match is in the rounds.
pub fn measure(run: &Run) -> Result<Vec<Round>> {
    let cases: Vec<Case> = CASES.into_iter().filter(|case| wanted(run, *case)).collect();
    ensure!(!cases.is_empty(), "no measurement has such a name; those without --only are all");
    let load = Load::new(run.arguments.span())?;
    let plan = workload::plan(run.seed)?;
    let mut server = match &run.arguments.url {
        Some(url) => {
            let database = run.arguments.database.as_deref();
            let subject = Subject::running(&load, url, database, &plan)?;
            Server::Running(Box::new(subject))
        }
        None => Server::Ours(Launcher::new(&run.arguments.host_flag)?),
    };
    let numbers = 1..=run.arguments.rounds();
    numbers.map(|number| round(run, number, &cases, &load, &plan, &mut server)).collect()
}

/// What is measured over HTTP.
enum Server {
    /// One of someone else's, with the store that it has.
    Running(Box<Subject>),
    /// Ours, started for each case with an empty store, as the native reference
    /// begins with one.
    Ours(Launcher),
}

impl Server {
    fn measure(
        &mut self,
        run: &Run,
        load: &Load,
        plan: &Plan,
        case: Case,
        per_second: f64,
    ) -> Result<(Figures, Option<Audit>)> {
        match self {
            Server::Running(subject) => Ok((subject.measure(load, case, per_second)?, None)),
            Server::Ours(launcher) => {
                let host = launcher.start(run.state_directory()?)?;
                let mut subject = Subject::hosted(load, host, plan, workload::all(plan))?;
                let figures = subject.measure(load, case, per_second)?;
                Ok((figures, Some(subject.audit(load)?)))
            }
        }
    }

    /// Of a server that all cases were measured on.
    fn audit(&mut self, load: &Load) -> Result<Option<Audit>> {
        match self {
            Server::Running(subject) => subject.audit(load).map(Some),
            Server::Ours(_) => Ok(None),
        }
    }
}

/// The open loop needs a rate, so it brings the case that it has it from.
fn wanted(run: &Run, case: Case) -> bool {
    run.arguments.wants(case) || (case == SINGLE_32 && run.arguments.wants(Case::Open))
}

fn round(
    run: &Run,
    number: usize,
    cases: &[Case],
    load: &Load,
    plan: &Plan,
    server: &mut Server,
) -> Result<Round> {
    let of = format!("{number}/{}", run.arguments.rounds());
    let syncs_before = disk::syncs_per_second(&run.directory)?;
    let mut figures: Vec<Figures> = Vec::new();
    let mut audits = Vec::new();
    for case in cases {
        let measured = match *case {
            Case::Native { events } => {
                native::measure(&run.directory, plan, events, run.arguments.span())?
            }
            case => {
                let closed = figures.iter().find(|figures| figures.case == SINGLE_32);
                let rate = closed.map_or(0.0, |figures| figures.events_per_second);
                let (figures, audit) = server.measure(run, load, plan, case, rate * OPEN_SHARE)?;
                audits.extend(audit);
                figures
            }
        };
        progress(&of, &measured);
        figures.push(measured);
    }
    let syncs_after = disk::syncs_per_second(&run.directory)?;
    audits.extend(server.audit(load)?);
    for mismatch in audits.iter().flat_map(|audit| &audit.mismatches) {
        eprintln!("round {of}  MISMATCH  {mismatch}");
    }
    Ok(Round { syncs_before, syncs_after, figures, audits })
}
