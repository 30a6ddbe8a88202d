//! Values with a unit: times, sizes, percentages.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};

/// A span of time of at least `MIN` milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time<const MIN: u64>(pub Duration);

const YEAR_MS: u64 = 365 * 24 * 3_600_000;
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl<const MIN: u64> Scalar for Time<MIN> {
    const KIND: &'static str = "a duration";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write a whole number and a unit, such as `250ms`, `30s`, `5m`, `1h` or `1d`";
        let (number, unit) = split_unit(text);
        if unit.is_empty() && !number.is_empty() {
            return Err(Wrong::because(WHY).hint(format!("did you mean `{number}s`?")));
        }
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
            return Err(Wrong::because(WHY));
        };
        match number.checked_mul(factor) {
            Some(ms) if (MIN..=YEAR_MS).contains(&ms) => Ok(Self(Duration::from_millis(ms))),
            _ => Err(Wrong::because(format!("it must be from {MIN}ms to 365d"))),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

/// A span of time in the format's spelling, for other places than the file.
pub fn parse_time(text: &str) -> Option<Duration> {
    Time::<0>::parse(text).ok().map(|time| time.0)
}

/// As the user would write it.
pub fn write_time(time: Duration) -> String {
    let ms = time.as_millis() as u64;
    let best = TIME_UNITS.iter().rev().find(|(_, factor)| ms.is_multiple_of(*factor));
    match best {
        Some((unit, factor)) if ms > 0 => format!("{}{unit}", ms / factor),
        Some(_) | None => format!("{ms}s"),
    }
}

/// A number of bytes with its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl<const MIN: u64, const MAX: u64> Scalar for Size<MIN, MAX> {
    const KIND: &'static str = "a size";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write a whole number and a unit, such as `512B`, `64KiB`, `10MiB` or `1GiB`";
        let (number, unit) = split_unit(text);
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let Some(factor) = factor else {
            let near = SIZE_UNITS.iter().find(|(name, _)| {
                unit.as_bytes().first().is_some_and(|first| first.eq_ignore_ascii_case(&name.as_bytes()[0]))
            });
            return Err(match near {
                Some((name, _)) if !number.is_empty() => {
                    Wrong::because(WHY).hint(format!("did you mean `{number}{name}`?"))
                }
                _ if !number.is_empty() && unit.is_empty() => {
                    Wrong::because(WHY).hint(format!("did you mean `{number}B`?"))
                }
                _ => Wrong::because(WHY),
            });
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(bytes) if (MIN..=MAX).contains(&bytes) => Ok(Self(bytes)),
            Some(_) => Err(Wrong::because(format!("it must be from {} to {}", write_size(MIN), write_size(MAX)))),
            None => Err(Wrong::because(WHY)),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" })
    }
}

/// As the user would write it.
pub fn write_size(bytes: u64) -> String {
    let best = SIZE_UNITS.iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor));
    match best {
        Some((unit, factor)) if bytes > 0 => format!("{}{unit}", bytes / factor),
        Some(_) | None => format!("{bytes}B"),
    }
}

/// A size or `unlimited`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyLimit(pub Option<u64>);

type BodySize = Size<0, { 1 << 50 }>;

impl Scalar for BodyLimit {
    const KIND: &'static str = "a size or `unlimited`";
    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "unlimited" {
            return Ok(Self(None));
        }
        BodySize::parse(text).map(|size| Self(Some(size.0)))
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+(B|KiB|MiB|GiB|TiB)|unlimited)$" })
    }
}

/// Hundredths of a percent, 0 to 10 000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percent(pub u32);

impl Scalar for Percent {
    const KIND: &'static str = "a percentage";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write `0%` to `100%`, with at most two decimals";
        let Some(number) = text.strip_suffix('%') else {
            let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            return Err(if bare {
                Wrong::because(WHY).hint(format!("did you mean `{text}%`?"))
            } else {
                Wrong::because(WHY)
            });
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 || whole.len() > 3 {
            return Err(Wrong::because(WHY));
        }
        let whole: u32 = whole.parse().expect("up to three digits fit");
        let hundredths: u32 = format!("{decimals:0<2}").parse().expect("two digits fit");
        let value = whole * 100 + hundredths;
        if value > 10_000 { Err(Wrong::because(WHY)) } else { Ok(Self(value)) }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,2})?%$" })
    }
}

/// As the user would write it.
pub fn write_percent(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}%"),
        (whole, part) => format!("{whole}.{part:02}%"),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for (text, ms) in
            [("0s", 0), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("90s", 90_000)]
        {
            assert_eq!(Time::<0>::parse(text).unwrap().0, Duration::from_millis(ms), "{text}");
            assert_eq!(write_time(Duration::from_millis(ms)), text);
        }
        for text in ["", "30", "1.5s", "-1s", "1 week", "1M", "366d", "99999999999999999999s"] {
            assert!(Time::<0>::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_and_say_so() {
        assert_eq!(Size::<0, 1_000_000>::parse("64KiB").unwrap().0, 65_536);
        for (text, hint) in
            [("64KB", "did you mean `64KiB`?"), ("64k", "did you mean `64KiB`?"), ("64", "did you mean `64B`?")]
        {
            assert_eq!(Size::<0, 1_000_000>::parse(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
        for text in ["3Σ", "3é", "3\u{212a}iB", "Σ", ""] {
            assert_eq!(Size::<0, 1_000_000>::parse(text).unwrap_err().hint, None, "{text}");
        }
        assert_eq!(write_size(65_536), "64KiB");
        assert_eq!(write_size(1_000), "1000B");
    }

    #[test]
    fn percentages_have_two_decimals() {
        for (text, hundredths) in [("0%", 0), ("5%", 500), ("0.1%", 10), ("12.34%", 1_234), ("100%", 10_000)] {
            assert_eq!(Percent::parse(text).unwrap().0, hundredths, "{text}");
        }
        for text in ["", "%", "5", "101%", "1.234%", "-1%", "1.%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
        assert_eq!(write_percent(1_205), "12.05%");
    }
}
