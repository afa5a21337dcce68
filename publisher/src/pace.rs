//! When requests are to be sent, and how well that was held.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::report::load::Pace;
use crate::workload::Burst;

/// A request sent later than this after its time is late.
const LATE: Duration = Duration::from_millis(10);
/// The rate is held if at most this share of requests was late.
const LATE_SHARE_MAX: f64 = 0.01;

/// Moments at which requests are to be sent, from the beginning of the run.
#[derive(Debug)]
pub struct Moments {
    /// The time between two requests, on average.
    gap_seconds: f64,
    /// Random gaps, for arrivals that know nothing of each other.
    random: Option<ChaCha8Rng>,
    burst: Option<Burst>,
    /// How many there were.
    count: u64,
    /// The random gaps so far.
    elapsed_seconds: f64,
}

impl Moments {
    /// So many requests a second: evenly, or at random (a Poisson process) by a
    /// seed.
    #[must_use]
    pub fn new(requests_per_second: f64, poisson_seed: Option<u64>, burst: Option<Burst>) -> Self {
        Self {
            gap_seconds: 1.0 / requests_per_second,
            random: poisson_seed.map(ChaCha8Rng::seed_from_u64),
            burst,
            count: 0,
            elapsed_seconds: 0.0,
        }
    }
}

impl Iterator for Moments {
    type Item = Duration;

    /// The next; there is always one.
    fn next(&mut self) -> Option<Duration> {
        let even = match &mut self.random {
            // From the count, so that no error adds up.
            None => self.count as f64 * self.gap_seconds,
            Some(random) => {
                // In (0, 1], so that its logarithm is a number.
                let unit = ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                self.elapsed_seconds -= unit.ln() * self.gap_seconds;
                self.elapsed_seconds
            }
        };
        self.count += 1;
        let seconds = self.burst.map_or(even, |burst| burst.bend(even));
        // What is too far away to be told never comes.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

impl Burst {
    /// The moment at which something is sent in bursts that would be sent at
    /// this moment evenly.
    fn bend(self, seconds: f64) -> f64 {
        let period = self.period_ms as f64 / 1_000.0;
        let begin = (seconds / period).floor() * period;
        begin + (seconds - begin) * self.share
    }

    /// How long it is from this moment to one at which something may be sent.
    #[must_use]
    pub fn silence_left(self, since_began: Duration) -> Duration {
        let period = Duration::from_millis(self.period_ms);
        let nanos = since_began.as_nanos() % period.as_nanos().max(1);
        let within = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if within < period.mul_f64(self.share) { Duration::ZERO } else { period - within }
    }
}

impl Pace {
    /// Notes how late a request was sent, and whether that was because all that
    /// may be under way were.
    pub(crate) fn sent(&mut self, late: Duration, full: bool) {
        self.late_max_ms = self.late_max_ms.max(late.as_secs_f64() * 1_000.0);
        if late > LATE {
            *(if full { &mut self.late_requests } else { &mut self.late_by_tool }) += 1;
        }
    }

    /// The figures at the end of a run of so many requests.
    pub(crate) fn ended(self, rate: f64, sent_rate: f64, requests: u64) -> Self {
        let late = self.late_requests + self.late_by_tool;
        let held = self.dropped_requests == 0 && late as f64 <= LATE_SHARE_MAX * requests as f64;
        Self { rate, sent_rate, held, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(moments: Moments, count: usize) -> Vec<f64> {
        moments.take(count).map(|moment| moment.as_secs_f64()).collect()
    }

    #[test]
    fn even_moments_do_not_drift() {
        let moments = seconds(Moments::new(3.0, None, None), 30_001);
        assert_eq!((moments[0], moments[3], moments[30_000]), (0.0, 1.0, 10_000.0));
    }

    #[test]
    fn random_moments_have_the_rate_and_the_spread_of_a_poisson_process() {
        let moments = seconds(Moments::new(100.0, Some(1), None), 100_000);
        assert!((990.0..1_010.0).contains(&moments[99_999]), "{}", moments[99_999]);
        let gaps: Vec<_> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Of an exponential distribution 1/e are over the mean.
        let long = gaps.iter().filter(|gap| **gap > 0.01).count() as f64 / gaps.len() as f64;
        assert!((0.36..0.376).contains(&long), "{long}");
        assert_eq!(moments[..9], seconds(Moments::new(100.0, Some(1), None), 9));
    }

    const BURST: Burst = Burst { period_ms: 1_000, share: 0.25 };

    #[test]
    fn bursts_hold_what_was_due_in_their_period() {
        let moments = seconds(Moments::new(4.0, None, Some(BURST)), 6);
        assert_eq!(moments, [0.0, 0.0625, 0.125, 0.1875, 1.0, 1.0625]);
    }

    #[test]
    fn between_bursts_nothing_is_sent() {
        let left = |ms| BURST.silence_left(Duration::from_millis(ms)).as_millis();
        assert_eq!([left(0), left(249), left(250), left(999), left(3_500)], [0, 0, 750, 1, 500]);
    }
}
