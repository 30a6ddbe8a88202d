//! Builds everything from one configuration; the only place that wires. And takes it down again.

pub mod instance;
pub mod shutdown;
pub mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::control::Source;
pub use instance::Instance;

/// What `switchback run` was told.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// A configuration file, or a directory of them.
    pub config: PathBuf,
    /// Data threads; default one per core.
    pub threads: Option<usize>,
}

/// Serves until SIGTERM or SIGINT. 0: all work finished; 3: some was cut; 1: could not start.
pub fn run(options: RunOptions) -> ExitCode {
    if let Err(error) = crate::telemetry::logs::init() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let signals = match signals::Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let threads = options.threads.unwrap_or_else(crate::engine::threads::default_count);
    match Instance::start(Source::File(options.config), threads) {
        Ok(instance) => signals::serve(instance, signals),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
