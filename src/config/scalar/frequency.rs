//! How often something may happen.

use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};

/// A number and a time: `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frequency {
    pub count: NonZeroU32,
    pub per: Duration,
}

const COUNT_MAX: u32 = 1_000_000;
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl Scalar for Frequency {
    const KIND: &'static str = "a rate";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write a number from 1 to 1000000 and `/s`, `/m` or `/h`, such as `100/s`";
        let Some((count, unit)) = text.split_once('/') else {
            let bare = text.parse::<u32>().is_ok_and(|count| count > 0);
            let wrong = Wrong::because(WHY);
            return Err(if bare { wrong.hint(format!("did you mean `{text}/s`?")) } else { wrong });
        };
        let unit = match unit.trim() {
            "sec" | "second" => "s",
            "min" | "minute" => "m",
            "hour" => "h",
            unit => unit,
        };
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
        let plain = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|count: &NonZeroU32| plain && count.get() <= COUNT_MAX);
        match (count, seconds) {
            (Some(count), Some(seconds)) => Ok(Self { count, per: Duration::from_secs(seconds) }),
            (_, _) => Err(Wrong::because(WHY)),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+/(s|sec|second|m|min|minute|h|hour)$" })
    }
}

/// As the user would write it.
pub fn write_frequency(count: NonZeroU32, per: Duration) -> String {
    let unit = UNITS.iter().find(|(_, seconds)| *seconds == per.as_secs()).map_or("s", |(unit, _)| unit);
    format!("{count}/{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_they_are_read() {
        for text in ["1/s", "100/s", "10/m", "1000000/h"] {
            let rate = Frequency::parse(text).unwrap();
            assert_eq!(write_frequency(rate.count, rate.per), text);
        }
        assert_eq!(Frequency::parse("5/min"), Frequency::parse("5/m"));
        for text in ["", "100", "0/s", "1000001/s", "-1/s", "+1/s", "1.5/s", "100/d", "100/", "/s", "100 per second"] {
            assert!(Frequency::parse(text).is_err(), "{text}");
        }
        assert_eq!(Frequency::parse("100").unwrap_err().hint.as_deref(), Some("did you mean `100/s`?"));
    }
}
