//! The endpoints of a version, and how they are balanced.

use std::collections::BTreeSet;

use super::super::decode::{Field, List};
use super::super::found::{Found, Span};
use super::super::model::{self, BalanceBy, EndpointAddress};
use super::super::raw;
use super::Around;

/// Of all weights of a version, divided by what they have in common.
const WEIGHTS_MAX: u64 = 65_536;
/// With consistent hashing each unit of weight costs memory, and nothing is divided: an endpoint that leaves must not
/// change what the others have.
const HASHED_WEIGHTS_MAX: u64 = 4_096;

/// `version` names it in messages: "version `v1` of service `shop`".
pub fn endpoints(
    list: &List<raw::Endpoint>,
    version: &str,
    (at, hashed): (Span, bool),
    around: &Around<'_>,
    found: &mut Found,
) -> Vec<model::Endpoint> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    for (endpoint, span) in list.good() {
        let Some(endpoint) = one(endpoint, span, around, found) else { continue };
        if seen.insert(endpoint.address.clone()) {
            endpoints.push(endpoint);
        } else {
            found
                .error(span, "this endpoint is given twice")
                .hint(format!("to give it more, write `{{ address: \"{}\", weight: 2 }}`", endpoint.address));
        }
    }
    let weights = || endpoints.iter().map(|endpoint| u64::from(endpoint.weight));
    let divisor = if hashed { 1 } else { weights().fold(0, gcd).max(1) };
    let (sum, max) = (weights().sum::<u64>() / divisor, if hashed { HASHED_WEIGHTS_MAX } else { WEIGHTS_MAX });
    if sum > max {
        found
            .error(at, format!("the weights of {version} are too large"))
            .why(format!("they add up to {sum}; at most {max} are possible"))
            .hint("use smaller numbers: only their proportions count");
    }
    endpoints
}

fn one(raw: &raw::Endpoint, span: Span, around: &Around<'_>, found: &mut Found) -> Option<model::Endpoint> {
    let (place, span) = match raw {
        raw::Endpoint::At(place) => (&place.0, span),
        raw::Endpoint::With(keys) => keys.address.written().map(|(place, span)| (&place.0, span))?,
    };
    let address = match place {
        EndpointAddress::Unix(path) => {
            let path = around.path(path, span);
            // What the kernel takes (unix(7)): 108 bytes with the NUL.
            if path.as_os_str().len() > 107 {
                found
                    .error(span, "the path of this socket is too long")
                    .why(format!("`{}` has {} bytes; at most 107 are possible", path.display(), path.as_os_str().len()))
                    .hint("use a shorter path, such as one below /run");
            }
            EndpointAddress::Unix(path)
        }
        EndpointAddress::Ip(_) | EndpointAddress::Name { .. } => place.clone(),
    };
    let mut endpoint = model::Endpoint::from(address);
    if let raw::Endpoint::With(keys) = raw {
        endpoint.weight = keys.weight.value().0;
        endpoint.max_connections = keys.max_connections.get().map(|max| max.0 as u32);
    }
    Some(endpoint)
}

pub fn balance(raw: &raw::Service, found: &mut Found) -> model::Balance {
    let by = match raw.balance.get() {
        None | Some(raw::Balance::RoundRobin) => BalanceBy::RoundRobin,
        Some(raw::Balance::LeastRequest) => BalanceBy::LeastRequest,
        Some(raw::Balance::PeakEwma) => BalanceBy::PeakEwma,
        Some(raw::Balance::By(by)) => match by.consistent_hash.get() {
            Some(key) => hash_key(key, by.consistent_hash.key().unwrap_or_default(), found),
            None => BalanceBy::RoundRobin,
        },
    };
    model::Balance { by, slow_start: raw.slow_start.get().map(|time| time.0).unwrap_or_default() }
}

fn hash_key(raw: &raw::HashKey, at: Span, found: &mut Found) -> BalanceBy {
    let given = [raw.header.is_missing(), raw.cookie.is_missing(), raw.client_ip.is_missing(), raw.path.is_missing()];
    match given.iter().filter(|missing| !**missing).count() {
        1 => {}
        0 => {
            found.error(at, "`consistent_hash` does not say what to hash").hint("add `header: x-user`, for example");
        }
        _ => {
            found
                .error(at, "`consistent_hash` takes one key")
                .hint("keep one of `header`, `cookie`, `client_ip` and `path`");
        }
    }
    for flag in [&raw.client_ip, &raw.path] {
        if let Field::Given { value, span, .. } = flag
            && !value.0
        {
            found.error(*span, "this can only be `true`").hint("leave it out");
        }
    }
    if let Some(header) = raw.header.get() {
        return BalanceBy::ConsistentHash(model::HashKey::Header(header.0.clone()));
    }
    if let Some((cookie, span)) = raw.cookie.written() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if !cookie.0.chars().all(token) {
            found.error(span, format!("`{}` is not the name of a cookie", cookie.0));
        }
        return BalanceBy::ConsistentHash(model::HashKey::Cookie(cookie.0.clone()));
    }
    BalanceBy::ConsistentHash(match raw.path.is_missing() {
        false => model::HashKey::Path,
        true => model::HashKey::ClientIp,
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
