//! The path patterns of one host: exact, then regex, then the longest prefix, then any.
//!
//! A regex keeps its scratch memory in a pool of its own. Data threads find theirs in different corners of it,
//! so they do not wait for each other, but it is more than a look-up: hosts without regexes never touch one.

use std::collections::{BTreeMap, HashMap};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::conditions::Conditions;
use super::matcher::{BadRegex, Group, Groups, Lengths, Map};
use super::table::{CompiledRoute, RouteIdx};
use crate::config::model::PathMatch;

/// From this many regexes of one host on, one automaton runs for all of them instead of one each. It costs
/// an allocation per request.
const SET_FROM: usize = 9;

/// Bytes one compiled regex, or the set of a host, may take.
const REGEX_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Patterns {
    /// `path_prefix: /`, kept apart because most hosts have nothing else.
    root: Group,
    any: Group,
    deeper: Option<Box<Deeper>>,
}

#[derive(Debug, Default)]
struct Deeper {
    exact: Map<Group>,
    regexes: Vec<(Regex, Group)>,
    set: Option<RegexSet>,
    prefixes: Map<Group>,
    prefix_lengths: Lengths,
}

impl Patterns {
    /// Offers the groups whose pattern matches, most specific first, until one has an answer.
    pub(super) fn find<T>(&self, path: &str, answer: impl Fn(Group) -> Option<T>) -> Option<T> {
        if let Some(deeper) = &self.deeper
            && let Some(found) = deeper.find(path, &answer)
        {
            return Some(found);
        }
        let root = path.starts_with('/').then(|| answer(self.root)).flatten();
        root.or_else(|| answer(self.any))
    }
}

impl Deeper {
    fn find<T>(&self, path: &str, answer: &impl Fn(Group) -> Option<T>) -> Option<T> {
        if !self.exact.is_empty()
            && let Some(&group) = self.exact.get(path)
            && let Some(found) = answer(group)
        {
            return Some(found);
        }
        if let Some(set) = &self.set {
            // In order of the list, which is the order of precedence.
            if let Some(found) = set.matches(path).iter().find_map(|at| answer(self.regexes[at].1)) {
                return Some(found);
            }
        } else {
            let matching = self.regexes.iter().filter(|(regex, _)| regex.is_match(path));
            if let Some(found) = matching.into_iter().find_map(|(_, group)| answer(*group)) {
                return Some(found);
            }
        }
        if self.prefixes.is_empty() { None } else { self.longest_prefix(path, answer) }
    }

    /// Tries the path as a whole, then every part of it that ends before or behind a slash, longest first.
    fn longest_prefix<T>(&self, path: &str, answer: &impl Fn(Group) -> Option<T>) -> Option<T> {
        let look_up = |end: usize| {
            if !self.prefix_lengths.contains(end) {
                return None;
            }
            self.prefixes.get(&path[..end]).and_then(|&group| answer(group))
        };
        if let Some(found) = look_up(path.len()) {
            return Some(found);
        }
        let bytes = path.as_bytes();
        let mut end = bytes.len().min(self.prefix_lengths.bound() + 1);
        while let Some(slash) = bytes[..end].iter().rposition(|&byte| byte == b'/') {
            if slash + 1 < bytes.len()
                && let Some(found) = look_up(slash + 1)
            {
                return Some(found);
            }
            if let Some(found) = look_up(slash) {
                return Some(found);
            }
            end = slash;
        }
        None
    }
}

#[derive(Default)]
pub(super) struct PatternsBuilder<'a> {
    exact: BTreeMap<&'a str, Vec<RouteIdx>>,
    prefix: BTreeMap<&'a str, Vec<RouteIdx>>,
    regex: Vec<(RouteIdx, &'a str)>,
    any: Vec<RouteIdx>,
}

/// Many hosts use the same few regexes: each is compiled once.
pub(super) type Compiled<'a> = HashMap<&'a str, Regex>;

impl<'a> PatternsBuilder<'a> {
    /// To be called in file order.
    pub(super) fn add(&mut self, route: RouteIdx, path: &'a PathMatch) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path).or_default().push(route),
            PathMatch::Prefix(prefix) => self.prefix.entry(prefix).or_default().push(route),
            PathMatch::Regex(regex) => self.regex.push((route, regex)),
            PathMatch::Any => self.any.push(route),
        }
    }

    pub(super) fn build(
        mut self,
        routes: &[CompiledRoute],
        groups: &mut Groups,
        compiled: &mut Compiled<'a>,
    ) -> Result<Patterns, BadRegex> {
        let mut group = |idx: Vec<RouteIdx>| if idx.is_empty() { Group::Nobody } else { groups.add(routes, idx) };
        let root = group(self.prefix.remove("/").unwrap_or_default());
        let any = group(self.any);
        if self.exact.is_empty() && self.prefix.is_empty() && self.regex.is_empty() {
            return Ok(Patterns { root, any, deeper: None });
        }
        let mut deeper = Deeper::default();
        deeper.exact.reserve(self.exact.len());
        for (path, idx) in self.exact {
            deeper.exact.insert(path.into(), group(idx));
        }
        deeper.prefixes.reserve(self.prefix.len());
        for (prefix, idx) in self.prefix {
            deeper.prefix_lengths.insert(prefix.len());
            deeper.prefixes.insert(prefix.into(), group(idx));
        }
        // Each regex route is a group of its own: between two that match, matchers and file order decide.
        self.regex.sort_by_key(|(idx, _)| std::cmp::Reverse(Conditions::count(&routes[idx.0 as usize].route.matcher)));
        for &(idx, text) in &self.regex {
            let regex = match compiled.get(text) {
                Some(regex) => regex.clone(),
                None => {
                    let regex = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
                    let regex = regex.map_err(|error| (idx, error))?;
                    compiled.insert(text, regex.clone());
                    regex
                }
            };
            deeper.regexes.push((regex, group(vec![idx])));
        }
        if deeper.regexes.len() >= SET_FROM {
            // A set that is too large together is no error: its members are then tried one by one.
            let set = RegexSetBuilder::new(self.regex.iter().map(|(_, text)| text)).size_limit(REGEX_BYTES_MAX).build();
            deeper.set = set.ok();
        }
        Ok(Patterns { root, any, deeper: Some(Box::new(deeper)) })
    }
}
