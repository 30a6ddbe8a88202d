use super::*;

const SALT: u64 = 77;
const ALL: &[u16] = &[0, 1, 2, 3];

/// v0 off, v1 draining, v2 and v3 weighted.
fn mixed() -> Arc<Split> {
    let names: Vec<Name> = (0..4).map(|at| format!("v{at}").into()).collect();
    Split::new(&names, vec![Share::Off, Share::Draining, Share::Weight(30), Share::Weight(70)], 5, 1)
}

fn ask(split: &Split, client: &Client, ready: &[u16]) -> Option<Choice> {
    let ready = |version: VersionIdx| if ready.contains(&version.0) { Ready::Yes } else { Ready::No };
    choose(split, SALT, client, Thread(0), ready)
}

fn client(force: Option<u16>, pinned: Option<u16>, key: Option<u64>) -> Client {
    Client { force: force.map(VersionIdx), pinned: pinned.map(VersionIdx), key: key.map(ClientKey), matched: None }
}

fn matched(client: Client, version: u16) -> Client {
    Client { matched: Some(VersionIdx(version)), ..client }
}

#[test]
fn force_before_pin_by_drain_before_sticky_before_weight() {
    let split = mixed();
    for (force, pinned, key, reason) in [
        // Every pair, and all of them together.
        (Some(2), Some(1), None, Reason::Force),
        (Some(2), None, Some(9), Reason::Force),
        (Some(2), None, None, Reason::Force),
        (None, Some(1), Some(9), Reason::DrainPin),
        (None, Some(1), None, Reason::DrainPin),
        (None, None, Some(9), Reason::Sticky),
        (None, None, None, Reason::Weight),
        (Some(3), Some(1), Some(9), Reason::Force),
    ] {
        let choice = ask(&split, &client(force, pinned, key), ALL).expect("all are ready");
        assert_eq!(choice.reason, reason, "{force:?} {pinned:?} {key:?}");
        match reason {
            Reason::Force => assert_eq!(Some(choice.version.0), force),
            Reason::DrainPin => assert_eq!(Some(choice.version.0), pinned),
            Reason::Sticky => assert_eq!(choice.version, split.of_client(choice.bucket.expect("a bucket"))),
            Reason::Weight => assert!(choice.version.0 >= 2),
            Reason::Match => unreachable!("no stage matches"),
            Reason::FallbackUnhealthy | Reason::Panic => unreachable!("all are ready"),
        }
    }
}

#[test]
fn match_comes_after_force_and_pin_by_drain_and_before_sticky_and_weight() {
    let split = mixed();
    for (force, pinned, key, wanted) in [
        (Some(2), None, None, (2, Reason::Force)),
        (None, Some(1), Some(9), (1, Reason::DrainPin)),
        (None, None, Some(9), (0, Reason::Match)),
        (None, None, None, (0, Reason::Match)),
        // Pinned to a version that does not drain is not pinned.
        (None, Some(3), Some(9), (0, Reason::Match)),
    ] {
        let choice = ask(&split, &matched(client(force, pinned, key), 0), ALL).expect("all are ready");
        assert_eq!((choice.version.0, choice.reason), wanted, "{force:?} {pinned:?} {key:?}");
    }
}

#[test]
fn a_matched_client_whose_version_is_not_ready_goes_by_the_split_and_is_told_so() {
    let split = mixed();
    for key in [Some(4), None] {
        let choice = ask(&split, &matched(client(None, None, key), 0), &[1, 2, 3]).expect("three are ready");
        assert_eq!(choice.reason, Reason::FallbackUnhealthy);
        assert!(choice.version.0 >= 2, "never to a draining one");
        assert_eq!(ask(&split, &matched(client(None, None, key), 0), &[1]), None);
        // Who is not matched does not get it even if nobody else is ready.
        assert_eq!(ask(&split, &client(None, None, key), &[0]), None);
        assert!(ask(&split, &matched(client(None, None, key), 0), &[0]).is_some());
    }
}

#[test]
fn matched_clients_take_no_turn_of_the_others() {
    let (one, other) = (mixed(), mixed());
    for at in 0..1_000 {
        if at % 3 == 0 {
            ask(&one, &matched(Client::default(), 0), ALL);
        }
        assert_eq!(ask(&one, &Client::default(), ALL), ask(&other, &Client::default(), ALL));
    }
}

#[test]
fn force_reaches_any_version_but_only_that_one() {
    let split = mixed();
    for version in 0..4 {
        let forced = client(Some(version), None, None);
        assert_eq!(ask(&split, &forced, ALL).map(|choice| choice.version), Some(VersionIdx(version)));
        let others: Vec<u16> = (0..4).filter(|&other| other != version).collect();
        assert_eq!(ask(&split, &forced, &others), None, "never sent elsewhere");
        let anyway = choose_anyway(&split, SALT, &forced, Thread(0));
        assert_eq!((anyway.version, anyway.reason), (VersionIdx(version), Reason::Force));
    }
}

#[test]
fn a_pin_holds_only_while_its_version_drains() {
    let split = mixed();
    for (pinned, reason) in [(0, Reason::Sticky), (1, Reason::DrainPin), (2, Reason::Sticky), (3, Reason::Sticky)] {
        let choice = ask(&split, &client(None, Some(pinned), Some(4)), ALL).expect("all are ready");
        assert_eq!(choice.reason, reason, "pinned to v{pinned}");
    }
}

#[test]
fn i7_a_client_leaves_a_draining_version_that_is_not_ready_with_the_reason() {
    let split = mixed();
    for key in [Some(4), None] {
        let choice = ask(&split, &client(None, Some(1), key), &[2, 3]).expect("two are ready");
        assert_eq!(choice.reason, Reason::FallbackUnhealthy);
        assert!(choice.version.0 >= 2);
    }
}

#[test]
fn a_version_that_is_not_ready_gives_its_clients_away_and_no_other_client_moves() {
    let names: Vec<Name> = ["a", "b", "c"].map(Name::from).into();
    let split = Split::new(&names, vec![Share::Weight(50), Share::Weight(30), Share::Weight(20)], 5, 1);
    let mut moved = [0_u32; 3];
    for id in 0..5000 {
        let sticky = client(None, None, Some(id));
        let before = ask(&split, &sticky, ALL).expect("all are ready");
        let after = ask(&split, &sticky, &[1, 2]).expect("two are ready");
        if before.version.0 == 0 {
            assert_eq!(after.reason, Reason::FallbackUnhealthy);
            moved[after.version.0 as usize] += 1;
        } else {
            assert_eq!(after, before);
        }
    }
    let to_b = f64::from(moved[1]) / f64::from(moved[1] + moved[2]);
    assert!((to_b - 0.6).abs() < 0.05, "b and c share by their weights, b got {to_b}");
}

#[test]
fn the_share_of_a_version_that_is_not_ready_goes_to_the_others_in_proportion() {
    let names: Vec<Name> = ["a", "b", "c"].map(Name::from).into();
    for (weights, ready, shares) in [
        ([50, 30, 20], &[1, 2][..], [0.0, 0.6, 0.4]),
        ([98, 1, 1], &[1, 2], [0.0, 0.5, 0.5]),
        ([10, 0, 90], &[0], [1.0, 0.0, 0.0]),
    ] {
        let shares_of = weights.map(|weight| if weight == 0 { Share::Draining } else { Share::Weight(weight) });
        let split = Split::new(&names, shares_of.into(), 5, 1);
        let mut counts = [0_u32; 3];
        for n in 1..=2000_u32 {
            let choice = ask(&split, &Client::default(), ready).expect("one is ready");
            counts[choice.version.0 as usize] += 1;
            for (count, share) in counts.iter().zip(shares) {
                assert!((f64::from(*count) - f64::from(n) * share).abs() < 4.0, "{weights:?}: {counts:?} after {n}");
            }
        }
    }
}

#[test]
fn a_draining_version_gets_nobody_new_even_when_it_is_the_only_one_ready() {
    let split = mixed();
    assert_eq!(ask(&split, &Client::default(), &[0, 1]), None);
    assert_eq!(ask(&split, &client(None, None, Some(3)), &[0, 1]), None);
    assert!(ask(&split, &client(None, Some(1), Some(3)), &[1]).is_some(), "its own clients stay");
}

/// While nobody is ready requests wait and ask again: that must not cost anybody a turn.
#[test]
fn i6_asking_in_vain_uses_up_no_turn() {
    let names: Vec<Name> = ["a", "b", "c"].map(Name::from).into();
    for shares in [vec![Share::Weight(1), Share::Weight(9), Share::Off], vec![Share::Weight(1); 3]] {
        let (patient, plain) = (Split::new(&names, shares.clone(), 5, 1), Split::new(&names, shares, 5, 1));
        for n in 0..300 {
            for _ in 0..n % 3 {
                assert_eq!(ask(&patient, &Client::default(), &[]), None);
            }
            assert_eq!(ask(&patient, &Client::default(), ALL), ask(&plain, &Client::default(), ALL));
        }
    }
}

#[test]
fn when_nobody_is_ready_the_same_version_serves_anyway() {
    let split = mixed();
    let sticky = client(None, None, Some(8));
    let anyway = choose_anyway(&split, SALT, &sticky, Thread(0));
    let healthy = ask(&split, &sticky, ALL).expect("all are ready");
    assert_eq!((anyway.version, anyway.reason), (healthy.version, Reason::Panic));
    let pinned = choose_anyway(&split, SALT, &client(None, Some(1), Some(8)), Thread(0));
    assert_eq!((pinned.version, pinned.reason), (VersionIdx(1), Reason::Panic));
}
