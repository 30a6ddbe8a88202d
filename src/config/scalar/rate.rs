//! Rates and ratios: what guardrails compare with.

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};

/// A rate of bad answers, above 0 and below 1, written in percent with up to three decimals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// A hundred percent in the smallest steps that can be written.
const WHOLE: u32 = 100_000;

impl Default for Rate {
    fn default() -> Self {
        Self(0.5)
    }
}

impl Scalar for Rate {
    const KIND: &'static str = "a rate";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write a percentage above `0%` and below `100%`, with at most three decimals";
        let Some(number) = text.strip_suffix('%') else {
            return Err(match text.parse::<f64>() {
                Ok(part) if (0.00001..0.01).contains(&part) => {
                    Wrong::because(WHY).hint(format!("did you mean `{}`?", write_rate(part)))
                }
                Ok(number) if (0.01..100.0).contains(&number) => {
                    Wrong::because(WHY).hint(format!("did you mean `{number}%`?"))
                }
                Ok(_) | Err(_) => Wrong::because(WHY),
            });
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 3 {
            return Err(Wrong::because(WHY));
        }
        if decimals.len() > 3 {
            return Err(Wrong::because(WHY).hint("the smallest rate is `0.001%`: one request in 100 000"));
        }
        let whole: u32 = whole.parse().expect("up to three digits fit");
        let decimals: u32 = format!("{decimals:0<3}").parse().expect("three digits fit");
        match whole * 1_000 + decimals {
            0 => Err(Wrong::because("no number of requests proves that none will ever fail")
                .hint("the smallest rate is `0.001%`: one request in 100 000")),
            steps if steps >= WHOLE => {
                Err(Wrong::because("no version can fail more than all requests").hint("a rate is below `100%`"))
            }
            steps => Ok(Self(f64::from(steps) / f64::from(WHOLE))),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]{1,2}(\\.[0-9]{1,3})?%$" })
    }
}

/// As the user would write it.
pub fn write_rate(rate: f64) -> String {
    let steps = (rate * f64::from(WHOLE)).round() as u32;
    let text = format!("{}.{:03}", steps / 1_000, steps % 1_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A finite number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Number(pub f64);

impl Scalar for Number {
    const KIND: &'static str = "a number";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write a number such as `1.5`";
        let plain = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && plain => Ok(Self(number)),
            Ok(_) | Err(_) => Err(match text.strip_suffix('%').or(text.strip_suffix('x')) {
                Some(number) if number.parse::<f64>().is_ok() => {
                    Wrong::because(WHY).hint("it has no unit: 1.5 is one and a half times")
                }
                Some(_) | None => Wrong::because(WHY),
            }),
        }
    }
    fn shape() -> Json {
        json!({ "type": "number" })
    }
}

/// The quantile of a latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile(pub f64);

impl Default for Quantile {
    fn default() -> Self {
        Self(0.95)
    }
}

impl Scalar for Quantile {
    const KIND: &'static str = "a quantile";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "it is one of 0.5, 0.95 and 0.99";
        let near = match text.to_ascii_lowercase().as_str() {
            "p50" | "50" | "50%" | "median" => "0.5",
            "p95" | "95" | "95%" => "0.95",
            "p99" | "99" | "99%" => "0.99",
            _ => "",
        };
        match text.parse::<f64>() {
            Ok(quantile) if [0.5, 0.95, 0.99].contains(&quantile) => Ok(Self(quantile)),
            Ok(_) | Err(_) if near.is_empty() => Err(Wrong::because(WHY)),
            Ok(_) | Err(_) => Err(Wrong::because(WHY).hint(format!("did you mean `{near}`?"))),
        }
    }
    fn shape() -> Json {
        json!({ "enum": [0.5, 0.95, 0.99] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_they_are_read() {
        for (text, rate) in
            [("0.1%", 0.001), ("0.001%", 0.000_01), ("1%", 0.01), ("12.5%", 0.125), ("99.999%", 0.99999)]
        {
            assert_eq!(Rate::parse(text), Ok(Rate(rate)), "{text}");
            assert_eq!(write_rate(rate), text);
        }
        for steps in 1..WHOLE {
            let rate = Rate(f64::from(steps) / f64::from(WHOLE));
            assert_eq!(Rate::parse(&write_rate(rate.0)), Ok(rate), "{steps}");
        }
    }

    #[test]
    fn a_rate_that_means_nothing_is_refused() {
        for text in ["", "%", "0%", "0.000%", "100%", "250%", "0.0001%", "-1%", "1.%", ".5%", "1e-3%"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
        for (text, hint) in [("0.001", "did you mean `0.1%`?"), ("1", "did you mean `1%`?")] {
            assert_eq!(Rate::parse(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
    }

    #[test]
    fn numbers_are_finite_and_plain() {
        assert_eq!(Number::parse("1.5"), Ok(Number(1.5)));
        assert_eq!(Number::parse("-2e3"), Ok(Number(-2000.0)));
        for text in ["", "NaN", "inf", "-inf", "1e999", "1.5x", "50%", "a"] {
            assert!(Number::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantiles_are_three() {
        assert_eq!(Quantile::parse("0.950"), Ok(Quantile(0.95)));
        for (text, hint) in [("p95", Some("did you mean `0.95`?")), ("99", Some("did you mean `0.99`?")), ("0.9", None)]
        {
            assert_eq!(Quantile::parse(text).unwrap_err().hint.as_deref(), hint, "{text}");
        }
    }
}
