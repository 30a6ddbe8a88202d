//! The 60-second show: example services, load, narrator.

use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    None,
    Errors,
    Latency,
    Crash,
}

#[derive(Debug, Clone)]
pub struct DemoOptions {
    pub fault: Fault,
    pub duration: Duration,
}

/// 0 only if no client request failed that should not have.
pub fn run(_options: DemoOptions) -> ExitCode {
    unimplemented!()
}
