//! What one measurement comes to, and what several come to together.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cases::Case;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Before anything is measured.
    pub warm_up: Duration,
    /// While it is.
    pub measured: Duration,
}

/// Latencies, by the microsecond.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    ///
    /// None that depends on anything at run time.
    pub fn new() -> Result<Self> {
        Histogram::new(LATENCY_DIGITS).map(Latencies).context("cannot make a histogram")
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// None: a histogram grows as needed.
    pub fn record(&mut self, latency: Duration) -> Result<()> {
        let micros = u64::try_from(latency.as_micros()).context("a latency of centuries")?;
        self.0.record(micros).context("cannot take a latency into the histogram")
    }

    /// Takes all of `other`.
    ///
    /// # Errors
    ///
    /// None: a histogram grows as needed.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("cannot join histograms")
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        // A quantile is the top of its bucket; the maximum is not rounded up.
        ms(self.0.value_at_quantile(quantile).min(self.0.max()))
    }
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
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
    /// Connections that were open at the end.
    pub connections: usize,
    /// Most memory that the host had resident, where that can be told.
    pub peak_rss_bytes: Option<u64>,
}

impl Figures {
    /// Puts together what was measured over `elapsed`.
    pub fn new(case: Case, latencies: &Latencies, connections: usize, elapsed: Duration) -> Self {
        let requests = latencies.count();
        Figures {
            case,
            events_per_second: (requests * case.events()) as f64 / elapsed.as_secs_f64(),
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            max_ms: ms(latencies.0.max()),
            requests,
            connections,
            peak_rss_bytes: None,
        }
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
