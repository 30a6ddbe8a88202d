//! A story of unknown length in a bounded number of points: when it is full, every second point goes and the rest are
//! twice as far apart.

use serde::{Deserialize, Serialize};

/// Points at most.
const FULL: usize = 720;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series<P> {
    /// Milliseconds that lie between two points at least.
    apart: u64,
    /// With their times, oldest first.
    points: Vec<(u64, P)>,
}

impl<P> Series<P> {
    /// `apart`: milliseconds between two points as long as it is short; above 0.
    pub fn new(apart: u64) -> Series<P> {
        Series { apart: apart.max(1), points: Vec::new() }
    }

    /// Whether a point at that time is far enough from the last.
    pub fn is_due(&self, at: u64) -> bool {
        self.points.last().is_none_or(|(last, _)| at >= last.saturating_add(self.apart))
    }

    /// Adds a point, whether it is due or not. Time never goes back, even if a clock does.
    pub fn push(&mut self, at: u64, point: P) {
        let at = self.points.last().map_or(at, |(last, _)| at.max(*last));
        self.points.push((at, point));
        if self.points.len() > FULL {
            self.apart = self.apart.saturating_mul(2);
            let newest = self.points.len() - 1;
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                (nth - 1) % 2 == 0 || nth - 1 == newest
            });
        }
    }

    pub fn points(&self) -> impl ExactSizeIterator<Item = &(u64, P)> {
        self.points.iter()
    }

    pub fn apart(&self) -> u64 {
        self.apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_fits_as_a_minute_does() {
        let mut series = Series::new(1_000);
        for second in 0..100_000_u64 {
            if series.is_due(second * 1_000) {
                series.push(second * 1_000, second);
            }
            assert!(series.points().len() <= FULL);
        }
        let points: Vec<u64> = series.points().map(|(_, point)| *point).collect();
        assert!(points.len() > FULL / 3, "{} points", points.len());
        assert_eq!(points[0], 0, "it begins where it began");
        assert!(*points.last().expect("some") > 99_000, "and is up to date");
        let gaps: Vec<u64> = points.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| gap * 1_000 >= series.apart() / 2), "even: {gaps:?}");
    }

    #[test]
    fn the_newest_point_is_never_the_one_that_goes() {
        let mut series = Series::new(1);
        for at in 0..5_000_u64 {
            series.push(at, at);
            assert_eq!(series.points().last(), Some(&(at, at)));
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_turn_the_story_around() {
        let mut series = Series::new(1_000);
        series.push(10_000, "a");
        assert!(!series.is_due(5_000));
        series.push(5_000, "b");
        assert_eq!(series.points().copied().collect::<Vec<_>>(), [(10_000, "a"), (10_000, "b")]);
    }
}
