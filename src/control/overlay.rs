//! What an operator changed on top of the file, and what then runs. (pure)
//!
//! The file is intent. An entry of the overlay takes one service's split over, as a whole: every weight
//! of a service has one owner (I8). It lives until the file's value for that service changes, in which
//! case the edit wins, or until an operator clears it. An entry that says the same as the file is not
//! kept: then the file owns the split.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::model::{Intent, Name};
use crate::routing::table::CompiledService;
use crate::routing::{Share, VersionIdx};

/// A split by version name. A listed 0 is *draining*, an absent version is *off*.
pub type Weights = BTreeMap<String, u32>;

/// Entries by service.
pub type Overlay = BTreeMap<String, Entry>;

/// The greatest reduced sum of a split's weights.
pub const SUM_MAX: u64 = 10_000;

/// One service's split as somebody other than the file wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub weights: Weights,
    /// The owner.
    pub author: String,
    pub cause: String,
    /// Milliseconds since the Unix epoch.
    pub since: u64,
    /// What the file said when the entry was made, in the form of [`intent_text`].
    pub intent: String,
}

/// What runs for one service, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub shares: Vec<Share>,
    /// `None`: the file owns the split.
    pub entry: Option<Entry>,
    /// What an operator should know: an entry that ended, a version that no longer exists.
    pub notes: Vec<String>,
}

/// The file's value for a service as one line of text; equal exactly if the value is.
pub fn intent_text(intent: &Intent) -> String {
    match intent {
        Intent::Active(version) => format!("active {version}"),
        Intent::Split(weights) => format!("split {}", weights_text(weights)),
    }
}

/// `v1=90 v2=10`.
pub fn weights_text<K: AsRef<str>>(weights: &BTreeMap<K, u32>) -> String {
    let parts: Vec<String> = weights.iter().map(|(version, weight)| format!("{}={weight}", version.as_ref())).collect();
    parts.join(" ")
}

/// What the file asks for, by version name.
pub fn intended(intent: &Intent) -> Weights {
    match intent {
        Intent::Active(version) => Weights::from([(version.to_string(), 1)]),
        Intent::Split(weights) => weights.iter().map(|(version, weight)| (version.to_string(), *weight)).collect(),
    }
}

pub fn weights_of(versions: &[Name], shares: &[Share]) -> Weights {
    let named = versions.iter().zip(shares);
    named
        .filter_map(|(name, share)| match share {
            Share::Off => None,
            Share::Draining => Some((name.to_string(), 0)),
            Share::Weight(weight) => Some((name.to_string(), *weight)),
        })
        .collect()
}

/// Shares by `VersionIdx`, with the names that the service does not have. `None` if no weight is left.
pub fn shares_of(service: &CompiledService, weights: &Weights) -> Option<(Vec<Share>, Vec<String>)> {
    let mut shares = vec![Share::Off; service.versions.len()];
    let mut missing = Vec::new();
    for (name, weight) in weights {
        match service.version_named(name) {
            Some(VersionIdx(at)) => shares[usize::from(at)] = share(*weight),
            None => missing.push(name.clone()),
        }
    }
    carries_traffic(&shares).then_some((shares, missing))
}

pub fn share(weight: u32) -> Share {
    match weight {
        0 => Share::Draining,
        weight => Share::Weight(weight),
    }
}

/// At least one version gets new requests.
pub fn carries_traffic(shares: &[Share]) -> bool {
    shares.iter().any(|share| matches!(share, Share::Weight(_)))
}

/// The same division of traffic, whatever the units: 1:1 and 50:50, 1 and 100 for a single version.
pub fn same_division(one: &Weights, other: &Weights) -> bool {
    reduced(one) == reduced(other)
}

/// The sum of the weights once divided by their greatest common divisor.
pub fn reduced_sum(weights: &Weights) -> u64 {
    reduced(weights).values().map(|weight| u64::from(*weight)).sum()
}

fn reduced(weights: &Weights) -> Weights {
    let divisor = weights.values().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    weights.iter().map(|(name, weight)| (name.clone(), weight / divisor)).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What runs for `service` given the entry that was in force before this text of the file.
pub fn settle(service: &CompiledService, entry: Option<&Entry>) -> Settled {
    let intent = &service.service.intent;
    let by_file = |notes| {
        let (shares, _) =
            shares_of(service, &intended(intent)).expect("checked: the intent names versions with weight");
        Settled { shares, entry: None, notes }
    };
    let Some(entry) = entry else { return by_file(Vec::new()) };
    let now = intent_text(intent);
    if entry.intent != now {
        let note = format!(
            "service `{}`: the file's value changed from `{}` to `{now}`, so the edit wins over \"{}\" by {}",
            service.name, entry.intent, entry.cause, entry.author
        );
        return by_file(vec![note]);
    }
    match shares_of(service, &entry.weights) {
        Some((shares, missing)) => {
            let notes = missing.iter().map(|version| gone(service, entry, version)).collect();
            let weights = weights_of(&service.versions, &shares);
            Settled { shares, entry: Some(Entry { weights, ..entry.clone() }), notes }
        }
        None => by_file(vec![format!(
            "service `{}`: none of the versions that {} gave weight to (\"{}\") exists any more, so the file decides",
            service.name, entry.author, entry.cause
        )]),
    }
}

fn gone(service: &CompiledService, entry: &Entry, version: &str) -> String {
    format!(
        "service `{}`: version `{version}` no longer exists; the rest of \"{}\" by {} stays in force",
        service.name, entry.cause, entry.author
    )
}

/// Who asks for the new split of a service: what becomes an [`Entry`].
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub author: &'a str,
    pub cause: &'a str,
    pub now_ms: u64,
}

/// The overlay's entry once `shares` run for `service`: none if that is what the file says.
pub fn entry_for(service: &CompiledService, shares: &[Share], by: Asker<'_>) -> Option<Entry> {
    let weights = weights_of(&service.versions, shares);
    let intent = &service.service.intent;
    if same_division(&weights, &intended(intent)) {
        return None;
    }
    Some(Entry {
        weights,
        author: by.author.to_string(),
        cause: by.cause.to_string(),
        since: by.now_ms,
        intent: intent_text(intent),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::testing::{service, weights};

    const BY: Asker<'_> = Asker { author: "cli:ada", cause: "test", now_ms: 7 };

    #[test]
    fn the_file_owns_what_nobody_changed() {
        let shop = service("shop", &["v1", "v2"], "v1=90 v2=10");
        let settled = settle(&shop, None);
        assert_eq!(settled.shares, [Share::Weight(90), Share::Weight(10)]);
        assert_eq!(settled.entry, None);
    }

    #[test]
    fn an_entry_lives_through_unrelated_edits_and_ends_with_an_edit_of_its_service() {
        let shop = service("shop", &["v1", "v2"], "v1=1");
        let entry = entry_for(&shop, &[Share::Off, Share::Weight(1)], BY).expect("differs from the file");
        let unrelated = service("shop", &["v1", "v2", "v3"], "v1=1");
        assert_eq!(settle(&unrelated, Some(&entry)).shares, [Share::Off, Share::Weight(1), Share::Off]);
        let edited = service("shop", &["v1", "v2"], "v1=3 v2=1");
        let settled = settle(&edited, Some(&entry));
        assert_eq!((settled.shares, settled.entry), (vec![Share::Weight(3), Share::Weight(1)], None));
        assert!(settled.notes[0].contains("the edit wins"), "{:?}", settled.notes);
    }

    #[test]
    fn versions_that_are_gone_are_skipped_and_said() {
        let before = service("shop", &["v1", "v2", "v3"], "v1=1");
        let entry = entry_for(&before, &[Share::Off, Share::Weight(2), Share::Weight(1)], BY).expect("differs");
        let without = service("shop", &["v1", "v3"], "v1=1");
        let settled = settle(&without, Some(&entry));
        assert_eq!(settled.shares, [Share::Off, Share::Weight(1)]);
        assert!(settled.notes[0].contains("`v2` no longer exists"), "{:?}", settled.notes);
        let alone = service("shop", &["v1"], "v1=1");
        assert_eq!(settle(&alone, Some(&entry)).entry, None, "nothing of the entry is left");
    }

    #[test]
    fn saying_what_the_file_says_gives_the_split_back_to_the_file() {
        let shop = service("shop", &["v1", "v2"], "v1=50 v2=50");
        assert_eq!(entry_for(&shop, &[Share::Weight(1), Share::Weight(1)], BY), None);
        assert!(entry_for(&shop, &[Share::Weight(1), Share::Draining], BY).is_some());
    }

    #[test]
    fn a_draining_version_is_not_an_absent_one() {
        assert!(!same_division(&weights("v1=1"), &weights("v1=1 v2=0")));
        assert_eq!(reduced_sum(&weights("v1=500000 v2=500000 v3=0")), 2);
    }

    fn some_weights() -> impl Strategy<Value = Weights> {
        prop::collection::btree_map("v[1-5]", 0u32..50, 1..5)
            .prop_filter("one weight above 0", |weights| weights.values().any(|weight| *weight > 0))
    }

    proptest! {
        #[test]
        fn i8_every_weight_has_one_owner(file in some_weights(), over in some_weights(), edit in some_weights()) {
            let all = ["v1", "v2", "v3", "v4", "v5"];
            let shop = service("shop", &all, &weights_text(&file));
            let (shares, _) = shares_of(&shop, &over).expect("some weight");
            let entry = entry_for(&shop, &shares, BY);
            // Settled with its own file, exactly what was asked for runs, and the owner is who asked.
            let settled = settle(&shop, entry.as_ref());
            prop_assert!(same_division(&weights_of(&shop.versions, &settled.shares), &over));
            prop_assert_eq!(settled.entry.is_none(), same_division(&over, &file));
            // After an edit of the service, the file's value runs and the file owns it.
            let edited = service("shop", &all, &weights_text(&edit));
            let settled = settle(&edited, entry.as_ref());
            if edit != file || entry.is_none() {
                prop_assert_eq!(weights_of(&edited.versions, &settled.shares), edit);
                prop_assert_eq!(settled.entry, None);
            } else {
                prop_assert_eq!(settled.entry, entry);
            }
        }

        #[test]
        fn shares_and_weights_say_the_same(over in some_weights()) {
            let shop = service("shop", &["v1", "v2", "v3", "v4", "v5"], "v1=1");
            let (shares, missing) = shares_of(&shop, &over).expect("some weight");
            prop_assert!(missing.is_empty());
            prop_assert_eq!(weights_of(&shop.versions, &shares), over);
        }
    }
}
