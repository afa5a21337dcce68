//! What is measured while a load runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::report::load::{Bucket, Interval, Latencies, Latency};

/// The longest latency that a histogram resolves, in microseconds: one hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits to which it resolves them.
const LATENCY_DIGITS: u8 = 3;
/// The least length of an interval of the timeline.
const INTERVAL: Duration = Duration::from_secs(1);
/// Buckets of a histogram for each doubling of the latency.
const BUCKETS_PER_DOUBLING: i32 = 4;
/// The upper bound of the first bucket, in milliseconds.
const FIRST_BUCKET_MS: f64 = 0.05;

/// Of latencies in microseconds.
type LatencyHistogram = Histogram<u64>;

/// What is measured of one request when it is settled.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was to be sent, in an open loop.
    pub intended: Option<Instant>,
    /// When it was sent.
    pub sent: Instant,
    /// When it was settled.
    pub done: Instant,
    /// Whether it has an answer.
    pub answered: bool,
    /// Its deliveries, by outcome.
    pub accepted: u64,
    /// Stored before.
    pub duplicates: u64,
    /// Invalid.
    pub rejected: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes of its body.
    pub bytes_sent: u64,
    /// Bytes of its reply.
    pub bytes_received: u64,
}

/// The figures of a run.
#[derive(Debug)]
pub struct Metrics {
    began: Instant,
    /// From when on requests count.
    warm_up_end: Instant,
    /// Until when they count for the rate, unless to the last reply.
    end: Option<Instant>,
    last_done: Instant,
    raw: LatencyHistogram,
    corrected: LatencyHistogram,
    open_loop: bool,
    interval: Interval,
    interval_latencies: LatencyHistogram,
    timeline: Vec<Interval>,
    /// Requests without an answer, by kind.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Attempts that failed and could be made again, by kind.
    pub losses_by_kind: BTreeMap<String, u64>,
    /// Requests settled.
    pub requests: u64,
    /// Of these, those of the warm-up.
    pub warm_up_requests: u64,
    /// Requests without an answer.
    pub errors: u64,
    /// Deliveries answered in the time that is measured.
    pub events: u64,
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Bytes of replies.
    pub bytes_received: u64,
}

impl Metrics {
    /// Starts to measure a load that takes `duration`, if that is known.
    ///
    /// Latencies are those of all requests that were due, or sent, after the
    /// warm-up, however late the reply. The rate of an open loop is theirs as
    /// well. The rate of a closed loop is that of the replies between the end
    /// of the warm-up and the end of the load: those that come later are
    /// answered by a service with less and less to do.
    ///
    /// # Errors
    ///
    /// If there is no memory for it, or the warm-up has no end.
    pub fn new(
        began: Instant,
        warm_up: Duration,
        duration: Option<Duration>,
        open_loop: bool,
    ) -> anyhow::Result<Self> {
        let histogram = || LatencyHistogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS);
        Ok(Self {
            began,
            warm_up_end: began.checked_add(warm_up).context("the warm-up is too long")?,
            end: duration.filter(|_| !open_loop).and_then(|duration| began.checked_add(duration)),
            last_done: began,
            raw: histogram()?,
            corrected: histogram()?,
            open_loop,
            interval: Interval { warm_up: !warm_up.is_zero(), ..Interval::default() },
            interval_latencies: histogram()?,
            timeline: Vec::new(),
            errors_by_kind: BTreeMap::new(),
            losses_by_kind: BTreeMap::new(),
            requests: 0,
            warm_up_requests: 0,
            errors: 0,
            events: 0,
            bytes_sent: 0,
            bytes_received: 0,
        })
    }

    /// When measuring began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Records a request.
    pub fn record(&mut self, sample: Sample) {
        self.advance(sample.done);
        self.requests += 1;
        self.bytes_sent += sample.bytes_sent;
        self.bytes_received += sample.bytes_received;
        self.errors += u64::from(!sample.answered);
        let interval = &mut self.interval;
        interval.requests += u64::from(sample.answered);
        interval.errors += u64::from(!sample.answered);
        interval.accepted += sample.accepted;
        interval.duplicates += sample.duplicates;
        interval.rejected += sample.rejected;
        interval.retries += sample.retries;

        let due = sample.intended.unwrap_or(sample.sent);
        let raw = micros(sample.done, sample.sent);
        let corrected = micros(sample.done, due);
        if sample.answered {
            // Within its bounds by `micros`.
            self.interval_latencies.saturating_record(corrected);
        }
        let counted_at = if self.open_loop { due } else { sample.done };
        if counted_at >= self.warm_up_end && self.end.is_none_or(|end| sample.done <= end) {
            self.events += sample.accepted + sample.duplicates + sample.rejected;
        }
        if due < self.warm_up_end {
            self.warm_up_requests += 1;
            return;
        }
        if sample.answered {
            self.raw.saturating_record(raw);
            if self.open_loop {
                self.corrected.saturating_record(corrected);
            }
        }
    }

    /// Ends the interval of the timeline that is over.
    fn advance(&mut self, now: Instant) {
        self.last_done = self.last_done.max(now);
        let from = self.began + Duration::from_secs_f64(self.interval.from_second);
        if now.saturating_duration_since(from) >= INTERVAL {
            self.end_interval(now);
        }
    }

    fn end_interval(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs_f64();
        let mut interval = std::mem::take(&mut self.interval);
        // Intervals begin with whole seconds; one without a reply is part of the
        // one before.
        let whole = second.floor().max(interval.from_second);
        interval.seconds = whole - interval.from_second;
        let Latency { p50, p99, max, .. } = latency(&self.interval_latencies);
        (interval.p50_ms, interval.p99_ms, interval.max_ms) = (p50, p99, max);
        self.timeline.push(interval);
        self.interval_latencies.reset();
        self.interval.from_second = whole;
        let warm_up = self.warm_up_end.saturating_duration_since(self.began).as_secs_f64();
        self.interval.warm_up = whole < warm_up;
    }

    /// The rate in the last interval of the timeline that is over, in events a
    /// second, and the 99th percentile of its latencies, in milliseconds.
    #[must_use]
    pub fn latest(&self) -> (f64, f64) {
        let Some(last) = self.timeline.last() else { return (0.0, 0.0) };
        let events = last.accepted + last.duplicates + last.rejected;
        (events as f64 / last.seconds.max(f64::MIN_POSITIVE), last.p99_ms)
    }

    /// From the end of the warm-up to the last reply, or to the end of a closed
    /// loop that has one and was not over before.
    #[must_use]
    pub fn measured(&self) -> Duration {
        let end = self.end.map_or(self.last_done, |end| end.min(self.last_done));
        end.saturating_duration_since(self.warm_up_end)
    }

    /// The latencies.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        let corrected = self.open_loop.then(|| latency(&self.corrected));
        Latencies { raw: latency(&self.raw), corrected }
    }

    /// The intervals of the run.
    #[must_use]
    pub fn timeline(&mut self) -> Vec<Interval> {
        let second = self.last_done.saturating_duration_since(self.began).as_secs_f64();
        let from = self.interval.from_second;
        if self.interval.requests + self.interval.errors > 0 {
            self.end_interval(self.last_done);
            if let Some(last) = self.timeline.last_mut() {
                last.seconds = second - from;
            }
        }
        std::mem::take(&mut self.timeline)
    }

    /// The latencies as a histogram.
    #[must_use]
    pub fn histogram(&self) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = Vec::new();
        for value in self.raw.iter_recorded() {
            bucket(&mut buckets, value.value_iterated_to()).raw += value.count_at_value();
        }
        for value in self.corrected.iter_recorded() {
            bucket(&mut buckets, value.value_iterated_to()).corrected += value.count_at_value();
        }
        let measured = |bucket: &Bucket| bucket.raw + bucket.corrected > 0;
        let first = buckets.iter().position(measured).unwrap_or(0);
        buckets.split_off(first)
    }
}

/// Things done in a second, and 0 where no time was measured.
#[must_use]
pub fn per_second(done: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
}

/// The bucket that holds a latency.
fn bucket(buckets: &mut Vec<Bucket>, micros: u64) -> &mut Bucket {
    let doublings = (micros as f64 / 1_000.0 / FIRST_BUCKET_MS).log2().max(0.0);
    let index = (doublings * f64::from(BUCKETS_PER_DOUBLING)).ceil() as usize;
    for index in buckets.len()..=index {
        let up_to_ms = FIRST_BUCKET_MS * 2_f64.powf(index as f64 / f64::from(BUCKETS_PER_DOUBLING));
        buckets.push(Bucket { up_to_ms, ..Bucket::default() });
    }
    &mut buckets[index]
}

fn micros(done: Instant, from: Instant) -> u64 {
    let micros = done.saturating_duration_since(from).as_micros();
    u64::try_from(micros).unwrap_or(u64::MAX).clamp(1, LATENCY_US_MAX)
}

fn latency(histogram: &LatencyHistogram) -> Latency {
    let ms = |micros: u64| micros as f64 / 1_000.0;
    // A quantile is the top of its bucket, the maximum is not rounded up.
    let max = ms(histogram.max());
    let at = |quantile| ms(histogram.value_at_quantile(quantile)).min(max);
    Latency {
        count: histogram.len(),
        mean: histogram.mean() / 1_000.0,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(began: Instant, intended: u64, sent: u64, done: u64) -> Sample {
        let at = |ms: u64| began + Duration::from_millis(ms);
        Sample {
            intended: Some(at(intended)),
            sent: at(sent),
            done: at(done),
            answered: true,
            accepted: 1,
            duplicates: 0,
            rejected: 0,
            retries: 0,
            bytes_sent: 10,
            bytes_received: 20,
        }
    }

    #[test]
    fn corrected_latency_counts_from_the_intended_time() {
        let began = Instant::now();
        let mut metrics = Metrics::new(began, Duration::ZERO, None, true).unwrap();
        metrics.record(sample(began, 0, 900, 1_000));
        let Latencies { raw, corrected } = metrics.latencies();
        assert_eq!((raw.max.round(), corrected.unwrap().max.round()), (100.0, 1_000.0));
        let buckets = metrics.histogram();
        let last = buckets.last().unwrap();
        assert_eq!((buckets[0].raw, last.corrected, last.raw), (1, 1, 0));
        assert!((1_000.0..1_200.0).contains(&last.up_to_ms) && buckets[0].up_to_ms >= 100.0);
    }

    #[test]
    fn warm_up_counts_for_the_timeline_only() {
        let began = Instant::now();
        let mut metrics = Metrics::new(began, Duration::from_secs(2), None, false).unwrap();
        for second in 0..4 {
            metrics.record(sample(began, second * 1_000, second * 1_000, second * 1_000 + 5));
        }
        assert_eq!((metrics.requests, metrics.warm_up_requests, metrics.events), (4, 2, 2));
        assert_eq!(metrics.latencies().raw.count, 2);
        assert_eq!(metrics.measured(), Duration::from_millis(1_005));
        let timeline = metrics.timeline();
        let warm: Vec<_> = timeline.iter().map(|interval| interval.warm_up).collect();
        assert_eq!(warm, [true, true, false, false]);
        assert!(timeline.iter().all(|interval| interval.requests == 1), "{timeline:?}");
    }

    #[test]
    fn the_rate_of_a_closed_loop_is_that_of_its_time() {
        let began = Instant::now();
        let (warm_up, duration) = (Duration::from_secs(1), Some(Duration::from_secs(3)));
        let mut metrics = Metrics::new(began, warm_up, duration, false).unwrap();
        for (sent, done) in [(0, 900), (900, 1_100), (1_100, 2_900), (2_900, 9_000)] {
            metrics.record(sample(began, sent, sent, done));
        }
        // Two were answered in these two seconds, and two were sent in them.
        assert_eq!((metrics.events, metrics.measured()), (2, Duration::from_secs(2)));
        let Latencies { raw, .. } = metrics.latencies();
        // To three digits.
        assert_eq!((raw.count, (raw.max / 10.0).round()), (2, 610.0));

        let mut over_before = Metrics::new(began, warm_up, duration, false).unwrap();
        over_before.record(sample(began, 0, 0, 1_500));
        assert_eq!((over_before.events, over_before.measured()), (1, Duration::from_millis(500)));
    }

    #[test]
    fn seconds_without_a_reply_are_part_of_the_timeline() {
        let began = Instant::now();
        let mut metrics = Metrics::new(began, Duration::ZERO, None, false).unwrap();
        metrics.record(sample(began, 0, 0, 10));
        metrics.record(sample(began, 0, 0, 7_500));
        let timeline = metrics.timeline();
        assert_eq!((timeline[0].from_second, timeline[0].seconds), (0.0, 7.0));
        assert_eq!((timeline[1].from_second, timeline[1].seconds), (7.0, 0.5));
    }
}
