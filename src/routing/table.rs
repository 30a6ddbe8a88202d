//! What a configuration compiles to: routes indexed for matching, services and versions by index.

use std::collections::HashMap;
use std::sync::Arc;

use super::matched::Matched;
use super::matcher::Matcher;
use crate::config::model::{Config, Name, Route, Service};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteIdx(pub u32);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceIdx(pub u16);
/// Index of a version within its service, in name order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionIdx(pub u16);

/// Immutable; shared by every generation made from the same text.
#[derive(Debug)]
pub struct Table {
    pub config: Arc<Config>,
    pub(super) matcher: Matcher,
    /// As in `config.routes`, same index.
    pub routes: Box<[CompiledRoute]>,
    /// In name order, as in `config.services`.
    pub services: Box<[CompiledService]>,
    pub(super) service_by_name: HashMap<Name, ServiceIdx>,
}

#[derive(Debug)]
pub struct CompiledRoute {
    pub route: Route,
    /// `None` for redirects and fixed responses.
    pub service: Option<ServiceIdx>,
    /// What a rewrite with `path_regex` replaces.
    pub(super) rewritten: Option<regex::Regex>,
}

#[derive(Debug)]
pub struct CompiledService {
    pub name: Name,
    pub service: Service,
    /// In name order; index = `VersionIdx`.
    pub versions: Box<[Name]>,
    /// Mixed into every sticky hash so that two services do not share their lucky clients.
    /// Derived from the service's name: stable over restarts and equal on every instance.
    pub salt: u64,
    /// By stage of its rollout: who is matched there.
    pub matched: Box<[Option<Arc<Matched>>]>,
}

impl Table {
    pub fn service(&self, idx: ServiceIdx) -> &CompiledService {
        &self.services[idx.0 as usize]
    }
    pub fn route_at(&self, idx: RouteIdx) -> &CompiledRoute {
        &self.routes[idx.0 as usize]
    }
    pub fn service_named(&self, name: &str) -> Option<ServiceIdx> {
        self.service_by_name.get(name).copied()
    }
}

impl CompiledService {
    pub fn version_named(&self, name: &str) -> Option<VersionIdx> {
        self.versions.binary_search_by(|have| (**have).cmp(name)).ok().map(|at| VersionIdx(at as u16))
    }
    pub fn version_name(&self, idx: VersionIdx) -> &Name {
        &self.versions[idx.0 as usize]
    }
}
