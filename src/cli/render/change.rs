//! A change: its receipt, its plan, the decision it would make for one request.

use super::{Tone, micros, paint, split};
use crate::config::problem::Severity;
use crate::control::api::{Explanation, Plan, PlanLine, Receipt};

pub fn receipt(receipt: &Receipt, colour: bool) -> String {
    let mut out = String::new();
    if receipt.changed {
        let number = format!("generation {}", receipt.generation);
        out.push_str(&format!("{} is live: {}\n", paint(&number, Tone::Good, colour), receipt.cause));
    } else {
        out.push_str(&format!("nothing to change: generation {} has it already\n", receipt.generation));
    }
    for (service, to) in &receipt.to {
        let from = receipt.from.get(service).map_or("nothing".into(), split);
        out.push_str(&format!("  {service}: {from} -> {}\n", split(to)));
    }
    if receipt.changed {
        let last = match receipt.last_old_start_micros {
            0 => "no request started on the old split after the trigger".into(),
            us => format!("last request on the old split started {} after the trigger", micros(us)),
        };
        out.push_str(&format!("  flipped in {}; {last}\n", micros(receipt.flip_micros)));
        if receipt.in_flight_at_flip > 0 {
            out.push_str(&format!("  {} in flight on the old split go on to their end\n", receipt.in_flight_at_flip));
        }
    }
    for warning in &receipt.warnings {
        out.push_str(&format!("{}: {warning}\n", paint("warning", Tone::Attention, colour)));
    }
    out
}

pub fn plan(plan: &Plan, colour: bool) -> String {
    let mut out = String::new();
    if plan.changed {
        out.push_str(&format!("changes to generation {}:\n", plan.base));
        lines(&mut out, &plan.changes);
        if !plan.consequences.is_empty() {
            out.push_str("what that means now:\n");
            lines(&mut out, &plan.consequences);
        }
        if !plan.diff.trim().is_empty() {
            out.push('\n');
            out.extend(plan.diff.lines().map(|line| diff_line(line, colour)));
        }
    } else {
        out.push_str(&format!("no change: generation {} is this configuration\n", plan.base));
    }
    for warning in &plan.warnings {
        let (label, tone) = match warning.severity {
            Severity::Warning => ("warning", Tone::Attention),
            Severity::Error => ("error", Tone::Bad),
        };
        let place = warning.place.as_ref().map_or(String::new(), |at| format!("{}:{}: ", at.file, at.line));
        out.push_str(&format!("{}: {place}{}\n", paint(label, tone, colour), warning.what));
        if let Some(hint) = &warning.hint {
            out.push_str(&format!("  = help: {hint}\n"));
        }
    }
    out
}

fn lines(out: &mut String, lines: &[PlanLine]) {
    let kind = lines.iter().map(|line| line.kind.chars().count()).max().unwrap_or(0);
    let subject = lines.iter().map(|line| line.subject.chars().count()).max().unwrap_or(0);
    for line in lines {
        out.push_str(&format!("  {:kind$}  {:subject$}  {}\n", line.kind, line.subject, line.text));
    }
}

fn diff_line(line: &str, colour: bool) -> String {
    let tone = match line.as_bytes().first() {
        Some(b'+') => Tone::Good,
        Some(b'-') => Tone::Bad,
        Some(b'@') => Tone::Quiet,
        Some(_) | None => Tone::Plain,
    };
    format!("{}\n", paint(line, tone, colour))
}

pub fn explanation(found: &Explanation, colour: bool) -> String {
    let mut out = format!("{} {}{}  (generation {})\n", found.method, found.host, found.path, found.generation);
    for (number, step) in found.steps.iter().enumerate() {
        out.push_str(&format!("  {}. {step}\n", number + 1));
    }
    let mut facts = Vec::new();
    facts.extend(found.route.as_ref().map(|route| ("route", route.clone())));
    facts.push(("action", found.action.clone()));
    facts.extend(found.service.as_ref().map(|service| ("service", service.clone())));
    if let Some(version) = &found.version {
        let reason = found.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        facts.push(("version", format!("{}{reason}", paint(version, Tone::Good, colour))));
    }
    facts.extend(found.bucket.map(|bucket| ("bucket", bucket.to_string())));
    facts.extend(found.forwarded_path.as_ref().map(|path| ("asked for", path.clone())));
    facts.extend(found.status.map(|status| ("status", status.to_string())));
    for (name, value) in facts {
        out.push_str(&format!("  {name:9}  {value}\n"));
    }
    for endpoint in &found.endpoints {
        let (health, tone) = super::status::health(endpoint);
        out.push_str(&format!("  endpoint   {}  {}\n", endpoint.address, paint(&health, tone, colour)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::config::problem::Problem;

    #[test]
    fn a_receipt_says_what_moved_and_how_fast() {
        insta::assert_snapshot!(receipt(&samples::receipt(), false), @r"
        generation 43 is live: switch shop v2
          shop: v1 90, v2 10 -> v1 0, v2 100
          flipped in 38 µs; last request on the old split started 1.2 ms after the trigger
          41 in flight on the old split go on to their end
        warning: v2 has one healthy endpoint of two
        ");
        let same = Receipt { changed: false, from: Default::default(), to: Default::default(), ..samples::receipt() };
        insta::assert_snapshot!(receipt(&Receipt { warnings: vec![], ..same }, false), @"nothing to change: generation 43 has it already");
    }

    #[test]
    fn a_plan_shows_changes_then_consequences() {
        let line = |kind: &str, subject: &str, text: &str| PlanLine {
            kind: kind.into(),
            subject: subject.into(),
            text: text.into(),
        };
        let shown = Plan {
            base: 41,
            changed: true,
            changes: vec![line("split", "shop", "v1 90 -> 50, v2 10 -> 50"), line("listener", "admin2", "bound")],
            consequences: vec![line("client", "shop", "about 40 % of clients move from v1 to v2")],
            diff: "@@ -1,2 +1,2 @@\n-    v1: 90\n+    v1: 50\n".into(),
            warnings: vec![Problem {
                severity: Severity::Warning,
                what: "service `api` has no health check".into(),
                place: None,
                why: None,
                hint: Some("add `health: { path: /healthz }`".into()),
            }],
        };
        insta::assert_snapshot!(plan(&shown, false), @r"
        changes to generation 41:
          split     shop    v1 90 -> 50, v2 10 -> 50
          listener  admin2  bound
        what that means now:
          client  shop  about 40 % of clients move from v1 to v2

        @@ -1,2 +1,2 @@
        -    v1: 90
        +    v1: 50
        warning: service `api` has no health check
          = help: add `health: { path: /healthz }`
        ");
        let none = Plan { changed: false, warnings: vec![], ..shown };
        insta::assert_snapshot!(plan(&none, false), @"no change: generation 41 is this configuration");
    }

    #[test]
    fn an_explanation_lists_steps_then_the_outcome() {
        insta::assert_snapshot!(explanation(&samples::explanation(), false), @r"
        GET shop.test/cart  (generation 42)
          1. host shop.test: exact
          2. path / matches /cart
          3. bucket 9312 is v2's
          route      shop
          action     forward
          service    shop
          version    v2 (sticky)
          bucket     9312
          asked for  /cart
          endpoint   10.0.0.1:3000  healthy
        ");
    }
}
