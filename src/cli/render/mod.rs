//! What people read: tables, ages, colour. Functions from values to text; the clock is handed in.

mod change;
mod chart;
mod evidence;
mod lists;
mod page;
mod report;
mod rollout;
#[cfg(test)]
pub mod samples;
mod simulate;
mod status;

use std::collections::BTreeMap;

use comfy_table::{Cell, Color, Table, presets};
use owo_colors::OwoColorize;

pub use change::{explanation, plan, receipt};
pub use lists::{audit, drain, drained, event, history};
pub use page::page;
pub use report::report;
pub use simulate::simulated;
pub use status::status;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Attention,
    Bad,
    Quiet,
}

/// `text` in its tone, if colour is wanted.
fn paint(text: &str, tone: Tone, colour: bool) -> String {
    match tone {
        Tone::Good if colour => text.green().to_string(),
        Tone::Attention if colour => text.yellow().to_string(),
        Tone::Bad if colour => text.red().to_string(),
        Tone::Quiet if colour => text.dimmed().to_string(),
        Tone::Plain | Tone::Good | Tone::Attention | Tone::Bad | Tone::Quiet => text.to_string(),
    }
}

fn cell(text: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Attention => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Quiet => cell.fg(Color::DarkGrey),
    }
}

/// Aligned columns without lines, each row indented by two spaces.
fn table(header: &[&str], rows: Vec<Vec<Cell>>, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if colour {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table.set_header(header.iter().map(|title| cell(title, Tone::Quiet)).collect::<Vec<_>>());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}

/// "v1 90, v2 10".
fn split(weights: &BTreeMap<String, u32>) -> String {
    let parts: Vec<_> = weights.iter().map(|(version, weight)| format!("{version} {weight}")).collect();
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

/// "2 http, 1 websocket"; kinds without any are left out.
fn counts(counts: &BTreeMap<crate::sessions::Kind, u64>) -> String {
    let parts: Vec<_> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| format!("{n} {}", kind.as_str())).collect();
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

/// "5s", "3m 20s", "2h 5m", "4d 1h".
fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

fn ago(at: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(at)))
}

fn until(at: u64, now: u64) -> String {
    if at <= now { "now".into() } else { format!("in {}", span(at - now)) }
}

/// "2026-11-25 03:59:12Z", without a time zone database.
fn date(at_ms: u64) -> String {
    let (days, second) = ((at_ms / 86_400_000) as i64, at_ms / 1000 % 86_400);
    // Days to year, month, day: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3600, second % 3600 / 60, second % 60)
}

fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        for (at, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_764_038_399_000, "2025-11-25 02:39:59Z"),
            (4_102_444_799_000, "2099-12-31 23:59:59Z"),
        ] {
            assert_eq!(date(at), text);
        }
        for (millis, text) in
            [(5, "5ms"), (59_999, "59s"), (200_000, "3m 20s"), (7_500_000, "2h 5m"), (349_200_000, "4d 1h")]
        {
            assert_eq!(span(millis), text);
        }
        for (us, text) in [(7, "7 µs"), (1500, "1.5 ms"), (2_500_000, "2.50 s")] {
            assert_eq!(micros(us), text);
        }
    }

    #[test]
    fn colour_is_only_there_when_wanted() {
        let rows = || vec![vec![cell("v1", Tone::Good)]];
        assert!(table(&["version"], rows(), true).contains('\x1b'));
        assert!(!table(&["version"], rows(), false).contains('\x1b'));
        assert_eq!(paint("x", Tone::Bad, false), "x");
    }
}
