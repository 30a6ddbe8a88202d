//! Which endpoint of a version serves a request: round robin over the ready ones.
//!
//! Each data thread counts its own turns, so the choice touches no cache line of another thread. The
//! endpoint whose turn it is serves if it is ready; if not, its turns are spread evenly over the ready
//! ones, so that the neighbour of a dead endpoint does not get twice its share.

use std::net::SocketAddr;
use std::sync::Arc;

use super::state::{EndpointRuntime, Health, VersionRuntime};
use crate::routing::Thread;

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Picked {
    pub endpoint: Arc<EndpointRuntime>,
    pub address: SocketAddr,
}

/// `avoid` lists the incarnations that this request has tried in vain, one entry per try. They are used
/// again only if nothing else is ready and their name has more addresses than were tried.
///
/// `None`: no endpoint is ready. With `anyway` (panic mode) one that is not ready serves, the least bad
/// first; `None` then means that nothing is resolved or everything was tried.
pub fn pick(version: &VersionRuntime, thread: Thread, avoid: &[u64], anyway: bool) -> Option<Picked> {
    let endpoints = &version.endpoints;
    let turn = version.core.turn(thread);
    let place = turn.checked_rem(endpoints.len())?;
    let round = turn / endpoints.len();

    let first = &endpoints[place];
    if first.is_ready()
        && !avoid.contains(&first.incarnation)
        && let Some(address) = first.address_at(round)
    {
        return Some(Picked { endpoint: first.clone(), address });
    }

    let untried = |endpoint: &EndpointRuntime| endpoint.is_ready() && !avoid.contains(&endpoint.incarnation);
    if let Some(picked) = nth_of(endpoints, round, round, untried) {
        return Some(picked);
    }
    let has_another_address = |endpoint: &EndpointRuntime| !is_exhausted(endpoint, avoid);
    // The tries so far are added to the round, so that the next address of the name gets its chance.
    let again = |endpoint: &EndpointRuntime| endpoint.is_ready() && has_another_address(endpoint);
    if !avoid.is_empty()
        && let Some(picked) = nth_of(endpoints, round, round + avoid.len(), again)
    {
        return Some(picked);
    }
    if !anyway {
        return None;
    }
    let usable = |endpoint: &EndpointRuntime| endpoint.is_resolved() && has_another_address(endpoint);
    let least = endpoints.iter().filter(|endpoint| usable(endpoint)).map(|endpoint| badness(endpoint)).min()?;
    nth_of(endpoints, turn, round + avoid.len(), |endpoint| usable(endpoint) && badness(endpoint) == least)
}

/// The `turn`th, in an endless round, of those that are `fit`.
fn nth_of(
    endpoints: &[Arc<EndpointRuntime>],
    turn: usize,
    round: usize,
    fit: impl Fn(&EndpointRuntime) -> bool,
) -> Option<Picked> {
    let count = endpoints.iter().filter(|endpoint| fit(endpoint)).count();
    let nth = turn.checked_rem(count)?;
    let mut found = None;
    // Health may change between the two passes: then the last fit one is taken.
    for endpoint in endpoints.iter().filter(|endpoint| fit(endpoint)).take(nth + 1) {
        found = Some(endpoint);
    }
    let endpoint = found?;
    let address = endpoint.address_at(round)?;
    Some(Picked { endpoint: endpoint.clone(), address })
}

/// Whether the request has tried every address of the endpoint.
fn is_exhausted(endpoint: &EndpointRuntime, avoid: &[u64]) -> bool {
    let tries = avoid.iter().filter(|tried| **tried == endpoint.incarnation).count();
    tries > 0 && tries >= endpoint.addresses()
}

/// The order in which endpoints are used that should not be: one that answers wrongly may still answer
/// some requests, one that does not answer at all surely none.
fn badness(endpoint: &EndpointRuntime) -> u8 {
    match (endpoint.health(), endpoint.is_ejected()) {
        (Health::Unchecked | Health::Healthy, false) => 0,
        (Health::Failing, false) => 1,
        (Health::Unknown, false) => 2,
        (Health::Unchecked | Health::Healthy | Health::Failing | Health::Unknown, true) => 3,
        (Health::Down, _) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::testing::{named, version};

    const THREAD: Thread = Thread(0);

    fn ports(version: &VersionRuntime, picks: usize) -> Vec<u16> {
        (0..picks).map(|_| pick(version, THREAD, &[], false).expect("ready").address.port()).collect()
    }

    #[test]
    fn ready_endpoints_take_turns() {
        let version = version(&[1, 2, 3], 1);
        assert_eq!(ports(&version, 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_turns_of_a_dead_endpoint_are_spread_over_the_others() {
        let version = version(&[1, 2, 3], 1);
        version.endpoints[0].set_health(Health::Down);
        let picked = ports(&version, 600);
        for port in [2, 3] {
            assert_eq!(picked.iter().filter(|picked| **picked == port).count(), 300, "port {port}");
        }
    }

    #[test]
    fn threads_count_by_themselves() {
        let version = version(&[1, 2], 2);
        let on = |thread| pick(&version, Thread(thread), &[], false).expect("ready").address.port();
        assert_eq!([on(0), on(0), on(0), on(1)], [1, 2, 1, 2]);
    }

    #[test]
    fn an_endpoint_that_was_tried_is_not_tried_again() {
        let version = version(&[1, 2], 1);
        let (one, two) = (version.endpoints[0].incarnation, version.endpoints[1].incarnation);
        for _ in 0..4 {
            assert_eq!(pick(&version, THREAD, &[one], false).expect("the other").address.port(), 2);
        }
        assert!(pick(&version, THREAD, &[one, two], false).is_none());
        assert!(pick(&version, THREAD, &[one, two], true).is_none(), "not in panic mode either");
    }

    #[test]
    fn nothing_ready_is_nothing_unless_anyway() {
        let version = version(&[1, 2, 3, 4], 1);
        for (endpoint, health) in version.endpoints.iter().zip([Health::Down, Health::Unknown, Health::Failing]) {
            endpoint.set_health(health);
        }
        version.endpoints[3].set_ejected(true);
        assert!(pick(&version, THREAD, &[], false).is_none());
        let mut tried = Vec::new();
        let mut order = Vec::new();
        while let Some(picked) = pick(&version, THREAD, &tried, true) {
            tried.push(picked.endpoint.incarnation);
            order.push(picked.address.port());
        }
        assert_eq!(order, [3, 2, 4, 1], "failing, unknown, ejected, down");
    }

    #[test]
    fn a_version_without_endpoints_or_addresses_picks_nothing() {
        assert!(pick(&version(&[], 1), THREAD, &[], true).is_none());
        assert!(pick(&named(&["shop.internal"], 1), THREAD, &[], true).is_none());
    }

    #[test]
    fn the_addresses_of_a_name_take_turns_and_each_may_be_tried() {
        let version = named(&["shop.internal"], 1);
        let endpoint = &version.endpoints[0];
        let addresses: Vec<SocketAddr> = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).into();
        endpoint.set_resolved(addresses.clone());
        assert_eq!((ports(&version, 4), version.addresses()), (vec![1, 2, 1, 2], 2));

        let first = pick(&version, THREAD, &[], false).expect("ready").address.port();
        let second = pick(&version, THREAD, &[endpoint.incarnation], false).expect("other address");
        assert_eq!(second.endpoint.incarnation, endpoint.incarnation);
        assert!([1, 2].contains(&first));
        assert!(pick(&version, THREAD, &[endpoint.incarnation; 2], false).is_none());

        endpoint.rest(addresses[0]);
        assert_eq!(ports(&version, 3), [2, 2, 2]);
        endpoint.rest(addresses[1]);
        assert_eq!(ports(&version, 3), [2, 2, 2], "the last address never rests");
    }
}
