//! How far an endpoint is trusted that comes and goes.
//!
//! The first time that it goes out costs nothing but the checks it must pass. Each further time, while the one
//! before is not forgotten, it must pass for twice as long before it gets traffic again, up to a limit; a time is
//! forgotten after as long as the limit without another. So a flapping endpoint soon changes its traffic no more
//! often than the limit, and one that failed twice in a year is treated as any other.
//!
//! Pure: the clock is handed in.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flaps {
    times: u32,
    last: Option<Instant>,
}

impl Flaps {
    /// It lost its traffic.
    pub fn went_out(&mut self, now: Instant, limit: Duration) {
        self.forget(now, limit);
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
    }

    /// How long it must pass before it is trusted. `step`: what the second time costs.
    pub fn must_pass_for(&mut self, now: Instant, step: Duration, limit: Duration) -> Duration {
        self.forget(now, limit);
        match self.times {
            0 | 1 => Duration::ZERO,
            times => step.saturating_mul(1 << (times - 2).min(16)).min(limit),
        }
    }

    fn forget(&mut self, now: Instant, limit: Duration) {
        let Some(last) = self.last else { return };
        if limit.is_zero() {
            *self = Flaps::default();
            return;
        }
        let calm = now.saturating_duration_since(last).as_millis() / limit.as_millis().max(1);
        let forgotten = u32::try_from(calm).unwrap_or(u32::MAX).min(self.times);
        self.times -= forgotten;
        self.last = (self.times > 0).then(|| last + limit * forgotten);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_secs(4);
    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn each_time_costs_twice_as_much_until_it_is_forgotten() {
        let begin = Instant::now();
        let mut flaps = Flaps::default();
        let mut costs = Vec::new();
        // Seconds at which it goes out, and what it must pass for right after.
        for second in [0, 10, 20, 30, 40, 50, 55, 200, 900] {
            let now = begin + Duration::from_secs(second);
            flaps.went_out(now, LIMIT);
            costs.push(flaps.must_pass_for(now, STEP, LIMIT).as_secs());
        }
        // 145 s without another forget two of seven; 700 s forget all.
        assert_eq!(costs, [0, 4, 8, 16, 32, 60, 60, 60, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_is_damped() {
        let (now, mut flaps) = (Instant::now(), Flaps::default());
        for _ in 0..50 {
            flaps.went_out(now, Duration::ZERO);
            assert_eq!(flaps.must_pass_for(now, STEP, Duration::ZERO), Duration::ZERO);
        }
    }

    proptest! {
        /// However it flaps: once it is out for the third time in a row, the time between two returns never shrinks
        /// below the cost, and the cost never exceeds the limit.
        #[test]
        fn costs_stay_between_nothing_and_the_limit(pauses in proptest::collection::vec(0_u64..100, 1..200)) {
            let (mut now, mut flaps) = (Instant::now(), Flaps::default());
            let mut before = 0;
            for pause in pauses {
                now += Duration::from_secs(pause);
                flaps.went_out(now, LIMIT);
                let cost = flaps.must_pass_for(now, STEP, LIMIT);
                prop_assert!(cost <= LIMIT);
                // Within the limit of the time before nothing is forgotten.
                prop_assert!(pause >= LIMIT.as_secs() || flaps.times > before);
                before = flaps.times;
            }
        }
    }
}
