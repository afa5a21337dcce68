//! What one measurement comes to, and what several come to together.

use std::time::{Duration, Instant};

use publisher::metrics::{Metrics, Sample, per_second};
use serde::Serialize;

use crate::cases::Case;

/// Microseconds in a second.
const MICROSECONDS: f64 = 1_000_000.0;

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Before anything is measured.
    pub warm_up: Duration,
    /// While it is.
    pub measured: Duration,
}

impl Span {
    /// All of it.
    pub fn whole(self) -> Duration {
        self.warm_up + self.measured
    }
}

/// A request that was answered, or a commit, of so many events.
pub fn sample(sent: Instant, done: Instant, events: u64) -> Sample {
    Sample {
        intended: None,
        sent,
        done,
        answered: true,
        accepted: events,
        duplicates: 0,
        rejected: 0,
        retries: 0,
        bytes_sent: 0,
        bytes_received: 0,
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// What was measured.
    pub case: Case,
    /// Events acknowledged in a second; of reads, requests answered.
    pub events_per_second: f64,
    /// Half of the requests took less, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took less, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// Requests that were measured; of the native writer, commits.
    pub requests: u64,
    /// Connections, each with one request at a time; of an open loop the most
    /// that there may be.
    pub connections: usize,
    /// CPU time that the server took for an event, or a request that is none, in
    /// microseconds, where that can be told.
    pub cpu_us_per_event: Option<f64>,
    /// The same of the PostgreSQL server that it has its store on.
    pub postgres_cpu_us_per_event: Option<f64>,
    /// Most memory that the server had resident, where that can be told.
    pub peak_rss_bytes: Option<u64>,
}

impl Figures {
    /// Out of what was measured over so many connections. The latency of an
    /// open loop counts from when a request was due.
    pub fn new(case: Case, metrics: &Metrics, connections: usize) -> Self {
        let latencies = metrics.latencies();
        let latency = latencies.corrected.unwrap_or(latencies.raw);
        Figures {
            case,
            events_per_second: per_second(metrics.events, metrics.measured()),
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            max_ms: latency.max,
            requests: latency.count,
            connections,
            cpu_us_per_event: None,
            postgres_cpu_us_per_event: None,
            peak_rss_bytes: None,
        }
    }

    /// CPU time for an event, in microseconds, of a server that so many cores were
    /// busy for meanwhile; `None` if there was no event.
    pub fn cpu_us_per_event(&self, cores: f64) -> Option<f64> {
        let per_event = cores / self.events_per_second * MICROSECONDS;
        per_event.is_finite().then_some(per_event)
    }
}

/// A figure over several rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` when there is no figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Spread { median, min, max })
    }
}
