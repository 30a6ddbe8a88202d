//! The story of a rollout as one page: nothing is loaded from anywhere, nothing runs, and it is well-formed XML.

use super::chart::{Band, Chart, Limit, Line, Mark, Scale, nice};
use super::evidence::{capital, ms, percent, rate, share};
use super::report::{Outcome, Stage, bars, clock, endpoint, facts, stages, status, tone_of_decision};
use super::rollout::tone_of;
use super::{Tone, date, micros, span};
use crate::control::api::{RolloutArm, RolloutDecision, RolloutEvidence, RolloutReport, RolloutSample};

/// A rate is shown over this part of the whole time: of single samples it would only be noise.
const WINDOW_PART: u64 = 30;

pub fn page(report: &RolloutReport) -> String {
    let outcome = Outcome::of(report);
    let title = format!("{}: {} to {}", report.service, outcome.stable, outcome.canary);
    let mut out = String::from("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n");
    out.push_str(
        "<head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
    );
    out.push_str(&format!(
        "<title>Rollout of {}</title>\n<style>{STYLE}</style></head>\n<body><main>\n",
        escape(&title)
    ));
    head(&mut out, report, &outcome);
    let stages = stages(report);
    charts(&mut out, report, &outcome, &stages);
    decisions(&mut out, report);
    numbers(&mut out, report, &outcome, &stages);
    earlier(&mut out, report);
    let made = date(report.at);
    out.push_str(&format!("<footer>switchback rollout report, {made}. Evidence is the capital of betting tests: at its limit luck is no explanation.</footer>\n"));
    out.push_str("</main></body></html>\n");
    out
}

/// Text is text: nothing in a name or a reason is markup, and nothing is what XML forbids.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            char if char.is_control() => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

fn head(out: &mut String, report: &RolloutReport, outcome: &Outcome) {
    let tone = class(tone_of(&outcome.word));
    let took = span(outcome.until.saturating_sub(report.started));
    let ended = match outcome.ended {
        Some(at) => format!("ended {}, after {took}", date(at)),
        None => format!("running for {took}"),
    };
    out.push_str(&format!(
        "<header><p class=\"kicker\">Rollout of service {}</p><h1>{} <span class=\"arrow\">to</span> {} \
         <span class=\"badge {tone}\">{}</span></h1>\n",
        escape(&report.service),
        escape(&outcome.stable),
        escape(&outcome.canary),
        escape(&outcome.word.replace('_', " "))
    ));
    if !outcome.why.is_empty() {
        out.push_str(&format!("<p class=\"why\">{}</p>", escape(&outcome.why)));
    }
    out.push_str(&format!("<p class=\"quiet\">started {}, {ended}</p></header>\n", date(report.started)));
}

fn charts(out: &mut String, report: &RolloutReport, outcome: &Outcome, stages: &[Stage]) {
    let samples = &report.samples;
    if samples.is_empty() {
        out.push_str("<p class=\"quiet\">No samples were kept of this rollout.</p>\n");
        return;
    }
    let until = samples.last().map_or(report.at, |last| last.at).max(outcome.ended.unwrap_or(report.at));
    let base = Chart {
        title: String::new(),
        from: report.started,
        until,
        scale: Scale::Linear(1.0),
        value: |value| format!("{} %", round(value * 100.0)),
        lines: Vec::new(),
        limits: Vec::new(),
        bands: stages.iter().map(|stage| band(stage, until)).collect(),
        marks: marks(&report.decisions),
    };
    let (canary, stable) = (&*outcome.canary, &*outcome.stable);
    let line = |name: &str, class, points| Line { name: name.into(), class, points, is_step: false };
    let of = |value: &dyn Fn(&RolloutSample) -> Option<f64>| -> Vec<(u64, Option<f64>)> {
        samples.iter().map(|sample| (sample.at, value(sample))).collect()
    };

    let share = Line { is_step: true, ..line(canary, "canary", of(&|sample| Some(sample.share))) };
    figure(out, Chart { title: "Share of the canary".into(), lines: vec![share], ..base.clone() });

    let window = (until.saturating_sub(report.started) / WINDOW_PART).max(1_000);
    let failing = |counts: fn(&RolloutSample) -> (u64, u64)| rates(samples, window, counts);
    let lines = vec![
        line(canary, "canary", failing(|sample| (sample.canary_requests, sample.canary_failures))),
        line(stable, "stable", failing(|sample| (sample.stable_requests, sample.stable_failures))),
    ];
    let max = if report.evidence.errors_bake.is_some() {
        report.evidence.errors_max_at_100
    } else {
        report.evidence.errors_max
    };
    let limits = vec![Limit { name: format!("allowed: {} %", percent(max)), class: "bad", at: max }];
    let title = format!("Failed requests, over {} each", span(window));
    let scale = Scale::Linear(top(&lines, max * 2.0).min(1.0));
    figure(out, Chart { title, lines, limits, scale, ..base.clone() });

    let lines = vec![
        line(&format!("{canary} p95"), "canary", of(&|sample| sample.canary_p95_ms)),
        line(&format!("{stable} p95"), "stable", of(&|sample| sample.stable_p95_ms)),
        line(&format!("{canary} p50"), "canary thin", of(&|sample| sample.canary_p50_ms)),
        line(&format!("{stable} p50"), "stable thin", of(&|sample| sample.stable_p50_ms)),
    ];
    let promised = report.evidence.quick_max_ms;
    let limit = |at| Limit { name: format!("promised: {}", ms(Some(at))), class: "good", at };
    let limits = promised.map(limit).into_iter().collect();
    let scale = Scale::Linear(top(&lines, promised.unwrap_or(1.0)));
    let title = "Latency of the stage: p95 and p50 (thin)".into();
    figure(out, Chart { title, lines, limits, scale, value: |at| format!("{} ms", round(at)), ..base.clone() });

    let lines = vec![
        line("errors", "errors", of(&|sample| Some(sample.errors))),
        line("latency", "latency", of(&|sample| Some(sample.latency))),
        line("proof", "proof", of(&|sample| Some(sample.proof))),
    ];
    let evidence = &report.evidence;
    let limits = vec![
        Limit {
            name: format!("{}: errors roll back", evidence.errors_limit),
            class: "errors",
            at: evidence.errors_limit,
        },
        Limit {
            name: format!("{}: latency holds", evidence.latency_limit),
            class: "latency",
            at: evidence.latency_limit,
        },
        Limit { name: format!("{}: proven good", evidence.proof_limit), class: "proof", at: evidence.proof_limit },
    ];
    let most = lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1).fold(1_000.0, f64::max);
    let scale = Scale::Log(0.01, most);
    let title = "Evidence, logarithmic".into();
    figure(out, Chart { title, lines, limits, scale, value: |value| format!("{value}"), ..base });
}

fn figure(out: &mut String, chart: Chart) {
    out.push_str(&format!("<figure><figcaption>{}</figcaption>\n{}</figure>\n", escape(&chart.title), chart.svg()));
}

fn band(stage: &Stage, until: u64) -> Band {
    let name = format!("stage {}: {}", stage.nth, stage.name);
    Band { from: stage.from, until: stage.until.unwrap_or(until), name }
}

fn marks(decisions: &[RolloutDecision]) -> Vec<Mark> {
    let mark = |decision: &RolloutDecision| Mark {
        at: decision.at,
        name: format!("{}: {}", decision.decision, decision.why),
        class: class(tone_of_decision(&decision.decision)),
    };
    decisions.iter().map(mark).collect()
}

/// Failed of all within `window` milliseconds before each sample; `None` where there was nothing.
fn rates(samples: &[RolloutSample], window: u64, counts: fn(&RolloutSample) -> (u64, u64)) -> Vec<(u64, Option<f64>)> {
    let mut from = 0;
    let rate = |(nth, sample): (usize, &RolloutSample)| {
        while from + 1 < nth && sample.at - samples[from + 1].at >= window {
            from += 1;
        }
        let ((requests, failures), before) = (counts(sample), counts(&samples[from]));
        // A crash may have cost the last second of counts.
        let requests = requests.saturating_sub(before.0);
        let failed = failures.saturating_sub(before.1);
        (sample.at, (requests > 0).then(|| failed as f64 / requests as f64))
    };
    samples.iter().enumerate().map(rate).collect()
}

/// A round number that is above all points and not below `least`.
fn top(lines: &[Line], least: f64) -> f64 {
    let points = lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1);
    let most = points.filter(|value| value.is_finite()).fold(least, f64::max);
    nice(most / 4.0) * 4.0
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn decisions(out: &mut String, report: &RolloutReport) {
    out.push_str("<section><h2>Decisions</h2>\n<ol class=\"story\">\n");
    for decision in &report.decisions {
        let tone = class(tone_of_decision(&decision.decision));
        let after = span(decision.at.saturating_sub(report.started));
        let mut about = vec![decision.reason.clone()];
        if decision.stage > 0 {
            about.push(format!("stage {}", decision.stage));
        }
        about.push(format!("{} canary", share(decision.share)));
        about.extend(decision.generation.map(|generation| format!("generation {generation}")));
        about.push(format!("by {}", decision.author));
        out.push_str(&format!(
            "<li class=\"{tone}\"><p><time>{} (+{after})</time> <b>{}</b> <span class=\"quiet\">{}</span></p><p>{}</p>",
            clock(decision.at),
            escape(&decision.decision),
            escape(&about.join(", ")),
            escape(&decision.why)
        ));
        if !decision.cause.is_empty() {
            out.push_str(&format!("<p class=\"quiet\">{}</p>", escape(&decision.cause)));
        }
        if decision.evidence.canary.requests > 0 {
            let meters: Vec<String> = bars(&decision.evidence)
                .iter()
                .map(|bar| format!("{} {} of {}", bar.name, capital(bar.value), bar.limit))
                .collect();
            out.push_str(&format!("<p class=\"quiet\">evidence: {}</p>", escape(&meters.join("; "))));
        }
        if let Some(times) = &decision.receipt {
            let last = times.last_old_start_micros.map_or("not known".into(), micros);
            out.push_str(&format!(
                "<p class=\"quiet\">flip: {} to the new generation, {last} to the last request on the old one, {} in flight</p>",
                micros(times.flip_micros),
                times.in_flight_at_flip
            ));
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ol></section>\n");
}

fn numbers(out: &mut String, report: &RolloutReport, outcome: &Outcome, stages: &[Stage]) {
    let evidence = &report.evidence;
    out.push_str("<section><h2>Versions</h2>\n");
    let row = |role: &str, version: &str, arm: &RolloutArm| {
        let quantiles = [arm.p50_ms, arm.p95_ms, arm.p99_ms].map(ms);
        let mut cells = vec![format!("{role} {version}"), arm.requests.to_string(), arm.failures.to_string()];
        cells.push(rate(arm.requests, arm.failures));
        cells.extend(quantiles);
        cells
    };
    let rows = [row("canary", &outcome.canary, &evidence.canary), row("stable", &outcome.stable, &evidence.stable)];
    table(out, &super::evidence::ARM_TITLES, &rows);
    for (name, text) in facts(evidence) {
        out.push_str(&format!("<p><b>{name}</b> {}</p>\n", escape(&text)));
    }
    out.push_str("</section>\n");

    out.push_str("<section><h2>Evidence</h2>\n<div class=\"meters\">\n");
    for bar in bars(evidence) {
        let (full, kind) = (bar.part() * 100.0, if bar.is_against { "against" } else { "favour" });
        out.push_str(&format!(
            "<div><span>{}</span><span class=\"meter\"><i class=\"{kind}\" style=\"width:{full:.1}%\"></i></span><span>{} of {}{}</span></div>\n",
            escape(&bar.name),
            capital(bar.value),
            bar.limit,
            escape(&bar.text)
        ));
    }
    out.push_str("</div>\n");
    out.push_str("</section>\n");

    if !stages.is_empty() {
        out.push_str("<section><h2>Stages</h2>\n");
        let row = |stage: &Stage| {
            let took = span(stage.until.unwrap_or(report.at).saturating_sub(stage.from));
            let took = if stage.until.is_some() { took } else { format!("{took} so far") };
            vec![
                stage.nth.to_string(),
                stage.name.clone(),
                took,
                stage.requests.to_string(),
                stage.failures.to_string(),
            ]
        };
        let rows: Vec<_> = stages.iter().map(row).collect();
        table(out, &["stage", "share", "took", "canary requests", "failed"], &rows);
        out.push_str("</section>\n");
    }
    failed_requests(out, evidence, outcome);
}

fn failed_requests(out: &mut String, evidence: &RolloutEvidence, outcome: &Outcome) {
    let mut rows = Vec::new();
    for (version, arm) in [(&outcome.canary, &evidence.canary), (&outcome.stable, &evidence.stable)] {
        for (which, request) in [("first", &arm.first_failure), ("last", &arm.last_failure)] {
            let Some(request) = request else { continue };
            rows.push(vec![
                version.clone(),
                which.into(),
                clock(request.at),
                status(request.status),
                endpoint(request),
                request.id.clone(),
            ]);
        }
    }
    if rows.is_empty() {
        return;
    }
    out.push_str("<section><h2>Failed requests</h2>\n");
    table(out, &["version", "which", "at", "status", "endpoint", "request id"], &rows);
    out.push_str("</section>\n");
}

fn earlier(out: &mut String, report: &RolloutReport) {
    if report.earlier.is_empty() {
        return;
    }
    out.push_str("<section><h2>Earlier rollouts</h2>\n");
    let row = |decision: &RolloutDecision| {
        let versions = format!("{} to {}", decision.stable, decision.canary);
        vec![date(decision.rollout), versions, decision.decision.clone(), decision.why.clone()]
    };
    let rows: Vec<_> = report.earlier.iter().filter_map(|earlier| earlier.decisions.last().map(row)).collect();
    table(out, &["started", "versions", "ended with", "why"], &rows);
    out.push_str("</section>\n");
}

fn table(out: &mut String, titles: &[&str], rows: &[Vec<String>]) {
    out.push_str("<div class=\"scroll\"><table><thead><tr>");
    out.extend(titles.iter().map(|title| format!("<th>{}</th>", escape(title))));
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        out.extend(row.iter().map(|cell| format!("<td>{}</td>", escape(cell))));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Attention => "warn",
        Tone::Bad => "bad",
        Tone::Plain | Tone::Quiet => "plain",
    }
}

/// Blue and orange are told apart by everybody; both themes keep their contrast.
const STYLE: &str = "
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1b1b1a;--soft:#63625e;--rule:#e3e2de;--band0:#f1f0ec;--band1:#e9e8e3;\
--canary:#c2570c;--stable:#1f6fc4;--good:#1a7f37;--warn:#8f6400;--bad:#c4302b;--latency:#7b4fc9}
@media(prefers-color-scheme:dark){:root{--page:#161615;--ink:#ecebe7;--soft:#a3a29c;--rule:#343431;--band0:#20201e;--band1:#282826;\
--canary:#f08a3e;--stable:#63a8f0;--good:#4fb866;--warn:#d9a62b;--bad:#f0706a;--latency:#b294f0}}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:900px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:28px;margin:2px 0 8px}h2{font-size:18px;margin:32px 0 10px}p{margin:4px 0}
.kicker,.quiet,footer{color:var(--soft)}.arrow{color:var(--soft);font-weight:400}.why{font-size:17px}
.badge{font-size:14px;font-weight:600;vertical-align:middle;padding:3px 10px;border-radius:12px;border:1px solid currentColor}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
figure{margin:26px 0 0}figcaption{font-weight:600;margin-bottom:4px}svg{width:100%;height:auto;display:block}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule)}.band0{fill:var(--band0)}.band1{fill:var(--band1)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.line.thin{stroke-width:1.2}
.line.canary,.line.errors{stroke:var(--canary)}.line.stable{stroke:var(--stable)}.line.proof{stroke:var(--good)}.line.latency{stroke:var(--latency)}
svg .name{font-weight:600}svg .name.canary,svg .name.errors{fill:var(--canary)}svg .name.stable{fill:var(--stable)}
svg .name.proof{fill:var(--good)}svg .name.latency{fill:var(--latency)}svg .name.thin{font-weight:400}
.limit{stroke-dasharray:5 4;stroke:var(--soft)}.limit.bad{stroke:var(--bad)}.limit.errors{stroke:var(--canary)}.limit.good,.limit.proof{stroke:var(--good)}.limit.latency{stroke:var(--latency)}
.mark{stroke:var(--soft);stroke-dasharray:2 3}.dot{fill:var(--soft);stroke:none}
.mark.good{stroke:var(--good)}.mark.warn{stroke:var(--warn)}.mark.bad{stroke:var(--bad);stroke-dasharray:none;stroke-width:1.5}
.dot.good{fill:var(--good)}.dot.warn{fill:var(--warn)}.dot.bad{fill:var(--bad)}
.story{list-style:none;margin:0;padding:0}.story li{color:var(--ink);border-left:3px solid var(--rule);padding:2px 0 10px 14px}
.story li.good{border-color:var(--good)}.story li.warn{border-color:var(--warn)}.story li.bad{border-color:var(--bad)}
time{font-variant-numeric:tabular-nums;color:var(--soft)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:500}th,td{padding:5px 14px 5px 0;border-bottom:1px solid var(--rule);white-space:nowrap}
.meters div{display:grid;grid-template-columns:90px minmax(120px,260px) 1fr;gap:12px;align-items:center;margin:5px 0}
.meter{height:10px;border-radius:5px;background:var(--band1);overflow:hidden}.meter i{display:block;height:100%}
.against{background:var(--bad)}.favour{background:var(--good)}
footer{margin-top:40px;font-size:13px}
";

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// Every tag is closed in the order it was opened, every attribute quoted, every `&` a known entity.
    fn assert_well_formed(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let body = page.strip_prefix("<!DOCTYPE html>").expect("an HTML page");
        for (at, piece) in body.split('<').enumerate() {
            let (tag, text) = if at == 0 { ("", piece) } else { piece.split_once('>').expect("a tag ends") };
            assert!(!text.contains('>'), "a stray `>` in {text:?}");
            for entity in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
                let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
                assert!(known.iter().any(|known| entity.starts_with(known)), "`&{entity}`");
            }
            if tag.is_empty() {
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "a quote is missing in <{tag}>");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "closed in another order"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split([' ', '\n']).next().expect("a name")),
            }
        }
        assert_eq!(open, [] as [&str; 0], "left open");
    }

    #[test]
    fn the_page_is_well_formed_and_loads_nothing() {
        let page = page(&samples::report());
        assert_well_formed(&page);
        let elsewhere = page.replace("http://www.w3.org/1999/xhtml", "");
        for word in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!elsewhere.contains(word), "{word}");
        }
        assert_eq!(page.matches("<svg").count(), 4);
        for word in ["prefers-color-scheme:dark", "stage 2: 25 %", "allowed: 0.10 %", "7f3a-98", "254 of 200", "61 µs"]
        {
            assert!(page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_script_in_a_name_or_a_reason_is_text() {
        let evil = "</title></svg><script>alert('x')</script>\u{0}&\"";
        let mut told = samples::report();
        told.service = evil.into();
        told.rollout = None;
        for decision in &mut told.decisions {
            (decision.why, decision.cause, decision.author) = (evil.into(), evil.into(), evil.into());
            (decision.canary, decision.stable, decision.reason) = (evil.into(), evil.into(), evil.into());
        }
        if let Some(request) = &mut told.evidence.canary.first_failure {
            request.id = evil.into();
        }
        let page = page(&told);
        assert_well_formed(&page);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_page_without_samples_or_decisions_is_a_page_too() {
        let empty = RolloutReport { samples: Vec::new(), decisions: Vec::new(), rollout: None, ..samples::report() };
        assert_well_formed(&page(&empty));
    }

    #[test]
    fn a_rate_is_that_of_its_window_and_unknown_where_nothing_came() {
        let at = |at, canary_requests, canary_failures| RolloutSample {
            at,
            canary_requests,
            canary_failures,
            ..samples::report().samples[0]
        };
        let samples = [at(0, 0, 0), at(1_000, 100, 0), at(2_000, 200, 50), at(3_000, 300, 50), at(9_000, 300, 50)];
        let rates = rates(&samples, 1_000, |sample| (sample.canary_requests, sample.canary_failures));
        let rates: Vec<Option<f64>> = rates.into_iter().map(|(_, rate)| rate).collect();
        assert_eq!(rates, [None, Some(0.0), Some(0.5), Some(0.0), None]);
    }
}
