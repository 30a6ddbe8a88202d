//! Panic mode: when too few endpoints of a version are ready, all of them are asked.
//!
//! The few that are left would get everybody's requests and go under too; and when most checks fail at once, the
//! checks are more likely wrong than the endpoints. So below the threshold (`panic_below`) health and ejection are
//! not asked any more; second chances still are. Nothing ready at all is always panic (see [`super::pick()`]).

use std::sync::Arc;

use super::group::VersionRuntime;
use super::pick::Picked;
use super::state::EndpointRuntime;
use crate::routing::Thread;

/// Whether so few are ready that health is not asked. With a threshold of nothing, never.
pub fn is_panic(ready: usize, all: usize, below_bp: u32) -> bool {
    ready * 10_000 < all * below_bp as usize
}

/// The next endpoint in turn of those that were not tried, ready or not; but not one that nothing is known of, or that
/// has as much as it may.
pub fn pick_any(version: &VersionRuntime, thread: Thread, avoid: &[u64]) -> Option<Picked> {
    let group = version.now();
    let turn = version.core.turn(thread);
    let usable = |endpoint: &&Arc<EndpointRuntime>| !endpoint.is_unknown() && !avoid.contains(&endpoint.incarnation);
    let count = group.endpoints.iter().filter(usable).count();
    let endpoint = group.endpoints.iter().filter(usable).nth(turn.checked_rem(count)?)?;
    let place = endpoint.take_place().ok()?;
    Some(Picked { endpoint: endpoint.clone(), place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::{Health, testing};

    #[test]
    fn below_the_threshold_is_panic() {
        for (ready, all, below_bp, panics) in [
            (0, 2, 0, false),
            (0, 2, 1, true),
            (1, 2, 5_000, false),
            (1, 2, 5_001, true),
            (0, 0, 5_000, false),
            (4, 10, 5_000, true),
            (5, 10, 5_000, false),
            (9, 10, 10_000, true),
            (10, 10, 10_000, false),
        ] {
            assert_eq!(is_panic(ready, all, below_bp), panics, "{ready} of {all} below {below_bp}");
        }
    }

    #[test]
    fn in_panic_all_take_turns() {
        let version = testing::version(&[1, 2, 3], 1);
        version.endpoints()[1].set_health(Health::Down);
        version.endpoints()[2].set_ejected(true);
        let ports = |avoid: &[u64], picks| -> Vec<u16> {
            (0..picks)
                .filter_map(|_| pick_any(&version, Thread(0), avoid))
                .map(|it| it.endpoint.ip().map_or(0, |at| at.port()))
                .collect()
        };
        assert_eq!(ports(&[], 6), [1, 2, 3, 1, 2, 3]);
        let tried = version.endpoints()[0].incarnation;
        assert!(ports(&[tried], 6).iter().all(|port| *port != 1));
        let all: Vec<u64> = version.endpoints().iter().map(|endpoint| endpoint.incarnation).collect();
        assert_eq!(ports(&all, 3), [] as [u16; 0]);
    }
}
