//! Which endpoints of a version do worse than the others. Pure.
//!
//! An endpoint is compared with all others of its version over the same time, so what hurts all of them (a database, a
//! burst) is nobody's fault. It must do worse by a margin that matters to the operator, and by more than chance: three
//! standard errors for failures. Medians are compared for speed, which a few slow requests do not move.

use std::time::Duration;

use super::tally::Sum;
use crate::config::model::{SlowRule, SuccessRule};

/// Standard errors between two rates that are no chance.
const CERTAIN: f64 = 3.0;

/// What is wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Odd {
    /// Parts of its requests, and of the others', that failed.
    Failing { own: f64, others: f64 },
    /// How long the middle request waited for its answer.
    Slow { own: Duration, others: Duration },
}

impl std::fmt::Display for Odd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Odd::Failing { own, others } => {
                write!(out, "{:.1}% of its requests failed, {:.1}% of its peers'", own * 100.0, others * 100.0)
            }
            Odd::Slow { own, others } => write!(
                out,
                "half of its answers took longer than {:.1} ms, {:.1} ms at its peers",
                own.as_secs_f64() * 1e3,
                others.as_secs_f64() * 1e3
            ),
        }
    }
}

/// Those that do worse than the others, the worst first.
pub fn odd_ones(sums: &[Sum], success: Option<&SuccessRule>, slow: Option<&SlowRule>) -> Vec<(usize, Odd)> {
    let mut odd: Vec<(usize, Odd, f64)> = Vec::new();
    for at in 0..sums.len() {
        let failing = success.and_then(|rule| failing(sums, at, rule));
        let found = failing.or_else(|| slow.and_then(|rule| self::slow(sums, at, rule)));
        if let Some((what, badness)) = found {
            odd.push((at, what, badness));
        }
    }
    odd.sort_by(|(.., a), (.., b)| b.total_cmp(a));
    odd.into_iter().map(|(at, what, _)| (at, what)).collect()
}

fn failing(sums: &[Sum], at: usize, rule: &SuccessRule) -> Option<(Odd, f64)> {
    let enough = |sum: &Sum| sum.requests >= rule.min_requests;
    let own = sums.get(at).filter(|sum| enough(sum))?;
    let others = sums.iter().enumerate().filter(|(other, sum)| *other != at && enough(sum));
    let (requests, failures) = others.fold((0, 0), |all, (_, sum)| (all.0 + sum.requests, all.1 + sum.failures));
    if requests == 0 {
        return None;
    }
    let rate = |failures: u64, requests: u64| failures as f64 / requests as f64;
    let (mine, theirs) = (rate(own.failures, own.requests), rate(failures, requests));
    let both = rate(own.failures + failures, own.requests + requests);
    let error = (both * (1.0 - both) * (1.0 / own.requests as f64 + 1.0 / requests as f64)).sqrt();
    let apart = mine - theirs;
    let is_odd = apart >= f64::from(rule.below_peers_bp) / 10_000.0 && apart >= CERTAIN * error;
    is_odd.then_some((Odd::Failing { own: mine, others: theirs }, 1.0 + apart))
}

fn slow(sums: &[Sum], at: usize, rule: &SlowRule) -> Option<(Odd, f64)> {
    let median = |sum: &Sum| sum.median().filter(|_| sum.timed() >= rule.min_requests);
    let own = median(sums.get(at)?)?;
    let mut others: Vec<Duration> =
        sums.iter().enumerate().filter(|(other, _)| *other != at).filter_map(|(_, sum)| median(sum)).collect();
    others.sort_unstable();
    // Of two in the middle the lower one: while half of all are slow, that is not what is usual here.
    let others = *others.get(others.len().checked_sub(1)? / 2)?;
    let ratio = own.as_secs_f64() / others.as_secs_f64().max(1e-9);
    let is_odd = ratio >= f64::from(rule.max_ratio_hundredths) / 100.0 && own.saturating_sub(others) >= rule.at_least;
    is_odd.then_some((Odd::Slow { own, others }, 1.0 - 1.0 / ratio))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoints::tally::Tally;
    use crate::routing::Thread;

    const SUCCESS: SuccessRule = SuccessRule { below_peers_bp: 1_000, min_requests: 50 };
    const SLOW: SlowRule =
        SlowRule { max_ratio_hundredths: 300, at_least: Duration::from_millis(10), min_requests: 50 };

    /// Of `requests`, `failures` fail; the others take `millis`.
    fn sum(requests: u64, failures: u64, millis: u64) -> Sum {
        let tally = Tally::new(1);
        (0..failures).for_each(|_| tally.failed(Thread(0)));
        (failures..requests).for_each(|_| tally.answered(Thread(0), Some(Duration::from_millis(millis))));
        tally.sum()
    }

    fn odd(sums: &[Sum]) -> Vec<(usize, bool)> {
        let odd = odd_ones(sums, Some(&SUCCESS), Some(&SLOW));
        odd.into_iter().map(|(at, what)| (at, matches!(what, Odd::Failing { .. }))).collect()
    }

    #[test]
    fn who_fails_more_than_the_others_is_odd() {
        for (sums, expected) in [
            // One of two, of three.
            (vec![sum(100, 50, 5), sum(100, 0, 5)], vec![(0, true)]),
            (vec![sum(100, 0, 5), sum(100, 30, 5), sum(100, 0, 5)], vec![(1, true)]),
            // All fail alike: nobody's fault.
            (vec![sum(100, 50, 5), sum(100, 50, 5)], vec![]),
            // Within the margin, or too few to say.
            (vec![sum(1_000, 90, 5), sum(1_000, 0, 5)], vec![]),
            (vec![sum(49, 49, 5), sum(100, 0, 5)], vec![]),
            (vec![sum(100, 100, 5), sum(49, 0, 5)], vec![]),
            // Beyond the margin, but such a difference comes by chance.
            (vec![sum(50, 12, 5), sum(50, 6, 5)], vec![]),
            // Nobody to compare with.
            (vec![sum(100, 100, 5)], vec![]),
            (vec![], vec![]),
            // Two of four, the worse one first.
            (vec![sum(100, 40, 5), sum(1_000, 0, 5), sum(100, 90, 5), sum(1_000, 0, 5)], vec![(2, true), (0, true)]),
        ] {
            assert_eq!(odd(&sums), expected, "{sums:?}");
        }
    }

    #[test]
    fn who_is_slower_than_the_others_is_odd() {
        for (sums, expected) in [
            (vec![sum(100, 0, 100), sum(100, 0, 10)], vec![(0, false)]),
            (vec![sum(100, 0, 10), sum(100, 0, 10), sum(100, 0, 90)], vec![(2, false)]),
            // All slow, too little slower, too few, or fast all the same.
            (vec![sum(100, 0, 100), sum(100, 0, 100)], vec![]),
            (vec![sum(100, 0, 20), sum(100, 0, 10)], vec![]),
            (vec![sum(49, 0, 100), sum(100, 0, 10)], vec![]),
            (vec![sum(100, 0, 8), sum(100, 0, 1)], vec![]),
            // Failing comes first.
            (vec![sum(200, 100, 100), sum(100, 0, 10), sum(100, 0, 100)], vec![(0, true), (2, false)]),
        ] {
            assert_eq!(odd(&sums), expected, "{sums:?}");
        }
    }

    proptest! {
        /// Who does exactly as all others is never odd, however many there are.
        #[test]
        fn equals_are_never_odd(count in 1_usize..20, requests in 0_u64..2_000, part in 0_u64..=100, millis in 1_u64..500) {
            let one = sum(requests, requests * part / 100, millis);
            prop_assert_eq!(odd(&vec![one; count]), vec![]);
        }

        /// Never all at once: somebody is the better one.
        #[test]
        fn the_best_is_never_odd(all in proptest::collection::vec((0_u64..500, 0_u64..=100), 1..8)) {
            let sums: Vec<Sum> = all.iter().map(|(requests, part)| sum(*requests, requests * part / 100, 5)).collect();
            prop_assert!(odd(&sums).len() < sums.len().max(1));
        }
    }
}
