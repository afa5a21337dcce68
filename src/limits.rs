//! How much each key may publish: a bucket of tokens for each limit, in each instance.
//!
//! A request is let in while there is anything in the bucket, and what it brought is
//! taken out afterwards, so a bucket may be in debt. How much a body holds need not be
//! known before it is read then, and over time no more than the rate comes through.
//!
//! The platform runs several instances side by side, which know nothing of each other:
//! together they let through the rate of each, times as many as there are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::{Key, Rates};
use crate::http::problem::{Code, Problem};

/// How much of its rate a key that was idle has at once, in seconds.
pub(crate) const BURST_SECONDS: f64 = 2.0;

/// Longest time that a client is told to wait, in seconds.
const RETRY_AFTER_SECONDS_MAX: u32 = 3_600;

/// The headers by which a client is told of the limit that it met.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What the keys have left in one instance.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// By the names of the keys.
    buckets: RefCell<BTreeMap<String, Buckets>>,
}

/// The buckets of one key.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
    /// When they were last filled.
    at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens a second.
    rate: f64,
    /// Below 0 it is in debt.
    left: f64,
}

impl Bucket {
    fn full(rate: u64) -> Self {
        let rate = rate as f64;
        Bucket { rate, left: rate * BURST_SECONDS }
    }

    fn fill(&mut self, elapsed: Duration) {
        let most = self.rate * BURST_SECONDS;
        self.left = (self.left + self.rate * elapsed.as_secs_f64()).min(most);
    }

    /// How long it takes until it lets somebody in.
    fn wait(&self) -> Option<Duration> {
        let debt = -self.left;
        (debt >= 0.0)
            .then(|| Duration::try_from_secs_f64(debt / self.rate).unwrap_or(Duration::MAX))
    }
}

impl Buckets {
    fn full(Rates { events, bytes }: Rates, at: Duration) -> Self {
        Buckets { events: events.map(Bucket::full), bytes: bytes.map(Bucket::full), at }
    }

    fn each(&mut self) -> impl Iterator<Item = (&'static str, &mut Bucket)> {
        let events = self.events.iter_mut().map(|bucket| ("events", bucket));
        events.chain(self.bytes.iter_mut().map(|bucket| ("bytes", bucket)))
    }
}

impl Limits {
    fn with<T>(&self, key: &Key, now: Duration, act: impl FnOnce(&mut Buckets) -> T) -> T {
        let mut buckets = self.buckets.borrow_mut();
        let of_key =
            buckets.entry(key.name.clone()).or_insert_with(|| Buckets::full(key.rates, now));
        let elapsed = now.saturating_sub(of_key.at);
        of_key.at = now;
        of_key.each().for_each(|(_, bucket)| bucket.fill(elapsed));
        act(of_key)
    }

    /// Lets a request of `key` in.
    ///
    /// # Errors
    ///
    /// 429 while it has published more than it may.
    pub(crate) fn admit(&self, key: &Key, now: Duration) -> Result<(), Problem> {
        if key.rates == Rates::default() {
            return Ok(());
        }
        self.with(key, now, |buckets| {
            let met = buckets
                .each()
                .filter_map(|(unit, bucket)| Some((bucket.wait()?, unit, bucket.rate)));
            match met.max_by_key(|(wait, ..)| *wait) {
                None => Ok(()),
                Some((wait, unit, rate)) => Err(refusal(&key.name, wait, unit, rate)),
            }
        })
    }

    /// How long a stream of `key` is to bring nothing.
    pub(crate) fn pause(&self, key: &Key, now: Duration) -> Option<Duration> {
        if key.rates == Rates::default() {
            return None;
        }
        self.with(key, now, |buckets| buckets.each().filter_map(|(_, one)| one.wait()).max())
    }

    /// Takes out what `key` has brought.
    pub(crate) fn spend(&self, key: &Key, now: Duration, events: usize, bytes: usize) {
        if key.rates == Rates::default() {
            return;
        }
        self.with(key, now, |buckets| {
            for (bucket, brought) in [(&mut buckets.events, events), (&mut buckets.bytes, bytes)] {
                if let Some(bucket) = bucket {
                    bucket.left -= brought as f64;
                }
            }
        });
    }
}

fn refusal(name: &str, wait: Duration, unit: &str, rate: f64) -> Problem {
    // Rounded up, and long enough for there to be something in the bucket.
    let seconds = u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
    let seconds = seconds.min(RETRY_AFTER_SECONDS_MAX);
    Problem::new(
        Code::RateLimited,
        format!("The key {name} may publish {rate} {unit} a second, and has published more."),
    )
    .retry_after(seconds)
    .with_header(LIMIT, HeaderValue::from(rate as u64))
    .with_header(REMAINING, HeaderValue::from(0))
    .with_header(RESET, HeaderValue::from(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Keys;

    fn key(rates: serde_json::Value) -> Keys {
        let mut entry = json!({"name": "a", "sha256": "0a".repeat(32), "scopes": ["publish"]});
        for (field, rate) in rates.as_object().unwrap() {
            entry[field] = rate.clone();
        }
        Keys::parse(&entry.to_string()).unwrap()
    }

    #[test]
    fn over_time_no_more_than_the_rate_comes_through() {
        let keys = key(json!({"events_per_second": 10, "bytes_per_second": 1_000_000}));
        let key = keys.named("a").unwrap();
        let limits = Limits::default();
        let mut events = 0;
        for tenth in 0..1_000 {
            let now = Duration::from_millis(tenth * 100);
            if limits.admit(key, now).is_ok() {
                limits.spend(key, now, 7, 7);
                events += 7;
            }
        }
        // 100 seconds, what there was at once, and a debt.
        assert!((1_000..=1_000 + 20 + 7).contains(&events), "{events}");
    }

    #[test]
    fn a_debt_is_told_and_paid() {
        let keys = key(json!({"bytes_per_second": 100}));
        let key = keys.named("a").unwrap();
        let limits = Limits::default();
        limits.admit(key, Duration::ZERO).unwrap();
        limits.spend(key, Duration::ZERO, 1_000_000, 1_000);
        let problem = limits.admit(key, Duration::from_secs(1)).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (429, Code::RateLimited));
        let reply = problem.into_reply();
        let told = |name: &str| reply.headers.get(name).unwrap().to_str().unwrap().to_owned();
        // 1,000 less 200 at once and 100 since.
        assert_eq!(told("retry-after"), "8");
        assert_eq!(
            ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(told),
            ["100", "0", "8"]
        );
        assert_eq!(limits.pause(key, Duration::from_secs(1)), Some(Duration::from_secs(7)));
        limits.admit(key, Duration::from_secs(9)).unwrap();
        assert_eq!(limits.pause(key, Duration::from_secs(9)), None);
        // A clock that stands still, or goes back, gives nothing.
        limits.spend(key, Duration::from_secs(9), 0, 1_000);
        limits.admit(key, Duration::from_secs(5)).unwrap_err();
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let keys = key(json!({}));
        let key = keys.named("a").unwrap();
        let limits = Limits::default();
        limits.spend(key, Duration::ZERO, usize::MAX, usize::MAX);
        limits.admit(key, Duration::ZERO).unwrap();
        assert_eq!(limits.pause(key, Duration::ZERO), None);
    }
}
