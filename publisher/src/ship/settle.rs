//! Replies, added up.

use super::batch::Sendable;
use super::summary::Summary;
use crate::client::Failure;
use crate::wire::{EventResult, Outcome, Problem, PublishReply};

/// Adds up a reply to `events`.
///
/// # Errors
///
/// If the reply cannot be to them.
pub(crate) fn settle(
    events: &[impl Sendable],
    reply: &PublishReply,
    summary: &mut Summary,
) -> Result<(), Failure> {
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
            events.get(*index).map_or_else(|| format!("event {index}"), Sendable::position);
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
pub(crate) fn refuse(events: &[impl Sendable], problem: &Problem, summary: &mut Summary) {
    summary.tally.rejected += events.len() as u64;
    if problem.errors.is_empty() {
        for event in events {
            summary.problem(format!("{} is rejected: {problem}", event.position()));
        }
    }
    summary.problems_unlisted += problem.results_omitted;
    for error in &problem.errors {
        let position = events.get(error.index).map(Sendable::position).unwrap_or_default();
        let field = error.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
        let detail = error.detail.as_deref().unwrap_or("no reason given");
        summary.problem(format!("{position} is rejected: {field}{detail}"));
    }
}
