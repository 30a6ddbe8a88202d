//! What happened, as a table, and what was wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::excuse::Cost;
use super::load::{Failure, Tally};
use super::meters::{Meter, Meters};
use super::schedule::What;
use super::stage::Done;

/// Failures that are shown one by one.
const SHOWN: usize = 20;

pub struct Report {
    seed: u64,
    began: Instant,
    lasted: Duration,
    by_event: BTreeMap<What, Line>,
    fine: BTreeMap<&'static str, u64>,
    declared: BTreeMap<&'static str, u64>,
    undeclared: Vec<Failure>,
    idle: Meter,
    after: Meter,
    trend: Option<(Meter, Meter)>,
    problems: Vec<String>,
}

#[derive(Default)]
struct Line {
    times: u64,
    longest: Duration,
    lost: u64,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "everything that a run leaves, put together in one place")]
    pub fn new(
        seed: u64,
        began: Instant,
        done: Vec<Done>,
        seen: Tally,
        meters: Meters,
        idle: Meter,
        after: Meter,
        leftovers: Vec<String>,
        ended: Vec<String>,
    ) -> Report {
        let mut report = Report {
            seed,
            began,
            lasted: began.elapsed(),
            by_event: BTreeMap::new(),
            fine: seen.fine,
            declared: BTreeMap::new(),
            undeclared: Vec::new(),
            idle,
            after,
            trend: meters.trend(),
            problems: Vec::new(),
        };
        for event in &done {
            let line = report.by_event.entry(event.what).or_default();
            line.times += 1;
            line.longest = line.longest.max(event.span.end - event.span.begin);
            report.problems.extend(event.problems.iter().cloned());
        }
        for failure in seen.failures {
            let culprit =
                done.iter().find(|event| event.span.cost != Cost::Nothing && event.span.excuses(&failure.broken));
            match culprit {
                Some(event) => {
                    report.by_event.entry(event.what).or_default().lost += 1;
                    *report.declared.entry(failure.kind).or_default() += 1;
                }
                None => report.undeclared.push(failure),
            }
        }
        for (what, count) in [
            ("keep-alive GET", 100),
            ("fresh GET", 100),
            ("POST with a body", 50),
            ("slow answer", 5),
            ("slow body", 5),
            ("event stream", 1),
            ("WebSocket", 1),
            ("GET over TLS", 20),
        ] {
            let fine = report.fine.get(what).copied().unwrap_or(0);
            if fine < count {
                report.problems.push(format!("{what}: only {fine} went well: there was no load"));
            }
        }
        if let Some((early, late)) = report.trend {
            let grown = |what: &str, early: u64, late: u64, slack: u64| {
                (late > early + early / 5 + slack).then(|| format!("{what} grew from {early} to {late}"))
            };
            report.problems.extend(grown("memory (KiB)", early.rss_kib, late.rss_kib, 8 * 1024));
            report.problems.extend(grown("descriptors", early.descriptors, late.descriptors, 32));
            report.problems.extend(grown("threads", early.threads, late.threads, 2));
        }
        report.problems.extend(leftovers);
        report.problems.extend(ended);
        report
    }

    /// The kinds of events that there were.
    #[allow(dead_code, reason = "asked by the short soak of the tests; the long one prints them")]
    pub fn happened(&self) -> Vec<String> {
        self.by_event.keys().map(What::to_string).collect()
    }

    /// Empty if all was as promised.
    pub fn problems(&self) -> Vec<String> {
        let undeclared = self.undeclared.iter().take(SHOWN).map(|failure| {
            let at = failure.broken.begin.saturating_duration_since(self.began);
            format!("at {:.3} s, {} failed: {}", at.as_secs_f64(), failure.kind, failure.what)
        });
        let more = self.undeclared.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("and {more} more failed"));
        self.problems.iter().cloned().chain(undeclared).chain(more).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nseed {}, {:.1} s", self.seed, self.lasted.as_secs_f64())?;
        writeln!(f, "\n{:<34} {:>6} {:>12} {:>14}", "event", "times", "longest", "in flight lost")?;
        for (what, line) in &self.by_event {
            let longest = format!("{:.0} ms", line.longest.as_secs_f64() * 1000.0);
            writeln!(f, "{what:<34} {:>6} {longest:>12} {:>14}", line.times, line.lost)?;
        }
        writeln!(f, "\n{:<34} {:>9} {:>9} {:>9}", "clients", "fine", "declared", "failed")?;
        for (kind, fine) in &self.fine {
            let failed = self.undeclared.iter().filter(|failure| failure.kind == *kind).count();
            let declared = self.declared.get(kind).copied().unwrap_or(0);
            writeln!(f, "{kind:<34} {fine:>9} {declared:>9} {failed:>9}")?;
        }
        writeln!(f, "\n{:<34} {:>9} {:>9} {:>9} {:>9}", "processes", "idle", "early", "late", "after")?;
        let dash = || "-".to_string();
        let row = |number: fn(&Meter) -> u64| {
            let (early, late) = match &self.trend {
                Some((early, late)) => (number(early).to_string(), number(late).to_string()),
                None => (dash(), dash()),
            };
            format!("{:>9} {early:>9} {late:>9} {:>9}", number(&self.idle), number(&self.after))
        };
        writeln!(f, "{:<34} {}", "memory, KiB", row(|meter| meter.rss_kib))?;
        writeln!(f, "{:<34} {}", "descriptors", row(|meter| meter.descriptors))?;
        writeln!(f, "{:<34} {}", "threads", row(|meter| meter.threads))?;
        let problems = self.problems();
        if problems.is_empty() {
            return write!(f, "\nnothing failed that was not declared");
        }
        write!(f, "\n{} problems:", problems.len())?;
        problems.iter().try_for_each(|problem| write!(f, "\n- {problem}"))
    }
}
