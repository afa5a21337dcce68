//! A server under measurement, and the account of what it was sent.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hyper::Uri;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, Read};
use crate::client::{PAGE_EVENTS, Tally, Target, Work, Worker};
use crate::events::{Feed, Mix};
use crate::figures::Figures;
use crate::load::Load;
use crate::native;
use crate::server::Host;

/// A server, ours or someone else's.
pub struct Subject {
    target: Arc<Target>,
    host: Option<Host>,
    database: Option<PathBuf>,
    before: Held,
    audited: Range<u64>,
    tally: Tally,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Held {
    #[serde(flatten)]
    stats: Stats,
    rows: Option<u64>,
    identities: Option<u64>,
}

/// What of `GET /stats` is held against what was sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Stats {
    received: u64,
    unique_processed: u64,
    duplicate_dropped: u64,
    conflicts: u64,
    rejected: u64,
}

/// What was sent and what is held, since the audit before.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Deliveries that were sent, each until it was acknowledged.
    pub deliveries: u64,
    /// Distinct events among them.
    pub distinct: u64,
    /// What the replies said.
    #[serde(flatten)]
    pub tally: Tally,
    /// Rows in the database, if its file is known.
    pub rows: Option<u64>,
    /// What does not match.
    pub mismatches: Vec<String>,
}

impl Subject {
    /// A host of ours, with the store that it has.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn hosted(load: &Load, host: Host, mix: Mix, first_delivery: u64) -> Result<Self> {
        let target = Target::new(&host.url, Feed::new(mix, first_delivery))?;
        let database = Some(host.database());
        Self::new(load, target, Some(host), database)
    }

    /// A server that runs already.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn running(load: &Load, url: &str, database: Option<&Path>, mix: Mix) -> Result<Self> {
        let target = Target::new(url, Feed::new(mix, 0))?;
        Self::new(load, target, None, database.map(Path::to_owned))
    }

    fn new(
        load: &Load,
        target: Target,
        host: Option<Host>,
        database: Option<PathBuf>,
    ) -> Result<Self> {
        let start = target.feed.taken().start;
        let mut subject = Subject {
            target: Arc::new(target),
            host,
            database,
            before: Held::default(),
            audited: 0..start,
            tally: Tally::default(),
        };
        subject.before = subject.held(load)?;
        Ok(subject)
    }

    /// Measures one case. `per_second` is for the open loop alone.
    ///
    /// # Errors
    ///
    /// If a request is not acknowledged, or a reply is not what it has to be.
    pub fn measure(&mut self, load: &Load, case: Case, per_second: f64) -> Result<Figures> {
        let (work, connections) = match case {
            Case::Empty { connections } => (Work::Get(Uri::from_static("/")), connections),
            Case::Publish { events, connections } => (Work::Publish(events), connections),
            Case::Open => (Work::Publish(1), 0),
            Case::Read(read) => (self.read(load, read)?, 1),
            Case::Native { .. } => bail!("{case} is not measured over HTTP"),
        };
        if let Some(host) = &self.host {
            host.reset_peak_rss();
        }
        let measured = match case {
            Case::Open => load.open(case, &self.target, &work, per_second),
            _ => load.closed(case, &self.target, &work, connections),
        };
        let (mut figures, tally) = measured.with_context(|| format!("{case} failed"))?;
        figures.peak_rss_bytes = self.host.as_ref().and_then(Host::peak_rss_bytes);
        self.tally += tally;
        Ok(figures)
    }

    /// Publishes `events` in one request, which is not measured.
    ///
    /// # Errors
    ///
    /// As for [`Subject::measure`].
    pub fn publish(&mut self, load: &Load, events: u64) -> Result<()> {
        let mut worker = Worker::new(Arc::clone(&self.target));
        let request = worker.prepare(&Work::Publish(events))?;
        load.block_on(worker.acknowledge(&request))?;
        self.tally += worker.tally;
        Ok(())
    }

    fn read(&self, load: &Load, read: Read) -> Result<Work> {
        let middle = self.stats(load)?.unique_processed / 2;
        let page = format!("/events?limit={PAGE_EVENTS}");
        let path = match read {
            Read::Stats => return Ok(Work::Get(Uri::from_static("/stats"))),
            Read::First => page,
            Read::Middle => format!("{page}&after={middle}"),
            Read::Topic => format!("{page}&after={middle}&topic={}", Mix::topic(0)),
            Read::Newest => format!("{page}&order=desc"),
        };
        path.parse().map(Work::Page).with_context(|| format!("{path} is no path"))
    }

    fn stats(&self, load: &Load) -> Result<Stats> {
        let mut worker = Worker::new(Arc::clone(&self.target));
        let reply = load.block_on(worker.get(Uri::from_static("/stats")))?;
        serde_json::from_slice(&reply).context("cannot read the reply to GET /stats")
    }

    fn held(&self, load: &Load) -> Result<Held> {
        let stats = self.stats(load)?;
        let Some(file) = &self.database else {
            return Ok(Held { stats, rows: None, identities: None });
        };
        let context = || format!("cannot count the rows of {}", file.display());
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(context)?;
        let count = |query| database.query_row(query, (), |row| row.get(0)).with_context(context);
        Ok(Held { stats, rows: count(native::ROWS)?, identities: count(native::IDENTITIES)? })
    }

    /// Holds replies, counters and rows against what was sent since the audit
    /// before.
    ///
    /// # Errors
    ///
    /// If the server or its database does not answer.
    pub fn audit(&mut self, load: &Load) -> Result<Audit> {
        let held = self.held(load)?;
        let sent = self.audited.end..self.target.feed.taken().end;
        let deliveries = sent.end - sent.start;
        let distinct = self.target.feed.mix().distinct(sent.clone());
        let tally = std::mem::take(&mut self.tally);
        let before = std::mem::replace(&mut self.before, held);
        self.audited = sent;

        // A request without a reply may have been counted, and was then sent
        // again; so what counts deliveries is known within bounds. What counts
        // events is known exactly.
        let lost = tally.unanswered_events;
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let (now, then) = (held.stats, before.stats);
        let mut checks = vec![
            ("accepted in replies", tally.accepted, distinct.saturating_sub(lost)..=distinct),
            (
                "accepted and duplicates in replies",
                tally.accepted + tally.duplicates,
                deliveries..=deliveries,
            ),
            (
                "unique_processed",
                since(now.unique_processed, then.unique_processed),
                distinct..=distinct,
            ),
            ("received", since(now.received, then.received), deliveries..=deliveries + lost),
            (
                "received less unique_processed and duplicate_dropped",
                now.received.abs_diff(now.unique_processed + now.duplicate_dropped),
                0..=0,
            ),
            ("conflicts", since(now.conflicts, then.conflicts), 0..=0),
            ("rejected", since(now.rejected, then.rejected), 0..=0),
        ];
        for (what, now, then) in [
            ("rows", held.rows, before.rows),
            ("distinct identities in the rows", held.identities, before.identities),
        ] {
            if let (Some(now), Some(then)) = (now, then) {
                checks.push((what, since(now, then), distinct..=distinct));
            }
        }
        let mismatches = checks
            .into_iter()
            .filter(|(_, found, expected)| !expected.contains(found))
            .map(|(what, found, expected)| match (expected.start(), expected.end()) {
                (least, most) if least == most => format!("{what}: {found}, expected {least}"),
                (least, most) => format!("{what}: {found}, expected {least} to {most}"),
            })
            .collect();
        let rows = held.rows.zip(before.rows).map(|(now, then)| since(now, then));
        Ok(Audit { deliveries, distinct, tally, rows, mismatches })
    }
}
