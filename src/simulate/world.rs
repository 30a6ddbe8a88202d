//! What is true at a moment of a simulation: who fails how often, who is how slow, whose endpoints are there.

use std::time::Duration;

use super::scenario::{Begins, Scenario};
use super::traffic::{Latency, Traffic};
use crate::analysis::Arm;

/// What begins early begins no later than this.
const EARLY_MS: u64 = 60_000;
/// A restarted endpoint is back after so many milliseconds.
const DOWN_MS: u64 = 500;

pub struct World {
    pub traffic: Traffic,
    slowed: Latency,
    canary_errors: Option<f64>,
    stable_errors: Option<f64>,
    restarts_ms: Option<u64>,
    stable_down: bool,
    /// When something is wrong, in milliseconds; the end does not belong to it.
    begins: Option<u64>,
    lasts: Option<u64>,
    with_stage: Option<u16>,
}

impl World {
    /// `hold` is the least time of the first stage.
    pub fn new(scenario: &Scenario, traffic: &Traffic, hold: Duration) -> World {
        let mut traffic = traffic.clone();
        if let Some(rps) = scenario.rps {
            traffic = traffic.at_rps(rps);
        }
        traffic.errors = scenario.base_errors.unwrap_or(traffic.errors);
        if scenario.p50.is_some() || scenario.p95.is_some() {
            // The one that is not said keeps its distance to the other.
            let spread = traffic.latency.quantile(0.95) / traffic.latency.quantile(0.5);
            let p50 = scenario.p50.or(scenario.p95.map(|p95| p95 / spread)).unwrap_or(traffic.latency.quantile(0.5));
            traffic.latency = Latency::lognormal(p50, scenario.p95.unwrap_or(p50 * spread));
        }
        let ms = |time: Duration| time.as_millis() as u64;
        World {
            slowed: traffic.latency.slower(scenario.slowdown),
            canary_errors: scenario.canary_errors,
            stable_errors: scenario.stable_errors,
            restarts_ms: scenario.restarts.map(|period| ms(period).max(1)),
            stable_down: scenario.stable_down,
            begins: match scenario.begins {
                Begins::Early => Some(ms(hold / 2).min(EARLY_MS)),
                Begins::From(from) => Some(ms(from)),
                Begins::Stage(_) => None,
            },
            lasts: scenario.lasts.map(ms),
            with_stage: match scenario.begins {
                Begins::Early | Begins::From(_) => None,
                Begins::Stage(share) => Some(share),
            },
            traffic,
        }
    }

    /// A stage of this share begins.
    pub fn stage(&mut self, share: u16, now: u64) {
        if self.begins.is_none() && self.with_stage.is_some_and(|with| with <= share) {
            self.begins = Some(now);
        }
    }

    fn is_wrong(&self, now: u64) -> bool {
        let Some(begins) = self.begins else { return false };
        now >= begins && self.lasts.is_none_or(|lasts| now < begins + lasts)
    }

    /// The rate of failures, 0 to 1.
    pub fn errors(&self, arm: Arm, now: u64) -> f64 {
        let wrong = match arm {
            Arm::Canary => self.canary_errors,
            Arm::Stable => self.stable_errors,
        };
        wrong.filter(|_| self.is_wrong(now)).unwrap_or(self.traffic.errors)
    }

    pub fn latency(&self, arm: Arm, now: u64) -> &Latency {
        if arm == Arm::Canary && self.is_wrong(now) { &self.slowed } else { &self.traffic.latency }
    }

    pub fn stable_ready(&self, now: u64) -> bool {
        !(self.stable_down && self.is_wrong(now))
    }

    /// Which endpoint of the canary is away, of so many.
    pub fn away(&self, now: u64, endpoints: usize) -> Option<usize> {
        let (begins, period) = (self.begins?, self.restarts_ms?);
        let since = now.checked_sub(begins).filter(|_| self.is_wrong(now))?;
        (since % period < DOWN_MS.min(period / 2).max(1)).then_some((since / period) as usize % endpoints.max(1))
    }

    /// Restarts of the canary after `from`, up to `to`.
    pub fn restarts(&self, from: Option<u64>, to: u64) -> u64 {
        let (Some(begins), Some(period)) = (self.begins, self.restarts_ms) else { return 0 };
        let last = self.lasts.map_or(to, |lasts| to.min((begins + lasts).saturating_sub(1)));
        let until = |at: u64| at.checked_sub(begins).map_or(0, |since| since / period + 1);
        until(last).saturating_sub(from.map_or(0, until))
    }

    /// When anything here is different next.
    pub fn next_change(&self, now: u64) -> Option<u64> {
        let begins = self.begins?;
        let ends = self.lasts.map(|lasts| begins + lasts);
        let restart = self.restarts_ms.filter(|_| now >= begins && self.is_wrong(now)).map(|period| {
            let begun = now - (now - begins) % period;
            let back = begun + DOWN_MS.min(period / 2).max(1);
            if now < back { back } else { begun + period }
        });
        [Some(begins), ends, restart].into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(text: &str) -> World {
        World::new(&Scenario::parse(text).expect(text), &Traffic::made(100.0, 0.001, 3.0, 7.0), Duration::from_secs(40))
    }

    #[test]
    fn it_is_wrong_from_its_beginning_to_its_end() {
        let world = world("errors=5%,from=10s,for=10s");
        let rates: Vec<f64> = [0, 9_999, 10_000, 19_999, 20_000].map(|at| world.errors(Arm::Canary, at)).to_vec();
        assert_eq!(rates, [0.001, 0.001, 0.05, 0.05, 0.001]);
        assert_eq!(world.errors(Arm::Stable, 15_000), 0.001);
        let changes: Vec<Option<u64>> = [0, 10_000, 20_000].map(|at| world.next_change(at)).to_vec();
        assert_eq!(changes, [Some(10_000), Some(20_000), None]);
    }

    #[test]
    fn an_outage_falls_into_the_first_stage_and_ends() {
        let world = world("outage,for=1m");
        let changes: Vec<Option<u64>> = [0, 20_000, 80_000].map(|at| world.next_change(at)).to_vec();
        assert_eq!(changes, [Some(20_000), Some(80_000), None]);
        assert_eq!((world.errors(Arm::Stable, 30_000), world.errors(Arm::Stable, 80_000)), (1.0, 0.001));
    }

    #[test]
    fn it_begins_with_the_stage_that_was_named() {
        let mut world = world("latency=2x,after=25%");
        let median = |world: &World| world.latency(Arm::Canary, 60_000).quantile(0.5);
        world.stage(1_000, 5_000);
        assert!(median(&world) < 3.2);
        world.stage(2_500, 50_000);
        world.stage(10_000, 70_000);
        assert!(median(&world) > 5.0 && world.latency(Arm::Stable, 60_000).quantile(0.5) < 3.2);
        assert_eq!(world.next_change(0), Some(50_000), "and not with a later one");
    }

    #[test]
    fn restarts_come_one_by_one_and_take_an_endpoint_away() {
        let world = world("crashes=10s,from=5s,for=25s");
        assert_eq!(
            [world.restarts(None, 4_999), world.restarts(None, 5_000), world.restarts(Some(5_000), 15_000)],
            [0, 1, 1]
        );
        assert_eq!(world.restarts(Some(15_000), 500_000), 1, "the last at 25 s");
        let away: Vec<Option<usize>> =
            [4_000, 5_000, 5_499, 5_500, 15_000, 25_000].map(|at| world.away(at, 2)).to_vec();
        assert_eq!(away, [None, Some(0), Some(0), None, Some(1), Some(0)]);
        assert_eq!((world.next_change(5_000), world.next_change(5_500)), (Some(5_500), Some(15_000)));
    }

    #[test]
    fn what_a_scenario_sets_replaces_what_is_usual() {
        let world = world("healthy,rps=7,stable=1%,p50=20ms");
        assert_eq!((world.traffic.rps(), world.errors(Arm::Canary, 0)), (7.0, 0.01));
        let latency = |quantile| world.traffic.latency.quantile(quantile);
        assert!(
            (latency(0.5) / 20.0 - 1.0).abs() < 0.05 && (latency(0.95) / latency(0.5) / 7.0 * 3.0 - 1.0).abs() < 0.1
        );
    }
}
