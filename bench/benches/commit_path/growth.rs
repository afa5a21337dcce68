//! What a long history costs: the same cases on an empty store and on one
//! that was filled before, in turn.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use publisher::answer::Answer;
use publisher::load::Deliveries;
use publisher::wire::Outcome;
use publisher::workload::{Kind, Plan, PlannedRequest, Range, Requests};
use rusqlite::Connection;
use serde::Serialize;

use crate::cases::{Case, Engine, Read, Service};
use crate::figures::Figures;
use crate::load::Load;
use crate::native::{self, Native};
use crate::rounds::{BATCH_100_8, SINGLE_32};
use crate::server::{DATABASE, Launcher};
use crate::subject::{Audit, Subject};
use crate::{Run, progress, workload};

/// What is measured.
pub const CASES: [Case; 7] = [
    SINGLE_32,
    BATCH_100_8,
    Case::Read(Read::Stats),
    Case::Read(Read::First),
    Case::Read(Read::Middle),
    Case::Read(Read::Topic),
    Case::Read(Read::Newest),
];

/// Events in a commit while a store is filled.
const FILL_COMMIT_EVENTS: u64 = 1_000;

/// Events in the store that is called empty, so that there are full pages to
/// read.
pub const FIRST_EVENTS: u64 = 4_000;

/// Memory for pages while a store is filled, in KiB: ids come in no order, so
/// that a small cache would read and write most of the index again and again.
const FILL_CACHE_KIB: u32 = 1024 * 1024;

/// Pages of the log after which they are moved to the database while it is filled.
const FILL_CHECKPOINT_PAGES: u32 = 100_000;

/// How often it is said how far the filling has come, in events.
const FILL_PROGRESS_EVENTS: u64 = 500_000;

/// A table or an index, and the bytes that it takes.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Its name in the schema.
    pub name: String,
    /// All its pages.
    pub bytes: u64,
}

/// A store before anything was measured.
#[derive(Debug, Serialize)]
pub struct Filled {
    /// Events in it.
    pub events: u64,
    /// Size of its file.
    pub bytes: u64,
    /// What takes it, largest first; empty if SQLite cannot tell.
    pub parts: Vec<Part>,
    #[serde(skip)]
    file: PathBuf,
}

/// One round.
#[derive(Debug, Serialize)]
pub struct Round {
    /// On a store that began empty.
    pub empty: Vec<Figures>,
    /// On the filled one.
    pub filled: Vec<Figures>,
    /// What the one that began empty was sent, and holds.
    pub empty_audit: Audit,
    /// The same of the filled one.
    pub filled_audit: Audit,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// The filled store.
    pub store: Filled,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// Fills a store, unless that was done before, and measures all rounds.
///
/// # Errors
///
/// What goes wrong; that something does not match is in the rounds.
pub fn measure(run: &Run, events: u64) -> Result<Growth> {
    let cases: Vec<Case> = CASES.into_iter().filter(|case| run.arguments.wants(*case)).collect();
    ensure!(!cases.is_empty(), "no measurement of --prefill has such a name");
    let plan = workload::plan(run.seed)?;
    let store = filled(&run.directory, &plan, events)?;
    let nearly_empty = filled(&run.directory, &plan, FIRST_EVENTS)?;

    let load = Load::new(run.arguments.span(Engine::Sqlite))?;
    let slow = run.slow_fsync()?;
    let mut launcher = Launcher::new(&run.arguments.host_flag)?;
    let mut start = |store: &Filled| {
        let state = run.state_directory()?;
        copy(&store.file, &state.path().join(DATABASE))?;
        let host = launcher.start(state, slow.as_ref())?;
        Subject::started(&load, Service::Sekali, host, &plan, delivered(&plan, store.events))
    };
    // The filled store serves for all rounds: what they add to it is little.
    let mut filled = start(&store)?;
    let rounds = (1..=run.arguments.rounds())
        .map(|number| {
            let mut empty = start(&nearly_empty)?;
            round(run, number, &cases, &load, &mut empty, &mut filled)
        })
        .collect::<Result<_>>()?;
    Ok(Growth { store, rounds })
}

fn round(
    run: &Run,
    number: usize,
    cases: &[Case],
    load: &Load,
    empty: &mut Subject,
    filled: &mut Subject,
) -> Result<Round> {
    let rounds = run.arguments.rounds();
    let mut of_empty = Vec::new();
    let mut of_filled = Vec::new();
    for case in cases {
        let mut in_turn =
            [("empty", &mut *empty, &mut of_empty), ("filled", &mut *filled, &mut of_filled)];
        if number.is_multiple_of(2) {
            in_turn.reverse();
        }
        for (store, subject, figures) in in_turn {
            let measured = subject.measure(load, *case, 0.0)?;
            progress(&format!("{number}/{rounds} {store:<6}"), &measured);
            figures.push(measured);
        }
    }
    let (empty_audit, filled_audit) = (empty.audit(load)?, filled.audit(load)?);
    for mismatch in empty_audit.mismatches.iter().chain(&filled_audit.mismatches) {
        eprintln!("round {number}/{rounds}  MISMATCH  {mismatch}");
    }
    Ok(Round { empty: of_empty, filled: of_filled, empty_audit, filled_audit })
}

/// Copies a database, and has it on disk before anything is measured.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::copy(from, to).with_context(context)?;
    File::open(to).and_then(|file| file.sync_all()).with_context(context)
}

/// A store with so many events: the one of an earlier run, or a new one.
fn filled(directory: &Path, plan: &Plan, events: u64) -> Result<Filled> {
    let file = directory.join(format!("prefilled-{events}.db"));
    if file.exists() {
        match inspect(&file, plan, events) {
            Ok(filled) => {
                eprintln!("{} is there already", file.display());
                return Ok(filled);
            }
            Err(error) => {
                eprintln!("{} is filled again: {error:#}", file.display());
                remove(&file)?;
            }
        }
    }
    // Under another name until it is whole.
    let partial = directory.join(format!("prefilled-{events}.partial"));
    remove(&partial)?;
    fill(&partial, plan, events)?;
    fs::rename(&partial, &file)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), file.display()))?;
    inspect(&file, plan, events)
}

/// Removes a database with its log, if they are there.
fn remove(database: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The requests that a store is filled with.
struct Filling {
    requests: Requests,
    events_missing: u64,
}

impl Filling {
    fn new(plan: &Plan, events: u64) -> Self {
        Filling { requests: plan.requests(), events_missing: events }
    }
}

impl Iterator for Filling {
    type Item = PlannedRequest;

    fn next(&mut self) -> Option<PlannedRequest> {
        // Never more than are missing, so that there are no more in the end.
        let batch = FILL_COMMIT_EVENTS.min(self.events_missing);
        if batch == 0 {
            return None;
        }
        self.requests.set_batch(Range::exactly(batch));
        let request = self.requests.next()?;
        self.events_missing -= workload::distinct(&request.deliveries);
        Some(request)
    }
}

/// The deliveries of a plan, of which a store of so many events was filled.
fn delivered(plan: &Plan, events: u64) -> Deliveries {
    let mut deliveries = workload::all(plan);
    let mut filling = Filling::new(plan, events);
    for request in &mut filling {
        let outcome = |kind| if kind == Kind::New { Outcome::Accepted } else { Outcome::Duplicate };
        let outcomes = request.deliveries.iter().map(|planned| outcome(planned.kind)).collect();
        let number = request.number;
        deliveries.auditor.sent(request);
        deliveries.auditor.settled(number, 0, &Answer::Outcomes(outcomes));
    }
    deliveries.requests = filling.requests;
    deliveries
}

/// Delivers until there are `events` events, through the component's statement.
fn fill(file: &Path, plan: &Plan, events: u64) -> Result<()> {
    let native = Native::open(file)?;
    // What is lost in a crash here is made again.
    native
        .connection()
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -{FILL_CACHE_KIB}; \
             PRAGMA wal_autocheckpoint = {FILL_CHECKPOINT_PAGES};"
        ))
        .context("cannot prepare to fill")?;
    let start = Instant::now();
    let mut accepted = 0;
    let mut said = 0;
    for request in Filling::new(plan, events) {
        accepted += native.commit(&native::batch(&native, plan, &request.deliveries)?)?;
        if accepted >= said + FILL_PROGRESS_EVENTS || accepted == events {
            said = accepted;
            let rate = accepted as f64 / start.elapsed().as_secs_f64();
            eprintln!("filled  {accepted} of {events} events  {rate:.0} events/s");
        }
    }
    let busy: i64 = native
        .connection()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))
        .context("cannot move the log into the database")?;
    ensure!(busy == 0, "the log could not be moved into the database");
    Ok(())
}

/// Looks whether a store is what [`fill`] would make now, and at its size.
fn inspect(file: &Path, plan: &Plan, events: u64) -> Result<Filled> {
    let context = || format!("cannot look at {}", file.display());
    let current = Native::open(Path::new(":memory:"))?;
    let database = Connection::open(file).with_context(context)?;
    let expected = schema(current.connection()).with_context(context)?;
    ensure!(schema(&database).with_context(context)? == expected, "its schema is another one");
    let parts = parts(&database).with_context(context)?;
    drop(database);
    let store = Native::open(file)?;
    let found = store.events()?;
    ensure!(found == events, "it has {found} events");
    let identity = |event| (plan.topic_of(event), plan.event_id(event));
    let same = store.identity_at_end(false)? == Some(identity(0))
        && store.identity_at_end(true)? == Some(identity(events - 1));
    ensure!(same, "its events are others");
    drop(store);
    let bytes = fs::metadata(file).with_context(context)?.len();
    Ok(Filled { events, bytes, parts, file: file.to_owned() })
}

fn schema(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = database
        .prepare("SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name")?;
    statement.query_map((), |row| row.get(0))?.collect()
}

/// What takes how many bytes, if SQLite was compiled to tell.
fn parts(database: &Connection) -> Result<Vec<Part>> {
    let told: bool = database.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_module_list WHERE name = 'dbstat')",
        (),
        |row| row.get(0),
    )?;
    if !told {
        return Ok(Vec::new());
    }
    let mut statement = database
        .prepare("SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE ORDER BY pgsize DESC")?;
    let parts =
        statement.query_map((), |row| Ok(Part { name: row.get(0)?, bytes: row.get(1)? }))?;
    Ok(parts.collect::<rusqlite::Result<_>>()?)
}
