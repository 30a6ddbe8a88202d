//! The limits of one routing table, by service and by route. A limit that a reload does not change keeps what it knows.

use std::collections::HashMap;
use std::sync::Arc;

use super::{PerClient, Rates};
use crate::config::model::{Name, RateLimit};
use crate::routing::{RouteIdx, ServiceIdx, Table};

/// Same indices as the table.
#[derive(Debug, Default)]
pub struct Limits {
    services: Box<[OfService]>,
    /// Empty if no route has a limit.
    routes: Box<[Option<Arc<Rates>>]>,
    /// Those of routes by name, for the next table.
    named_routes: Vec<(Name, Arc<Rates>)>,
}

#[derive(Debug)]
pub struct OfService {
    name: Name,
    pub rate: Option<Arc<Rates>>,
    /// Requests of each client that run now; `None` without a limit.
    pub in_flight: Option<Arc<PerClient>>,
}

impl Limits {
    pub fn of(table: &Table, before: Option<&Limits>) -> Limits {
        let services_before: HashMap<&str, &OfService> =
            before.into_iter().flat_map(|it| &it.services).map(|service| (&*service.name, service)).collect();
        let routes_before: HashMap<&str, &Arc<Rates>> =
            before.into_iter().flat_map(|it| &it.named_routes).map(|(name, rates)| (&**name, rates)).collect();
        let services = table
            .services
            .iter()
            .map(|compiled| {
                let before = services_before.get(&*compiled.name);
                let policy = &compiled.service.policy;
                OfService {
                    name: compiled.name.clone(),
                    rate: kept(policy.rate_limit.as_ref(), before.and_then(|before| before.rate.as_ref())),
                    in_flight: policy
                        .in_flight_per_client
                        .map(|_| before.and_then(|before| before.in_flight.clone()).unwrap_or_default()),
                }
            })
            .collect();
        let mut named_routes = Vec::new();
        let mut routes = Vec::new();
        for (at, compiled) in table.routes.iter().enumerate() {
            let name = &compiled.route.name;
            let before = routes_before.get(&**name).copied();
            let Some(rates) = kept(compiled.route.policy.rate_limit.as_ref(), before) else { continue };
            named_routes.push((name.clone(), rates.clone()));
            routes.resize(table.routes.len(), None);
            routes[at] = Some(rates);
        }
        Limits { services, routes: routes.into(), named_routes }
    }

    pub fn service(&self, at: ServiceIdx) -> Option<&OfService> {
        self.services.get(usize::from(at.0))
    }

    pub fn route(&self, at: RouteIdx) -> Option<&Arc<Rates>> {
        self.routes.get(at.0 as usize)?.as_ref()
    }

    /// A little of the housekeeping; called often.
    pub fn sweep(&self) {
        let of_services = self.services.iter().filter_map(|service| service.rate.as_ref());
        of_services.chain(self.named_routes.iter().map(|(_, rates)| rates)).for_each(|rates| rates.sweep());
    }
}

/// The same limit goes on; another one begins anew.
fn kept(wanted: Option<&RateLimit>, before: Option<&Arc<Rates>>) -> Option<Arc<Rates>> {
    let wanted = wanted?;
    Some(match before {
        Some(before) if before.policy == *wanted => before.clone(),
        Some(_) | None => Arc::new(Rates::new(wanted)),
    })
}
