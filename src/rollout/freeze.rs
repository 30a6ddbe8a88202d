//! Stretches of time in which nothing moves forward.

use crate::config::model::{Freeze, Weekday};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Whether one of the windows is open; all of them are in UTC.
pub fn is_frozen(windows: &[Freeze], unix_ms: u64) -> bool {
    windows.iter().any(|window| match window {
        Freeze::Dates { from_ms, to_ms } => (*from_ms..*to_ms).contains(&unix_ms),
        Freeze::Weekly { days, from, to } => {
            let minute = (unix_ms % DAY_MS / 60_000) as u16;
            days.contains(&weekday(unix_ms)) && (*from..*to).contains(&minute)
        }
    })
}

fn weekday(unix_ms: u64) -> Weekday {
    // The first of January 1970 was a Thursday.
    match (unix_ms / DAY_MS + 3) % 7 {
        0 => Weekday::Monday,
        1 => Weekday::Tuesday,
        2 => Weekday::Wednesday,
        3 => Weekday::Thursday,
        4 => Weekday::Friday,
        5 => Weekday::Saturday,
        _ => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-25 10:00 UTC, a Wednesday.
    const WEDNESDAY: u64 = 1_795_600_800_000;

    #[test]
    fn a_weekly_window_is_open_on_its_days_and_minutes_only() {
        let window = |days: &[Weekday], from, to| [Freeze::Weekly { days: days.to_vec(), from, to }];
        for (days, from, to, open) in [
            (&[Weekday::Wednesday][..], 600, 601, true),
            (&[Weekday::Wednesday], 0, 600, false),
            (&[Weekday::Tuesday, Weekday::Thursday], 0, 1440, false),
        ] {
            assert_eq!(is_frozen(&window(days, from, to), WEDNESDAY), open, "{days:?} {from}-{to}");
        }
    }

    #[test]
    fn dates_hold_their_beginning_and_not_their_end() {
        let window = [Freeze::Dates { from_ms: 1_000, to_ms: 2_000 }];
        let open: Vec<bool> = [999, 1_000, 1_999, 2_000].map(|at| is_frozen(&window, at)).to_vec();
        assert_eq!(open, [false, true, true, false]);
    }
}
