//! Arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cases::{Case, Engine, Pattern};
use crate::figures::Span;
use crate::slow_fsync;

/// How long something is measured, in seconds, if it is not said.
const MEASURED_SECONDS: f64 = 4.0;

/// The same on PostgreSQL: all of it takes the default run some three minutes longer.
const POSTGRES_MEASURED_SECONDS: f64 = 2.0;

/// The same for a short run.
const QUICK_MEASURED_SECONDS: f64 = 1.0;

/// Rounds, if it is not said; and in a short run.
const ROUNDS: usize = 3;
const QUICK_ROUNDS: usize = 1;

/// How long each measurement warms up.
const WARM_UP: Duration = Duration::from_secs(1);

/// The seed, if it is not said, of a server that begins with an empty store.
const SEED: u64 = 1;

/// Measures what it costs to publish to Sekali: events over HTTP beside a plain
/// native service (axum and rusqlite), the component's statement run natively,
/// an empty component, and the disk; and the same on PostgreSQL, if it is installed,
/// beside axum and tokio-postgres.
///
/// Every reply, and what the store holds in the end, is held against what was
/// sent; a mismatch is exit code 1.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --", bin_name = "cargo bench --")]
pub struct Arguments {
    /// A short run: 1 round, 1 s a measurement
    #[arg(long)]
    pub quick: bool,

    /// How long each measurement takes, after 1 s of warm-up [default: 4, on PostgreSQL 2]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Option<f64>,

    /// How often all is measured [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Only these measurements: single/32, single, batch-*/8; repeatable
    #[arg(long, value_name = "PATTERN")]
    only: Vec<Pattern>,

    /// Have every fsync of the servers take longer by this, as 2ms; Linux only
    #[arg(long, value_name = "TIME", conflicts_with = "url", value_parser = slow_fsync::parse)]
    pub slow_fsync: Option<Duration>,

    /// Measure a server that runs already, for instance `spin up`
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The database of that server, to count its rows
    #[arg(long, value_name = "FILE", requires = "url")]
    pub database: Option<PathBuf>,

    /// A flag for the embedded host; repeatable
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true, conflicts_with = "url")]
    pub host_flag: Vec<String>,

    /// Compare an empty store with one of this many events, and measure nothing else
    #[arg(long, value_name = "EVENTS", conflicts_with = "url",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub prefill: Option<u64>,

    /// What the events follow from [default: 1; with --url, the time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Also write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// How long each measurement takes of what keeps events there.
    pub fn span(&self, engine: Engine) -> Span {
        let default = match engine {
            _ if self.quick => QUICK_MEASURED_SECONDS,
            Engine::Sqlite => MEASURED_SECONDS,
            Engine::Postgres => POSTGRES_MEASURED_SECONDS,
        };
        let measured = Duration::from_secs_f64(self.seconds.unwrap_or(default));
        Span { warm_up: WARM_UP, measured }
    }

    /// How often all is measured.
    pub fn rounds(&self) -> usize {
        let default = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        self.rounds.map_or(default, usize::from)
    }

    /// Whether a measurement is wanted.
    pub fn wants(&self, case: Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|pattern| pattern.matches(case))
    }

    /// What the events follow from. A server of someone else's may hold those
    /// of the run before, which would all be duplicates.
    pub fn seed(&self, unix_ms: i64) -> u64 {
        let default = if self.url.is_some() { unix_ms.unsigned_abs() } else { SEED };
        self.seed.unwrap_or(default)
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("must be from 0.1 to 3600".to_owned()),
        Err(_) => Err("must be a number of seconds".to_owned()),
    }
}
