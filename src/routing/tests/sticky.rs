use proptest::prelude::*;

use super::*;

fn of_all(names: &[Name], weights: &[u32]) -> Vec<Name> {
    let shares = weights.iter().map(|&weight| if weight == 0 { Share::Off } else { Share::Weight(weight) }).collect();
    let split = Split::new(names, shares, 99, 1);
    Bucket::all().map(|bucket| names[split.of_client(bucket).0 as usize].clone()).collect()
}

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|at| format!("build-{at}").into()).collect()
}

#[test]
fn clients_are_spread_by_weight() {
    for weights in [&[5, 95][..], &[50, 50], &[1, 99], &[10, 20, 30, 40]] {
        let names = names(weights.len());
        let owners = of_all(&names, weights);
        for (name, &weight) in names.iter().zip(weights) {
            let p = f64::from(weight) / 100.0;
            let share = owners.iter().filter(|owner| *owner == name).count() as f64 / 10_000.0;
            let deviation = (p * (1.0 - p) / 10_000.0).sqrt();
            assert!((share - p).abs() < 4.0 * deviation, "{name} of {weights:?} has {share}");
        }
    }
}

#[test]
fn the_keys_of_two_services_are_independent() {
    let same = (0..10_000_u64).filter(|&id| ClientKey(id).bucket(1).0 / 500 == ClientKey(id).bucket(2).0 / 500).count();
    assert!((400..600).contains(&same), "{same} of 10 000 clients are in the same twentieth");
}

#[test]
fn a_cookie_names_its_version_while_it_exists() {
    let config = config(vec![], vec![("shop", service(&["v1", "v2"], active("v1")))]);
    let table = compile(Arc::new(config)).expect("compiles");
    let shop = table.service(ServiceIdx(0));
    let cookie = |version| StickyCookie { id: 1, tag: StickyCookie::tag_of(version) };
    assert_eq!(cookie("v1").version(shop), Some(VersionIdx(0)));
    assert_eq!(cookie("v2").version(shop), Some(VersionIdx(1)));
    assert_eq!(cookie("v3").version(shop), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn i6_raising_a_weight_moves_clients_only_to_it_and_lowering_only_from_it(
        weights in prop::collection::vec(0..100_u32, 2..=8),
        at: prop::sample::Index,
        more in 1..200_u32,
    ) {
        let at = at.index(weights.len());
        let mut raised = weights.clone();
        raised[at] += more;
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        let names = names(weights.len());
        for (before, after) in of_all(&names, &weights).into_iter().zip(of_all(&names, &raised)) {
            // Read from left to right a raise, from right to left a cut.
            prop_assert!(before == after || after == names[at], "{} -> {}", before, after);
        }
    }

    #[test]
    fn i6_moving_weight_between_two_versions_moves_nobody_between_two_others(
        weights in prop::collection::vec(1..100_u32, 3..=6),
        moved in 1..100_u32,
    ) {
        let moved = moved.min(weights[0]);
        let mut after = weights.clone();
        (after[0], after[1]) = (weights[0] - moved, weights[1] + moved);
        let names = names(weights.len());
        for (before, after) in of_all(&names, &weights).into_iter().zip(of_all(&names, &after)) {
            prop_assert!(before == after || before == names[0] || after == names[1], "{} -> {}", before, after);
        }
    }

    #[test]
    fn listing_versions_in_another_order_or_scaling_all_weights_moves_nobody(
        weights in prop::collection::vec(1..100_u32, 2..=6),
        scale in 2..5_u32,
    ) {
        let names = names(weights.len());
        let before = of_all(&names, &weights);
        let backwards = |list: &[u32]| list.iter().rev().copied().collect::<Vec<_>>();
        let mirrored: Vec<Name> = names.iter().rev().cloned().collect();
        prop_assert_eq!(&before, &of_all(&mirrored, &backwards(&weights)));
        let scaled: Vec<u32> = weights.iter().map(|weight| weight * scale).collect();
        let moved = before.iter().zip(of_all(&names, &scaled)).filter(|(before, after)| *before != after).count();
        prop_assert_eq!(moved, 0);
    }
}
