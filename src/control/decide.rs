//! What an operator's word means for one service's split, or why it is refused. (pure)
//!
//! A refusal changes nothing. A call that names several services is decided service by service first and
//! published as one generation only if all of them agree.

use super::api::Refused;
use super::overlay::{SUM_MAX, Weights, carries_traffic, reduced_sum, share, shares_of};
use crate::routing::table::CompiledService;
use crate::routing::{Share, VersionIdx};

/// What is known of a service when a change is asked for.
pub struct Facts<'a> {
    pub service: &'a CompiledService,
    /// What runs, by `VersionIdx`.
    pub live: &'a [Share],
    /// Whether the version has an endpoint that passes its health check, or has no check.
    pub ready: &'a dyn Fn(VersionIdx) -> bool,
}

/// The new shares and what the operator should know about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub shares: Vec<Share>,
    pub warnings: Vec<String>,
}

/// Everything to `to`; all other versions are off.
pub fn switch(facts: &Facts<'_>, to: &str, force: bool) -> Result<Decision, Refused> {
    let target = version(facts.service, to)?;
    let mut shares = vec![Share::Off; facts.service.versions.len()];
    shares[usize::from(target.0)] = Share::Weight(1);
    let warnings = check_ready(facts, &shares, force)?;
    Ok(Decision { shares, warnings })
}

/// As given: 0 is draining, absent is off.
pub fn weights(facts: &Facts<'_>, to: &Weights, force: bool) -> Result<Decision, Refused> {
    let name = &facts.service.name;
    let mut shares = vec![Share::Off; facts.service.versions.len()];
    for (at, weight) in to {
        shares[usize::from(version(facts.service, at)?.0)] = share(*weight);
    }
    if !carries_traffic(&shares) {
        return Err(conflict(
            format!("service `{name}`: no version would get new requests"),
            Some("give at least one version a weight above 0".into()),
        ));
    }
    let sum = reduced_sum(to);
    if sum > SUM_MAX {
        return Err(conflict(
            format!("service `{name}`: the weights sum to {sum} once reduced; at most {SUM_MAX} are possible"),
            Some("use hundredths of a percent as the finest unit".into()),
        ));
    }
    let warnings = check_ready(facts, &shares, force)?;
    Ok(Decision { shares, warnings })
}

/// Weight 0 for one version; the others keep their weights and so take its share. A version that is off
/// gets nothing already, so draining it changes nothing.
pub fn drain(facts: &Facts<'_>, name: &str) -> Result<Decision, Refused> {
    let target = usize::from(version(facts.service, name)?.0);
    let mut shares = facts.live.to_vec();
    match shares[target] {
        Share::Off | Share::Draining => {}
        Share::Weight(_) => shares[target] = Share::Draining,
    }
    if !carries_traffic(&shares) {
        let service = &facts.service.name;
        return Err(conflict(
            format!("service `{service}`: `{name}` is the only version with weight, so nothing could take its share"),
            Some(format!("give another version weight first: switchback switch {service} VERSION")),
        ));
    }
    Ok(Decision { shares, warnings: Vec::new() })
}

/// Back to `back`, the split that was live before the present one. Health is not asked: a way back that
/// first waits for a probe is not a way back. The second of two rollbacks in a row undoes the first.
pub fn rollback(facts: &Facts<'_>, back: Option<&Weights>) -> Result<Decision, Refused> {
    let service = &facts.service.name;
    let Some(back) = back else {
        return Err(conflict(
            format!("service `{service}` has no earlier split to go back to"),
            Some(format!("choose a version: switchback switch {service} VERSION")),
        ));
    };
    let Some((shares, missing)) = shares_of(facts.service, back) else {
        return Err(conflict(
            format!("service `{service}`: no version of the earlier split that had weight exists any more"),
            Some(
                "an earlier generation brings the whole configuration back: switchback history, switchback revert N"
                    .into(),
            ),
        ));
    };
    let mut warnings: Vec<String> =
        missing.iter().map(|version| format!("version `{version}` no longer exists and was left out")).collect();
    for at in gets_weight(&shares) {
        if !(facts.ready)(at) {
            warnings.push(format!("version `{}` has no ready endpoint", facts.service.version_name(at)));
        }
    }
    Ok(Decision { shares, warnings })
}

/// A name that does not exist, with the one that may have been meant.
pub fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Refused {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|have| (strsim::osa_distance(have, name), *have)).min();
    let hint = match near {
        Some((distance, near)) if distance <= 2.max(name.len() / 3) => Some(format!("did you mean `{near}`?")),
        _ if known.is_empty() => None,
        _ => Some(format!("there are: {}", known.join(", "))),
    };
    Refused::NotFound { what: format!("no {kind} `{name}`"), hint }
}

pub fn conflict(what: String, hint: Option<String>) -> Refused {
    Refused::Conflict { what, hint }
}

fn version(service: &CompiledService, name: &str) -> Result<VersionIdx, Refused> {
    service.version_named(name).ok_or_else(|| {
        let what = format!("version of service `{}` called", service.name);
        unknown(&what, name, service.versions.iter().map(|version| &**version))
    })
}

/// Refuses (or, forced, warns of) giving more traffic than now to a version that cannot take it.
fn check_ready(facts: &Facts<'_>, shares: &[Share], force: bool) -> Result<Vec<String>, Refused> {
    let service = facts.service;
    let mut warnings = Vec::new();
    for at in gets_weight(shares) {
        let raised = part(shares, at) > part(facts.live, at);
        if !raised || (facts.ready)(at) {
            continue;
        }
        let what = format!("service `{}`: version `{}` has no ready endpoint", service.name, service.version_name(at));
        if !force {
            let hint = format!(
                "see `switchback status {}` for what its health check says; --force switches all the same",
                service.name
            );
            return Err(conflict(what, Some(hint)));
        }
        warnings.push(what);
    }
    Ok(warnings)
}

fn gets_weight(shares: &[Share]) -> impl Iterator<Item = VersionIdx> {
    shares
        .iter()
        .enumerate()
        .filter(|(_, share)| matches!(share, Share::Weight(_)))
        .map(|(at, _)| VersionIdx(at as u16))
}

/// The part of all new requests that a version gets, 0 to 1.
pub fn part(shares: &[Share], at: VersionIdx) -> f64 {
    let weight = |share: &Share| match share {
        Share::Off | Share::Draining => 0.0,
        Share::Weight(weight) => f64::from(*weight),
    };
    let sum: f64 = shares.iter().map(weight).sum();
    if sum == 0.0 { 0.0 } else { weight(&shares[usize::from(at.0)]) / sum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::overlay::{same_division, weights_of};
    use super::*;
    use crate::control::testing::{service, weights as given};

    fn shop() -> CompiledService {
        service("shop", &["v1", "v2", "v3"], "v1=1")
    }
    const LIVE: [Share; 3] = [Share::Weight(1), Share::Off, Share::Off];

    fn facts<'a>(service: &'a CompiledService, ready: &'a dyn Fn(VersionIdx) -> bool) -> Facts<'a> {
        Facts { service, live: &LIVE, ready }
    }

    #[test]
    fn a_switch_turns_every_other_version_off() {
        let shop = shop();
        let decision = switch(&facts(&shop, &|_| true), "v2", false).expect("v2 is ready");
        assert_eq!(decision.shares, [Share::Off, Share::Weight(1), Share::Off]);
    }

    #[test]
    fn an_unready_version_gets_more_traffic_only_by_force() {
        let shop = shop();
        let only_v1 = |at: VersionIdx| at.0 == 0;
        let facts = facts(&shop, &only_v1);
        for refused in [switch(&facts, "v2", false), weights(&facts, &given("v1=90 v2=10"), false)] {
            let Err(Refused::Conflict { what, hint }) = refused else { panic!("{refused:?}") };
            assert_eq!(what, "service `shop`: version `v2` has no ready endpoint");
            assert!(hint.expect("what to do").contains("--force"));
        }
        let forced = switch(&facts, "v2", true).expect("forced");
        assert_eq!(forced.warnings, ["service `shop`: version `v2` has no ready endpoint"]);
        let down = |_| false;
        let lower = Facts { service: &shop, live: &[Share::Weight(1), Share::Weight(1), Share::Off], ready: &down };
        assert!(weights(&lower, &given("v1=1 v2=1"), false).is_ok(), "what it has already is not refused");
    }

    #[test]
    fn draining_the_last_version_is_refused() {
        let shop = shop();
        let Err(Refused::Conflict { what, .. }) = drain(&facts(&shop, &|_| true), "v1") else { panic!() };
        assert!(what.contains("only version with weight"), "{what}");
        let unchanged = drain(&facts(&shop, &|_| true), "v2").expect("off already");
        assert_eq!(unchanged.shares, LIVE);
        let both = [Share::Weight(90), Share::Weight(10), Share::Off];
        let ready = |_| true;
        let facts = Facts { service: &shop, live: &both, ready: &ready };
        assert_eq!(drain(&facts, "v1").expect("v2 takes it").shares, [Share::Draining, Share::Weight(10), Share::Off]);
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_one() {
        let api = service("api", &["blue", "green"], "blue=1");
        let ready = |_| true;
        let facts = Facts { service: &api, live: &[Share::Weight(1), Share::Off], ready: &ready };
        let refused = switch(&facts, "gren", false).expect_err("no such version");
        let hint = Some("did you mean `green`?".to_string());
        assert_eq!(refused, Refused::NotFound { what: "no version of service `api` called `gren`".into(), hint });
        assert!(matches!(weights(&facts, &given("blue=1 purple=1"), true), Err(Refused::NotFound { .. })));
        assert!(matches!(drain(&facts, "red"), Err(Refused::NotFound { .. })));
    }

    #[test]
    fn weights_that_carry_nothing_or_too_much_are_refused() {
        let shop = shop();
        let facts = facts(&shop, &|_| true);
        assert!(matches!(weights(&facts, &given("v1=0"), true), Err(Refused::Conflict { .. })));
        assert!(matches!(weights(&facts, &Weights::new(), true), Err(Refused::Conflict { .. })));
        assert!(matches!(weights(&facts, &given("v1=9999 v2=2"), true), Err(Refused::Conflict { .. })));
        assert!(weights(&facts, &given("v1=30000 v2=10000"), true).is_ok(), "reduced to 3:1");
    }

    #[test]
    fn a_rollback_leaves_out_what_is_gone_and_needs_no_health() {
        let shop = shop();
        let facts = facts(&shop, &|_| false);
        let back = rollback(&facts, Some(&given("v2=1 old=9"))).expect("v2 is left");
        assert_eq!(back.shares, [Share::Off, Share::Weight(1), Share::Off]);
        assert_eq!(
            back.warnings,
            ["version `old` no longer exists and was left out", "version `v2` has no ready endpoint"]
        );
        assert!(matches!(rollback(&facts, Some(&given("old=1"))), Err(Refused::Conflict { .. })));
        assert!(matches!(rollback(&facts, None), Err(Refused::Conflict { .. })));
    }

    fn some_weights() -> impl Strategy<Value = Weights> {
        prop::collection::btree_map("v[1-3]", 0u32..50, 1..4)
            .prop_filter("one weight above 0", |weights| weights.values().any(|weight| *weight > 0))
    }

    proptest! {
        #[test]
        fn a_rollback_after_a_change_is_what_was(before in some_weights(), change in some_weights(), to in "v[1-3]") {
            let shop = shop();
            let ready = |_| true;
            let (live, _) = shares_of(&shop, &before).expect("some weight");
            let facts = Facts { service: &shop, live: &live, ready: &ready };
            for changed in [switch(&facts, &to, false), weights(&facts, &change, false)] {
                let changed = changed.expect("known and ready");
                let after = Facts { service: &shop, live: &changed.shares, ready: &ready };
                let back = rollback(&after, Some(&weights_of(&shop.versions, &live))).expect("all exist");
                prop_assert_eq!(back.shares, live.clone());
            }
        }

        #[test]
        fn a_drain_keeps_the_proportions_of_the_rest(before in some_weights(), version in "v[1-3]") {
            let shop = shop();
            let ready = |_| true;
            let (live, _) = shares_of(&shop, &before).expect("some weight");
            let facts = Facts { service: &shop, live: &live, ready: &ready };
            if let Ok(drained) = drain(&facts, &version) {
                let mut rest = before.clone();
                rest.remove(&version);
                let mut left = weights_of(&shop.versions, &drained.shares);
                prop_assert!(left.remove(&version).is_none_or(|weight| weight == 0));
                prop_assert!(same_division(&left, &rest));
            }
        }
    }
}
