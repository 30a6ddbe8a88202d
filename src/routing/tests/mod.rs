//! Tables and properties over the whole module.

mod choose;
mod compile;
mod diff;
mod hostile;
mod matcher;
mod path;
mod split;
mod sticky;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::compile::compile;
use super::*;
use crate::config::model::*;

/// A service whose versions have one endpoint each.
pub(super) fn service(versions: &[&str], intent: Intent) -> Service {
    let version = |at: usize| Version { endpoints: vec![endpoint(&format!("10.0.0.{}:80", at + 1))], revision: None };
    let secs = Duration::from_secs;
    Service {
        versions: versions.iter().enumerate().map(|(at, &name)| (name.into(), version(at))).collect(),
        intent,
        rollout: None,
        sticky: None,
        force: None,
        balance: Balance::default(),
        health: None,
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
    }
}

pub(super) fn endpoint(address: &str) -> Endpoint {
    EndpointAddress::Ip(address.parse().expect("an address")).into()
}

pub(super) fn active(version: &str) -> Intent {
    Intent::Active(version.into())
}

/// `v1=90 v2=10`
pub(super) fn split(weights: &str) -> Intent {
    let pairs = weights.split_whitespace().map(|pair| pair.split_once('=').expect("name=weight"));
    Intent::Split(pairs.map(|(name, weight)| (name.into(), weight.parse().expect("a weight"))).collect())
}

pub(super) fn config(routes: Vec<Route>, services: Vec<(&str, Service)>) -> Config {
    Config {
        state_dir: None,
        listeners: BTreeMap::new(),
        admin: Admin { bind: AdminBind::Tcp("127.0.0.1:9900".parse().expect("an address")), insecure: false },
        expose: Expose::default(),
        access_log: AccessLog { to: AccessLogTarget::Off, buffer: 8192 },
        request_id: None,
        upgrade: Default::default(),
        dns: Default::default(),
        shutdown: Shutdown {
            pre_drain: Duration::from_secs(2),
            linger: Duration::from_secs(1),
            timeout: Duration::from_secs(9),
        },
        routes,
        services: services.into_iter().map(|(name, service)| (name.into(), service)).collect(),
        gates: BTreeMap::new(),
        notifications: BTreeMap::new(),
        expect: Vec::new(),
    }
}

pub(super) fn route(name: &str, host: &str, path: PathMatch) -> Route {
    let host = match host.strip_prefix("*.") {
        Some(parent) => HostMatch::Wildcard(parent.to_owned()),
        None if host == "*" => HostMatch::Any,
        None => HostMatch::Exact(host.to_owned()),
    };
    let matcher = Match { host, path, ..Match::default() };
    Route {
        name: name.into(),
        matcher,
        policy: Default::default(),
        action: Action::Respond { status: 200, headers: vec![], body: name.to_owned() },
    }
}

/// One route a line: `[METHOD] HOST PATH [header:H=V] [?Q=V] -> NAME`. PATH is `/exact`, `/prefix*` or `~regex`, or
/// `*` for any.
pub(super) fn table(lines: &str) -> Table {
    let routes = lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let (rule, name) = line.split_once("->").expect("an arrow");
        let mut words = rule.split_whitespace().peekable();
        let method = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
        let host = words.next().expect("a host");
        let path = match words.next().expect("a path") {
            "*" => PathMatch::Any,
            path => match (path.strip_prefix('~'), path.strip_suffix('*')) {
                (Some(regex), _) => PathMatch::Regex(regex.to_owned()),
                (_, Some(prefix)) => PathMatch::Prefix(prefix.to_owned()),
                (None, None) => PathMatch::Exact(path.to_owned()),
            },
        };
        let mut route = route(name.trim(), host, path);
        route.matcher.methods.extend(method.map(|method| method.parse::<http::Method>().expect("a method")));
        for word in words {
            let value = |value: Option<&str>| value.map_or(ValueMatch::Present, |v| ValueMatch::Exact(v.to_owned()));
            if let Some(query) = word.strip_prefix('?') {
                let (name, wanted) = query.split_once('=').map_or((query, None), |(name, v)| (name, Some(v)));
                route.matcher.query.push((name.to_owned(), value(wanted)));
            } else {
                let header = word.strip_prefix("header:").expect("header: or ?");
                let (name, wanted) = header.split_once('=').map_or((header, None), |(name, v)| (name, Some(v)));
                route.matcher.headers.push((name.parse().expect("a header name"), value(wanted)));
            }
        }
        route
    });
    compile(Arc::new(config(routes.collect(), vec![]))).expect("the routes compile")
}
