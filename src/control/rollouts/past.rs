//! What stable did before a rollout: a service that fails more often than its guardrail allows cannot be judged by it.

use crate::analysis::{Counts, bake_limit};
use crate::config::model::Rollout as Plan;
use crate::control::controller::Controller;

/// Fewer answers than this say little.
const ENOUGH: u64 = 1_000;

impl Controller {
    /// A word of caution for whoever begins a rollout, if there is need of one.
    pub(super) fn caution(&self, service: &str, stable: &str, plan: &Plan) -> Option<String> {
        let rule = plan.guardrails.errors?;
        let past = self.past(service, stable);
        (past.total >= ENOUGH && past.rate() > rule.max).then(|| {
            let limit = bake_limit(rule.max, rule.ratio, past.failed, past.total);
            format!(
                "{stable} itself failed in {} % of its {} answers so far, and `errors.max` is {} %: nothing is proven against that; {} % would fit",
                percent(past.rate()),
                past.total,
                percent(rule.max),
                percent(limit)
            )
        })
    }

    /// Answers of a version since this process began, and those that blame it.
    fn past(&self, service: &str, version: &str) -> Counts {
        let mut past = Counts::default();
        for (key, codes) in self.registry.snapshot() {
            if *key.service != *service || *key.version != *version {
                continue;
            }
            for (code, count) in codes.seen() {
                past.total += count;
                past.failed += if code.starts_with('5') { count } else { 0 };
            }
        }
        past
    }
}

/// With two digits that count.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    let digits = (1.0 - percent.log10().floor()).clamp(0.0, 4.0) as usize;
    let text = format!("{percent:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_two_digits_that_count() {
        for (rate, wanted) in [(0.001, "0.1"), (0.0129, "1.3"), (0.000_123, "0.012"), (0.5, "50"), (1.0, "100")] {
            assert_eq!(percent(rate), wanted);
        }
    }
}
