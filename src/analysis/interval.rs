//! How well a rate is known, for people: the score interval of E. B. Wilson, Probable inference, the law of succession,
//! and statistical inference, JASA 1927. It stays inside 0 to 1, and is honest where nothing has failed yet.
//!
//! Nothing is decided by it: it may only be looked at once, and the tests of this module may always be.

use super::Counts;

/// Normal quantile of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Where the rate of failures lies, 0 to 1, with a confidence of 95 %. Everything if nothing was seen.
pub fn rate_interval(counts: Counts) -> (f64, f64) {
    wilson(counts.failed, counts.total, Z)
}

/// The interval for `hits` of `all` at `z` standard deviations.
pub fn wilson(hits: u64, all: u64, z: f64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (hits, all) = (hits.min(all), all as f64);
    let rate = hits as f64 / all;
    let spread = z * (rate * (1.0 - rate) / all + z * z / (4.0 * all * all)).sqrt();
    let scale = 1.0 + z * z / all;
    let middle = rate + z * z / (2.0 * all);
    // At the ends the formula is exact, the arithmetic is not.
    let low = if hits == 0 { 0.0 } else { ((middle - spread) / scale).max(0.0) };
    let high = if hits as f64 == all { 1.0 } else { ((middle + spread) / scale).min(1.0) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_agrees_with_published_values() {
        // Newcombe, Two-sided confidence intervals for the single proportion, Statist. Med. 1998, table I.
        for (hits, all, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let (below, above) = rate_interval(Counts { total: all, failed: hits });
            assert!((below - low).abs() < 5e-5 && (above - high).abs() < 5e-5, "{hits} of {all}: {below} to {above}");
        }
    }

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert_eq!(rate_interval(Counts::default()), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_rate_lies_inside_and_more_requests_say_more(failed in 0_u64..500, more in 0_u64..100_000) {
            let total = (failed + more).max(1);
            let (low, high) = rate_interval(Counts { total, failed });
            let rate = failed as f64 / total as f64;
            prop_assert!(0.0 <= low && low <= rate && rate <= high && high <= 1.0, "{low} {rate} {high}");
            let (lower, higher) = rate_interval(Counts { total: total * 4, failed: failed * 4 });
            prop_assert!(higher - lower < high - low);
        }
    }
}
