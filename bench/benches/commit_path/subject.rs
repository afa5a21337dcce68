//! A server under measurement, and the audit of what it was sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use publisher::auditor::{Baseline, Check};
use publisher::client::Client;
use publisher::load::Deliveries;
use publisher::wire::Stats;
use publisher::workload::Plan;
use serde::Serialize;

use crate::cases::{Case, Engine, Form, Read, STREAM_EVENTS_AHEAD, Service};
use crate::database::{Database, Rows};
use crate::figures::Figures;
use crate::load::{self, Get, Load, Loop, OPEN_CONNECTIONS_MAX, PAGE_EVENTS};
use crate::native;
use crate::otlp::{self, Sent};
use crate::process::{BusyCores, Process};

/// A server, ours or someone else's.
pub struct Subject {
    service: Service,
    client: Arc<Client>,
    plan: Plan,
    /// `None` when a load of them failed.
    deliveries: Option<Deliveries>,
    /// Beside those.
    exported: Sent,
    process: Option<Process>,
    database: Option<Database>,
    before: Counted,
    resent: BTreeMap<String, u64>,
}

/// What was sent, and what is in the database if that is known.
#[derive(Clone, Copy, Debug)]
struct Counted {
    deliveries: u64,
    distinct: u64,
    rows: Option<Rows>,
}

/// What was sent and what is held, since the audit before.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Of what.
    pub service: Service,
    /// On what.
    pub engine: Engine,
    /// Deliveries that were sent, each until it was acknowledged.
    pub deliveries: u64,
    /// Distinct events among them.
    pub distinct: u64,
    /// Requests that were refused for now or had no reply, and were sent again,
    /// by what came of them.
    pub resent: BTreeMap<String, u64>,
    /// Rows in the database, if that is known.
    pub rows: Option<u64>,
    /// What does not match.
    pub mismatches: Vec<String>,
}

impl Subject {
    /// A server of ours, with the store that it has: of these deliveries it holds
    /// what they say was delivered.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn started(
        load: &Load,
        service: Service,
        process: Process,
        plan: &Plan,
        deliveries: Deliveries,
    ) -> Result<Self> {
        let client = load::client(&process.url)?;
        // Its first request makes the database, if there is none.
        stats(load, &client)?;
        let database = Some(process.database.clone());
        Self::new(service, client, plan, deliveries, Some(process), database)
    }

    /// A server that runs already.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn running(load: &Load, url: &str, database: Option<&Path>, plan: &Plan) -> Result<Self> {
        let client = load::client(url)?;
        let deliveries = Deliveries::of(plan, Baseline::of(plan, &stats(load, &client)?));
        let database = database.map(|file| Database::sqlite(file.to_owned(), native::COUNTS));
        Self::new(Service::Sekali, client, plan, deliveries, None, database)
    }

    fn new(
        service: Service,
        client: Arc<Client>,
        plan: &Plan,
        deliveries: Deliveries,
        process: Option<Process>,
        database: Option<Database>,
    ) -> Result<Self> {
        let before = Counted::now(&deliveries, Sent::default(), database.as_ref())?;
        Ok(Subject {
            service,
            client,
            plan: plan.clone(),
            deliveries: Some(deliveries),
            exported: Sent::default(),
            process,
            database,
            before,
            resent: BTreeMap::new(),
        })
    }

    /// Measures one case. `per_second` is for the open loop alone.
    ///
    /// # Errors
    ///
    /// If a request is not acknowledged, or a reply is not what it has to be.
    pub fn measure(&mut self, load: &Load, case: Case, per_second: f64) -> Result<Figures> {
        let Some(process) = &self.process else { return self.drive(load, case, per_second) };
        process.reset_peak_rss();
        let (id, database, span) = (process.id(), process.database.clone(), load.span());
        let (figures, busy) = std::thread::scope(|scope| {
            let busy = scope.spawn(move || BusyCores::of(id, &database, span));
            // A thread that panicked has no figure.
            (self.drive(load, case, per_second), busy.join().ok())
        });
        let mut figures = figures?;
        let per_event = |cores: Option<f64>| figures.cpu_us_per_event(cores?);
        let of_process = busy.and_then(|busy| per_event(busy.process));
        let of_postgres = busy.and_then(|busy| per_event(busy.postgres));
        figures.cpu_us_per_event = of_process;
        figures.postgres_cpu_us_per_event = of_postgres;
        figures.peak_rss_bytes = self.process.as_ref().and_then(Process::peak_rss_bytes);
        Ok(figures)
    }

    fn drive(&mut self, load: &Load, case: Case, per_second: f64) -> Result<Figures> {
        let figures = match case {
            Case::Native { .. } => bail!("{case} is not measured over HTTP"),
            Case::Empty { connections } => {
                self.get(load, case, Get::Path("/".to_owned()), connections)
            }
            Case::Read(read) => {
                let get = self.read(load, read)?;
                self.get(load, case, get, 1)
            }
            Case::Publish { form: Form::Otlp, events, connections, .. } => {
                self.export(load, case, events, connections)
            }
            Case::Publish { form, events, connections, .. } => {
                self.publish(load, case, (events, form), Loop::Closed(connections))
            }
            Case::Stream { streams, .. } => {
                let by = Loop::Closed(streams * STREAM_EVENTS_AHEAD);
                let client = load::stream_client(&self.client, streams)?;
                self.publish_by(&client, load, case, (1, Form::Json), by)
            }
            Case::Open => self.publish(load, case, (1, Form::Json), Loop::Open(per_second)),
        };
        figures.with_context(|| format!("{case} failed"))
    }

    fn get(&self, load: &Load, case: Case, get: Get, connections: usize) -> Result<Figures> {
        Ok(Figures::new(case, &load.read(&self.client, get, connections)?, connections))
    }

    fn export(
        &mut self,
        load: &Load,
        case: Case,
        records: u64,
        connections: usize,
    ) -> Result<Figures> {
        let (metrics, sent) = otlp::measure(load, &self.client, records, connections)?;
        self.exported.records += sent.records;
        self.exported.distinct += sent.distinct;
        Ok(Figures::new(case, &metrics, connections))
    }

    fn publish(&mut self, load: &Load, case: Case, what: (u64, Form), by: Loop) -> Result<Figures> {
        let client = Arc::clone(&self.client);
        self.publish_by(&client, load, case, what, by)
    }

    fn publish_by(
        &mut self,
        client: &Arc<Client>,
        load: &Load,
        case: Case,
        what: (u64, Form),
        by: Loop,
    ) -> Result<Figures> {
        let deliveries = self.deliveries.take().context("a load before it failed")?;
        let measured = load.publish(client, &self.plan, deliveries, what, by)?;
        self.deliveries = Some(measured.deliveries);
        for (kind, count) in &measured.metrics.losses_by_kind {
            *self.resent.entry(kind.clone()).or_default() += count;
        }
        let connections = match by {
            Loop::Closed(connections) => connections,
            Loop::Open(_) => OPEN_CONNECTIONS_MAX,
        };
        Ok(Figures::new(case, &measured.metrics, connections))
    }

    fn read(&self, load: &Load, read: Read) -> Result<Get> {
        let middle = stats(load, &self.client)?.total.unique_processed / 2;
        let page = format!("/events?limit={PAGE_EVENTS}");
        Ok(match read {
            Read::Stats => Get::Path("/stats".to_owned()),
            Read::First => Get::Page(page),
            Read::Middle => Get::Page(format!("{page}&after={middle}")),
            Read::Topic => {
                let topic = self.plan.topic_of(0);
                Get::Page(format!("{page}&after={middle}&topic={topic}"))
            }
            Read::Newest => Get::Page(format!("{page}&order=desc")),
        })
    }

    /// Holds replies, counters and rows against what was sent.
    ///
    /// # Errors
    ///
    /// If the server or its database does not answer.
    pub fn audit(&mut self, load: &Load) -> Result<Audit> {
        let deliveries = self.deliveries.as_ref().context("a load failed")?;
        let stats = stats(load, &self.client)?;
        let mut mismatches = mismatches(deliveries.auditor.clone().check(&stats, false));
        let now = Counted::now(deliveries, self.exported, self.database.as_ref())?;
        let before = std::mem::replace(&mut self.before, now);

        let distinct = now.distinct - before.distinct;
        let rows = now.rows.zip(before.rows).map(|(now, before)| Rows {
            all: now.all.saturating_sub(before.all),
            identities: now.identities.saturating_sub(before.identities),
        });
        if let Some(Rows { all, identities }) = rows {
            let counts = [("rows", all), ("distinct identities in the rows", identities)];
            let wrong = counts.iter().filter(|(_, count)| *count != distinct);
            mismatches
                .extend(wrong.map(|(what, count)| format!("{what}: {count}, expected {distinct}")));
        }
        Ok(Audit {
            service: self.service,
            engine: match self.database.as_ref().and_then(Database::on_postgres) {
                Some(_) => Engine::Postgres,
                None => Engine::Sqlite,
            },
            deliveries: now.deliveries - before.deliveries,
            distinct,
            resent: std::mem::take(&mut self.resent),
            rows: rows.map(|rows| rows.all),
            mismatches,
        })
    }
}

impl Counted {
    fn now(deliveries: &Deliveries, exported: Sent, database: Option<&Database>) -> Result<Self> {
        let auditor = &deliveries.auditor;
        Ok(Counted {
            deliveries: auditor.tally().sent + exported.records,
            distinct: auditor.distinct() + exported.distinct,
            rows: database.map(Database::rows).transpose()?,
        })
    }
}

fn stats(load: &Load, client: &Arc<Client>) -> Result<Stats> {
    let client = Arc::clone(client);
    load.run(async move { client.stats().await.context("cannot read /stats") })
}

/// What the audit found, in words.
fn mismatches(check: Check) -> Vec<String> {
    let rows = check.rows.iter().filter(|row| !row.ok);
    let of_rows =
        rows.map(|row| format!("{}: {}, expected {}", row.counter, row.observed, row.expected()));
    let mut mismatches: Vec<String> = of_rows.collect();
    let unlisted = check.violations_total - check.violations.len() as u64;
    mismatches.extend(check.violations);
    if unlisted > 0 {
        mismatches.push(format!("and {unlisted} more"));
    }
    mismatches
}
