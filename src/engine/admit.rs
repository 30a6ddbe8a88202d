//! The policies of a route and its service that may refuse a request before a version is chosen.

use super::answer::Answer;
use super::context::Context;
use crate::control::Snapshot;
use crate::limits::Refusal;
use crate::routing::RouteIdx;

/// `Err`: the request goes no further, and this is its answer.
pub fn admit(snapshot: &Snapshot, route: RouteIdx, ctx: &Context) -> Result<(), Answer> {
    let table = &snapshot.generation.table;
    let compiled = table.route_at(route);
    let service = compiled.service.map(|service| &table.service(service).service.policy);
    let client = ctx.origin.client;
    let refused = |why: Refusal| {
        if let Some(service) = compiled.service {
            snapshot.runtime.service(service).core.refused.count(why);
        }
    };
    for access in [Some(&compiled.route.policy.access), service.map(|policy| &policy.access)].into_iter().flatten() {
        if !access.is_open() && !access.admits(client) {
            refused(Refusal::Access);
            return Err(Answer::error(403, "this address may not"));
        }
    }
    Ok(())
}
