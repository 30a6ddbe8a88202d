//! The story of a rollout for a terminal: every decision with its why, then the evidence, stage by stage and arm by arm.

use super::evidence::{ARM_TITLES, Bar, arm, ms, percent, rate, share};
use super::rollout::tone_of;
use super::{Tone, cell, date, micros, paint, span, table};
use crate::control::api::{FailedRequest, RolloutArm, RolloutDecision, RolloutEvidence, RolloutReport};

pub fn report(report: &RolloutReport, colour: bool) -> String {
    let mut out = String::new();
    let outcome = Outcome::of(report);
    let verdict = paint(&outcome.word.replace('_', " "), tone_of(&outcome.word), colour);
    out.push_str(&format!(
        "rollout of {}: {} -> {}  {verdict}\n",
        plain(&report.service),
        outcome.stable,
        outcome.canary
    ));
    if !outcome.why.is_empty() {
        out.push_str(&format!("  {}\n", outcome.why));
    }
    let took = span(outcome.until.saturating_sub(report.started));
    let ended = match outcome.ended {
        Some(at) => format!("ended {}, after {took}", date(at)),
        None => format!("running for {took}"),
    };
    out.push_str(&format!("  started {}, {ended}\n", date(report.started)));

    title(&mut out, "decisions", colour);
    for decision in &report.decisions {
        one_decision(&mut out, decision, report.started, colour);
    }

    let stages = stages(report);
    if !stages.is_empty() {
        title(&mut out, "stages", colour);
        let rows = stages.iter().map(|stage| {
            let took = span(stage.until.unwrap_or(report.at).saturating_sub(stage.from));
            let took = if stage.until.is_some() { took } else { format!("{took} so far") };
            let failed = if stage.failures > 0 { Tone::Attention } else { Tone::Plain };
            vec![
                cell(stage.nth, Tone::Plain),
                cell(&stage.name, Tone::Plain),
                cell(took, Tone::Plain),
                cell(stage.requests, Tone::Plain),
                cell(stage.failures, failed),
            ]
        });
        out.push_str(&table(&["stage", "share", "took", "canary requests", "failed"], rows.collect(), colour));
    }

    let evidence = &report.evidence;
    title(&mut out, "versions", colour);
    let row = |name: String, arm: &RolloutArm| {
        let cells = vec![name, arm.requests.to_string(), arm.failures.to_string(), rate(arm.requests, arm.failures)];
        self::arm(cells, &[arm.p50_ms, arm.p95_ms, arm.p99_ms], arm.failures > 0)
    };
    let rows = vec![
        row(format!("canary {}", outcome.canary), &evidence.canary),
        row(format!("stable {}", outcome.stable), &evidence.stable),
    ];
    out.push_str(&table(&ARM_TITLES, rows, colour));
    for (name, text) in facts(evidence) {
        out.push_str(&format!("  {name:<10} {text}\n"));
    }

    title(&mut out, "evidence", colour);
    for bar in bars(evidence) {
        out.push_str(&format!("  {}\n", bar.line(colour)));
    }

    failures(&mut out, evidence, &outcome, colour);
    for decision in report.decisions.iter().filter(|decision| decision.decision == "rollback") {
        receipt(&mut out, decision, colour);
    }
    if !report.earlier.is_empty() {
        title(&mut out, "earlier rollouts", colour);
        for earlier in &report.earlier {
            let Some(last) = earlier.decisions.last() else { continue };
            let text = format!("{} -> {}  {}: {}", last.stable, last.canary, last.decision, last.why);
            out.push_str(&format!("  {}  {}\n", date(earlier.started), plain(&text)));
        }
    }
    out
}

fn title(out: &mut String, title: &str, colour: bool) {
    out.push_str(&format!("\n{}\n", paint(title, Tone::Quiet, colour)));
}

fn one_decision(out: &mut String, decision: &RolloutDecision, started: u64, colour: bool) {
    let word = paint(&format!("{:<10}", decision.decision), tone_of_decision(&decision.decision), colour);
    let after = format!("+{}", span(decision.at.saturating_sub(started)));
    let mut facts = vec![decision.reason.clone()];
    if decision.stage > 0 {
        facts.push(format!("stage {}", decision.stage));
    }
    facts.push(format!("{} canary", share(decision.share)));
    facts.extend(decision.generation.map(|generation| format!("generation {generation}")));
    facts.push(format!("by {}", decision.author));
    out.push_str(&format!("  {}  {after:<8} {word} {}\n", clock(decision.at), plain(&facts.join(", "))));
    for text in [&decision.why, &decision.cause] {
        if !text.is_empty() {
            out.push_str(&format!("{:22}{}\n", "", plain(text)));
        }
    }
}

pub fn tone_of_decision(word: &str) -> Tone {
    match word {
        "promote" | "advance" | "approve" => Tone::Good,
        "pause" | "wait" => Tone::Attention,
        "rollback" | "reject" => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn failures(out: &mut String, evidence: &RolloutEvidence, outcome: &Outcome, colour: bool) {
    let of = |version: &str, arm: &RolloutArm| {
        let version = version.to_string();
        let named = [("first", arm.first_failure.clone()), ("last", arm.last_failure.clone())];
        named.into_iter().filter_map(move |(which, request)| Some((version.clone(), which, request?)))
    };
    let rows: Vec<_> = of(&outcome.canary, &evidence.canary)
        .chain(of(&outcome.stable, &evidence.stable))
        .map(|(version, which, request)| {
            vec![
                cell(version, Tone::Plain),
                cell(which, Tone::Plain),
                cell(clock(request.at), Tone::Plain),
                cell(status(request.status), Tone::Bad),
                cell(endpoint(&request), Tone::Plain),
                cell(plain(&request.id), Tone::Plain),
            ]
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    title(out, "failed requests", colour);
    out.push_str(&table(&["version", "which", "at", "status", "endpoint", "request id"], rows, colour));
}

fn receipt(out: &mut String, decision: &RolloutDecision, colour: bool) {
    let Some(times) = &decision.receipt else { return };
    title(out, "flip back", colour);
    let last = times.last_old_start_micros.map_or("not known".into(), micros);
    for (name, text) in [
        ("from the trigger to the new generation", micros(times.flip_micros)),
        ("to the last request that began on the old one", last),
        ("in flight on the canary then", times.in_flight_at_flip.to_string()),
        ("answered by stable instead", times.shielded.to_string()),
    ] {
        out.push_str(&format!("  {name:<46} {text}\n"));
    }
}

/// How it ended, or that it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// As `phase` of the status.
    pub word: String,
    pub why: String,
    pub stable: String,
    pub canary: String,
    pub ended: Option<u64>,
    /// The end, or now.
    pub until: u64,
}

impl Outcome {
    pub fn of(report: &RolloutReport) -> Outcome {
        let last = report.decisions.last();
        let end = last.filter(|last| matches!(&*last.decision, "rollback" | "promote" | "superseded"));
        let word = match (&report.rollout, end.map(|end| &*end.decision)) {
            (Some(status), _) => status.phase.clone(),
            (None, Some("rollback")) => "rolled_back".into(),
            (None, Some("promote")) => "promoted".into(),
            (None, Some(other)) => other.into(),
            (None, None) => last.map_or("unknown".into(), |last| last.decision.clone()),
        };
        let why = match (&report.rollout, end) {
            (_, Some(end)) => end.why.clone(),
            (Some(status), None) => status.why.join("; "),
            (None, None) => String::new(),
        };
        let named = report.rollout.as_ref().map(|status| (&status.stable, &status.canary));
        let named = named.or(last.map(|last| (&last.stable, &last.canary)));
        let (stable, canary) =
            named.map_or(("stable".into(), "canary".into()), |(stable, canary)| (plain(stable), plain(canary)));
        let ended = end.map(|end| end.at);
        Outcome { word, why: plain(&why), stable, canary, ended, until: ended.unwrap_or(report.at) }
    }
}

/// One stage: when, and what the canary did in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub nth: usize,
    /// "5 %", "match", "mirror 10 %".
    pub name: String,
    pub from: u64,
    /// `None`: it runs.
    pub until: Option<u64>,
    pub requests: u64,
    pub failures: u64,
}

pub fn stages(report: &RolloutReport) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut before = (0, 0);
    let mut is_over = false;
    for decision in &report.decisions {
        let seen = (decision.evidence.canary.requests, decision.evidence.canary.failures);
        let begins = matches!(&*decision.decision, "advance" | "approve" | "promote")
            && decision.stage > 0
            && stages.last().is_none_or(|last| last.nth != decision.stage);
        let ends = matches!(&*decision.decision, "rollback" | "promote" | "superseded");
        if !begins && !ends {
            continue;
        }
        if let Some(last) = stages.last_mut().filter(|last| last.until.is_none()) {
            last.until = Some(decision.at);
            (last.requests, last.failures) = (seen.0.saturating_sub(before.0), seen.1.saturating_sub(before.1));
        }
        is_over |= ends;
        before = seen;
        if begins && !ends {
            let nth = decision.stage;
            let label = report.rollout.as_ref().and_then(|status| status.labels.get(nth - 1));
            let name = label.map_or_else(|| share(decision.share), |label| plain(label));
            stages.push(Stage { nth, name, from: decision.at, until: None, requests: 0, failures: 0 });
        }
    }
    if let Some(last) = stages.last_mut().filter(|_| !is_over) {
        let now = &report.evidence.canary;
        (last.requests, last.failures) = (now.requests.saturating_sub(before.0), now.failures.saturating_sub(before.1));
    }
    stages
}

/// The tests, and what each bets on.
pub fn bars(evidence: &RolloutEvidence) -> Vec<Bar> {
    let limit = evidence.errors_limit;
    let mut bars = match evidence.errors_bake {
        Some(bake) => {
            let text = format!(
                ": it fails more than {} % of its requests; full, it goes back",
                percent(evidence.errors_max_at_100)
            );
            vec![Bar::against("too many", bake, limit, text)]
        }
        None => {
            let too_many = format!(": it fails more than {} % of its requests", percent(evidence.errors_max));
            let more =
                format!(": and more than {} times stable's rate; both full, it goes back", evidence.errors_ratio);
            vec![
                Bar::against("too many", evidence.errors_absolute, limit, too_many),
                Bar::against("more", evidence.errors_relative, limit, more),
            ]
        }
    };
    for (name, value) in &evidence.custom {
        let text = ": your own guardrail; it goes back when the average of all rules is full";
        bars.push(Bar::against(plain(name), *value, limit, text));
    }
    let ratio = evidence.latency_ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2} times)"));
    let text = format!(": it is slower than stable{ratio}; full, it stays where it is");
    bars.push(Bar::against("latency", evidence.latency, evidence.latency_limit, text));
    let text = format!(": it fails fewer than {} %; full, it may go on", percent(evidence.errors_below));
    bars.push(Bar::favour("proof", evidence.proof, evidence.proof_limit, text));
    bars.extend(evidence.quick.map(|quick| {
        let (now, most) = (ms(evidence.quick_ms), ms(evidence.quick_max_ms));
        let text = format!(": it is faster than {most} (now {now}); full, it may go on");
        Bar::favour("quick", quick, evidence.proof_limit, text)
    }));
    bars
}

/// What else is known of the canary, as name and text.
pub fn facts(evidence: &RolloutEvidence) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !evidence.statuses.is_empty() {
        let each = evidence.statuses.iter().map(|(code, count)| format!("{count} x {}", status(*code)));
        facts.push(("failed with", each.collect::<Vec<_>>().join(", ")));
    }
    if evidence.shielded > 0 {
        facts.push(("shielded", format!("{} requests were answered by stable instead", evidence.shielded)));
    }
    if evidence.copies > 0 {
        facts.push(("copies", format!("{} answered, {} failed", evidence.copies, evidence.copies_failed)));
    }
    if evidence.restarts > 0 {
        facts.push(("restarts", format!("{} of the canary", evidence.restarts)));
    }
    facts
}

pub fn status(code: u16) -> String {
    if code == 0 { "no answer".into() } else { code.to_string() }
}

pub fn endpoint(request: &FailedRequest) -> String {
    request.endpoint.map_or("-".into(), |endpoint| endpoint.to_string())
}

/// "03:59:12Z"
pub fn clock(at_ms: u64) -> String {
    date(at_ms).split_off(11)
}

/// Names and reasons come from outside: nothing in them may move a cursor.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_story_of_a_rollback_is_told_to_its_end() {
        insta::assert_snapshot!(report(&samples::report(), false), @r"
        rollout of shop: v1 -> v2  rolled back
          9 of 1312 requests failed, 1 of 8804 on stable
          started 2025-11-25 02:34:00Z, ended 2025-11-25 02:38:12Z, after 4m 12s

        decisions
          02:34:00Z  +0ms     start      file, 0 % canary, generation 41, by file
                              v2 instead of v1
                              edit of switchback.yaml
          02:34:00Z  +100ms   advance    evidence, stage 1, 5 % canary, generation 42, by rollout
                              an endpoint of the canary is ready
                              rollout v2 to 5 %
          02:37:00Z  +3m 0s   approve    gate, stage 2, 25 % canary, generation 43, by admin:ada@127.0.0.1
                              admin:ada@127.0.0.1 said so; 0 of 620 requests failed, 1 of 4100 on stable
                              rollout v2 to 25 %
          02:38:12Z  +4m 12s  rollback   errors, stage 2, 0 % canary, generation 44, by rollout
                              9 of 1312 requests failed, 1 of 8804 on stable
                              rollout v2 to 0 %

        stages
          stage  share  took    canary requests  failed
          1      5 %    3m 0s   620              0
          2      25 %   1m 12s  692              9

        versions
          version    requests  failed  rate (95 % sure)            p50     p95     p99
          canary v2  1312      9       0.69 % (0.36 to 1.30 %)     3.0 ms  7.6 ms  -
          stable v1  8804      1       0.011 % (0.002 to 0.064 %)  2.9 ms  7.2 ms  -
          failed with 7 x 500, 2 x no answer
          shielded   8 requests were answered by stable instead
          restarts   1 of the canary

        evidence
          too many  [############] 1017 of 200: it fails more than 0.10 % of its requests
          more      [############] 254 of 200: and more than 1.25 times stable's rate; both full, it goes back
          latency   [............] 0.80 of 100: it is slower than stable; full, it stays where it is
          proof     [............] 0.90 of 20: it fails fewer than 0.10 %; full, it may go on

        failed requests
          version  which  at         status  endpoint       request id
          v2       first  02:38:01Z  500     10.0.0.2:3000  7f3a-11
          v2       last   02:38:12Z  500     10.0.0.2:3000  7f3a-98

        flip back
          from the trigger to the new generation         61 µs
          to the last request that began on the old one  38 µs
          in flight on the canary then                   3
          answered by stable instead                     8
        ");
    }

    #[test]
    fn a_running_one_says_how_far_it_is() {
        let mut running = samples::report();
        running.decisions.truncate(3);
        running.rollout = Some(samples::rollout());
        let stages = stages(&running);
        let known: Vec<_> = stages.iter().map(|stage| (stage.nth, stage.until.is_some(), stage.requests)).collect();
        assert_eq!(known, [(1, true, 620), (2, false, 692)]);
        let text = report(&running, false);
        assert!(text.contains("running for 6m 0s") && text.contains("so far"), "{text}");
    }

    #[test]
    fn without_a_status_the_last_decision_says_how_it_ended() {
        let told = RolloutReport { rollout: None, ..samples::report() };
        let outcome = Outcome::of(&told);
        assert_eq!((&*outcome.word, &*outcome.canary), ("rolled_back", "v2"));
        assert!(outcome.why.contains("9 of 1312"), "{outcome:?}");
    }

    #[test]
    fn nothing_in_a_reason_moves_the_cursor() {
        let mut told = samples::report();
        told.decisions[3].why = "\x1b[2Jgone\r\n".into();
        told.decisions[3].author = "admin:\x1b]0;title\x07@here".into();
        assert!(!report(&told, false).contains(['\x1b', '\r', '\x07']));
        assert!(report(&told, true).contains('\x1b'), "colour is ours");
    }
}
