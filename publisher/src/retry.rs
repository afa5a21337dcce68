//! How long to wait before the next attempt: exponential backoff with jitter,
//! `Retry-After` where the service sends it, and one limit over all of it.

use std::time::{Duration, SystemTime};

/// The longest backoff before the first retry, in milliseconds.
pub(crate) const BACKOFF_FIRST_MS: u64 = 100;
/// The longest backoff before any retry unless told otherwise, in milliseconds.
pub(crate) const BACKOFF_MAX_MS: u64 = 5_000;

/// The backoff before attempt `retry + 1`, where `retry` counts from 0, `max` is
/// the longest, and `unit` is a random number in `0.0..1.0`, for the jitter.
///
/// `retry_after` is what the service asked for; it is a lower bound, and the
/// jitter on top of it keeps clients that were refused together from coming back
/// together.
#[must_use]
pub(crate) fn backoff(
    retry: u32,
    retry_after: Option<Duration>,
    max: Duration,
    unit: f64,
) -> Duration {
    let doubled = BACKOFF_FIRST_MS.saturating_mul(1_u64.checked_shl(retry).unwrap_or(u64::MAX));
    let backoff = Duration::from_millis(doubled).min(max);
    match retry_after {
        Some(least) => least.saturating_add(Duration::from_millis(BACKOFF_FIRST_MS).mul_f64(unit)),
        None => backoff.mul_f64(0.5 + unit / 2.0),
    }
}

/// Reads a `Retry-After` header: whole seconds or an HTTP date. A date in the
/// past means now; anything else is ignored.
#[must_use]
pub(crate) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a wait for ever.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(BACKOFF_MAX_MS);

    #[test]
    fn retry_after_in_its_two_forms() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("soon", None),
            ("", None),
            ("-3", None),
            ("1.5", None),
        ];
        for (value, seconds) in cases {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse_retry_after(value, now), expected, "{value:?}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_limit_and_is_jittered() {
        assert_eq!(backoff(0, None, MAX, 0.0), Duration::from_millis(50));
        assert_eq!(backoff(2, None, MAX, 0.0), Duration::from_millis(200));
        assert_eq!(backoff(2, None, MAX, 0.5), Duration::from_millis(300));
        for retry in [6, 31, 64, u32::MAX] {
            assert_eq!(backoff(retry, None, MAX, 0.0), Duration::from_millis(BACKOFF_MAX_MS / 2));
        }
    }

    #[test]
    fn the_service_is_never_asked_again_sooner_than_it_said() {
        let least = Duration::from_secs(3);
        assert_eq!(backoff(0, Some(least), MAX, 0.0), least);
        assert!(backoff(9, Some(least), MAX, 0.9) > least);
        assert_eq!(backoff(0, Some(Duration::MAX), MAX, 0.9), Duration::MAX);
    }
}
