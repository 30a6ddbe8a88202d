//! Quantiles with a relative error of 2 %: DDSketch (Masson, Rim, Lee, VLDB 2019) with counts that can be halved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Buckets of 1 µs and of 10 000 s, in milliseconds; what is outside is counted at the end.
pub const MIN_BUCKET: i32 = -173;
pub const MAX_BUCKET: i32 = 404;

/// ln(1.02 / 0.98).
const LOG_GAMMA: f64 = 0.040_005_334_613_699_25;

/// The bucket of a latency in milliseconds.
pub fn bucket_of(ms: f64) -> i32 {
    ((ms.ln() / LOG_GAMMA).ceil() as i32).clamp(MIN_BUCKET, MAX_BUCKET)
}

/// What a bucket stands for, in milliseconds: at most 2 % from anything in it.
pub fn value_of(bucket: i32) -> f64 {
    2.0 * (LOG_GAMMA * f64::from(bucket)).exp() / (1.0 + LOG_GAMMA.exp())
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sketch {
    total: u64,
    counts: BTreeMap<i32, u64>,
}

impl Sketch {
    pub fn add(&mut self, ms: f64) {
        self.add_bucket(bucket_of(ms), 1);
    }

    pub fn add_bucket(&mut self, bucket: i32, count: u64) {
        if count > 0 {
            *self.counts.entry(bucket).or_default() += count;
            self.total += count;
        }
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    /// What was seen counts half as much from now on. Of two odd counts one is rounded up, so that the thin ends,
    /// where most buckets hold one, stay as heavy as they were.
    pub fn halve(&mut self) {
        let mut carried = 0;
        for count in self.counts.values_mut() {
            let odd = *count & 1;
            *count = *count / 2 + (odd & carried);
            carried ^= odd;
        }
        self.counts.retain(|_, count| *count > 0);
        self.total = self.counts.values().sum();
    }

    /// `None` if nothing was seen.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q * self.total as f64).ceil() as u64).max(1);
        let mut passed = 0;
        let found = self.counts.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        found.map(|(bucket, _)| value_of(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_are_a_microsecond_and_ten_thousand_seconds() {
        assert!(value_of(MIN_BUCKET) <= 0.001 && value_of(MAX_BUCKET) >= 1e7);
        assert_eq!((bucket_of(0.0), bucket_of(f64::INFINITY)), (MIN_BUCKET, MAX_BUCKET));
        assert!((LOG_GAMMA - (1.02_f64 / 0.98).ln()).abs() < 1e-15);
    }

    #[test]
    fn halving_keeps_thin_ends() {
        let mut sketch = Sketch::default();
        (0..1_000).for_each(|at| sketch.add(1.1_f64.powi(at / 10)));
        let tail = |sketch: &Sketch| sketch.quantile(0.99).expect("something was seen");
        let single: Vec<f64> = (0..100).map(|at| 1.1_f64.powi(at)).collect();
        let mut thin = Sketch::default();
        single.iter().for_each(|ms| thin.add(*ms));
        let before = (tail(&sketch), thin.count());
        sketch.halve();
        thin.halve();
        assert!((tail(&sketch) / before.0 - 1.0).abs() < 0.1, "{} of {}", tail(&sketch), before.0);
        assert_eq!(thin.count(), before.1 / 2, "counts of one do not all vanish");
    }

    proptest! {
        #[test]
        fn a_quantile_is_two_percent_off_at_most(mut seen in prop::collection::vec(0.01_f64..1e5, 1..300), q in 0.01_f64..1.0) {
            let mut sketch = Sketch::default();
            seen.iter().for_each(|ms| sketch.add(*ms));
            seen.sort_by(f64::total_cmp);
            let exact = seen[((q * seen.len() as f64).ceil() as usize).max(1) - 1];
            let found = sketch.quantile(q).expect("something was seen");
            prop_assert!((found / exact - 1.0).abs() < 0.0201, "{} for {}", found, exact);
        }
    }
}
