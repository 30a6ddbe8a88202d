//! T1 and T2: healthy canaries that are rolled back, and how many requests it takes to see a bad one.

use switchback::analysis::{Arm, ErrorJudge, ErrorLimits, Verdict, bake_limit};

use crate::Effort;
use crate::dice::{Dice, runs};
use crate::table::Report;

pub const STAGES: [f64; 5] = [0.05, 0.10, 0.25, 0.50, 1.0];

/// What was ever reached in a rollout.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    pub absolute: bool,
    pub relative: bool,
    pub both: bool,
    pub bake: bool,
    pub hold: bool,
}

impl Reached {
    pub fn rolled_back(self) -> bool {
        self.both || self.bake
    }
}

pub fn judge(slo: f64) -> ErrorJudge {
    ErrorJudge::new(ErrorLimits { slo, ..ErrorLimits::default() })
}

/// A judge, and what it knows of an arm: successes are told when a failure comes, as in production.
pub struct Watched {
    pub judge: ErrorJudge,
    told: [u64; 2],
    pub reached: Reached,
}

impl Watched {
    pub fn new(slo: f64) -> Watched {
        Watched { judge: judge(slo), told: [0; 2], reached: Reached::default() }
    }

    fn told(&mut self, arm: Arm) -> &mut u64 {
        &mut self.told[usize::from(arm == Arm::Canary)]
    }

    /// All requests of an arm before number `until` (from 1) were good.
    pub fn good_before(&mut self, arm: Arm, until: u64) {
        let told = self.told(arm);
        let many = until.saturating_sub(1).saturating_sub(*told);
        *told += many;
        self.judge.succeeded(arm, many);
    }

    pub fn failed(&mut self, arm: Arm, pi: f64) {
        *self.told(arm) += 1;
        self.judge.failed(arm, pi);
        if arm == Arm::Canary {
            self.look(pi);
        }
    }

    fn look(&mut self, pi: f64) {
        let meters = self.judge.meters();
        let limit = ErrorLimits::default().rollback_at;
        let verdict = self.judge.verdict();
        if pi >= 1.0 {
            self.reached.bake |= verdict == Verdict::RollBack;
            return;
        }
        self.reached.absolute |= meters.e_abs >= limit;
        self.reached.relative |= meters.e_rel >= limit;
        self.reached.both |= verdict == Verdict::RollBack;
        self.reached.hold |= verdict != Verdict::Continue;
    }
}

/// A whole rollout, looked at after every failure.
fn rollout(dice: &mut Dice, stable: f64, canary: f64, per_stage: u64, slo: f64) -> Reached {
    let mut watched = Watched::new(slo);
    let mut before = [0, 0];
    for pi in STAGES {
        watched.judge.set_share(pi);
        let of_canary = (per_stage as f64 * pi).round() as u64;
        let many = [per_stage - of_canary, of_canary];
        let rates = [stable, canary];
        let mut next = [dice.gap(rates[0]), dice.gap(rates[1])];
        loop {
            // Both arms are spread evenly over the stage.
            let when = |at: usize| {
                if next[at] > many[at] { f64::INFINITY } else { next[at] as f64 / many[at] as f64 }
            };
            let (arm, at) = if when(1) <= when(0) { (Arm::Canary, 1) } else { (Arm::Stable, 0) };
            if when(at).is_infinite() {
                break;
            }
            watched.good_before(arm, before[at] + next[at]);
            watched.failed(arm, pi);
            next[at] += dice.gap(rates[at]);
        }
        for (at, arm) in [Arm::Stable, Arm::Canary].into_iter().enumerate() {
            before[at] += many[at];
            watched.good_before(arm, before[at] + 1);
        }
    }
    watched.reached
}

type Which = fn(&Reached) -> bool;

fn counted(all: &[Reached], which: impl Fn(&Reached) -> bool) -> (usize, usize) {
    (all.iter().filter(|reached| which(reached)).count(), all.len())
}

/// T1: 5 stages of 100 000 requests, with the same rate in both arms.
pub fn healthy(report: &mut Report, effort: Effort) {
    let slo = ErrorLimits::default().slo;
    let raised = bake_limit(slo, 1.25, 10_000, 1_000_000);
    report.title("T1: healthy rollouts, 5 stages x 100 000 requests, judged at every request: what was ever reached");
    for (name, rate, slo, reference) in [
        ("0.01 %", 1e-4, slo, [0.0, 0.0004, 0.0, 0.0, 0.0, 0.0005]),
        ("0.1 %", 1e-3, slo, [0.0034, 0.0003, 0.0003, 0.0002, 0.0005, 0.0074]),
        ("1 %", 1e-2, slo, [1.0, 0.0006, 0.0006, 0.0002, 0.0008, 1.0]),
        ("1 %, limit raised", 1e-2, raised, [0.0002, 0.0003, 0.0, 0.0010, 0.0010, 0.0038]),
    ] {
        let all = runs(effort.runs(10_000), 11, |dice| rollout(dice, rate, rate, 100_000, slo));
        let columns: [(&str, Which); 6] = [
            ("absolute test", |reached| reached.absolute),
            ("relative test", |reached| reached.relative),
            ("both at once", |reached| reached.both),
            ("at 100 %", |reached| reached.bake),
            ("rolled back", |reached| reached.rolled_back()),
            ("hold", |reached| reached.hold),
        ];
        for ((what, which), reference) in columns.into_iter().zip(reference) {
            report.share(&format!("{name}: {what}"), counted(&all, which), reference, 10_000);
        }
        report.at_most(&format!("{name}: FALSE ROLLBACK"), counted(&all, |it| it.rolled_back()), 0.001);
    }
    report.title("T1b: a canary exactly at the tolerated limit, 5 stages x 50 000 requests: rolled back");
    for (name, stable, canary, reference) in
        [("0.08 % and 0.10 %", 8e-4, 1e-3, 0.0010), ("1.00 % and 1.25 %", 1e-2, 1.25e-2, 0.0030)]
    {
        let all = runs(effort.runs(4_000), 14, |dice| rollout(dice, stable, canary, 50_000, slo));
        report.share(name, counted(&all, |it| it.rolled_back()), reference, 4_000);
    }
}

/// Canary requests until the rollback, from the change on. The canary has the rate `before` for its first `healthy`
/// requests.
fn detect(dice: &mut Dice, (stable, canary): (f64, f64), pi: f64, healthy: u64, longest: u64) -> Option<u64> {
    let mut watched = Watched::new(ErrorLimits::default().slo);
    watched.judge.set_share(pi);
    let after = |dice: &mut Dice, now: u64| {
        let next = now + dice.gap(1e-4);
        if now >= healthy || next > healthy { now.max(healthy) + dice.gap(canary) } else { next }
    };
    let (mut at_canary, mut at_stable) = (after(dice, 0), dice.gap(stable));
    while at_canary <= healthy + longest {
        if at_canary as f64 / pi <= at_stable as f64 / (1.0 - pi) {
            watched.good_before(Arm::Canary, at_canary);
            watched.failed(Arm::Canary, pi);
            if watched.reached.both {
                return at_canary.checked_sub(healthy);
            }
            at_canary = after(dice, at_canary);
        } else {
            watched.failed(Arm::Stable, pi);
            at_stable += dice.gap(stable);
        }
    }
    None
}

const RATES: [(f64, &str); 6] =
    [(0.002, "0.2 %"), (0.005, "0.5 %"), (0.01, "1 %"), (0.05, "5 %"), (0.5, "50 %"), (1.0, "100 %")];

type Row = (f64, f64, [Option<(f64, f64)>; 6]);

/// Weight, rate of stable, and the reference's median and 95th percentile by rate of the canary.
const DETECTION: [Row; 8] = [
    (
        0.05,
        1e-4,
        [
            Some((16_748.0, 39_306.0)),
            Some((1_610.0, 3_961.0)),
            Some((460.0, 1_244.0)),
            Some((55.0, 147.0)),
            Some((6.0, 10.0)),
            Some((3.0, 3.0)),
        ],
    ),
    (
        0.05,
        1e-3,
        [
            Some((36_497.0, 82_863.0)),
            Some((2_221.0, 5_436.0)),
            Some((626.0, 1_591.0)),
            Some((66.0, 168.0)),
            Some((6.0, 11.0)),
            Some((3.0, 3.0)),
        ],
    ),
    (0.05, 1e-2, [None, None, None, Some((225.0, 525.0)), Some((7.0, 14.0)), Some((3.0, 4.0))]),
    (
        0.10,
        1e-4,
        [
            Some((16_590.0, 38_542.0)),
            Some((1_621.0, 4_051.0)),
            Some((461.0, 1_280.0)),
            Some((75.0, 163.0)),
            Some((7.0, 13.0)),
            Some((4.0, 4.0)),
        ],
    ),
    (
        0.25,
        1e-4,
        [
            Some((16_851.0, 40_452.0)),
            Some((1_678.0, 3_920.0)),
            Some((587.0, 1_338.0)),
            Some((113.0, 213.0)),
            Some((12.0, 18.0)),
            Some((6.0, 6.0)),
        ],
    ),
    (
        0.50,
        1e-4,
        [
            Some((16_330.0, 41_313.0)),
            Some((2_488.0, 4_656.0)),
            Some((1_190.0, 1_997.0)),
            Some((235.0, 369.0)),
            Some((24.0, 33.0)),
            Some((12.0, 12.0)),
        ],
    ),
    (
        0.50,
        1e-3,
        [
            Some((81_684.0, 181_346.0)),
            Some((5_495.0, 12_205.0)),
            Some((1_728.0, 3_759.0)),
            Some((246.0, 438.0)),
            Some((24.0, 33.0)),
            Some((12.0, 12.0)),
        ],
    ),
    (0.50, 1e-2, [None, None, None, Some((539.0, 1_198.0)), Some((25.0, 41.0)), Some((12.0, 17.0))]),
];

/// T2: how soon a bad canary is rolled back.
pub fn detection(report: &mut Report, effort: Effort) {
    report.title("T2: canary requests until the rollback");
    for (pi, stable, row) in DETECTION {
        for ((rate, name), reference) in RATES.into_iter().zip(row) {
            let Some(reference) = reference else { continue };
            let all = runs(effort.runs(20_000), 21, |dice| detect(dice, (stable, rate), pi, 0, 400_000));
            report.delays(
                &format!("{} %, stable {} %, canary {name}", pi * 100.0, stable * 100.0),
                &all,
                reference,
                2_000,
                1.0,
            );
        }
    }
    report.title("T2b: the same after 100 000 healthy canary requests (5 %, stable 0.01 %): requests since the change");
    for ((rate, name), median) in RATES.into_iter().skip(1).zip([3_981.0, 1_194.0, 141.0, 11.0, 6.0]) {
        let all = runs(effort.runs(10_000), 22, |dice| detect(dice, (1e-4, rate), 0.05, 100_000, 150_000));
        report.median(&format!("canary {name}"), &all, median, 500);
    }
}
