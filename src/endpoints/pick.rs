//! Which endpoint of a version serves a request.
//!
//! The method of the service names a favourite; it serves if it can: ready, not tried yet, below its limit, and
//! warmed up enough (`slow_start`). If not, the request goes to one of those that can, spread by weight, so that the
//! neighbour of a dead endpoint does not get twice its share. Each data thread counts its own turns; what the methods
//! compare are counters that are only read.

use std::cell::Cell;
use std::sync::Arc;

use super::balance::Order;
use super::group::{Group, Hashing, VersionRuntime};
use super::room::Place;
use super::share::Ready;
use super::state::{EndpointRuntime, Health, RAMP_WHOLE};
use crate::config::model::BalanceBy;
use crate::routing::Thread;
use crate::routing::hash::{mix64, scale};

/// What is asked for. Clock and chance are handed in.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub thread: Thread,
    /// Incarnations that this request has tried in vain.
    pub avoid: &'a [u64],
    /// Panic mode: rather one that is not ready than none.
    pub anyway: bool,
    /// What consistent hashing knows the request by.
    pub key: Option<u64>,
    pub now_ms: u64,
    /// A random number.
    pub luck: u64,
    /// The request has waited for a place: it may take one that others wait for.
    pub queued: bool,
}

impl Ask<'_> {
    pub fn new(thread: Thread, now_ms: u64, luck: u64) -> Ask<'static> {
        Ask { thread, avoid: &[], anyway: false, key: None, now_ms, luck, queued: false }
    }
}

/// Where a request goes. While this exists it holds its place there.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<EndpointRuntime>,
    pub place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpicked {
    /// No endpoint is ready; with `anyway`, nothing is resolved or everything was tried.
    Nothing,
    /// Some could serve, but each has as many exchanges as it may (`max_connections`).
    Full,
}

/// How often a place that another thread was faster to take is looked for again.
const RACES: u32 = 3;
/// So many points of a ring are walked before it is left.
const WALK_MAX: usize = 64;
/// So many are drawn then before everybody is asked.
const DRAWS_MAX: u64 = 32;

pub fn pick(version: &VersionRuntime, ask: &Ask<'_>) -> Result<Picked, Unpicked> {
    let group = version.now();
    let turn = version.core.turn(ask.thread);
    let chooser = Chooser { group: &group, version, ask, turn, ready: Cell::new(None) };
    let mut last = Unpicked::Nothing;
    for _ in 0..RACES {
        let index = chooser.choose()?;
        let endpoint = &group.endpoints[index];
        match endpoint.take_place() {
            Ok(place) => return Ok(Picked { endpoint: endpoint.clone(), place }),
            Err(()) => last = Unpicked::Full,
        }
    }
    Err(last)
}

struct Chooser<'a> {
    group: &'a Group,
    version: &'a VersionRuntime,
    ask: &'a Ask<'a>,
    turn: usize,
    /// Found out when it is needed.
    ready: Cell<Option<Ready>>,
}

impl Chooser<'_> {
    fn choose(&self) -> Result<usize, Unpicked> {
        let favourite = match &self.version.balance.by {
            BalanceBy::RoundRobin => self.in_turn(),
            BalanceBy::LeastRequest => self.better_of_two(|endpoint, _| endpoint.in_flight() as f64),
            BalanceBy::PeakEwma => {
                self.better_of_two(|endpoint, now_ms| endpoint.latency.cost(endpoint.in_flight(), now_ms))
            }
            BalanceBy::ConsistentHash(_) => match (self.ask.key, &self.group.hashing) {
                (Some(key), Some(hashing)) => return self.owner(key, hashing).map_or_else(|| self.whoever(), Ok),
                (None, _) | (_, None) => self.in_turn(),
            },
        };
        match favourite {
            Some(index) => Ok(index),
            None => self.whoever(),
        }
    }

    /// The one whose turn it is, if it can serve.
    fn in_turn(&self) -> Option<usize> {
        let order = &self.group.order;
        let index = order.at(self.turn.checked_rem(order.len())?);
        (self.can(index) && self.is_warm(index, self.ask.luck)).then_some(index)
    }

    /// Of two, drawn by weight, the one with less on it for its weight; the first if they are even.
    fn better_of_two(&self, load: impl Fn(&EndpointRuntime, u64) -> f64) -> Option<usize> {
        let order = &self.group.order;
        if order.len() == 0 {
            return None;
        }
        let draw = |nth: u64| scale(mix64(self.ask.luck.wrapping_add(nth)), order.len() as u64) as usize;
        let first = order.at(draw(0));
        let second = match order {
            Order::Even(1) => first,
            Order::Even(count) => {
                let other = scale(mix64(self.ask.luck.wrapping_add(1)), *count as u64 - 1) as usize;
                if other >= first { other + 1 } else { other }
            }
            // The heavy one is drawn again and again; a few draws find another.
            Order::Weighted(_) => (1..5).map(|nth| order.at(draw(nth))).find(|other| *other != first).unwrap_or(first),
        };
        let fits = |index: usize, salt: u64| self.can(index) && self.is_warm(index, mix64(self.ask.luck ^ salt));
        let load =
            |index: usize| load(&self.group.endpoints[index], self.ask.now_ms) / self.weight(index).max(1) as f64;
        match (fits(first, 0xA5), first != second && fits(second, 0x5A)) {
            (true, true) if load(second) < load(first) => Some(second),
            (true, _) => Some(first),
            (false, true) => Some(second),
            // Two of those that can, which asks everybody.
            (false, false) => {
                let draw = |salt| self.drawn(mix64(self.ask.luck ^ salt), |index| self.can(index));
                let (first, second) = (draw(0xC3)?, draw(0x96)?);
                Some(if load(second) < load(first) { second } else { first })
            }
        }
    }

    /// Whose the key is; the next on the ring if that one cannot serve, is not warm for this key, or has much more than
    /// its share.
    fn owner(&self, key: u64, hashing: &Hashing) -> Option<usize> {
        let lot = mix64(key ^ 0x5157_1257);
        let mut is_hot = false;
        for index in hashing.ring.owners(key).take(WALK_MAX) {
            if self.can(index) && self.is_warm(index, lot) {
                if self.has_less_than_its_share(index, hashing) {
                    return Some(index);
                }
                is_hot = true;
            }
        }
        // Many endpoints have all that they may have of these keys: where one more goes says nothing, but that it
        // finds room does. At least a fifth of the weight has some, so a few draws find it.
        if is_hot && let Some(index) = self.drawn_with_room(hashing) {
            return Some(index);
        }
        // Nearly nobody can, or is warm: who is wanted most of those that can.
        let those = || (0..self.group.endpoints.len()).filter(|index| self.can(*index));
        let wanted = |index: &usize| hashing.ring.affinity(key, *index);
        let first = those().max_by_key(wanted)?;
        if self.has_less_than_its_share(first, hashing) {
            return Some(first);
        }
        // Somebody has room, if everybody can and what is known is not too old.
        let ready = hashing.shares.look(self.ask.thread, self.ask.now_ms, || self.added_up());
        self.ready.set(Some(ready));
        those().max_by_key(|index| (self.has_less_than_its_share(*index, hashing), wanted(index)))
    }

    fn drawn_with_room(&self, hashing: &Hashing) -> Option<usize> {
        let order = &self.group.order;
        let lucks = (0..DRAWS_MAX).map(|nth| mix64(self.ask.luck.wrapping_add(nth)));
        let mut drawn = lucks.map(|luck| (order.at(scale(luck, order.len() as u64) as usize), mix64(luck ^ 0x69)));
        let fits = |(index, lot): &(usize, u64)| {
            self.can(*index) && self.is_warm(*index, *lot) && self.has_less_than_its_share(*index, hashing)
        };
        drawn.find(fits).map(|(index, _)| index)
    }

    fn has_less_than_its_share(&self, index: usize, hashing: &Hashing) -> bool {
        let its = self.group.endpoints[index].in_flight();
        if its == 0 {
            return true;
        }
        let known = || hashing.shares.ready(self.ask.thread, self.ask.now_ms, || self.added_up());
        let ready = self.ready.get().unwrap_or_else(known);
        self.ready.set(Some(ready));
        ready.lets(its, self.group.weights[index])
    }

    /// What all ready endpoints have, one by one.
    fn added_up(&self) -> Ready {
        let mut sum = Ready { in_flight: 0, weights: 0 };
        for (endpoint, weight) in self.group.endpoints.iter().zip(&self.group.weights) {
            if endpoint.is_ready() {
                sum.in_flight += endpoint.in_flight();
                sum.weights += u64::from(*weight);
            }
        }
        sum
    }

    /// Any of those that can serve; then, in panic mode, of those that cannot.
    fn whoever(&self) -> Result<usize, Unpicked> {
        let untried = |endpoint: &EndpointRuntime| !self.ask.avoid.contains(&endpoint.incarnation);
        let ready = |endpoint: &EndpointRuntime| endpoint.is_ready() && untried(endpoint);
        if let Some(index) = self.any_of(|endpoint| ready(endpoint) && endpoint.has_place(self.ask.queued)) {
            return Ok(index);
        }
        let endpoints = &self.group.endpoints;
        if endpoints.iter().any(|endpoint| ready(endpoint)) {
            return Err(Unpicked::Full);
        }
        if !self.ask.anyway {
            return Err(Unpicked::Nothing);
        }
        let usable = |endpoint: &EndpointRuntime| endpoint.is_resolved() && untried(endpoint);
        let least = endpoints.iter().filter(|it| usable(it)).map(|it| badness(it)).min().ok_or(Unpicked::Nothing)?;
        let fit = |endpoint: &EndpointRuntime| usable(endpoint) && badness(endpoint) == least;
        self.any_of(|endpoint| fit(endpoint) && endpoint.has_place(self.ask.queued)).ok_or(Unpicked::Full)
    }

    /// One of those that are `fit`: by turns if all weigh the same, else drawn by weight.
    fn any_of(&self, fit: impl Fn(&EndpointRuntime) -> bool) -> Option<usize> {
        let endpoints = &self.group.endpoints;
        let fit = |index: usize| fit(&endpoints[index]);
        if !matches!(self.group.order, Order::Even(_)) || !self.version.balance.slow_start.is_zero() {
            return self.drawn(mix64(self.ask.luck ^ 0x3C), fit);
        }
        let count = (0..endpoints.len()).filter(|index| fit(*index)).count();
        // Rounds, not turns: the turns of a dead endpoint come once a round.
        let nth = (self.turn / endpoints.len().max(1) + self.ask.avoid.len()).checked_rem(count)?;
        // Health may change between the two passes: then the last fit one is taken.
        (0..endpoints.len()).filter(|index| fit(*index)).take(nth + 1).last()
    }

    /// One of those that are `fit`, by weight.
    fn drawn(&self, luck: u64, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let fit = || (0..self.group.endpoints.len()).filter(|index| fit(*index));
        let mut left = scale(luck, fit().map(|index| self.weight(index)).sum());
        let mut found = None;
        for index in fit() {
            found = Some(index);
            match left.checked_sub(self.weight(index)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        found
    }

    /// It may have the request, as far as itself is concerned.
    fn can(&self, index: usize) -> bool {
        let endpoint = &self.group.endpoints[index];
        endpoint.is_ready() && !self.ask.avoid.contains(&endpoint.incarnation) && endpoint.has_place(self.ask.queued)
    }

    /// Whether the lot lets it have this request although it is new.
    fn is_warm(&self, index: usize, lot: u64) -> bool {
        let slow_start = self.version.balance.slow_start;
        slow_start.is_zero() || scale(lot, RAMP_WHOLE) < self.group.endpoints[index].ramp(self.ask.now_ms, slow_start)
    }

    /// With what it has grown to.
    fn weight(&self, index: usize) -> u64 {
        let ramp = self.group.endpoints[index].ramp(self.ask.now_ms, self.version.balance.slow_start);
        u64::from(self.group.weights[index]) * ramp
    }
}

/// The order in which endpoints are used that should not be: one that answers wrongly may still answer
/// some requests, one that does not answer at all surely none.
fn badness(endpoint: &EndpointRuntime) -> u8 {
    match (endpoint.health(), endpoint.is_ejected()) {
        (Health::Unchecked | Health::Healthy, false) => 0,
        (Health::Failing, false) => 1,
        (Health::Unknown, false) => 2,
        (Health::Unchecked | Health::Healthy | Health::Failing | Health::Unknown, true) => 3,
        (Health::Down, _) => 4,
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pick_share_tests.rs"]
mod share_tests;
