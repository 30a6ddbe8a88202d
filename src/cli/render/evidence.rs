//! Rates, quantiles and meters, as `status` and `rollout report` show them.

use comfy_table::Cell;

use super::{Tone, cell, paint};
use crate::analysis::{Counts, rate_interval};

/// Characters of a meter.
const WIDTH: usize = 12;

/// Titles of the columns that [`arm`] fills; the last is only in reports.
pub const ARM_TITLES: [&str; 7] = ["version", "requests", "failed", "rate (95 % sure)", "p50", "p95", "p99"];

/// A row for one version: what is in `cells`, then its quantiles.
pub fn arm(cells: Vec<String>, quantiles: &[Option<f64>], has_failed: bool) -> Vec<Cell> {
    let tone = if has_failed { Tone::Attention } else { Tone::Plain };
    let quantiles = quantiles.iter().map(|quantile| cell(ms(*quantile), Tone::Plain));
    let known = cells.into_iter().enumerate().map(|(at, text)| cell(text, if at == 2 { tone } else { Tone::Plain }));
    known.chain(quantiles).collect()
}

pub fn ms(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        Some(ms) if ms >= 100.0 => format!("{ms:.0} ms"),
        Some(ms) if ms >= 1.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.2} ms"),
    }
}

/// "9.76 % (3.86 to 22.5 %)", or "-" if nothing was seen.
pub fn rate(requests: u64, failures: u64) -> String {
    if requests == 0 {
        return "-".into();
    }
    let counts = Counts { total: requests, failed: failures };
    let (low, high) = rate_interval(counts);
    format!("{} % ({} to {} %)", percent(counts.rate()), percent(low), percent(high))
}

/// A part of 1 in percent with three digits, without the sign.
pub fn percent(part: f64) -> String {
    match part * 100.0 {
        0.0 => "0".into(),
        at if at < 0.001 => "<0.001".into(),
        at if at < 0.1 => format!("{at:.3}"),
        at if at < 10.0 => format!("{at:.2}"),
        at if at < 100.0 => format!("{at:.1}"),
        _ => "100".into(),
    }
}

/// A share of the traffic in percent, exact.
pub fn share(part: f64) -> String {
    format!("{} %", (part * 1e4).round() / 1e2)
}

/// A test's capital: it multiplies, so three digits say enough. Never more than it is: 199.6 of 200 is not there.
pub fn capital(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{:.0}", value.floor()),
    }
}

/// A meter: a test's capital on its way to its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub limit: f64,
    /// Said after the numbers: what is bet on, or what the limit is for.
    pub text: String,
    /// Full is bad.
    pub is_against: bool,
}

impl Bar {
    pub fn against(name: impl Into<String>, value: f64, limit: f64, text: impl Into<String>) -> Bar {
        Bar { name: name.into(), value, limit, text: text.into(), is_against: true }
    }

    pub fn favour(name: impl Into<String>, value: f64, limit: f64, text: impl Into<String>) -> Bar {
        Bar { name: name.into(), value, limit, text: text.into(), is_against: false }
    }

    /// 0 to 1. Logarithmic, because evidence multiplies: empty at 1, full at the limit.
    pub fn part(&self) -> f64 {
        (self.value.max(1.0).ln() / self.limit.ln()).clamp(0.0, 1.0)
    }

    pub fn line(&self, colour: bool) -> String {
        let full = (self.part() * WIDTH as f64).round() as usize;
        let tone = match (self.is_against, self.value >= self.limit) {
            (true, true) => Tone::Bad,
            (true, false) if self.part() >= 0.5 => Tone::Attention,
            (false, true) => Tone::Good,
            (true | false, false) => Tone::Plain,
        };
        let meter = paint(&format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full)), tone, colour);
        format!("{:<9} {meter} {} of {}{}", self.name, capital(self.value), self.limit, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        for (part, text) in
            [(0.0, "0"), (0.000_004, "<0.001"), (0.000_53, "0.053"), (0.0123, "1.23"), (0.225, "22.5"), (1.0, "100")]
        {
            assert_eq!(percent(part), text);
        }
        for (value, text) in [(0.034, "0.03"), (14.23, "14.2"), (199.6, "199"), (1812.4, "1812")] {
            assert_eq!(capital(value), text);
        }
        for (at, text) in [(None, "-"), (Some(0.123), "0.12 ms"), (Some(3.04), "3.0 ms"), (Some(12_345.0), "12.3 s")] {
            assert_eq!(ms(at), text);
        }
    }

    #[test]
    fn a_rate_says_how_well_it_is_known() {
        assert_eq!(rate(0, 0), "-");
        assert_eq!(rate(41, 4), "9.76 % (3.86 to 22.5 %)");
        assert_eq!(rate(20, 0), "0 % (0 to 16.1 %)");
    }

    #[test]
    fn a_meter_is_empty_at_one_and_full_at_its_limit() {
        for (value, part) in [(0.1, 0.0), (1.0, 0.0), (14.142_135, 0.5), (200.0, 1.0), (1e4, 1.0)] {
            assert!((Bar::against("errors", value, 200.0, "roll back").part() - part).abs() < 1e-6, "{value}");
        }
    }
}
