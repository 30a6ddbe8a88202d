//! What an apply would do, and what it would mean for what runs now.

use std::sync::Arc;
use std::time::Duration;

use similar::TextDiff;

use super::api::{Plan, PlanLine};
use super::candidate::Candidate;
use super::controller::settle_all;
use super::live::Snapshot;
use super::overlay::intent_text;
use super::shared::Shared;
use crate::config::model::{Config, Endpoint, EndpointAddress};
use crate::config::render;
use crate::endpoints::{EndpointRuntime, VersionRuntime};
use crate::routing::compile::split_from;
use crate::routing::diff::{Difference, RoutePart, ServiceDifference};
use crate::routing::{Generation, Share, Stamp};
use crate::sessions::Kind;

pub(crate) fn plan(shared: &Shared, candidate: &Candidate) -> Plan {
    let live = shared.live.load();
    let settled = settle_all(&candidate.table, &shared.view().overlay);
    let services = candidate.table.services.iter().zip(settled.shares);
    let next = Generation {
        stamp: Stamp { hash: candidate.hash.as_str().into(), ..live.generation.stamp.clone() },
        table: candidate.table.clone(),
        splits: services.map(|(service, shares)| split_from(service, shares, shared.live.threads())).collect(),
    };
    let difference = Difference::between(&live.generation, &next);
    let (before, after) = (&live.generation.table.config, &candidate.table.config);
    let mut consequences = consequences(shared, &live, &next, &difference);
    consequences.extend(settled.notes.into_iter().map(|note| line("split", "overlay", note)));
    consequences.extend(sockets(shared, after));
    Plan {
        base: live.generation.number(),
        changed: !difference.is_empty(),
        changes: changes(&difference),
        consequences,
        diff: text_diff(before, after),
        warnings: candidate.warnings.0.clone(),
    }
}

fn line(kind: &str, subject: &str, text: String) -> PlanLine {
    PlanLine { kind: kind.into(), subject: subject.into(), text }
}

fn text_diff(before: &Arc<Config>, after: &Arc<Config>) -> String {
    let (before, after) = (render::to_yaml(before), render::to_yaml(after));
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(&before, &after);
    diff.unified_diff().context_radius(3).header("running", "planned").to_string()
}

fn changes(difference: &Difference) -> Vec<PlanLine> {
    let mut lines = Vec::new();
    let groups = [
        ("service", &difference.services_added, "added"),
        ("service", &difference.services_removed, "removed"),
        ("listener", &difference.listeners_added, "added"),
        ("listener", &difference.listeners_removed, "removed"),
        ("listener", &difference.listeners_changed, "changed"),
        ("route", &difference.routes_added, "added"),
        ("route", &difference.routes_removed, "removed"),
    ];
    for (kind, names, what) in groups {
        lines.extend(names.iter().map(|name| line(kind, name, what.into())));
    }
    for route in &difference.routes {
        let parts = route.parts.iter().map(|part| match part {
            RoutePart::Match => "match",
            RoutePart::Target => "target",
            RoutePart::Treatment => "treatment",
        });
        lines.push(line("route", &route.route, format!("{} changed", parts.collect::<Vec<_>>().join(", "))));
    }
    if difference.routes_reordered {
        lines.push(line("route", "order", "routes come in another order, which decides ties".into()));
    }
    for service in &difference.services {
        service_changes(service, &mut lines);
    }
    lines.extend(difference.settings.iter().map(|setting| line("policy", setting.as_str(), "changed".into())));
    lines
}

fn service_changes(service: &ServiceDifference, lines: &mut Vec<PlanLine>) {
    let name = &service.service;
    lines
        .extend(service.versions_added.iter().map(|version| line("service", name, format!("version {version} added"))));
    lines.extend(
        service.versions_removed.iter().map(|version| line("service", name, format!("version {version} removed"))),
    );
    for endpoints in &service.endpoints {
        let listed =
            |sign: char, endpoints: &[Endpoint]| endpoints.iter().map(|it| format!("{sign}{}", it)).collect::<Vec<_>>();
        let all = [listed('+', &endpoints.added), listed('-', &endpoints.removed)].concat().join(" ");
        lines.push(line("endpoint", name, format!("{} {all}", endpoints.version)));
    }
    if let Some((from, to)) = &service.intent {
        lines.push(line("split", name, format!("the file's value: {} -> {}", intent_text(from), intent_text(to))));
    }
    if !service.shares.is_empty() {
        let each = service.shares.iter().map(|it| format!("{} {} -> {}", it.version, share(it.from), share(it.to)));
        lines.push(line("split", name, each.collect::<Vec<_>>().join(", ")));
    }
    if !service.policies.is_empty() {
        let policies: Vec<&str> = service.policies.iter().map(|policy| policy.as_str()).collect();
        lines.push(line("policy", name, format!("{} changed", policies.join(", "))));
    }
}

fn share(share: Share) -> String {
    match share {
        Share::Off => "off".into(),
        Share::Draining => "draining".into(),
        Share::Weight(weight) => weight.to_string(),
    }
}

fn consequences(shared: &Shared, live: &Snapshot, next: &Generation, difference: &Difference) -> Vec<PlanLine> {
    let mut lines = Vec::new();
    for service in &difference.services {
        moving_clients(next, service, &mut lines);
        for leaving in service.leaving() {
            what_stays(shared, live, &service.service, &leaving.version, &mut lines);
        }
        for share in service.shares.iter().filter(|share| share.to.weight() > share.from.weight()) {
            unready(live, next, &service.service, &share.version, &mut lines);
        }
    }
    for service in &difference.services_removed {
        for version in live.runtime.named(service).iter().flat_map(|service| &service.versions) {
            what_stays(shared, live, service, &version.core.name, &mut lines);
        }
    }
    for service in &difference.services_added {
        if let Some(compiled) = next.table.service_named(service).map(|at| next.table.service(at)) {
            for version in &compiled.versions {
                unready(live, next, service, version, &mut lines);
            }
        }
    }
    lines
}

fn moving_clients(next: &Generation, service: &ServiceDifference, lines: &mut Vec<PlanLine>) {
    if service.shares.is_empty() {
        return;
    }
    let name = &service.service;
    let sticky = next.table.service_named(name).is_some_and(|at| next.table.service(at).service.sticky.is_some());
    let text = if sticky {
        format!("{:.2} % of all clients move to another version", f64::from(service.buckets_moved) / 100.0)
    } else {
        "clients are not sticky: the next requests follow the new weights".into()
    };
    lines.push(line("client", name, text));
}

/// What still runs on a version that loses its place, and how long it may.
fn what_stays(shared: &Shared, live: &Snapshot, service: &str, version: &str, lines: &mut Vec<PlanLine>) {
    let Some(at) = live.generation.table.service_named(service) else { return };
    let drain = &live.generation.table.service(at).service.drain;
    let Some(runtime) = live.runtime.service(at).version_named(version) else { return };
    let running = |kind| runtime.core.in_flight.count(kind);
    let requests = running(Kind::Http);
    if requests > 0 {
        let text = format!("{requests} requests on {version} may finish for {}", seconds(drain.requests));
        lines.push(line("stream", service, text));
    }
    let streams = running(Kind::Sse) + running(Kind::WebSocket) + running(Kind::Grpc);
    if streams > 0 {
        let oldest = oldest(shared, runtime).map_or(String::new(), |age| format!(", the oldest {} old", seconds(age)));
        let text = format!(
            "{} WebSockets, {} event streams and {} gRPC streams on {version} stay for up to {}{oldest}",
            running(Kind::WebSocket),
            running(Kind::Sse),
            running(Kind::Grpc),
            seconds(drain.streams)
        );
        lines.push(line("stream", service, text));
    }
}

fn oldest(shared: &Shared, version: &VersionRuntime) -> Option<Duration> {
    let now_ms = shared.live.nanos() / 1_000_000;
    let running = shared.connections.running_on(version.core.slot);
    let streams = running.iter().filter(|running| running.exchange.kind().is_stream());
    let began = streams.map(|running| running.began_ms).min()?;
    Some(Duration::from_millis(now_ms.saturating_sub(began)))
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        secs if secs >= 120 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}

/// Endpoints of a version that is to get (more) traffic and that could not take it now.
fn unready(live: &Snapshot, next: &Generation, service: &str, version: &str, lines: &mut Vec<PlanLine>) {
    let Some(at) = next.table.service_named(service) else { return };
    let compiled = next.table.service(at);
    let Some(wanted) = compiled.service.versions.get(version) else { return };
    let known = live.runtime.named(service).and_then(|service| service.version_named(version));
    for endpoint in &wanted.endpoints {
        let known = known.map(|known| known.endpoints_at(&endpoint.address)).unwrap_or_default();
        if known.is_empty() {
            let why = match &endpoint.address {
                _ if compiled.service.health.is_some() => "is new: it gets traffic after its first passed check",
                EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => continue,
                EndpointAddress::Name { .. } => "is new: its name is not resolved yet",
            };
            lines.push(line("endpoint", service, format!("{version} {} {why}", endpoint.address)));
        }
        for endpoint in known.iter().filter(|endpoint| !endpoint.is_ready()) {
            let (shown, why) = (endpoint.label(), not_ready(endpoint));
            lines.push(line("endpoint", service, format!("{version} {shown} {why}")));
        }
    }
}

fn not_ready(endpoint: &EndpointRuntime) -> String {
    if !endpoint.is_resolved() {
        return "is not resolved".into();
    }
    if endpoint.is_ejected() {
        return "is ejected".into();
    }
    format!(
        "is {}",
        serde_json::to_value(endpoint.health()).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
    )
}

fn sockets(shared: &Shared, after: &Config) -> Vec<PlanLine> {
    let (bound, closed) = shared.ports.listeners.difference(&after.listeners);
    let bound = bound.iter().map(|name| line("listener", name, "a socket is bound before the change goes live".into()));
    let closed = closed.iter().map(|name| line("listener", name, "its socket closes and its connections drain".into()));
    bound.chain(closed).collect()
}
