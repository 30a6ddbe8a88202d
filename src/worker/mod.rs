//! Builds everything from one configuration; the only place that wires.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `switchback run` was told.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// A configuration file, or a directory of them.
    pub config: PathBuf,
    /// Data threads; default one per core.
    pub threads: Option<usize>,
}

/// Serves until SIGTERM or SIGINT. 0: all work finished; 3: some was cut; 1: could not start.
pub fn run(_options: RunOptions) -> ExitCode {
    unimplemented!()
}
