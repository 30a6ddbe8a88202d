//! The whole state as one answer.

use std::collections::BTreeMap;

use super::Phase;
use super::api::{ConfigStatus, EndpointStatus, GenerationInfo, ListenerStatus, ServiceStatus, Status, VersionStatus};
use super::decide::part;
use super::history::splits_of;
use super::live::Snapshot;
use super::overlay::{intended, weights_of};
use super::shared::{Shared, View};
use crate::config::model::Sticky;
use crate::config::rfc3339;
use crate::endpoints::{EndpointRuntime, ServiceRuntime, VersionRuntime};
use crate::evidence::{Beside, Stamped};
use crate::outcome::ErrorClass;
use crate::routing::{ServiceIdx, Share, VersionIdx};
use crate::sessions::Kind;
use crate::telemetry::unix_ms;

pub(crate) fn status(shared: &Shared) -> Status {
    let live = shared.live.load();
    let view = shared.view();
    let stamp = &live.generation.stamp;
    let splits = splits_of(&live.generation);
    let generation = GenerationInfo {
        number: stamp.number,
        hash: stamp.hash.to_string(),
        author: stamp.author.to_string(),
        cause: stamp.cause.to_string(),
        at: stamp.at_ms,
        splits,
    };
    let services = (0..live.generation.table.services.len()).map(|at| service(&live, &view, ServiceIdx(at as u16)));
    let phase = *shared.phase.borrow();
    let listeners = shared.ports.listeners.status();
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started_at: shared.started_at,
        uptime_ms: shared.started.elapsed().as_millis() as u64,
        state: state(phase, &view.config).into(),
        generation,
        generations_live: shared.generations_live(),
        config: view.config.clone(),
        warnings: warnings(shared, &view, &listeners),
        listeners,
        services: services.collect(),
        draining: shared.ports.drains.status(),
        retired: shared.retired.lock().expect("no holder panics").values().cloned().collect(),
        confirm_until: view.confirm_until,
    }
}

fn state(phase: Phase, config: &ConfigStatus) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready if config.degraded => "degraded",
        Phase::Ready => "ready",
        Phase::PreDrain | Phase::LameDuck | Phase::Ending => "draining",
    }
}

fn warnings(shared: &Shared, view: &View, listeners: &[ListenerStatus]) -> Vec<String> {
    let mut warnings: Vec<String> = view.warnings.iter().map(|problem| problem.what.clone()).collect();
    warnings.extend(view.notes.iter().cloned());
    if view.config.degraded {
        warnings.push("the configuration file was broken at start: the last known good generation serves".into());
    }
    if let Some(whole) = &view.whole {
        warnings.push(format!(
            "what runs is not what {} says, but \"{}\" by {}; the next edit of the file wins",
            view.config.source, whole.cause, whole.author
        ));
    }
    warnings.extend(view.config.unwatchable.clone());
    warnings.extend(listeners.iter().flat_map(certificates));
    warnings.extend(shared.live.load().runtime.services.iter().flat_map(|service| outward(service)));
    warnings.extend(shared.live.load().runtime.services.iter().flat_map(|service| unresolved(service)));
    warnings.extend(shared.journal.iter().flat_map(|journal| journal.trouble()));
    warnings
}

/// Seven days.
const EXPIRES_SOON_MS: u64 = 7 * 24 * 3_600_000;

fn certificates(listener: &ListenerStatus) -> Vec<String> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let mut warnings = Vec::new();
    let now = unix_ms();
    for one in &tls.certificates {
        let what = format!("listener {}: the certificate for {}", listener.name, one.name);
        if let Some(why) = &one.problem {
            warnings.push(format!("{what} goes on, but the files on disk cannot be used: {why}"));
        }
        warnings.extend(expiry(&what, one.not_after, now));
    }
    warnings.extend(tls.problems.iter().map(|problem| format!("listener {}: {problem}", listener.name)));
    warnings
}

/// Of a certificate that is valid until then.
fn expiry(what: &str, until: u64, now: u64) -> Option<String> {
    match until.checked_sub(now) {
        None | Some(0) => Some(format!("{what} has expired at {}", rfc3339(until))),
        Some(..EXPIRES_SOON_MS) => Some(format!("{what} expires at {}", rfc3339(until))),
        Some(_) => None,
    }
}

/// Of the names among the endpoints of a service.
fn unresolved(service: &ServiceRuntime) -> Vec<String> {
    let names = service.core.names.lock().expect("no holder panics");
    let failed = names.iter().filter_map(|(host, why)| Some((host, why.as_ref()?)));
    let what = |(host, why)| {
        format!(
            "service {}: {host} cannot be looked up, and the last good answer is kept, if there was one: {why}",
            service.name
        )
    };
    failed.map(what).collect()
}

/// Of TLS to the endpoints of a service.
fn outward(service: &ServiceRuntime) -> Vec<String> {
    let Some(cell) = &service.secure else { return Vec::new() };
    let mut warnings = Vec::new();
    if let Some(why) = &*cell.trouble.load() {
        let what =
            format!("service {}: the files for TLS to endpoints cannot be used as they are on disk", service.name);
        warnings.push(format!("{what}, and what was read before goes on: {why}"));
    }
    if let Some(identity) = &cell.load().of.identity {
        let until = u64::try_from(identity.material.own.not_after).unwrap_or(0).saturating_mul(1000);
        let what = format!("service {}: the certificate that endpoints are shown", service.name);
        warnings.extend(expiry(&what, until, unix_ms()));
    }
    warnings
}

fn service(live: &Snapshot, view: &View, at: ServiceIdx) -> ServiceStatus {
    let compiled = live.generation.table.service(at);
    let runtime = live.runtime.service(at);
    let split = live.generation.split(at);
    let shares = split.shares();
    let requests = split.requests_by_version();
    let clients = compiled.service.sticky.is_some().then(|| split.buckets_by_version());
    let fraction = |counts: &[u64], version: usize| {
        let sum: u64 = counts.iter().sum();
        if sum == 0 { 0.0 } else { counts[version] as f64 / sum as f64 }
    };
    let (beside, gets) = match live.trial(at) {
        Some(Stamped { beside: Beside::Match(_), canary, .. }) => (Some(*canary), "matched"),
        Some(Stamped { beside: Beside::Mirror(_), canary, .. }) => (Some(*canary), "mirrored"),
        Some(Stamped { beside: Beside::Nothing, .. }) | None => (None, ""),
    };
    let versions = (0..compiled.versions.len()).map(|version| {
        let idx = VersionIdx(version as u16);
        let runtime = runtime.version(idx);
        VersionStatus {
            name: compiled.version_name(idx).to_string(),
            state: match shares[version] {
                Share::Weight(_) => "live",
                Share::Draining => "draining",
                Share::Off if beside == Some(idx) => gets,
                Share::Off => "off",
            }
            .into(),
            weight: match shares[version] {
                Share::Weight(weight) => weight,
                Share::Draining | Share::Off => 0,
            },
            target_share: part(shares, idx),
            realised_requests: fraction(&requests, version),
            realised_clients: clients.as_ref().map(|clients| fraction(clients, version)),
            requests: requests[version],
            errors: errors(runtime),
            in_flight_max: compiled.service.circuit,
            turned_away: runtime.core.meter.all_turned_away(),
            panic: runtime.core.panic.load(std::sync::atomic::Ordering::Relaxed),
            in_flight: Kind::ALL.map(|kind| (kind, runtime.core.in_flight.count(kind))).into(),
            endpoints: runtime.endpoints().iter().map(|endpoint| self::endpoint(endpoint)).collect(),
        }
    });
    let entry = view.overlay.get(&*compiled.name);
    ServiceStatus {
        name: compiled.name.to_string(),
        held: runtime.core.held.load(std::sync::atomic::Ordering::Relaxed),
        maintenance: compiled.service.policy.maintenance.as_ref().is_some_and(|page| page.enabled),
        waiting: runtime.core.waiting.load(std::sync::atomic::Ordering::Relaxed),
        sticky: sticky(compiled.service.sticky.as_ref()),
        intent: intended(&compiled.service.intent),
        effective: weights_of(&compiled.versions, shares),
        owner: entry.map_or("file".into(), |entry| entry.author.clone()),
        owner_cause: entry.map(|entry| entry.cause.clone()),
        owner_since: entry.map(|entry| entry.since),
        rollout: view.rollouts.get(&*compiled.name).cloned(),
        versions: versions.collect(),
    }
}

fn errors(version: &VersionRuntime) -> BTreeMap<String, u64> {
    let counted = ErrorClass::ALL.map(|class| (class.as_str().to_string(), version.core.meter.errors(class)));
    counted.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn sticky(sticky: Option<&Sticky>) -> String {
    match sticky {
        None => "none".into(),
        Some(Sticky::Cookie { name, .. }) => format!("cookie {name}"),
        Some(Sticky::Header(name)) => format!("header {name}"),
        Some(Sticky::ClientIp) => "client_ip".into(),
    }
}

pub(crate) fn endpoint(endpoint: &EndpointRuntime) -> EndpointStatus {
    EndpointStatus {
        address: endpoint.address.to_string(),
        resolved: endpoint.at.iter().map(ToString::to_string).collect(),
        health: endpoint.health(),
        ejected: endpoint.is_ejected(),
        in_flight: endpoint.in_flight(),
        last_change: endpoint.last_change.load().to_string(),
    }
}
