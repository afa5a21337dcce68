//! One stream, from its first lines to its end: what waits for its outcomes.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::attempt::Attempt;
use super::super::transport::Down;
use super::end::End;
use super::offer::Phase;
use super::opener::Opener;
use super::part::{Ask, Part};
use crate::wire::{EventResult, Outcome, PublishReply, excerpt};

/// Requests of the caller whose lines go up in one write, at most.
const WRITE_REQUESTS_MAX: usize = 1_000;
/// How long a stream may lie idle before it is ended, in seconds. The service, and
/// what stands between, may have forgotten it some time later.
const IDLE_SECONDS_MAX: u64 = 30;
/// How long the end of a stream may take that nobody needs any more, in milliseconds.
pub(super) const CLOSE_MS_MAX: u64 = 1_000;

/// A line that came down.
#[derive(serde::Deserialize)]
struct Told {
    status: Outcome,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

/// What was asked and has not all its outcomes.
#[derive(Default)]
pub(super) struct Waiting {
    asked: VecDeque<Part>,
    /// Of the first of them.
    reply: PublishReply,
    bytes: u64,
    /// What came of a line that is not whole.
    rest: BytesMut,
    /// Whether an outcome has come.
    has_told: bool,
}

impl Waiting {
    pub(super) fn send(&mut self, up: &mpsc::UnboundedSender<Bytes>, asks: Vec<Ask>) {
        let parts = asks.into_iter().filter_map(|ask| match ask {
            Ask::Open => None,
            // What was to go before it has to be first.
            Ask::Part(part) => (!part.is_late()).then_some(part),
        });
        let parts: Vec<Part> = parts.collect();
        let lines = match parts.as_slice() {
            [] => return,
            [one] => one.lines.clone(),
            several => {
                let lines: Vec<&[u8]> = several.iter().map(|part| &*part.lines).collect();
                lines.concat().into()
            }
        };
        self.asked.extend(parts);
        // Should the stream be gone, its end is about to be told.
        up.send(lines).ok();
    }

    /// Until the stream ends.
    pub(super) async fn run(
        &mut self,
        mut body: Down,
        up: mpsc::UnboundedSender<Bytes>,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        opener: &Opener,
        phase: &mut Phase,
    ) -> End {
        let mut new = Vec::new();
        let mut idle_since = Instant::now();
        let mut alarm = pin!(tokio::time::sleep_until(self.deadline(opener, idle_since)));
        loop {
            tokio::select! {
                biased;
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        let end = self.take(&data).err();
                        if self.has_told && *phase != Phase::Proven {
                            *phase = Phase::Proven;
                            opener.offer.prove();
                        }
                        if let Some(end) = end {
                            return end;
                        }
                        idle_since = Instant::now();
                    }
                    Some(Err(error)) => return End::of(&error),
                    None if self.asked.is_empty() => return End::Idle,
                    None => return End::broken(),
                },
                count = asks.recv_many(&mut new, WRITE_REQUESTS_MAX) => {
                    if count == 0 {
                        // Nobody may ask any more, and so nobody waits.
                        break;
                    }
                    let was_idle = self.asked.is_empty();
                    self.send(&up, std::mem::take(&mut new));
                    if was_idle {
                        alarm.as_mut().reset(self.deadline(opener, idle_since));
                    }
                }
                () = &mut alarm => {
                    let deadline = self.deadline(opener, idle_since);
                    match (deadline <= Instant::now(), self.asked.is_empty()) {
                        (false, _) => alarm.as_mut().reset(deadline),
                        (true, true) => break,
                        (true, false) => return End::late("outcome", opener.outcome_max()),
                    }
                }
            }
        }
        // The service ends the reply in its turn.
        drop(up);
        let end = async { while let Some(Ok(_)) = body.frame().await {} };
        tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), end).await.ok();
        End::Idle
    }

    /// When the oldest has waited for long, or the stream was idle for long.
    fn deadline(&self, opener: &Opener, idle_since: Instant) -> Instant {
        match self.asked.front() {
            Some(oldest) => oldest.since + opener.outcome_max(),
            None => idle_since + Duration::from_secs(IDLE_SECONDS_MAX),
        }
    }

    /// Takes what came down.
    fn take(&mut self, data: &[u8]) -> Result<(), End> {
        self.rest.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', &self.rest) {
            let line = self.rest.split_to(end + 1);
            self.line(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), End> {
        let told: Told = serde_json::from_slice(line).map_err(|error| {
            // The last line of a stream that was ended is a problem.
            let status = |value: serde_json::Value| value.get("status")?.as_u64();
            let status = serde_json::from_slice(line).ok().and_then(status);
            let status = status.and_then(|status| StatusCode::from_u16(status as u16).ok());
            match status {
                Some(status) => End::refused(status, line),
                None => End::Protocol(format!("{error} in {:?}", excerpt(line))),
            }
        })?;
        let Some(first) = self.asked.front() else {
            return Err(End::Protocol("more outcomes than events".to_owned()));
        };
        let Told { status, field, detail } = told;
        let reply = &mut self.reply;
        let index = reply.results.len();
        reply.received += u64::from(status != Outcome::Rejected);
        match status {
            Outcome::Accepted => reply.accepted += 1,
            Outcome::Duplicate => reply.duplicates += 1,
            Outcome::Conflict => {
                reply.duplicates += 1;
                reply.conflicts += 1;
            }
            Outcome::Rejected => reply.rejected += 1,
        }
        reply.results.push(EventResult { index, status, field, detail });
        self.has_told = true;
        self.bytes += line.len() as u64;
        if reply.results.len() == first.events
            && let Some(first) = self.asked.pop_front()
        {
            let reply = std::mem::take(&mut self.reply);
            // Whoever does not wait any longer has asked again.
            first.told.send(Attempt::Reply(reply, std::mem::take(&mut self.bytes))).ok();
        }
        Ok(())
    }

    /// Tells all that wait why they have no outcomes.
    pub(super) fn end(&mut self, end: &End) {
        for part in self.asked.drain(..) {
            // Before it is told: who has been told may ask again.
            if let Some(after) = &part.after {
                after.store(true, Ordering::Relaxed);
            }
            part.told.send(end.attempt()).ok();
        }
    }
}
