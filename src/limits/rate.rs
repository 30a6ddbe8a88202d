//! How often each client may ask: the generic cell rate algorithm (crate `governor`) over a table of bounded size.
//!
//! A client that has not asked for a while is forgotten, because it is as good as new. When a shard is full all the same, new
//! clients of it share sixteen buckets: a flood of addresses limits itself, and those that were there first are not hurt.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::Who;
use super::shards::{SHARDS, Shards};
use crate::config::model::{RateKey, RateLimit};

/// Clients that are told apart, all shards together: some 8 MiB.
const KEYS_MAX: usize = 256 * 1024;
const KEYS_PER_SHARD: usize = KEYS_MAX / SHARDS;
/// Buckets that newcomers to a full shard share.
const SHARED: u64 = 16;

/// One limit of one service or route.
pub struct Rates<C: Clock = MonotonicClock> {
    pub policy: RateLimit,
    limiter: RateLimiter<u64, Table, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    /// For values of headers: a client cannot find one that has the bucket of another.
    hasher: RandomState,
}

/// The request comes too early by so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooEarly(pub Duration);

impl TooEarly {
    /// For `Retry-After`: whole seconds, at least one.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

impl Rates {
    pub fn new(policy: &RateLimit) -> Rates {
        Rates::with_clock(policy, MonotonicClock)
    }
}

impl<C: Clock + Clone> Rates<C> {
    pub fn with_clock(policy: &RateLimit, clock: C) -> Rates<C> {
        let one = (policy.per / policy.count.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(one).expect("a period is not zero").allow_burst(policy.burst);
        let limiter = RateLimiter::new(quota, Table::default(), clock.clone());
        Rates { policy: policy.clone(), limiter, clock, hasher: RandomState::new() }
    }

    /// One request of this client; `header`: looks a field of it up. Without the header that is asked for, a client is its
    /// address.
    pub fn ask<'h>(
        &self,
        client: Who,
        header: impl FnOnce(&http::HeaderName) -> Option<&'h [u8]>,
    ) -> Result<(), TooEarly> {
        let key = match &self.policy.key {
            RateKey::ClientIp => client.0,
            RateKey::Header(name) => header(name).map_or(client.0, |value| self.hasher.hash_one(value)),
        };
        self.limiter.check_key(&key).map_err(|not| TooEarly(not.wait_time_from(self.clock.now())))
    }

    /// Forgets the clients of one shard that are as good as new; the next call looks at the next shard.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
    }

    /// Clients that are told apart now.
    pub fn clients(&self) -> usize {
        self.limiter.len()
    }
}

impl<C: Clock> std::fmt::Debug for Rates<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// By key: when its bucket is full again.
#[derive(Default)]
struct Table {
    shards: Shards<Nanos>,
    swept: AtomicUsize,
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shards.of(*key);
        if let Some(state) = shard.get_mut(key) {
            let (outcome, next) = decide(Some(*state))?;
            *state = next;
            return Ok(outcome);
        }
        let key = if shard.len() < KEYS_PER_SHARD { *key } else { u64::MAX - key % SHARED };
        let (outcome, next) = decide(shard.get(&key).copied())?;
        shard.insert(key, next);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<u64> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut shard = self.shards.nth(self.swept.fetch_add(1, Ordering::Relaxed));
        shard.retain(|_, full_at| *full_at > drop_below);
        if shard.capacity() > 2 * shard.len().max(64) {
            shard.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.shards.count()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn limit(count: u32, per: Duration, burst: u32) -> RateLimit {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        RateLimit { key: RateKey::ClientIp, count: number(count), per, burst: number(burst) }
    }

    fn rates(count: u32, per: Duration, burst: u32) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Rates::with_clock(&limit(count, per, burst), clock.clone()), clock)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate_then_forgotten() {
        let (rates, clock) = rates(10, SECOND, 5);
        let ask = |who: u64| rates.ask(Who(who), |_| None);
        let burst: Vec<bool> = (0..7).map(|_| ask(1).is_ok()).collect();
        assert_eq!(burst, [true, true, true, true, true, false, false]);
        assert_eq!(ask(1).map_err(|early| (early.0, early.seconds())), Err((Duration::from_millis(100), 1)));
        assert!(ask(2).is_ok(), "another client has its own");
        clock.advance(Duration::from_millis(100));
        assert_eq!([ask(1).is_ok(), ask(1).is_ok()], [true, false]);
        clock.advance(Duration::from_secs(60));
        for _ in 0..SHARDS {
            rates.sweep();
        }
        assert_eq!(rates.clients(), 0);
        assert_eq!((0..7).filter(|_| ask(1).is_ok()).count(), 5);
    }

    #[test]
    fn a_client_that_waits_is_not_forgotten() {
        let (rates, _clock) = rates(1, Duration::from_secs(3600), 1);
        assert!(rates.ask(Who(7), |_| None).is_ok());
        for _ in 0..2 * SHARDS {
            rates.sweep();
        }
        let early = rates.ask(Who(7), |_| None).expect_err("an hour has not passed");
        assert_eq!(early.seconds(), 3600);
    }

    #[test]
    fn a_flood_of_clients_is_bounded_and_hurts_nobody_who_was_there() {
        let (rates, clock) = rates(1, Duration::from_secs(3600), 2);
        assert!(rates.ask(Who(1), |_| None).is_ok());
        let mut passed = 0;
        for nth in 0..2 * KEYS_MAX as u64 {
            passed += usize::from(rates.ask(Who(nth + 1000), |_| None).is_ok());
        }
        let most = KEYS_MAX + SHARDS * SHARED as usize;
        assert!(rates.clients() <= most, "{}", rates.clients());
        assert!(passed <= 2 * most, "newcomers share: {passed}");
        assert!(rates.ask(Who(1), |_| None).is_ok(), "its second of two");
        clock.advance(Duration::from_secs(100_000));
        (0..SHARDS).for_each(|_| rates.sweep());
        assert_eq!(rates.clients(), 0);
    }

    #[test]
    fn by_header_and_without_it_by_address() {
        let (rates, _clock) = {
            let clock = FakeRelativeClock::default();
            let key = RateKey::Header(http::HeaderName::from_static("x-api-key"));
            (Rates::with_clock(&RateLimit { key, ..limit(1, SECOND, 1) }, clock.clone()), clock)
        };
        let ask = |who: u64, key: Option<&'static str>| rates.ask(Who(who), |_| key.map(str::as_bytes)).is_ok();
        assert_eq!([ask(1, Some("a")), ask(2, Some("a")), ask(1, Some("b"))], [true, false, true]);
        assert_eq!([ask(1, None), ask(1, None), ask(2, None)], [true, false, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn never_more_than_burst_and_rate_allow(
            count in 1..200_u32, burst in 1..50_u32, waits in prop::collection::vec(0..2_000_u64, 1..200),
        ) {
            let (rates, clock) = rates(count, SECOND, burst);
            let (mut passed, mut now) = (0_u64, 0_u64);
            for wait in waits {
                clock.advance(Duration::from_micros(wait * 100));
                now += wait * 100;
                passed += u64::from(rates.ask(Who(1), |_| None).is_ok());
                let most = u64::from(burst) + now * u64::from(count) / 1_000_000 + 1;
                prop_assert!(passed <= most, "{} in {} us", passed, now);
            }
        }
    }
}
