//! The bytes of one file on their way: lines, events, requests, and the sums
//! of what was answered.
//!
//! A stream sends one request at a time, so lines are stored in the order of
//! the file. Streams of several files run side by side.

use std::sync::PoisonError;

use sha2::{Digest as _, Sha256};
use tokio::task::block_in_place;

use super::batch::{self, Limits, Shipped};
use super::identity::{Chain, HEAD_BYTES, Hash, Identity};
use super::lines::{Line, Splitter};
use super::registry::{Content, EntryId, Known, Scope};
use super::shared::Shared;
use crate::client::Failure;
use crate::report::ship::Tally;
use crate::wire::{EventResult, Outcome, Problem, PublishReply};

/// Problems of one file that are listed one by one; the rest are counted.
const PROBLEMS_LISTED_MAX: usize = 20;

/// What there is to say about a file: sums, and what went wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// The sums.
    pub tally: Tally,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Events that were not stored as sent.
    pub problems: Vec<String>,
    problems_unlisted: u64,
    /// Whether a signal ended it early.
    pub interrupted: bool,
}

impl Summary {
    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(text);
        } else {
            self.problems_unlisted += 1;
        }
    }

    /// Ends the lists.
    pub(crate) fn close(&mut self) {
        if self.problems_unlisted > 0 {
            self.problems.push(format!("… and {} more", self.problems_unlisted));
            self.problems_unlisted = 0;
        }
        let Tally { lines, events, .. } = self.tally;
        if events > lines {
            let parts = events - lines;
            self.notes.push(format!("very long lines were split, into {parts} events more"));
        }
    }
}

/// One file's content, from its beginning.
#[derive(Debug)]
pub(crate) struct Stream {
    scope: Scope,
    splitter: Splitter,
    chain: Chain,
    entry: Option<EntryId>,
    /// Whether it was shipped before, as the registry knows.
    seen: bool,
    /// The first bytes read.
    head: Vec<u8>,
    digest: Sha256,
    offset_bytes: u64,
    pending: Vec<Shipped>,
    pending_bytes: usize,
    limits: Limits,
    /// The limits before a row of requests that were too large.
    limits_before: Option<Limits>,
    accepted: u64,
    duplicates: u64,
    retries: u64,
}

impl Stream {
    /// Begins a file whose beginning is `head`. With its `content` at hand the
    /// registry is asked what file it is; it is none of those that are `excluded`.
    pub(crate) fn begin(
        shared: &Shared,
        topic: &str,
        head: &[u8],
        content: Option<&mut dyn Content>,
        excluded: &[EntryId],
        summary: &mut Summary,
    ) -> Self {
        let store = shared.store.clone();
        let source = shared.options.source.clone();
        let scope = Scope { store, topic: topic.to_owned(), source };
        let known = content.filter(|_| !head.is_empty()).and_then(|content| {
            let mut registry = shared.registry.lock().unwrap_or_else(PoisonError::into_inner);
            match registry.identify(&scope, head, content, excluded) {
                Ok(known) => Some(known),
                Err(error) => {
                    // It must not keep a line from being shipped.
                    summary.notes.push(format!("identified by its content alone: {error:#}"));
                    None
                }
            }
        });
        let (entry, identity, seen) = match known {
            Some(Known { id, identity, seen }) => (Some(id), identity, seen),
            None => (None, Identity::of_head(head), false),
        };
        Self {
            chain: Chain::new(&scope.source, identity),
            scope,
            splitter: Splitter::default(),
            entry,
            seen,
            head: Vec::new(),
            digest: Sha256::new(),
            offset_bytes: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            limits: shared.options.limits,
            limits_before: None,
            accepted: 0,
            duplicates: 0,
            retries: 0,
        }
    }

    /// What the registry calls it.
    #[must_use]
    pub(crate) fn entry(&self) -> Option<EntryId> {
        self.entry
    }

    /// The offset in the file up to which it was read.
    #[must_use]
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The first bytes read, up to [`HEAD_BYTES`].
    #[must_use]
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// SHA-256 of all bytes read so far.
    #[must_use]
    pub(crate) fn digest(&self) -> Hash {
        self.digest.clone().finalize().into()
    }

    /// Takes what was read next, and sends what makes full requests.
    ///
    /// # Errors
    ///
    /// If a request has no answer; the events stay pending.
    pub(crate) async fn push(
        &mut self,
        shared: &Shared,
        bytes: &[u8],
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        self.digest.update(bytes);
        self.offset_bytes += bytes.len() as u64;
        summary.tally.bytes += bytes.len() as u64;
        shared.progress.inc(bytes.len() as u64);
        self.splitter.push(bytes);
        while let Some(line) = self.splitter.next_line() {
            self.add(&line, summary)?;
            while self.limits.are_reached(self.pending.len(), self.pending_bytes) {
                self.send(shared, summary).await?;
            }
        }
        Ok(())
    }

    /// Sends everything that is complete.
    ///
    /// # Errors
    ///
    /// As [`Stream::push`].
    pub(crate) async fn flush(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            self.send(shared, summary).await?;
        }
        Ok(())
    }

    /// Sends everything, an incomplete last line included, and remembers how
    /// far the file was shipped.
    ///
    /// # Errors
    ///
    /// As [`Stream::push`].
    pub(crate) async fn finish(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        while let Some(line) = self.splitter.finish() {
            self.add(&line, summary)?;
        }
        self.flush(shared, summary).await?;
        self.record(shared, summary);
        if !self.seen && self.accepted > 0 && self.duplicates > 0 && self.retries == 0 {
            summary.notes.push(format!(
                "{} of its lines were stored before, from this file or from one that begins \
                 alike, and nothing here tells which. Should it be another file: ship it again \
                 with another --topic or --source",
                self.duplicates
            ));
        }
        Ok(())
    }

    /// Whether complete lines wait to be sent.
    #[must_use]
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Remembers how far the file was shipped. Only to be called when all that
    /// was read has been sent, but for an incomplete line.
    pub(crate) fn record(&self, shared: &Shared, summary: &mut Summary) {
        let Some(entry) = self.entry else { return };
        let done = block_in_place(|| {
            let mut registry = shared.registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry.record(entry, &self.head, self.offset_bytes, &self.digest())
        });
        if let Err(error) = done {
            summary.notes.push(format!("not remembered as shipped: {error:#}"));
        }
    }

    /// Counts what was read and never sent.
    pub(crate) fn abandon(&mut self, summary: &mut Summary) {
        summary.tally.unacknowledged += self.pending.len() as u64;
        self.pending.clear();
    }

    fn add(&mut self, line: &Line, summary: &mut Summary) -> anyhow::Result<()> {
        let id = self.chain.id(line);
        let event = batch::event(&self.scope.topic, &self.scope.source, &id, line)?;
        summary.tally.lines += u64::from(!line.continued);
        summary.tally.events += 1;
        summary.tally.invalid_utf8 += u64::from(event.invalid_utf8);
        self.pending_bytes += event.json.len() + 1;
        self.pending.push(event);
        Ok(())
    }

    /// Sends one request of pending events.
    async fn send(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<()> {
        let count = self.limits.fitting(&self.pending);
        let events = &self.pending[..count];
        let delivery = {
            let permit = shared.requests.acquire().await?;
            let delivery = shared.client.publish(batch::body(events).into(), || ()).await;
            drop(permit);
            delivery
        };
        summary.tally.retries += delivery.retries();
        self.retries += delivery.retries();
        match delivery.outcome {
            Ok(reply) => {
                settle(events, &reply, summary)?;
                self.accepted += reply.accepted;
                self.duplicates += reply.duplicates;
                self.limits_before = None;
            }
            Err(Failure::TooLarge(_)) if count > 1 => {
                self.limits_before.get_or_insert(self.limits);
                self.limits.learn_too_large(events);
                return Ok(());
            }
            Err(Failure::TooLarge(problem)) => {
                summary.tally.rejected += 1;
                summary.problem(format!("{} is too large: {problem}", events[0].position()));
                // That one event was to blame, and not how many there were.
                self.limits = self.limits_before.take().unwrap_or(self.limits);
            }
            Err(Failure::Invalid(problem)) => refuse(events, &problem, summary),
            Err(failure) => return Err(failure.into()),
        }
        summary.tally.requests += 1;
        for event in self.pending.drain(..count) {
            self.pending_bytes -= event.json.len() + 1;
        }
        Ok(())
    }
}

/// Adds up a reply to `events`.
fn settle(events: &[Shipped], reply: &PublishReply, summary: &mut Summary) -> Result<(), Failure> {
    let PublishReply { received, accepted, duplicates, conflicts, rejected, ref results, .. } =
        *reply;
    let sent = events.len() as u64;
    if received != accepted + duplicates || received + rejected != sent || conflicts > duplicates {
        return Err(Failure::Protocol(format!(
            "{sent} events sent; received {received}, accepted {accepted}, duplicates \
             {duplicates}, conflicts {conflicts}, rejected {rejected}"
        )));
    }
    summary.tally.accepted += accepted;
    summary.tally.duplicates += duplicates;
    summary.tally.conflicts += conflicts;
    summary.tally.rejected += rejected;
    for EventResult { index, status, field, detail } in results {
        let position =
            events.get(*index).map_or_else(|| format!("event {index}"), Shipped::position);
        match status {
            Outcome::Accepted | Outcome::Duplicate => {}
            Outcome::Conflict => {
                summary.problem(format!("{position} is stored with other content, which stays"));
            }
            Outcome::Rejected => {
                let field = field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
                let detail = detail.as_deref().unwrap_or("no reason given");
                summary.problem(format!("{position} is rejected: {field}{detail}"));
            }
        }
    }
    Ok(())
}

/// Notes that not one of `events` was valid.
fn refuse(events: &[Shipped], problem: &Problem, summary: &mut Summary) {
    summary.tally.rejected += events.len() as u64;
    if problem.errors.is_empty() {
        for event in events {
            summary.problem(format!("{} is rejected: {problem}", event.position()));
        }
    }
    for error in &problem.errors {
        let position = events.get(error.index).map(Shipped::position).unwrap_or_default();
        let field = error.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let detail = error.detail.as_deref().unwrap_or("no reason given");
        summary.problem(format!("{position} is rejected: {field}{detail}"));
    }
}
