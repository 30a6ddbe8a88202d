//! Times of day and moments, always UTC. Dates by the algorithm "days from civil" (Howard Hinnant,
//! chrono-compatible low-level date algorithms); no leap seconds, as in RFC 3339 section 5.6 with `Z`.

const DAY_MS: u64 = 86_400_000;

/// `16:00` as minutes since midnight; `24:00` is the end of the day.
pub fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)? as u16, digits(minutes, 2)? as u16);
    let whole = hours * 60 + minutes;
    (minutes < 60 && whole <= 24 * 60).then_some(whole)
}

/// As the user would write it.
pub fn write_minutes(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// `2026-12-20T00:00Z`, seconds and their thousandths optional, an offset instead of `Z` allowed:
/// milliseconds since 1970. The error says what is wrong.
pub fn parse_date(text: &str) -> Result<u64, &'static str> {
    const WHY: &str = "write date, time and `Z` for UTC: `2026-12-20T00:00Z`";
    let (date, time) = text.split_once(['T', 't', ' ']).ok_or(WHY)?;
    let mut parts = date.splitn(3, '-');
    let mut part = |len| parts.next().and_then(|part| digits(part, len)).ok_or(WHY);
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return Err("there is no such day");
    }
    if year < 1970 {
        return Err("it must be in 1970 or later");
    }
    let (time, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return Err("it does not say which time zone: end it with `Z` for UTC"),
    };
    let offset: i64 = match offset {
        "Z" | "z" => 0,
        _ => {
            let minutes = offset.get(1..).and_then(parse_minutes).filter(|minutes| *minutes < 24 * 60).ok_or(WHY)?;
            if offset.starts_with('-') { -i64::from(minutes) } else { i64::from(minutes) }
        }
    };
    let (minutes, seconds) = match time.match_indices(':').nth(1) {
        Some((at, _)) => (&time[..at], &time[at + 1..]),
        None => (time, "00"),
    };
    let minutes = parse_minutes(minutes).filter(|minutes| *minutes < 24 * 60).ok_or("there is no such time of day")?;
    let (seconds, thousandths) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let seconds = digits(seconds, 2).filter(|seconds| *seconds < 60).ok_or("there is no such time of day")?;
    if thousandths.is_empty() || thousandths.len() > 3 || !thousandths.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("seconds have at most three decimals");
    }
    let thousandths = digits(&format!("{thousandths:0<3}"), 3).ok_or(WHY)?;
    let of_day = u64::from(minutes) * 60_000 + u64::from(seconds) * 1_000 + u64::from(thousandths);
    let local = days_since_1970(year, month, day) * DAY_MS + of_day;
    local.checked_add_signed(-offset * 60_000).ok_or("it must be in 1970 or later")
}

/// As [`parse_date`] reads it, in UTC.
pub fn write_date(ms: u64) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let of_day = ms % DAY_MS;
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    let rest = match (seconds, of_day % 1_000) {
        (0, 0) => String::new(),
        (_, 0) => format!(":{seconds:02}"),
        (_, thousandths) => format!(":{seconds:02}.{thousandths:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}{rest}Z")
}

/// By RFC 3339 with seconds and milliseconds, as other systems want it.
pub fn rfc3339(ms: u64) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let of_day = ms % DAY_MS;
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", of_day % 1_000)
}

/// Exactly this many digits.
fn digits(text: &str, len: usize) -> Option<u32> {
    (text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn days_of(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of a day in 1970 or later. Years are taken to begin in March, so that the leap day is the last.
fn days_since_1970(year: u32, month: u32, day: u32) -> u64 {
    let year = u64::from(if month <= 2 { year - 1 } else { year });
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * u64::from((month + 9) % 12) + 2) / 5 + u64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day; the inverse of [`days_since_1970`].
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_milliseconds_since_1970() {
        for (text, ms) in [
            ("1970-01-01T00:00Z", 0),
            ("2000-02-29T12:00Z", 951_825_600_000),
            ("2026-12-20T00:00Z", 1_797_724_800_000),
            ("2027-01-02T23:59:58.007Z", 1_798_934_398_007),
        ] {
            assert_eq!(parse_date(text), Ok(ms), "{text}");
            assert_eq!(write_date(ms), text);
        }
        assert_eq!(parse_date("2026-12-20T02:00+02:00"), parse_date("2026-12-20T00:00:00Z"));
        assert_eq!(parse_date("2026-12-19T19:00:00.000-05:00"), parse_date("2026-12-20T00:00Z"));
    }

    #[test]
    fn every_day_is_written_as_it_is_read() {
        // More than 400 years: the calendar repeats after that.
        for day in 0..160_000_u64 {
            let ms = day * DAY_MS + day % DAY_MS;
            assert_eq!(parse_date(&write_date(ms)), Ok(ms), "{day}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for (text, why) in [
            ("2026-12-20", "write date"),
            ("2026-12-20T00:00", "time zone"),
            ("2026-13-01T00:00Z", "no such day"),
            ("2026-02-29T00:00Z", "no such day"),
            ("2026-02-00T00:00Z", "no such day"),
            ("2026-02-01T24:00Z", "no such time"),
            ("2026-02-01T10:00:60Z", "no such time"),
            ("2026-02-01T10:00:00.1234Z", "three decimals"),
            ("2026-02-01T10:00+2", "write date"),
            ("1969-12-31T00:00Z", "1970"),
            ("1970-01-01T00:00+01:00", "1970"),
            ("26-02-01T10:00Z", "write date"),
            ("tomorrow", "write date"),
            ("2026-02-01T10:00+é", "write date"),
        ] {
            let wrong = parse_date(text).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }

    #[test]
    fn the_day_ends_at_24() {
        for (text, minutes) in [("00:00", Some(0)), ("16:05", Some(965)), ("24:00", Some(1440)), ("24:01", None)] {
            assert_eq!(parse_minutes(text), minutes, "{text}");
        }
        for text in ["4:00", "12:60", "12", "12:0", "-1:00", "25:00", ""] {
            assert_eq!(parse_minutes(text), None, "{text}");
        }
        assert_eq!(write_minutes(965), "16:05");
    }
}
