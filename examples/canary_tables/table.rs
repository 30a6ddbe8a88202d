//! Ours beside the reference, and whether that is near enough.

use std::fmt::Write as _;

#[derive(Default)]
pub struct Report {
    pub text: String,
    pub checked: usize,
    pub wrong: usize,
}

/// Median and 95th percentile of a number of requests.
#[derive(Clone, Copy)]
pub struct Delays {
    pub median: f64,
    pub p95: f64,
}

impl Delays {
    /// `None` is "not within the longest run": later than anything.
    pub fn of(runs: &[Option<u64>]) -> Delays {
        let mut sorted: Vec<f64> = runs.iter().map(|at| at.map_or(f64::INFINITY, |at| at as f64)).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[((part * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        Delays { median: at(0.5), p95: at(0.95) }
    }
}

impl Report {
    pub fn title(&mut self, title: &str) {
        let _ = writeln!(self.text, "\n{title}");
    }

    pub fn line(&mut self, what: &str, columns: &str, fits: bool) {
        self.checked += 1;
        self.wrong += usize::from(!fits);
        let _ = writeln!(self.text, "  {what:<46} {columns}{}", if fits { "" } else { "   <-- WRONG" });
    }

    /// Delays of simulated rollouts, beside those of `reference_runs` that were looked at every `step` requests.
    pub fn delays(
        &mut self,
        what: &str,
        ours: &[Option<u64>],
        (median, p95): (f64, f64),
        reference_runs: usize,
        step: f64,
    ) {
        let delays = Delays::of(ours);
        let runs = ours.len().min(reference_runs);
        let fits =
            is_near(delays.median, median, 0.05, 1.2, runs, step) && is_near(delays.p95, p95, 0.10, 2.0, runs, step);
        let columns = format!("{}   p95 {}", beside(delays.median, median), beside(delays.p95, p95));
        self.line(what, &columns, fits);
    }

    /// The median alone.
    pub fn median(&mut self, what: &str, ours: &[Option<u64>], median: f64, reference_runs: usize) {
        let delays = Delays::of(ours);
        let fits = is_near(delays.median, median, 0.05, 1.2, ours.len().min(reference_runs), 1.0);
        self.line(what, &beside(delays.median, median), fits);
    }

    /// How often something happened, beside the reference: no further apart than luck explains.
    pub fn share(&mut self, what: &str, ours: (usize, usize), reference: f64, reference_runs: usize) {
        let (hits, runs) = (ours.0 as f64, ours.1 as f64);
        let rate = hits / runs;
        // Both together are the best guess of the true rate; one hit more keeps it from being none at all.
        let pooled = (hits + reference * reference_runs as f64 + 1.0) / (runs + reference_runs as f64 + 1.0);
        let spread = (pooled * (1.0 - pooled) * (1.0 / runs + 1.0 / reference_runs as f64)).sqrt();
        let fits = (rate - reference).abs() <= 4.0 * spread + 0.5 / reference_runs as f64;
        self.line(what, &format!("{:>8.3} % of {:>7.3} %", rate * 100.0, reference * 100.0), fits);
    }

    /// How often something happened, beside the most that is allowed, with three times the luck of the run.
    pub fn at_most(&mut self, what: &str, (hits, runs): (usize, usize), limit: f64) {
        let expected = limit * runs as f64;
        let fits = hits as f64 <= expected + 3.0 * expected.sqrt();
        let rate = hits as f64 / runs as f64 * 100.0;
        self.line(what, &format!("{rate:>8.3} % ({hits} of {runs}), at most {:.2} %", limit * 100.0), fits);
    }
}

fn beside(ours: f64, reference: f64) -> String {
    format!("{ours:>7} of {reference:>7} {:>+6.1} %", (ours / reference - 1.0) * 100.0)
}

/// Within the fixed part, and twice the luck of so many runs where they are fewer than the 2 000 of most tables. `luck` is
/// the spread of one run's delay in units of it. One look more or less is no difference.
fn is_near(ours: f64, reference: f64, fixed: f64, luck: f64, runs: usize, step: f64) -> bool {
    let luck = if runs < 2_000 { 2.0 * luck / (runs as f64).sqrt() } else { 0.0 };
    (ours - reference).abs() <= ((fixed + luck) * reference + step - 1.0).max(1.0)
}
