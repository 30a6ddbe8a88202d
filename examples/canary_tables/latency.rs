//! T5: how many canary requests it takes to hold a slow canary, and how often one is held that may be as slow.

use switchback::analysis::{LEVELS, LatencyJudge, MARGIN, Sketch};

use crate::Effort;
use crate::dice::{Dice, runs};
use crate::table::Report;

/// Milliseconds: stable's median.
const MEDIAN: f64 = 4.0;
/// Requests between two looks at stable's quantiles.
const CHUNK: usize = 1_000;
/// Stable's requests before the rollout.
const BEFORE: usize = 2_000;
const LONGEST: u64 = 20_000;

/// What is wrong with the canary.
#[derive(Debug, Clone, Copy)]
enum Slow {
    /// Every request takes so many times as long.
    All(f64),
    /// One in ten takes five times as long.
    Tail,
}

/// Canary requests until the hold. `tick`: counters are handed over after so many requests; 0 is at once.
fn hold(dice: &mut Dice, sigma: f64, slow: Slow, pi: f64, tick: usize) -> Option<u64> {
    let mut judge = LatencyJudge::new();
    let mut stable = Sketch::default();
    let draw = |dice: &mut Dice| MEDIAN * (sigma * dice.normal()).exp();
    (0..BEFORE).for_each(|_| stable.add(draw(dice)));
    let (mut seen, mut waiting) = (0, [(0, 0); 3]);
    while seen < LONGEST {
        let thresholds = LEVELS.map(|(quantile, _)| stable.quantile(quantile).expect("stable has been seen"));
        for at in 1..=CHUNK {
            let is_canary = dice.hits(pi);
            let mut ms = draw(dice);
            if is_canary {
                seen += 1;
                ms *= match slow {
                    Slow::All(times) => times,
                    Slow::Tail if dice.hits(0.1) => 5.0,
                    Slow::Tail => 1.0,
                };
            } else {
                stable.add(ms);
            }
            let compared = if is_canary { ms / MARGIN } else { ms };
            let mut flags = 0;
            for (level, threshold) in thresholds.iter().enumerate() {
                let is_above = compared > *threshold;
                flags |= u8::from(is_above) << level;
                waiting[level].0 += u64::from(is_above && is_canary);
                waiting[level].1 += u64::from(is_above);
            }
            if tick == 0 {
                judge.observe(is_canary, flags, pi);
            } else if at % tick == 0 {
                for (level, (canary, all)) in std::mem::take(&mut waiting).into_iter().enumerate() {
                    judge.batch(level, canary, all, pi);
                }
            }
            let is_look = if tick == 0 { is_canary && flags > 0 } else { at % tick == 0 };
            if is_look && judge.is_holding() {
                return Some(seen);
            }
        }
        stable.halve();
    }
    None
}

/// Whether a canary exactly [`MARGIN`] times as slow is ever held in 16 000 requests.
fn false_hold(dice: &mut Dice, pi: f64) -> bool {
    let mut judge = LatencyJudge::new();
    (0..8_000).any(|_| {
        // Every request here is above the median; one in ten of them above p95, one in fifty above p99.
        let (is_canary, height) = (dice.hits(pi), dice.part());
        let flags = 1 | u8::from(height < 0.1) << 1 | u8::from(height < 0.02) << 2;
        judge.observe(is_canary, flags, pi);
        is_canary && judge.is_holding()
    })
}

/// The same with counters handed over every 200 requests, for 40 000 requests.
fn false_hold_in_batches(dice: &mut Dice, pi: f64) -> bool {
    let mut judge = LatencyJudge::new();
    (0..200).any(|_| {
        for (level, (quantile, _)) in LEVELS.into_iter().enumerate() {
            let all = dice.binomial(200, 1.0 - quantile);
            judge.batch(level, dice.binomial(all, pi), all, pi);
        }
        judge.is_holding()
    })
}

/// Spread, share, tick, and the reference's median and 95th percentile for 1.5x, 2x, 3x, and a slow tail.
type Row = (f64, f64, usize, [(f64, f64); 4], usize);

const HOLDS: [Row; 6] = [
    (0.5, 0.05, 0, [(173.0, 420.0), (28.0, 69.0), (8.0, 17.0), (102.0, 233.0)], 300),
    (0.5, 0.50, 0, [(344.0, 871.0), (66.0, 134.0), (22.0, 40.0), (233.0, 476.0)], 400),
    (1.0, 0.05, 0, [(914.0, 2_401.0), (138.0, 298.0), (35.0, 83.0), (1_005.0, 2_313.0)], 300),
    (1.0, 0.50, 0, [(1_774.0, 4_930.0), (268.0, 609.0), (83.0, 167.0), (1_963.0, 4_400.0)], 400),
    (0.5, 0.05, 200, [(197.0, 423.0), (36.0, 75.0), (14.0, 26.0), (109.0, 248.0)], 300),
    (1.0, 0.05, 200, [(977.0, 2_401.0), (151.0, 309.0), (45.0, 94.0), (1_016.0, 2_315.0)], 300),
];

pub fn holds(report: &mut Report, effort: Effort) {
    report.title("T5: canary requests until the hold (latencies lognormal)");
    let kinds =
        [(Slow::All(1.5), "1.5x"), (Slow::All(2.0), "2x"), (Slow::All(3.0), "3x"), (Slow::Tail, "10 % 5x slower")];
    for (sigma, pi, tick, row, reference_runs) in HOLDS {
        for ((slow, name), reference) in kinds.into_iter().zip(row) {
            let all = runs(effort.runs(4_000), 51, |dice| hold(dice, sigma, slow, pi, tick));
            let batch = if tick > 0 { format!(", every {tick}") } else { String::new() };
            report.delays(
                &format!("sigma {sigma:.1}, {} %{batch}: {name}", pi * 100.0),
                &all,
                reference,
                reference_runs,
                1.0,
            );
        }
    }
    report.title("T5c: a canary exactly 1.2 times as slow that is held (at most 1 %)");
    for (pi, reference) in [(0.05, 0.0042), (0.5, 0.0070)] {
        let all = runs(effort.runs(6_000), 55, |dice| false_hold(dice, pi));
        let held = (all.iter().filter(|held| **held).count(), all.len());
        report.share(&format!("{} %", pi * 100.0), held, reference, 6_000);
        report.at_most(&format!("{} %", pi * 100.0), held, 0.01);
        let all = runs(effort.runs(6_000), 56, |dice| false_hold_in_batches(dice, pi));
        let held = (all.iter().filter(|held| **held).count(), all.len());
        report.at_most(&format!("{} %, every 200 requests", pi * 100.0), held, 0.01);
    }
}
