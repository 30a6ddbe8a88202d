//! What changes between two generations: for `plan`, for receipts, and to find what loses its place.
//!
//! Everything is matched by name, because indices of two tables have nothing to do with each other. Lists
//! are in name order, routes in the order of the newer file. People read lines that `control` makes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::bucket::Bucket;
use super::generation::Generation;
use super::split::{Share, Split};
use super::table::{CompiledRoute, CompiledService, ServiceIdx};
use crate::config::model::{Config, Endpoint, Intent, Name};

/// Nothing in it: the two generations answer every request alike.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    pub services_added: Vec<Name>,
    pub services_removed: Vec<Name>,
    pub services: Vec<ServiceDifference>,
    pub routes_added: Vec<Name>,
    pub routes_removed: Vec<Name>,
    pub routes: Vec<RouteDifference>,
    /// Routes that are in both came in another order, which decides ties.
    pub routes_reordered: bool,
    pub listeners_added: Vec<Name>,
    pub listeners_removed: Vec<Name>,
    /// Same name, other address or other limits.
    pub listeners_changed: Vec<Name>,
    pub settings: Vec<Setting>,
}

/// A service that is in both. At least one field says something.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceDifference {
    pub service: Name,
    pub versions_added: Vec<Name>,
    pub versions_removed: Vec<Name>,
    /// Of versions that are in both.
    pub endpoints: Vec<EndpointsDifference>,
    /// What the file asks for, before and after.
    pub intent: Option<(Intent, Intent)>,
    /// What is effective, for every version whose share is not the same, also added and removed ones.
    pub shares: Vec<ShareDifference>,
    /// Of the 10 000 buckets of sticky clients, those that come to another version. 0 if clients are not
    /// sticky before and after.
    pub buckets_moved: u16,
    pub policies: Vec<Policy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointsDifference {
    pub version: Name,
    pub added: Vec<Endpoint>,
    pub removed: Vec<Endpoint>,
}

/// A share of a version that does not exist is [`Share::Off`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareDifference {
    pub version: Name,
    pub from: Share,
    pub to: Share,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDifference {
    pub route: Name,
    /// At least one.
    pub parts: Vec<RoutePart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoutePart {
    Match,
    /// Another service, or another kind of answer.
    Target,
    /// The same target, treated otherwise: access, limits, rewrite, redirect, status, headers or body.
    Treatment,
}

/// The policies of a service, by their keys in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    Rollout,
    Sticky,
    Force,
    Balance,
    Health,
    Outlier,
    Retry,
    Timeouts,
    Limits,
    Upstream,
    Drain,
    Hold,
    Access,
    RateLimit,
    Maintenance,
    Compression,
}

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Sticky => "sticky",
            Self::Force => "force",
            Self::Balance => "balance",
            Self::Health => "health",
            Self::Outlier => "outlier",
            Self::Retry => "retry",
            Self::Timeouts => "timeouts",
            Self::Limits => "limits",
            Self::Upstream => "upstream",
            Self::Drain => "drain",
            Self::Hold => "hold",
            Self::Access => "access",
            Self::RateLimit => "rate_limit",
            Self::Maintenance => "maintenance",
            Self::Compression => "compression",
        }
    }
}

/// Keys of the file that belong to no service, route or listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    StateDir,
    Admin,
    Expose,
    AccessLog,
    RequestId,
    Shutdown,
    Dns,
    Gates,
    Notifications,
    Expect,
}

impl Setting {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StateDir => "state_dir",
            Self::Admin => "admin",
            Self::Expose => "expose",
            Self::AccessLog => "access_log",
            Self::RequestId => "request_id",
            Self::Shutdown => "shutdown",
            Self::Dns => "dns",
            Self::Gates => "gates",
            Self::Notifications => "notifications",
            Self::Expect => "expect",
        }
    }
}

impl Difference {
    pub fn between(from: &Generation, to: &Generation) -> Difference {
        let mut difference = Difference { services: changed_services(from, to), ..Difference::default() };
        if std::sync::Arc::ptr_eq(&from.table, &to.table) {
            return difference; // a switch: only shares can differ
        }
        let (old, new) = (&*from.table.config, &*to.table.config);
        (difference.services_added, difference.services_removed) =
            added_and_removed(old.services.keys(), new.services.keys());
        (difference.listeners_added, difference.listeners_removed) =
            added_and_removed(old.listeners.keys(), new.listeners.keys());
        let listeners = new.listeners.iter();
        let changed = listeners.filter(|(name, new)| old.listeners.get(*name).is_some_and(|old| old != *new));
        difference.listeners_changed = changed.map(|(name, _)| name.clone()).collect();
        difference.compare_routes(&from.table.routes, &to.table.routes);
        difference.settings = changed_settings(old, new);
        difference
    }

    pub fn is_empty(&self) -> bool {
        *self == Difference::default()
    }

    fn compare_routes(&mut self, old: &[CompiledRoute], new: &[CompiledRoute]) {
        let by_name = |routes: &[CompiledRoute]| -> HashMap<Name, usize> {
            routes.iter().enumerate().map(|(at, compiled)| (compiled.route.name.clone(), at)).collect()
        };
        let (old_at, new_at) = (by_name(old), by_name(new));
        let removed = old.iter().filter(|compiled| !new_at.contains_key(&compiled.route.name));
        self.routes_removed = removed.map(|compiled| compiled.route.name.clone()).collect();
        let mut last = None;
        for CompiledRoute { route, .. } in new {
            let Some(&at) = old_at.get(&route.name) else {
                self.routes_added.push(route.name.clone());
                continue;
            };
            self.routes_reordered |= last.is_some_and(|last| at < last);
            last = Some(at);
            let parts = changed_parts(&old[at], route);
            if !parts.is_empty() {
                self.routes.push(RouteDifference { route: route.name.clone(), parts });
            }
        }
    }
}

fn changed_parts(old: &CompiledRoute, new: &crate::config::model::Route) -> Vec<RoutePart> {
    use crate::config::model::Action::{Forward, Redirect, Respond};
    let mut parts = Vec::new();
    if old.route.matcher != new.matcher {
        parts.push(RoutePart::Match);
    }
    let same_target = match (&old.route.action, &new.action) {
        (Forward { service: old, .. }, Forward { service: new, .. }) => old == new,
        (Redirect { .. }, Redirect { .. }) | (Respond { .. }, Respond { .. }) => true,
        (Forward { .. } | Redirect { .. } | Respond { .. }, _) => false,
    };
    if !same_target {
        parts.push(RoutePart::Target);
    } else if old.route.action != new.action || old.route.policy != new.policy {
        parts.push(RoutePart::Treatment);
    }
    parts
}

fn changed_services(from: &Generation, to: &Generation) -> Vec<ServiceDifference> {
    let both = from.table.services.iter().enumerate().filter_map(|(at, old)| {
        let new_idx = to.table.service_named(&old.name)?;
        let old = (old, from.split(ServiceIdx(at as u16)));
        changed_service(old, (to.table.service(new_idx), to.split(new_idx)))
    });
    both.collect()
}

fn changed_service(
    (old, old_split): (&CompiledService, &Split),
    (new, new_split): (&CompiledService, &Split),
) -> Option<ServiceDifference> {
    let names: BTreeSet<&Name> = old.versions.iter().chain(&new.versions).collect();
    let share = |service: &CompiledService, split: &Split, name: &str| {
        service.version_named(name).map_or(Share::Off, |version| split.share(version))
    };
    let shares = names.into_iter().map(|name| ShareDifference {
        version: name.clone(),
        from: share(old, old_split, name),
        to: share(new, new_split, name),
    });
    let shares: Vec<ShareDifference> = shares.filter(|share| share.from != share.to).collect();
    let sticky = old.service.sticky.is_some() && new.service.sticky.is_some();
    let moved = |bucket: &Bucket| {
        old.version_name(old_split.of_client(*bucket)) != new.version_name(new_split.of_client(*bucket))
    };
    let buckets_moved = if sticky && !shares.is_empty() { Bucket::all().filter(moved).count() as u16 } else { 0 };
    let (versions_added, versions_removed) = added_and_removed(old.versions.iter(), new.versions.iter());
    let intent =
        (old.service.intent != new.service.intent).then(|| (old.service.intent.clone(), new.service.intent.clone()));
    let difference = ServiceDifference {
        service: new.name.clone(),
        versions_added,
        versions_removed,
        endpoints: changed_endpoints(old, new),
        intent,
        shares,
        buckets_moved,
        policies: changed_policies(old, new),
    };
    let says_something = !difference.versions_added.is_empty()
        || !difference.versions_removed.is_empty()
        || !difference.endpoints.is_empty()
        || difference.intent.is_some()
        || !difference.shares.is_empty()
        || !difference.policies.is_empty();
    says_something.then_some(difference)
}

fn changed_endpoints(old: &CompiledService, new: &CompiledService) -> Vec<EndpointsDifference> {
    let mut changed = Vec::new();
    for (name, new) in &new.service.versions {
        let Some(old) = old.service.versions.get(name) else { continue };
        let (added, removed) = added_and_removed(old.endpoints.iter(), new.endpoints.iter());
        if !added.is_empty() || !removed.is_empty() {
            changed.push(EndpointsDifference { version: name.clone(), added, removed });
        }
    }
    changed
}

fn changed_policies(old: &CompiledService, new: &CompiledService) -> Vec<Policy> {
    let (old, new) = (&old.service, &new.service);
    let compared = [
        (Policy::Rollout, old.rollout != new.rollout),
        (Policy::Sticky, old.sticky != new.sticky),
        (Policy::Force, old.force != new.force),
        (Policy::Balance, old.balance != new.balance),
        (Policy::Health, old.health != new.health),
        (Policy::Outlier, old.outlier != new.outlier),
        (Policy::Retry, old.retry != new.retry),
        (Policy::Timeouts, old.timeouts != new.timeouts),
        (
            Policy::Limits,
            old.limits != new.limits || old.policy.in_flight_per_client != new.policy.in_flight_per_client,
        ),
        (Policy::Upstream, old.upstream != new.upstream),
        (Policy::Drain, old.drain != new.drain),
        (Policy::Hold, old.hold != new.hold),
        (Policy::Access, old.policy.access != new.policy.access),
        (Policy::RateLimit, old.policy.rate_limit != new.policy.rate_limit),
        (Policy::Maintenance, old.policy.maintenance != new.policy.maintenance),
        (Policy::Compression, old.policy.compression != new.policy.compression),
    ];
    compared.into_iter().filter(|(_, changed)| *changed).map(|(policy, _)| policy).collect()
}

fn changed_settings(old: &Config, new: &Config) -> Vec<Setting> {
    let compared = [
        (Setting::StateDir, old.state_dir != new.state_dir),
        (Setting::Admin, old.admin != new.admin),
        (Setting::Expose, old.expose != new.expose),
        (Setting::AccessLog, old.access_log != new.access_log),
        (Setting::RequestId, old.request_id != new.request_id),
        (Setting::Shutdown, old.shutdown != new.shutdown),
        (Setting::Dns, old.dns != new.dns),
        (Setting::Gates, old.gates != new.gates),
        (Setting::Notifications, old.notifications != new.notifications),
        (Setting::Expect, old.expect != new.expect),
    ];
    compared.into_iter().filter(|(_, changed)| *changed).map(|(setting, _)| setting).collect()
}

/// What only `new` and what only `old` has, sorted.
fn added_and_removed<'a, T: Ord + Clone + 'a>(
    old: impl Iterator<Item = &'a T>,
    new: impl Iterator<Item = &'a T>,
) -> (Vec<T>, Vec<T>) {
    let mut seen: BTreeMap<&T, (bool, bool)> = BTreeMap::new();
    old.for_each(|item| seen.entry(item).or_default().0 = true);
    new.for_each(|item| seen.entry(item).or_default().1 = true);
    let only = |wanted: (bool, bool)| {
        seen.iter().filter(|(_, have)| **have == wanted).map(|(item, _)| (*item).clone()).collect()
    };
    (only((false, true)), only((true, false)))
}

impl ServiceDifference {
    /// Versions that had a place and now take nobody new: what must drain. Removed ones too.
    pub fn leaving(&self) -> impl Iterator<Item = &ShareDifference> {
        self.shares.iter().filter(|share| share.from.weight() > 0 && share.to.weight() == 0)
    }
}
