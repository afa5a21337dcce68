//! A share of all requests, those of which something is noted that would be too much of
//! all.

use sha2::{Digest as _, Sha256};

/// A share: above 0, and at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(f64);

impl Share {
    /// Reads a number.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let share = value.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
        share.map(Share)
    }

    /// As a number.
    pub(crate) fn rate(self) -> f64 {
        self.0
    }

    /// Whether what has this id is part of the share. Every instance says the same.
    pub(crate) fn has(self, id: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let place = digest.iter().take(8).fold(0, |place, byte| place << 8 | u64::from(*byte));
        (place as f64) < self.0 * 2.0_f64.powi(64) || self.0 == 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_above_nothing_and_at_most_all() {
        for (value, expected) in
            [("1", Some(1.0)), ("0.01", Some(0.01)), ("1e-6", Some(1e-6)), (".5", Some(0.5))]
        {
            assert_eq!(Share::parse(value).map(Share::rate), expected, "{value}");
        }
        for wrong in ["", "0", "-0", "-0.1", "1.1", "inf", "NaN", "1%", "on", "true", "1e-400"] {
            assert_eq!(Share::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn it_has_as_many_as_it_says_and_the_same_each_time() {
        const IDS: usize = 20_000;
        let mut before: Vec<String> = Vec::new();
        for share in [0.000_001, 0.01, 0.25, 0.999, 1.0] {
            let share = Share::parse(&share.to_string()).unwrap();
            let ids = (0..IDS).map(|number| number.to_string());
            let had: Vec<String> = ids.filter(|id| share.has(id)).collect();
            let expected = share.rate() * IDS as f64;
            assert!((had.len() as f64 - expected).abs() < 150.0, "{share:?}: {}", had.len());
            // What is in a share is in every larger one.
            assert!(before.iter().all(|id| had.contains(id)));
            before = had;
        }
        assert_eq!(before.len(), IDS, "all");
    }
}
