//! T4: how many requests it takes to prove that a canary is good, and how often a bad one passes.

use switchback::analysis::{Arm, PromoteGate};

use crate::Effort;
use crate::dice::{Dice, runs};
use crate::table::Report;

const SLO: f64 = 0.001;
/// Canary requests between two looks.
const STEP: u64 = 250;

/// Canary requests until the proof.
fn prove(dice: &mut Dice, canary: f64, stable: f64, pi: f64, longest: u64) -> Option<u64> {
    let mut gate = PromoteGate::new(SLO, 1.5);
    let stable_step = (STEP as f64 * (1.0 - pi) / pi).round() as u64;
    (1..=longest / STEP).map(|look| look * STEP).find(|_| {
        for (arm, many, rate) in [(Arm::Stable, stable_step, stable), (Arm::Canary, STEP, canary)] {
            let failed = dice.binomial(many, rate);
            gate.succeeded(arm, many - failed);
            (0..failed).for_each(|_| gate.failed(arm, pi));
        }
        gate.proven()
    })
}

pub fn proof(report: &mut Report, effort: Effort) {
    report.title("T4: canary requests until it is proven good (5 %, looked at every 250)");
    for (name, canary, stable, reference) in [
        ("canary 0 %, stable 0.01 %", 0.0, 1e-4, (4_500.0, 4_500.0)),
        ("both 0.01 %", 1e-4, 1e-4, (4_500.0, 12_000.0)),
        ("both 0.03 %", 3e-4, 3e-4, (10_000.0, 26_500.0)),
        ("both 0.05 %", 5e-4, 5e-4, (23_500.0, 59_750.0)),
        ("both 1 %, by the comparison", 1e-2, 1e-2, (4_750.0, 13_250.0)),
    ] {
        let all = runs(effort.runs(20_000), 41, |dice| prove(dice, canary, stable, 0.05, 300_000));
        report.delays(name, &all, reference, 2_000, STEP as f64);
    }
    report.title("T4b: bad canaries that are called good (at most 5 %)");
    for (name, canary, stable, reference) in [
        ("0.1 % beside 0.05 %", 1e-3, 5e-4, 0.024),
        ("0.1 % beside 0.066 %", 1e-3, 6.6e-4, 0.037),
        ("0.2 % beside 0.1 %", 2e-3, 1e-3, 0.002),
    ] {
        let all = runs(effort.runs(10_000), 42, |dice| prove(dice, canary, stable, 0.05, 100_000));
        let passed = (all.iter().flatten().count(), all.len());
        report.share(name, passed, reference, 4_000);
        report.at_most(name, passed, 0.05);
    }
    let mut gate = PromoteGate::new(SLO, 1.5);
    let clean = (1..).find(|_| {
        gate.succeeded(Arm::Canary, 1);
        gate.proven()
    });
    let clean: u64 = clean.unwrap_or_default();
    report.line("clean requests that prove 0.1 %", &format!("{clean} of 4466"), clean == 4_466);
}
