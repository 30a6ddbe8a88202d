//! T6: what must not roll a canary back: a shared incident, one broken client, one broken connection.

use std::collections::BTreeSet;

use switchback::analysis::{Arm, EProc, ErrorLimits, Grid, Verdict, theta0};
use switchback::routing::is_first;

use crate::Effort;
use crate::dice::{Dice, runs};
use crate::errors::{Reached, Watched, judge};
use crate::table::Report;

/// A rollout of stages of 20 000 requests in which both arms fail at `rate` for 2 000 requests of the 10 % stage.
fn incident(dice: &mut Dice, rate: f64) -> Reached {
    const HEALTHY: f64 = 1e-4;
    let mut watched = Watched::new(ErrorLimits::default().slo);
    let mut seen = [0, 0];
    for pi in [0.05, 0.10, 0.25, 0.50] {
        watched.judge.set_share(pi);
        for at in 0..20_000 {
            let (arm, index) = if dice.hits(pi) { (Arm::Canary, 1) } else { (Arm::Stable, 0) };
            seen[index] += 1;
            let now = if pi == 0.10 && (5_000..7_000).contains(&at) { (HEALTHY + rate).min(1.0) } else { HEALTHY };
            if dice.hits(now) {
                watched.good_before(arm, seen[index]);
                watched.failed(arm, pi);
            }
        }
    }
    watched.reached
}

/// The greatest relative evidence while everything fails in both arms and the split is exact.
fn greatest(weight: u64) -> f64 {
    let pi = weight as f64 / 10_000.0;
    let mut greatest: f64 = 0.0;
    for salt in 0..20 {
        let mut test = EProc::new(Grid::Against);
        for at in 0..4_000 {
            test.update(is_first(at, weight, 10_000, salt), theta0(pi, ErrorLimits::default().rho));
            greatest = greatest.max(test.value());
        }
    }
    greatest
}

/// One broken client of 2 000 fails 300 times among 20 000 requests at 5 %: rolled back when each of its failures
/// counts, and when each client counts once.
fn broken_client(dice: &mut Dice) -> (bool, bool) {
    const CLIENTS: usize = 2_000;
    let mut canary = BTreeSet::new();
    while canary.len() < CLIENTS / 20 {
        canary.insert(dice.below(CLIENTS));
    }
    let others = dice.binomial(20_000, 5e-4);
    let broken = dice.below(CLIENTS);
    let mut failures: Vec<(f64, usize)> = (0..others).map(|_| (dice.part(), dice.below(CLIENTS))).collect();
    failures.extend((0..300).map(|_| (dice.part(), broken)));
    failures.sort_by(|one, other| one.0.total_cmp(&other.0));
    let each = |once: bool| {
        let mut judge = judge(ErrorLimits::default().slo);
        judge.set_share(0.05);
        let (mut told, mut failed) = (0, BTreeSet::new());
        let (mut canary_left, mut stable_left) = (canary.len() as u64, (CLIENTS - canary.len()) as u64);
        failures.iter().any(|(at, client)| {
            let arm = if canary.contains(client) { Arm::Canary } else { Arm::Stable };
            if arm == Arm::Canary {
                let good = ((at * 1_000.0) as u64).saturating_sub(told);
                judge.succeeded(Arm::Canary, good);
                told += good + 1;
            }
            match (once, failed.insert(*client)) {
                (false, _) => judge.failed(arm, 0.05),
                (true, false) => judge.failed_again(arm),
                (true, true) => {
                    judge.failed_bucket(arm, canary_left, stable_left);
                    match arm {
                        Arm::Canary => canary_left -= 1,
                        Arm::Stable => stable_left -= 1,
                    }
                }
            }
            arm == Arm::Canary && judge.verdict() == Verdict::RollBack
        })
    };
    (each(false), each(true))
}

/// Connections that carry 20 requests break, one in 100 000 requests of either arm, for 200 000 requests at 10 %: rolled
/// back when each request counts, and when each connection does.
fn broken_connection(dice: &mut Dice) -> (bool, bool) {
    let mut breaks: Vec<(f64, Arm)> = Vec::new();
    for (arm, mean) in [(Arm::Canary, 0.2), (Arm::Stable, 1.8)] {
        let number = dice.poisson(mean);
        breaks.extend((0..number).map(|_| (dice.part(), arm)));
    }
    breaks.sort_by(|one, other| one.0.total_cmp(&other.0));
    let each = |requests: usize| {
        let mut watched = Watched::new(ErrorLimits::default().slo);
        watched.judge.set_share(0.1);
        for (at, arm) in &breaks {
            for _ in 0..requests {
                if *arm == Arm::Canary {
                    watched.good_before(Arm::Canary, (at * 20_000.0) as u64 + 1);
                }
                watched.failed(*arm, 0.1);
            }
        }
        watched.reached.both
    };
    (each(20), each(1))
}

/// A canary 20 times worse than stable, though inside the limit, meets an incident that both arms share: the known gap.
fn worse_before(dice: &mut Dice, rate: f64) -> bool {
    const BEFORE: u64 = 50_000;
    const PI: f64 = 0.05;
    let mut watched = Watched::new(ErrorLimits::default().slo);
    watched.judge.set_share(PI);
    let mut failures: Vec<(u64, Arm)> = Vec::new();
    for (arm, many, rate) in [(Arm::Canary, BEFORE, 2e-4), (Arm::Stable, 19 * BEFORE, 1e-5)] {
        let number = dice.binomial(many, rate);
        failures.extend((0..number).map(|_| ((dice.part() * BEFORE as f64) as u64, arm)));
    }
    failures.sort_by_key(|(at, _)| *at);
    let later = (0..2_000_u64).filter(|_| dice.hits(rate)).collect::<Vec<_>>();
    failures.extend(later.into_iter().map(|at| {
        let arm = if dice.hits(PI) { Arm::Canary } else { Arm::Stable };
        (BEFORE + (at as f64 * PI) as u64, arm)
    }));
    for (at, arm) in failures {
        watched.good_before(Arm::Canary, at + 1);
        watched.failed(arm, PI);
    }
    watched.reached.both
}

fn hits(all: impl Iterator<Item = bool>) -> (usize, usize) {
    all.fold((0, 0), |(hits, all), hit| (hits + usize::from(hit), all + 1))
}

pub fn incidents(report: &mut Report, effort: Effort) {
    report.title("T6: both arms fail for 2 000 requests at 10 %: rolled back");
    for (name, rate, alone, both) in
        [("5 %", 0.05, 0.94, 0.0005), ("50 %", 0.5, 1.0, 0.001), ("100 %", 1.0, 1.0, 0.0005)]
    {
        let all = runs(effort.runs(10_000), 61, |dice| incident(dice, rate));
        report.share(
            &format!("{name}: by the absolute test alone"),
            hits(all.iter().map(|it| it.absolute)),
            alone,
            2_000,
        );
        let rolled_back = hits(all.iter().map(|it| it.both));
        report.share(&format!("{name}: by both tests"), rolled_back, both, 2_000);
        report.at_most(&format!("{name}: FALSE ROLLBACK"), rolled_back, 0.001);
    }
    let greatest = [500, 1_000, 2_500, 5_000].map(greatest).into_iter().fold(0.0, f64::max);
    let columns = format!("{greatest:>8.1} of     4.1 (200 would roll back)");
    report.line("everything fails, exact split: most evidence", &columns, (greatest - 4.1).abs() < 0.1);

    report.title("T6c: a sticky client with 300 failures at 5 %: rolled back");
    let all = runs(effort.runs(10_000), 62, broken_client);
    report.share("each failure counts", hits(all.iter().map(|it| it.0)), 0.047, 1_000);
    report.at_most("each client counts once", hits(all.iter().map(|it| it.1)), 0.001);

    report.title("T6d: a broken connection ends 20 requests: rolled back");
    let all = runs(effort.runs(10_000), 63, broken_connection);
    report.share("each request counts", hits(all.iter().map(|it| it.0)), 0.168, 1_000);
    report.at_most("each connection counts once", hits(all.iter().map(|it| it.1)), 0.001);

    report.title("T6e: already 20 times worse, inside the limit, when both arms fail (a known gap): rolled back");
    for (name, rate, reference) in [("5 %", 0.05, 0.105), ("100 %", 1.0, 0.28)] {
        let all = runs(effort.runs(4_000), 64, |dice| worse_before(dice, rate));
        report.share(name, hits(all.into_iter()), reference, 400);
    }
}
