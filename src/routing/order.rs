//! The random but exact order in which weighted versions take their turns (invariant I6).
//!
//! A version of weight `w` out of `W` owns one *stratum* after the other, each `W/w` requests long, and is
//! picked exactly once in each. After `n` requests its count is then the share `n·w/W` rounded down or up,
//! so it is never off by a whole request. *Where* in its stratum it is picked is random: a fixed pattern
//! would meet the rhythm of periodic clients, and every twentieth request of a cron job would always hit
//! the canary, or never.
//!
//! With two versions one choice fixes the other and [`is_first`] is a formula. With more, two free
//! choices can leave a third version without a place before its stratum ends. [`Schedule`] therefore
//! draws a version and looks ahead: the draw stands if afterwards every stratum can still be served in
//! time. Picking the stratum that ends first is always such a choice (earliest deadline first), so there
//! is always one. Each look ahead is as long as the stratum it opens, which amortises to one step per
//! version and request.

use super::hash::{scale, stream};

/// Longest look ahead. Strata longer than this are only entered when less than this is left of them;
/// they need weights whose reduced sum is larger, which the configuration does not allow.
const LOOK_AHEAD_MAX: u32 = 1 << 16;

/// Draws before the earliest deadline decides.
const DRAWS: u64 = 4;

/// Whether request `turn` (from 0) goes to the version of weight `weight` out of `whole`, the rest going to
/// one other version. `whole` at most 2^31.
pub fn is_first(turn: u64, weight: u64, whole: u64, salt: u64) -> bool {
    if 2 * weight > whole {
        return !is_first(turn, whole - weight, whole, salt);
    }
    if weight == 0 {
        return false;
    }
    let (period, turn) = (turn / whole, turn % whole);
    let stratum = turn * weight / whole;
    let start = (stratum * whole).div_ceil(weight);
    let length = ((stratum + 1) * whole).div_ceil(weight) - start;
    let number = period.wrapping_mul(weight).wrapping_add(stratum);
    turn == start + scale(stream(salt, number.wrapping_add(1)), length)
}

/// One version's place in time.
#[derive(Debug, Clone, Copy)]
struct Lane {
    weight: u64,
    /// How far into the present stratum we are: requests so far times weight, modulo the whole.
    progress: u64,
    /// It has had its pick of the present stratum.
    served: bool,
}

impl Lane {
    /// One request goes by. Returns whether the stratum that ended with it was left unserved.
    fn step(&mut self, whole: u64, picked: bool) -> bool {
        self.progress += self.weight;
        let ended = self.progress >= whole;
        if !ended {
            self.served |= picked;
            return false;
        }
        self.progress -= whole;
        // A served lane that is picked again was picked for the stratum that begins inside this request.
        let missed = !self.served && !picked;
        self.served = self.served && picked;
        missed
    }

    /// Chance of being picked now, for a pick that is equally likely anywhere in its stratum; `None` if it
    /// may not be picked.
    fn wish(&self, whole: u64) -> Option<Wish> {
        if !self.served {
            return Some(Wish::Now(self.weight as f64 / (whole - self.progress) as f64));
        }
        let next = self.progress + self.weight;
        (next > whole).then(|| Wish::Early((next - whole) as f64 / whole as f64))
    }

    /// Its stratum ends with the present request and is unserved.
    fn is_due(&self, whole: u64) -> bool {
        !self.served && self.progress + self.weight >= whole
    }

    /// Requests until the stratum that the next pick would serve ends.
    fn deadline(&self, whole: u64) -> u64 {
        let left = if self.served { 2 * whole - self.progress } else { whole - self.progress };
        left.div_ceil(self.weight)
    }
}

/// How much a lane wants the present request.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// For its present stratum, with this chance.
    Now(f64),
    /// For the stratum that begins inside this request: only what the others leave, in this proportion.
    Early(f64),
}

/// The order of three or more versions, for one data thread.
#[derive(Debug)]
pub(super) struct Schedule {
    whole: u64,
    salt: u64,
    turn: u64,
    lanes: Vec<Lane>,
    /// Where the look ahead plays its future out.
    ahead: Vec<Lane>,
    /// A pick that could not be used and is due again.
    returned: Option<usize>,
}

impl Schedule {
    /// `weights` are all above 0 and sum to `whole`, at most 2^31.
    pub(super) fn new(weights: impl Iterator<Item = u64>, whole: u64, salt: u64) -> Schedule {
        let lanes: Vec<Lane> = weights.map(|weight| Lane { weight, progress: 0, served: false }).collect();
        Schedule { whole, salt, turn: 0, ahead: lanes.clone(), lanes, returned: None }
    }

    /// Index of the weight whose turn it is.
    pub(super) fn pick(&mut self) -> usize {
        if let Some(returned) = self.returned.take() {
            return returned;
        }
        let picked = self.due().or_else(|| self.draw()).unwrap_or_else(|| self.earliest());
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.step(self.whole, index == picked);
        }
        self.turn = self.turn.wrapping_add(1);
        picked
    }

    /// The last pick was not used: it comes again.
    pub(super) fn put_back(&mut self, picked: usize) {
        self.returned = Some(picked);
    }

    fn due(&self) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.is_due(self.whole))
    }

    fn draw(&mut self) -> Option<usize> {
        let (mut now, mut early) = (0.0, 0.0);
        for wish in self.lanes.iter().filter_map(|lane| lane.wish(self.whole)) {
            match wish {
                Wish::Now(chance) => now += chance,
                Wish::Early(part) => early += part,
            }
        }
        let scale_now = if now > 1.0 || early == 0.0 { 1.0 / now } else { 1.0 };
        let scale_early = (1.0 - now).max(0.0) / early;
        for draw in 0..DRAWS {
            let random = stream(self.salt, self.turn.wrapping_mul(DRAWS).wrapping_add(draw));
            let mut left = (random >> 11) as f64 / (1_u64 << 53) as f64;
            let drawn = self.lanes.iter().position(|lane| {
                left -= match lane.wish(self.whole) {
                    Some(Wish::Now(chance)) => chance * scale_now,
                    Some(Wish::Early(part)) => part * scale_early,
                    None => return false,
                };
                left < 0.0
            });
            if let Some(drawn) = drawn
                && self.leaves_time_for_all(drawn)
            {
                return Some(drawn);
            }
        }
        None
    }

    /// Whether every stratum can still be served in time after `picked`: up to any moment before the stratum
    /// of this pick ends, no more unserved strata end than there are requests.
    fn leaves_time_for_all(&mut self, picked: usize) -> bool {
        self.ahead.copy_from_slice(&self.lanes);
        for (index, lane) in self.ahead.iter_mut().enumerate() {
            lane.step(self.whole, index == picked);
        }
        let mut slack = 0_i64;
        for _ in 0..LOOK_AHEAD_MAX {
            slack += 1;
            for lane in &mut self.ahead {
                slack -= i64::from(lane.step(self.whole, false));
            }
            if !self.ahead[picked].served {
                return true;
            }
            if slack < 0 {
                return false;
            }
        }
        false
    }

    fn earliest(&self) -> usize {
        let open = self.lanes.iter().enumerate().filter(|(_, lane)| lane.wish(self.whole).is_some());
        open.min_by_key(|(_, lane)| lane.deadline(self.whole)).map_or(0, |(index, _)| index)
    }
}
