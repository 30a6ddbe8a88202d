//! The policies of a route and its service that may refuse a request before a version is chosen.
//!
//! In this order: who may not ask at all, a service that is closed, who asks too often, who has too much in flight. Whatever
//! is not configured is a comparison and nothing more.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};

use super::answer::Answer;
use super::context::Context;
use crate::config::model::Maintenance;
use crate::control::Snapshot;
use crate::limits::{Entered, Refusal, Who};
use crate::routing::RouteIdx;

/// What a request was charged with when it was let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Its limits were asked: never twice, however often it is directed anew.
    counted: bool,
    /// Its place among those of its client; given back when it ends.
    _entered: Option<Entered>,
}

/// `Err`: the request goes no further, and this is its answer.
pub fn admit(snapshot: &Snapshot, route: RouteIdx, headers: &HeaderMap, ctx: &mut Context) -> Result<(), Answer> {
    let table = &snapshot.generation.table;
    let compiled = table.route_at(route);
    let service = compiled.service.map(|service| &table.service(service).service.policy);
    let client = ctx.origin.client;
    let refuse = |why: Refusal, answer: Answer| {
        if let Some(service) = compiled.service {
            snapshot.runtime.service(service).core.refused.count(why);
        }
        Err(answer)
    };
    for access in [Some(&compiled.route.policy.access), service.map(|policy| &policy.access)].into_iter().flatten() {
        if !access.is_open() && !access.admits(client) {
            return refuse(Refusal::Access, Answer::error(403, "this address may not"));
        }
    }
    let closed = service.and_then(|policy| policy.maintenance.as_ref());
    if let Some(page) = closed.filter(|page| page.enabled && !page.allow.contains(client)) {
        return refuse(Refusal::Maintenance, closed_for_now(page));
    }
    if ctx.admitted.counted {
        return Ok(());
    }
    let limits = &snapshot.runtime.limits;
    let of_service = compiled.service.and_then(|service| limits.service(service));
    let rates = [limits.route(route), of_service.and_then(|limits| limits.rate.as_ref())];
    for rates in rates.into_iter().flatten() {
        let header = |name: &http::HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        if let Err(early) = rates.ask(Who::of(client), header) {
            return refuse(Refusal::RateLimit, Answer::limited("too many requests, come back later", early.seconds()));
        }
    }
    let in_flight = of_service.and_then(|limits| limits.in_flight.as_ref());
    let most = service.and_then(|policy| policy.in_flight_per_client);
    let entered = match in_flight.zip(most) {
        None => None,
        Some((in_flight, most)) => match in_flight.try_enter(Who::of(client), most) {
            Some(entered) => Some(entered),
            None => {
                let answer = Answer::limited("too many requests of this client at once", 1);
                return refuse(Refusal::InFlightPerClient, answer);
            }
        },
    };
    ctx.admitted = Admitted { counted: true, _entered: entered };
    Ok(())
}

fn closed_for_now(page: &Maintenance) -> Answer {
    let mut headers =
        vec![(CONTENT_TYPE, page.content_type.clone()), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    if let Some(after) = page.retry_after {
        headers.push((RETRY_AFTER, HeaderValue::from(after.as_secs())));
    }
    Answer::fixed(page.status, &headers, &page.body)
}
