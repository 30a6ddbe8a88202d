//! Bounded load: nobody has more than 1.25 of its share, whatever the keys, and however seldom it is added up.

use std::time::Duration;

use proptest::prelude::*;

use super::tests::{hashed, luck, weighted};
use super::*;
use crate::config::model::{Balance, Endpoint};
use crate::endpoints::testing::local;

const ONE: Thread = Thread(0);
const OTHER: Thread = Thread(1);

fn even(count: usize) -> Arc<VersionRuntime> {
    weighted(&vec![1; count], hashed(), Duration::ZERO)
}

/// An exchange on an endpoint, until it is ended.
struct Held {
    endpoint: Arc<EndpointRuntime>,
    thread: Thread,
}

impl Held {
    fn end(self) {
        self.endpoint.end(self.thread);
    }
}

/// Begins one where the key goes.
fn hold(version: &VersionRuntime, key: u64, nth: u64) -> Held {
    hold_at(version, key, nth, ONE, 1)
}

fn hold_at(version: &VersionRuntime, key: u64, nth: u64, thread: Thread, now_ms: u64) -> Held {
    let ask = Ask { key: Some(key), ..Ask::new(thread, now_ms, luck(nth)) };
    let endpoint = pick(version, &ask).expect("somebody is ready").endpoint;
    endpoint.begin(thread);
    Held { endpoint, thread }
}

/// The same as [`Ready`], added up here and now.
fn exact(group: &Group) -> Ready {
    let those = || group.endpoints.iter().zip(&group.weights).filter(|(endpoint, _)| endpoint.is_ready());
    Ready {
        in_flight: those().map(|(endpoint, _)| endpoint.in_flight()).sum(),
        weights: those().map(|(_, weight)| u64::from(*weight)).sum(),
    }
}

/// Whether the endpoint may have one more.
fn has_room(group: &Group, index: usize) -> bool {
    exact(group).lets(group.endpoints[index].in_flight(), group.weights[index])
}

/// Where the key goes if its ring says so.
fn owner(group: &Group, key: u64) -> Option<usize> {
    let ring = &group.hashing.as_ref().expect("it hashes").ring;
    ring.owners(key).take(WALK_MAX).find(|index| group.endpoints[*index].is_ready() && has_room(group, *index))
}

fn index_of(group: &Group, endpoint: &EndpointRuntime) -> usize {
    let found = group.endpoints.iter().position(|other| other.incarnation == endpoint.incarnation);
    found.expect("it is of this group")
}

#[test]
fn one_hot_key_drowns_nobody_among_many_either() {
    for (what, weights) in [
        ("a few", vec![1; 4]),
        ("more than the ring is walked for", vec![1; 100]),
        ("many", vec![1; 1_000]),
        ("of several weights", (0..200).map(|at| 1 + at % 4).collect::<Vec<_>>()),
    ] {
        let version = weighted(&weights, hashed(), Duration::ZERO);
        let count = 5 * weights.len() as u64;
        (0..count).for_each(|nth| drop(hold(&version, 42, nth)));
        let whole: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (endpoint, weight) in version.endpoints().iter().zip(&weights) {
            let most = (count * 320 * u64::from(*weight)).div_ceil(256 * whole);
            let its = endpoint.in_flight();
            assert!(its <= most, "{what}: {its} of at most {most} at {}", endpoint.label());
        }
    }
}

#[test]
fn a_share_is_of_those_that_are_ready() {
    let version = even(4);
    let held: Vec<Held> = (0..200).map(|nth| hold(&version, nth, nth)).collect();
    let dead = version.endpoints()[3].clone();
    dead.set_health(Health::Down);
    let is_there = |version: &VersionRuntime| version.endpoints()[..3].iter().map(|it| it.in_flight()).sum::<u64>();
    // As many again of one key: three share what four had shared.
    let more = is_there(&version);
    let mut now: Vec<Held> = (0..more).map(|nth| hold(&version, 42, nth)).collect();
    let most = (2 * more * 320).div_ceil(256 * 3);
    let loads = || version.endpoints().iter().map(|it| it.in_flight()).collect::<Vec<_>>();
    assert!(loads()[..3].iter().all(|its| *its <= most), "{:?}, at most {most}", loads());
    assert!(loads()[..3].contains(&most), "{:?}, and that is used", loads());
    // It comes back, with what it still has: there are four again.
    dead.set_health(Health::Healthy);
    let next = hold(&version, 42, 9);
    assert!(has_room(&version.now(), index_of(&version.now(), &next.endpoint)));
    now.push(next);
    held.into_iter().chain(now).for_each(Held::end);
    assert_eq!(loads(), [0; 4]);
}

#[test]
fn a_reload_takes_over_what_is_in_flight_and_what_left_counts_no_more() {
    let balance = Balance { by: hashed(), slow_start: Duration::ZERO };
    let defined = |ports: &[u16]| -> Vec<Endpoint> { local(ports) };
    let old = crate::endpoints::testing::built(defined(&[1, 2, 3, 4]), &balance, false, 1);
    let mut held: Vec<Held> = (0..400).map(|nth| hold(&old, nth, nth)).collect();
    let new = VersionRuntime::build(old.core.clone(), &defined(&[1, 2, 3, 5]), &balance, false, Some(&old));
    let left = old.endpoints()[3].clone();
    let on_left = left.in_flight();
    assert!(on_left > 60, "{on_left}");
    let mut now_ms = 1;
    let mut take = |held: &mut Vec<Held>, picks: u64| {
        for nth in 0..picks {
            now_ms += 1;
            let group = new.now();
            let before: Vec<bool> = (0..4).map(|index| has_room(&group, index)).collect();
            let next = hold_at(&new, 42, nth, ONE, now_ms);
            assert!(before[index_of(&group, &next.endpoint)], "{before:?}: pick {nth} of a share that is full");
            held.push(next);
        }
    };
    take(&mut held, 50);
    // What was in flight on the one that left ends while requests come.
    let (ending, mut staying): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|held| held.endpoint.incarnation == left.incarnation);
    for held in ending {
        held.end();
        take(&mut staying, 1);
    }
    assert_eq!(left.in_flight(), 0);
    take(&mut staying, 20);
    staying.into_iter().for_each(Held::end);
    assert_eq!(exact(&new.now()), Ready { in_flight: 0, weights: 4 });
}

#[test]
fn threads_that_ask_at_once_overrun_a_share_by_one_each_at_most() {
    const EACH: u64 = 2_000;
    let version = crate::endpoints::testing::built(
        local(&[1, 2, 3, 4, 5, 6, 7, 8]),
        &Balance { by: hashed(), slow_start: Duration::ZERO },
        false,
        2,
    );
    std::thread::scope(|scope| {
        for thread in [ONE, OTHER] {
            let version = &version;
            // Half of it is one key.
            scope.spawn(move || {
                for nth in 0..EACH {
                    let key = if nth % 2 == 0 { 42 } else { nth };
                    hold_at(version, key, nth, thread, nth / 100);
                }
            });
        }
    });
    let most = (2 * EACH * 320).div_ceil(256 * 8);
    for endpoint in version.endpoints() {
        // One more that another thread has just begun, and what was counted twice while one looked.
        let its = endpoint.in_flight();
        assert!(its <= most + 1 + 8, "{its} of at most {most} at {}", endpoint.label());
    }
    assert_eq!(exact(&version.now()), Ready { in_flight: 2 * EACH, weights: 8 }, "nothing was lost");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nobody_is_given_more_than_the_bound_whatever_happens(
        weights in prop::collection::vec(1..5_u32, 1..12),
        steps in prop::collection::vec((0..12_u8, any::<u64>(), 0..4_u64), 50..400),
    ) {
        let endpoints = (1..).zip(&weights).map(|(port, weight)| Endpoint { weight: *weight, ..local(&[port])[0].clone() });
        let balance = Balance { by: hashed(), slow_start: Duration::ZERO };
        let version = crate::endpoints::testing::built(endpoints.collect(), &balance, false, 2);
        let group = version.now();
        let mut held: Vec<Held> = Vec::new();
        let (mut now_ms, mut was_out) = (1, false);
        for (nth, (what, draw, waits)) in (0..).zip(steps) {
            now_ms += waits / 3;
            let thread = if draw & 1 == 0 { ONE } else { OTHER };
            match what {
                0 => {
                    let endpoint = &group.endpoints[scale(draw, weights.len() as u64) as usize];
                    endpoint.set_ejected(!endpoint.is_ejected());
                    was_out |= endpoint.is_ejected();
                }
                1..4 if !held.is_empty() => held.swap_remove(scale(draw, held.len() as u64) as usize).end(),
                _ if !version.has_ready() => {}
                _ => {
                    // Most are of few keys.
                    let key = draw % [1, 1, 3, 1_000][(draw >> 8) as usize % 4];
                    let before: Vec<bool> = (0..weights.len()).map(|index| has_room(&group, index)).collect();
                    let due = owner(&group, key);
                    let next = hold_at(&version, key, nth, thread, now_ms);
                    let index = index_of(&group, &next.endpoint);
                    prop_assert!(before[index], "step {nth}: {index} had all of its share");
                    if !was_out {
                        prop_assert!(due.is_none_or(|due| due == index), "step {nth}: {due:?} is due, not {index}");
                    }
                    held.push(next);
                }
            }
        }
        // What is known is exact again soon, whatever was.
        for key in 0..20 {
            now_ms += 10;
            if let Some(due) = owner(&group, key).filter(|_| version.has_ready()) {
                let next = hold_at(&version, key, key, ONE, now_ms);
                prop_assert_eq!(due, index_of(&group, &next.endpoint));
            }
        }
    }
}
