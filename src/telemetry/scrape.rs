//! The families that are read from per-thread cells at the moment of a scrape.
//!
//! They are written here rather than copied into the recorder: its counters and gauges cannot be
//! removed one by one, so series of removed versions would stay, and its histograms would have to be
//! fed every single request again. What happens rarely (reloads, flips) goes through `metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::exposition::{Exposition, Type};
use super::names;
use super::recorder::Sources;
use super::series::{Label, Series, Totals};
use crate::config::GrpcCode;
use crate::config::model::Name;
use crate::control::Snapshot;
use crate::control::api::{DrainStatus, ListenerStatus, TlsStatus};
use crate::endpoints::{Runtime, ServiceRuntime, VersionCore};
use crate::limits::Refusal;
use crate::outcome::{Codes, CodesKey, DURATION_BOUNDS, ErrorClass, Hedged, RetryReason};
use crate::routing::{Share, VersionIdx};
use crate::sessions::Kind;
use crate::telemetry::unix_ms;

pub(super) fn write(sources: &Sources, series: &mut Series, out: &mut Exposition) {
    let snapshot = sources.live.load();
    observe(sources, &snapshot, series);

    requests(sources.codes.snapshot(), out);
    versions(&series.totals(), &snapshot.runtime.services, out);
    retries(&series.retries(), out);
    splits(&snapshot, out);
    endpoints(&snapshot.runtime, out);
    drains(&sources.drains.status(), out);
    let listeners = sources.listeners.status();
    connections(&listeners, out);
    tls(&listeners, out);
    tls_to_endpoints(&snapshot.runtime.services, out);
    names_of_endpoints(&snapshot.runtime.services, out);
    refusals(&snapshot.runtime.services, out);

    let number = snapshot.generation.number() as f64;
    out.single(names::CONFIG_GENERATION, Type::Gauge, "Number of the live generation.", number);
    let help = "Generations that something still holds.";
    out.single(names::GENERATIONS_LIVE, Type::Gauge, help, sources.live.generations_live() as f64);
    let help = "Access log lines dropped because the writer could not keep up or could not write.";
    out.single(names::ACCESS_LOG_DROPPED_TOTAL, Type::Counter, help, sources.access_log.dropped() as f64);
}

/// Brings the list of series up to date; also done between scrapes.
pub(super) fn observe(sources: &Sources, snapshot: &Snapshot, series: &mut Series) {
    let now = Instant::now();
    let versions = snapshot.runtime.services.iter().flat_map(|service| &service.versions);
    series.observe(versions.map(|version| &version.core), now);
    let table = &snapshot.generation.table;
    let services: BTreeMap<&str, Option<&str>> = table
        .routes
        .iter()
        .map(|compiled| (&*compiled.route.name, compiled.service.map(|service| &*table.service(service).name)))
        .collect();
    let is_live = |key: &CodesKey| {
        if key.route.is_empty() {
            return true; // Requests that match no route.
        }
        match services.get(&*key.route) {
            None => false,
            Some(None) => key.service.is_empty(),
            Some(Some(service)) => {
                let has_version = || {
                    let service = snapshot.runtime.named(service);
                    service.is_some_and(|service| service.version_named(&key.version).is_some())
                };
                *key.service == **service && (key.version.is_empty() || has_version())
            }
        }
    };
    series.retire_codes(&sources.codes, is_live, now);
}

fn requests(mut codes: Vec<(CodesKey, Arc<Codes>)>, out: &mut Exposition) {
    codes.sort_by(|(a, _), (b, _)| (&a.service, &a.version, &a.route).cmp(&(&b.service, &b.version, &b.route)));
    let help = "Requests answered, by the code the client got. Labels are empty where nothing was chosen.";
    let mut family = out.family(names::REQUESTS_TOTAL, Type::Counter, help);
    for (key, codes) in &codes {
        for (code, count) in codes.seen() {
            let labels =
                [("service", &*key.service), ("version", &*key.version), ("route", &*key.route), ("code", &code)];
            family.sample(&labels, count as f64);
        }
    }
}

fn versions(totals: &BTreeMap<Label, Totals>, services: &[Arc<ServiceRuntime>], out: &mut Exposition) {
    let help = "Time from a request's head to the end of its answer. Without streams.";
    let mut family = out.family(names::REQUEST_DURATION_SECONDS, Type::Histogram, help);
    for ((service, version), totals) in totals {
        let seconds = totals.durations.micros.iter().sum::<u64>() as f64 / 1e6;
        let labels = [("service", &**service), ("version", &**version)];
        family.histogram(&labels, &DURATION_BOUNDS, &totals.durations.counts, seconds);
    }
    let help = "Requests that failed, each in exactly one class.";
    let mut family = out.family(names::REQUEST_ERRORS_TOTAL, Type::Counter, help);
    for ((service, version), totals) in totals {
        for class in ErrorClass::ALL {
            let labels = [("service", &**service), ("version", &**version), ("class", class.as_str())];
            family.sample(&labels, totals.errors[class as usize] as f64);
        }
    }
    for service in services {
        for class in ErrorClass::ALL {
            let labels = [("service", &*service.name), ("version", ""), ("class", class.as_str())];
            family.sample(&labels, service.core.errors.of(class) as f64);
        }
    }
    let mut family = out.family(names::GRPC_CALLS_TOTAL, Type::Counter, "gRPC calls by their status.");
    for ((service, version), totals) in totals {
        for (code, count) in totals.grpc.iter().enumerate().filter(|(_, count)| **count > 0) {
            let labels = [("service", &**service), ("version", &**version), ("status", GrpcCode::name(code as u8))];
            family.sample(&labels, *count as f64);
        }
    }
    let mut family = out.family(names::IN_FLIGHT, Type::Gauge, "Exchanges that run now.");
    for ((service, version), totals) in totals {
        for kind in Kind::ALL {
            let labels = [("service", &**service), ("version", &**version), ("kind", kind.as_str())];
            family.sample(&labels, totals.in_flight[kind as usize] as f64);
        }
    }
}

fn retries(retries: &BTreeMap<Name, [u64; RetryReason::COUNT]>, out: &mut Exposition) {
    let help = "Requests sent once more, on another endpoint or a fresh connection.";
    let mut family = out.family(names::RETRIES_TOTAL, Type::Counter, help);
    for (service, counts) in retries {
        for reason in RetryReason::ALL {
            family.sample(&[("service", service), ("reason", reason.as_str())], counts[reason as usize] as f64);
        }
    }
}

fn splits(snapshot: &Snapshot, out: &mut Exposition) {
    let mut rows = Vec::new();
    for (at, service) in snapshot.runtime.services.iter().enumerate() {
        let split = &snapshot.generation.splits[at];
        let (requests, clients) = (split.requests_by_version(), split.buckets_by_version());
        let weight = |share: Share| match share {
            Share::Off | Share::Draining => 0,
            Share::Weight(weight) => weight,
        };
        let sum: u32 = split.shares().iter().map(|share| weight(*share)).sum();
        for (version, runtime) in service.versions.iter().enumerate() {
            let share = split.share(VersionIdx(version as u16));
            let weight = weight(share);
            rows.push(SplitRow {
                labels: [("service", &*service.name), ("version", &*runtime.core.name)],
                weight: f64::from(weight),
                target: share_of(u64::from(weight), u64::from(sum)),
                requests: share_of(requests[version], requests.iter().sum()),
                clients: share_of(clients[version], clients.iter().sum()),
            });
        }
    }
    write_splits(&rows, out);
}

struct SplitRow<'a> {
    labels: [(&'a str, &'a str); 2],
    weight: f64,
    target: Option<f64>,
    /// `None` while nothing was decided yet.
    requests: Option<f64>,
    clients: Option<f64>,
}

fn write_splits(rows: &[SplitRow<'_>], out: &mut Exposition) {
    let help = "Weight in the live split; 0 is draining or off.";
    let mut family = out.family(names::SPLIT_WEIGHT, Type::Gauge, help);
    for row in rows {
        family.sample(&row.labels, row.weight);
    }
    let mut family = out.family(names::SPLIT_TARGET_SHARE, Type::Gauge, "Share of new requests aimed at, 0 to 1.");
    for row in rows {
        family.sample(&row.labels, row.target.unwrap_or(0.0));
    }
    let help = "Share of requests and of sticky clients since the split went live, 0 to 1.";
    let mut family = out.family(names::SPLIT_REALISED_SHARE, Type::Gauge, help);
    for row in rows {
        let [service, version] = row.labels;
        for (of, share) in [("requests", row.requests), ("clients", row.clients)] {
            if let Some(share) = share {
                family.sample(&[service, version, ("of", of)], share);
            }
        }
    }
}

fn share_of(part: u64, sum: u64) -> Option<f64> {
    (sum > 0).then(|| part as f64 / sum as f64)
}

fn endpoints(runtime: &Runtime, out: &mut Exposition) {
    let help = "1 if the endpoint may be given new requests, else 0.";
    let mut family = out.family(names::ENDPOINT_HEALTHY, Type::Gauge, help);
    for service in &runtime.services {
        for version in &service.versions {
            for endpoint in version.endpoints() {
                let authority = endpoint.label();
                let labels = [("service", &*service.name), ("version", &*version.core.name), ("endpoint", &authority)];
                family.sample(&labels, f64::from(u8::from(endpoint.is_ready())));
            }
        }
    }
    let help = "1 while so few endpoints of a version are ready that all are asked.";
    let mut family = out.family(names::PANIC, Type::Gauge, help);
    for core in cores(runtime) {
        let panics = core.panic.load(std::sync::atomic::Ordering::Relaxed);
        family.sample(&[("service", &core.service), ("version", &core.name)], f64::from(u8::from(panics)));
    }
    let help = "Requests turned away because a version works on as much as its circuit allows.";
    let mut family = out.family(names::CIRCUIT_REFUSED_TOTAL, Type::Counter, help);
    for core in cores(runtime) {
        let labels = [("service", &*core.service), ("version", &*core.name)];
        family.sample(&labels, core.meter.all_turned_away() as f64);
    }
    let help = "Requests that a second endpoint was asked too, by whose answer came.";
    let mut family = out.family(names::HEDGES_TOTAL, Type::Counter, help);
    for core in cores(runtime) {
        for outcome in Hedged::ALL {
            let labels = [("service", &*core.service), ("version", &*core.name), ("outcome", outcome.as_str())];
            family.sample(&labels, core.meter.hedges(outcome) as f64);
        }
    }
    let help = "Requests that were not sent once more because the retry budget was spent.";
    let mut family = out.family(names::RETRIES_DENIED_TOTAL, Type::Counter, help);
    for service in &runtime.services {
        family.sample(&[("service", &service.name)], service.core.budget.denied() as f64);
    }
    let help = "Requests waiting for a ready endpoint or for a release.";
    let mut family = out.family(names::HOLD_WAITING, Type::Gauge, help);
    for service in &runtime.services {
        let waiting = service.core.waiting.load(std::sync::atomic::Ordering::Relaxed);
        family.sample(&[("service", &service.name)], waiting as f64);
    }
}

fn cores(runtime: &Runtime) -> impl Iterator<Item = &Arc<VersionCore>> {
    runtime.services.iter().flat_map(|service| &service.versions).map(|version| &version.core)
}

fn drains(drains: &[DrainStatus], out: &mut Exposition) {
    let mut remaining: BTreeMap<(&str, &str, Kind), u64> = BTreeMap::new();
    for drain in drains.iter().filter(|drain| !drain.finished) {
        for (kind, count) in &drain.remaining {
            *remaining.entry((&drain.service, &drain.version, *kind)).or_default() += count;
        }
    }
    let help = "Exchanges left on a version that lost its place; gone when its drain has finished.";
    let mut family = out.family(names::DRAIN_REMAINING, Type::Gauge, help);
    for ((service, version, kind), count) in remaining {
        family.sample(&[("service", service), ("version", version), ("kind", kind.as_str())], count as f64);
    }
}

fn connections(listeners: &[ListenerStatus], out: &mut Exposition) {
    // A listener that moved to another address is there twice until the old one has drained.
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    for listener in listeners {
        *open.entry(&listener.name).or_default() += listener.connections;
    }
    let mut family = out.family(names::CONNECTIONS, Type::Gauge, "Open client connections.");
    for (listener, count) in open {
        family.sample(&[("listener", listener)], count as f64);
    }
    let mut refused: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for listener in listeners {
        for (reason, count) in &listener.refused {
            *refused.entry((&listener.name, reason)).or_default() += count;
        }
    }
    let help = "Connections closed before TLS and HTTP.";
    let mut family = out.family(names::CONNECTIONS_REFUSED_TOTAL, Type::Counter, help);
    for ((listener, reason), count) in refused {
        family.sample(&[("listener", listener), ("reason", reason)], count as f64);
    }
}

fn refusals(services: &[Arc<ServiceRuntime>], out: &mut Exposition) {
    let help = "Requests that a policy of the route or service refused.";
    let mut family = out.family(names::REFUSED_TOTAL, Type::Counter, help);
    for service in services {
        for why in Refusal::ALL {
            let labels = [("service", &*service.name), ("reason", why.as_str())];
            family.sample(&labels, service.core.refused.of(why) as f64);
        }
    }
}

/// Of a listener that moved, the one that accepts is shown.
fn tls(listeners: &[ListenerStatus], out: &mut Exposition) {
    let secured: Vec<(&str, &TlsStatus)> = listeners
        .iter()
        .filter(|listener| !listener.draining)
        .filter_map(|listener| Some((listener.name.as_str(), listener.tls.as_ref()?)))
        .collect();
    if secured.is_empty() {
        return;
    }
    let now = unix_ms() as f64;
    let help = "Seconds until a certificate ends; negative once it has.";
    let mut family = out.family(names::TLS_CERTIFICATE_EXPIRY_SECONDS, Type::Gauge, help);
    for (listener, tls) in &secured {
        for one in &tls.certificates {
            let left = (one.not_after as f64 - now) / 1000.0;
            family.sample(&[("listener", listener), ("name", &one.name)], left.floor());
        }
    }
    let help = "0 while the files of a certificate on disk cannot be used.";
    let mut family = out.family(names::TLS_CERTIFICATE_FILES_GOOD, Type::Gauge, help);
    for (listener, tls) in &secured {
        for one in &tls.certificates {
            let good = f64::from(u8::from(one.problem.is_none()));
            family.sample(&[("listener", listener), ("name", &one.name)], good);
        }
    }
    let mut family = out.family(names::TLS_HANDSHAKES_OPEN, Type::Gauge, "TLS handshakes at this moment.");
    for (listener, tls) in &secured {
        family.sample(&[("listener", listener)], tls.handshakes_open as f64);
    }
    let help = "TLS handshakes that have ended, by result and version.";
    let mut family = out.family(names::TLS_HANDSHAKES_TOTAL, Type::Counter, help);
    for (listener, tls) in &secured {
        for (result, version, count) in &tls.handshakes {
            family.sample(&[("listener", listener), ("result", result), ("version", version)], *count as f64);
        }
    }
}

fn names_of_endpoints(services: &[Arc<ServiceRuntime>], out: &mut Exposition) {
    let names = services.iter().map(|service| {
        let names = service.core.names.lock().expect("no holder panics");
        (service, names.iter().map(|(host, why)| (host.clone(), why.is_none())).collect::<Vec<_>>())
    });
    let names: Vec<_> = names.filter(|(_, names)| !names.is_empty()).collect();
    if names.is_empty() {
        return;
    }
    let help = "0 while a name among the endpoints cannot be looked up.";
    let mut family = out.family(names::NAME_RESOLVED, Type::Gauge, help);
    for (service, names) in names {
        for (host, good) in names {
            family.sample(&[("service", &service.name), ("name", &host)], f64::from(u8::from(good)));
        }
    }
}

fn tls_to_endpoints(services: &[Arc<ServiceRuntime>], out: &mut Exposition) {
    let secured: Vec<_> =
        services.iter().filter_map(|service| Some((&service.name, service.secure.as_ref()?))).collect();
    if secured.is_empty() {
        return;
    }
    let now = unix_ms() as f64 / 1000.0;
    let help = "Seconds until the certificate that endpoints are shown ends; negative once it has.";
    let mut family = out.family(names::ENDPOINT_TLS_CERTIFICATE_EXPIRY_SECONDS, Type::Gauge, help);
    for (service, cell) in &secured {
        if let Some(identity) = &cell.load().of.identity {
            family.sample(&[("service", service)], (identity.material.own.not_after as f64 - now).floor());
        }
    }
    let help = "0 while files for TLS to endpoints on disk cannot be used.";
    let mut family = out.family(names::ENDPOINT_TLS_FILES_GOOD, Type::Gauge, help);
    for (service, cell) in &secured {
        family.sample(&[("service", service)], f64::from(u8::from(cell.trouble.load().is_none())));
    }
}

#[cfg(test)]
#[path = "scrape_tests.rs"]
mod tests;
