//! Consistent hashing: every endpoint owns points of a ring, and a key belongs to the next point.
//!
//! The points of an endpoint depend on its address and weight alone. When one leaves, its keys move and no others;
//! when one comes, it takes keys and nobody exchanges any. The same addresses give the same ring in every process.

use crate::routing::hash::{fnv1a64, mix64, stream};

/// Points of an endpoint for each unit of weight: shares are within about 10 % of the weights.
const POINTS: u32 = 160;

#[derive(Debug)]
pub(in crate::endpoints) struct Ring {
    /// By position; whose point it is.
    points: Box<[(u64, u32)]>,
    /// What the points of each endpoint are made of.
    seeds: Box<[u64]>,
}

impl Ring {
    /// Of endpoints by name and weight.
    pub(in crate::endpoints) fn new<'n>(endpoints: impl Iterator<Item = (&'n str, u32)>) -> Ring {
        let (mut points, mut seeds) = (Vec::new(), Vec::new());
        for (index, (name, weight)) in (0..).zip(endpoints) {
            let seed = mix64(fnv1a64(name.as_bytes()));
            seeds.push(seed);
            points.extend((1..=u64::from(POINTS * weight)).map(|point| (stream(seed, point), index)));
        }
        points.sort_unstable();
        Ring { points: points.into(), seeds: seeds.into() }
    }

    /// How much the key wants the endpoint, beside the others: another way to agree on one, which asks everybody
    /// (rendezvous hashing).
    pub(in crate::endpoints) fn affinity(&self, key: u64, index: usize) -> u64 {
        mix64(key ^ self.seeds[index])
    }

    /// Whose the key is, then who has it if those before cannot: the owners of the points that follow, with repeats.
    pub(in crate::endpoints) fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        let key = mix64(key);
        let first = self.points.partition_point(|(point, _)| *point < key);
        let (before, from) = self.points.split_at(first);
        from.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(endpoints: &[(String, u32)]) -> Ring {
        Ring::new(endpoints.iter().map(|(name, weight)| (name.as_str(), *weight)))
    }

    fn owner<'e>(ring: &Ring, endpoints: &'e [(String, u32)], key: u64) -> &'e str {
        &endpoints[ring.owners(key).next().expect("a ring with points")].0
    }

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().enumerate().map(|(at, weight)| (format!("10.0.0.{at}:80"), *weight)).collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        let endpoints = named(&[1, 1, 2, 4]);
        let ring = ring(&endpoints);
        let mut keys = [0_u32; 4];
        for key in 0..80_000_u64 {
            keys[ring.owners(key).next().expect("points")] += 1;
        }
        for (keys, weight) in keys.iter().zip([1, 1, 2, 4]) {
            let share = f64::from(*keys) / f64::from(weight * 10_000);
            assert!((0.8..1.2).contains(&share), "{keys} keys at weight {weight}");
        }
    }

    #[test]
    fn the_ring_of_today_is_the_ring_of_tomorrow() {
        // Written down once: another number would move clients at the next upgrade.
        let endpoints = named(&[1, 1, 1]);
        let ring = ring(&endpoints);
        let owners: Vec<usize> = (0..12).map(|key| ring.owners(key).next().expect("points")).collect();
        insta::assert_snapshot!(format!("{owners:?}"), @"[0, 0, 2, 1, 2, 2, 0, 2, 2, 2, 2, 2]");
    }

    #[test]
    fn nobody_is_left_out_and_nothing_owns_nothing() {
        let endpoints = named(&[1, 1, 1, 1, 1]);
        let ring = ring(&endpoints);
        let mut seen: Vec<usize> = ring.owners(7).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(Ring::new(std::iter::empty()).owners(7).count(), 0);
    }

    proptest! {
        #[test]
        fn only_the_keys_of_who_leaves_move(
            weights in prop::collection::vec(1..4_u32, 2..9),
            gone in any::<prop::sample::Index>(),
            keys in prop::collection::vec(any::<u64>(), 50),
        ) {
            let before = named(&weights);
            let gone = gone.index(before.len());
            let mut after = before.clone();
            after.remove(gone);
            let (old, new) = (ring(&before), ring(&after));
            for key in keys {
                let was = owner(&old, &before, key);
                let is = owner(&new, &after, key);
                if was == before[gone].0 {
                    // And they go where they would have gone had it only been out.
                    let next = old.owners(key).find(|index| *index != gone).expect("another");
                    prop_assert_eq!(is, &before[next].0);
                } else {
                    prop_assert_eq!(is, was);
                }
            }
        }
    }
}
