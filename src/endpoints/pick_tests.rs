use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::{Balance, Endpoint, EndpointAddress, HashKey};
use crate::endpoints::testing::{built, named, version};

const THREAD: Thread = Thread(0);

fn ask() -> Ask<'static> {
    Ask::new(THREAD, 1, 0)
}

fn port(picked: &Picked) -> u16 {
    picked.endpoint.ip().expect("an address").port()
}

fn ports(version: &VersionRuntime, picks: usize) -> Vec<u16> {
    (0..picks).map(|_| port(&pick(version, &ask()).expect("ready"))).collect()
}

/// A version whose endpoints have the ports 1, 2, … and these weights.
pub(super) fn weighted(weights: &[u32], by: BalanceBy, slow_start: Duration) -> Arc<VersionRuntime> {
    let endpoint = |(port, weight): (u16, &u32)| Endpoint {
        address: EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], port))),
        weight: *weight,
        max_connections: None,
    };
    built((1..).zip(weights).map(endpoint).collect(), &Balance { by, slow_start }, false, 1)
}

pub(super) fn hashed() -> BalanceBy {
    BalanceBy::ConsistentHash(HashKey::Path)
}

/// A source of chance for tests: the same every time.
pub(super) fn luck(nth: u64) -> u64 {
    mix64(nth.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// How many of so many picks each port got; nothing stays in flight.
fn counts(version: &VersionRuntime, picks: u64, now_ms: u64) -> HashMap<u16, u64> {
    let mut counts = HashMap::new();
    for nth in 0..picks {
        let ask = Ask { luck: luck(nth), now_ms, key: Some(nth), ..ask() };
        *counts.entry(port(&pick(version, &ask).expect("ready"))).or_default() += 1;
    }
    counts
}

#[test]
fn ready_endpoints_take_turns() {
    let version = version(&[1, 2, 3], 1);
    assert_eq!(ports(&version, 6), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn turns_follow_the_weights_smoothly() {
    let version = weighted(&[3, 1], BalanceBy::RoundRobin, Duration::ZERO);
    assert_eq!(ports(&version, 8), [1, 1, 2, 1, 1, 1, 2, 1]);
}

#[test]
fn the_turns_of_a_dead_endpoint_are_spread_over_the_others() {
    let version = version(&[1, 2, 3], 1);
    version.endpoints()[0].set_health(Health::Down);
    let picked = ports(&version, 600);
    for port in [2, 3] {
        assert_eq!(picked.iter().filter(|picked| **picked == port).count(), 300, "port {port}");
    }
}

#[test]
fn threads_count_by_themselves() {
    let version = version(&[1, 2], 2);
    let on = |thread| port(&pick(&version, &Ask::new(Thread(thread), 1, 0)).expect("ready"));
    assert_eq!([on(0), on(0), on(0), on(1)], [1, 2, 1, 2]);
}

#[test]
fn an_endpoint_that_was_tried_is_not_tried_again() {
    for by in [BalanceBy::RoundRobin, BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()] {
        let version = weighted(&[1, 1], by.clone(), Duration::ZERO);
        let (one, two) = (version.endpoints()[0].incarnation, version.endpoints()[1].incarnation);
        for nth in 0..40 {
            let ask = Ask { avoid: &[one], luck: luck(nth), key: Some(nth), ..ask() };
            assert_eq!(port(&pick(&version, &ask).expect("the other")), 2, "{by:?}");
        }
        let both = Ask { avoid: &[one, two], key: Some(1), ..ask() };
        assert_eq!(pick(&version, &both).err(), Some(Unpicked::Nothing), "{by:?}");
        let anyway = Ask { anyway: true, ..both };
        assert_eq!(pick(&version, &anyway).err(), Some(Unpicked::Nothing), "{by:?}: not in panic mode either");
    }
}

#[test]
fn nothing_ready_is_nothing_unless_anyway() {
    for by in [BalanceBy::RoundRobin, BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()] {
        let version = weighted(&[1, 1, 1, 1], by.clone(), Duration::ZERO);
        for (endpoint, health) in version.endpoints().iter().zip([Health::Down, Health::Unknown, Health::Failing]) {
            endpoint.set_health(health);
        }
        version.endpoints()[3].set_ejected(true);
        assert_eq!(pick(&version, &ask()).err(), Some(Unpicked::Nothing));
        let mut tried = Vec::new();
        let mut order = Vec::new();
        while let Ok(picked) = pick(&version, &Ask { avoid: &tried, anyway: true, key: Some(7), ..ask() }) {
            tried.push(picked.endpoint.incarnation);
            order.push(port(&picked));
        }
        assert_eq!(order, [3, 2, 4, 1], "failing, unknown, ejected, down; {by:?}");
    }
}

#[test]
fn a_version_without_endpoints_or_addresses_picks_nothing() {
    let anyway = Ask { anyway: true, key: Some(1), ..ask() };
    assert_eq!(pick(&version(&[], 1), &anyway).err(), Some(Unpicked::Nothing));
    assert_eq!(pick(&named(&["shop.internal"], 1), &anyway).err(), Some(Unpicked::Nothing));
    for by in [BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()] {
        assert_eq!(pick(&weighted(&[], by, Duration::ZERO), &anyway).err(), Some(Unpicked::Nothing));
    }
}

#[test]
fn each_address_of_a_name_is_an_endpoint_of_its_own() {
    let version = named(&["shop.internal"], 1);
    let name = ("shop.internal".to_string(), 80);
    let addresses: Vec<SocketAddr> = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).into();
    assert_eq!(version.resolved(&name, &addresses), Some(vec![]));
    assert_eq!(ports(&version, 4), [1, 2, 1, 2]);
    let endpoints = version.endpoints();
    assert_ne!(endpoints[0].incarnation, endpoints[1].incarnation);
    assert_eq!(endpoints[0].label(), "shop.internal:80 (127.0.0.1)");

    endpoints[0].set_ejected(true);
    assert_eq!(ports(&version, 3), [2, 2, 2], "ejected alone");
    endpoints[0].set_ejected(false);

    version.rest(&endpoints[0]);
    assert_eq!(ports(&version, 3), [2, 2, 2], "it could not be connected to");
    version.rest(&endpoints[1]);
    assert_eq!(ports(&version, 3), [2, 2, 2], "the last one never rests");
    assert_eq!(version.resolved(&name, &addresses), None, "the same answer");
    assert_eq!(counts(&version, 4, 1), HashMap::from([(1, 2), (2, 2)]), "and another chance");

    let moved: Vec<SocketAddr> = [2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).into();
    assert_eq!(version.resolved(&name, &moved), Some(addresses));
    assert_eq!(version.endpoints()[0].incarnation, endpoints[1].incarnation, "who stays is who it was");
}

#[test]
fn the_better_of_two_has_less_in_flight_for_its_weight() {
    let version = weighted(&[1, 1], BalanceBy::LeastRequest, Duration::ZERO);
    for _ in 0..3 {
        version.endpoints()[0].begin(THREAD);
    }
    assert_eq!(counts(&version, 100, 1).get(&1), None, "three are there, and none on the other");
    let version = weighted(&[4, 1], BalanceBy::LeastRequest, Duration::ZERO);
    for _ in 0..3 {
        version.endpoints()[0].begin(THREAD);
    }
    version.endpoints()[1].begin(THREAD);
    assert_eq!(counts(&version, 100, 1).get(&2), None, "3 of 4 is less than 1 of 1");
}

#[test]
fn peak_ewma_prefers_the_fast_one_and_learns() {
    let version = weighted(&[1, 1], BalanceBy::PeakEwma, Duration::ZERO);
    version.endpoints()[0].latency.answered(50_000, 1_000);
    version.endpoints()[1].latency.answered(5_000, 1_000);
    assert_eq!(counts(&version, 100, 1_000).get(&1), None);
    version.endpoints()[1].latency.failed(10, 1_000);
    assert_eq!(counts(&version, 100, 1_000).get(&2), None, "failing fast is not fast");
    let later = counts(&version, 100, 200_000);
    assert_eq!(later.values().sum::<u64>(), 100);
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_and_moves_only_with_it() {
    let version = weighted(&[1, 1, 1, 1], hashed(), Duration::ZERO);
    let of = |key| port(&pick(&version, &Ask { key: Some(key), ..ask() }).expect("ready"));
    let before: Vec<u16> = (0..400).map(of).collect();
    assert_eq!(before, (0..400).map(of).collect::<Vec<_>>());
    version.endpoints()[2].set_health(Health::Down);
    for (key, was) in (0..).zip(&before) {
        let is = of(key);
        assert!(is == *was || *was == 3, "key {key}: {was} -> {is}");
        assert_ne!(is, 3);
    }
    version.endpoints()[2].set_health(Health::Healthy);
    assert_eq!(before, (0..400).map(of).collect::<Vec<_>>(), "and back");
    let without: HashMap<u16, u64> = (0..100).fold(HashMap::new(), |mut counts, nth| {
        *counts.entry(port(&pick(&version, &Ask { luck: luck(nth), ..ask() }).expect("ready"))).or_default() += 1;
        counts
    });
    assert_eq!(without.values().copied().collect::<Vec<_>>(), [25; 4], "without a key they take turns");
}

#[test]
fn one_hot_key_does_not_drown_its_endpoint() {
    let version = weighted(&[1, 1, 1, 1], hashed(), Duration::ZERO);
    let mut held = Vec::new();
    for _ in 0..100 {
        let picked = pick(&version, &Ask { key: Some(42), ..ask() }).expect("ready");
        picked.endpoint.begin(THREAD);
        held.push(picked);
    }
    let most = version.endpoints().iter().map(|endpoint| endpoint.in_flight()).max();
    // 1.25 of a share of 25, rounded up.
    assert!(most <= Some(32), "{most:?}");
    let used = version.endpoints().iter().filter(|endpoint| endpoint.in_flight() > 0).count();
    assert_eq!(used, 4, "1.25 of a quarter each: four are needed");
}

#[test]
fn a_full_endpoint_is_passed_over_and_all_full_is_full() {
    for by in [BalanceBy::RoundRobin, BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()] {
        let version = weighted(&[1, 1], by.clone(), Duration::ZERO);
        version.endpoints().iter().for_each(|endpoint| endpoint.limit(Some(2)));
        let held: Vec<Picked> = (0..4)
            .map(|nth| pick(&version, &Ask { luck: luck(nth), key: Some(9), ..ask() }).expect("a place"))
            .collect();
        for wanted in [1, 2] {
            assert_eq!(held.iter().filter(|picked| port(picked) == wanted).count(), 2, "{by:?}");
        }
        let full = Ask { key: Some(9), ..ask() };
        assert_eq!(pick(&version, &full).err(), Some(Unpicked::Full), "{by:?}");
        assert_eq!(pick(&version, &Ask { anyway: true, ..full }).err(), Some(Unpicked::Full), "{by:?}");
        version.endpoints()[0].set_health(Health::Down);
        assert_eq!(pick(&version, &full).err(), Some(Unpicked::Full), "{by:?}: not to the dead one");
        version.endpoints()[0].set_health(Health::Healthy);
        drop(held);
        assert!(pick(&version, &full).is_ok(), "{by:?}");
    }
}

#[test]
fn who_is_new_starts_with_a_tenth_and_grows() {
    const SLOW: Duration = Duration::from_secs(10);
    for by in [BalanceBy::RoundRobin, BalanceBy::LeastRequest, hashed()] {
        let version = weighted(&[1, 1, 1, 1], by.clone(), SLOW);
        // All began together: nobody is behind.
        let together = counts(&version, 4_000, 1_000);
        assert!(together.values().all(|count| (700..1_300).contains(count)), "{by:?}: {together:?}");
        assert!(version.endpoints().iter().all(|endpoint| endpoint.ramp(20_000, SLOW) == RAMP_WHOLE));
        // One comes back at 20 s.
        version.endpoints()[3].set_health(Health::Down);
        version.endpoints()[3].set_health(Health::Healthy);
        let shares: Vec<u64> = [20_000, 25_000, 30_000].map(|now| counts(&version, 4_000, now)[&4]).into();
        assert!((50..200).contains(&shares[0]), "{by:?}: {shares:?}");
        assert!((350..750).contains(&shares[1]), "{by:?}: {shares:?}");
        assert!((800..1_200).contains(&shares[2]), "{by:?}: {shares:?}");
    }
    let version = weighted(&[1, 1], BalanceBy::PeakEwma, SLOW);
    counts(&version, 10, 1_000);
    version.endpoints()[1].set_ejected(true);
    version.endpoints()[1].set_ejected(false);
    version.endpoints().iter().for_each(|endpoint| endpoint.latency.answered(1_000, 30_000));
    assert_eq!(counts(&version, 100, 30_000).get(&2), None, "as fast as the other, but a tenth of its weight");
}

#[test]
fn an_endpoint_alone_gets_everything_however_new_it_is() {
    for by in [BalanceBy::RoundRobin, BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()] {
        let version = weighted(&[1], by, Duration::from_secs(10));
        assert_eq!(counts(&version, 100, 1_000)[&1], 100);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn weights_are_respected_whatever_is_out(
        weights in prop::collection::vec(1..6_u32, 2..6),
        out in prop::collection::vec(any::<bool>(), 6),
        method in 0..3_usize,
    ) {
        let by = [BalanceBy::RoundRobin, BalanceBy::LeastRequest, hashed()][method].clone();
        let version = weighted(&weights, by, Duration::ZERO);
        let mut ready = 0;
        for (endpoint, out) in version.endpoints().iter().zip(&out) {
            endpoint.set_ejected(*out);
            ready += u32::from(!out);
        }
        prop_assume!(ready > 0);
        let counts = counts(&version, 6_000, 1);
        let whole: u32 = weights.iter().zip(&out).filter(|(_, out)| !**out).map(|(weight, _)| weight).sum();
        for ((port, weight), out) in (1_u16..).zip(&weights).zip(&out) {
            let got = counts.get(&port).copied().unwrap_or(0) as f64;
            let due = if *out { 0.0 } else { 6_000.0 * f64::from(*weight) / f64::from(whole) };
            // A ring of points is coarse; turns are not.
            let slack = if method == 2 { 0.35 * due + 60.0 } else { 0.12 * due + 40.0 };
            prop_assert!((got - due).abs() <= slack, "{weights:?} {out:?} port {port}: {got} of {due}");
        }
    }

    #[test]
    fn nothing_out_of_order_is_ever_picked(
        states in prop::collection::vec((0..5_u8, any::<bool>()), 1..7),
        method in 0..4_usize,
        lucks in prop::collection::vec(any::<u64>(), 30),
    ) {
        let by = [BalanceBy::RoundRobin, BalanceBy::LeastRequest, BalanceBy::PeakEwma, hashed()][method].clone();
        let version = weighted(&vec![1; states.len()], by, Duration::ZERO);
        for (endpoint, (health, ejected)) in version.endpoints().iter().zip(&states) {
            endpoint.set_health(match health {
                0 => Health::Unknown,
                1 => Health::Unchecked,
                2 => Health::Healthy,
                3 => Health::Failing,
                _ => Health::Down,
            });
            endpoint.set_ejected(*ejected);
        }
        let least = version.endpoints().iter().map(|endpoint| badness(endpoint)).min();
        for luck in lucks {
            let ask = Ask { luck, key: Some(luck), ..ask() };
            match pick(&version, &ask) {
                Ok(picked) => prop_assert!(picked.endpoint.is_ready()),
                Err(Unpicked::Nothing) => prop_assert!(!version.has_ready()),
                Err(Unpicked::Full) => prop_assert!(false, "nothing has a limit"),
            }
            let picked = pick(&version, &Ask { anyway: true, ..ask }).expect("all are resolved");
            prop_assert_eq!(Some(badness(&picked.endpoint)), least);
        }
    }
}
