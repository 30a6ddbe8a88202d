//! The order in which endpoints take turns, by weight.
//!
//! One round gives each endpoint exactly its weight in turns, spread as evenly as they go: the `k`th turn of an
//! endpoint of weight `w` is due at `(k + p) / w` of the round (earliest deadline first), where `p` is ½ for an endpoint
//! alone and spreads endpoints of the same weight. With equal weights only, that is one after the other, and no table
//! is needed.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

/// Turns of one round at most: what is finer is rounded. The configuration's own weights stay below it; only names
/// with very many addresses get there.
const ROUND_MAX: u64 = 1 << 17;

#[derive(Debug)]
pub(in crate::endpoints) enum Order {
    /// So many, one after the other.
    Even(usize),
    Weighted(Box<[u32]>),
}

impl Order {
    pub(in crate::endpoints) fn new(weights: &[u32]) -> Order {
        let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
        if sum == weights.len() as u64 {
            return Order::Even(weights.len());
        }
        let fit = |weight: u32| match u64::from(weight / divisor) {
            weight if sum <= ROUND_MAX => weight,
            weight => (weight * ROUND_MAX / sum).max(1),
        };
        // Those of the same weight: how many, and how many before this one.
        let (mut alike, mut before) = (HashMap::<u64, u64>::new(), Vec::new());
        for weight in weights {
            let count = alike.entry(fit(*weight)).or_default();
            before.push(*count);
            *count += 1;
        }
        let first = |((index, weight), before): ((u32, &u32), &u64)| {
            let weight = fit(*weight);
            Reverse(Slot { index, turn: 0, weight, before: *before, alike: alike[&weight] })
        };
        let mut due: BinaryHeap<Reverse<Slot>> = (0..).zip(weights).zip(&before).map(first).collect();
        let mut round = Vec::new();
        while let Some(Reverse(slot)) = due.pop() {
            round.push(slot.index);
            if slot.turn + 1 < slot.weight {
                due.push(Reverse(Slot { turn: slot.turn + 1, ..slot }));
            }
        }
        Order::Weighted(round.into())
    }

    /// Turns of one round.
    pub(in crate::endpoints) fn len(&self) -> usize {
        match self {
            Order::Even(count) => *count,
            Order::Weighted(round) => round.len(),
        }
    }

    /// Whose turn it is; `turn` is below [`Order::len`].
    pub(in crate::endpoints) fn at(&self, turn: usize) -> usize {
        match self {
            Order::Even(_) => turn,
            Order::Weighted(round) => round[turn] as usize,
        }
    }
}

/// The `turn`th turn of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    index: u32,
    turn: u64,
    weight: u64,
    /// Its place among the endpoints of the same weight, and how many these are.
    before: u64,
    alike: u64,
}

impl Slot {
    /// When it is due, as a fraction of the round.
    fn due(&self) -> (u64, u64) {
        (2 * self.alike * self.turn + 2 * self.before + 1, 2 * self.alike * self.weight)
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((at, of), (other_at, other_of)) = (self.due(), other.due());
        let (ours, others) = (u128::from(at) * u128::from(other_of), u128::from(other_at) * u128::from(of));
        ours.cmp(&others).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &[u32]) -> Vec<usize> {
        let order = Order::new(weights);
        (0..order.len()).map(|turn| order.at(turn)).collect()
    }

    #[test]
    fn turns_are_spread_over_the_round() {
        assert_eq!(round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round(&[7, 7]), [0, 1], "reduced");
        assert_eq!(round(&[5, 1, 1]), [0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(round(&[3]), [0]);
        assert_eq!(round(&[]), [0; 0]);
    }

    #[test]
    fn a_round_that_would_be_too_long_is_rounded_and_leaves_nobody_out() {
        let weights: Vec<u32> = (0..1000).map(|at| if at == 0 { 1 } else { 997 }).collect();
        let round = round(&weights);
        assert!(round.len() <= ROUND_MAX as usize + weights.len(), "{}", round.len());
        assert!((0..1000).all(|index| round.contains(&index)));
    }

    proptest! {
        #[test]
        fn everybody_gets_its_weight_and_is_never_far_from_its_share(weights in prop::collection::vec(1..40_u32, 1..8)) {
            let round = round(&weights);
            let divisor = weights.iter().fold(0, |a, b| gcd(a, *b));
            let whole: u32 = weights.iter().map(|weight| weight / divisor).sum();
            prop_assert_eq!(round.len(), whole as usize);
            let mut seen = vec![0_i64; weights.len()];
            for (turn, index) in (1_i64..).zip(&round) {
                seen[*index] += 1;
                for (seen, weight) in seen.iter().zip(&weights) {
                    // Against turn * w / whole, without division.
                    let off = seen * i64::from(whole) - turn * i64::from(weight / divisor);
                    prop_assert!(off.abs() <= i64::from(whole) * 2, "{weights:?}: {off} of {whole} after {turn}");
                }
            }
            for (seen, weight) in seen.iter().zip(&weights) {
                prop_assert_eq!(*seen, i64::from(weight / divisor));
            }
        }
    }
}
