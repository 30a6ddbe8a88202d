//! How many requests come, how many of them fail, how long they take.

use super::dice::Dice;
use crate::analysis::{MAX_BUCKET, MIN_BUCKET, bucket_of, value_of};

/// The 95th percentile of a standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;
/// As many requests are drawn one by one; more as one histogram.
const FEW: u64 = 400;

/// What clients of a service do, and what its stable version makes of it.
#[derive(Debug, Clone)]
pub struct Traffic {
    arrivals: Arrivals,
    /// The rate of failures of a version that is well, 0 to 1.
    pub errors: f64,
    pub latency: Latency,
    /// The part of all requests that may run twice.
    pub replayable: f64,
}

#[derive(Debug, Clone)]
enum Arrivals {
    /// Independent of each other: so many a second on average.
    Steady(f64),
    /// So many until the end of each second, over and over again, sped up by a factor.
    Recorded { until: Vec<u64>, speed: f64 },
}

impl Traffic {
    /// Made traffic: requests a second, rate of failures, and latencies (lognormal) with this median and this 95th
    /// percentile in milliseconds.
    pub fn made(rps: f64, errors: f64, p50: f64, p95: f64) -> Traffic {
        Traffic { arrivals: Arrivals::Steady(rps), errors, latency: Latency::lognormal(p50, p95), replayable: 1.0 }
    }

    /// As it was: requests in each second, never empty.
    pub(super) fn recorded(per_second: &[u64], errors: f64, latency: Latency, replayable: f64) -> Traffic {
        let mut sum = 0;
        let until = per_second
            .iter()
            .map(|count| {
                sum += count;
                sum
            })
            .collect();
        Traffic { arrivals: Arrivals::Recorded { until, speed: 1.0 }, errors, latency, replayable }
    }

    /// Requests a second, on average.
    pub fn rps(&self) -> f64 {
        match &self.arrivals {
            Arrivals::Steady(rps) => *rps,
            Arrivals::Recorded { until, speed } => {
                until.last().map_or(0.0, |all| *all as f64 / until.len() as f64) * speed
            }
        }
    }

    /// The same traffic, but so many requests a second on average.
    pub fn at_rps(mut self, wanted: f64) -> Traffic {
        let now = self.rps();
        match &mut self.arrivals {
            Arrivals::Steady(rps) => *rps = wanted,
            Arrivals::Recorded { speed, .. } => *speed *= if now > 0.0 { wanted / now } else { 1.0 },
        }
        self
    }

    /// Requests between two times in milliseconds.
    pub(super) fn arrivals(&self, from: u64, to: u64, dice: &mut Dice) -> u64 {
        match &self.arrivals {
            Arrivals::Steady(rps) => dice.poisson(rps * (to - from) as f64 / 1e3),
            Arrivals::Recorded { until, speed } => {
                let so_far = |ms| (all_until(until, ms) * speed) as u64;
                so_far(to) - so_far(from)
            }
        }
    }
}

/// Requests of a recording until a time in milliseconds; a second's are spread evenly over it.
fn all_until(until: &[u64], ms: u64) -> f64 {
    let (second, rest) = (ms / 1_000, ms % 1_000);
    let length = until.len() as u64;
    let (rounds, at) = (second / length, (second % length) as usize);
    let before = if at == 0 { 0 } else { until[at - 1] };
    let all = until.last().copied().unwrap_or(0);
    (rounds * all + before) as f64 + (until[at] - before) as f64 * rest as f64 / 1e3
}

/// How long requests take: the probability of each bucket of [`crate::analysis::Sketch`].
#[derive(Debug, Clone)]
pub struct Latency {
    /// Buckets in order, each with its own probability and that of all up to it.
    buckets: Vec<(i32, f64, f64)>,
}

impl Latency {
    pub fn lognormal(p50: f64, p95: f64) -> Latency {
        let (middle, spread) = (p50.ln(), ((p95 / p50).ln() / Z95).max(1e-3));
        let density = |bucket: i32| (-0.5 * ((value_of(bucket).ln() - middle) / spread).powi(2)).exp();
        // Never empty: the bucket of the median is always there.
        let near = (MIN_BUCKET..=MAX_BUCKET).map(|bucket| (bucket, density(bucket)));
        Latency::of(near.filter(|(_, weight)| *weight > 1e-9).chain([(bucket_of(p50), 1e-9)]))
    }

    /// From weights, in any order and of any sum above 0.
    pub(super) fn of(weights: impl Iterator<Item = (i32, f64)>) -> Latency {
        let mut by_bucket = std::collections::BTreeMap::new();
        for (bucket, weight) in weights {
            *by_bucket.entry(bucket.clamp(MIN_BUCKET, MAX_BUCKET)).or_insert(0.0) += weight;
        }
        let all: f64 = by_bucket.values().sum();
        let mut passed = 0.0;
        let bucket = |(bucket, weight): (i32, f64)| {
            passed += weight / all;
            (bucket, weight / all, passed)
        };
        Latency { buckets: by_bucket.into_iter().map(bucket).collect() }
    }

    /// Every request takes `times` as long.
    pub fn slower(&self, times: f64) -> Latency {
        let width = (value_of(1) / value_of(0)).ln();
        let shift = times.ln() / width;
        let (whole, rest) = (shift.floor(), shift - shift.floor());
        // What falls between two buckets is shared between them.
        let moved = self.buckets.iter().flat_map(|(bucket, weight, _)| {
            let to = bucket + whole as i32;
            [(to, weight * (1.0 - rest)), (to + 1, weight * rest)]
        });
        Latency::of(moved.filter(|(_, weight)| *weight > 0.0))
    }

    /// In milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let found = self.buckets.iter().find(|(_, _, passed)| *passed >= quantile).or(self.buckets.last());
        found.map_or(0.0, |(bucket, _, _)| value_of(*bucket))
    }

    /// So many requests: bucket and count, in order.
    pub(super) fn draw(&self, mut many: u64, dice: &mut Dice, into: &mut Vec<(i32, u64)>) {
        into.clear();
        if many <= FEW {
            let mut drawn = Vec::with_capacity(many as usize);
            for _ in 0..many {
                let part = dice.part();
                let at = self.buckets.partition_point(|(_, _, passed)| *passed < part);
                drawn.push(at.min(self.buckets.len() - 1));
            }
            drawn.sort_unstable();
            for run in drawn.chunk_by(|one, other| one == other) {
                into.push((self.buckets[run[0]].0, run.len() as u64));
            }
            return;
        }
        let mut left = 1.0;
        for (bucket, weight, _) in &self.buckets {
            let count = if left > *weight { dice.binomial(many, weight / left) } else { many };
            if count > 0 {
                into.push((*bucket, count));
            }
            many -= count;
            left -= weight;
            if many == 0 {
                return;
            }
        }
        if let Some(last) = into.last_mut() {
            last.1 += many;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_quantiles_they_were_made_with() {
        let latency = Latency::lognormal(3.0, 7.0);
        for (quantile, wanted) in [(0.5, 3.0), (0.95, 7.0)] {
            assert!((latency.quantile(quantile) / wanted - 1.0).abs() < 0.04, "{}", latency.quantile(quantile));
            let slower = latency.slower(1.5).quantile(quantile);
            assert!((slower / wanted / 1.5 - 1.0).abs() < 0.06, "{slower}");
        }
        let narrow = Latency::lognormal(5.0, 5.0);
        assert!((narrow.quantile(0.99) / 5.0 - 1.0).abs() < 0.05, "{}", narrow.quantile(0.99));
    }

    #[test]
    fn few_and_many_requests_are_drawn_alike_and_none_is_lost() {
        let latency = Latency::lognormal(3.0, 7.0);
        let mut dice = Dice::new(1);
        let mut drawn = Vec::new();
        for many in [0, 1, FEW, FEW + 1, 100_000] {
            latency.draw(many, &mut dice, &mut drawn);
            assert_eq!(drawn.iter().map(|(_, count)| count).sum::<u64>(), many);
            assert!(drawn.is_sorted_by(|one, other| one.0 < other.0));
        }
        let below: u64 = drawn.iter().filter(|(bucket, _)| value_of(*bucket) < 3.0).map(|(_, count)| count).sum();
        assert!((below as f64 / 100_000.0 - 0.5).abs() < 0.03, "{below}");
    }

    #[test]
    fn recorded_traffic_comes_as_it_came_over_and_over_again() {
        let traffic = Traffic::recorded(&[10, 0, 30], 0.0, Latency::lognormal(3.0, 7.0), 1.0);
        let mut dice = Dice::new(1);
        let between = |traffic: &Traffic, from, to| traffic.arrivals(from, to, &mut Dice::new(1));
        for (from, to, wanted) in
            [(0, 1_000, 10), (1_000, 2_000, 0), (2_000, 2_500, 15), (0, 3_000, 40), (3_000, 4_000, 10)]
        {
            assert_eq!(between(&traffic, from, to), wanted, "{from}-{to}");
        }
        assert_eq!(traffic.arrivals(0, 3_600_000, &mut dice), 48_000);
        let doubled = traffic.clone().at_rps(2.0 * traffic.rps());
        assert_eq!(between(&doubled, 2_000, 3_000), 60);
    }
}
