//! The bytes of one file on their way: lines, events, requests, and the sums
//! of what was answered.
//!
//! Lines are stored in the order of the file. So either one request is sent at a
//! time, or, where the service offers streams, several are on their way over one of
//! those, a *lane*. When it fails, all that has no answer is pending again, and the
//! first of it goes as an ordinary request. Files run side by side.

use std::collections::VecDeque;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::batch::{self, Limits, Sendable as _, Shipped};
use super::identity::{Chain, Hash, Identity};
use super::lines::{Line, Splitter};
use super::registry::{EntryId, Known, Scope};
use super::settle::{refuse, settle};
use super::shared::Shared;
use super::summary::Summary;
use super::window::Window;
use crate::client::lane::{Lane, Lost, UnderWay};
use crate::client::{Body, Failure};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

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
    /// Not sent, or sent and not answered, and to be sent again.
    pending: Vec<Shipped>,
    pending_bytes: usize,
    lane: Option<Lane>,
    /// On the lane, in order; what is pending comes after it.
    under_way: VecDeque<Sent>,
    /// What failed on a lane, until what is pending first is sent again.
    lost: Option<Lost>,
    /// So many pending events go as ordinary requests, which tell what is wrong with
    /// them.
    by_request: usize,
    limits: Limits,
    /// The limits before a row of requests that were too large.
    limits_before: Option<Limits>,
    accepted: u64,
    duplicates: u64,
    retries: u64,
}

/// Events that were sent on a lane.
#[derive(Debug)]
struct Sent {
    events: Vec<Shipped>,
    under_way: UnderWay,
    /// Counts it among the requests under way.
    _permit: OwnedSemaphorePermit,
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
            lane: None,
            under_way: VecDeque::new(),
            lost: None,
            by_request: 0,
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
        while self.has_pending() {
            match self.pending.is_empty() {
                false => self.send(shared, summary).await?,
                true => self.settle_first(summary).await?,
            }
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

    /// Whether complete lines wait to be sent, or to be answered.
    #[must_use]
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.under_way.is_empty()
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
        let all_stored = !self.has_pending() && self.splitter.is_empty();
        let unsent_bytes = u64::from(!all_stored);
        let shipped_bytes = self.offset_bytes.saturating_sub(unsent_bytes);
        shared.registry.record(entry, self.window.clone(), shipped_bytes);
    }

    /// Counts what was read and never answered.
    pub(crate) fn abandon(&mut self, summary: &mut Summary) {
        self.go_back();
        summary.tally.unacknowledged += self.pending.len() as u64;
        self.pending.clear();
    }

    fn add(&mut self, line: &Line, summary: &mut Summary) -> anyhow::Result<()> {
        let id = self.chain.id(line);
        let event = batch::event(&self.scope.topic, &self.scope.source, &id, line)?;
        summary.tally.lines += u64::from(!line.continued);
        summary.tally.events += 1;
        summary.tally.invalid_utf8 += u64::from(event.invalid_utf8);
        self.pending_bytes += event.len_bytes();
        self.pending.push(event);
        Ok(())
    }

    /// Sends pending events: as many as make a request, and on a lane if there is one.
    async fn send(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<()> {
        if self.lost.is_none() && self.by_request == 0 && self.has_lane(shared, summary).await? {
            return self.send_on_lane(shared, summary).await;
        }
        // What went before has to be stored before.
        while !self.under_way.is_empty() {
            self.settle_first(summary).await?;
        }
        shared.say_if_there_are_no_streams();
        let count = self.limits.fitting(&self.pending);
        let events = &self.pending[..count];
        let delivery = {
            let permit = shared.requests.acquire().await?;
            let body = Body::json(batch::body(events));
            let delivery = shared.client.publish_after(self.lost.take(), body).await;
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
                self.by_request = self.by_request.max(count);
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
        self.by_request = self.by_request.saturating_sub(count);
        self.take_pending(count);
        Ok(())
    }

    /// Whether there is a lane to send on. What failed on the one before is pending.
    async fn has_lane(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<bool> {
        if self.lane.as_ref().is_some_and(Lane::has_failed) {
            while !self.under_way.is_empty() {
                self.settle_first(summary).await?;
            }
            self.lane = None;
        }
        if self.lane.is_none() && self.lost.is_none() {
            self.lane = shared.client.lane().await;
        }
        Ok(self.lane.is_some() && self.lost.is_none())
    }

    async fn send_on_lane(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<()> {
        let permit = loop {
            match Arc::clone(&shared.requests).try_acquire_owned() {
                Ok(permit) => break permit,
                Err(TryAcquireError::NoPermits) if !self.under_way.is_empty() => {
                    self.settle_first(summary).await?;
                    if self.lost.is_some() {
                        return Ok(());
                    }
                }
                Err(_) => break Arc::clone(&shared.requests).acquire_owned().await?,
            }
        };
        let Some(lane) = &self.lane else { return Ok(()) };
        let count = self.limits.fitting(&self.pending);
        let lines = batch::lines(&self.pending[..count]);
        let under_way = shared.client.begin(lane, lines, count);
        let events = self.take_pending(count);
        self.under_way.push_back(Sent { events, under_way, _permit: permit });
        Ok(())
    }

    /// Waits for the outcomes of what was sent first on the lane. If they do not come,
    /// all that was sent is pending again.
    async fn settle_first(&mut self, summary: &mut Summary) -> anyhow::Result<()> {
        let Some(Sent { events, under_way, .. }) = self.under_way.pop_front() else {
            return Ok(());
        };
        let settled = match under_way.outcome().await {
            Ok(reply) => settle(&events, &reply, summary).map(|()| reply).map_err(Ok),
            Err(lost) => Err(Err(lost)),
        };
        let failed = match settled {
            Ok(reply) => {
                self.accepted += reply.accepted;
                self.duplicates += reply.duplicates;
                summary.tally.requests += 1;
                return Ok(());
            }
            Err(failed) => failed,
        };
        self.go_back();
        self.put_back(events);
        match failed {
            Ok(failure) => Err(failure.into()),
            Err(lost) => {
                self.lost = Some(lost);
                Ok(())
            }
        }
    }

    /// Makes all pending that is on the lane. Nothing more is sent on it.
    fn go_back(&mut self) {
        self.lane = None;
        let events = std::mem::take(&mut self.under_way).into_iter().flat_map(|sent| sent.events);
        self.put_back(events.collect());
    }

    /// Makes events pending again, before all others.
    fn put_back(&mut self, events: Vec<Shipped>) {
        self.pending_bytes += events.iter().map(|event| event.len_bytes()).sum::<usize>();
        self.pending.splice(..0, events);
    }

    /// Takes the first pending events.
    fn take_pending(&mut self, count: usize) -> Vec<Shipped> {
        let events: Vec<Shipped> = self.pending.drain(..count).collect();
        self.pending_bytes -= events.iter().map(|event| event.len_bytes()).sum::<usize>();
        events
    }
}
