//! Numbers in no order: SplitMix64's output function, which is one to one, and
//! its inverse.

/// The number that this one becomes.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The number that becomes this one.
pub(super) fn gather(scattered: u64) -> u64 {
    let mut number = scattered;
    // Each multiplier is the other's inverse modulo 2^64.
    number = (number ^ (number >> 31) ^ (number >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    number = (number ^ (number >> 27) ^ (number >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    number ^ (number >> 30) ^ (number >> 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_again() {
        for number in (0..1_000).chain([u64::from(u32::MAX), u64::MAX / 3, u64::MAX]) {
            assert_eq!(gather(scatter(number)), number);
            assert_eq!(scatter(gather(number)), number);
        }
    }

    #[test]
    fn numbers_in_order_are_in_none_afterwards() {
        let scattered: Vec<_> = (1..1_000).map(scatter).collect();
        let rising = scattered.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&rising), "{rising} of 998");
    }
}
