//! A rollout in a few lines: where it stands, on which evidence, what is missing.

use super::{Tone, ago, paint};
use crate::control::api::{RolloutMeters, RolloutStatus};

/// Characters of a meter.
const WIDTH: usize = 12;

pub fn lines(out: &mut String, rollout: &RolloutStatus, now: u64, colour: bool) {
    let tone = match &*rollout.phase {
        "staged" | "promoted" => Tone::Good,
        "waiting" | "paused" => Tone::Attention,
        "rolled_back" => Tone::Bad,
        _ => Tone::Quiet,
    };
    let phase = paint(&rollout.phase.replace('_', " "), tone, colour);
    let why = if rollout.why.is_empty() { String::new() } else { format!(": {}", rollout.why.join("; ")) };
    out.push_str(&format!(
        "  rollout {} -> {}  {phase}{why}, {}\n",
        rollout.stable,
        rollout.canary,
        ago(rollout.since, now)
    ));
    out.push_str(&format!("    stages    {}\n", bar(rollout, tone, colour)));
    if let Some(meters) = &rollout.meters {
        arms(out, rollout, meters);
        if meters.copies > 0 {
            out.push_str(&format!("    copies    {} answered, {} failed\n", meters.copies, meters.copies_failed));
        }
        for (name, value, limit) in [
            ("errors", meters.errors, meters.errors_limit),
            ("latency", meters.latency, meters.latency_limit),
            ("proof", meters.proof, meters.proof_limit),
        ] {
            out.push_str(&format!("    {name:<9} {} {value:.2} of {limit}\n", meter(value, limit)));
        }
    }
    if !rollout.missing.is_empty() {
        out.push_str(&format!("    missing   {}\n", rollout.missing.join("; ")));
    }
}

fn arms(out: &mut String, rollout: &RolloutStatus, meters: &RolloutMeters) {
    let ms = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
    for (name, requests, failures, p50, p95) in [
        (&rollout.canary, meters.canary_requests, meters.canary_failures, meters.canary_p50_ms, meters.canary_p95_ms),
        (&rollout.stable, meters.stable_requests, meters.stable_failures, meters.stable_p50_ms, meters.stable_p95_ms),
    ] {
        out.push_str(&format!(
            "    {name:<9} {requests} requests, {failures} failed, p50 {}, p95 {}\n",
            ms(p50),
            ms(p95)
        ));
    }
}

fn bar(rollout: &RolloutStatus, tone: Tone, colour: bool) -> String {
    let stages = rollout.stages.iter().enumerate().map(|(at, share)| {
        let text = rollout.labels.get(at).cloned().unwrap_or_else(|| format!("{} %", (share * 1e4).round() / 1e2));
        if at + 1 == rollout.stage { paint(&format!("[{text}]"), tone, colour) } else { text }
    });
    stages.collect::<Vec<_>>().join(" - ")
}

/// Logarithmic, because evidence multiplies: empty at 1, full at the limit.
fn meter(value: f64, limit: f64) -> String {
    let part = (value.max(1.0).ln() / limit.ln()).clamp(0.0, 1.0);
    let full = (part * WIDTH as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_in_a_few_lines() {
        let rollout = RolloutStatus {
            phase: "staged".into(),
            stable: "v1".into(),
            canary: "v2".into(),
            stage: 2,
            stages: vec![0.0, 0.25, 1.0],
            labels: ["match", "25 %", "100 %"].map(String::from).into(),
            since: 1_000,
            why: Vec::new(),
            gate: None,
            missing: vec!["30 s of the stage's hold".into()],
            meters: Some(RolloutMeters {
                canary_requests: 250,
                canary_failures: 1,
                stable_requests: 750,
                stable_failures: 0,
                errors: 14.2,
                errors_limit: 200.0,
                latency: 0.8,
                latency_limit: 100.0,
                proof: 20.0,
                proof_limit: 20.0,
                canary_p50_ms: Some(3.04),
                canary_p95_ms: None,
                stable_p50_ms: Some(2.9),
                stable_p95_ms: Some(8.0),
                restarts: 0,
                copies: 31,
                copies_failed: 2,
            }),
        };
        let mut out = String::new();
        lines(&mut out, &rollout, 61_000, false);
        let expected = [
            "  rollout v1 -> v2  staged, 1m 0s ago",
            "    stages    match - [25 %] - 100 %",
            "    v2        250 requests, 1 failed, p50 3.0 ms, p95 -",
            "    v1        750 requests, 0 failed, p50 2.9 ms, p95 8.0 ms",
            "    copies    31 answered, 2 failed",
            "    errors    [######......] 14.20 of 200",
            "    latency   [............] 0.80 of 100",
            "    proof     [############] 20.00 of 20",
            "    missing   30 s of the stage's hold",
        ];
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    }
}
