//! The show: four versions of an example service, the proxy, and clients that never retry, all in this process. A
//! good version is promoted, a bad one goes back by itself. No files, no network but loopback.

mod load;
mod narrator;
mod origin;
mod story;

use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Every version is well behaved
    None,
    /// The third version begins to answer 500: it is rolled back
    Errors,
    /// The third version becomes slow: its rollout pauses
    Latency,
    /// The third version's process dies: it is rolled back
    Crash,
}

#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// What happens to the versions that follow the second, one after the other.
    pub faults: Vec<Fault>,
    /// How long all of it should take, about.
    pub duration: Duration,
}

/// 0 only if no client request failed that should not have.
pub fn run(options: DemoOptions) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the demo cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match story::tell(&runtime, &options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: the demo cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
