//! Simulates rollouts against the rules that judge them, and prints how often and how soon they act beside what the
//! reference implementation of the algorithm does.
//!
//! ```sh
//! cargo run --release --example canary_tables            # all tables, one to two minutes on two cores
//! cargo run --release --example canary_tables -- --quick # a small run
//! ```
//!
//! Exits with 1 if a number is further from the reference than allowed. Two runs of a simulation differ by luck, so what
//! is allowed has two parts: a fixed one (medians 5 %, 95th percentiles 10 %), and twice the luck of the smaller run where
//! the reference had fewer than 2 000 runs or ours is a small one.

mod dice;
mod errors;
mod latency;
mod promote;
mod robust;
mod table;

use std::process::ExitCode;

use table::Report;

/// How much is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Divides the numbers of runs.
    part: usize,
}

impl Effort {
    const FULL: Effort = Effort { part: 1 };
    const QUICK: Effort = Effort { part: 100 };

    pub fn runs(self, full: usize) -> usize {
        (full / self.part).max(40)
    }
}

fn main() -> ExitCode {
    let effort = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Effort::FULL,
        [only] if only == "--quick" => Effort::QUICK,
        _ => {
            eprintln!("usage: canary_tables [--quick]");
            return ExitCode::from(2);
        }
    };
    let report = all(effort);
    print!("{}", report.text);
    println!("{} of {} numbers are as they should be", report.checked - report.wrong, report.checked);
    if report.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(effort: Effort) -> Report {
    let mut report = Report::default();
    errors::healthy(&mut report, effort);
    errors::detection(&mut report, effort);
    promote::proof(&mut report, effort);
    latency::holds(&mut report, effort);
    robust::incidents(&mut report, effort);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_agrees_with_the_reference() {
        let report = all(Effort::QUICK);
        assert!(report.checked > 100, "{}", report.checked);
        assert_eq!(report.wrong, 0, "{}", report.text);
    }
}
