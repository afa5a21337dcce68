//! The bytes of one file on their way: lines, events, requests, and the sums
//! of what was answered.
//!
//! A stream sends one request at a time, so lines are stored in the order of
//! the file. Streams of several files run side by side.

use sha2::{Digest as _, Sha256};

use super::batch::{self, Limits, Shipped};
use super::identity::{Chain, Hash, Identity};
use super::lines::{Line, Splitter};
use super::registry::{EntryId, Known, Scope};
use super::shared::Shared;
use super::summary::Summary;
use super::window::Window;
use crate::client::Failure;
use crate::wire::{EventResult, Outcome, Problem, PublishReply};

/// One file's content, from its beginning.
#[derive(Debug)]
pub(crate) struct Stream {
    scope: Scope,
    splitter: Splitter,
    chain: Chain,
    entry: Option<EntryId>,
    /// Whether it was known before, to the registry.
    seen: bool,
    window: Window,
    /// Complete lines of the window that are remembered.
    lines_remembered: Option<usize>,
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
    /// Begins a file that is `known`, or one that the registry knows nothing
    /// about and that has this `identity`.
    pub(crate) fn new(shared: &Shared, scope: Scope, known: Result<Known, Identity>) -> Self {
        let (entry, identity, seen) = match known {
            Ok(Known { id, identity, seen, .. }) => (Some(id), identity, seen),
            Err(identity) => (None, identity, false),
        };
        Self {
            chain: Chain::new(&scope.source, identity),
            scope,
            splitter: Splitter::default(),
            entry,
            seen,
            window: Window::default(),
            lines_remembered: None,
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

    /// How far its content was read, in bytes.
    #[must_use]
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// SHA-256 of the content that was read.
    #[must_use]
    pub(crate) fn digest(&self) -> Hash {
        self.digest.clone().finalize().into()
    }

    /// Takes the content that was read next, and the text that it is. It has to
    /// be sent before more is taken, to keep memory bounded.
    pub(crate) fn accept(
        &mut self,
        shared: &Shared,
        content: &[u8],
        text: &[u8],
        summary: &mut Summary,
    ) {
        self.digest.update(content);
        self.offset_bytes += content.len() as u64;
        summary.tally.bytes += content.len() as u64;
        shared.progress.inc(content.len() as u64);
        self.window.push(text);
        self.splitter.push(text);
    }

    /// Sends what makes full requests of what was accepted.
    ///
    /// # Errors
    ///
    /// If a request has no answer. Nothing is lost by that: the next call goes on
    /// where this one ended.
    pub(crate) async fn send_full(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        loop {
            while self.limits.are_reached(self.pending.len(), self.pending_bytes) {
                self.send(shared, summary).await?;
            }
            let Some(line) = self.splitter.next_line() else { return Ok(()) };
            self.add(&line, summary)?;
        }
    }

    /// Sends everything that is complete.
    ///
    /// # Errors
    ///
    /// As [`Stream::send_full`].
    pub(crate) async fn flush(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        self.send_full(shared, summary).await?;
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
    /// As [`Stream::send_full`].
    pub(crate) async fn finish(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        self.flush(shared, summary).await?;
        while let Some(line) = self.splitter.finish() {
            self.add(&line, summary)?;
        }
        self.flush(shared, summary).await?;
        self.record(shared);
        if !self.seen && self.accepted > 0 && self.duplicates > 0 && self.retries == 0 {
            summary.note(format!(
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

    /// Remembers the beginning of the file before more of it is sent, as long as
    /// it grows: who finds the file again, packed or copied, knows it by that.
    pub(crate) async fn remember_beginning(&mut self, shared: &Shared, summary: &mut Summary) {
        let lines = self.window.lines().len();
        let Some(entry) = self.entry.filter(|_| self.lines_remembered != Some(lines)) else {
            return;
        };
        self.lines_remembered = Some(lines);
        if let Err(error) = shared.registry.extend(entry, self.window.clone()).await {
            summary.note(format!("not remembered as shipped: {error:#}"));
        }
    }

    /// Remembers how far the file was shipped: up to the end of what was read, if
    /// all of it was sent, or not as far as that.
    pub(crate) fn record(&self, shared: &Shared) {
        let Some(entry) = self.entry else { return };
        let all_sent = self.pending.is_empty() && self.splitter.is_empty();
        let unsent_bytes = u64::from(!all_sent);
        let shipped_bytes = self.offset_bytes.saturating_sub(unsent_bytes);
        shared.registry.record(entry, self.window.clone(), shipped_bytes);
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
    summary.problems_unlisted += reply.problems_unlisted();
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
    summary.problems_unlisted += problem.results_omitted;
    for error in &problem.errors {
        let position = events.get(error.index).map(Shipped::position).unwrap_or_default();
        let field = error.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let detail = error.detail.as_deref().unwrap_or("no reason given");
        summary.problem(format!("{position} is rejected: {field}{detail}"));
    }
}
