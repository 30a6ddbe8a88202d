//! A rollout in a few lines: where it stands, on which evidence, what is missing.

use super::evidence::{ARM_TITLES, Bar, arm, rate};
use super::{Tone, ago, paint, span};
use crate::control::api::{RolloutMeters, RolloutStatus};

pub fn lines(out: &mut String, rollout: &RolloutStatus, now: u64, colour: bool) {
    let tone = tone_of(&rollout.phase);
    let phase = paint(&rollout.phase.replace('_', " "), tone, colour);
    let why = if rollout.why.is_empty() { String::new() } else { format!(": {}", rollout.why.join("; ")) };
    out.push_str(&format!(
        "  rollout {} -> {}  {phase}{why}, {}\n",
        rollout.stable,
        rollout.canary,
        ago(rollout.since, now)
    ));
    let hold = match rollout.hold_left_ms {
        None => String::new(),
        Some(0) => "   hold is over".into(),
        Some(left) => format!("   {} of the hold left", span(left)),
    };
    out.push_str(&format!("    stages    {}{hold}\n", stages(rollout, tone, colour)));
    if let Some(meters) = &rollout.meters {
        arms(out, rollout, meters, colour);
        if meters.copies > 0 {
            out.push_str(&format!("    copies    {} answered, {} failed\n", meters.copies, meters.copies_failed));
        }
        for bar in bars(meters) {
            out.push_str(&format!("    {}\n", bar.line(colour)));
        }
        if meters.restarts > 0 {
            out.push_str(&format!("    restarts  {} of the canary\n", meters.restarts));
        }
    }
    match rollout.kept_until {
        Some(until) if until > now => {
            let left = span(until - now);
            out.push_str(&format!("    way back  {} is kept for {left} more: switchback rollback\n", rollout.stable));
        }
        Some(_) => out.push_str(&format!("    way back  {} need not be kept any longer\n", rollout.stable)),
        None => {}
    }
    if !rollout.missing.is_empty() {
        out.push_str(&format!("    missing   {}\n", rollout.missing.join("; ")));
    }
}

pub fn tone_of(phase: &str) -> Tone {
    match phase {
        "staged" | "promoted" => Tone::Good,
        "waiting" | "paused" => Tone::Attention,
        "rolled_back" => Tone::Bad,
        _ => Tone::Quiet,
    }
}

fn arms(out: &mut String, rollout: &RolloutStatus, meters: &RolloutMeters, colour: bool) {
    let row = |role: &str, version: &str, requests: u64, failures: u64, quantiles: &[Option<f64>]| {
        let mut cells = vec![format!("{role} {version}"), requests.to_string(), failures.to_string()];
        cells.push(rate(requests, failures));
        arm(cells, quantiles, failures > 0)
    };
    let canary = [meters.canary_p50_ms, meters.canary_p95_ms];
    let stable = [meters.stable_p50_ms, meters.stable_p95_ms];
    let rows = vec![
        row("canary", &rollout.canary, meters.canary_requests, meters.canary_failures, &canary),
        row("stable", &rollout.stable, meters.stable_requests, meters.stable_failures, &stable),
    ];
    let table = super::table(&ARM_TITLES[..6], rows, colour);
    out.extend(table.lines().map(|line| format!("  {line}\n")));
}

fn bars(meters: &RolloutMeters) -> Vec<Bar> {
    let mut bars = vec![
        Bar::against("errors", meters.errors, meters.errors_limit, " to roll back"),
        Bar::against("latency", meters.latency, meters.latency_limit, " to hold"),
        Bar::favour("proof", meters.proof, meters.proof_limit, " to go on"),
    ];
    bars.extend(meters.quick.map(|quick| Bar::favour("quick", quick, meters.proof_limit, " to go on")));
    bars
}

/// Passed stages are joined by `=`, those to come by `-`.
fn stages(rollout: &RolloutStatus, tone: Tone, colour: bool) -> String {
    let mut text = String::new();
    for (at, share) in rollout.stages.iter().enumerate() {
        if at > 0 {
            text.push_str(if at < rollout.stage { " = " } else { " - " });
        }
        let stage = rollout.labels.get(at).cloned().unwrap_or_else(|| super::evidence::share(*share));
        text.push_str(&match at + 1 {
            nth if nth == rollout.stage => paint(&format!("[{stage}]"), tone, colour),
            nth if nth > rollout.stage => paint(&stage, Tone::Quiet, colour),
            _ => stage,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, NOW};
    use super::*;

    fn shown(rollout: &RolloutStatus) -> String {
        let mut out = String::new();
        lines(&mut out, rollout, NOW, false);
        out
    }

    #[test]
    fn a_rollout_is_told_in_a_few_lines() {
        insta::assert_snapshot!(shown(&samples::rollout()), @r"
        rollout v1 -> v2  staged, 1m 0s ago
          stages    5 % = [25 %] - 100 %   30s of the hold left
          version    requests  failed  rate (95 % sure)          p50     p95
          canary v2  250       1       0.40 % (0.071 to 2.23 %)  3.0 ms  -
          stable v1  750       0       0 % (0 to 0.51 %)         2.9 ms  8.0 ms
          errors    [######......] 14.2 of 200 to roll back
          latency   [............] 0.80 of 100 to hold
          proof     [############] 20.0 of 20 to go on
          missing   30 s of the stage's hold
        ");
    }

    #[test]
    fn a_paused_one_says_why_and_shows_all_meters() {
        let mut rollout = samples::rollout();
        rollout.phase = "paused".into();
        rollout.labels = ["match", "25 %", "100 %"].map(String::from).into();
        rollout.why = vec!["slower than stable for too long (2.14 x)".into()];
        rollout.hold_left_ms = Some(0);
        rollout.missing.clear();
        let meters = rollout.meters.as_mut().expect("there are some");
        meters.restarts = 2;
        (meters.copies, meters.copies_failed) = (31, 2);
        meters.quick = Some(0.4);
        meters.latency = 2_500.0;
        insta::assert_snapshot!(shown(&rollout), @r"
        rollout v1 -> v2  paused: slower than stable for too long (2.14 x), 1m 0s ago
          stages    match = [25 %] - 100 %   hold is over
          version    requests  failed  rate (95 % sure)          p50     p95
          canary v2  250       1       0.40 % (0.071 to 2.23 %)  3.0 ms  -
          stable v1  750       0       0 % (0 to 0.51 %)         2.9 ms  8.0 ms
          copies    31 answered, 2 failed
          errors    [######......] 14.2 of 200 to roll back
          latency   [############] 2500 of 100 to hold
          proof     [############] 20.0 of 20 to go on
          quick     [............] 0.40 of 20 to go on
          restarts  2 of the canary
        ");
    }

    #[test]
    fn after_the_promotion_stable_is_kept_for_a_while() {
        let mut rollout = RolloutStatus { meters: None, hold_left_ms: None, missing: Vec::new(), ..samples::rollout() };
        rollout.phase = "promoted".into();
        for (until, wanted) in [
            (samples::NOW + 90_000, "way back  v1 is kept for 1m 30s more: switchback rollback"),
            (samples::NOW, "way back  v1 need not be kept any longer"),
        ] {
            rollout.kept_until = Some(until);
            let text = shown(&rollout);
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn before_the_first_stage_nothing_is_marked() {
        let rollout = RolloutStatus { stage: 0, meters: None, hold_left_ms: None, ..samples::rollout() };
        insta::assert_snapshot!(shown(&rollout), @r"
        rollout v1 -> v2  staged, 1m 0s ago
          stages    5 % - 25 % - 100 %
          missing   30 s of the stage's hold
        ");
    }
}
