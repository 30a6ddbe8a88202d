use proptest::prelude::*;

use super::*;
use crate::routing::order::is_first;

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|at| format!("v{at:02}").into()).collect()
}

fn weighted(weights: &[u32], salt: u64, threads: usize) -> Arc<Split> {
    let shares = weights.iter().map(|&weight| if weight == 0 { Share::Draining } else { Share::Weight(weight) });
    Split::new(&names(weights.len()), shares.collect(), salt, threads)
}

/// Panics when a count is a whole request off its share after any number of requests.
fn assert_exact(split: &Split, thread: Thread, requests: u64) {
    let weights: Vec<u64> = split.shares().iter().map(|share| u64::from(share.weight())).collect();
    let whole: u64 = weights.iter().sum();
    let mut counts = vec![0_u64; weights.len()];
    for n in 1..=requests {
        counts[split.next(thread).0 as usize] += 1;
        for (version, (&count, &weight)) in counts.iter().zip(&weights).enumerate() {
            // |count - n·w/W| < 1 in whole numbers.
            let off = (count * whole).abs_diff(n * weight);
            assert!(off < whole, "v{version} of {weights:?} has {count} after {n}");
        }
    }
}

#[test]
fn the_order_of_two_versions_is_that_of_the_reference() {
    let picks = |bp: u64, salt: u64| -> Vec<u64> { (0..200).filter(|&i| is_first(i, bp, 10_000, salt)).collect() };
    assert_eq!(
        picks(2500, 42),
        [
            2, 4, 9, 13, 16, 23, 24, 31, 33, 38, 40, 45, 50, 54, 58, 60, 64, 69, 72, 78, 83, 84, 90, 94, 96, 101, 106,
            111, 115, 118, 123, 127, 130, 135, 138, 141, 144, 149, 155, 156, 162, 164, 169, 175, 178, 181, 184, 188,
            194, 199
        ]
    );
    assert_eq!(
        picks(3333, 4_611_686_018_427_400_249),
        [
            2, 4, 8, 12, 14, 17, 19, 24, 27, 30, 32, 35, 37, 42, 44, 48, 49, 54, 55, 60, 63, 64, 67, 71, 73, 77, 81,
            82, 85, 89, 91, 94, 98, 101, 105, 106, 109, 113, 116, 118, 121, 124, 129, 130, 134, 137, 140, 143, 147,
            148, 151, 154, 157, 161, 163, 167, 171, 174, 176, 179, 183, 185, 187, 192, 195, 196
        ]
    );
    let others: Vec<u64> = (0..200).filter(|&i| !is_first(i, 9000, 10_000, 7)).collect();
    assert_eq!(others, [3, 10, 29, 35, 44, 52, 64, 73, 81, 94, 101, 119, 129, 138, 148, 155, 168, 173, 186, 197]);
}

#[test]
fn i6_the_hardest_splits_are_exact() {
    for weights in [
        &[1, 9999][..],
        &[1, 1, 9998],
        &[3333, 3333, 3334],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        &[5000, 2500, 1250, 625, 312, 156, 78, 39, 20, 10, 9, 1],
        &[0, 10, 0, 20, 70],
        &[1; 20],
        &[4999, 4999, 1, 1],
    ] {
        let split = weighted(weights, 7, 1);
        let whole: u32 = weights.iter().sum();
        assert_exact(&split, Thread(0), 2 * u64::from(whole) + 100);
    }
}

#[test]
fn huge_weights_neither_overflow_nor_stall() {
    let split = weighted(&[u32::MAX, 1, u32::MAX - 1], 3, 1);
    assert_exact(&split, Thread(0), 20_000);
    assert_exact(&weighted(&[u32::MAX, 7], 3, 1), Thread(0), 20_000);
}

#[test]
fn a_single_weight_takes_everything() {
    let split = weighted(&[0, 5, 0], 1, 1);
    assert!((0..100).all(|_| split.next(Thread(0)) == VersionIdx(1)));
    assert!(Bucket::all().all(|bucket| split.of_client(bucket) == VersionIdx(1)));
}

/// A fixed pattern would give a client that comes every twentieth request all or nothing.
#[test]
fn periodic_clients_meet_every_version() {
    for weights in [&[5_u32, 95][..], &[5, 45, 50], &[5, 5, 20, 70]] {
        let split = weighted(weights, 11, 1);
        let whole: u32 = weights.iter().sum();
        for period in [2, 3, 7, 10, 20, 100] {
            let mut seen = vec![0_u32; weights.len()];
            for n in 0..4000 * period {
                let version = split.next(Thread(0));
                if n % period == 0 {
                    seen[version.0 as usize] += 1;
                }
            }
            for (version, &weight) in weights.iter().enumerate() {
                let share = f64::from(seen[version]) / 4000.0;
                let wanted = f64::from(weight) / f64::from(whole);
                assert!((share - wanted).abs() < 0.6 * wanted, "{weights:?} every {period}: v{version} got {share}");
            }
        }
    }
}

#[test]
fn threads_and_salts_have_orders_of_their_own() {
    let order = |split: &Split, thread| -> Vec<VersionIdx> { (0..200).map(|_| split.next(thread)).collect() };
    for weights in [&[1, 9][..], &[1, 2, 7]] {
        let split = weighted(weights, 1, 2);
        let zero = order(&split, Thread(0));
        assert_ne!(zero, order(&split, Thread(1)));
        assert_ne!(zero, order(&weighted(weights, 2, 2), Thread(0)));
        assert_eq!(zero, order(&weighted(weights, 1, 2), Thread(0)), "the same split has the same order");
    }
}

#[test]
fn looking_takes_no_turn() {
    for weights in [&[1, 9][..], &[1, 2, 7]] {
        let (looked_at, untouched) = (weighted(weights, 1, 1), weighted(weights, 1, 1));
        for _ in 0..100 {
            looked_at.next(Thread::OBSERVER);
            looked_at.tally(Thread::OBSERVER, VersionIdx(0), None);
            assert_eq!(looked_at.next(Thread(0)), untouched.next(Thread(0)));
        }
        assert!(looked_at.requests_by_version().iter().all(|&count| count == 0));
    }
}

#[test]
fn tallies_add_up_over_threads_and_count_a_bucket_once() {
    let split = weighted(&[1; 18], 1, 2);
    split.tally(Thread(0), VersionIdx(17), None);
    split.tally(Thread(1), VersionIdx(17), Some(Bucket(9_999)));
    split.tally(Thread(1), VersionIdx(17), Some(Bucket(9_999)));
    split.tally(Thread(1), VersionIdx(2), Some(Bucket(0)));
    let requests = split.requests_by_version();
    assert_eq!((requests[17], requests[2], requests.iter().sum::<u64>()), (3, 1, 4));
    let buckets = split.buckets_by_version();
    assert_eq!((buckets[17], buckets[2], buckets.iter().sum::<u64>()), (1, 1, 2));
}

#[test]
#[should_panic(expected = "a split needs a weight above 0")]
fn a_split_without_weight_is_refused() {
    weighted(&[0, 0], 1, 1);
}

/// From even to very uneven, some of them draining.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    let weight = prop_oneof![Just(0_u32), Just(1), 1..20_u32, 1..1000_u32, 1..9000_u32];
    prop::collection::vec(weight, 1..=12).prop_filter("a weight above 0", |weights| weights.iter().any(|&w| w > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn i6_every_count_is_within_one_of_its_share_at_all_times(weights in weights(), salt: u64, thread in 0..3_u16) {
        assert_exact(&weighted(&weights, salt, 3), Thread(thread), 3000);
    }

    #[test]
    fn i6_holds_across_whole_periods(weights in prop::collection::vec(1..40_u32, 2..=12), salt: u64) {
        let whole: u32 = weights.iter().sum();
        assert_exact(&weighted(&weights, salt, 1), Thread(0), 4 * u64::from(whole));
    }
}
