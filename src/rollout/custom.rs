//! Guardrails of the user's own that look at answers: each has an error test of its own, fed with its own idea of
//! a bad answer.

use serde::{Deserialize, Serialize};

use crate::analysis::{Arm, ErrorJudge, ErrorLimits, Verdict};
use crate::config::model::{CustomEvent, Guardrails, Then};

/// Which rules an answer has broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bad(u32);

impl Bad {
    /// It failed, as far as the rule `errors` is concerned.
    pub const FAILED: Bad = Bad(1);
    /// Rules beside `errors` that one rollout can have: `config::check` refuses more.
    pub const CUSTOMS: usize = 31;

    /// Of the custom rule that [`Customs::place_of`] put here.
    pub fn custom(place: usize) -> Bad {
        Bad(1 << (place + 1))
    }

    pub fn or(self, other: Bad) -> Bad {
        Bad(self.0 | other.0)
    }

    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    pub fn has_failed(self) -> bool {
        self.0 & 1 == 1
    }

    fn breaks(self, place: usize) -> bool {
        self.0 >> (place + 1) & 1 == 1
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Custom {
    name: String,
    judge: ErrorJudge,
    /// Whether it rolls back (or pauses); `None`: the present stage does not have it.
    rolls_back: Option<bool>,
}

/// A rule keeps its place for the whole rollout, so that late answers find it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Customs(Vec<Custom>);

impl Customs {
    /// From now on these rules apply; what speaks against the canary is kept. `paired`: see [`ErrorJudge::set_paired`].
    pub fn follow(&mut self, rules: &Guardrails, share: f64, paired: bool) {
        self.0.iter_mut().for_each(|custom| custom.rolls_back = None);
        for (name, rule) in &rules.custom {
            let (CustomEvent::Header { max, .. }
            | CustomEvent::Status { max, .. }
            | CustomEvent::GrpcStatus { max, .. }) = rule.what
            else {
                continue;
            };
            let limits = ErrorLimits { slo: max, ..ErrorLimits::default() };
            let place = self.place_of(name).or_else(|| {
                let judge = ErrorJudge::new(limits);
                (self.0.len() < Bad::CUSTOMS).then(|| {
                    self.0.push(Custom { name: name.to_string(), judge, rolls_back: None });
                    self.0.len() - 1
                })
            });
            let Some(custom) = place.and_then(|place| self.0.get_mut(place)) else { continue };
            custom.judge.set_limits(limits);
            custom.judge.set_share(share);
            custom.judge.set_paired(paired);
            custom.rolls_back = Some(rule.then == Then::RollBack);
        }
    }

    pub fn set_paired(&mut self, paired: bool) {
        self.0.iter_mut().for_each(|custom| custom.judge.set_paired(paired));
    }

    pub fn place_of(&self, rule: &str) -> Option<usize> {
        self.0.iter().position(|custom| custom.name == rule)
    }

    pub fn succeeded(&mut self, arm: Arm, requests: u64) {
        self.0.iter_mut().for_each(|custom| custom.judge.succeeded(arm, requests));
    }

    /// An answer that broke at least one rule, this or another.
    pub fn answered(&mut self, arm: Arm, pi: f64, bad: Bad) {
        for (place, custom) in self.0.iter_mut().enumerate() {
            match bad.breaks(place) {
                true => custom.judge.failed(arm, pi),
                false => custom.judge.succeeded(arm, 1),
            }
        }
    }

    /// The evidence of rules that pause, and that are broken, begins anew.
    pub fn forgive(&mut self) {
        for custom in self.0.iter_mut().filter(|custom| custom.rolls_back == Some(false)) {
            if custom.judge.verdict() == Verdict::RollBack {
                custom.judge.begin_anew();
            }
        }
    }

    /// The rules of the present stage: name, test, and whether it rolls back.
    pub fn present(&self) -> impl Iterator<Item = (&str, &ErrorJudge, bool)> {
        self.0.iter().filter_map(|custom| Some((custom.name.as_str(), &custom.judge, custom.rolls_back?)))
    }
}
