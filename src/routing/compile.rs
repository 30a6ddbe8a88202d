//! [`Config`] → [`Table`], and the split that the file's intent means.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::{fnv1a64, mix64};
use super::matched::Matched;
use super::split::{Share, Split};
use super::table::{CompiledRoute, CompiledService, ServiceIdx, Table};
use super::{host, matcher, path, rewrite};
use crate::config::model::{Action, Config, HostMatch, Intent, Name, PathMatch, Route, Service, StageTraffic};

/// Services that an index can tell apart.
const SERVICES_MAX: usize = u16::MAX as usize;

/// Why a checked configuration cannot be compiled (a pattern too large, too many services).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("route `{route}`: the path_regex cannot be compiled: {reason}")]
    Regex { route: String, reason: String },
    #[error("{count} services; at most {max} are possible")]
    TooManyServices { count: usize, max: usize },
}

/// Expects a checked configuration: every service that a route names exists.
pub fn compile(config: Arc<Config>) -> Result<Table, CompileError> {
    let count = config.services.len();
    if count > SERVICES_MAX {
        return Err(CompileError::TooManyServices { count, max: SERVICES_MAX });
    }
    let services: Box<[CompiledService]> = config
        .services
        .iter()
        .map(|(name, service)| CompiledService {
            name: name.clone(),
            service: service.clone(),
            versions: service.versions.keys().cloned().collect(),
            salt: mix64(fnv1a64(name.as_bytes())),
            matched: matched_by_stage(service),
        })
        .collect();
    let names = services.iter().enumerate().map(|(at, service)| (service.name.clone(), ServiceIdx(at as u16)));
    let service_by_name: HashMap<Name, ServiceIdx> = names.collect();
    let mut routes: Box<[CompiledRoute]> = config
        .routes
        .iter()
        .map(|route| CompiledRoute {
            rewritten: None,
            route: normal(route.clone()),
            service: match &route.action {
                Action::Forward { service, .. } => {
                    Some(*service_by_name.get(service).expect("the check refuses routes to unknown services"))
                }
                Action::Redirect { .. } | Action::Respond { .. } => None,
            },
        })
        .collect();
    let matcher = matcher::build(&routes).map_err(|(route, error)| CompileError::Regex {
        route: routes[route.0 as usize].route.name.to_string(),
        reason: error.to_string(),
    })?;
    for compiled in &mut routes {
        compiled.rewritten = rewrite::pattern(&compiled.route);
    }
    Ok(Table { config, matcher, routes, services, service_by_name })
}

/// Empty without a rollout.
fn matched_by_stage(service: &Service) -> Box<[Option<Arc<Matched>>]> {
    let stages = service.rollout.iter().flat_map(|rollout| &rollout.stages);
    let matched = stages.map(|stage| match &stage.traffic {
        StageTraffic::Match(stage) => Some(Arc::new(Matched::of(stage))),
        StageTraffic::Share(_) | StageTraffic::Mirror(_) => None,
    });
    matched.collect()
}

/// Patterns are compared with the normal forms of requests, so they are brought into the same form. One that
/// has none stays as written and matches nothing.
fn normal(mut route: Route) -> Route {
    match &mut route.matcher.path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => {
            if let Ok(std::borrow::Cow::Owned(normal)) = path::normalise(text) {
                *text = normal;
            }
        }
        PathMatch::Any | PathMatch::Regex(_) => {}
    }
    match &mut route.matcher.host {
        HostMatch::Exact(text) | HostMatch::Wildcard(text) => {
            if let Some(normal) = host::normalise(text.as_bytes()).filter(|normal| normal != text.as_str()) {
                *text = normal.into_owned();
            }
        }
        HostMatch::Any => {}
    }
    route
}

/// The shares that the file asks for, by `VersionIdx`.
pub fn intended_shares(service: &CompiledService) -> Vec<Share> {
    let share = |version: &Name| match &service.service.intent {
        Intent::Active(active) if active == version => Share::Weight(1),
        Intent::Active(_) => Share::Off,
        Intent::Split(weights) => match weights.get(version) {
            None => Share::Off,
            Some(0) => Share::Draining,
            Some(&weight) => Share::Weight(weight),
        },
    };
    service.versions.iter().map(share).collect()
}

/// The order of its random picks depends on the service and on the shares, nothing else.
pub fn split_from(service: &CompiledService, shares: Vec<Share>, threads: usize) -> Arc<Split> {
    let salt = shares.iter().fold(service.salt, |salt, share| {
        let share = match share {
            Share::Off => 0,
            Share::Draining => 1,
            Share::Weight(weight) => 2 + u64::from(*weight),
        };
        mix64(salt.rotate_left(7) ^ share)
    });
    Split::new(&service.versions, shares, salt, threads)
}
