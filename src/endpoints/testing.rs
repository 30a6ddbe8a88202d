//! Runtime state made by hand, for the tests of what works on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::group::VersionRuntime;
use super::state::{Runtime, ServiceCore, ServiceRuntime, VersionCore};
use crate::config::model::{
    AccessLog, AccessLogTarget, Action, Admin, AdminBind, Balance, Config, Drain, Endpoint, EndpointAddress, Expose,
    Health, HealthCheck, Hold, Intent, Limits, Match, Retry, Rewrite, Route, Service, Shutdown, Timeouts, Upstream,
    Version,
};
use crate::control::Snapshot;
use crate::control::live::RouteCodes;
use crate::outcome::CodesRegistry;
use crate::routing::compile::{compile, intended_shares, split_from};
use crate::routing::table::CompiledService;
use crate::routing::{Generation, Share, Stamp};

/// A version `v1` of `shop` whose endpoints are these ports of 127.0.0.1, unchecked.
pub(crate) fn version(ports: &[u16], threads: usize) -> Arc<VersionRuntime> {
    of(local(ports), false, threads)
}

/// As [`version`], with a check that has not passed yet.
pub(crate) fn checked(ports: &[u16], threads: usize) -> Arc<VersionRuntime> {
    of(local(ports), true, threads)
}

/// A version whose endpoints are these names, port 80, unchecked and not yet resolved.
pub(crate) fn named(hosts: &[&str], threads: usize) -> Arc<VersionRuntime> {
    let addresses = hosts.iter().map(|host| EndpointAddress::Name { host: host.to_string(), port: 80 }.into());
    of(addresses.collect(), false, threads)
}

/// A runtime of services with one version each, in name order.
pub(crate) fn runtime(services: &[(&str, Arc<VersionRuntime>)]) -> Arc<Runtime> {
    let services = services.iter().map(|(name, version)| {
        let core = Arc::new(ServiceCore::default());
        Arc::new(ServiceRuntime {
            name: (*name).into(),
            versions: Box::new([version.clone()]),
            core,
            upstream: Upstream::default(),
            secure: None,
        })
    });
    Arc::new(Runtime::with(services.collect()))
}

/// A compiled service of these versions (in name order) on these ports, with or without a check.
pub(crate) fn compiled(name: &str, versions: &[(&str, &[u16])], checked: bool) -> CompiledService {
    let secs = Duration::from_secs;
    let check = Health {
        check: HealthCheck::Tcp,
        every: secs(2),
        timeout: secs(1),
        pass: 2,
        fail: 3,
        jitter_bp: 1_000,
        damping: Duration::ZERO,
    };
    let service = Service {
        versions: versions
            .iter()
            .map(|(name, ports)| ((*name).into(), Version { endpoints: local(ports), revision: None }))
            .collect(),
        intent: Intent::Active(versions[0].0.into()),
        rollout: None,
        sticky: None,
        force: None,
        balance: Balance::default(),
        health: checked.then_some(check),
        outlier: None,
        panic_below_bp: 0,
        circuit: None,
        retry: Retry::default(),
        timeouts: Timeouts {
            connect: secs(2),
            request: secs(60),
            idle: secs(75),
            upgrade_idle: secs(3600),
            total: None,
        },
        limits: Limits { body: None, in_flight: None },
        upstream: Upstream { keepalive_idle: secs(4), ..Upstream::default() },
        drain: Drain { requests: secs(30), streams: secs(600), sessions: secs(600), reconnect_spread: secs(30) },
        hold: Hold { max_wait: secs(5), max_requests: 1024 },
        policy: Default::default(),
    };
    let versions = service.versions.keys().cloned().collect();
    CompiledService { name: name.into(), service, versions, salt: 0, matched: Box::default() }
}

/// The generation that follows `before`: one route `to-NAME` per service, everything to the first
/// version of each.
pub(crate) fn snapshot(
    services: Vec<CompiledService>,
    before: Option<&Snapshot>,
    codes: &Arc<CodesRegistry>,
) -> Arc<Snapshot> {
    let secs = Duration::from_secs;
    let route = |service: &CompiledService| Route {
        name: format!("to-{}", service.name).into(),
        matcher: Match::default(),
        policy: Default::default(),
        action: Action::Forward { service: service.name.clone(), rewrite: Rewrite::default() },
    };
    let config = Config {
        state_dir: None,
        listeners: BTreeMap::new(),
        admin: Admin { bind: AdminBind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), insecure: false },
        expose: Expose::default(),
        access_log: AccessLog { to: AccessLogTarget::Off, buffer: 1 },
        request_id: None,
        shutdown: Shutdown { pre_drain: secs(2), linger: secs(1), timeout: secs(9) },
        upgrade: Default::default(),
        dns: Default::default(),
        routes: services.iter().map(route).collect(),
        services: services.into_iter().map(|service| (service.name, service.service)).collect(),
        gates: BTreeMap::new(),
        notifications: BTreeMap::new(),
        expect: Vec::new(),
    };
    let table = Arc::new(compile(Arc::new(config)).expect("compiles"));
    let splits = table.services.iter().map(|service| split_from(service, intended_shares(service), 1)).collect();
    let runtime = Arc::new(Runtime::build(&table, before.map(|before| &*before.runtime), 1));
    let generation = Generation { stamp: stamp(before), table, splits };
    let codes = Arc::new(RouteCodes::new(&generation, codes.clone()));
    Arc::new(Snapshot::new(generation, runtime, codes, 1))
}

/// As `before`, with another split of its first service: the same table and runtime.
pub(crate) fn reweighted(before: &Snapshot, shares: Vec<Share>) -> Arc<Snapshot> {
    let mut generation = before.generation.clone();
    generation.stamp = stamp(Some(before));
    generation.splits[0] = split_from(&generation.table.services[0], shares, 1);
    Arc::new(Snapshot::new(generation, before.runtime.clone(), before.codes.clone(), 1))
}

fn stamp(before: Option<&Snapshot>) -> Stamp {
    let number = before.map_or(1, |before| before.generation.number() + 1);
    Stamp { number, hash: "".into(), author: "test".into(), cause: "test".into(), at_ms: 0 }
}

pub(crate) fn local(ports: &[u16]) -> Vec<Endpoint> {
    ports.iter().map(|port| EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], *port))).into()).collect()
}

fn of(endpoints: Vec<Endpoint>, checked: bool, threads: usize) -> Arc<VersionRuntime> {
    built(endpoints, &Balance::default(), checked, threads)
}

/// A version of these endpoints.
pub(crate) fn built(endpoints: Vec<Endpoint>, balance: &Balance, checked: bool, threads: usize) -> Arc<VersionRuntime> {
    let core = Arc::new(VersionCore::new("shop".into(), "v1".into(), threads));
    VersionRuntime::build(core, &endpoints, balance, checked, None)
}
