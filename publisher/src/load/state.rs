//! What the workers of a run share, and how a request is settled in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::options::Options;
use crate::answer::{Answer, outcomes};
use crate::auditor::Auditor;
use crate::client::{Delivery, Failure};
use crate::ledger::{Entry, Ledger};
use crate::metrics::{Metrics, Sample};
use crate::report::load::{Arrivals, Pacing};
use crate::wire::Outcome;
use crate::workload::{Kind, PlannedRequest, Requests};

/// What the workers of a run share.
#[derive(Debug)]
pub(super) struct State {
    /// Requests of an earlier process that are to be sent again.
    pub(super) resend: VecDeque<PlannedRequest>,
    /// The rest of the plan; `None` when only `resend` is to be sent.
    pub(super) requests: Option<Requests>,
    pub(super) auditor: Auditor,
    pub(super) ledger: Option<Ledger>,
    pub(super) metrics: Metrics,
    pub(super) pace: Pacing,
    /// How long requests were sent for.
    pub(super) sending: Duration,
    pub(super) under_way: u64,
    /// Why the run is to end, or the first request that was not answered.
    pub(super) failure: Option<String>,
    /// Why nothing more can be sent.
    pub(super) fatal: Option<anyhow::Error>,
}

impl State {
    pub(super) fn new(
        auditor: Auditor,
        ledger: Option<Ledger>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let open_loop = options.arrivals != Arrivals::Closed;
        Ok(Self {
            resend: VecDeque::new(),
            requests: None,
            auditor,
            ledger,
            metrics: Metrics::new(Instant::now(), options.warm_up, options.duration, open_loop)?,
            pace: Pacing::default(),
            sending: Duration::ZERO,
            under_way: 0,
            failure: None,
            fatal: None,
        })
    }
}

impl State {
    /// Writes an entry ahead. A ledger that cannot be written ends the run.
    pub(super) fn write_ahead(&mut self, entry: &Entry) -> bool {
        let Some(ledger) = &mut self.ledger else { return true };
        match ledger.write_ahead(entry) {
            Ok(()) => true,
            Err(error) => {
                self.fatal.get_or_insert(error);
                false
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        request: &PlannedRequest,
        delivery: Delivery,
        intended: Option<Instant>,
        sent: Instant,
        bytes_sent: u64,
    ) {
        let retries = delivery.retries();
        let Delivery { outcome, transient_errors, indeterminate, elapsed, bytes_received } =
            delivery;
        for error in &transient_errors {
            *self.metrics.losses_by_kind.entry(error.to_string()).or_default() += 1;
        }
        let answer = match outcome {
            Ok(reply) => match outcomes(request.deliveries.len(), &reply) {
                Ok(outcomes) => Answer::Outcomes(outcomes),
                Err(text) => Answer::Contradiction(text),
            },
            // As it should be, if there is nothing else in it.
            Err(Failure::Invalid(_))
                if request.deliveries.iter().all(|planned| planned.kind == Kind::Invalid) =>
            {
                Answer::Outcomes(vec![Outcome::Rejected; request.deliveries.len()])
            }
            Err(failure) => {
                *self.metrics.errors_by_kind.entry(failure.kind()).or_default() += 1;
                self.failure.get_or_insert_with(|| failure.to_string());
                Answer::None
            }
        };
        let count = |wanted: &[Outcome]| match &answer {
            Answer::Outcomes(outcomes) => {
                outcomes.iter().filter(|outcome| wanted.contains(outcome)).count() as u64
            }
            _ => 0,
        };
        self.metrics.record(Sample {
            intended,
            sent,
            done: sent + elapsed,
            answered: answer != Answer::None,
            accepted: count(&[Outcome::Accepted]),
            duplicates: count(&[Outcome::Duplicate, Outcome::Conflict]),
            rejected: count(&[Outcome::Rejected]),
            retries,
            bytes_sent,
            bytes_received,
        });
        self.auditor.settled(request.number, indeterminate, &answer);
        if let Some(ledger) = &mut self.ledger {
            let request = request.number;
            let entry = Entry::Settled { request, indeterminate, answer };
            if let Err(error) = ledger.append(&entry) {
                self.fatal.get_or_insert(error);
            }
        }
    }
}
