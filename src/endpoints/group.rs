//! The endpoints that a version has now: one for each address of its definition, names resolved.
//!
//! A group never changes; another answer of the resolver makes another group, and what is in both is the same
//! endpoint. A name without an address yet is there as an endpoint that has none, so that everybody sees what is
//! waited for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};

use super::balance::{Order, Ring};
use super::share::Shares;
use super::state::{At, EndpointRuntime, VersionCore};
use crate::config::model::{Balance, BalanceBy, Endpoint, EndpointAddress};

/// Endpoints, and the tables that choosing among them needs.
#[derive(Debug)]
pub struct Group {
    pub endpoints: Box<[Arc<EndpointRuntime>]>,
    /// Same indices.
    pub(super) weights: Box<[u32]>,
    pub(super) order: Order,
    pub(super) hashing: Option<Hashing>,
}

/// What consistent hashing needs besides.
#[derive(Debug)]
pub(super) struct Hashing {
    pub ring: Ring,
    pub shares: Shares,
}

impl Group {
    fn new(core: &VersionCore, members: Vec<(Arc<EndpointRuntime>, u32)>, balance: &Balance) -> Group {
        let (endpoints, weights): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let hashing = match balance.by {
            BalanceBy::ConsistentHash(_) => {
                let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.place()).collect();
                let ring = Ring::new(names.iter().map(String::as_str).zip(weights.iter().copied()));
                Some(Hashing { ring, shares: Shares::new(core.together.clone()) })
            }
            BalanceBy::RoundRobin | BalanceBy::LeastRequest | BalanceBy::PeakEwma => None,
        };
        Group { order: Order::new(&weights), endpoints: endpoints.into(), weights: weights.into(), hashing }
    }
}

/// One version under one table: its present endpoints and what it keeps over reloads.
#[derive(Debug)]
pub struct VersionRuntime {
    pub core: Arc<VersionCore>,
    pub balance: Balance,
    defined: Box<[Endpoint]>,
    checked: bool,
    group: ArcSwap<Group>,
    /// Who makes another group holds it.
    changing: Mutex<()>,
}

impl VersionRuntime {
    /// Takes over from `before` every endpoint that is still meant, and all of it if nothing changed.
    pub(super) fn build(
        core: Arc<VersionCore>,
        defined: &[Endpoint],
        balance: &Balance,
        checked: bool,
        before: Option<&Arc<VersionRuntime>>,
    ) -> Arc<VersionRuntime> {
        if let Some(before) = before
            && *before.defined == *defined
            && before.balance == *balance
            && before.checked == checked
        {
            return before.clone();
        }
        let known = before.map(|before| before.group.load_full());
        let mut members = Vec::new();
        for defined in defined {
            let known = known.iter().flat_map(|group| &group.endpoints);
            let kept: Vec<_> = known.filter(|endpoint| endpoint.address == defined.address).cloned().collect();
            let of = match kept.is_empty() {
                false => kept,
                true => vec![Arc::new(EndpointRuntime::new(&core, defined.address.clone(), None, checked))],
            };
            for endpoint in &of {
                endpoint.check_is(checked);
                endpoint.limit(defined.max_connections);
            }
            members.extend(of.into_iter().map(|endpoint| (endpoint, defined.weight)));
        }
        Arc::new(VersionRuntime {
            group: ArcSwap::from_pointee(Group::new(&core, members, balance)),
            core,
            defined: defined.into(),
            balance: balance.clone(),
            checked,
            changing: Mutex::default(),
        })
    }

    /// The endpoints as they are now. To be let go of soon.
    pub fn now(&self) -> Guard<Arc<Group>> {
        self.group.load()
    }

    /// As [`VersionRuntime::now`], to keep.
    pub fn endpoints(&self) -> Vec<Arc<EndpointRuntime>> {
        self.group.load().endpoints.to_vec()
    }

    /// Those of one line of the definition: several if it is a name with several addresses.
    pub fn endpoints_at(&self, address: &EndpointAddress) -> Vec<Arc<EndpointRuntime>> {
        let group = self.group.load();
        group.endpoints.iter().filter(|endpoint| endpoint.address == *address).cloned().collect()
    }

    /// The names among its endpoints.
    pub(super) fn names(&self) -> impl Iterator<Item = (String, u16)> {
        self.defined.iter().filter_map(|defined| match &defined.address {
            EndpointAddress::Name { host, port } => Some((host.clone(), *port)),
            EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => None,
        })
    }

    /// An answer of the resolver, in order and without repeats, not empty. What the name was before, if that was
    /// something else. Every address is used again, rested or not.
    pub(super) fn resolved(&self, name: &(String, u16), addresses: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
        let _one = self.changing.lock().expect("no holder panics");
        let group = self.group.load_full();
        let named = EndpointAddress::Name { host: name.0.clone(), port: name.1 };
        let of_name = || group.endpoints.iter().filter(|endpoint| endpoint.address == named);
        let before: Vec<SocketAddr> = of_name().filter_map(|endpoint| endpoint.ip()).collect();
        of_name().for_each(|endpoint| endpoint.set_resting(false));
        if before == addresses {
            return None;
        }
        let mut members = Vec::new();
        for defined in &self.defined {
            let known = || group.endpoints.iter().filter(|endpoint| endpoint.address == defined.address);
            if defined.address != named {
                members.extend(known().map(|endpoint| (endpoint.clone(), defined.weight)));
                continue;
            }
            for address in addresses {
                let endpoint = known().find(|endpoint| endpoint.ip() == Some(*address)).cloned();
                let endpoint = endpoint.unwrap_or_else(|| {
                    let at = Some(At::Ip(*address));
                    let new = EndpointRuntime::new(&self.core, defined.address.clone(), at, self.checked);
                    new.limit(defined.max_connections);
                    Arc::new(new)
                });
                members.push((endpoint, defined.weight));
            }
        }
        self.group.store(Arc::new(Group::new(&self.core, members, &self.balance)));
        Some(before)
    }

    /// A connection to the endpoint could not be made. One of several addresses of a name rests until the name is
    /// resolved again or a check passes; without checks and ejection nothing else would keep requests away from it.
    pub fn rest(&self, endpoint: &EndpointRuntime) {
        if let EndpointAddress::Name { .. } = endpoint.address {
            let group = self.group.load();
            let of_name = group.endpoints.iter().filter(|other| other.address == endpoint.address);
            if of_name.filter(|other| other.incarnation != endpoint.incarnation).any(|other| other.is_ready()) {
                endpoint.set_resting(true);
            }
        }
    }

    pub fn has_ready(&self) -> bool {
        self.group.load().endpoints.iter().any(|endpoint| endpoint.is_ready())
    }
}
