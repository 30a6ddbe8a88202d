//! Which series there are: counters outlive generations, and those of what is gone retire.
//!
//! A version's counters live in its [`VersionCore`], which a reload keeps while the version is in the
//! configuration. This list holds on to those that are gone until nothing runs on them and every scraper
//! has had time to see their last values. If a version comes back meanwhile it has a new core with the
//! same name: the two are added up, and what the old one counted is carried on when it retires.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::model::Name;
use crate::endpoints::VersionCore;
use crate::outcome::{CodesKey, CodesRegistry, Durations, ErrorClass, RetryReason};
use crate::sessions::Kind;

/// What is gone and idle is shown for this long: longer than any sane scrape interval.
const RETIRE_AFTER: Duration = Duration::from_secs(300);

/// Service and version.
pub(super) type Label = (Name, Name);

#[derive(Debug, Default)]
pub(super) struct Series {
    /// By slot.
    cores: BTreeMap<u32, Seen>,
    /// What retired cores counted whose version is still there.
    carried: BTreeMap<Label, Totals>,
    /// Retries of retired versions of services that are still there.
    carried_retries: BTreeMap<Name, [u64; RetryReason::COUNT]>,
    codes_gone: HashMap<CodesKey, Instant>,
}

#[derive(Debug)]
struct Seen {
    core: Arc<VersionCore>,
    gone_since: Option<Instant>,
}

/// Counters of one version.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub errors: [u64; 6],
    pub durations: Durations,
    pub in_flight: [u64; 3],
}

impl Totals {
    fn add(&mut self, core: &VersionCore) {
        for class in ErrorClass::ALL {
            self.errors[class as usize] += core.meter.errors(class);
        }
        let durations = core.meter.durations();
        for at in 0..durations.counts.len() {
            self.durations.counts[at] += durations.counts[at];
            self.durations.micros[at] += durations.micros[at];
        }
        for kind in Kind::ALL {
            self.in_flight[kind as usize] += core.in_flight.count(kind);
        }
    }
}

impl Series {
    /// Takes note of the versions that are live and lets go of what is gone for long enough.
    pub(super) fn observe<'a>(&mut self, live: impl Iterator<Item = &'a Arc<VersionCore>>, now: Instant) {
        for seen in self.cores.values_mut() {
            seen.gone_since.get_or_insert(now);
        }
        for core in live {
            self.cores.insert(core.slot, Seen { core: core.clone(), gone_since: None });
        }
        let retiring: Vec<u32> = self
            .cores
            .iter()
            .filter(|(_, seen)| seen.gone_since.is_some_and(|since| now.duration_since(since) >= RETIRE_AFTER))
            .filter(|(_, seen)| seen.core.in_flight.total() == 0)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in retiring {
            let Some(Seen { core, .. }) = self.cores.remove(&slot) else {
                continue;
            };
            let label = (core.service.clone(), core.name.clone());
            if self.cores.values().any(|seen| seen.core.service == label.0 && seen.core.name == label.1) {
                self.carried.entry(label).or_default().add(&core);
            } else {
                self.carried.remove(&label);
            }
            if self.cores.values().any(|seen| seen.core.service == core.service) {
                add_retries(self.carried_retries.entry(core.service.clone()).or_default(), &core);
            } else {
                self.carried_retries.remove(&core.service);
            }
        }
    }

    pub(super) fn totals(&self) -> BTreeMap<Label, Totals> {
        let mut totals = self.carried.clone();
        for Seen { core, .. } in self.cores.values() {
            totals.entry((core.service.clone(), core.name.clone())).or_default().add(core);
        }
        totals
    }

    /// By service, then by [`RetryReason`].
    pub(super) fn retries(&self) -> BTreeMap<Name, [u64; RetryReason::COUNT]> {
        let mut retries = self.carried_retries.clone();
        for Seen { core, .. } in self.cores.values() {
            add_retries(retries.entry(core.service.clone()).or_default(), core);
        }
        retries
    }

    /// Forgets response counters that `is_live` has not known for long enough.
    pub(super) fn retire_codes(&mut self, codes: &CodesRegistry, is_live: impl Fn(&CodesKey) -> bool, now: Instant) {
        let all = codes.snapshot();
        let gone: Vec<&CodesKey> = all.iter().map(|(key, _)| key).filter(|key| !is_live(key)).collect();
        let mut before = std::mem::take(&mut self.codes_gone);
        self.codes_gone = gone.into_iter().map(|key| (key.clone(), before.remove(key).unwrap_or(now))).collect();
        drop(all); // It holds on to every counter.
        let kept = &self.codes_gone;
        codes.retire(|key| kept.get(key).is_none_or(|since| now.duration_since(*since) < RETIRE_AFTER));
    }
}

fn add_retries(retries: &mut [u64; RetryReason::COUNT], core: &VersionCore) {
    for reason in RetryReason::ALL {
        retries[reason as usize] += core.meter.retries(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::testing;
    use crate::routing::Thread;

    const THREAD: Thread = Thread(0);

    fn core() -> Arc<VersionCore> {
        testing::version(&[], 1).core.clone()
    }

    fn errors(series: &Series) -> Option<u64> {
        series.totals().get(&("shop".into(), "v1".into())).map(|totals| totals.errors[0])
    }

    #[test]
    fn a_gone_version_retires_once_it_is_idle_and_everybody_has_seen_it() {
        let (mut series, core, start) = (Series::default(), core(), Instant::now());
        core.meter.failed(THREAD, ErrorClass::DownstreamAbort);
        core.in_flight.begin(THREAD, Kind::Sse);
        series.observe([&core].into_iter(), start);
        series.observe([].into_iter(), start + Duration::from_secs(1));
        series.observe([].into_iter(), start + Duration::from_secs(900));
        assert_eq!(errors(&series), Some(1), "a stream still runs on it");
        core.in_flight.end(THREAD, Kind::Sse);
        series.observe([].into_iter(), start + Duration::from_secs(901));
        assert_eq!(errors(&series), None);
    }

    #[test]
    fn a_version_that_comes_back_goes_on_counting() {
        let (mut series, old, new, start) = (Series::default(), core(), core(), Instant::now());
        old.meter.failed(THREAD, ErrorClass::DownstreamAbort);
        old.meter.retried_for(THREAD, RetryReason::Connect);
        series.observe([&old].into_iter(), start);
        series.observe([&new].into_iter(), start + Duration::from_secs(1));
        new.meter.failed(THREAD, ErrorClass::DownstreamAbort);
        assert_eq!(errors(&series), Some(2));
        series.observe([&new].into_iter(), start + Duration::from_secs(1000));
        assert_eq!((errors(&series), series.cores.len()), (Some(2), 1), "carried on");
        assert_eq!(series.retries()["shop"], [1, 0, 0, 0, 0, 0]);
        series.observe([].into_iter(), start + Duration::from_secs(1001));
        series.observe([].into_iter(), start + Duration::from_secs(2000));
        assert!(series.totals().is_empty() && series.retries().is_empty());
    }

    #[test]
    fn response_counters_retire_with_their_route() {
        let (mut series, codes, start) = (Series::default(), CodesRegistry::new(1), Instant::now());
        let key = |route: &str| CodesKey { route: route.into(), service: "shop".into(), version: "v1".into() };
        codes.get(key("web"));
        codes.get(key("old"));
        let live = |key: &CodesKey| &*key.route == "web";
        series.retire_codes(&codes, live, start);
        series.retire_codes(&codes, |_| true, start + Duration::from_secs(200));
        series.retire_codes(&codes, live, start + Duration::from_secs(400));
        assert_eq!(codes.snapshot().len(), 2, "it was back in between");
        series.retire_codes(&codes, live, start + Duration::from_secs(800));
        assert_eq!(codes.snapshot().len(), 1);
    }
}
