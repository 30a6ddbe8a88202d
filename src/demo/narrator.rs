//! What the viewer reads: a line for each beat, and a table at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use owo_colors::OwoColorize;

use super::load::{Outcome, Seen};
use crate::control::api::Receipt;

const BAR: usize = 30;

pub struct Narrator {
    began: Instant,
    colour: bool,
}

/// What one version did over a span of time.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub requests: usize,
    pub failed: usize,
    took: Vec<Duration>,
}

impl Tally {
    /// The slowest of the fastest `share` of requests.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(at).copied().unwrap_or_default()
    }
}

/// By version; requests that nobody answered are under `-`.
pub fn by_version(seen: &[Seen]) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for seen in seen {
        let tally = tallies.entry(seen.version.clone().unwrap_or_else(|| "-".into())).or_default();
        tally.requests += 1;
        tally.failed += usize::from(seen.outcome != Outcome::Ok);
        tally.took.push(seen.took);
    }
    tallies
}

impl Narrator {
    pub fn new() -> Narrator {
        let colour =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Narrator { began: Instant::now(), colour }
    }

    pub fn title(&self, text: &str) {
        match self.colour {
            true => println!("\n{} {}", self.clock().dimmed(), text.bold()),
            false => println!("\n{} {text}", self.clock()),
        }
    }

    pub fn say(&self, text: &str) {
        println!("{} {text}", self.clock());
    }

    /// One line: the share of each version, its speed, and what went wrong.
    pub fn beat(&self, seen: &[Seen]) {
        let tallies = by_version(seen);
        let total = seen.len().max(1);
        let mut line = String::new();
        for (version, tally) in &tallies {
            let width = (tally.requests * BAR).div_ceil(total);
            let bar = "█".repeat(width);
            let bar = match (self.colour, version.as_str()) {
                (true, "v1") => bar.blue().to_string(),
                (true, "v2") => bar.green().to_string(),
                (true, _) => bar.yellow().to_string(),
                (false, _) => bar,
            };
            let share = tally.requests as f64 * 100.0 / total as f64;
            let _ = write!(line, " {version} {bar} {share:.0}%");
        }
        let failed: usize = tallies.values().map(|tally| tally.failed).sum();
        let all = Tally { took: seen.iter().map(|seen| seen.took).collect(), ..Tally::default() };
        let failed = match (self.colour, failed) {
            (true, 1..) => format!("{failed} errors").red().to_string(),
            (_, failed) => format!("{failed} errors"),
        };
        let first = seen.iter().map(|seen| seen.started).min();
        let span = first.map_or(1.0, |first| first.elapsed().as_secs_f64());
        let rate = seen.len() as f64 / span.max(1e-3);
        println!("{} {line}  | {rate:.0}/s  p99 {:.1} ms  {failed}", self.clock(), millis(all.quantile(0.99)));
    }

    pub fn receipt(&self, receipt: &Receipt) {
        let last = match receipt.last_old_start_micros {
            0 => "no request started on the old generation after the trigger".to_string(),
            micros => format!("the last request on the old generation started {micros} us after the trigger"),
        };
        self.say(&format!(
            "  generation {}: flipped in {} us; {last}; {} requests in flight were left to finish",
            receipt.generation, receipt.flip_micros, receipt.in_flight_at_flip
        ));
    }

    fn clock(&self) -> String {
        format!("{:5.1}s", self.began.elapsed().as_secs_f64())
    }
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
