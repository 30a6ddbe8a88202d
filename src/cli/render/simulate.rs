//! What was simulated: the timeline of one rollout, and what many of them came to.

use super::{Tone, cell, paint, span, table};
use crate::cli::simulate::{Outcome, Simulated};
use crate::rollout::{ERRORS_LIMIT, LATENCY_LIMIT, Meters, PROOF_LIMIT};
use crate::simulate::{End, Quantiles, Step};

pub fn simulated(all: &Simulated, colour: bool) -> String {
    let stages: Vec<String> = all.stages.iter().map(|share| percent(*share)).collect();
    let mut out = format!("service {}: {} -> {}, stages {}\n", all.service, all.stable, all.canary, stages.join(" - "));
    let rps = (all.rps * 100.0).round() / 100.0;
    match &all.recorded {
        Some(recorded) => out.push_str(&format!(
            "traffic of {}: {} requests of {} in {}, {} of them failed; {rps} a second, over and over again\n",
            recorded.file.display(),
            recorded.requests,
            all.stable,
            span(recorded.seconds * 1_000),
            recorded.failed,
        )),
        None => out.push_str(&format!("made traffic: {rps} requests a second\n")),
    }
    if let Some(recorded) = all.recorded.as_ref().filter(|recorded| recorded.unread > 0) {
        let what = format!("{} lines of it are no lines of an access log", recorded.unread);
        out.push_str(&format!("{} {what}\n", paint("warning:", Tone::Attention, colour)));
    }
    for warning in &all.warnings {
        out.push_str(&format!("{} {warning}\n", paint("warning:", Tone::Attention, colour)));
    }
    for note in &all.notes {
        out.push_str(&format!("{} {note}\n", paint("note:", Tone::Quiet, colour)));
    }
    if let [only] = all.scenarios.as_slice() {
        out.push_str(&format!("\n{}: one of them, seed {}\n", only.scenario, only.story.seed));
        out.push_str(&timeline(only, all, colour));
    }
    let runs = if all.runs == 1 { "1 run".into() } else { format!("{} runs", all.runs) };
    out.push_str(&format!("\n{runs} each, median / 95th percentile\n"));
    out.push_str(&comparison(&all.scenarios, colour));
    if all.scenarios.len() > 1 {
        out.push_str("\none --scenario alone shows its timeline\n");
    }
    out
}

fn timeline(outcome: &Outcome, all: &Simulated, colour: bool) -> String {
    let rows = outcome.story.steps.iter().map(|step| {
        vec![
            cell(clock(step.at_ms), Tone::Plain),
            cell(format!("{}/{}", step.stage, all.stages.len()), Tone::Plain),
            cell(percent(step.share), Tone::Plain),
            cell(&step.what, tone_of(&step.what)),
            cell(format!("{}{}", step.why, evidence(step, &all.stable)), Tone::Plain),
        ]
    });
    table(&["time", "stage", "share", "what", "why"], rows.collect(), colour)
}

fn tone_of(what: &str) -> Tone {
    match what {
        "promote" | "advance" => Tone::Good,
        "rollback" => Tone::Bad,
        "pause" | "inconclusive" | "hold" => Tone::Attention,
        _ => Tone::Plain,
    }
}

/// What the decision rests on.
fn evidence(step: &Step, stable: &str) -> String {
    let Meters { canary, stable: other, errors, latency, proof, .. } = step.meters;
    if canary.total == 0 {
        return String::new();
    }
    let proof = if step.stage > 0 { format!(", proof {proof:.1} of {PROOF_LIMIT}") } else { String::new() };
    format!(
        " ({} of {} failed, {stable} {} of {}; errors {errors:.1} of {ERRORS_LIMIT}, latency {latency:.1} of \
         {LATENCY_LIMIT}{proof})",
        canary.failed, canary.total, other.failed, other.total
    )
}

fn comparison(outcomes: &[Outcome], colour: bool) -> String {
    let both = |quantiles: Option<Quantiles>, show: fn(u64) -> String| {
        quantiles.map_or("-".into(), |it| format!("{} / {}", show(it.median), show(it.p95)))
    };
    let number = |number: u64| number.to_string();
    let rows = outcomes.iter().map(|Outcome { scenario, summary, .. }| {
        let ends: Vec<String> = summary
            .ends
            .iter()
            .map(|ended| format!("{} {} (stage {})", ended.end.as_str(), share(ended.runs, summary.runs), ended.stage))
            .collect();
        let tone = match summary.ends.first().map(|ended| ended.end) {
            Some(End::Promoted) => Tone::Good,
            Some(End::RolledBack) => Tone::Bad,
            Some(End::Paused | End::Inconclusive | End::Unfinished) => Tone::Attention,
            None => Tone::Plain,
        };
        vec![
            cell(scenario, Tone::Plain),
            cell(ends.join(", "), tone),
            cell(both(summary.took_ms, clock), Tone::Plain),
            cell(both(summary.canary_requests, number), Tone::Plain),
            cell(both(summary.seen, number), Tone::Plain),
            cell(both(summary.unshielded, number), Tone::Plain),
        ]
    });
    let header = ["scenario", "ends", "after", "canary requests", "failures seen", "without shield"];
    table(&header, rows.collect(), colour)
}

/// To the second, however late: "2h 0m 21s"; at first to the tenth: "0.4s".
fn clock(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{:.1}s", ms as f64 / 1e3),
        (0, _) => format!("{minutes}m {seconds}s"),
        (_, _) => format!("{hours}h {minutes}m {seconds}s"),
    }
}

fn share(part: usize, all: usize) -> String {
    let percent = part as f64 * 100.0 / all.max(1) as f64;
    format!("{} %", (percent * 10.0).round() / 10.0)
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 1e2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (ms, text) in [(0, "0.0s"), (450, "0.5s"), (61_500, "1m 1s"), (7_221_000, "2h 0m 21s")] {
            assert_eq!(clock(ms), text);
        }
        assert_eq!((share(199, 200), share(0, 0), percent(0.333)), ("99.5 %".into(), "0 %".into(), "33.3 %".into()));
    }
}
