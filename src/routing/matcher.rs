//! Most specific route wins: host, then path, then number of matchers; ties by order in the file.
//!
//! | | from most to least specific |
//! |---|---|
//! | host | exact · longer wildcard · shorter wildcard · any |
//! | path | exact · regex · longer prefix · shorter prefix · any |
//! | rest | more of method, headers and query (method counts once, every header and parameter once) |
//! | tie | earlier in the file; files of a directory are in name order |
//!
//! A regex comes before prefixes and after exact paths, as in nginx: `path_prefix: /` on the same host does
//! not hide it. Regexes of one host are tried by number of matchers, then in file order.
//!
//! `path_prefix: /api` matches `/api` and whatever follows `/api/`; `/api/` only what begins with it, and is the
//! longer of the two.
//!
//! When the most specific candidate fails on its method, headers or query, the next one is tried, down to
//! other paths and other hosts: a route for `POST` on a host does not hide what a wildcard says of `GET`.
//!
//! Left out on purpose: method `GET` does not stand for `HEAD`; list both.
//!
//! Everything but regexes is found by hashing (host names, whole paths, and those prefixes of the path whose
//! length occurs at all), so a decision takes the same time with ten routes and with a hundred thousand.

use std::collections::{BTreeMap, HashMap};

use super::conditions::Conditions;
use super::patterns::{Patterns, PatternsBuilder};
use super::table::{CompiledRoute, RouteIdx, Table};
use crate::config::model::HostMatch;

/// Keys come from the configuration, so nobody outside can make them collide: a fast hash with a fixed seed.
pub(super) type Map<V> = HashMap<Box<str>, V, foldhash::fast::FixedState>;

#[derive(Debug, Default)]
pub struct Matcher {
    /// The paths of each host.
    exact: Map<Patterns>,
    /// `*.example.com` under `example.com`.
    wildcards: Map<Patterns>,
    wildcard_lengths: Lengths,
    any: Option<Patterns>,
    /// Routes that share host and path, each group by number of matchers.
    candidates: Box<[Candidate]>,
    conditions: Box<[Conditions]>,
}

/// What of a request routing looks at. Borrowed, nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    pub method: &'a http::Method,
    /// Lower case, without port; empty when there is none.
    pub host: &'a str,
    /// Normalised (see [`super::path`]), without query.
    pub path: &'a str,
    /// Without the `?`; `None` when there is none.
    pub query: Option<&'a str>,
    pub headers: &'a http::HeaderMap,
}

impl Table {
    /// `None`: nothing matches, 404.
    pub fn route(&self, request: &RequestView<'_>) -> Option<RouteIdx> {
        self.matcher.route(request)
    }
}

/// One route of a group.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    route: RouteIdx,
    /// Index of its conditions; `None`: none, it matches.
    conditions: Option<u32>,
}

/// The routes of one host and path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Group {
    #[default]
    Nobody,
    /// The common case, answered without another look-up.
    Always(RouteIdx),
    Some {
        start: u32,
        count: u32,
    },
}

impl Matcher {
    fn route(&self, request: &RequestView<'_>) -> Option<RouteIdx> {
        let host = request.host;
        if let Some(paths) = self.exact.get(host)
            && let Some(route) = self.within(paths, request)
        {
            return Some(route);
        }
        if !self.wildcards.is_empty() {
            for (dot, _) in host.match_indices('.') {
                let parent = &host[dot + 1..];
                if dot > 0
                    && self.wildcard_lengths.contains(parent.len())
                    && let Some(paths) = self.wildcards.get(parent)
                    && let Some(route) = self.within(paths, request)
                {
                    return Some(route);
                }
            }
        }
        self.within(self.any.as_ref()?, request)
    }

    fn within(&self, paths: &Patterns, request: &RequestView<'_>) -> Option<RouteIdx> {
        paths.find(request.path, |group| self.first(group, request))
    }

    /// The first route of a group whose conditions hold.
    fn first(&self, group: Group, request: &RequestView<'_>) -> Option<RouteIdx> {
        match group {
            Group::Nobody => None,
            Group::Always(route) => Some(route),
            Group::Some { start, count } => {
                let candidates = &self.candidates[start as usize..(start + count) as usize];
                let holds = |candidate: &&Candidate| match candidate.conditions {
                    None => true,
                    Some(at) => self.conditions[at as usize].hold(request),
                };
                candidates.iter().find(holds).map(|candidate| candidate.route)
            }
        }
    }
}

/// Collects candidates and conditions while the patterns of all hosts are built.
#[derive(Debug, Default)]
pub(super) struct Groups {
    candidates: Vec<Candidate>,
    conditions: Vec<Conditions>,
}

impl Groups {
    /// `routes` in file order.
    pub(super) fn add(&mut self, all: &[CompiledRoute], mut routes: Vec<RouteIdx>) -> Group {
        let weight = |idx: &RouteIdx| Conditions::count(&all[idx.0 as usize].route.matcher);
        routes.sort_by_key(|idx| std::cmp::Reverse(weight(idx)));
        if let [only, ..] = *routes
            && weight(&only) == 0
        {
            return Group::Always(only);
        }
        let start = self.candidates.len() as u32;
        for &route in &routes {
            let conditions = Conditions::of(&all[route.0 as usize].route.matcher);
            let conditions = conditions.map(|conditions| {
                self.conditions.push(conditions);
                self.conditions.len() as u32 - 1
            });
            self.candidates.push(Candidate { route, conditions });
            if conditions.is_none() {
                break; // what follows has no conditions either and can never win
            }
        }
        Group::Some { start, count: self.candidates.len() as u32 - start }
    }
}

/// Index of a regex that cannot be compiled, and why.
pub(super) type BadRegex = (RouteIdx, regex::Error);

pub(super) fn build(routes: &[CompiledRoute]) -> Result<Matcher, BadRegex> {
    let mut hosts: BTreeMap<HostKey<'_>, PatternsBuilder<'_>> = BTreeMap::new();
    for (at, compiled) in routes.iter().enumerate() {
        let key = match &compiled.route.matcher.host {
            HostMatch::Exact(host) => HostKey::Exact(host),
            HostMatch::Wildcard(parent) => HostKey::Wildcard(parent),
            HostMatch::Any => HostKey::Any,
        };
        hosts.entry(key).or_default().add(RouteIdx(at as u32), &compiled.route.matcher.path);
    }
    let mut matcher = Matcher::default();
    let mut groups = Groups::default();
    let mut regexes = HashMap::new();
    for (key, builder) in hosts {
        let paths = builder.build(routes, &mut groups, &mut regexes)?;
        match key {
            HostKey::Exact(host) => drop(matcher.exact.insert(host.into(), paths)),
            HostKey::Wildcard(parent) => {
                matcher.wildcard_lengths.insert(parent.len());
                matcher.wildcards.insert(parent.into(), paths);
            }
            HostKey::Any => matcher.any = Some(paths),
        }
    }
    matcher.candidates = groups.candidates.into();
    matcher.conditions = groups.conditions.into();
    Ok(matcher)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum HostKey<'a> {
    Exact(&'a str),
    Wildcard(&'a str),
    Any,
}

/// Which lengths occur among the keys of a map: most look-ups that would find nothing are not made.
#[derive(Debug, Default)]
pub(super) struct Lengths(Vec<u64>);

impl Lengths {
    pub(super) fn insert(&mut self, length: usize) {
        if self.0.len() <= length / 64 {
            self.0.resize(length / 64 + 1, 0);
        }
        self.0[length / 64] |= 1 << (length % 64);
    }

    pub(super) fn contains(&self, length: usize) -> bool {
        self.0.get(length / 64).is_some_and(|word| word >> (length % 64) & 1 == 1)
    }

    /// No length above this one occurs.
    pub(super) fn bound(&self) -> usize {
        self.0.len() * 64
    }
}
