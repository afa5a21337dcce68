//! Events on their way: one request after the other, in the order of the file.
//!
//! A request is answered before the next one leaves, and a service stores the events of
//! one in their order; so the events of a topic are stored in the order of the file, also
//! when a request has to be sent again. While one is under way the next is read.

use std::sync::Arc;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::task::{JoinHandle, block_in_place};

use super::lines::Lines;
use crate::client::{Body, Client, Failure};
use crate::exported::line::Given;
use crate::exported::sums::TopicSums;
use crate::ship::batch::{self, Limits, Sendable};
use crate::ship::settle::{refuse, settle};
use crate::ship::summary::Summary;
use crate::signal::Stop;

/// An event that is to be sent.
#[derive(Debug)]
struct Pending {
    json: Vec<u8>,
    line: u64,
}

impl Sendable for Pending {
    fn json(&self) -> &[u8] {
        &self.json
    }

    fn position(&self) -> String {
        let line = self.line;
        match serde_json::from_slice::<Given<'_>>(&self.json) {
            Ok(Given { topic, event_id, .. }) => {
                format!("event {event_id:?} of topic {topic:?}, line {line},")
            }
            Err(_) => format!("line {line}"),
        }
    }
}

/// Sends events.
pub(super) struct Sending {
    client: Arc<Client>,
    limits: Limits,
    stop: Stop,
}

/// A request under way, with all its attempts.
type UnderWay = JoinHandle<(Summary, Limits, Result<(), Failure>)>;

impl Sending {
    pub(super) fn new(client: Arc<Client>, limits: Limits, stop: Stop) -> Self {
        Self { client, limits, stop }
    }

    /// Sends all events, or those up to a signal: then `summary` is interrupted. Gives
    /// the sums of the events.
    ///
    /// # Errors
    ///
    /// If a request has no answer, or there is a line that is no event. What was answered
    /// before is added up; what would have shared a request with that line is not sent.
    pub(super) async fn run(
        mut self,
        mut lines: Lines,
        bar: &ProgressBar,
        summary: &mut Summary,
    ) -> anyhow::Result<TopicSums> {
        let mut under_way: Option<UnderWay> = None;
        let mut next: Option<Pending> = None;
        loop {
            let read = block_in_place(|| self.read(&mut lines, &mut next));
            bar.set_position(lines.read_bytes());
            if let Some(sent) = under_way.take() {
                self.settled(sent, summary).await?;
            }
            let events = read?;
            if events.is_empty() {
                return Ok(lines.finish());
            }
            if self.stop.is_set() {
                summary.interrupted = true;
                return Ok(lines.finish());
            }
            let (client, limits) = (Arc::clone(&self.client), self.limits);
            under_way = Some(tokio::spawn(deliver(client, limits, events)));
        }
    }

    /// Reads the events of a request. What did not fit is the first of the next.
    fn read(&self, lines: &mut Lines, next: &mut Option<Pending>) -> anyhow::Result<Vec<Pending>> {
        let Limits { batch_events_max, batch_bytes_max } = self.limits;
        let mut events: Vec<Pending> = next.take().into_iter().collect();
        let mut bytes: usize = events.iter().map(Sendable::len_bytes).sum();
        while events.len() < batch_events_max && bytes < batch_bytes_max {
            let read = lines
                .next(|line, given| serde_json::to_vec(given).map(|json| Pending { json, line }))?;
            let Some(event) = read.transpose()? else { break };
            bytes += event.len_bytes();
            if bytes > batch_bytes_max && !events.is_empty() {
                *next = Some(event);
                break;
            }
            events.push(event);
        }
        Ok(events)
    }

    async fn settled(&mut self, sent: UnderWay, summary: &mut Summary) -> anyhow::Result<()> {
        let (of_request, limits, sent) = sent.await.context("a request died")?;
        summary.tally += of_request.tally;
        summary.problems_unlisted += of_request.problems_unlisted;
        of_request.problems.into_iter().for_each(|problem| summary.problem(problem));
        self.limits = limits;
        sent.context("not all was sent; the same again goes on, as nothing is stored twice")
    }
}

/// Sends events in as many requests as the service makes of them, one after the other,
/// and tells which limits it has.
async fn deliver(
    client: Arc<Client>,
    mut limits: Limits,
    events: Vec<Pending>,
) -> (Summary, Limits, Result<(), Failure>) {
    let mut summary = Summary::default();
    summary.tally.events = events.len() as u64;
    summary.tally.lines = events.len() as u64;
    // Before a row of requests that were too large.
    let mut limits_before = None;
    let mut rest = &events[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(limits.fitting(rest));
        let delivery = client.publish(Body::json(batch::body(now)), || ()).await;
        summary.tally.retries += delivery.retries();
        let settled = match delivery.outcome {
            Ok(reply) => settle(now, &reply, &mut summary).map(|()| limits_before = None),
            Err(Failure::TooLarge(_)) if now.len() > 1 => {
                limits_before.get_or_insert(limits);
                limits.learn_too_large(now);
                continue;
            }
            Err(Failure::TooLarge(problem)) => {
                summary.tally.rejected += 1;
                summary.problem(format!("{} is too large: {problem}", now[0].position()));
                // That one event was to blame, and not how many there were.
                limits = limits_before.take().unwrap_or(limits);
                Ok(())
            }
            Err(Failure::Invalid(problem)) => {
                refuse(now, &problem, &mut summary);
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = settled {
            summary.tally.unacknowledged = rest.len() as u64;
            return (summary, limits, Err(failure));
        }
        summary.tally.requests += 1;
        rest = later;
    }
    (summary, limits, Ok(()))
}
