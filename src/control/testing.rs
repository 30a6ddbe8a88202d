//! Values for the tests of this folder, made from short text.

use std::collections::BTreeMap;
use std::time::Duration;

use super::overlay::Weights;
use crate::config::model::{
    Balance, Drain, EndpointAddress, Hold, Intent, Limits, Name, Retry, Service, Timeouts, Upstream, Version,
};
use crate::routing::table::CompiledService;

/// `v1=90 v2=10`.
pub fn weights(text: &str) -> Weights {
    let pair = |pair: &str| {
        let (version, weight) = pair.split_once('=').expect("version=weight");
        (version.to_string(), weight.parse().expect("a number"))
    };
    text.split_whitespace().map(pair).collect()
}

/// A service with these versions, whose file says `split` (written as for [`weights`]).
pub fn service(name: &str, versions: &[&str], split: &str) -> CompiledService {
    let version = |at: usize| Version {
        endpoints: vec![EndpointAddress::Ip(([10, 0, 0, at as u8], 80).into()).into()],
        revision: None,
    };
    let versions: BTreeMap<Name, Version> =
        versions.iter().enumerate().map(|(at, name)| ((*name).into(), version(at))).collect();
    let intent = Intent::Split(weights(split).into_iter().map(|(name, weight)| (name.into(), weight)).collect());
    let secs = Duration::from_secs;
    let names = versions.keys().cloned().collect();
    let service = Service {
        versions,
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
    };
    CompiledService { name: name.into(), service, versions: names, salt: 1, matched: Box::default() }
}
