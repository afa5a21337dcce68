//! When requests are to be sent, and how well that was held.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::report::load::Pacing;
use crate::workload::Burst;

/// A request sent later than this after its time is late.
const LATE: Duration = Duration::from_millis(10);
/// The rate is held if at most this share of requests was late.
const LATE_SHARE_MAX: f64 = 0.01;

/// When requests are to be sent, from the beginning of the run: the arrival times
/// of an open loop.
#[derive(Debug)]
pub struct ArrivalTimes {
    /// The mean time between two arrivals.
    interval_seconds: f64,
    /// For random intervals: arrivals that know nothing of each other.
    random: Option<ChaCha8Rng>,
    burst: Option<Burst>,
    /// Arrivals so far.
    count: u64,
    /// The sum of the random intervals so far.
    elapsed_seconds: f64,
}

impl ArrivalTimes {
    /// So many requests a second: evenly, or at random (a Poisson process) by a
    /// seed.
    #[must_use]
    pub fn new(requests_per_second: f64, poisson_seed: Option<u64>, burst: Option<Burst>) -> Self {
        Self {
            interval_seconds: 1.0 / requests_per_second,
            random: poisson_seed.map(ChaCha8Rng::seed_from_u64),
            burst,
            count: 0,
            elapsed_seconds: 0.0,
        }
    }
}

impl Iterator for ArrivalTimes {
    type Item = Duration;

    /// The next; there is always one.
    fn next(&mut self) -> Option<Duration> {
        let even = match &mut self.random {
            // From the count, so that no error adds up.
            None => self.count as f64 * self.interval_seconds,
            Some(random) => {
                // In (0, 1], so that its logarithm is a number.
                let unit = ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                self.elapsed_seconds -= unit.ln() * self.interval_seconds;
                self.elapsed_seconds
            }
        };
        self.count += 1;
        let seconds = self.burst.map_or(even, |burst| burst.compress(even));
        // What overflows a duration never comes.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

impl Burst {
    /// When something arrives in bursts that would arrive at this second evenly.
    fn compress(self, seconds: f64) -> f64 {
        let period = self.period_ms as f64 / 1_000.0;
        let begin = (seconds / period).floor() * period;
        begin + (seconds - begin) * self.share
    }

    /// How long it is until something may be sent: zero within a burst.
    #[must_use]
    pub fn time_to_burst(self, since_began: Duration) -> Duration {
        let period = Duration::from_millis(self.period_ms);
        let nanos = since_began.as_nanos() % period.as_nanos().max(1);
        let within = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if within < period.mul_f64(self.share) { Duration::ZERO } else { period - within }
    }
}

impl Pacing {
    /// Notes how late a request was sent, and whether that was because as many
    /// were under way as may be.
    pub(crate) fn sent(&mut self, late: Duration, saturated: bool) {
        self.late_max_ms = self.late_max_ms.max(late.as_secs_f64() * 1_000.0);
        if late > LATE {
            *(if saturated { &mut self.late_requests } else { &mut self.late_by_tool }) += 1;
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

    fn seconds(arrivals: ArrivalTimes, count: usize) -> Vec<f64> {
        arrivals.take(count).map(|arrival| arrival.as_secs_f64()).collect()
    }

    #[test]
    fn even_arrivals_do_not_drift() {
        let arrivals = seconds(ArrivalTimes::new(3.0, None, None), 30_001);
        assert_eq!((arrivals[0], arrivals[3], arrivals[30_000]), (0.0, 1.0, 10_000.0));
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let arrivals = seconds(ArrivalTimes::new(100.0, Some(1), None), 100_000);
        assert!((990.0..1_010.0).contains(&arrivals[99_999]), "{}", arrivals[99_999]);
        let intervals: Vec<_> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Of an exponential distribution 1/e are over the mean.
        let long = intervals.iter().filter(|interval| **interval > 0.01).count() as f64
            / intervals.len() as f64;
        assert!((0.36..0.376).contains(&long), "{long}");
        assert_eq!(arrivals[..9], seconds(ArrivalTimes::new(100.0, Some(1), None), 9));
    }

    const BURST: Burst = Burst { period_ms: 1_000, share: 0.25 };

    #[test]
    fn bursts_hold_what_was_due_in_their_period() {
        let arrivals = seconds(ArrivalTimes::new(4.0, None, Some(BURST)), 6);
        assert_eq!(arrivals, [0.0, 0.0625, 0.125, 0.1875, 1.0, 1.0625]);
    }

    #[test]
    fn between_bursts_nothing_is_sent() {
        let left = |ms| BURST.time_to_burst(Duration::from_millis(ms)).as_millis();
        assert_eq!([left(0), left(249), left(250), left(999), left(3_500)], [0, 0, 750, 1, 500]);
    }
}
