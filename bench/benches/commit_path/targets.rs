//! What the figures are to come to.

use std::fmt;

use serde::Serialize;

use crate::cases::Case;
use crate::figures::Spread;
use crate::rounds::{
    BATCH_100_8, BATCH_1000_8, EMPTY_32, EMPTY_128, NATIVE_1, ORDERED_BATCH_100_8,
    POSTGRES_BATCH_100_8, POSTGRES_BATCH_1000_8, POSTGRES_SINGLE_32, POSTGRES_SINGLE_128,
    POSTGRES_SINGLE_256, Round, SINGLE_1, SINGLE_32, SINGLE_128, SLOW_SINGLE_32, STREAM_1,
    STREAM_8,
};

/// Bytes in the megabyte of a target.
pub const MEGABYTE: f64 = 1_000_000.0;

/// When a target is met.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Bound {
    /// By no less than this.
    AtLeast(f64),
    /// By no more than this.
    AtMost(f64),
    /// By no less than this, one day.
    AimAtLeast(f64),
    /// By no more than this, one day.
    AimAtMost(f64),
}

impl Bound {
    /// Whether `figure` meets it.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Bound::AtLeast(least) | Bound::AimAtLeast(least) => figure >= least,
            Bound::AtMost(most) | Bound::AimAtMost(most) => figure <= most,
        }
    }

    /// Whether it is something to come near to, rather than to keep.
    pub fn is_aim(self) -> bool {
        matches!(self, Bound::AimAtLeast(_) | Bound::AimAtMost(_))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "≥ {least}"),
            Bound::AtMost(most) => write!(f, "≤ {most}"),
            Bound::AimAtLeast(least) => write!(f, "aim ≥ {least}"),
            Bound::AimAtMost(most) => write!(f, "aim ≤ {most}"),
        }
    }
}

/// One target.
pub struct Target {
    /// The case that it is set for.
    pub case: Case,
    /// Which of its figures, and in what it is told.
    pub figure: &'static str,
    /// When it is met.
    pub bound: Bound,
    in_round: fn(&Round) -> Option<f64>,
}

impl Target {
    /// The figure over all rounds, if it was measured.
    pub fn figure(&self, rounds: &[Round]) -> Option<Spread> {
        Spread::of(rounds.iter().filter_map(self.in_round))
    }
}

fn p99_ratio(round: &Round, case: Case, reference: Case) -> Option<f64> {
    Some(round.figures(case)?.p99_ms / round.figures(reference)?.p99_ms)
}

/// All targets.
pub const TARGETS: [Target; 24] = [
    Target {
        case: SINGLE_1,
        figure: "p50 ÷ p50 of native-statement/1",
        bound: Bound::AtMost(2.5),
        in_round: |round| Some(round.figures(SINGLE_1)?.p50_ms / round.figures(NATIVE_1)?.p50_ms),
    },
    Target {
        case: SINGLE_1,
        figure: "rate ÷ axum",
        bound: Bound::AimAtLeast(0.4),
        in_round: |round| round.rate_ratio(SINGLE_1, SINGLE_1.to_axum()),
    },
    Target {
        case: SINGLE_32,
        figure: "rate ÷ native-statement/1",
        bound: Bound::AtLeast(1.4),
        in_round: |round| round.rate_ratio(SINGLE_32, NATIVE_1),
    },
    Target {
        case: SINGLE_32,
        figure: "p99 ÷ p99 of empty/32",
        bound: Bound::AtMost(3.0),
        in_round: |round| p99_ratio(round, SINGLE_32, EMPTY_32),
    },
    Target {
        case: SINGLE_32,
        figure: "p99 ÷ p99 of empty/32",
        bound: Bound::AimAtMost(2.5),
        in_round: |round| p99_ratio(round, SINGLE_32, EMPTY_32),
    },
    Target {
        case: SINGLE_32,
        figure: "rate ÷ empty/32",
        bound: Bound::AimAtLeast(0.5),
        in_round: |round| round.rate_ratio(SINGLE_32, EMPTY_32),
    },
    Target {
        case: SINGLE_32,
        figure: "rate ÷ axum",
        bound: Bound::AimAtLeast(0.25),
        in_round: |round| round.rate_ratio(SINGLE_32, SINGLE_32.to_axum()),
    },
    Target {
        case: SINGLE_32,
        figure: "CPU µs an event",
        bound: Bound::AimAtMost(200.0),
        in_round: |round| round.figures(SINGLE_32)?.cpu_us_per_event,
    },
    Target {
        case: SINGLE_128,
        figure: "rate ÷ native-statement/1",
        bound: Bound::AtLeast(1.4),
        in_round: |round| round.rate_ratio(SINGLE_128, NATIVE_1),
    },
    Target {
        case: SINGLE_128,
        figure: "rate ÷ empty/128",
        bound: Bound::AimAtLeast(0.75),
        in_round: |round| round.rate_ratio(SINGLE_128, EMPTY_128),
    },
    Target {
        case: SINGLE_128,
        figure: "peak RSS, MB",
        bound: Bound::AtMost(120.0),
        in_round: |round| Some(round.figures(SINGLE_128)?.peak_rss_bytes? as f64 / MEGABYTE),
    },
    Target {
        case: BATCH_100_8,
        figure: "rate ÷ native-statement/100",
        bound: Bound::AtLeast(0.65),
        in_round: |round| round.rate_ratio(BATCH_100_8, BATCH_100_8.native_statement()?),
    },
    Target {
        case: BATCH_100_8,
        figure: "rate ÷ axum",
        bound: Bound::AimAtLeast(0.6),
        in_round: |round| round.rate_ratio(BATCH_100_8, BATCH_100_8.to_axum()),
    },
    Target {
        case: ORDERED_BATCH_100_8,
        figure: "rate ÷ axum",
        bound: Bound::AimAtLeast(0.6),
        in_round: |round| round.rate_ratio(ORDERED_BATCH_100_8, ORDERED_BATCH_100_8.to_axum()),
    },
    Target {
        case: BATCH_1000_8,
        figure: "rate ÷ native-statement/1000",
        bound: Bound::AtLeast(0.7),
        in_round: |round| round.rate_ratio(BATCH_1000_8, BATCH_1000_8.native_statement()?),
    },
    Target {
        case: BATCH_1000_8,
        figure: "rate ÷ axum",
        bound: Bound::AimAtLeast(0.6),
        in_round: |round| round.rate_ratio(BATCH_1000_8, BATCH_1000_8.to_axum()),
    },
    Target {
        case: STREAM_1,
        figure: "rate ÷ axum-single/32",
        bound: Bound::AimAtLeast(0.5),
        in_round: |round| round.rate_ratio(STREAM_1, SINGLE_32.to_axum()),
    },
    Target {
        case: STREAM_8,
        figure: "rate ÷ axum-single/32",
        bound: Bound::AimAtLeast(1.0),
        in_round: |round| round.rate_ratio(STREAM_8, SINGLE_32.to_axum()),
    },
    Target {
        case: Case::Open,
        figure: "p99, ms",
        bound: Bound::AtMost(10.0),
        in_round: |round| Some(round.figures(Case::Open)?.p99_ms),
    },
    Target {
        case: SLOW_SINGLE_32,
        figure: "rate ÷ single/32",
        bound: Bound::AimAtLeast(0.7),
        in_round: |round| round.rate_ratio(SLOW_SINGLE_32, SINGLE_32),
    },
    Target {
        case: POSTGRES_SINGLE_32,
        figure: "rate ÷ single/32",
        bound: Bound::AtLeast(0.8),
        in_round: |round| round.rate_ratio(POSTGRES_SINGLE_32, SINGLE_32),
    },
    Target {
        case: POSTGRES_SINGLE_256,
        figure: "rate ÷ postgres-single/128",
        bound: Bound::AtLeast(0.8),
        in_round: |round| round.rate_ratio(POSTGRES_SINGLE_256, POSTGRES_SINGLE_128),
    },
    Target {
        case: POSTGRES_BATCH_100_8,
        figure: "rate ÷ batch-100/8",
        bound: Bound::AtLeast(1.0),
        in_round: |round| round.rate_ratio(POSTGRES_BATCH_100_8, BATCH_100_8),
    },
    Target {
        case: POSTGRES_BATCH_1000_8,
        figure: "rate ÷ batch-1000/8",
        bound: Bound::AtLeast(1.0),
        in_round: |round| round.rate_ratio(POSTGRES_BATCH_1000_8, BATCH_1000_8),
    },
];
